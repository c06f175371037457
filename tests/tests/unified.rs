//! Cgroups as systemd makes them: slices, scopes, and what a container makes beneath its own.
//!
//! These run wherever cgroup v2 is mounted. Where it is the only hierarchy, as in `cargo xtask
//! vm`, they are what a node of today has.

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::Value;
use tests::{
    Cgroup, Lab, Place, Running, Via, attach_args, get, in_run_dir, is_running, patient, run,
    spotsim_binary, wait_until,
};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";

/// The uid of a pod as its slice has it, and the scope of a container.
const UID: &str = "5e3f7a52_1a5b_4b6e_9d2a_77b5d1c0e8a4";
const SCOPE: &str =
    "cri-containerd-6f1d0c3b2a594e8f7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706.scope";

/// What a kubelet with systemd's cgroup driver makes of two pods of one container each. Inner
/// cgroups go before those that they are in.
struct Kubelet {
    container: Cgroup,
    neighbour: Cgroup,
    pod: Cgroup,
    _others: [Cgroup; 4],
    lab: Lab,
}

impl Kubelet {
    fn new() -> Option<Self> {
        let lab = Lab::bare()?;
        let top = Cgroup::slice().unwrap();
        // A slice is called by those that it is in, as in kind: `kubelet-kubepods.slice`.
        let prefix = top.path().display().to_string();
        let prefix = prefix.trim_matches('/').trim_end_matches(".slice");
        let slice = |above: &Cgroup, name: &str| above.child(&format!("{prefix}-{name}.slice"));
        let pods = slice(&top, "kubepods");
        let burstable = slice(&pods, "kubepods-burstable");
        let pod = |uid: &str| slice(&burstable, &format!("kubepods-burstable-pod{uid}"));
        let (pod, beside) = (pod(UID), pod(&UID.replace('5', "6")));
        Some(Self {
            container: pod.child(SCOPE),
            neighbour: beside.child(SCOPE),
            pod,
            _others: [beside, burstable, pods, top],
            lab,
        })
    }

    fn place(&self, cgroup: &Cgroup) -> Place {
        let Self { lab, .. } = self;
        lab.place(&lab.node, cgroup)
    }

    /// spotsim with a `/run` of its own, where it records what it freezes.
    fn spotsim(&self, args: &[&str]) -> Command {
        let Self { lab, .. } = self;
        let own = lab.directory.join("default");
        fs::create_dir_all(&own).unwrap();
        let place = lab.daemon_place().with_bind(&own, Path::new("/run"));
        let mut command = place.command(spotsim_binary());
        command.args(in_run_dir(lab, args));
        command
    }

    fn attach(&self, target: &[&str], more: &[&str]) -> Running {
        let args = ["attach", "--id", "it", "--upstream", "synthetic"];
        let args = [&args, target, more].concat();
        let mut process = Running::start(self.spotsim(&args));
        process.stdout_line("armed: ", 0);
        process
    }

    /// Attaches to the pod, with something to be done after a second or two, and waits until
    /// that is done.
    fn strike(&self, effect: &str, more: &[&str]) -> Running {
        let options = ["--lead", "1s", "--at-deadline", effect, "--yes"];
        let args = attach_args(self.pod.directory(), &[&options, more].concat());
        let spotsim = self.attach(&args[1..], &[]);
        wait_until(&format!("{effect} is done"), || {
            let status = run(self.spotsim(&["status", "it", "--json"]), b"");
            // On a busy machine there may be no answer in time.
            if status.code != 0 {
                return None;
            }
            let status: Value = serde_json::from_str(&status.text()).unwrap();
            (status["targets"][0]["effect"]["state"] == "done").then_some(())
        });
        spotsim
    }

    /// Whether a client there sees the notice. Without an interception it reaches nothing at all.
    fn sees(&self, cgroup: &Cgroup) -> bool {
        let answer = self.place(cgroup).try_send(Via::V4, &get(NOTICE));
        answer.text().contains(" 200 OK\r\n")
    }
}

/// A process that takes no notice of SIGTERM.
fn stubborn(place: &Place) -> Running {
    let script = r#"trap "" TERM; echo up; exec sleep 600"#;
    let mut running = Running::start(place.command_line(["sh", "-c", script]));
    running.stdout_line("up", 0);
    running
}

fn events(cgroup: &Cgroup) -> String {
    fs::read_to_string(cgroup.directory().join("cgroup.events")).unwrap()
}

fn path(cgroup: &Cgroup) -> String {
    cgroup.path().display().to_string()
}

#[test]
fn a_pod_and_a_container_are_found_by_their_slice_and_scope() {
    let Some(kubelet) = Kubelet::new() else {
        return;
    };
    let Kubelet {
        pod,
        container,
        neighbour,
        lab,
        ..
    } = &kubelet;
    let process = kubelet.place(container).sleeper();
    let name = |cgroup: &Cgroup| {
        let name = cgroup.directory().file_name().unwrap();
        name.to_str().unwrap().to_owned()
    };
    let pid = process.pid().to_string();
    let ways = [
        (["--cgroup", &path(pod)], pod),
        (["--unit", &name(pod)], pod),
        (["--pid", &pid], container),
    ];
    for (way, found) in ways {
        let dry = [&["attach", "--dry-run", "--json"], &way[..]].concat();
        let rows = run(kubelet.spotsim(&dry), b"").expect("a dry run");
        let rows: Value = serde_json::from_str(&rows).unwrap();
        assert_eq!(rows[0]["cgroup"], path(found), "{way:?}");
        let spotsim = kubelet.attach(&way, &[]);
        assert!(kubelet.sees(container), "{way:?}: {}", spotsim.stderr());
        assert!(!kubelet.sees(neighbour), "{way:?}");
        drop(spotsim);
        assert!(!kubelet.sees(container), "{way:?}");
    }
    assert_eq!(lab.target.processes(), [0; 0]);
}

