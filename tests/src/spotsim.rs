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

/// The words of a command that may have so many descriptors; its own come behind them.
pub fn with_descriptors(most: u32) -> [String; 3] {
    let script = format!(r#"ulimit -n {most} && exec "$0" "$@""#);
    ["sh", "-c", &script].map(str::to_owned)
}

/// Arguments with the lab's run directory, where they have a verb that knows one.
pub fn in_run_dir(lab: &Lab, args: &[&str]) -> Vec<String> {
    const VERBS: [&str; 10] = [
        "attach",
        "experiment",
        "run",
        "serve",
        "trigger",
        "cancel",
        "detach",
        "list",
        "status",
        "watch",
    ];
    let mut args: Vec<_> = args.iter().map(|word| (*word).to_owned()).collect();
    let knows = args
        .first()
        .is_some_and(|verb| VERBS.contains(&verb.as_str()));
    if knows && !args.iter().any(|word| word == "--run-dir") {
        let directory = lab.run_dir().display().to_string();
        // Behind the verb's own verb.
        let behind = if args[0] == "experiment" { 2 } else { 1 };
        args.splice(behind..behind, ["--run-dir".to_owned(), directory]);
    }
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

    /// Attaches to the lab's target with whatever is announced, a notice or not, and waits
    /// until that is armed.
    pub fn announce(lab: &Lab, options: &[&str]) -> Running {
        let args = attach_args(lab.target.directory(), options);
        let mut process = Running::start(Self::command(lab, &args));
        process.stdout_line("armed: ", 0);
        process
    }

    /// Attaches to the lab's target with a synthetic upstream, under this ID, and announces
    /// nothing yet.
    pub fn hold(lab: &Lab, id: &str, more: &[&str]) -> Running {
        let options = ["--hold", "--id", id, "--upstream", "synthetic"];
        let options = [&options, more].concat();
        let args = attach_args(lab.target.directory(), &options);
        let mut process = Running::start(Self::command(lab, &args));
        process.stdout_line("armed: ", 0);
        process
    }

    /// The command, to be run in spotsim's own place. Its control sockets are in the lab's run
    /// directory.
    pub fn command(lab: &Lab, args: &[&str]) -> Command {
        let mut command = lab.daemon_place().command(spotsim_binary());
        command.args(in_run_dir(lab, args));
        command
    }

    /// Attaches to the lab's target with just these options; it may have so many descriptors, of
    /// which the upper half is for links.
    pub fn limited(lab: &Lab, descriptors: u32, options: &[&str]) -> Running {
        let args = attach_args(lab.target.directory(), options);
        let mut command = lab
            .daemon_place()
            .command_line(with_descriptors(descriptors));
        command.arg(spotsim_binary()).args(in_run_dir(lab, &args));
        Running::start(command)
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
