//! The binary under test, run in a lab.

use std::{
    ops::{Deref, DerefMut},
    path::Path,
    process::Command,
};

use regex::Regex;

use crate::{Cgroup, Lab, Running, spotsim_binary};

/// A running `spotsim attach`.
#[derive(Debug)]
pub struct Spotsim {
    process: Running,
    /// What it said when it was armed.
    pub armed: Armed,
}

/// The line that says that the notice is armed.
#[derive(Clone, Debug)]
pub struct Armed {
    pub line: String,
    pub action: String,
    /// When the notice appears.
    pub notice: String,
    /// The time in the notice.
    pub deadline: String,
}

impl Armed {
    /// Reads a line that begins `armed: `.
    pub fn parse(line: &str) -> Self {
        let time = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)";
        let shape = format!(r"^armed: .*notice \((\w+)\) at {time}, deadline {time}$");
        let parts = Regex::new(&shape).unwrap().captures(line);
        let parts = parts.unwrap_or_else(|| panic!("not the armed line: {line:?}"));
        Self {
            line: line.to_owned(),
            action: parts[1].to_owned(),
            notice: parts[2].to_owned(),
            deadline: parts[3].to_owned(),
        }
    }

    /// The document that `spot/instance-action` must then be.
    pub fn instance_action(&self) -> String {
        format!(
            r#"{{"action": "{}", "time": "{}"}}"#,
            self.action, self.deadline
        )
    }
}

/// `attach --cgroup …` with further arguments.
pub fn attach_args<'a>(cgroup: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["attach", "--cgroup", cgroup.to_str().unwrap()];
    args.extend(more);
    args
}

impl Spotsim {
    /// Attaches to the lab's target, with the lab's own IMDS for upstream, and waits until that
    /// is armed.
    pub fn attach(lab: &Lab, more: &[&str]) -> Self {
        let mut options = vec!["--upstream", "real"];
        options.extend(more);
        Self::attach_to(lab, &lab.target, &options)
    }

    /// Attaches to a cgroup of choice, with just these options.
    pub fn attach_to(lab: &Lab, cgroup: &Cgroup, options: &[&str]) -> Self {
        let args = attach_args(cgroup.directory(), options);
        let mut process = Running::start(Self::command(lab, &args));
        let line = process.stdout_line("armed: ", 0);
        Self {
            process,
            armed: Armed::parse(&line),
        }
    }

    /// The command, to be run in spotsim's own place.
    pub fn command(lab: &Lab, args: &[&str]) -> Command {
        let mut command = lab.daemon_place().command(spotsim_binary());
        command.args(args);
        command
    }

    /// The process, to be finished.
    pub fn into_process(self) -> Running {
        self.process
    }
}

impl Deref for Spotsim {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.process
    }
}

impl DerefMut for Spotsim {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.process
    }
}
