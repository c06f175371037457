//! spotsim in a container: a cgroup namespace, a mount namespace and, sometimes, a pid namespace
//! of its own, with only those of the host's directories that were mounted into it.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use tests::{
    Armed, Finished, Lab, Place, Running, Via, attach_args, client, in_run_dir, run,
    spotsim_binary, wait_until,
};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";
const HOST: i32 = 3;

/// A host, as what runs in containers on it sees it: its process 1 is ours.
struct Host {
    init: Running,
}

/// What a container has of its host.
#[derive(Clone, Copy)]
struct Container {
    /// Its process 1 is the host's.
    shares_processes: bool,
    /// The host's cgroup hierarchy is mounted in it, read-only, besides its own part.
    mounts_cgroups: bool,
    /// Further preparations, in the container's mount namespace.
    besides: &'static str,
}

/// As a DaemonSet runs it, with `hostPID: true` and the host's `/sys/fs/cgroup` mounted.
const DAEMON_SET: Container = Container {
    shares_processes: true,
    mounts_cgroups: true,
    besides: "",
};

/// Where the host's cgroup hierarchy is mounted in a container, in the lab's directory.
const CGROUPS: &str = "host-cgroups";

impl Host {
    /// In the lab, whose directory gets the mount points.
    fn start(lab: &Lab) -> Self {
        fs::create_dir(lab.directory.join(CGROUPS)).unwrap();
        // Beside the daemon: what ends the daemon's cgroup does not end the host.
        let line = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let mut command = lab.outside().command_line(line);
        command.args(["sh", "-c", "echo up; exec sleep 600"]);
        let mut init = Running::start(command);
        init.stdout_line("up", 0);
        Self { init }
    }

    /// Its process 1, as everybody else numbers it.
    fn init(&self) -> String {
        innermost(&self.init)
    }

    /// A command that is one of the host's own processes, at a place.
    fn command(&self, place: &Place, program: &Path) -> Command {
        let target = format!("--target={}", self.init());
        let line = ["nsenter", &target, "--pid", "--mount", "--"];
        let mut command = place.command_line(line);
        command.arg(program);
        command
    }

    /// spotsim in a container, which is in the daemon's cgroup.
    fn spotsim(&self, lab: &Lab, container: Container, args: &[&str]) -> Command {
        let Container {
            shares_processes,
            mounts_cgroups,
            besides,
        } = container;
        let processes = if shares_processes {
            ""
        } else {
            "--pid --fork --kill-child --mount-proc"
        };
        // The host's mounts are gone from what a container sees, as if they had never been.
        let cgroups = lab.directory.join(CGROUPS);
        let top = lab.root.directory().parent().unwrap();
        let (cgroups, top) = (cgroups.display(), top.display());
        let mounted = if mounts_cgroups {
            format!("mount --bind {top} {cgroups} && mount -o remount,bind,ro {cgroups}")
        } else {
            "true".to_owned()
        };
        let inside = format!(
            "set -e
             {mounted}
             umount --recursive --lazy /sys/fs/cgroup
             mount -t cgroup2 none /sys/fs/cgroup
             {besides}
             exec \"$@\""
        );
        let outside = format!("exec unshare --cgroup --mount {processes} sh -c \"$0\" sh \"$@\"");
        let mut command = self.command(&lab.daemon_place(), Path::new("sh"));
        command
            .args(["-c", &outside, &inside])
            .arg(spotsim_binary())
            .args(in_run_dir(lab, args));
        command
    }

    /// What `doctor` says in a container: its exit code and its report.
    fn doctor(&self, lab: &Lab, container: Container, more: &[&str]) -> (i32, Value) {
        let args = [&["doctor", "--json"], more].concat();
        let finished = run(self.spotsim(lab, container, &args), b"");
        let report = serde_json::from_str(&finished.text());
        let report = report.unwrap_or_else(|error| panic!("{error}: {finished:?}"));
        (finished.code, report)
    }
}

/// What the programs that made it wait for, as everybody numbers it.
fn innermost(running: &Running) -> String {
    let mut pid = running.pid().to_string();
    loop {
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(children).unwrap();
        match children.split_whitespace().next() {
            Some(child) => pid = child.to_owned(),
            None => return pid,
        }
    }
}

/// The same, as its host numbers it.
fn number(running: &Running) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", innermost(running))).unwrap();
    let numbers = status.lines().find(|line| line.starts_with("NSpid:"));
    let number = numbers.unwrap().split_whitespace().last();
    number.unwrap().to_owned()
}

/// One of the checks of a report.
fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {report}"))
}

/// The one line in which spotsim refused.
fn refusal(finished: &Finished) -> &str {
    let Finished { code, stderr, .. } = finished;
    assert_eq!(*code, HOST, "{}{stderr}", finished.text());
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert_eq!(finished.text(), "");
    stderr
}

