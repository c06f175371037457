//! Pods to which something is done at their deadline, and those that come in their place.

use std::{fs, thread::sleep, time::Duration};

use serde_json::Value;
use tests::{Node, Upstream, is_running, wait_until};

use super::{NOTICE, attach, sees};

#[test]
fn a_pod_that_replaces_one_that_was_killed_is_left_alone() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = || node.pod("web-0").label("app", "web").start();
    let pod = web();
    let neighbour = node.pod("db-0").label("app", "db").start();
    let events = node.lab.directory.join("events.jsonl");
    let sink = format!("file:{}", events.display());
    let mut spotsim = attach(
        &node,
        &[
            "--selector",
            "app=web",
            "--lead",
            "6s",
            "--at-deadline",
            "kill",
            "--yes",
            "--emit",
            &sink,
        ],
    );
    let processes = [pod.pid(), pod.sandbox_pid()];
    assert_eq!(pod.get(NOTICE).status(), 200);
    for process in processes {
        wait_until("its end", || (!is_running(process)).then_some(()));
    }
    pod.remove();
    let new = web();
    wait_until("the notice, which is over", || sees(&new).then_some(()));
    // By then a deadline of its own would have come.
    sleep(Duration::from_secs(8));
    for other in [&new, &neighbour] {
        assert!(is_running(other.pid()) && is_running(other.sandbox_pid()));
    }
    assert!(!spotsim.has_ended());
    let told = || {
        let events = fs::read_to_string(&events).unwrap();
        let events = events.lines().map(serde_json::from_str::<Value>);
        let kind = |event: Value| event["detail-type"].as_str().unwrap().to_owned();
        events.map(|event| kind(event.unwrap())).collect::<Vec<_>>()
    };
    let change = "EC2 Instance State-change Notification";
    // Once for the pod that was there, and not for the one in its place.
    assert_eq!(
        told(),
        ["EC2 Spot Instance Interruption Warning", change, change]
    );
}
