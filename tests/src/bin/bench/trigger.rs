//! From a trigger to its being visible.
//!
//! Fifty clients poll the notice. One of them polls without a pause, and each of the others fifty
//! times a second, which is more than a hundred times as often as agents do. Triggers come over the
//! control socket, each with a deadline of its own, by which the answers tell which one they show.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    thread::sleep,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tests::{Lab, Spotsim};

use crate::{
    client::{Client, now},
    section::{Goal, Section, Table, microseconds},
    statistics::percentile,
};

const TRIGGERS: u32 = 1_000;
const CLIENTS: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// What came of one trigger, in nanoseconds.
struct Seen {
    /// From sending it to the end of the first answer that showed it.
    visible: u64,
    /// From sending it to spotsim's own answer.
    answered: u64,
}

pub fn measure(check: impl Fn()) -> Option<Section> {
    const PATH: &str = "/latest/meta-data/spot/instance-action";
    let lab = Lab::bare()?;
    let spotsim = Spotsim::hold(&lab, "bench", &[]);
    let control = Control(lab.run_dir().join("bench.sock"));
    let mut watching = Client::start(&lab.inside(), PATH, "terminate");
    let mut asking = Client::start(&lab.inside(), PATH, "terminate");
    let deadlines: Timestamp = "2099-01-01T00:00:00Z".parse().expect("a time");
    control.trigger(deadlines);
    watching.tell(&format!("watch {CLIENTS} {}", PAUSE.as_micros()));
    watching.hear();
    let one = |number: u32| {
        check();
        // At every phase of the pollers' requests.
        sleep(Duration::from_micros(u64::from(number * 37 % 2_000)));
        let deadline = deadlines + SignedDuration::from_secs(i64::from(number));
        let sent = now();
        control.trigger(deadline);
        let answered = now();
        // This is no matter of time.
        assert!(
            asking.sees(&deadline.to_string()),
            "a request that began after trigger's return did not see it"
        );
        let seen = watching.hear();
        assert!(
            seen["body"]
                .as_str()
                .is_some_and(|body| body.contains(&deadline.to_string())),
            "not this trigger: {seen}"
        );
        let at = seen["at"].as_u64().expect("a time");
        Seen {
            visible: at - sent,
            answered: answered - sent,
        }
    };
    let seen: Vec<_> = (1..=TRIGGERS).map(one).collect();
    watching.tell("over");
    watching.hear();
    drop(spotsim);
    Some(section(&seen))
}

/// The control socket.
struct Control(PathBuf);

impl Control {
    /// Announces a notice with this deadline; returns when spotsim says that it does.
    fn trigger(&self, deadline: Timestamp) {
        let Self(socket) = self;
        let plan = format!(r#"{{"notice": {{"deadline": "{deadline}"}}}}"#);
        let length = plan.len();
        let request = format!(
            "POST /trigger HTTP/1.1\r\nHost: spotsim\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{plan}"
        );
        let mut stream = UnixStream::connect(socket).expect("spotsim listens");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200 "), "trigger: {answer}");
    }
}

fn section(seen: &[Seen]) -> Section {
    let sorted = |of: fn(&Seen) -> u64| {
        let mut times: Vec<_> = seen.iter().map(of).collect();
        times.sort_unstable();
        times
    };
    let [visible, answered] = [sorted(|seen| seen.visible), sorted(|seen| seen.answered)];
    let milliseconds = |times: &[u64], part| microseconds(percentile(times, part)) / 1e3;
    let row = |name: &str, times: &[u64]| {
        let cell = |part| format!("{:.2} ms", milliseconds(times, part));
        vec![name.to_owned(), cell(0.5), cell(0.99), cell(1.0)]
    };
    let p99 = milliseconds(&visible, 0.99);
    let figure = |times: &[u64]| {
        json!({
            "p50_ms": milliseconds(times, 0.5),
            "p99_ms": milliseconds(times, 0.99),
            "max_ms": milliseconds(times, 1.0),
        })
    };
    Section {
        name: "trigger",
        about: format!(
            "From a trigger to its being visible: {TRIGGERS} of them, {CLIENTS} polling clients"
        ),
        table: Table {
            head: vec!["from sending it to", "p50", "p99", "max"],
            rows: vec![
                row("the first answer that shows it", &visible),
                row("trigger's own answer", &answered),
            ],
        },
        goals: vec![Goal::new(
            "p99 under 2 ms",
            format!("{p99:.2} ms"),
            p99 < 2.0,
        )],
        ratios: vec![],
        figures: json!({
            "visible": figure(&visible),
            "answered": figure(&answered),
            "triggers": seen.len(),
        }),
    }
}
