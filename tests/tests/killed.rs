//! `kill -9` at any moment: the next connection reaches the real IMDS, and nothing is left.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Mutex,
    thread::sleep,
    time::{Duration, SystemTime},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{
    Lab, Place, Running, Spotsim, Upstream, all_bpf_objects, bpf_objects, client, entries, files,
    wait_until,
};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";

/// The tests here look at what the whole machine has, so each has it for itself.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Checks that there is no file that was not there, and none in spotsim's own directory but
/// its run directory with so many sockets.
fn assert_no_new_file(lab: &Lab, before: &BTreeSet<PathBuf>, home: &[PathBuf], sockets: usize) {
    let now = files();
    let new: Vec<&PathBuf> = now.difference(before).collect();
    assert!(new.is_empty(), "left: {new:?}");
    let mut expected = [home, &[lab.run_dir()]].concat();
    expected.sort();
    assert_eq!(entries(&lab.directory), expected);
    let left = entries(&lab.run_dir());
    assert_eq!(left.len(), sockets, "{left:?}");
}

/// One poll of a polling client.
#[derive(Debug)]
struct Poll {
    at_us: u64,
    status: Option<u64>,
    error: Option<String>,
}

/// A client in the target that asks for the notice, each time on a connection of its own.
fn poller(place: &Place, every_ms: &str) -> Running {
    let mut command = place.command(client());
    command.args(["poll", "v4", NOTICE, every_ms]);
    Running::start(command)
}

fn polls(output: &str) -> Vec<Poll> {
    // The last line may be cut short.
    let whole = &output[..output.rfind('\n').map_or(0, |end| end + 1)];
    let lines = whole
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .map(|line| Poll {
            at_us: line["at_us"].as_u64().unwrap(),
            status: line["status"].as_u64(),
            error: line["error"].as_str().map(str::to_owned),
        })
        .collect()
}

fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_micros() as u64
}

/// Waits until a poll saw this status.
fn wait_for_status(poller: &Running, status: u64) {
    wait_until(&format!("a poll that sees {status}"), || {
        polls(&poller.stdout())
            .iter()
            .any(|poll| poll.status == Some(status))
            .then_some(())
    });
}

#[test]
fn the_next_poll_reaches_the_upstream_and_nothing_is_left() {
    let _alone = alone();
    for round in 0..4 {
        let lab = if round % 2 == 0 {
            Lab::new()
        } else {
            Lab::with_pod()
        };
        let Some(lab) = lab else { return };
        let upstream = Upstream::start(&lab, &[]);
        let _workload = lab.workload_process();
        let (files, home) = (files(), entries(&lab.directory));
        let spotsim = Spotsim::attach(&lab, &[]);
        let held = bpf_objects(spotsim.pid());
        let kinds = |kind: &str| held.iter().filter(|(other, _)| other == kind).count();
        assert!(
            kinds("link_id") >= 4 && kinds("prog_id") + kinds("map_id") > 0,
            "{held:?}"
        );
        assert!(held.is_subset(&all_bpf_objects()), "{held:?}");

        let poller = poller(&lab.inside(), "20");
        wait_for_status(&poller, 200);
        // At another point of the poll's 20 ms each time.
        sleep(Duration::from_millis(100 + 5 * round));
        let seen = upstream.seen().len();
        spotsim.signal(Signal::SIGKILL);
        let killed = now_us();
        wait_until("some polls after the first that sees 404", || {
            let polls = polls(&poller.stdout());
            let first = polls.iter().position(|poll| poll.status == Some(404))?;
            (polls.len() - first > 5).then_some(())
        });
        let polls = polls(&poller.stop().text());

        let failed: Vec<&Poll> = polls.iter().filter(|poll| poll.error.is_some()).collect();
        assert!(failed.len() <= 1, "{failed:?}");
        let first = polls
            .iter()
            .position(|poll| poll.status == Some(404))
            .unwrap();
        let after = &polls[first..];
        assert!(
            after.iter().all(|poll| poll.status == Some(404)),
            "{after:?}"
        );
        // Those that came while the process ended: on a busy machine that takes a while.
        let late = polls[..first].iter().filter(|poll| poll.at_us > killed);
        let late: Vec<&Poll> = late.collect();
        assert!(late.len() <= 5, "after the kill: {late:?}");
        assert!(upstream.seen().len() >= seen + after.len());

        assert_eq!(spotsim.into_process().finish().code, 128 + 9);
        wait_until("the kernel objects are gone", || {
            held.is_disjoint(&all_bpf_objects()).then_some(())
        });
        // The next command removes it.
        assert_no_new_file(&lab, &files, &home, 1);
        let list = tests::run(Spotsim::command(&lab, &["list"]), b"");
        assert_eq!((list.code, list.text().as_str()), (0, ""));
        assert_no_new_file(&lab, &files, &home, 0);
        assert_eq!(lab.daemon.processes(), [0; 0], "a process is left");
        assert_eq!(lab.daemon.children(), [""; 0], "a cgroup is left");
        assert_eq!(lab.target.children(), [""; 0], "a cgroup is left");
    }
}

#[test]
fn an_orderly_end_leaves_nothing_and_fails_no_poll() {
    let _alone = alone();
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    let (files, home) = (files(), entries(&lab.directory));
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let spotsim = Spotsim::attach(&lab, &[]);
        let held = bpf_objects(spotsim.pid());
        assert!(!held.is_empty());
        let poller = poller(&lab.inside(), "1");
        wait_for_status(&poller, 200);
        spotsim.signal(signal);
        wait_for_status(&poller, 404);
        let finished = spotsim.into_process().finish();
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        sleep(Duration::from_millis(50));
        let polls = polls(&poller.stop().text());
        let failed: Vec<&Poll> = polls.iter().filter(|poll| poll.error.is_some()).collect();
        assert!(failed.is_empty(), "{failed:?}");
        wait_until("the kernel objects are gone", || {
            held.is_disjoint(&all_bpf_objects()).then_some(())
        });
        assert_no_new_file(&lab, &files, &home, 0);
        assert_eq!(lab.daemon.processes(), [0; 0], "a process is left");
        assert_eq!(lab.target.children(), [""; 0], "a cgroup is left");
    }
}

#[test]
fn no_poll_is_refused_while_it_is_armed() {
    let _alone = alone();
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let poller = poller(&lab.inside(), "0");
    wait_for_status(&poller, 404);
    for _ in 0..5 {
        let from = poller.stdout().len();
        let spotsim = Spotsim::attach(&lab, &[]);
        wait_until("a poll that sees the notice", || {
            polls(&poller.stdout()[from..])
                .iter()
                .any(|poll| poll.status == Some(200))
                .then_some(())
        });
        spotsim.signal(Signal::SIGTERM);
        assert_eq!(spotsim.into_process().finish().code, 0);
    }
    let polls = polls(&poller.stop().text());
    let failed: Vec<&Poll> = polls.iter().filter(|poll| poll.error.is_some()).collect();
    // A connection to IMDS that is open at the attach is cut, like one that was kept alive.
    let cut = |poll: &&&Poll| {
        poll.error
            .as_ref()
            .is_some_and(|error| error.contains("abort"))
    };
    assert_eq!(
        failed.iter().filter(cut).count(),
        failed.len(),
        "{failed:?}"
    );
    assert!(failed.len() <= 5, "one at most for each attach: {failed:?}");
    assert!(polls.len() > 100, "{} polls", polls.len());
    let mut answered = polls.iter().filter_map(|poll| poll.status);
    assert!(answered.all(|status| [200, 404].contains(&status)));
}
