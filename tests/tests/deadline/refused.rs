//! To whom nothing is done.

use std::{fs, path::PathBuf, time::Duration};

use nix::sys::signal::Signal;
use tests::{Finished, Lab, Place, Running, attach_args, run};

use super::{attach, effect, script_line, spotsim, ticker, ticks};

/// A process that is called like another program: a copy of `sleep`.
fn called(lab: &Lab, name: &str, place: &Place) -> Running {
    let program: PathBuf = lab.directory.join(name);
    if !program.exists() {
        fs::copy("/bin/sleep", &program).unwrap();
    }
    let running = Running::start(place.command_line([program.to_str().unwrap(), "600"]));
    tests::wait_until("it is executed", || {
        let executable = fs::read_link(format!("/proc/{}/exe", running.pid())).ok()?;
        (executable == program).then_some(())
    });
    running
}

fn refused(finished: &Finished) -> &str {
    assert_eq!(finished.code, 1, "{}", finished.stderr);
    assert_eq!(finished.text(), "");
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    &finished.stderr
}

#[test]
fn a_target_with_a_kubelet_or_a_runtime_is_refused() {
    let Some(lab) = Lab::bare() else { return };
    let inner = lab.target.child("system");
    let place = lab.inside().in_cgroup(inner.directory());
    let args = ["--upstream", "synthetic", "--at-deadline", "kill", "--yes"];
    let args = attach_args(lab.target.directory(), &args);
    for (name, is) in [
        ("kubelet", "the kubelet"),
        ("containerd", "the container runtime"),
        ("crio", "the container runtime"),
        ("k3s", "the kubelet"),
    ] {
        let one = called(&lab, name, &place);
        let finished = spotsim(&lab, &args);
        let line = refused(&finished);
        let expected = format!(
            "it holds {is}, {name} ({}), in cgroup {}",
            one.pid(),
            inner.path().display()
        );
        assert!(line.contains(&expected), "{line}");
        assert!(tests::is_running(one.pid() as i32));
    }
    // What belongs to a pod is no obstacle.
    let _shim = called(&lab, "containerd-shim-runc-v2", &place);
    let shim = attach(&lab, "kill", &[]);
    effect(&lab, "done");
    assert_eq!(lab.target.processes(), [0; 0]);
    drop(shim);
}

/// It is looked at again directly before.
#[test]
fn one_that_came_in_meanwhile_is_spared_with_all_others() {
    let Some(lab) = Lab::bare() else { return };
    for what in ["term", "kill", "freeze", "cut"] {
        let inside = ticker(&lab.inside());
        let attached = attach(&lab, what, &[]);
        let kubelet = called(&lab, "kubelet", &lab.inside());
        let failed = effect(&lab, "failed");
        let error = failed["error"].as_str().unwrap();
        assert!(
            error.contains("it holds the kubelet, kubelet ("),
            "{what}: {error}"
        );
        assert!(ticks(&inside), "{what}");
        assert!(tests::is_running(kubelet.pid() as i32), "{what}");
        attached.signal(Signal::SIGTERM);
        assert_eq!(attached.finish().code, 0, "{what}");
    }
}

/// During the grace, too: what is left is not killed then.
#[test]
fn one_that_comes_in_during_the_grace_is_spared() {
    let Some(lab) = Lab::bare() else { return };
    let mut stubborn = super::shell(
        &lab.inside(),
        r#"trap "echo got" TERM; echo up; while :; do sleep 0.05; done"#,
    );
    let _attached = attach(&lab, "term", &["--grace", "2s"]);
    stubborn.stdout_line("got", 0);
    // What comes in while SIGTERM is being sent gets it.
    std::thread::sleep(Duration::from_millis(300));
    let kubelet = called(&lab, "kubelet", &lab.inside());
    effect(&lab, "failed");
    for process in [&stubborn, &kubelet] {
        assert!(tests::is_running(process.pid() as i32));
    }
}

/// In a pid namespace whose first process is in the target.
#[test]
fn a_target_with_process_1_is_refused() {
    let Some(lab) = Lab::bare() else { return };
    let mut args = vec!["--upstream", "synthetic", "--at-deadline", "term", "--yes"];
    args = attach_args(lab.target.directory(), &args);
    let daemon = lab.daemon.directory().display().to_string();
    let target = lab.target.directory().display().to_string();
    let script = format!(
        "echo $$ > {target}/cgroup.procs; \
         sh -c 'echo $$ > {daemon}/cgroup.procs; exec \"$@\"' - {}; exit $?",
        script_line(&lab, &args)
    );
    let line = [
        "unshare",
        "--pid",
        "--fork",
        "--mount-proc",
        "sh",
        "-c",
        &script,
    ];
    let place = super::place(&lab);
    let finished = run(place.command_line(line), b"");
    assert_eq!(finished.code, 1, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("it holds process 1, "),
        "{}",
        finished.stderr
    );
}

#[test]
fn the_root_and_what_spotsim_is_in_are_refused() {
    let Some(lab) = Lab::bare() else { return };
    let root = lab.root.directory().parent().unwrap().to_owned();
    for directory in [root.as_path(), lab.root.directory(), lab.daemon.directory()] {
        let options = [
            "--upstream",
            "synthetic",
            "--at-deadline",
            "freeze",
            "--yes",
        ];
        let finished = spotsim(&lab, &attach_args(directory, &options));
        let line = refused(&finished);
        assert!(line.contains("contains spotsim itself"), "{line}");
    }
}

/// As in a container to which the host's hierarchy is given read-only.
#[test]
fn a_hierarchy_that_cannot_be_written_to_is_said_at_the_start() {
    let Some(lab) = Lab::bare() else { return };
    let _inside = ticker(&lab.inside());
    let mount = lab.root.directory().parent().unwrap();
    for what in ["term", "kill", "freeze"] {
        let args = ["--upstream", "synthetic", "--at-deadline", what, "--yes"];
        let attach = script_line(&lab, &attach_args(lab.target.directory(), &args));
        let script = format!("mount -o remount,bind,ro '{}' && {attach}", mount.display());
        let words = ["unshare", "--mount", "sh", "-c", &script];
        let finished = run(super::place(&lab).command_line(words), b"");
        let line = refused(&finished);
        assert!(
            line.contains(&format!("as --at-deadline {what} does")),
            "{line}"
        );
        assert!(line.contains("Read-only file system"), "{line}");
    }
}
