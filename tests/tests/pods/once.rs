//! Choices that are made once, and such as wait for somebody to choose.

use serde_json::Value;
use tests::{Finished, Node, Pod, Spotsim, Upstream, run, wait_until};

use super::{attach, sees, who_sees};

/// Four pods that are chosen from.
fn four(node: &Node) -> [Pod<'_>; 4] {
    ["web-0", "web-1", "web-2", "web-3"].map(|name| node.pod(name).label("app", "web").start())
}

#[test]
fn one_that_matches_later_is_left_alone() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let first = node.pod("web-0").label("app", "web").start();
    let _once = attach(&node, &["-l", "app=web", "--once"]);
    let mut following = attach(&node, &["-l", "app=web,late", "--wait"]);
    let late = |name: &str| node.pod(name).label("app", "web").label("late", "");
    let ends = late("web-1").start();
    // It has been followed by whoever follows.
    wait_until("the notice", || sees(&ends).then_some(()));
    following.signal(nix::sys::signal::Signal::SIGTERM);
    following.stderr_line("detached", 0);
    assert!(!sees(&ends));
    assert!(sees(&first));
}

/// Who would be chosen: the names in JSON.
fn chosen(node: &Node, options: &[&str]) -> Vec<String> {
    let finished = dry_run(node, options);
    let rows: Value = serde_json::from_str(&finished.expect("attach --dry-run")).unwrap();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row["pod"].as_str().unwrap().to_owned())
        .collect()
}

fn dry_run(node: &Node, options: &[&str]) -> Finished {
    let endpoint = node.endpoint();
    let args = ["attach", "--dry-run", "--json", "-l", "app=web"];
    let runtime = ["--runtime-endpoint", &endpoint];
    let args = [&args, &runtime[..], options].concat();
    run(Spotsim::command(&node.lab, &args), b"")
}

#[test]
fn some_of_those_that_match_are_chosen_once() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let pods = four(&node);
    let two = ["--select", "count(2)", "--seed", "7"];
    let expected = chosen(&node, &two);
    assert_eq!(expected.len(), 2);
    assert_eq!(chosen(&node, &two), expected, "the same again");
    let others = (0..20).any(|seed| {
        let seed = seed.to_string();
        chosen(&node, &["--select", "count(2)", "--seed", &seed]) != expected
    });
    assert!(others, "another seed, another choice");
    for (percent, count) in [("percent(50)", 2), ("percent(74)", 2), ("percent(100)", 4)] {
        let some = chosen(&node, &["--select", percent, "--seed", "7"]);
        assert_eq!(some.len(), count, "{percent}");
    }
    let refused = dry_run(&node, &["--select", "count(5)"]);
    assert_eq!(refused.code, 1, "{}", refused.text());
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);

    let mut spotsim = attach(&node, &[&["-l", "app=web"][..], &two].concat());
    spotsim.stderr_line("chose 2 by count(2), --seed 7", 0);
    assert_eq!(who_sees(&pods.each_ref()), expected);
    // One that is chosen ends, one that would match comes: those that are left stay.
    let (gone, stay): (Vec<_>, Vec<_>) =
        pods.into_iter().partition(|pod| pod.name() == expected[0]);
    for pod in gone {
        pod.remove();
    }
    spotsim.stderr_line(&format!("pod default/{} is gone", expected[0]), 0);
    let new = node.pod(&expected[0]).label("app", "web").start();
    assert!(!sees(&new));
    let stay: Vec<_> = stay.iter().collect();
    assert_eq!(who_sees(&stay), [expected[1].as_str()]);
}
