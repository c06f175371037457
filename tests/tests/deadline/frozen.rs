//! The freezer, and what thaws.

use std::{fs, thread::sleep, time::Duration};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use tests::{Armed, Lab, is_running, wait_until};

use super::{attach, attach_to, effect, file, is_frozen, records, spotsim, ticker, ticks, write};

#[test]
fn it_is_frozen_until_spotsim_ends() {
    let Some(lab) = Lab::bare() else { return };
    for (how, detached) in [("detach", true), ("SIGTERM", false)] {
        let [inside, beside] = [lab.inside(), lab.outside()].map(|place| ticker(&place));
        let attached = attach(&lab, "freeze", &[]);
        assert!(ticks(&inside), "{how}: before the deadline");
        effect(&lab, "done");
        assert!(is_frozen(&lab.target), "{how}");
        assert!(!ticks(&inside), "{how}");
        assert!(ticks(&beside), "{how}");
        assert_eq!(records(&lab).len(), 1, "{how}");
        // Another command leaves alone what a living one has frozen.
        assert_eq!(spotsim(&lab, &["--version"]).stderr, "");
        assert!(is_frozen(&lab.target), "{how}");
        match detached {
            true => drop(spotsim(&lab, &["detach", "it"]).expect("detach")),
            false => attached.signal(Signal::SIGTERM),
        }
        assert_eq!(attached.finish().code, 0, "{how}");
        assert!(!is_frozen(&lab.target), "{how}");
        assert!(ticks(&inside), "{how}");
        assert_eq!(records(&lab).len(), 0, "{how}");
    }
}

#[test]
fn to_cancel_thaws() {
    let Some(lab) = Lab::bare() else { return };
    let inside = ticker(&lab.inside());
    let _spotsim = attach(&lab, "freeze", &[]);
    effect(&lab, "done");
    spotsim(&lab, &["cancel", "it"]).expect("cancel");
    wait_until("it is thawed", || (!is_frozen(&lab.target)).then_some(()));
    assert!(ticks(&inside));
    assert_eq!(records(&lab).len(), 0);
}

#[test]
fn the_next_command_thaws_what_a_killed_one_froze() {
    let Some(lab) = Lab::bare() else { return };
    let inside = ticker(&lab.inside());
    for command in [
        &["list"][..],
        &["doctor"],
        &["--help"],
        &["--version"],
        &["no-such-verb"],
        &["run", "--upstream", "synthetic", "--", "true"],
    ] {
        let attached = attach(&lab, "freeze", &[]);
        effect(&lab, "done");
        attached.signal(Signal::SIGKILL);
        assert_eq!(attached.finish().code, 128 + 9);
        assert!(is_frozen(&lab.target), "by itself nothing thaws it");
        assert_eq!(records(&lab).len(), 1);
        let next = spotsim(&lab, command);
        let path = lab.target.path();
        let line = format!(
            "spotsim: thawed the cgroup {}, which a spotsim that was killed had frozen\n",
            path.display()
        );
        assert!(
            next.stderr.starts_with(&line),
            "{command:?}: {}",
            next.stderr
        );
        assert!(!is_frozen(&lab.target), "{command:?}");
        assert!(ticks(&inside), "{command:?}");
        assert_eq!(records(&lab).len(), 0, "{command:?}");
        assert!(
            !spotsim(&lab, command).stderr.contains("thawed"),
            "{command:?}"
        );
    }
}

/// At each moment around the deadline.
#[test]
fn killed_at_any_moment_it_leaves_nothing_frozen() {
    let Some(lab) = Lab::bare() else { return };
    let inside = ticker(&lab.inside());
    let mut frozen = 0;
    for round in 0..10 {
        let attached = attach(&lab, "freeze", &[]);
        let armed = Armed::parse(attached.stdout().trim_end());
        let deadline: Timestamp = armed.deadline.parse().unwrap();
        let wait = deadline.duration_since(Timestamp::now()).unsigned_abs();
        sleep(wait + Duration::from_micros(600 * round));
        attached.signal(Signal::SIGKILL);
        assert_eq!(attached.finish().code, 128 + 9);
        frozen += u32::from(is_frozen(&lab.target));
        let list = spotsim(&lab, &["list"]);
        assert_eq!(list.code, 0, "{}", list.stderr);
        assert!(!is_frozen(&lab.target), "round {round}");
        assert!(ticks(&inside), "round {round}");
        assert_eq!(records(&lab).len(), 0, "round {round}");
    }
    tests::say(&format!("frozen in {frozen} of 10 rounds"));
}

