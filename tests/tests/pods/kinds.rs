//! Pods that are not as most are: covered, or refused with the reason.

use std::{fs, process::Command};

use serde_json::Value;
use tests::{
    Finished, NetNs, Node, Place, Pod, Running, Spotsim, Upstream, Via, client,
    cri::messages::{
        LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
        PodSandboxConfig, PodSandboxMetadata,
    },
    get, run, wait_until,
};

use super::{NOTICE, REGION, attach, sees};

/// A place in a pod's cgroup itself, where a machine monitor of Kata is, and in a network
/// namespace of choice.
fn place(node: &Node, pod: &Pod, network: &NetNs) -> Place {
    let place = node.lab.place(network, &node.lab.beside);
    place.in_cgroup(&pod.cgroup_directory())
}

fn place_sees(place: &Place) -> bool {
    super::is_notice(place.get(NOTICE).status())
}

#[test]
fn a_pod_with_several_network_namespaces() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let pod = node.pod("web-0").start();
    let [before, later] = [(), ()].map(|()| NetNs::new());
    node.lab.node.connect_pod(&before);
    let [inside, too] = [&before, &later].map(|network| place(&node, &pod, network));
    assert!(!place_sees(&inside));
    let _one = inside.sleeper();
    let mut spotsim = attach(&node, &["--pod", "default/web-0"]);
    let armed = spotsim.stdout_line("armed: ", 0);
    assert!(
        armed.contains("pod default/web-0 in 2 network namespaces"),
        "{armed}"
    );
    assert!(place_sees(&inside));
    assert!(sees(&pod));
    // A process that joins others raises no event: what it asks at once may go past, and is told.
    let _two = too.sleeper();
    wait_until("the notice, in a namespace without a network", || {
        let finished = too.try_send(Via::V4, &get(NOTICE));
        finished.text().starts_with("HTTP/1.1 200").then_some(())
    });
}

/// As a kubelet makes them: none of its users is one of the host's.
#[test]
fn a_pod_whose_users_are_its_own() {
    let Some(node) = Node::with_events() else {
        return;
    };
    let _upstream = Upstream::start(&node.lab, &[]);
    let pod = node.pod("web-0").own_users().start();
    let map = fs::read_to_string(format!("/proc/{}/uid_map", pod.pid())).unwrap();
    let map: Vec<_> = map.split_whitespace().collect();
    assert_eq!(map, ["0", "100000", "65536"]);
    assert!(!sees(&pod));
    let _spotsim = attach(&node, &["--pod", "default/web-0"]);
    assert!(sees(&pod));
    assert_eq!(pod.main.get_with_token(REGION).body(), "eu-central-1");
}

/// Its network namespace belongs to its user namespace, in which it has all capabilities and
/// outside of which none.
#[test]
fn a_pod_with_a_user_namespace() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let pod = node.pod("web-0").start();
    let in_pod = place(&node, &pod, &node.lab.node);
    let script = "ip link set lo up; echo up; exec sleep 600";
    let line = [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "sh",
        "-c",
        script,
    ];
    let mut workload = Running::start(in_pod.command_line(line));
    workload.stdout_line("up", 0);
    let target = workload.pid().to_string();
    let ask = || -> Finished {
        let mut command: Command = in_pod.command("nsenter");
        command.args([
            "--target",
            &target,
            "--user",
            "--net",
            "--preserve-credentials",
        ]);
        command.arg(client()).args(["raw", "v4"]);
        run(command, &get(NOTICE))
    };
    assert_eq!(ask().text(), "", "it has no network");
    let _spotsim = attach(&node, &["--pod", "default/web-0"]);
    let answer = ask();
    assert!(
        answer.text().starts_with("HTTP/1.1 200"),
        "{}",
        answer.stderr
    );
    assert!(sees(&pod));
}

/// What spotsim says in one line of stderr, if it does not start.
fn refused(node: &Node, options: &[&str]) -> String {
    let endpoint = node.endpoint();
    let args = [
        "attach",
        "--upstream",
        "real",
        "--runtime-endpoint",
        &endpoint,
    ];
    let finished = run(Spotsim::command(&node.lab, &[&args, options].concat()), b"");
    assert_eq!(finished.code, 1, "{}", finished.text());
    assert_eq!(finished.text(), "");
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    finished.stderr
}

#[test]
fn a_pod_that_has_ended() {
    let Some(node) = Node::start() else { return };
    let pod = node.pod("web-0").label("app", "web").start();
    pod.kill();
    for (options, reason) in [
        (["--pod", "default/web-0"], "pod default/web-0 has ended"),
        (
            ["--pod", "default/web-9"],
            "no such pod on this node: default/web-9",
        ),
        (
            ["--selector", "app=web"],
            "no pod of namespace default that runs on this node matches",
        ),
    ] {
        let line = refused(&node, &options);
        assert!(line.contains(reason), "{line}");
    }
}

/// A sandbox that no kubelet made has no cgroup that is all of it and nothing else.
#[test]
fn a_pod_without_a_cgroup_of_its_own() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = node.pod("web-0").label("app", "web").start();
    let odd = node.kubepods().path().join("odd");
    let labels = [("app".to_owned(), "web".to_owned())];
    node.cri().run_pod_sandbox(PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "odd".to_owned(),
            uid: "0f0e0d0c".to_owned(),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        labels: labels.into(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: odd.display().to_string(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(NamespaceOption {
                    network: NamespaceMode::Node.into(),
                    pid: NamespaceMode::Container.into(),
                    userns_options: None,
                }),
                privileged: false,
            }),
        }),
        ..PodSandboxConfig::default()
    });
    let reason = "no part of which is the pod's own";
    let line = refused(&node, &["--pod", "default/odd", "-l", "app=web"]);
    assert!(line.contains("pod default/odd: its process"), "{line}");
    assert!(line.contains(reason), "{line}");
    assert!(!sees(&web), "nothing is half attached");
    // One that merely matches does not keep the others from being chosen.
    let mut spotsim = attach(&node, &["-l", "app=web"]);
    let line = spotsim.stderr_line("pod default/odd: its process", 0);
    assert!(line.contains(reason), "{line}");
    assert!(sees(&web));
    let endpoint = node.endpoint();
    let pods = ["pods", "--json", "--runtime-endpoint", &endpoint];
    let pods = run(Spotsim::command(&node.lab, &pods), b"").expect("pods");
    let pods: Value = serde_json::from_str(&pods).unwrap();
    assert_eq!(pods[0]["pod"], "odd");
    assert!(
        pods[0]["refused"].as_str().unwrap().contains(reason),
        "{pods}"
    );
    assert_eq!(pods[1]["refused"], Value::Null, "{pods}");
}

/// Of a sandbox in which no container runs, the sandbox's own process tells.
#[test]
fn a_pod_whose_containers_have_ended() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let pod = node
        .pod("web-0")
        .args(&["get", "--times", "1", NOTICE])
        .start();
    pod.main.wait();
    let _spotsim = attach(&node, &["--pod", "default/web-0"]);
    let next = pod.container("main", &["get", NOTICE]);
    next.wait();
    assert_eq!(next.asked()[0].status(), 200);
}