/// The targets are named by the paths that the host has for them, and are found by the mount of
/// its hierarchy. Their processes are known by the host's numbers.
#[test]
fn it_attaches_to_what_the_host_runs() {
    let Some(lab) = Lab::with_pod() else { return };
    let _upstream = tests::Upstream::start(&lab, &[]);
    let host = Host::start(&lab);
    let poll = |place: &Place| {
        let mut command = host.command(place, &client());
        command.args(["poll", "v4", NOTICE, "50"]);
        Running::start(command)
    };
    let workload = poll(&lab.inside());
    let beside = poll(&lab.outside());

    let path = lab.target.path();
    let mut args = attach_args(&path, &["--upstream", "real", "--id", "contained"]);
    args.push("-v");
    let mut spotsim = Running::start(host.spotsim(&lab, DAEMON_SET, &args));
    let armed = Armed::parse(&spotsim.stdout_line("armed: ", 0));
    assert!(
        armed.line.contains(path.to_str().unwrap()),
        "{}",
        armed.line
    );
    // By the namespaces of its processes: spotsim itself is in another.
    assert_eq!(lab.workload().listeners().len(), 2, "{}", armed.line);
    let seen = |running: &Running| running.stdout().contains("\"status\":200");
    wait_until("a poll that sees the notice", || {
        seen(&workload).then_some(())
    });
    let who = spotsim.stderr_line(&format!("{NOTICE}: faked"), 0);
    assert!(who.contains("client["), "{who}");
    assert!(!seen(&beside), "{}", beside.stdout());

    // Which target a process is in, it knows as well.
    let pid = number(&workload);
    let trigger = ["trigger", "--pid", &pid, "--action", "stop"];
    let told = run(host.spotsim(&lab, DAEMON_SET, &trigger), b"").expect("trigger");
    assert!(told.contains("notice (stop)"), "{told}");

    // It listens to the host's own spotsim as well.
    let detach = tests::Spotsim::command(&lab, &["detach", "contained"]);
    run(detach, b"").expect("detach");
    let finished = spotsim.finish();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_eq!(
        lab.inside().send(Via::V4, &tests::get(NOTICE)).status(),
        404
    );
    drop((workload, beside, host));
}

/// The same directory may be named by where it is mounted in the container.
#[test]
fn a_target_by_its_directory() {
    let Some(lab) = Lab::new() else { return };
    let host = Host::start(&lab);
    let top = lab.root.directory().parent().unwrap();
    let below = lab.target.directory().strip_prefix(top).unwrap();
    let directory = lab.directory.join(CGROUPS).join(below);
    let args = attach_args(&directory, &["--upstream", "synthetic", "--for", "100ms"]);
    let line = run(host.spotsim(&lab, DAEMON_SET, &args), b"").expect("attach");
    let path = lab.target.path();
    assert!(line.contains(path.to_str().unwrap()), "{line}");
}

#[test]
fn its_own_cgroup_is_known_by_the_hosts_path() {
    let Some(lab) = Lab::bare() else { return };
    let host = Host::start(&lab);
    let path = lab.root.path();
    let finished = run(
        host.spotsim(&lab, DAEMON_SET, &attach_args(&path, &[])),
        b"",
    );
    assert_eq!(finished.code, 1, "{}", finished.stderr);
    let own = format!("(it is in {})", lab.daemon.path().display());
    assert!(finished.stderr.contains(&own), "{}", finished.stderr);
}

#[test]
fn without_the_hosts_hierarchy() {
    let Some(lab) = Lab::bare() else { return };
    let host = Host::start(&lab);
    let container = Container {
        mounts_cgroups: false,
        ..DAEMON_SET
    };
    let path = lab.target.path();
    let finished = run(host.spotsim(&lab, container, &attach_args(&path, &[])), b"");
    let reason = refusal(&finished);
    assert!(reason.contains("or only a part of it"), "{reason}");
    assert!(reason.contains("mount its /sys/fs/cgroup"), "{reason}");
    let (code, report) = host.doctor(&lab, container, &[]);
    assert_eq!((code, &report["attach"]), (HOST, &false.into()), "{report}");
    assert_eq!(check(&report, "cgroup v2")["outcome"], "fail", "{report}");
    runs_its_own(&lab, &host, container);
}

/// What `run` runs lies beneath spotsim's own cgroup, and needs no path of the host's.
fn runs_its_own(lab: &Lab, host: &Host, container: Container) {
    let script = format!("cat /proc/self/cgroup; exec curl -s http://169.254.169.254{NOTICE}");
    let args = ["run", "--upstream", "synthetic", "--", "sh", "-c", &script];
    let text = run(host.spotsim(lab, container, &args), b"").expect("run");
    assert!(text.contains("\"terminate\""), "{text}");
    // It is still in the container's cgroup namespace.
    let is_beneath = |line: &str| line.starts_with("0::/spotsim-run-");
    assert!(text.lines().any(is_beneath), "{text}");
}

