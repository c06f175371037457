//! Who is found for a template's targets, and what becomes of it when nobody is.

use tests::Cgroup;

use super::{Group, NOTICE, changed, template, told};

#[test]
fn a_target_that_nothing_matches_fails_the_experiment_or_is_skipped() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let nobody = ("\"app\": \"web\"", "\"app\": \"db\"");
    let text = changed("one-of-a-tag.json", &[nobody]);
    let finished = group.run("one.json", &text, &[]).finish();
    assert_eq!(finished.code, 1, "{}", finished.stderr);
    assert_eq!(
        told(&finished.text()),
        [
            "experiment: initiating",
            "action interruptSpotInstance: cancelled",
            "experiment: failed: target oneSpotInstance: nothing matches",
        ]
    );
    let skip = (
        "\"emptyTargetResolutionMode\": \"fail\"",
        "\"emptyTargetResolutionMode\": \"skip\"",
    );
    let text = changed("one-of-a-tag.json", &[nobody, skip]);
    let finished = group.run("one.json", &text, &[]).finish();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_eq!(
        told(&finished.text()),
        [
            "experiment: initiating",
            "experiment: running",
            "action interruptSpotInstance: skipped: nothing was found for its target",
            "experiment: completed",
        ]
    );
}

#[test]
fn of_fewer_than_there_are_to_be_all_are_taken() {
    let Some(group) = Group::new(&["a", "b"]) else {
        return;
    };
    let text = changed("one-of-a-tag.json", &[("COUNT(1)", "COUNT(3)")]);
    let finished = group.run("one.json", &text, &["--actions-mode", "skip-all"]);
    let finished = finished.finish();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_eq!(finished.text().matches("oneSpotInstance").count(), 2);
    let warning = "target oneSpotInstance: only 2 match where count(3) was wanted; all are taken";
    assert!(finished.stderr.contains(warning), "{}", finished.stderr);
}

#[test]
fn a_cgroup_without_processes_is_not_running() {
    let Some(mut group) = Group::new(&["a"]) else {
        return;
    };
    let empty: Cgroup = group.lab.target.child("empty");
    group.cgroups.push(empty);
    let text = changed("one-of-a-tag.json", &[("COUNT(1)", "ALL")]);
    let table = |text: &str| {
        let skip = ["--actions-mode", "skip-all"];
        let finished = group.run("one.json", text, &skip).finish();
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        let rows = finished.text();
        rows.lines()
            .filter(|row| row.starts_with("oneSpot"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let running = table(&text);
    assert_eq!(running.len(), 1, "{running:?}");
    assert!(running[0].ends_with("/target/a"), "{running:?}");
    let stopped = table(&text.replace("\"running\"", "\"stopped\""));
    assert!(
        stopped.len() == 1 && stopped[0].ends_with("/target/empty"),
        "{stopped:?}"
    );
    // Nobody was attached to.
    assert_eq!(group.who_sees(NOTICE), [0; 0]);
}

#[test]
fn an_instance_is_chosen_by_its_arn() {
    let Some(group) = Group::new(&["a", "b"]) else {
        return;
    };
    // It is that of the synthetic instance, in the lab's zone.
    let text = template("Spot.template.json");
    let skip = ["--actions-mode", "skip-all", "--resource", "OneSpot3F21"];
    let finished = group.run("Spot.template.json", &text, &skip).finish();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_eq!(
        finished.text().matches("one     cgroup ").count(),
        2,
        "{}",
        finished.text()
    );
    for (from, to) in [
        ("i-0123456789abcdef0", "i-0fedcba9876543210"),
        (":eu-central-1:", ":eu-west-1:"),
    ] {
        let text = changed("Spot.template.json", &[(from, to)]);
        let finished = group.run("Spot.template.json", &text, &skip).finish();
        assert_eq!(finished.code, 1, "{to}: {}", finished.text());
    }
}
