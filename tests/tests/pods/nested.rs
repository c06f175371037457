//! A pod that is chosen twice: by itself, and by a cgroup above it.

use nix::sys::signal::Signal;
use tests::{Armed, Node, Pod, Running, Upstream};

use super::{NOTICE, attach};

/// The notice that an `attach` announces.
fn notice(spotsim: &Running) -> String {
    let stdout = spotsim.stdout();
    let line = stdout.lines().find(|line| line.starts_with("armed: "));
    Armed::parse(line.unwrap()).instance_action()
}

fn seen(pod: &Pod) -> String {
    pod.get(NOTICE).body().to_owned()
}

#[test]
fn the_pods_own_wins() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let pod = node.pod("web-0").start();
    let other = node.pod("web-1").start();
    let kubepods = node.kubepods().path().display().to_string();
    let above = || attach(&node, &["--cgroup", &kubepods, "--lead", "1h"]);
    let own = || attach(&node, &["--pod", "default/web-0", "--lead", "1m"]);
    for (own_first, end) in [
        (false, Signal::SIGTERM),
        (true, Signal::SIGTERM),
        (false, Signal::SIGKILL),
        (true, Signal::SIGKILL),
    ] {
        let (outer, inner) = if own_first {
            let inner = own();
            (above(), inner)
        } else {
            (above(), own())
        };
        assert_ne!(notice(&outer), notice(&inner));
        assert_eq!(
            seen(&pod),
            notice(&inner),
            "the pod's own first: {own_first}"
        );
        assert_eq!(seen(&other), notice(&outer));
        inner.signal(end);
        inner.finish();
        assert_eq!(seen(&pod), notice(&outer), "{end} {own_first}");
        outer.signal(end);
        outer.finish();
        assert_eq!(pod.get(NOTICE).status(), 404);
    }
}

#[test]
fn the_outer_one_may_end_first() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let pod = node.pod("web-0").start();
    let kubepods = node.kubepods().path().display().to_string();
    let outer = attach(&node, &["--cgroup", &kubepods, "--lead", "1h"]);
    let inner = attach(&node, &["--pod", "default/web-0", "--lead", "1m"]);
    outer.signal(Signal::SIGKILL);
    outer.finish();
    assert_eq!(seen(&pod), notice(&inner));
    inner.signal(Signal::SIGKILL);
    inner.finish();
    assert_eq!(pod.get(NOTICE).status(), 404);
}
