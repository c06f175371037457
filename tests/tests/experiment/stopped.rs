//! All the ways in which an experiment is stopped, and what is withdrawn then.

use std::{fs, time::Instant};

use nix::sys::signal::Signal;
use tests::{Spotsim, run, wait_until};

use super::{Group, NOTICE, changed, record, template, told};

#[test]
fn detach_stops_it_and_nobody_else_says_what_is_announced() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let mut it = group.run("one.json", &template("one-of-a-tag.json"), &[]);
    it.stdout_line("action interruptSpotInstance: completed", 0);
    for verb in ["trigger", "cancel"] {
        let refused = run(Spotsim::command(&group.lab, &[verb, "one"]), b"");
        assert_eq!(refused.code, 1, "{verb}");
        assert!(
            refused.stderr.contains("it runs an experiment"),
            "{}",
            refused.stderr
        );
    }
    assert_eq!(group.who_sees(NOTICE), [0]);
    let list = run(Spotsim::command(&group.lab, &["list"]), b"").expect("list");
    assert!(list.contains("experiment"), "{list}");
    let status = run(Spotsim::command(&group.lab, &["status"]), b"").expect("status");
    assert!(status.contains("\nexperiment running\n"), "{status}");
    run(Spotsim::command(&group.lab, &["detach"]), b"").expect("detach");
    let finished = it.finish();
    assert_eq!(finished.code, 1);
    assert_eq!(
        told(&finished.text())[5..],
        [
            "experiment: stopping: it was told to detach",
            "experiment: stopped"
        ]
    );
}

#[test]
fn a_stop_condition_stops_it() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let changes = [
        ("PT3M", "PT2M30S"),
        ("COUNT(1)", "ALL"),
        ("tier: web", "app: web"),
    ];
    let text = changed("two-in-turn.yaml", &changes).replace("            fis-ready: true\n", "");
    let [flag, file] = ["flag", "record.json"].map(|name| group.lab.directory.join(name));
    let command = format!("test -e '{}'", flag.display());
    let options = ["--stop-if", &command, "--record", file.to_str().unwrap()];
    let mut it = group.run("two.yaml", &text, &options);
    it.stdout_line("action interrupt-web: running", 0);
    let began = Instant::now();
    fs::write(&flag, "").unwrap();
    it.stdout_line("experiment: stopping: the condition of --stop-if holds", 0);
    assert!(began.elapsed().as_secs() < 7, "{:?}", began.elapsed());
    let finished = it.finish();
    assert_eq!(finished.code, 1);
    assert_eq!(
        told(&finished.text())[5..],
        [
            "experiment: stopping: the condition of --stop-if holds",
            "action interrupt-web: stopping",
            "action settle: cancelled",
            "action interrupt-web: stopped",
            "experiment: stopped",
        ]
    );
    let record = record(&file);
    assert_eq!(record["state"], "stopped");
    assert_eq!(record["exit_reason"], "the condition of --stop-if holds");
    // Nothing has that tag.
    assert_eq!(record["actions"]["interrupt-batch"], "skipped");
}

#[test]
fn a_condition_that_holds_already_stops_it_before_it_begins() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let options = ["--stop-if", "true"];
    let finished = group
        .run("one.json", &template("one-of-a-tag.json"), &options)
        .finish();
    assert_eq!(finished.code, 1);
    assert_eq!(
        told(&finished.text()),
        [
            "experiment: stopping: the condition of --stop-if held before it began",
            "action interruptSpotInstance: cancelled",
            "experiment: stopped",
        ]
    );
}

/// It is ended each time with all that it started, and is no yes.
#[test]
fn a_condition_that_hangs_is_a_no() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let text = changed("one-of-a-tag.json", &[("PT2M", "PT7S")]);
    let options = ["--allow-short", "--stop-if", "sleep 601 & wait"];
    let finished = group.run("one.json", &text, &options).finish();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("took more than 5s"),
        "{}",
        finished.stderr
    );
    wait_until("no check is left", || {
        group.lab.daemon.processes().is_empty().then_some(())
    });
}

/// The first check may take long. Whoever stops it meanwhile leaves nothing of it.
#[test]
fn it_is_stopped_during_the_first_check() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let options = ["--stop-if", "sleep 602 & wait"];
    let it = group.run("one.json", &template("one-of-a-tag.json"), &options);
    wait_until("it is checked", || {
        (group.lab.daemon.processes().len() > 2).then_some(())
    });
    it.signal(Signal::SIGINT);
    let finished = it.finish();
    assert_eq!(finished.code, 1, "{}", finished.stderr);
    assert_eq!(
        told(&finished.text()),
        [
            "experiment: stopping: it was stopped by a signal",
            "action interruptSpotInstance: cancelled",
            "experiment: stopped",
        ]
    );
    wait_until("no check is left", || {
        group.lab.daemon.processes().is_empty().then_some(())
    });
}

#[test]
fn a_condition_that_cannot_be_checked_is_refused() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let options = ["--stop-if", "/nowhere/check"];
    let finished = group
        .run("one.json", &template("one-of-a-tag.json"), &options)
        .finish();
    assert_eq!((finished.code, finished.text().as_str()), (2, ""));
    let error = "spotsim: error: --stop-if: the shell cannot execute it, and returned 127\n";
    assert!(finished.stderr.ends_with(error), "{}", finished.stderr);
}

#[test]
fn it_fails_when_its_targets_are_gone() {
    let Some(mut group) = Group::new(&["a"]) else {
        return;
    };
    let mut it = group.run("one.json", &template("one-of-a-tag.json"), &[]);
    it.stdout_line("action interruptSpotInstance: completed", 0);
    group.cgroups.remove(0).remove();
    let finished = it.finish();
    assert_eq!(finished.code, 1);
    assert_eq!(
        told(&finished.text())[5..],
        ["experiment: failed: none of its targets is there any more"]
    );
}
