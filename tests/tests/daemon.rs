//! spotsim in a pod, as a DaemonSet has it on each node.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;
use tests::{Finished, Node, Pod, PodBuilder, Upstream, spotsim_binary, wait_until};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";

/// As README.md's manifest has it: the host's file system is at `/host`, and in it the runtime's
/// socket where a host has it.
fn daemon<'node>(node: &'node Node, args: &[&str]) -> PodBuilder<'node> {
    let socket = "containerd/run/containerd/containerd.sock";
    let socket = node.lab.directory.join(socket);
    if !socket.exists() {
        fs::hard_link(node.socket(), socket).unwrap();
    }
    spotsim(node, args).mount(Path::new("/"), "/host")
}

/// A pod of spotsim that sees the host's processes.
fn spotsim<'node>(node: &'node Node, args: &[&str]) -> PodBuilder<'node> {
    let mut daemon = node
        .pod("spotsim")
        .namespace("kube-system")
        .host_pid()
        .mount(&spotsim_binary(), "/spotsim")
        .program("/spotsim")
        .args(args);
    // What it is linked with.
    for libraries in ["/lib", "/lib64"].map(Path::new) {
        if libraries.exists() {
            daemon = daemon.mount(libraries, libraries.to_str().unwrap());
        }
    }
    daemon
}

/// The arguments of README.md's manifest, with the node's own IMDS behind it.
const ATTACH: [&str; 11] = [
    "attach",
    "-l",
    "app=web",
    "-A",
    "--wait",
    "--stagger",
    "0s",
    "--host-root",
    "/host",
    "--upstream",
    "real",
];

/// Waits until a daemon is armed.
fn armed(daemon: &Pod) {
    wait_until("the daemon is armed", || {
        let stdout = daemon.main.stdout();
        let armed = stdout.iter().any(|line| line.starts_with("armed: "));
        let stderr = daemon.main.stderr();
        let failed = stderr.iter().any(|line| line.contains("error: "));
        assert!(armed || !failed, "{stderr:?}");
        armed.then_some(())
    });
}

/// Runs spotsim in the daemon's container, as `kubectl exec` does.
fn exec(node: &Node, daemon: &Pod, args: &[&str]) -> Finished {
    node.cri()
        .exec_sync(daemon.main.id(), &[&["/spotsim"], args].concat())
}

fn sees(pod: &Pod) -> bool {
    match pod.get(NOTICE).status() {
        200 => true,
        404 => false,
        other => panic!("{other}"),
    }
}

fn logged(daemon: &Pod, text: &str) -> String {
    let awaited = format!("a line with {text:?}");
    wait_until(&awaited, || {
        let stderr = daemon.main.stderr();
        stderr.into_iter().find(|line| line.contains(text))
    })
}

/// Pods that come and go are followed. Those that are not chosen see nothing, nor does the daemon's
/// own. When it is ended, nobody sees anything any more.
fn serves_its_node(node: &Node, daemon: PodBuilder) {
    let web = |name: &str| node.pod(name).namespace("shop").label("app", "web");
    let first = web("web-0").start();
    let others = [
        node.pod("db-0").label("app", "db").start(),
        node.pod("agent").host_network().start(),
    ];
    let daemon = daemon.start();
    armed(&daemon);
    assert!(sees(&first), "{:?}", daemon.main.stderr());
    let later = web("web-1").args(&["get", "--each", "10", NOTICE]).start();
    wait_until("the notice", || sees(&later).then_some(()));
    if later.main.asked()[0].status() == 404 {
        logged(&daemon, "missed: pod shop/web-1: its container main");
    }
    let on_host = web("web-host").host_network().start();
    wait_until("the notice", || sees(&on_host).then_some(()));
    for other in others.iter().chain([&daemon]) {
        assert!(!sees(other), "{}", other.name());
    }
    first.remove();
    logged(&daemon, "pod shop/web-0");
    assert!(sees(&later));

    node.cri()
        .stop_container(daemon.main.id(), Duration::from_secs(10));
    assert_eq!(daemon.main.wait(), 0, "{:?}", daemon.main.stderr());
    for pod in [&later, &on_host] {
        assert!(!sees(pod), "{}", pod.name());
    }
}

#[test]
fn it_serves_its_node() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    serves_its_node(&node, daemon(&node, &ATTACH).privileged());
}

#[test]
fn on_the_host_network() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    serves_its_node(&node, daemon(&node, &ATTACH).privileged().host_network());
}

/// What it needs, as `doctor` names it.
const CAPABILITIES: [&str; 5] = ["SYS_ADMIN", "SYS_PTRACE", "SETUID", "SETGID", "NET_ADMIN"];

#[test]
fn with_the_capabilities_that_it_needs() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    serves_its_node(&node, daemon(&node, &ATTACH).capabilities(&CAPABILITIES));
}

