//! The node itself: what the other tests with pods take for granted.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use tests::{
    Armed, Node, Qos, Running, Spotsim, Upstream, attach_args, cri::messages::PodSandboxState,
    is_running, spotsim_binary, wait_until,
};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";
const REGION: &str = "/latest/meta-data/placement/region";

/// The network namespace of a process.
fn network(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/net")).unwrap()
}

/// A process's path in the cgroup v2 hierarchy.
fn cgroup(pid: i32) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    path.unwrap().into()
}

#[test]
fn a_pod_is_where_kubelet_would_have_it() {
    let Some(node) = Node::start() else { return };
    let kubepods = node.kubepods().path();
    for (qos, parent) in [
        (Qos::Besteffort, kubepods.join("besteffort")),
        (Qos::Burstable, kubepods.join("burstable")),
        (Qos::Guaranteed, kubepods),
    ] {
        let pod = node
            .pod("web-0")
            .namespace("shop")
            .label("app", "web")
            .qos(qos)
            .start();
        let expected = parent.join(format!("pod{}", pod.uid()));
        assert_eq!(pod.cgroup(), expected);
        assert!(pod.cgroup_directory().is_dir());
        assert_eq!(cgroup(pod.pid()), expected.join(pod.main.id()));
        assert_eq!(cgroup(pod.sandbox_pid()), expected.join(pod.sandbox_id()));

        let listed = node.cri().list_pod_sandbox();
        let listed = listed.iter().find(|listed| listed.id == pod.sandbox_id());
        let labels = &listed.expect("the sandbox is listed").labels;
        for (key, value) in [
            ("app", "web"),
            ("io.kubernetes.pod.name", "web-0"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.pod.uid", pod.uid()),
        ] {
            assert_eq!(labels.get(key).map(String::as_str), Some(value), "{key}");
        }
        pod.remove();
    }
}

#[test]
fn a_pod_reaches_the_nodes_imds_from_a_network_of_its_own() {
    let Some(node) = Node::start() else { return };
    let upstream = Upstream::start(&node.lab, &[]);
    let pod = node.pod("web-0").start();
    assert_ne!(pod.network(), node.lab.node.name());
    assert_eq!(network(pod.pid()), pod.network());

    let notice = pod.get(NOTICE);
    assert_eq!((notice.status(), notice.body().len()), (404, 339));
    let region = pod.main.get_with_token(REGION);
    assert_eq!((region.status(), region.body()), (200, "eu-central-1"));
    let seen = upstream.seen();
    let requests: Vec<String> = seen.iter().map(|seen| seen.request()).collect();
    let token = "PUT /latest/api/token".to_owned();
    assert_eq!(
        requests,
        [format!("GET {NOTICE}"), token, format!("GET {REGION}")]
    );
    let ip = format!("{}:", pod.ip());
    assert!(
        seen.iter().all(|seen| seen.peer.starts_with(&ip)),
        "{seen:?}"
    );
}

#[test]
fn a_pod_on_the_host_network_shares_the_nodes() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let pod = node.pod("agent").host_network().start();
    assert_eq!(network(pod.pid()), node.lab.node.name());
    assert_ne!(node.lab.node.name(), network(std::process::id() as i32));
    assert_eq!(pod.get(REGION).body(), "eu-central-1");
}

#[test]
fn a_pod_can_have_of_the_host_what_a_daemon_needs() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = node.pod("web-0").start();
    let directory = web.cgroup_directory();
    let args = attach_args(
        &directory,
        &["--upstream", "real", "--run-dir", "/spotsim.d"],
    );
    let mut daemon = node
        .pod("spotsim")
        .host_network()
        .host_pid()
        .privileged()
        .mount(Path::new("/sys/fs/cgroup"), "/sys/fs/cgroup")
        .mount(&spotsim_binary(), "/spotsim")
        .program("/spotsim")
        .args(&args);
    // What it is linked with.
    for libraries in ["/lib", "/lib64"].map(Path::new) {
        if libraries.exists() {
            daemon = daemon.mount(libraries, libraries.to_str().unwrap());
        }
    }
    let daemon = daemon.start();
    let armed = wait_until("the daemon is armed", || {
        let stdout = daemon.main.stdout();
        let line = stdout.iter().find(|line| line.starts_with("armed: "))?;
        Some(Armed::parse(line))
    });
    assert_eq!(web.get(NOTICE).body(), armed.instance_action());
    assert_eq!(daemon.get(NOTICE).status(), 404);
}

