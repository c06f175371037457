//! `spotsim run --at-deadline`: a test of how a command ends, in one line.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Finished, Lab, Running, run};

use super::{command, records, spotsim};

fn args<'a>(options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let mut args = vec!["run", "--upstream", "synthetic", "--id", "it"];
    if !options.contains(&"--lead") {
        args.extend(["--lead", "1s"]);
    }
    args.extend(options);
    args.extend(["--", "sh", "-c", script]);
    args
}

fn spotsim_run(lab: &Lab, options: &[&str], script: &str) -> Finished {
    let finished = spotsim(lab, &args(options, script));
    assert_eq!(lab.daemon.children(), [""; 0], "a cgroup is left");
    assert_eq!(records(lab).len(), 0, "a record is left");
    finished
}

const POLITE: &str = r#"trap "echo got; exit 0" TERM; while :; do sleep 0.05; done"#;

#[test]
fn the_commands_own_code_if_it_ended_before_and_124_if_not() {
    let Some(lab) = Lab::bare() else { return };
    for what in ["term", "kill", "freeze", "cut"] {
        for code in [0, 3] {
            let script = format!("exit {code}");
            let finished = spotsim_run(&lab, &["--at-deadline", what], &script);
            assert_eq!(finished.code, code, "{what}: {}", finished.stderr);
        }
    }
    let stubborn = r#"trap "" TERM; while :; do sleep 0.05; done"#;
    for (options, script, output) in [
        (&["--at-deadline", "term"][..], POLITE, "got\n"),
        (&["--at-deadline", "term", "--grace", "1s"], stubborn, ""),
        (&["--at-deadline", "kill"], POLITE, ""),
        // It goes on, without a network.
        (&["--at-deadline", "cut"], "sleep 3; echo over", "over\n"),
        // Nothing is done to it.
        (&[], "sleep 3; exit 5", ""),
    ] {
        let finished = spotsim_run(&lab, options, script);
        let expected = if options.is_empty() { 5 } else { 124 };
        assert_eq!(finished.code, expected, "{options:?}: {}", finished.stderr);
        assert_eq!(finished.text(), output, "{options:?}");
        let told = finished.stderr.contains("still running at the deadline: ");
        assert_eq!(told, !options.is_empty(), "{}", finished.stderr);
    }
}

/// A poller of the notice that ends because of it passes.
#[test]
fn one_that_heeds_the_notice_passes() {
    let Some(lab) = Lab::bare() else { return };
    let script = "until curl -sf http://169.254.169.254/latest/meta-data/spot/instance-action; \
                  do sleep 0.1; done; echo; echo draining";
    let options = [
        "--at-deadline",
        "term",
        "--lead",
        "10s",
        "--notice-after",
        "500ms",
    ];
    let finished = spotsim_run(&lab, &options, script);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(finished.text().ends_with("draining\n"));
}

/// A frozen command hears no signal; yet it ends when it is told to.
#[test]
fn a_frozen_command_is_thawed_to_end() {
    let Some(lab) = Lab::bare() else { return };
    let script = r#"trap "echo got; exit 9" INT TERM; echo up; while :; do sleep 0.05; done"#;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut running =
            Running::start(command(&lab, &args(&["--at-deadline", "freeze"], script)));
        running.stdout_line("up", 0);
        super::effect(&lab, "done");
        assert_eq!(records(&lab).len(), 1);
        running.signal(signal);
        let began = Instant::now();
        let finished = running.finish();
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(finished.code, 124, "{}", finished.stderr);
        assert_eq!(finished.text(), "up\ngot\n");
        assert_eq!(records(&lab).len(), 0);
        assert_eq!(lab.daemon.children(), [""; 0]);
    }
    // And goes on when the interception is over before.
    for (options, detach) in [
        (&["--at-deadline", "freeze", "--for", "4s"][..], false),
        (&["--at-deadline", "freeze"], true),
    ] {
        let script = "echo up; sleep 2.5; echo over; exit 3";
        let mut running = Running::start(command(&lab, &args(options, script)));
        running.stdout_line("up", 0);
        super::effect(&lab, "done");
        if detach {
            spotsim(&lab, &["detach", "it"]).expect("detach");
        }
        let finished = running.finish();
        assert_eq!(
            (finished.code, finished.text().as_str()),
            (124, "up\nover\n")
        );
        assert_eq!(records(&lab).len(), 0);
    }
}

/// Its guard ends what is frozen; the record that is left is of a cgroup that is gone.
#[test]
fn a_killed_run_leaves_nothing_frozen() {
    let Some(lab) = Lab::bare() else { return };
    let script = "echo up; sleep 600";
    let mut running = Running::start(command(&lab, &args(&["--at-deadline", "freeze"], script)));
    running.stdout_line("up", 0);
    super::effect(&lab, "done");
    running.signal(Signal::SIGKILL);
    assert_eq!(running.finish().code, 128 + 9);
    tests::wait_until("the command's cgroup is gone", || {
        lab.daemon.children().is_empty().then_some(())
    });
    let list = spotsim(&lab, &["list"]);
    assert!(!list.stderr.contains("thaw"), "{}", list.stderr);
    assert_eq!(records(&lab).len(), 0);
}

