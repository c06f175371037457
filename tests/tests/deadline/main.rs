//! What is done to a target at its deadline, and to nobody else.

mod asked;
mod cut;
mod ended;
mod frozen;
mod refused;
mod run;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::{
    Cgroup, Finished, Lab, Place, Running, attach_args, in_run_dir, run, spotsim_binary, wait_until,
};

/// spotsim in a lab whose `/run` is the lab's own: what it records there is no other test's.
fn command(lab: &Lab, args: &[&str]) -> Command {
    let mut command = place(lab).command(spotsim_binary());
    command.args(in_run_dir(lab, args));
    command
}

fn place(lab: &Lab) -> Place {
    let run = lab.directory.join("default");
    fs::create_dir_all(&run).unwrap();
    lab.daemon_place().with_bind(&run, Path::new("/run"))
}

fn spotsim(lab: &Lab, args: &[&str]) -> Finished {
    run(command(lab, args), b"")
}

/// The words of a spotsim command line, for a script in its place.
fn script_line(lab: &Lab, args: &[&str]) -> String {
    let mut words = vec![spotsim_binary().to_str().unwrap().to_owned()];
    words.extend(in_run_dir(lab, args));
    let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    quoted.join(" ")
}

/// The records of what is frozen.
fn records(lab: &Lab) -> Vec<PathBuf> {
    let directory = lab.directory.join("default/spotsim");
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "frozen"))
        .collect()
}

/// `attach` to the lab's target, with something to be done after a second or two.
fn attach(lab: &Lab, effect: &str, more: &[&str]) -> Running {
    attach_to(lab, lab.target.directory(), effect, more)
}

fn attach_to(lab: &Lab, directory: &Path, effect: &str, more: &[&str]) -> Running {
    let usual = [
        ("--upstream", "synthetic"),
        ("--lead", "1s"),
        ("--id", "it"),
    ];
    let mut options = vec!["--at-deadline", effect, "--yes"];
    for (option, value) in usual {
        if !more.contains(&option) {
            options.extend([option, value]);
        }
    }
    options.extend(more);
    let args = attach_args(directory, &options);
    let mut process = Running::start(command(lab, &args));
    process.stdout_line("armed: ", 0);
    process
}

/// A shell script in a place, which has said `up`.
fn shell(place: &Place, script: &str) -> Running {
    let mut running = Running::start(place.command_line(["sh", "-c", script]));
    running.stdout_line("up", 0);
    running
}

/// One that says something all the time.
fn ticker(place: &Place) -> Running {
    shell(place, "echo up; while :; do echo tick; sleep 0.05; done")
}

/// Does it go on saying something?
fn ticks(ticker: &Running) -> bool {
    let before = ticker.stdout().len();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(600) {
        if ticker.stdout().len() > before {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// What `status` says of the effect on the only target, once it has begun and is in this state.
fn effect(lab: &Lab, state: &str) -> Value {
    wait_until(&format!("the effect is {state}"), || {
        let status = spotsim(lab, &["status", "it", "--json"]);
        // On a busy machine there may be no answer in time.
        if status.code != 0 {
            return None;
        }
        let status: Value = serde_json::from_str(&status.text()).unwrap();
        let effect = status["targets"][0]["effect"].clone();
        (effect["state"] == state).then_some(effect)
    })
}

/// The file of a cgroup, without the newline.
fn file(cgroup: &Cgroup, name: &str) -> String {
    let text = fs::read_to_string(cgroup.directory().join(name)).unwrap();
    text.trim_end().to_owned()
}

/// Writes to a file of a cgroup that the test has made.
fn write(cgroup: &Cgroup, name: &str, text: &str) {
    assert!(
        cgroup
            .directory()
            .to_str()
            .unwrap()
            .contains("spotsim-tests-")
    );
    fs::write(cgroup.directory().join(name), text).unwrap();
}

fn is_frozen(cgroup: &Cgroup) -> bool {
    file(cgroup, "cgroup.events")
        .lines()
        .any(|line| line == "frozen 1")
}
