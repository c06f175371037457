//! One container of a pod.

use std::{fs, path::PathBuf, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    Finished,
    node::cri::{Cri, messages::ContainerState},
    wait_until,
};

/// A container that was started. It lives until it is removed, by itself or with its pod.
#[derive(Debug)]
pub struct Container<'node> {
    cri: &'node Cri,
    id: String,
    log: PathBuf,
}

/// What `pod get` made of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// When it began: microseconds since 1970.
    pub at_us: u64,
    /// The status and the body, or what went wrong.
    pub answer: Result<(u16, String), String>,
}

impl<'node> Container<'node> {
    /// One that was started, with its log.
    pub(super) fn new(cri: &'node Cri, id: String, log: PathBuf) -> Self {
        Self { cri, id, log }
    }

    /// The runtime's ID: 64 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its first process, by the number that the host knows it by.
    pub fn pid(&self) -> i32 {
        let (_, info) = self.cri.container_status(&self.id);
        info["pid"].as_i64().unwrap() as i32
    }

    /// Runs `src/bin/pod.rs` with arguments inside, to its end.
    pub fn exec(&self, args: &[&str]) -> Finished {
        self.cri.exec_sync(&self.id, &[&["/pod"], args].concat())
    }

    /// What a GET gets from inside: of a path of IMDS, without a token.
    pub fn get(&self, path: &str) -> Asked {
        self.get_with(&[path])
    }

    /// As [`Container::get`], with a token that was fetched before.
    pub fn get_with_token(&self, path: &str) -> Asked {
        self.get_with(&["--v2", path])
    }

    /// As [`Container::get`], with all arguments of one `pod get`.
    pub fn get_with(&self, args: &[&str]) -> Asked {
        let finished = self.exec(&[&["get"], args].concat());
        Asked::parse(&finished.expect("pod get"))
    }

    /// What it has printed to stdout so far, in whole lines.
    pub fn stdout(&self) -> Vec<String> {
        self.printed("stdout")
    }

    /// What it has printed to stderr so far, in whole lines.
    pub fn stderr(&self) -> Vec<String> {
        self.printed("stderr")
    }

    fn printed(&self, to: &str) -> Vec<String> {
        // There is none before the first line.
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let whole = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
        // `TIME STREAM F LINE`, as kubelet's logs are.
        let lines = whole.lines().filter_map(|line| {
            let mut parts = line.splitn(4, ' ').skip(1);
            (parts.next()? == to).then(|| parts.nth(1).unwrap_or_default().to_owned())
        });
        lines.collect()
    }

    /// What its requests got so far, where it was started with `get`.
    pub fn asked(&self) -> Vec<Asked> {
        let lines = self.stdout();
        lines.iter().map(|line| Asked::parse(line)).collect()
    }

    /// Kills it, as a lack of memory does.
    pub fn kill(&self) {
        kill(Pid::from_raw(self.pid()), Signal::SIGKILL).unwrap();
        self.wait();
    }

    /// Ends it as kubelet does, without a grace period.
    pub fn stop(&self) {
        self.cri.stop_container(&self.id, Duration::ZERO);
    }

    /// Waits for its end and returns its exit code.
    pub fn wait(&self) -> i32 {
        wait_until("the container's end", || {
            let (status, _) = self.cri.container_status(&self.id);
            (status.state() == ContainerState::Exited).then_some(status.exit_code)
        })
    }

    /// Removes it, which may still run.
    pub fn remove(self) {
        self.cri.remove_container(&self.id);
    }
}

impl Asked {
    fn parse(line: &str) -> Self {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("not a line of `pod get`: {line:?}: {error}");
        });
        let answer = match line["status"].as_u64() {
            Some(status) => {
                let body = line["body"].as_str().unwrap();
                Ok((u16::try_from(status).unwrap(), body.to_owned()))
            }
            None => Err(line["error"].as_str().unwrap().to_owned()),
        };
        let at_us = line["at_us"].as_u64().unwrap();
        Self { at_us, answer }
    }

    /// The status; panics where there was no answer.
    pub fn status(&self) -> u16 {
        self.expect().0
    }

    /// The body; panics where there was no answer.
    pub fn body(&self) -> &str {
        &self.expect().1
    }

    fn expect(&self) -> &(u16, String) {
        let answer = self.answer.as_ref();
        answer.unwrap_or_else(|error| panic!("no answer: {error}"))
    }
}