#[test]
fn it_needs_each_of_them() {
    let Some(node) = Node::start() else { return };
    for lacking in CAPABILITIES {
        let mut others = CAPABILITIES.to_vec();
        others.retain(|name| *name != lacking);
        let doctor = ["doctor", "--host-root", "/host"];
        let pod = daemon(&node, &doctor).capabilities(&others).start();
        // Without the last it works, but for connections that are open already.
        let expected = if lacking == "NET_ADMIN" { 0 } else { 3 };
        assert_eq!(pod.main.wait(), expected, "without {lacking}");
        let report = pod.main.stdout();
        let said = report.iter().find(|line| line.contains("  capabilities  "));
        assert!(
            said.unwrap().contains(&format!("CAP_{lacking}")),
            "{report:?}"
        );
        pod.remove();
    }
}

/// Its own way to IMDS must stay open.
#[test]
fn its_own_pod_is_left_alone() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = node.pod("web-0").label("app", "web").start();
    let everybody = [
        "attach",
        "-A",
        "-l",
        "",
        "--host-root",
        "/host",
        "--upstream",
        "real",
    ];
    let daemon = daemon(&node, &everybody).privileged().start();
    armed(&daemon);
    assert!(sees(&web));
    assert!(!sees(&daemon));
    let refusal = "pod kube-system/spotsim: it contains spotsim itself";
    let warning = logged(&daemon, refusal);
    assert!(warning.contains("WARN"), "{warning}");

    let named = [
        "attach",
        "--pod",
        "kube-system/spotsim",
        "--host-root",
        "/host",
    ];
    let refused = exec(&node, &daemon, &named);
    assert_eq!(refused.code, 1, "{}", refused.text());
    assert!(refused.stderr.contains(refusal), "{}", refused.stderr);
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);

    let pods = exec(&node, &daemon, &["pods", "--host-root", "/host"]).expect("pods");
    let reason = format!("cannot be a target: {refusal}");
    assert!(pods.lines().last().unwrap().starts_with(&reason), "{pods}");
    assert_eq!(pods.lines().count(), 1 + 2 + 1, "{pods}");
    let pods = exec(&node, &daemon, &["pods", "--json", "--host-root", "/host"]);
    let pods: Value = serde_json::from_str(&pods.expect("pods")).unwrap();
    let [of_web, own] = ["web-0", "spotsim"].map(|name| {
        let mut pods = pods.as_array().unwrap().iter();
        pods.find(|pod| pod["pod"] == name).unwrap()
    });
    assert_eq!(of_web["cgroup"], web.cgroup().to_str().unwrap());
    assert_eq!(of_web["refused"], Value::Null);
    assert!(
        own["refused"].as_str().unwrap().starts_with(refusal),
        "{own}"
    );
}

/// `kubectl exec` and its verbs.
#[test]
fn it_is_controlled_from_inside() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = node
        .pod("web-0")
        .namespace("shop")
        .label("app", "web")
        .start();
    let everybody = [
        "attach",
        "-A",
        "-l",
        "app",
        "--hold",
        "--host-root",
        "/host",
    ];
    let args = [&everybody[..], &["--upstream", "real"]].concat();
    let daemon = daemon(&node, &args).privileged().start();
    armed(&daemon);
    assert!(!sees(&web));
    let report = exec(&node, &daemon, &["doctor", "--host-root", "/host"]).expect("doctor");
    assert!(report.ends_with("attach will work here\n"), "{report}");
    exec(&node, &daemon, &["trigger", "--pod", "shop/web-0"]).expect("trigger");
    assert!(sees(&web));
    exec(&node, &daemon, &["detach"]).expect("detach");
    assert_eq!(daemon.main.wait(), 0);
    assert!(!sees(&web));
}

#[test]
fn killed_it_leaves_nothing_and_the_next_one_goes_on() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = node
        .pod("web-0")
        .namespace("shop")
        .label("app", "web")
        .start();
    for _ in 0..2 {
        let daemon = daemon(&node, &ATTACH).privileged().start();
        armed(&daemon);
        assert!(sees(&web));
        daemon.main.kill();
        assert!(!sees(&web));
        daemon.remove();
    }
}

/// Without the host's whole file system: its cgroups, and the directory of the runtime's socket. A
/// runtime that is started again makes another socket, which a mount of the first does not show.
#[test]
fn with_cgroups_and_a_socket() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = |name: &str| node.pod(name).label("app", "web").start();
    let first = web("web-0");
    let directory = node.socket().parent().unwrap();
    let endpoint = ["--runtime-endpoint", "unix:///runtime/containerd.sock"];
    let args = [
        &["attach", "-l", "app=web", "--upstream", "real"],
        &endpoint[..],
    ]
    .concat();
    let daemon = spotsim(&node, &args)
        .mount(Path::new("/sys/fs/cgroup"), "/sys/fs/cgroup")
        .mount(directory, "/runtime")
        .capabilities(&CAPABILITIES)
        .start();
    armed(&daemon);
    assert!(sees(&first));
    let report = exec(&node, &daemon, &[&["doctor"], &endpoint[..]].concat()).expect("doctor");
    let runtime = node.cri().version().runtime_version;
    let expected = format!("containerd {runtime} at /runtime/containerd.sock");
    assert!(report.contains(&expected), "{report}");
    node.kill_containerd();
    node.restart_containerd();
    let later = web("web-1");
    wait_until("the notice", || sees(&later).then_some(()));
}
