//! Pods that come and go, and containers that restart in them.

use std::{thread::sleep, time::Duration};

use nix::sys::signal::Signal;
use tests::{Node, Pod, PodBuilder, Qos, Running, Spotsim, Upstream, run, wait_until};

use super::{NOTICE, attach, sees};

/// A pod that begins to ask at once.
const ASKS: [&str; 6] = ["get", "--times", "2000", "--each", "5", NOTICE];

fn asking<'node>(node: &'node Node, name: &str) -> PodBuilder<'node> {
    let pod = node.pod(name).label("app", "web");
    pod.args(&ASKS)
}

/// The status of the first request of a pod that asks.
fn first_status(pod: &Pod) -> u16 {
    let first = wait_until("a request", || pod.main.asked().into_iter().next());
    first.status()
}

/// The first request of a new pod saw the notice, or it is reported that it did not.
fn covered_or_reported(pod: &Pod, spotsim: &mut Running, from: usize) -> bool {
    let covered = first_status(pod) == 200;
    if !covered {
        let name = format!("missed: pod {}/{}", pod.namespace(), pod.name());
        spotsim.stderr_line(&name, from);
    }
    wait_until("the notice", || sees(pod).then_some(()));
    covered
}

/// Where no pod was chosen, a request that went past is reported with the cgroup that it came from.
fn is_told_of(pod: &Pod, spotsim: &mut Running, from: usize) {
    let line = spotsim.stderr_line("missed: ", from);
    assert!(line.contains(pod.cgroup().to_str().unwrap()), "{line}");
}

fn a_pod_made_anew(node: Option<Node>) {
    const TIMES: usize = 5;
    let Some(node) = node else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let pod = asking(&node, "web-0").start();
    let mut spotsim = attach(&node, &["--selector", "app in (web)"]);
    wait_until("the notice", || sees(&pod).then_some(()));
    let mut pod = Some(pod);
    let mut mostly_covered = || {
        let mut covered = 0;
        for _ in 0..TIMES {
            let from = spotsim.stderr().len();
            pod.take().unwrap().remove();
            spotsim.stderr_line("pod default/web-0", from);
            let new = asking(&node, "web-0").start();
            covered += usize::from(covered_or_reported(&new, &mut spotsim, from));
            pod = Some(new);
        }
        covered > TIMES / 2
    };
    // To be reported is for the rare case, of which a busy machine may have several in a row.
    assert!((0..3).any(|_| mostly_covered()), "{}", spotsim.stderr());
}

#[test]
fn a_pod_that_is_made_anew_sees_it_at_its_first_request() {
    a_pod_made_anew(Node::start());
}

#[test]
fn so_does_one_whose_runtime_tells_events() {
    a_pod_made_anew(Node::with_events());
}

/// A spotsim that is held up cannot attach in time, and says so.
#[test]
fn a_pod_that_was_quicker_is_reported() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let mut spotsim = attach(&node, &["--pod", "default/web-0", "--wait"]);
    spotsim.signal(Signal::SIGSTOP);
    let pod = asking(&node, "web-0").start();
    assert_eq!(first_status(&pod), 404);
    spotsim.signal(Signal::SIGCONT);
    let line = spotsim.stderr_line("missed: pod default/web-0", 0);
    assert!(
        line.contains("its container main was started before"),
        "{line}"
    );
    wait_until("the notice", || sees(&pod).then_some(()));
}

#[test]
fn a_name_that_comes_again_is_the_same_choice() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    // Nothing is there yet, neither kubepods nor the pod.
    let mut spotsim = attach(&node, &["--pod", "shop/db-0", "--wait"]);
    let mut uids = Vec::new();
    for qos in [Qos::Guaranteed, Qos::Burstable] {
        let from = spotsim.stderr().len();
        let pod = asking(&node, "db-0").namespace("shop").qos(qos).start();
        let namesake = asking(&node, "db-0").start();
        covered_or_reported(&pod, &mut spotsim, from);
        assert!(!sees(&namesake));
        uids.push(pod.uid().to_owned());
        pod.remove();
        namesake.remove();
    }
    assert_ne!(uids[0], uids[1]);
    assert!(!spotsim.has_ended());
}

