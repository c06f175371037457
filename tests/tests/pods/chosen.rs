//! Who is chosen sees the notice, and nobody else does.

use nix::sys::signal::Signal;
use tests::{Container, Node, Qos, Upstream, attach_args};

use super::{NOTICE, REGION, attach, host_sees, sees, who_sees};

fn container_sees(container: &Container) -> bool {
    super::is_notice(container.get(NOTICE).status())
}

#[test]
fn those_of_a_label_see_the_notice_and_nobody_else() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = |name: &str| node.pod(name).label("app", "web");
    let chosen = [
        web("web-0").qos(Qos::Besteffort).start(),
        web("web-1").qos(Qos::Burstable).start(),
        web("web-2").qos(Qos::Guaranteed).start(),
        web("web-host").host_network().start(),
    ];
    let others = [
        node.pod("db-0").label("app", "db").start(),
        web("web-0").namespace("other").start(),
        node.pod("bare").start(),
        node.pod("db-host").host_network().start(),
    ];
    let _spotsim = attach(&node, &["--selector", "app=web"]);
    for pod in &chosen {
        let notice = pod.get(NOTICE);
        assert_eq!(notice.status(), 200, "{}", pod.name());
        assert!(notice.body().starts_with(r#"{"action": "terminate""#));
        assert_eq!(pod.main.get_with_token(REGION).body(), "eu-central-1");
    }
    assert_eq!(who_sees(&others.each_ref()), [""; 0]);
    assert!(!host_sees(&node));
}

#[test]
fn a_pod_on_the_host_network_is_chosen_alone() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let chosen = node.pod("web-host").host_network().start();
    let others = [
        node.pod("web-host-2").host_network().start(),
        node.pod("web-0").start(),
    ];
    let mut spotsim = attach(&node, &["--pod", "default/web-host"]);
    assert!(sees(&chosen));
    assert_eq!(who_sees(&others.each_ref()), [""; 0]);
    assert!(!host_sees(&node));
    // spotsim runs in that namespace as well: it goes on asking the real one.
    assert_eq!(chosen.main.get_with_token(REGION).body(), "eu-central-1");
    spotsim.signal(Signal::SIGTERM);
    spotsim.stderr_line("detached", 0);
    assert!(!sees(&chosen));
}

#[test]
fn a_container_is_chosen_without_its_pod() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let pod = node.pod("web-0").start();
    let side = pod.container("side", &["pause"]);
    let other = node.pod("web-1").start();
    let pid = pod.pid().to_string();
    for option in [
        ["--container", pod.main.id()],
        ["--container", &pod.main.id()[..12]],
        ["--pid", &pid],
    ] {
        let _spotsim = attach(&node, &option);
        assert!(container_sees(&pod.main), "{option:?}");
        assert!(!container_sees(&side), "{option:?}");
        assert!(!sees(&other), "{option:?}");
    }
}

#[test]
fn choices_of_several_kinds_are_put_together() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let pod = |name: &str, namespace: &str, app: &str| {
        let pod = node.pod(name).namespace(namespace).label("app", app);
        pod.label("tier", if app == "db" { "back" } else { "front" })
            .start()
    };
    let pods = [
        pod("a", "default", "web"),
        pod("b", "shop", "web"),
        pod("c", "shop", "api"),
        pod("d", "shop", "db"),
        pod("e", "default", "db"),
        // Of the first one's name, and without labels.
        node.pod("a").namespace("other").start(),
    ];
    let [a, b, _, _, e, _] = &pods;
    let pods = pods.each_ref();
    let directory = a.cgroup_directory();
    let by_cgroup = attach_args(&directory, &[]);
    let pid = e.pid().to_string();
    let main = &b.main.id()[..16];
    for (options, expected) in [
        (&["-l", "app=web"][..], &["a"][..]),
        (&["-l", "app=web", "-A"], &["a", "b"]),
        (&["-l", "app in (web, api)", "-n", "shop"], &["b", "c"]),
        (&["-l", "app,tier notin (front)", "-A"], &["d", "e"]),
        (&["-l", "tier!=back,app!=api", "-A"], &["a", "b", "a"]),
        (&["-l", "!app", "-A", "--pod", "shop/c"], &["c", "a"]),
        (&["--pod", "other/a", "--once"], &["a"]),
        (&["--pod", "c", "-n", "shop", "--pid", &pid], &["c", "e"]),
        (
            // Twice the same one, in different words.
            &[
                &by_cgroup[1..],
                &["--pod", "default/a", "--container", main],
            ]
            .concat(),
            &["a", "b"],
        ),
    ] {
        let _spotsim = attach(&node, options);
        assert_eq!(who_sees(&pods), expected, "{options:?}");
    }
}
