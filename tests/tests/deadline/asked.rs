//! Before something is done to somebody, somebody is asked.

use serde_json::Value;
use tests::{Lab, Running, attach_args, is_running};

use super::{effect, place, script_line, spotsim, ticker};

fn args<'a>(lab: &'a Lab, more: &[&'a str]) -> Vec<&'a str> {
    let options = ["--upstream", "synthetic", "--lead", "1s", "--id", "it"];
    attach_args(lab.target.directory(), &[&options, more].concat())
}

#[test]
fn where_nobody_can_be_asked_it_must_be_said() {
    let Some(lab) = Lab::bare() else { return };
    let _inside = ticker(&lab.inside());
    for what in ["term", "kill", "freeze", "cut"] {
        let finished = spotsim(&lab, &args(&lab, &["--at-deadline", what]));
        assert_eq!(finished.code, 2, "{}", finished.stderr);
        let line = format!(
            "spotsim: error: --at-deadline {what} needs --yes where there is no terminal to ask on\n"
        );
        assert_eq!(finished.stderr, line);
    }
}

#[test]
fn options_that_make_no_sense() {
    let Some(lab) = Lab::bare() else { return };
    for (more, reason) in [
        (
            &["--grace", "1s"][..],
            "--grace goes with --at-deadline term",
        ),
        (
            &["--at-deadline", "kill", "--yes", "--grace", "1s"],
            "--grace goes with",
        ),
        (
            &["--at-deadline", "stop"],
            "use one of none, term, kill, freeze, cut",
        ),
        (&["--at-deadline", "term", "--grace", "-1s"], "a duration"),
    ] {
        let finished = spotsim(&lab, &args(&lab, more));
        assert_eq!(finished.code, 2, "{}", finished.stderr);
        assert!(finished.stderr.contains(reason), "{}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    }
}

/// `attach` on a terminal of its own: what is written to it is typed.
fn on_a_terminal(lab: &Lab, args: &[&str]) -> Running {
    let script = format!("exec {}", script_line(lab, args));
    let line = ["script", "-q", "-e", "-c", &script, "/dev/null"];
    Running::start(place(lab).command_line(line))
}

#[test]
fn on_a_terminal_it_is_asked() {
    let Some(lab) = Lab::bare() else { return };
    let inside = ticker(&lab.inside());
    let args = args(&lab, &["--at-deadline", "kill"]);
    for (answer, killed) in [
        ("n\n", false),
        ("\n", false),
        ("\x04", false),
        ("y\n", true),
    ] {
        let mut terminal = on_a_terminal(&lab, &args);
        terminal.stdout_line("At the deadline SIGKILL is sent to", 0);
        let target = format!("  cgroup {} (2 processes)", lab.target.path().display());
        // One of them, a `sleep`, is now and then between two.
        let shown = terminal.stdout_line("cgroup ", 0);
        assert!(
            shown.contains(&target) || shown.contains("(1 process)"),
            "{shown}"
        );
        tests::wait_until("the question", || {
            terminal.stdout().contains("Go on? [y/N] ").then_some(())
        });
        terminal.write(answer.as_bytes());
        if killed {
            terminal.stdout_line("armed: ", 0);
            effect(&lab, "done");
            assert!(!is_running(inside.pid() as i32));
            return;
        }
        terminal.stdout_line("the answer was no: nothing is attached", 0);
        assert_eq!(terminal.finish().code, 1, "{answer:?}");
        assert!(is_running(inside.pid() as i32), "{answer:?}");
    }
}

#[test]
fn a_dry_run_shows_the_processes() {
    let Some(lab) = Lab::bare() else { return };
    let one = lab.inside().sleeper();
    let other = lab.inside().sleeper();
    let mut pids = [one.pid(), other.pid()];
    pids.sort_unstable();
    let dry = ["--dry-run", "--at-deadline", "freeze"];
    let table = spotsim(&lab, &args(&lab, &dry)).expect("a dry run");
    let mut lines = table.lines();
    assert!(lines.next().unwrap().ends_with("  PIDS"), "{table}");
    let row = lines.next().unwrap();
    let mut shown: Vec<u32> = row
        .rsplit_once("  ")
        .unwrap()
        .1
        .split(',')
        .map(|pid| pid.parse().unwrap())
        .collect();
    shown.sort_unstable();
    assert_eq!(shown, pids);
    let json = [&dry[..], &["--json"]].concat();
    let json = spotsim(&lab, &args(&lab, &json)).expect("a dry run");
    let json: Value = serde_json::from_str(&json).unwrap();
    let processes = json[0]["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 2);
    assert!(processes.iter().all(|process| process["name"] == "sleep"));
    // Without an effect nobody needs to know.
    let json = spotsim(&lab, &args(&lab, &["--dry-run", "--json"])).expect("a dry run");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0].get("processes"), None);
    assert_eq!(super::records(&lab).len(), 0);
}