#[test]
fn a_container_that_restarts_goes_on_being_covered() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let pod = asking(&node, "web-0").start();
    let _spotsim = attach(&node, &["--pod", "default/web-0"]);
    wait_until("the notice", || sees(&pod).then_some(()));
    for _ in 0..3 {
        let again = pod.container("main", &["get", "--times", "5", NOTICE]);
        assert_eq!(again.wait(), 0);
        let statuses: Vec<_> = again.asked().iter().map(|asked| asked.status()).collect();
        assert_eq!(statuses, [200; 5]);
    }
}

/// A pod's sandbox is gone and comes again: it is the same pod, in another network namespace.
#[test]
fn a_sandbox_that_is_made_anew_goes_on_being_covered() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let mut pod = asking(&node, "web-0").start();
    let mut spotsim = attach(&node, &["-l", "app=web"]);
    wait_until("the notice", || sees(&pod).then_some(()));
    for end in [Pod::stop, Pod::kill] {
        let (before, from) = (pod.network(), spotsim.stderr().len());
        end(&pod);
        pod.restart(&ASKS);
        assert_ne!(pod.network(), before);
        if first_status(&pod) != 200 {
            let line = spotsim.stderr_line("missed: ", from);
            assert!(line.contains("pod default/web-0"), "{line}");
        }
        wait_until("the notice", || sees(&pod).then_some(()));
    }
    // It was released, and spotsim is held up when it comes again.
    let from = spotsim.stderr().len();
    pod.stop();
    spotsim.stderr_line("pod default/web-0 has ended", from);
    spotsim.signal(Signal::SIGSTOP);
    pod.restart(&ASKS);
    assert_eq!(first_status(&pod), 404);
    spotsim.signal(Signal::SIGCONT);
    spotsim.stderr_line("missed: pod default/web-0", from);
    wait_until("the notice", || sees(&pod).then_some(()));
}

/// It is the same target: what was announced to it alone goes on, until the pod itself ends.
#[test]
fn a_sandbox_that_is_made_anew_keeps_its_clock() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = |name: &str| node.pod(name).label("app", "web").start();
    let (mut pod, other) = (web("web-0"), web("web-1"));
    let mut spotsim = attach(&node, &["-l", "app=web", "--hold"]);
    let trigger = ["trigger", "--pod", "default/web-0"];
    run(Spotsim::command(&node.lab, &trigger), b"").expect("trigger");
    for end in [Pod::stop, Pod::kill] {
        end(&pod);
        // Longer than from one look to the next.
        sleep(Duration::from_secs(2));
        pod.restart(&["pause"]);
        wait_until("the notice", || sees(&pod).then_some(()));
    }
    assert!(!sees(&other));
    let told = spotsim.stderr().to_owned();
    assert!(!told.contains("pod default/web-0 has ended"), "{told}");
    pod.stop();
    spotsim.stderr_line("pod default/web-0 has ended", told.len());
}

#[test]
fn what_comes_beneath_a_cgroup_above_pods_is_covered() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let before = asking(&node, "web-0").qos(Qos::Burstable).start();
    let other = asking(&node, "web-1").start();
    let burstable = node.kubepods().path().join("burstable");
    let mut spotsim = attach(&node, &["--cgroup", burstable.to_str().unwrap()]);
    assert!(sees(&before));
    assert!(!sees(&other));
    let mut covered = 0;
    for name in ["web-2", "web-3", "web-4"] {
        let from = spotsim.stderr().len();
        let pod = asking(&node, name).qos(Qos::Burstable).start();
        // On a busy machine it may ask before anybody listens where it is.
        match first_status(&pod) {
            200 => covered += 1,
            404 => is_told_of(&pod, &mut spotsim, from),
            other => panic!("{name}: {other}\n{}", spotsim.stderr()),
        }
        wait_until("the notice", || sees(&pod).then_some(()));
        pod.remove();
    }
    assert!(covered > 0, "{}", spotsim.stderr());
    // What asks while spotsim is held up gets past it, and is told of.
    let from = spotsim.stderr().len();
    spotsim.signal(Signal::SIGSTOP);
    let pod = asking(&node, "web-5").qos(Qos::Burstable).start();
    assert_eq!(first_status(&pod), 404);
    spotsim.signal(Signal::SIGCONT);
    is_told_of(&pod, &mut spotsim, from);
    wait_until("the notice", || sees(&pod).then_some(()));
}
