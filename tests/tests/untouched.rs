//! Routes, addresses, rules and sysctls are the same before, during and after.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use nix::sys::signal::Signal;
use tests::{Lab, NetNs, Running, Spotsim, Upstream, Via, get, wait_until};

/// Everything that configures a network namespace, by the name of the view.
fn snapshot(net: &NetNs) -> BTreeMap<String, String> {
    let mut views = BTreeMap::new();
    for view in [
        "-4 route show table all",
        "-6 route show table all",
        "-4 rule",
        "-6 rule",
        "address",
        "-details link",
        "neighbour show nud permanent",
    ] {
        views.insert(format!("ip {view}"), settled(&net.ip(view)));
    }
    for firewall in [
        &["nft", "list", "ruleset"][..],
        &["iptables-save"],
        &["ip6tables-save"],
    ] {
        let output = net.enter(|| Command::new(firewall[0]).args(&firewall[1..]).output());
        // What is not installed has set no rule either.
        if let Ok(output) = output {
            views.insert(
                firewall.join(" "),
                String::from_utf8_lossy(&output.stdout).into_owned(),
            );
        }
    }
    for table in ["ip_tables_names", "ip6_tables_names"] {
        let names = net.enter(|| fs::read_to_string(format!("/proc/thread-self/net/{table}")));
        views.insert(table.to_owned(), names.unwrap_or_default());
    }
    // `net` is the namespace's, everything else the machine's.
    net.enter(|| sysctls(Path::new("/proc/sys"), &mut views));
    assert!(views.len() > 200, "only {} views", views.len());
    views
}

/// A new link's own address has its routes when the kernel knows that nobody else has it.
fn wait_until_addresses_are_settled(net: &NetNs) {
    wait_until("each link has its own address", || {
        let links = net.ip("-o link show up");
        let links = links.lines().filter(|link| !link.contains(": lo:"));
        let settled = net.ip("-6 -o address show scope link -tentative");
        (settled.lines().count() >= links.count()).then_some(())
    });
}

/// Without the seconds that an address or route still has to live.
fn settled(view: &str) -> String {
    let seconds = regex::Regex::new(r"(expires|valid_lft|preferred_lft) \d+sec").unwrap();
    seconds.replace_all(view, "$1").into_owned()
}

fn sysctls(directory: &Path, views: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sysctls(&path, views);
        } else if !counts(&path) {
            // Some can only be written.
            if let Ok(value) = fs::read(&path) {
                let value = String::from_utf8_lossy(&value).into_owned();
                views.insert(path.display().to_string(), value);
            }
        }
    }
}

/// Is it one that the kernel changes by itself as the machine goes on?
fn counts(path: &Path) -> bool {
    const COUNTERS: [&str; 10] = [
        "/proc/sys/fs/dentry-state",
        "/proc/sys/fs/file-nr",
        "/proc/sys/fs/inode-nr",
        "/proc/sys/fs/inode-state",
        "/proc/sys/fs/aio-nr",
        "/proc/sys/fs/quota",
        "/proc/sys/kernel/ns_last_pid",
        // Lowered when the profiler's interrupts take long.
        "/proc/sys/kernel/perf_event_max_sample_rate",
        "/proc/sys/kernel/pty/nr",
        "/proc/sys/kernel/random",
    ];
    let name = path.file_name().unwrap().to_string_lossy();
    name.contains("count")
        || name.ends_with("stats")
        || COUNTERS.iter().any(|counter| path.starts_with(counter))
}

fn assert_same(then: &BTreeMap<String, String>, net: &NetNs, when: &str) {
    let now = snapshot(net);
    for (name, value) in then {
        assert_eq!(now.get(name), Some(value), "{name}, {when}");
    }
    assert_eq!(now.len(), then.len(), "{when}");
}

fn leaves_the_network_alone(lab: Option<Lab>) {
    let Some(lab) = lab else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    // Both have been used, so that nothing appears for the first time later.
    lab.outside().get("/");
    for net in [&lab.node, lab.workload()] {
        wait_until_addresses_are_settled(net);
    }
    let node = snapshot(&lab.node);
    let workload = snapshot(lab.workload());

    let mut ends = vec![Signal::SIGTERM, Signal::SIGKILL];
    while let Some(signal) = ends.pop() {
        let spotsim = Spotsim::attach(&lab, &[]);
        for via in Via::ALL {
            let notice = get("/latest/meta-data/spot/instance-action");
            assert_eq!(lab.inside().send(via, &notice).status(), 200);
        }
        assert_same(&node, &lab.node, "on the node, while attached");
        assert_same(
            &workload,
            lab.workload(),
            "in the workload's namespace, while attached",
        );
        spotsim.signal(signal);
        spotsim.into_process().finish();
        assert_same(&node, &lab.node, "on the node, after it");
        assert_same(
            &workload,
            lab.workload(),
            "in the workload's namespace, after it",
        );
    }
}

#[test]
fn the_nodes_network_is_left_alone() {
    leaves_the_network_alone(Lab::new());
}

#[test]
fn a_pods_network_is_left_alone() {
    leaves_the_network_alone(Lab::with_pod());
}

#[test]
fn a_run_leaves_the_network_alone() {
    let Some(lab) = Lab::new() else { return };
    let before = snapshot(&lab.node);
    for options in [&["run", "--upstream", "none"][..], &["run", "--isolate"]] {
        let script = ["--", "sh", "-c", "echo up; read line"];
        let mut running = Running::start(Spotsim::command(&lab, &[options, &script].concat()));
        running.stdout_line("up", 0);
        assert_same(&before, &lab.node, "while a command runs");
        assert_eq!(
            running.finish().code,
            1,
            "the shell's read came to the end of its input"
        );
        assert_same(&before, &lab.node, "after it");
    }
}
