//! What is done at the deadline is part of the experiment.

use nix::sys::signal::Signal;

use super::{Group, changed, record, template};

fn is_frozen(group: &Group) -> bool {
    let events = group.cgroups[0].directory().join("cgroup.events");
    std::fs::read_to_string(events)
        .unwrap()
        .contains("frozen 1")
}

/// A process ignores SIGTERM, and ends later: the experiment waits for that.
#[test]
fn it_is_over_when_that_is_done() {
    let Some(mut group) = Group::new(&["a", "b"]) else {
        return;
    };
    let slow = group.lab.place(&group.lab.node, &group.cgroups[0]);
    let script = "trap '' TERM; echo up; sleep 6";
    let mut slow = tests::Running::start(slow.command_line(["sh", "-c", script]));
    slow.stdout_line("up", 0);
    let changes = [("PT2M", "PT2S"), ("COUNT(1)", "ALL")];
    let text = changed("one-of-a-tag.json", &changes);
    let file = group.lab.directory.join("record.json");
    let options = [
        "--allow-short",
        "--at-deadline",
        "term",
        "--yes",
        "--record",
    ];
    let options = [&options[..], &[file.to_str().unwrap()]].concat();
    let finished = group.run("one.json", &text, &options).finish();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_eq!(slow.finish().code, 0);
    for cgroup in &group.cgroups {
        assert_eq!(cgroup.processes(), [0; 0]);
    }
    let record = record(&file);
    let time =
        |value: &serde_json::Value| -> jiff::Timestamp { value.as_str().unwrap().parse().unwrap() };
    let lasted = time(&record["end_time"]).duration_since(time(&record["start_time"]));
    assert!(lasted.as_secs_f64() > 4.5, "{lasted}");
    group.cgroups.clear();
}

#[test]
fn what_is_frozen_is_thawed_when_it_is_over_or_stopped() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let first = [("PT2M", "PT2S")];
    let text = changed("one-of-a-tag.json", &first);
    let freeze = ["--allow-short", "--at-deadline", "freeze", "--yes"];
    let finished = group.run("one.json", &text, &freeze).finish();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(!is_frozen(&group));
    // One deadline is over while another is to come.
    let wait =
        r#""actions": {"pause": {"actionId": "aws:fis:wait", "parameters": {"duration": "PT1M"}},"#;
    let text = text.replace(r#""actions": {"#, wait);
    let run = group.run("one.json", &text, &freeze);
    tests::wait_until("it is frozen", || is_frozen(&group).then_some(()));
    run.signal(Signal::SIGINT);
    assert_eq!(run.finish().code, 1);
    assert!(!is_frozen(&group));
}

#[test]
fn an_alarm_that_nobody_watches_is_refused_then() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let options = ["--at-deadline", "kill", "--yes"];
    let finished = group
        .run("two.yaml", &template("two-in-turn.yaml"), &options)
        .finish();
    assert_eq!((finished.code, finished.text().as_str()), (2, ""));
    let error = "Resources.SpotInterruptions.Properties.StopConditions[0]: the alarm is not \
                 watched here: with --at-deadline, give --stop-if COMMAND, which is\n";
    assert!(finished.stderr.ends_with(error), "{}", finished.stderr);
}

/// Its targets are one instance, which ends once.
#[test]
fn the_end_of_an_instance_is_told_once() {
    let Some(group) = Group::new(&["a", "b", "c"]) else {
        return;
    };
    let changes = [("PT2M", "PT2S"), ("COUNT(1)", "ALL")];
    let text = changed("one-of-a-tag.json", &changes);
    let options = [
        "--allow-short",
        "--at-deadline",
        "freeze",
        "--yes",
        "--emit",
    ];
    let events = group.lab.directory.join("events");
    let sink = format!("file:{}", events.display());
    let finished = group
        .run("one.json", &text, &[&options[..], &[&sink]].concat())
        .finish();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let events = std::fs::read_to_string(events).unwrap();
    for state in ["shutting-down", "terminated"] {
        let count = events.matches(&format!("\"state\":\"{state}\"")).count();
        assert_eq!(count, 1, "{state}: {events}");
    }
}