/// Paths would mean something else than on the host.
#[test]
fn a_hosts_cgroup_namespace_that_cannot_be_entered() {
    let Some(lab) = Lab::bare() else { return };
    let host = Host::start(&lab);
    let container = Container {
        besides: "mount -t tmpfs none /proc/1/ns",
        ..DAEMON_SET
    };
    let path = lab.target.path();
    let finished = run(host.spotsim(&lab, container, &attach_args(&path, &[])), b"");
    let reason = refusal(&finished);
    assert!(reason.contains("the host's cannot be entered"), "{reason}");
    assert!(reason.contains("privileged: true"), "{reason}");
    let (code, report) = host.doctor(&lab, container, &[]);
    assert_eq!(code, HOST, "{report}");
    let namespace = check(&report, "cgroup namespace");
    assert_eq!(namespace["outcome"], "fail", "{report}");
    runs_its_own(&lab, &host, container);
}

#[test]
fn a_doctor_in_a_container() {
    let Some(lab) = Lab::bare() else { return };
    let host = Host::start(&lab);
    let (code, report) = host.doctor(&lab, DAEMON_SET, &[]);
    assert_eq!((code, &report["attach"]), (0, &true.into()), "{report}");
    let namespace = check(&report, "cgroup namespace");
    assert_eq!(namespace["outcome"], "ok", "{report}");
    let mounted = check(&report, "cgroup v2")["detail"].as_str().unwrap();
    let cgroups = lab.directory.join(CGROUPS);
    let expected = format!("mounted at {}", cgroups.display());
    assert!(mounted.starts_with(&expected), "{mounted}");
    // The host of these tests is no machine.
    let processes = check(&report, "processes");
    assert_eq!(processes["outcome"], "warn", "{report}");
    let remedy = processes["remedy"].as_str().unwrap();
    assert!(remedy.contains("hostPID: true"), "{remedy}");
}

/// It sees only what is beneath its own cgroup, and can have that.
#[test]
fn without_the_hosts_processes() {
    let Some(lab) = Lab::bare() else { return };
    let host = Host::start(&lab);
    let container = Container {
        shares_processes: false,
        mounts_cgroups: false,
        besides: "mkdir /sys/fs/cgroup/child",
    };
    let (code, report) = host.doctor(&lab, container, &[]);
    assert_eq!(code, 0, "{report}");
    for name in ["cgroup namespace", "processes"] {
        let check = check(&report, name);
        assert_eq!(check["outcome"], "warn", "{check}");
        let remedy = check["remedy"].as_str().unwrap();
        assert!(remedy.contains("hostPID: true"), "{remedy}");
    }
    let container = Container {
        besides: "",
        ..container
    };
    let args = ["--upstream", "synthetic", "--for", "100ms"];
    let args = attach_args("/child".as_ref(), &args);
    let armed = run(host.spotsim(&lab, container, &args), b"").expect("attach");
    assert!(armed.contains("/child"), "{armed}");
}

/// The containers of a pod may share processes among them. Then process 1 is in a cgroup beside
/// spotsim's, and in a namespace that shows less.
#[test]
fn with_the_processes_of_its_pod() {
    let Some(lab) = Lab::bare() else { return };
    let host = Host::start(&lab);
    // The pause process: in its own cgroup, and in a cgroup namespace that begins there.
    let pause = lab.root.child("pause");
    let line = ["unshare", "--cgroup", "--pid", "--fork", "--kill-child"];
    let mut command = host.command(&lab.place(&lab.node, &pause), Path::new(line[0]));
    command.args(&line[1..]);
    command.args(["--mount-proc", "sh", "-c", "echo up; exec sleep 600"]);
    let mut pause = Running::start(command);
    pause.stdout_line("up", 0);
    let pod = Host { init: pause };
    let container = Container {
        mounts_cgroups: false,
        besides: "mkdir /sys/fs/cgroup/child",
        ..DAEMON_SET
    };
    let args = ["--upstream", "synthetic", "--for", "100ms"];
    let args = attach_args("/child".as_ref(), &args);
    let armed = run(pod.spotsim(&lab, container, &args), b"").expect("attach");
    assert!(armed.contains("/child"), "{armed}");
}

/// It is asked what it is, and that is not waited for long.
#[test]
fn the_runtimes_socket_beneath_the_hosts_root() {
    let Some(lab) = Lab::bare() else { return };
    let host = Host::start(&lab);
    let root = lab.directory.join("host");
    let socket = root.join("run/crio/crio.sock");
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let root = root.to_str().unwrap();
    let doctor = |outcome| {
        let (code, report) = host.doctor(&lab, DAEMON_SET, &["--host-root", root]);
        assert_eq!(code, 0, "{report}");
        let check = check(&report, "container runtime");
        assert_eq!(check["outcome"], outcome, "{check}");
        check["detail"].as_str().unwrap().to_owned()
    };
    let none = doctor("ok");
    for name in [
        "containerd/containerd.sock",
        "crio/crio.sock",
        "cri-dockerd.sock",
    ] {
        assert!(none.contains(&format!("{root}/run/{name}")), "{none}");
    }
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let hangs = doctor("warn");
    let expected = format!("{} (no answer within 5s)", socket.display());
    assert!(hangs.contains(&expected), "{hangs}");
    drop(listener);
    let left = doctor("warn");
    assert!(left.contains("(nobody listens there)"), "{left}");
}
