//! A container runtime that ends while pods are followed, and comes back.

use tests::{NetNs, Node, Upstream, wait_until};

use super::{NOTICE, attach, sees};

fn outlives_its_runtime(node: Option<Node>) {
    let Some(node) = node else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = |name: &str| node.pod(name).label("app", "web").start();
    let pods = ["web-0", "web-1"].map(web);
    // Where clients of theirs can be started without the runtime.
    let networks = pods
        .each_ref()
        .map(|pod| NetNs::of_process(pod.sandbox_pid()));
    let places: Vec<_> = pods
        .iter()
        .zip(&networks)
        .map(|(pod, network)| {
            let place = node.lab.place(network, &node.lab.beside);
            place.in_cgroup(&pod.cgroup_directory())
        })
        .collect();
    let mut spotsim = attach(&node, &["-l", "app=web"]);
    for round in 0..2 {
        let from = spotsim.stderr().len();
        node.kill_containerd();
        let line = spotsim.stderr_line("targets stay as they are until it answers", from);
        let socket = node.socket().display().to_string();
        assert!(line.contains(&socket), "{line}");
        for place in &places {
            assert_eq!(place.get(NOTICE).status(), 200);
        }
        node.restart_containerd();
        spotsim.stderr_line("the container runtime answers again", from);
        assert!(pods.iter().all(sees), "{}", spotsim.stderr());
        let new = web(&format!("web-{}", round + 2));
        wait_until("the notice", || sees(&new).then_some(()));
        new.remove();
        spotsim.stderr_line(&format!("pod default/web-{}", round + 2), from);
        let told = spotsim.stderr()[from..].to_owned();
        let times = |text: &str| told.matches(text).count();
        assert_eq!(times("targets stay as they are"), 1, "{told}");
        assert_eq!(times("answers again"), 1, "{told}");
        assert_eq!(times("has ended") + times("is gone"), 1, "{told}");
    }
}

#[test]
fn pods_stay_attached_while_the_runtime_is_away() {
    outlives_its_runtime(Node::start());
}

#[test]
fn so_they_do_where_it_tells_events() {
    outlives_its_runtime(Node::with_events());
}