/// Only what the record tells of: a cgroup of the same path may be another.
#[test]
fn another_cgroup_of_the_same_path_is_left_alone() {
    let Some(lab) = Lab::bare() else { return };
    let victim = lab.root.child("victim");
    let process = ticker(&lab.inside().in_cgroup(victim.directory()));
    let attached = attach_to(&lab, victim.directory(), "freeze", &[]);
    effect(&lab, "done");
    attached.signal(Signal::SIGKILL);
    assert_eq!(attached.finish().code, 128 + 9);
    drop(process);
    victim.remove();
    let other = lab.root.child("victim");
    let place = lab.inside().in_cgroup(other.directory());
    let process = ticker(&place);
    write(&other, "cgroup.freeze", "1");
    let list = spotsim(&lab, &["list"]);
    assert!(!list.stderr.contains("thaw"), "{}", list.stderr);
    assert_eq!(file(&other, "cgroup.freeze"), "1");
    assert_eq!(records(&lab).len(), 0);
    assert!(is_running(process.pid() as i32));
}

#[test]
fn what_somebody_else_froze_is_left_to_them() {
    let Some(lab) = Lab::bare() else { return };
    let inside = ticker(&lab.inside());
    let attached = attach(&lab, "freeze", &[]);
    write(&lab.target, "cgroup.freeze", "1");
    let failed = effect(&lab, "failed");
    let error = failed["error"].as_str().unwrap();
    assert!(
        error.contains("was frozen before by somebody else"),
        "{error}"
    );
    assert_eq!(records(&lab).len(), 0);
    attached.signal(Signal::SIGTERM);
    assert_eq!(attached.finish().code, 0);
    assert!(!ticks(&inside));
    write(&lab.target, "cgroup.freeze", "0");
    assert!(ticks(&inside));
    // Beneath it, too.
    let inner = lab.target.child("inner");
    let deep = ticker(&lab.inside().in_cgroup(inner.directory()));
    let attached = attach(&lab, "freeze", &[]);
    write(&inner, "cgroup.freeze", "1");
    effect(&lab, "done");
    assert!(!ticks(&inside));
    attached.signal(Signal::SIGTERM);
    assert_eq!(attached.finish().code, 0);
    assert!(ticks(&inside));
    assert!(!ticks(&deep));
}

/// Of two, the second says that it is not its own, and the first one's end thaws it.
#[test]
fn two_at_once() {
    let Some(lab) = Lab::bare() else { return };
    let inside = ticker(&lab.inside());
    let first = attach(&lab, "freeze", &[]);
    let mut second = attach(&lab, "freeze", &["--id", "other", "--lead", "3s"]);
    effect(&lab, "done");
    second.stderr_line("was frozen before by somebody else", 0);
    second.signal(Signal::SIGTERM);
    assert_eq!(second.finish().code, 0);
    assert!(is_frozen(&lab.target));
    first.signal(Signal::SIGTERM);
    assert_eq!(first.finish().code, 0);
    assert!(ticks(&inside));
    assert_eq!(records(&lab).len(), 0);
}

/// What others may have written is neither believed nor in the way of other commands.
#[test]
fn a_directory_of_others_is_not_believed() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(lab) = Lab::bare() else { return };
    let _inside = ticker(&lab.inside());
    let attached = attach(&lab, "freeze", &[]);
    effect(&lab, "done");
    attached.signal(Signal::SIGKILL);
    attached.finish();
    let directory = lab.directory.join("default/spotsim");
    let open = |mode| fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
    open(0o777);
    let list = spotsim(&lab, &["list"]);
    assert_eq!(list.code, 0);
    assert!(
        list.stderr
            .contains("records of frozen cgroups are left: the directory"),
        "{}",
        list.stderr
    );
    assert!(is_frozen(&lab.target));
    let args = tests::attach_args(
        lab.target.directory(),
        &["--at-deadline", "freeze", "--yes"],
    );
    let refused = spotsim(&lab, &args);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("is open to others (mode 0777)"),
        "{}",
        refused.stderr
    );
    open(0o700);
    spotsim(&lab, &["list"]);
    assert!(!is_frozen(&lab.target));
}