#[test]
fn the_first_request_of_a_pod_can_be_told() {
    let Some(node) = Node::start() else { return };
    let upstream = Upstream::start(&node.lab, &[]);
    let polling = node
        .pod("web-0")
        .args(&["get", "--each", "10", NOTICE])
        .start();
    let asked = wait_until("three requests", || {
        let asked = polling.main.asked();
        (asked.len() >= 3).then_some(asked)
    });
    assert!(asked.iter().all(|asked| asked.status() == 404), "{asked:?}");
    assert!(asked[0].at_us < asked[1].at_us, "{asked:?}");
    polling.remove();
    let (seen, asked) = (upstream.seen().len(), asked.len());
    assert!(seen >= asked, "{seen} requests, {asked} told");

    drop(upstream);
    let refused = node.pod("web-1").args(&["get", NOTICE]).start();
    assert_eq!(refused.main.wait(), 0);
    let asked = refused.main.asked();
    assert_eq!(asked.len(), 1);
    let error = asked[0].answer.as_ref().unwrap_err();
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn a_container_restarts_in_its_pod() {
    let Some(node) = Node::start() else { return };
    let pod = node.pod("web-0").start();
    let (old, home) = (pod.pid(), pod.network());
    pod.main.kill();
    assert_eq!(pod.main.wait(), 128 + 9);
    assert!(!is_running(old));
    let again = pod.container("main", &["pause"]);
    assert_ne!(again.id(), pod.main.id());
    assert_eq!(network(again.pid()), home);
    assert_eq!(cgroup(again.pid()), pod.cgroup().join(again.id()));
    assert_eq!(again.exec(&["no-such-verb"]).code, 128 + 6);

    again.stop();
    assert_eq!(again.wait(), 128 + 9);
    let gone = again.id().to_owned();
    again.remove();
    assert!(!pod.cgroup_directory().join(gone).exists());
    let sandbox = pod.sandbox_pid();
    pod.kill();
    assert!(!is_running(sandbox));
}

#[test]
fn a_stopped_pod_is_known_and_a_removed_one_is_not() {
    let Some(node) = Node::start() else { return };
    let pod = node.pod("web-0").start();
    let (uid, network) = (pod.uid().to_owned(), pod.network());
    assert_ne!(holders(&network), BTreeSet::new());
    assert!(node.lab.node.ip("-o link").contains("veth"));
    pod.stop();
    assert!(node.kubepods().processes().is_empty());
    assert_eq!(holders(&network), BTreeSet::new());
    assert!(!node.lab.node.ip("-o link").contains("veth"));
    let listed = node.cri().list_pod_sandbox();
    let states: Vec<_> = listed.iter().map(|listed| listed.state()).collect();
    assert_eq!(states, [PodSandboxState::NotReady]);
    assert_ne!(cgroups_named(&format!("pod{uid}")), BTreeSet::new());

    pod.remove();
    assert!(node.cri().list_pod_sandbox().is_empty());
    assert_eq!(cgroups_named(&format!("pod{uid}")), BTreeSet::new());
}

#[test]
fn spotsim_reaches_a_pod() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let [chosen, other] = ["web-0", "web-1"].map(|name| node.pod(name).start());
    let directory = chosen.cgroup_directory();
    let args = attach_args(&directory, &["--upstream", "real"]);
    let mut spotsim = Running::start(Spotsim::command(&node.lab, &args));
    let armed = Armed::parse(&spotsim.stdout_line("armed: ", 0));
    let notice = chosen.get(NOTICE);
    assert_eq!(
        (notice.status(), notice.body()),
        (200, armed.instance_action().as_str())
    );
    assert_eq!(other.get(NOTICE).status(), 404);
}

#[test]
fn nodes_side_by_side_do_not_meet() {
    let Some(one) = Node::start() else { return };
    let Some(two) = Node::start() else { return };
    let upstreams = [&one, &two].map(|node| Upstream::start(&node.lab, &[]));
    let pods = [&one, &two].map(|node| node.pod("web-0").start());
    assert_eq!(pods[0].ip(), pods[1].ip());
    assert_ne!(pods[0].network(), pods[1].network());
    assert_eq!(pods[0].get(REGION).status(), 200);
    assert_eq!(
        upstreams.each_ref().map(|upstream| upstream.seen().len()),
        [1, 0]
    );
    for (node, pod) in [&one, &two].into_iter().zip(&pods) {
        let listed = node.cri().list_pod_sandbox();
        let listed: Vec<&str> = listed.iter().map(|listed| listed.id.as_str()).collect();
        assert_eq!(listed, [pod.sandbox_id()]);
    }
}

