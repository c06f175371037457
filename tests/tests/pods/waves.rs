//! A notice that comes to each pod in its turn.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tests::{Asked, Node, Pod, Spotsim, Upstream, run, wait_until};

use super::{NOTICE, attach};

const STAGGER: &str = "2s";

fn status(node: &Node, more: &[&str]) -> String {
    let args = [&["status", "waves"], more].concat();
    run(Spotsim::command(&node.lab, &args), b"").expect("status")
}

fn at(asked: &Asked) -> Timestamp {
    Timestamp::from_microsecond(asked.at_us as i64).unwrap()
}

/// Before its time a pod sees nothing, from then on the notice with its own deadline.
fn in_its_turn(pod: &Pod, appears: Timestamp, deadline: Timestamp) {
    // A request may be answered after the notice appeared, and have begun before.
    let doubt = appears - SignedDuration::from_millis(500);
    let asked = pod.main.asked();
    let seen = asked.iter().filter(|asked| asked.status() == 200);
    for notice in seen {
        assert!(at(notice) > doubt, "{}: {notice:?}, {appears}", pod.name());
        let time = format!(r#""time": "{}""#, deadline.strftime("%Y-%m-%dT%H:%M:%SZ"));
        assert!(notice.body().contains(&time), "{notice:?}, {deadline}");
    }
    for later in asked.iter().filter(|asked| at(asked) >= appears) {
        assert_eq!(later.status(), 200, "{}: {later:?}, {appears}", pod.name());
    }
}

#[test]
fn each_pod_sees_it_in_its_turn() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let asks = ["get", "--each", "50", NOTICE];
    let pods = ["web-0", "web-1", "web-2"].map(|name| {
        let pod = node.pod(name).label("app", "web").args(&asks);
        pod.start()
    });
    let options = ["-l", "app=web", "--id", "waves", "--stagger", STAGGER];
    let _spotsim = attach(&node, &options);
    let told: Value = serde_json::from_str(&status(&node, &["--json"])).unwrap();
    assert_eq!(told["own_clocks"], true);
    let targets = told["targets"].as_array().unwrap();
    let time =
        |target: &Value, key: &str| -> Timestamp { target[key].as_str().unwrap().parse().unwrap() };
    let turns: Vec<_> = targets
        .iter()
        .map(|target| {
            let pod = pods.iter().find(|pod| target["pod"] == pod.name()).unwrap();
            (pod, time(target, "notice"), time(target, "deadline"))
        })
        .collect();
    assert_eq!(turns.len(), pods.len());
    for pair in turns.windows(2) {
        let [(_, one, first), (_, two, second)] = pair else {
            unreachable!()
        };
        assert_eq!(two.duration_since(*one), SignedDuration::from_secs(2));
        assert_eq!(second.duration_since(*first), SignedDuration::from_secs(2));
    }
    let table = status(&node, &[]);
    let deadline = |pod: &Pod| {
        let name = format!("pod default/{} ", pod.name());
        let line = table.lines().find(|line| line.starts_with(&name));
        let cells = line.unwrap_or_else(|| panic!("{name}: {table}"));
        let cells = cells.split("  ").filter(|cell| !cell.is_empty());
        cells.map(str::trim).nth(2).unwrap().to_owned()
    };
    let deadlines: BTreeSet<_> = pods.iter().map(deadline).collect();
    assert_eq!(deadlines.len(), pods.len(), "{table}");
    let (last, ..) = turns[2];
    wait_until("the last turn", || {
        let asked = last.main.asked();
        asked
            .iter()
            .any(|asked| asked.status() == 200)
            .then_some(())
    });
    for (pod, appears, deadline) in turns {
        let seen = pod.main.asked().iter().any(|asked| asked.status() == 200);
        assert!(seen, "{}", pod.name());
        in_its_turn(pod, appears, deadline);
    }
}