/// As systemd, or a runtime, does in a container that is given its cgroup.
#[test]
fn what_a_container_makes_beneath_its_own_belongs_to_it() {
    let Some(kubelet) = Kubelet::new() else {
        return;
    };
    let Kubelet {
        container,
        neighbour,
        ..
    } = &kubelet;
    let workers = container.child("workers");
    // Its threads may be in different cgroups, and `cgroup.procs` cannot be read any more.
    fs::write(workers.directory().join("cgroup.type"), "threaded").unwrap();
    let error = fs::read_to_string(workers.directory().join("cgroup.procs")).unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(nix::errno::Errno::EOPNOTSUPP as i32)
    );
    let processes = [container, &workers].map(|cgroup| stubborn(&kubelet.place(cgroup)));
    let beside = stubborn(&kubelet.place(neighbour));
    let spotsim = kubelet.attach(&["--cgroup", &path(container)], &[]);
    for cgroup in [container, &workers] {
        assert!(
            kubelet.sees(cgroup),
            "{}: {}",
            path(cgroup),
            spotsim.stderr()
        );
    }
    drop(spotsim);
    let _spotsim = kubelet.strike("term", &["--grace", "500ms"]);
    for process in processes {
        assert_eq!(process.finish().code, 128 + 9);
    }
    assert!(is_running(beside.pid() as i32));
}

#[test]
fn a_pod_is_killed_and_its_neighbour_is_not() {
    let Some(kubelet) = Kubelet::new() else {
        return;
    };
    let Kubelet {
        pod,
        container,
        neighbour,
        ..
    } = &kubelet;
    let process = stubborn(&kubelet.place(container));
    let beside = stubborn(&kubelet.place(neighbour));
    let _spotsim = kubelet.strike("kill", &[]);
    assert_eq!(process.finish().code, 128 + 9);
    assert!(events(pod).contains("populated 0"));
    assert!(is_running(beside.pid() as i32));
}

#[test]
fn a_pod_is_frozen_until_spotsim_ends() {
    let Some(kubelet) = Kubelet::new() else {
        return;
    };
    let Kubelet {
        pod,
        container,
        neighbour,
        ..
    } = &kubelet;
    let process = stubborn(&kubelet.place(container));
    let spotsim = kubelet.strike("freeze", &[]);
    let freeze = |cgroup: &Cgroup| {
        let file = fs::read_to_string(cgroup.directory().join("cgroup.freeze"));
        file.unwrap().trim_end().to_owned()
    };
    // The pod's own file was written, and its container is frozen with it.
    assert_eq!([pod, container, neighbour].map(freeze), ["1", "0", "0"]);
    for (cgroup, frozen) in [(pod, true), (container, true), (neighbour, false)] {
        assert_eq!(
            events(cgroup).contains("frozen 1"),
            frozen,
            "{}",
            path(cgroup)
        );
    }
    assert!(is_running(process.pid() as i32));
    spotsim.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(spotsim.finish().code, 0);
    assert!(events(container).contains("frozen 0"));
}

#[test]
fn a_pods_network_is_cut_until_spotsim_ends() {
    let Some(kubelet) = Kubelet::new() else {
        return;
    };
    let Kubelet {
        container,
        neighbour,
        lab,
        ..
    } = &kubelet;
    // A server beside the pod, which all reach over loopback.
    lab.node.hold_imds_addresses();
    let _upstream = tests::Upstream::start(lab, &[]);
    let limit = patient(Duration::from_secs(1)).as_secs().max(2).to_string();
    let reaches = |cgroup: &Cgroup| {
        let url = "http://[fd00:ec2::254]/latest/meta-data/instance-id";
        let place = kubelet.place(cgroup);
        let curl = ["curl", "-sS", "--max-time", &limit, url];
        run(place.command_line(curl), b"").code == 0
    };
    assert!(reaches(container));
    let spotsim = kubelet.strike("cut", &[]);
    assert!(!reaches(container));
    assert!(reaches(neighbour));
    drop(spotsim);
    assert!(reaches(container));
}

#[test]
fn the_doctor_tells_whether_it_is_the_only_hierarchy() {
    let Some(lab) = Lab::bare() else { return };
    let args = in_run_dir(&lab, &["doctor", "--json"]);
    let mut doctor = lab.daemon_place().command(spotsim_binary());
    doctor.args(args);
    let told = run(doctor, b"").expect("the doctor");
    let told: Value = serde_json::from_str(&told).unwrap();
    let checks = told["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "cgroup v2");
    let hierarchies = fs::read_to_string("/proc/self/cgroup").unwrap();
    let unified = hierarchies.lines().count() == 1;
    let expected = if unified { "ok" } else { "warn" };
    assert_eq!(check.unwrap()["outcome"], expected, "{hierarchies}");
}