#[test]
fn pods_outlive_their_runtime() {
    let Some(node) = Node::start() else { return };
    let pod = node.pod("web-0").start();
    let pid = pod.pid();
    node.kill_containerd();
    assert!(node.cri().ready("RuntimeReady").is_err());
    assert!(is_running(pid));
    node.restart_containerd();
    assert_eq!(pod.pid(), pid);
    assert_eq!(pod.exec(&["get"]).code, 0);
    node.pod("web-1").start();
    assert_eq!(node.cri().list_pod_sandbox().len(), 2);
}

#[test]
fn a_containerd_with_events_makes_pods_too() {
    let Some(node) = Node::with_events() else {
        return;
    };
    let version = node.cri().version().runtime_version;
    let parts: Vec<u32> = version
        .trim_start_matches('v')
        .split(['.', '~', '+', '-'])
        .map_while(|part| part.parse().ok())
        .collect();
    assert!(parts >= vec![1, 7], "{version}");
    let _upstream = Upstream::start(&node.lab, &[]);
    let pod = node.pod("web-0").start();
    assert_eq!(pod.get(REGION).body(), "eu-central-1");
    assert_eq!(cgroup(pod.pid()), pod.cgroup().join(pod.main.id()));
}

#[test]
fn a_dropped_node_leaves_nothing() {
    let host = host();
    let Some(node) = Node::start() else { return };
    let directory = node.lab.directory.clone();
    let top = node.kubepods().path();
    let top = top.parent().unwrap().file_name().unwrap();
    let top = top.to_str().unwrap().to_owned();
    node.pod("web-0").start();
    node.pod("agent").host_network().start();
    let network = node.lab.node.name();
    let pods = node.kubepods().processes().len();
    assert_eq!(pods, 4, "two sandboxes, two containers");
    assert!(holders(&network).len() > pods - 2);
    assert!(mounters(&directory).len() > pods);
    assert_ne!(cgroups_named(&top), BTreeSet::new());
    assert_eq!(self::host(), host, "while it runs");
    drop(node);
    assert_eq!(holders(&network), BTreeSet::new());
    assert_eq!(mounters(&directory), BTreeSet::new());
    assert_eq!(cgroups_named(&top), BTreeSet::new());
    assert!(!directory.exists());
    assert_eq!(self::host(), host);
}

/// What a runtime would change on its host: network devices, and what is kept where
/// containerd, runc and the CNI plugins usually keep it.
fn host() -> Vec<(&'static str, BTreeSet<PathBuf>)> {
    let places = [
        "/sys/class/net",
        "/run/containerd",
        "/run/containerd/s",
        "/run/netns",
        "/run/runc",
        "/var/lib/cni",
        "/var/lib/containerd",
        "/opt/containerd",
    ];
    let listed = |place| (place, entries(Path::new(place)));
    places.map(listed).into()
}

fn entries(directory: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The processes there are.
fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = entries(Path::new("/proc")).into_iter();
    entries.filter(|entry| entry.join("cgroup").exists())
}

/// The processes in a network namespace, and those that hold it open.
fn holders(network: &Path) -> BTreeSet<PathBuf> {
    let is_it = |path: &PathBuf| fs::read_link(path).is_ok_and(|link| link == network);
    let holds = |process: &PathBuf| {
        is_it(&process.join("ns/net")) || entries(&process.join("fd")).iter().any(is_it)
    };
    processes().filter(holds).collect()
}

/// The processes that see a mount of something in a directory.
fn mounters(directory: &Path) -> BTreeSet<PathBuf> {
    let name = directory.file_name().unwrap().to_str().unwrap();
    let sees = |process: &PathBuf| {
        // Gone in the meantime: it sees none.
        let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
        mounts.contains(name)
    };
    processes().filter(sees).collect()
}

/// The cgroups of this name in every hierarchy.
fn cgroups_named(name: &str) -> BTreeSet<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut open: Vec<PathBuf> = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields[2].starts_with("cgroup"))
        .map(|fields| fields[1].into())
        .collect();
    let mut found = BTreeSet::new();
    while let Some(directory) = open.pop() {
        let below = entries(&directory).into_iter().filter(|path| path.is_dir());
        let (named, other) = below.partition::<Vec<_>, _>(|path| path.ends_with(name));
        found.extend(named);
        open.extend(other);
    }
    found
}
