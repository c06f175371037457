//! A pod gains no IMDS, and so no node credentials, that it did not have.

use std::time::{Duration, Instant};

use tests::{Asked, NetNs, Node, Pod, Upstream};

use super::{NOTICE, REGION, attach, sees};

const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials/upstream-role";

#[test]
fn a_pod_whose_route_is_blocked_stays_so() {
    let Some(node) = Node::start() else { return };
    let upstream = Upstream::start(&node.lab, &[]);
    let host = node.lab.place(&node.lab.node, &node.lab.beside);
    for verdict in ["blackhole", "unreachable", "prohibit"] {
        let pod = node.pod("web-0").start();
        assert_eq!(pod.get(CREDENTIALS).status(), 200, "before");
        let route = format!("route add {verdict} 169.254.169.254/32");
        NetNs::of_process(pod.sandbox_pid()).ip(&route);
        assert!(pod.get(CREDENTIALS).answer.is_err(), "{verdict}");
        assert_eq!(host.get(CREDENTIALS).status(), 200);
        let _spotsim = attach(&node, &["--pod", "default/web-0"]);
        let before = upstream.seen().len();
        assert!(sees(&pod), "the notice needs no IMDS");
        for path in [CREDENTIALS, REGION] {
            for asked in [pod.get(path), pod.main.get_with_token(path)] {
                assert!(asked.answer.is_err(), "{verdict}: {asked:?}");
            }
        }
        assert_eq!(
            upstream.seen().len(),
            before,
            "{verdict}: nothing was asked for it"
        );
        pod.remove();
    }
}

/// Puts IMDS into a namespace of its own, to which the node forwards what pods send.
fn behind_the_node(node: &Node) -> NetNs {
    let imds = NetNs::new();
    let peer = imds.path();
    node.lab.node.ip(&format!(
        "addr del 169.254.169.254/32 dev lo
         link add imds0 type veth peer name eth0 netns {}
         addr add 10.99.0.1/24 dev imds0
         link set imds0 up
         route add 169.254.169.254/32 via 10.99.0.2",
        peer.display()
    ));
    imds.ip("addr add 10.99.0.2/24 dev eth0
             addr add 169.254.169.254/32 dev lo
             link set eth0 up
             route add 10.244.0.0/16 via 10.99.0.1");
    imds
}

/// How a client's request with a limit of time goes, and how long it takes.
fn within(pod: &Pod, limit: Duration, more: &[&str]) -> (Asked, Duration) {
    let limit = limit.as_millis().to_string();
    let began = Instant::now();
    let asked = pod.main.get_with(&[&["--timeout", &limit], more].concat());
    (asked, began.elapsed())
}

/// With a hop limit of 1, answers reach the node and not what it forwards to.
#[test]
fn a_pod_beyond_the_hop_limit_stays_so() {
    const LIMIT: Duration = Duration::from_millis(1_200);
    let Some(node) = Node::start() else { return };
    let imds = behind_the_node(&node);
    let start = |hops| {
        let options = ["--hop-limit", hops];
        let listen = ["169.254.169.254:80"];
        Upstream::start_at(&node.lab, &imds, "upstream", &listen, &options)
    };
    let pod = node.pod("web-0").start();
    let near_enough = start("2");
    assert_eq!(pod.main.get_with_token(REGION).body(), "eu-central-1");
    near_enough.stop();

    let upstream = start("1");
    let host = node.lab.place(&node.lab.node, &node.lab.beside);
    assert_eq!(host.get(REGION).status(), 200, "the node is near enough");
    let requests = [&[REGION][..], &["--v2", REGION], &[CREDENTIALS]];
    let direct = requests.map(|request| within(&pod, LIMIT, request));
    let spotsim = attach(&node, &["--pod", "default/web-0"]);
    let before = upstream.seen().len();
    let through = requests.map(|request| within(&pod, LIMIT, request));
    for ((direct, lasted), (through, as_long)) in direct.iter().zip(&through) {
        assert!(direct.answer.is_err(), "{direct:?}");
        assert_eq!(direct.answer, through.answer, "{}", spotsim.stderr());
        assert!(
            *lasted >= LIMIT && *as_long >= LIMIT,
            "{lasted:?} {as_long:?}"
        );
    }
    // They were under way: it is the answers that get lost.
    let passed = upstream.seen().len() - before;
    assert_eq!(passed, requests.len());

    // The client itself gives up at the limit.
    let (notice, _) = within(&pod, LIMIT, &[NOTICE]);
    assert_eq!(notice.status(), 200);
}
