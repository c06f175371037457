//! A percentage of an Auto Scaling group, as the EC2 Spot workshops have it.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::wait_until;

use super::{Group, NOTICE, REBALANCE, changed, sees, template, told};

#[test]
fn half_of_a_group_is_interrupted_and_nobody_else() {
    let Some(group) = Group::new(&["a", "b", "c", "d"]) else {
        return;
    };
    let beside = group.lab.outside();
    let text = changed("half-of-a-group.json", &[("PT2M", "PT4S")]);
    let mut run = group.run("half.json", &text, &["--allow-short"]);
    run.stdout_line("action interruptSpotInstances: completed", 0);
    let chosen = group.who_sees(NOTICE);
    assert_eq!(chosen.len(), 2, "{chosen:?}");
    assert_eq!(group.who_sees(REBALANCE), chosen);
    assert!(!sees(&beside, NOTICE));
    let finished = run.finish();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_eq!(
        told(&finished.text()),
        [
            "experiment: initiating",
            "experiment: running",
            "action interruptSpotInstances: initiating",
            "action interruptSpotInstances: running",
            "action interruptSpotInstances: completed",
            "experiment: completed",
        ]
    );
    assert_eq!(group.who_sees(NOTICE), [0; 0]);
}

#[test]
fn a_seed_chooses_the_same_again() {
    let Some(group) = Group::new(&["a", "b", "c", "d", "e", "f"]) else {
        return;
    };
    let text = template("half-of-a-group.json");
    let chosen = |seed: &str| {
        let skip = ["--actions-mode", "skip-all", "--json", "--seed", seed];
        let finished = group.run("half.json", &text, &skip).finish();
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        let array = finished
            .text()
            .lines()
            .find(|line| line.starts_with('['))
            .unwrap()
            .to_owned();
        let rows: Vec<Value> = serde_json::from_str(&array).unwrap();
        assert_eq!(rows.len(), 3, "{array}");
        rows.iter()
            .map(|row| row["cgroup"].to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(chosen("7"), chosen("7"));
    let others = (0..20).map(|seed| chosen(&seed.to_string()));
    assert!(others.into_iter().any(|others| others != chosen("7")));
}

/// As it would be given to FIS: the recommendation and the notice come together, two minutes
/// before the deadline.
#[test]
fn two_minutes_as_they_are() {
    let Some(group) = Group::new(&["a", "b"]) else {
        return;
    };
    let text = template("one-of-a-tag.json");
    let mut run = group.run("one.json", &text, &[]);
    let line = run.stdout_line("action interruptSpotInstance: completed", 0);
    assert!(
        line.ends_with("; next: deadline of action interruptSpotInstance in 2m")
            || line.ends_with("; next: deadline of action interruptSpotInstance in 2m 1s"),
        "{line}"
    );
    let chosen = group.who_sees(NOTICE);
    assert_eq!(chosen.len(), 1);
    assert_eq!(group.who_sees(REBALANCE), chosen);
    run.signal(Signal::SIGINT);
    let finished = run.finish();
    assert_eq!(finished.code, 1, "{}", finished.stderr);
    assert_eq!(
        told(&finished.text())[5..],
        [
            "experiment: stopping: it was stopped by a signal",
            "experiment: stopped",
        ]
    );
    assert_eq!(group.who_sees(NOTICE), [0; 0]);
}

/// Three minutes before the interruption, only the recommendation is there.
#[test]
fn the_recommendation_comes_first() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let changes = [("PT2M", "PT2M3S"), ("PERCENT(50)", "ALL")];
    let text = changed("half-of-a-group.json", &changes);
    let mut run = group.run("half.json", &text, &[]);
    let line = run.stdout_line("action interruptSpotInstances: running", 0);
    assert!(
        line.ends_with("; next: notice of action interruptSpotInstances in 3s"),
        "{line}"
    );
    assert_eq!(group.who_sees(REBALANCE), [0]);
    assert_eq!(group.who_sees(NOTICE), [0; 0]);
    run.stdout_line("action interruptSpotInstances: completed", 0);
    assert_eq!(group.who_sees(NOTICE), [0]);
    run.signal(Signal::SIGTERM);
    assert_eq!(run.finish().code, 1);
}

#[test]
fn killed_it_leaves_nothing() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let text = template("one-of-a-tag.json");
    let mut run = group.run("one.json", &text, &[]);
    run.stdout_line("action interruptSpotInstance: completed", 0);
    assert_eq!(group.who_sees(NOTICE), [0]);
    run.kill();
    wait_until("nobody is intercepted", || {
        group.who_sees(NOTICE).is_empty().then_some(())
    });
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(group.who_sees(REBALANCE), [0; 0]);
}
