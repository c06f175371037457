//! A container runtime that says nothing for a while, as on a node that is short of memory.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{Node, Running, Spotsim, Upstream, run, wait_until};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";

/// The process that listens at the runtime's socket.
fn runtime(node: &Node) -> Pid {
    let config = node.lab.directory.join("containerd/containerd.toml");
    let config = config.to_str().unwrap();
    let is_it = |pid: &i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split('\0').any(|word| word == config)
    };
    let runtime = node.lab.root.processes();
    Pid::from_raw(runtime.into_iter().find(is_it).expect("a containerd"))
}

/// What it has stays, a call that is not answered is given up, and when it goes on so does the
/// following, at once.
#[test]
fn for_longer_than_it_is_waited_for() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = |name: &str| node.pod(name).label("app", "web").start();
    let first = web("web-0");
    let endpoint = node.endpoint();
    let of_runtime = ["--runtime-endpoint", &endpoint];
    let attach = [
        &["attach", "-l", "app=web", "--upstream", "real"],
        &of_runtime[..],
    ]
    .concat();
    let mut spotsim = Running::start(Spotsim::command(&node.lab, &attach));
    spotsim.stdout_line("armed: ", 0);

    let runtime = runtime(&node);
    kill(runtime, Signal::SIGSTOP).unwrap();
    let pods = [&["pods"], &of_runtime[..]].concat();
    let refused = run(Spotsim::command(&node.lab, &pods), b"");
    assert_eq!(refused.code, 1, "{}", refused.text());
    assert!(
        refused.stderr.contains("no answer within 5s"),
        "{}",
        refused.stderr
    );
    spotsim.stderr_line("targets stay as they are until it answers", 0);
    kill(runtime, Signal::SIGCONT).unwrap();
    let again = Instant::now();
    spotsim.stderr_line("the container runtime answers again", 0);
    // A look that failed took ten seconds, which is no reason to wait for ninety.
    assert!(
        again.elapsed() < Duration::from_secs(5),
        "{:?}",
        again.elapsed()
    );
    let second = web("web-1");
    wait_until("the notice", || {
        (second.get(NOTICE).status() == 200).then_some(())
    });
    assert_eq!(first.get(NOTICE).status(), 200);

    kill(runtime, Signal::SIGSTOP).unwrap();
    thread::sleep(Duration::from_millis(100));
    spotsim.signal(Signal::SIGTERM);
    let finished = spotsim.finish_within(Duration::from_secs(5));
    kill(runtime, Signal::SIGCONT).unwrap();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
}

/// Somebody who looked at `crictl pods`.
#[test]
fn a_sandboxs_id_is_no_containers() {
    let Some(node) = Node::start() else { return };
    let pod = node.pod("web-0").namespace("shop").start();
    let endpoint = node.endpoint();
    let of_runtime = ["--runtime-endpoint", &endpoint];
    let spotsim = |args: &[&str]| {
        let args = [args, &of_runtime].concat();
        run(Spotsim::command(&node.lab, &args), b"")
    };
    let id = pod.sandbox_id();
    let refused = spotsim(&["attach", "--dry-run", "--container", id]);
    assert_eq!(refused.code, 1, "{}", refused.text());
    let reason = format!("{id} is no container's ID, but that of a sandbox: --pod shop/web-0\n");
    assert!(refused.stderr.ends_with(&reason), "{}", refused.stderr);

    let none = spotsim(&["pods", "-n", "default"]).expect("pods");
    assert_eq!(none, "no such pod runs on this node\n");
}
