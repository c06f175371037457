//! Routes, addresses, rules and sysctls are the same before, during and after.

use nix::sys::signal::Signal;
use tests::{Configuration, Lab, NetNs, Running, Spotsim, Upstream, Via, get};

fn assert_same(then: &Configuration, net: &NetNs, when: &str) {
    let now = net.configuration();
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
        net.wait_until_settled();
    }
    let node = lab.node.configuration();
    let workload = lab.workload().configuration();

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
    let before = lab.node.configuration();
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
