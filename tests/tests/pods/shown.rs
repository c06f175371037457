//! What would be chosen, and which pods there are, before anything is attached.

use std::path::Path;

use serde_json::{Value, json};
use tests::{Node, Pod, Qos, Spotsim, Upstream, run, spotsim_binary};

use super::who_sees;

/// What a verb with the node's runtime prints.
fn print(node: &Node, args: &[&str]) -> String {
    let endpoint = node.endpoint();
    let args = [args, &["--runtime-endpoint", &endpoint]].concat();
    let finished = run(Spotsim::command(&node.lab, &args), b"");
    assert_eq!(finished.stderr, "", "{args:?}");
    finished.expect(args[0])
}

fn rows(node: &Node, args: &[&str]) -> Vec<Value> {
    let args = [args, &["--json"]].concat();
    serde_json::from_str(&print(node, &args)).unwrap()
}

/// The row that a pod must have, by what the test knows of it.
fn expected(pod: &Pod, labels: Value, host_network: bool) -> Value {
    let network = pod.network().display().to_string();
    let number = network.trim_start_matches("net:[").trim_end_matches(']');
    let number: u64 = number.parse().unwrap();
    json!({
        "name": format!("pod {}/{}", pod.namespace(), pod.name()),
        "kind": "pod",
        "namespace": pod.namespace(),
        "pod": pod.name(),
        "uid": pod.uid(),
        "labels": labels,
        "host_network": host_network,
        "cgroup": pod.cgroup().to_str(),
        "network_namespaces": [number],
        "in_host_network": host_network,
        "refused": null,
    })
}

/// A row without the labels that every pod of a kubelet has.
fn own_labels(mut row: Value) -> Value {
    let labels = row["labels"].as_object_mut().unwrap();
    labels.retain(|key, _| !key.starts_with("io.kubernetes."));
    row
}

#[test]
fn pods_are_shown_as_they_would_be_chosen() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = |name: &str| node.pod(name).label("app", "web");
    let pods = [
        web("web-0").start(),
        web("web-1").qos(Qos::Guaranteed).host_network().start(),
        web("web-2").namespace("shop").qos(Qos::Burstable).start(),
        node.pod("db-0").start(),
    ];
    let all: Vec<_> = pods
        .iter()
        .map(|pod| {
            let is_web = pod.name().starts_with("web");
            let labels = if is_web {
                json!({"app": "web"})
            } else {
                json!({})
            };
            expected(pod, labels, pod.name() == "web-1")
        })
        .collect();
    let by = |names: &[&str]| -> Vec<Value> {
        let named = |name: &&str| all.iter().find(|row| row["pod"] == **name).cloned();
        names.iter().filter_map(named).collect()
    };
    for (options, names) in [
        (&[][..], &["db-0", "web-0", "web-1", "web-2"][..]),
        (&["-A"], &["db-0", "web-0", "web-1", "web-2"]),
        (&["-n", "shop"], &["web-2"]),
        (&["-l", "app=web"], &["web-0", "web-1"]),
        (&["-l", "app=web", "-n", "shop"], &["web-2"]),
        (&["-l", "app=web", "-A"], &["web-0", "web-1", "web-2"]),
        (&["-l", "!app", "-n", "default"], &["db-0"]),
        (&["-n", "nowhere"], &[]),
    ] {
        let listed = rows(&node, &[&["pods"], options].concat());
        let listed: Vec<_> = listed.into_iter().map(own_labels).collect();
        assert_eq!(listed, by(names), "{options:?}");
    }
    for (options, names) in [
        (&["-l", "app=web"][..], &["web-0", "web-1"][..]),
        (&["-l", "app=web", "-A"], &["web-0", "web-1", "web-2"]),
        (&["--pod", "shop/web-2"], &["web-2"]),
        (&["--pod", "a/b", "--wait"], &[]),
    ] {
        let args = [&["attach", "--dry-run"], options].concat();
        let chosen: Vec<_> = rows(&node, &args).into_iter().map(own_labels).collect();
        assert_eq!(chosen, by(names), "{options:?}");
        assert_eq!(who_sees(&pods.each_ref()), [""; 0]);
    }
    for args in [&["pods"][..], &["attach", "--dry-run", "-l", "app=web"]] {
        as_a_table(&node, args, &pods[1]);
    }
}

fn as_a_table(node: &Node, args: &[&str], on_host: &Pod) {
    let table = print(node, args);
    let mut lines = table.lines();
    let head: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["TARGET", "UID", "NETWORK", "NAMESPACE", "CGROUP"]);
    let line = lines.find(|line| line.contains("web-1")).unwrap();
    let cells: Vec<_> = line.split("  ").map(str::trim).collect();
    let cells: Vec<_> = cells.into_iter().filter(|cell| !cell.is_empty()).collect();
    let network = on_host.network().display().to_string();
    let number = network.replace("net:[", "").replace(']', " (host)");
    let cgroup = on_host.cgroup().display().to_string();
    assert_eq!(
        cells,
        ["pod default/web-1", on_host.uid(), &number, &cgroup]
    );
}

/// Who has no capability to attach to anything can still look.
#[test]
fn to_be_shown_nothing_is_attached() {
    let Some(node) = Node::start() else { return };
    let pod = node.pod("web-0").start();
    let pid = pod.pid().to_string();
    let path = pod.cgroup().display().to_string();
    let endpoint = node.endpoint();
    let spotsim = spotsim_binary();
    let without = "--bounding-set=-bpf,-net_admin,-perfmon,-sys_admin";
    let setpriv = ["setpriv", without, spotsim.to_str().unwrap()];
    let targets = [
        "--cgroup",
        &path,
        "--pid",
        &pid,
        "--container",
        pod.main.id(),
    ];
    let attach = ["attach", "--runtime-endpoint", &endpoint];
    let run_dir = node.lab.run_dir();
    let run_dir = ["--run-dir", run_dir.to_str().unwrap()];
    let place = node.lab.daemon_place();
    let attach = [&setpriv[..], &attach, &run_dir, &targets].concat();
    let refused = run(place.command_line(&attach), b"");
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    let shown = [&attach[..], &["--dry-run", "--json"]].concat();
    let shown = run(place.command_line(&shown), b"").expect("attach --dry-run");
    let listed: Vec<Value> = serde_json::from_str(&shown).unwrap();
    let cgroups: Vec<_> = listed.iter().map(|row| row["cgroup"].as_str()).collect();
    let main = pod.cgroup().join(pod.main.id()).display().to_string();
    // The process is the container's: it is chosen once.
    assert_eq!(cgroups, [Some(path.as_str()), Some(&main)]);
    let kinds: Vec<_> = listed.iter().map(|row| row["kind"].as_str()).collect();
    assert_eq!(kinds, [Some("cgroup"), Some("process")]);
    assert!(!Path::new(run_dir[1]).exists(), "no control socket");
}
