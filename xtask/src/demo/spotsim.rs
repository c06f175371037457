//! `spotsim attach` as a child of the demo.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{cgroup::Cgroup, shell, workspace};

/// How long it may take to arm, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The running program. Dropped before its time, it is ended and its log printed.
pub struct Spotsim {
    child: Child,
    /// What it logs. The requests are on the screen already, so this is for failures only.
    log: Option<JoinHandle<String>>,
}

impl Spotsim {
    /// Starts this program for the cgroup and waits until it is armed; also returns its line about that.
    pub fn attach(program: &Path, cgroup: &Cgroup) -> Result<(Self, String)> {
        let mut command = Command::new(program);
        command
            .args(["attach", "--cgroup", &cgroup.path()])
            .args(["--upstream", "synthetic"])
            .args(["--notice-after", "4s", "--lead", "2m"])
            // Should the demo be killed, this is when spotsim goes by itself.
            .args(["--for", "1m"])
            .current_dir(workspace::root());
        shell::announce(&shell::line(&command));
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| shell::cannot_start(&command, &error))?;
        let stdout = child.stdout.take().context("spotsim has no stdout")?;
        let stderr = child.stderr.take().context("spotsim has no stderr")?;
        let spotsim = Self {
            child,
            log: Some(thread::spawn(|| collect(stderr))),
        };
        let line = first_line(stdout);
        match line {
            Some(line) if line.starts_with("armed: ") => Ok((spotsim, line)),
            _ => {
                bail!(
                    "spotsim did not arm: it printed {}",
                    line.as_deref().unwrap_or("nothing")
                );
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as Ctrl-C would.
    pub fn interrupt(mut self) -> Result<ExitStatus> {
        self.end()
    }

    fn end(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGINT).context("cannot send SIGINT to spotsim")?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("spotsim did not end within {PATIENCE:?} of SIGINT");
    }
}

impl Drop for Spotsim {
    fn drop(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait()
            && status.success()
        {
            return;
        }
        if self.end().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if let Some(Ok(log)) = self.log.take().map(JoinHandle::join) {
            // A print that panics would end us here, with the cgroup still there.
            let _ = io::stderr().write_all(log.as_bytes());
        }
    }
}

fn collect(mut stderr: ChildStderr) -> String {
    let mut log = Vec::new();
    // What was read before an error is better than nothing.
    let _ = stderr.read_to_end(&mut log);
    String::from_utf8_lossy(&log).into_owned()
}

/// The first line on its standard output, if one comes in time.
fn first_line(stdout: ChildStdout) -> Option<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let line = BufReader::new(stdout).lines().next();
        let _ = sender.send(line);
    });
    receiver.recv_timeout(PATIENCE).ok()??.ok()
}
