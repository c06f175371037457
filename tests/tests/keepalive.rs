//! Connections to IMDS that were open before attach.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Lab, Place, Running, Spotsim, Upstream, Via, client, get, patient, wait_until};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";

/// A client that keeps its connection as long as the server lets it.
struct Session {
    process: Running,
    read: usize,
}

impl Session {
    fn start(place: &Place, via: Via) -> Self {
        let mut command = place.command(client());
        command.args(["session", via.name()]);
        Self {
            process: Running::start(command),
            read: 0,
        }
    }

    fn ask(&mut self, path: &str) -> Value {
        self.begin(path);
        self.answer()
    }

    fn begin(&mut self, path: &str) {
        self.process.write(format!("{path}\n").as_bytes());
    }

    fn is_waiting(&self) -> bool {
        self.process.stdout().len() == self.read
    }

    fn answer(&mut self) -> Value {
        let line = self.process.stdout_line("{", self.read);
        self.read += line.len() + 1;
        serde_json::from_str(&line).unwrap()
    }
}

fn is_cut(lab: Option<Lab>, via: Via) {
    let Some(lab) = lab else { return };
    let upstream = Upstream::start(&lab, &["--keep-alive"]);
    let mut inside = Session::start(&lab.inside(), via);
    let mut outside = Session::start(&lab.outside(), via);
    for session in [&mut inside, &mut outside] {
        for _ in 0..2 {
            let answer = session.ask(NOTICE);
            assert_eq!(answer["status"], 404, "{answer}");
            assert_eq!(answer["reconnected"], false, "{answer}");
        }
    }
    let connections =
        |seen: &[tests::Seen]| -> Vec<u64> { seen.iter().map(|seen| seen.connection).collect() };
    assert_eq!(
        connections(&upstream.seen()),
        [0, 0, 1, 1],
        "both connections are kept"
    );

    // One on which something has just come is looked at again a moment later.
    thread::sleep(Duration::from_millis(400));
    let spotsim = Spotsim::attach(&lab, &[]);
    let answer = inside.ask(NOTICE);
    assert_eq!(answer["status"], 200, "{answer}\n{}", spotsim.stderr());
    assert_eq!(answer["body"], spotsim.armed.instance_action());
    assert_eq!(answer["reconnected"], true, "its old connection was cut");

    let answer = outside.ask(NOTICE);
    assert_eq!(answer["status"], 404, "{answer}");
    assert_eq!(
        answer["reconnected"], false,
        "its connection was left alone: {answer}"
    );
    assert_eq!(upstream.seen().last().unwrap().connection, 1);

    // With an upstream that keeps connections, too, the end of spotsim acts at the next request.
    spotsim.signal(Signal::SIGTERM);
    assert_eq!(spotsim.into_process().finish().code, 0);
    assert_eq!(inside.ask(NOTICE)["status"], 404);
}

#[test]
fn a_kept_connection_is_cut() {
    is_cut(Lab::new(), Via::V4);
}

#[test]
fn a_kept_ipv6_connection_is_cut() {
    is_cut(Lab::new(), Via::V6);
}

#[test]
fn a_kept_v4_mapped_connection_is_cut() {
    is_cut(Lab::new(), Via::Mapped);
}

#[test]
fn a_kept_connection_of_a_pod_is_cut() {
    is_cut(Lab::with_pod(), Via::V4);
}

/// A connection that is busy at attach is cut only when its client has its answer.
fn is_spared_while_it_waits(via: Via) {
    let Some(lab) = Lab::new() else { return };
    let delay = patient(Duration::from_secs(1)).as_millis().to_string();
    let upstream = Upstream::start(&lab, &["--keep-alive", "--delay-ms", &delay]);
    let _workload = lab.workload_process();
    let mut session = Session::start(&lab.inside(), via);
    session.begin(NOTICE);
    wait_until("the request arrives", || {
        (!upstream.seen().is_empty()).then_some(())
    });
    let mut spotsim = Spotsim::attach(&lab, &[]);
    let busy = session.is_waiting();
    let answer = session.answer();
    let idle = Instant::now();
    assert_eq!(answer["status"], 404, "{answer}\n{}", spotsim.stderr());
    assert_eq!(answer["reconnected"], false, "{answer}");
    assert_eq!(upstream.seen().len(), 1, "it was asked, once");
    assert!(busy, "attach was too slow for this test");

    spotsim.stderr_line("cut 1 connections to IMDS", 0);
    assert!(
        idle.elapsed() < patient(Duration::from_secs(3)),
        "{:?}",
        idle.elapsed()
    );
    let answer = session.ask(NOTICE);
    assert_eq!(answer["body"], spotsim.armed.instance_action(), "{answer}");
    assert_eq!(answer["reconnected"], true, "{answer}");
}

#[test]
fn a_busy_connection_is_cut_after_its_answer() {
    is_spared_while_it_waits(Via::V4);
}

#[test]
fn a_busy_ipv6_connection_is_cut_after_its_answer() {
    is_spared_while_it_waits(Via::V6);
}

/// What was asked for before is read to its end, though it comes in pieces.
#[test]
fn an_answer_that_is_arriving_is_not_cut() {
    let Some(lab) = Lab::new() else { return };
    let upstream = Upstream::start(&lab, &["--piecemeal-ms", "5"]);
    let mut client = Running::start(lab.inside().raw_client(Via::V4));
    client.write(&get(NOTICE));
    client.close_stdin();
    wait_until("the request arrives", || {
        (!upstream.seen().is_empty()).then_some(())
    });
    let spotsim = Spotsim::attach(&lab, &[]);
    assert!(!client.has_ended(), "attach was too slow for this test");
    let finished = client.finish();
    let text = finished.text();
    assert_eq!(
        finished.code,
        0,
        "{text}: {}{}",
        finished.stderr,
        spotsim.stderr()
    );
    assert!(
        text.starts_with("HTTP/1.1 404 ") && text.ends_with("</html>\n"),
        "{text}"
    );
}

/// Nor can one who asks all the time on the same connection keep it.
#[test]
fn a_connection_that_is_never_quiet_is_cut_in_the_end() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &["--keep-alive"]);
    let mut session = Session::start(&lab.inside(), Via::V4);
    session.ask(NOTICE);
    let spotsim = Spotsim::attach(&lab, &[]);
    let answer = wait_until("the notice", || {
        thread::sleep(Duration::from_millis(50));
        let answer = session.ask(NOTICE);
        (answer["status"] == 200).then_some(answer)
    });
    assert_eq!(
        answer["reconnected"],
        true,
        "{answer}\n{}",
        spotsim.stderr()
    );
}