/// What a parser of XML makes of a report.
fn report(path: &Path) -> Value {
    let script = r#"
import json, sys, xml.etree.ElementTree as tree
root = tree.parse(sys.argv[1]).getroot()
def plain(e):
    return {"tag": e.tag, "attributes": e.attrib, "text": (e.text or "").strip(), "children": [plain(c) for c in e]}
print(json.dumps(plain(root)))"#;
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(path);
    let parsed = run(python, b"").expect("the report is XML");
    serde_json::from_str(&parsed).unwrap()
}

#[test]
fn the_verdict_is_reported() {
    let Some(lab) = Lab::bare() else { return };
    let file = lab.directory.join("report.xml");
    let junit = ["--junit", file.to_str().unwrap()];
    let with = |more: &[&str], script: &str| -> (i32, Value) {
        let options = [&junit[..], more].concat();
        let code = spotsim_run(&lab, &options, script).code;
        (code, report(&file))
    };
    let counts = |report: &Value| -> [String; 4] {
        let attributes = &report["children"][0]["attributes"];
        ["tests", "failures", "errors", "skipped"]
            .map(|name| attributes[name].as_str().unwrap().to_owned())
    };
    let case = |report: &Value| -> Value {
        assert_eq!(report["tag"], "testsuites");
        let suite = &report["children"][0];
        assert_eq!(suite["tag"], "testsuite");
        let case = suite["children"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone();
        assert_eq!(case["tag"], "testcase");
        case
    };
    let (code, passed) = with(&["--at-deadline", "term"], "sleep 0.3");
    assert_eq!(code, 0);
    assert_eq!(counts(&passed), ["1", "0", "0", "0"]);
    assert_eq!(case(&passed)["children"].as_array().unwrap().len(), 0);
    assert_eq!(case(&passed)["attributes"]["name"], "sh -c sleep 0.3");
    let time: f64 = case(&passed)["attributes"]["time"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((0.3..5.0).contains(&time), "{time}");
    let properties = passed["children"][0]["children"][0]["children"]
        .as_array()
        .unwrap();
    let property = |at: usize| properties[at]["attributes"]["name"].as_str().unwrap();
    assert_eq!([property(0), property(1)], ["notice", "deadline"]);

    let (code, failed) = with(&["--at-deadline", "term"], "exec sleep 600 # <\"&\x01>");
    assert_eq!(code, 124);
    assert_eq!(counts(&failed), ["1", "1", "0", "0"]);
    let failure = &case(&failed)["children"][0];
    assert_eq!(failure["tag"], "failure");
    let message = failure["attributes"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("still running at the deadline: sleep ("),
        "{message}"
    );
    assert_eq!(
        case(&failed)["attributes"]["name"],
        "sh -c exec sleep 600 # <\"&\\u{1}>"
    );

    let (code, failed) = with(&[], "exit 3");
    assert_eq!(
        (code, counts(&failed)),
        (3, ["1", "1", "0", "0"].map(str::to_owned))
    );
    let message = &case(&failed)["children"][0]["attributes"]["message"];
    assert_eq!(message, "the command ended with exit code 3");

    let nobody = [
        "run",
        "--upstream",
        "synthetic",
        "--junit",
        junit[1],
        "--",
        "no-such-program",
    ];
    let finished = spotsim(&lab, &nobody);
    assert_eq!(finished.code, 127);
    let error = report(&file);
    assert_eq!(counts(&error), ["1", "0", "1", "0"]);
    let message = case(&error)["children"][0]["attributes"]["message"].clone();
    assert!(
        message
            .as_str()
            .unwrap()
            .contains("cannot execute no-such-program"),
        "{message}"
    );
}

/// A run that does not come to its end has not passed, whatever an earlier one has left there.
#[test]
fn there_is_a_report_from_the_beginning() {
    let Some(lab) = Lab::bare() else { return };
    let file = lab.directory.join("report.xml");
    fs::write(&file, "what an earlier one has left").unwrap();
    let options = ["--junit", file.to_str().unwrap()];
    let mut running = Running::start(command(&lab, &args(&options, "echo up; sleep 600")));
    running.stdout_line("up", 0);
    running.signal(Signal::SIGKILL);
    running.finish();
    let report = report(&file);
    assert_eq!(report["attributes"]["errors"], "1");
    // And where there can be none, nothing is run.
    let options = ["--junit", "/proc/no-such-directory/report.xml"];
    let finished = spotsim_run(&lab, &options, "echo ran");
    assert_eq!((finished.code, finished.text().as_str()), (1, ""));
    assert_eq!(finished.stderr.lines().count(), 1);
}
