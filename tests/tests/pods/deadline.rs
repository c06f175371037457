//! What is done to one pod at its deadline, while its neighbour goes on.

use std::{fs, path::Path, thread::sleep, time::Duration};

use nix::sys::signal::Signal;
use tests::{Node, Pod, Running, Spotsim, Upstream, in_run_dir, run, spotsim_binary, wait_until};

use super::{NOTICE, sees};

/// `attach` to a pod, with something to be done so late that the pod can be looked at before.
fn attach(node: &Node, effect: &str) -> Running {
    let endpoint = node.endpoint();
    let args = [
        &["attach", "--runtime-endpoint", &endpoint][..],
        &[
            "--pod",
            "default/web-0",
            "--upstream",
            "real",
            "--lead",
            "6s",
        ],
        &["--at-deadline", effect, "--yes", "--grace", "1s"]
            [..if effect == "term" { 5 } else { 3 }],
    ];
    let run = node.lab.directory.join("default");
    fs::create_dir_all(&run).unwrap();
    let place = node.lab.daemon_place().with_bind(&run, Path::new("/run"));
    let mut command = place.command(spotsim_binary());
    command.args(in_run_dir(&node.lab, &args.concat()));
    let mut process = Running::start(command);
    process.stdout_line("armed: ", 0);
    process
}

/// A pod that asks its IMDS all the time.
fn asking<'node>(node: &'node Node, name: &str) -> Pod<'node> {
    let args = ["get", "--each", "50", "--timeout", "1000", NOTICE];
    node.pod(name).args(&args).start()
}

/// Waits until it asks, and is answered.
fn wait_until_answered(pod: &Pod) {
    wait_until("a pod that is answered", || is_answered(pod).then_some(()));
}

fn is_answered(pod: &Pod) -> bool {
    let from = pod.main.stdout().len();
    sleep(Duration::from_millis(700));
    let asked = pod.main.asked();
    asked.len() > from + 1 && asked[from + 1..].iter().all(|asked| asked.answer.is_ok())
}

/// Does it print nothing, not even that a request got no answer in time?
fn is_silent(pod: &Pod) -> bool {
    let from = pod.main.stdout().len();
    sleep(Duration::from_millis(1_500));
    pod.main.stdout().len() <= from
}

#[test]
fn one_is_ended_and_its_neighbour_is_not() {
    for effect in ["term", "kill"] {
        let Some(node) = Node::start() else { return };
        let _upstream = Upstream::start(&node.lab, &[]);
        let [pod, neighbour] = ["web-0", "web-1"].map(|name| asking(&node, name));
        let mut spotsim = attach(&node, effect);
        assert!(sees(&pod), "{effect}");
        assert!(!sees(&neighbour), "{effect}");
        // Its first process has no handler, so that the kernel keeps SIGTERM from it (signal(7)).
        assert_eq!(pod.main.wait(), 128 + 9, "{effect}");
        wait_until("no process is left", || {
            let procs = fs::read_to_string(pod.cgroup_directory().join("cgroup.events"));
            procs
                .is_ok_and(|events| events.contains("populated 0"))
                .then_some(())
        });
        wait_until_answered(&neighbour);
        assert!(!sees(&neighbour), "{effect}");
        assert!(!spotsim.has_ended() || spotsim.stderr().contains("ended"));
    }
}

#[test]
fn one_is_frozen_and_thawed_and_its_neighbour_never_notices() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let [pod, neighbour] = ["web-0", "web-1"].map(|name| asking(&node, name));
    let spotsim = attach(&node, "freeze");
    wait_until_answered(&pod);
    wait_until("it is frozen", || is_silent(&pod).then_some(()));
    wait_until_answered(&neighbour);
    spotsim.signal(Signal::SIGTERM);
    assert_eq!(spotsim.finish().code, 0);
    wait_until_answered(&pod);
    assert!(!sees(&pod));
}

#[test]
fn one_is_cut_off_and_its_neighbour_is_not() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let [pod, neighbour] = ["web-0", "web-1"].map(|name| asking(&node, name));
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let spotsim = attach(&node, "cut");
        wait_until_answered(&pod);
        wait_until("its IMDS is gone", || {
            let asked = pod.main.asked();
            asked
                .last()
                .is_some_and(|asked| asked.answer.is_err())
                .then_some(())
        });
        wait_until_answered(&neighbour);
        spotsim.signal(signal);
        spotsim.finish();
        wait_until_answered(&pod);
        assert!(!sees(&pod), "{signal}");
    }
}

/// A node's runtime is in no pod; whoever names its cgroup is told.
#[test]
fn the_runtimes_cgroup_is_refused() {
    let Some(node) = Node::start() else { return };
    let pid = node.runtime_pid().to_string();
    let args = [
        "attach",
        "--pid",
        &pid,
        "--upstream",
        "real",
        "--at-deadline",
        "kill",
        "--yes",
    ];
    let finished = run(Spotsim::command(&node.lab, &args), b"");
    assert_eq!(finished.code, 1, "{}", finished.text());
    let line = format!("it holds the container runtime, containerd ({pid}), in cgroup ");
    assert!(finished.stderr.contains(&line), "{}", finished.stderr);
    assert!(tests::is_running(node.runtime_pid()));
}
