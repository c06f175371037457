//! `spotsim serve` as the README has it: for those who come from amazon-ec2-metadata-mock, and
//! past the deadline.

use std::{
    fs,
    net::TcpListener,
    thread::{self, sleep},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tests::{Scratch, Serve, run, wait_until, workspace};

const META_DATA: &str = "/latest/meta-data";
const ACTION: &str = "spot/instance-action";
const REBALANCE: &str = "events/recommendations/rebalance";
const SCHEDULED: &str = "events/maintenance/scheduled";
const HISTORY: &str = "events/maintenance/history";
const STATE: &str = "autoscaling/target-lifecycle-state";

const PAST: &str = "2020-01-01T00:00:00Z";
const LATER: &str = "2099-12-31T23:59:00Z";

/// What is at a place under `meta-data/`, if something is.
fn read(serve: &Serve, place: &str) -> Option<String> {
    let answer = serve.get(&format!("{META_DATA}/{place}"));
    match answer.status() {
        200 => Some(answer.text()),
        404 => None,
        _ => panic!("{place}: {answer:?}"),
    }
}

/// The events of a list.
fn events(serve: &Serve, list: &str) -> Vec<Value> {
    serde_json::from_str(&read(serve, list).expect(list)).unwrap()
}

/// A row of the README's table, and what shows that it is true.
struct Row {
    mock: &'static str,
    spotsim: &'static str,
    shows: fn(&Row, &Scratch),
}

impl Row {
    /// Starts `serve` with options, each of which the row has to name.
    fn serve(&self, scratch: &Scratch, options: &[&str]) -> Serve {
        for option in options.iter().filter(|option| option.starts_with("--")) {
            assert!(self.spotsim.contains(option), "{option}: {}", self.spotsim);
        }
        scratch.serve(options)
    }

    /// Starts `serve` with an event that has these keys, each of which the row has to name.
    fn event(&self, scratch: &Scratch, event: &str) -> Serve {
        for key in event.split(',').skip(1) {
            let name = key.split('=').next().unwrap();
            assert!(self.spotsim.contains(&format!("{name}=")), "{key}");
        }
        scratch.serve(&["--scheduled", event])
    }
}

/// Every row, in its order.
const ROWS: [Row; 13] = [
    Row {
        mock: "`-n HOST -p PORT`",
        spotsim: "`--listen ADDR:PORT`",
        shows: |row, scratch| {
            // An address that nobody else has, and so a port that stays free.
            let free = TcpListener::bind("127.31.33.8:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let serve = row.serve(scratch, &["--listen", &address.to_string()]);
            assert_eq!(serve.address, address);
            assert!(read(&serve, ACTION).is_some());
        },
    },
    Row {
        mock: "`spot -a ACTION`, `-t TIME`",
        spotsim: "`--action ACTION`, `--deadline TIME`",
        shows: |row, scratch| {
            for action in ["terminate", "stop", "hibernate"] {
                let serve = row.serve(scratch, &["--action", action, "--deadline", LATER]);
                let expected = format!(r#"{{"action": "{action}", "time": "{LATER}"}}"#);
                assert_eq!(read(&serve, ACTION), Some(expected));
            }
        },
    },
    Row {
        mock: "`spot -r TIME`",
        spotsim: "`--rebalance-after TIME`: shown from then on, with that time",
        shows: is_recommended_after,
    },
    Row {
        mock: "`-d SECONDS`, `--mock-trigger-time TIME`",
        spotsim: "`--notice-after TIME`; for a scheduled event `,appears=TIME`",
        shows: |row, scratch| {
            let serve = row.serve(scratch, &["--notice-after", LATER]);
            assert_eq!(read(&serve, ACTION), None);
            let serve = row.serve(scratch, &["--notice-after", "2s"]);
            assert_eq!(read(&serve, ACTION), None, "{}", serve.line);
            wait_until("the notice", || read(&serve, ACTION));
            for (appears, count) in [(PAST, 1), (LATER, 0)] {
                let serve = row.event(scratch, &format!("system-reboot@1h,appears={appears}"));
                assert_eq!(events(&serve, SCHEDULED).len(), count, "{appears}");
            }
        },
    },
    Row {
        mock: "`--rebalance-delay-sec`, `--rebalance-trigger-time`",
        spotsim: "`--rebalance-after TIME`",
        shows: |row, scratch| {
            is_recommended_after(row, scratch);
            let serve = row.serve(scratch, &["--rebalance-after", "2s"]);
            assert_eq!(read(&serve, REBALANCE), None, "{}", serve.line);
            wait_until("the recommendation", || read(&serve, REBALANCE));
        },
    },
    Row {
        mock: "`events -o CODE -b NOT_BEFORE -a NOT_AFTER`",
        spotsim: "`--scheduled CODE@NOT_BEFORE..NOT_AFTER`",
        shows: |row, scratch| {
            let event = "system-maintenance@2099-01-02T03:04:05Z..2099-01-12T03:04:05Z";
            let serve = row.serve(scratch, &["--scheduled", event]);
            let event = &events(&serve, SCHEDULED)[0];
            assert_eq!(event["Code"], "system-maintenance");
            assert_eq!(event["NotBefore"], "2 Jan 2099 03:04:05 GMT");
            assert_eq!(event["NotAfter"], "12 Jan 2099 03:04:05 GMT");
            assert_eq!(event["State"], "active");
        },
    },
    Row {
        mock: "`events -l TIME`",
        spotsim: "`…,not-before-deadline=TIME`",
        shows: |row, scratch| {
            let event = "instance-stop@1h,not-before-deadline=2099-01-02T03:04:05Z";
            let serve = row.event(scratch, event);
            let event = &events(&serve, SCHEDULED)[0];
            assert_eq!(event["NotBeforeDeadline"], "2 Jan 2099 03:04:05 GMT");
        },
    },
    Row {
        mock: "`events -t canceled` or `completed`",
        spotsim: "`…,canceled=0s,lingers=1h` or `…,completed=0s,lingers=1h`; without `lingers` it is in the history only",
        shows: |row, scratch| {
            for state in ["canceled", "completed"] {
                for (lingers, listed) in [(",lingers=1h", 1), ("", 0)] {
                    let keys = format!(",{state}=0s{lingers}");
                    assert!(lingers.is_empty() || row.spotsim.contains(&keys), "{keys}");
                    let serve = row.event(scratch, &format!("system-reboot@1h{keys}"));
                    let scheduled = events(&serve, SCHEDULED);
                    let history = events(&serve, HISTORY);
                    assert_eq!((scheduled.len(), history.len()), (listed, 1), "{keys}");
                    for event in scheduled.iter().chain(&history) {
                        assert_eq!(event["State"], state);
                    }
                }
            }
        },
    },
    Row {
        mock: "`asglifecycle`, `--asg-termination-delay-sec N`, `--asg-termination-trigger-time`",
        spotsim: "`--lifecycle-state InService --lifecycle-state Terminated@TIME`",
        shows: |row, scratch| {
            let option = "--lifecycle-state";
            for (time, then) in [(PAST, "Terminated"), (LATER, "InService")] {
                // The first is there from the arming on, which may be after the second.
                let first = format!(
                    "InService@{}",
                    if time == PAST {
                        "2019-01-01T00:00:00Z"
                    } else {
                        "0s"
                    }
                );
                let second = format!("Terminated@{time}");
                let serve = row.serve(scratch, &[option, &first, option, &second]);
                assert_eq!(read(&serve, STATE).as_deref(), Some(then));
            }
            let serve = row.serve(scratch, &[option, "InService", option, "Terminated@2s"]);
            assert_eq!(read(&serve, STATE).as_deref(), Some("InService"));
            wait_until("the next state", || {
                read(&serve, STATE).filter(|state| state == "Terminated")
            });
            assert_eq!(read(&serve, ACTION), None);
        },
    },
    Row {
        mock: "`-I`",
        spotsim: "`--imds v2`",
        shows: |row, scratch| {
            let serve = row.serve(scratch, &["--imds", "v2"]);
            let path = format!("{META_DATA}/{ACTION}");
            assert_eq!(serve.get(&path).status(), 401);
            let token = "PUT /latest/api/token HTTP/1.1\r\nHost: imds\r\n\
                         X-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n";
            let token = serve.send(token.as_bytes()).text();
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: imds\r\nX-aws-ec2-metadata-token: {token}\r\n\r\n"
            );
            assert_eq!(serve.send(request.as_bytes()).status(), 200);
        },
    },
    Row {
        mock: "`-c FILE`",
        spotsim: "`--plan FILE` for events, `--instance FILE` for everything else",
        shows: |row, scratch| {
            scratch.write("plan.yaml", "notice: {action: hibernate}");
            scratch.write("web.toml", "[meta-data]\ninstance-id = 'i-of-the-file'");
            let files = ["--plan", "plan.yaml", "--instance", "web.toml"];
            let serve = row.serve(scratch, &files);
            assert!(read(&serve, ACTION).unwrap().contains("hibernate"));
            let id = read(&serve, "instance-id");
            assert_eq!(id.as_deref(), Some("i-of-the-file"));
        },
    },
    Row {
        mock: "`-w`",
        spotsim: "`spotsim trigger`, `spotsim cancel`",
        shows: |row, scratch| {
            let serve = scratch.serve(&["--hold"]);
            assert_eq!(read(&serve, ACTION), None);
            let control = |verb: &str| {
                assert!(row.spotsim.contains(&format!("spotsim {verb}")));
                scratch.spotsim(&[verb, "--run-dir", "run"]).expect(verb);
            };
            control("trigger");
            assert!(read(&serve, ACTION).is_some());
            control("cancel");
            assert_eq!(read(&serve, ACTION), None);
        },
    },
    Row {
        mock: "`-x COUNT`",
        spotsim: "`attach` to the workloads that are to see it; `serve` shows it to everybody",
        shows: |_, scratch| {
            let serve = scratch.serve(&["--listen", "127.0.0.1:0"]);
            let url = format!("http://{}{META_DATA}/{ACTION}", serve.address);
            for client in ["127.0.0.1", "127.0.0.2", "127.9.9.9"] {
                let mut curl = scratch.command("curl");
                curl.args(["-sSf", "--noproxy", "*", "--interface", client, &url]);
                let shown = run(curl, b"").expect("curl");
                assert_eq!(Some(shown), read(&serve, ACTION), "{client}");
            }
        },
    },
];

fn is_recommended_after(row: &Row, scratch: &Scratch) {
    let serve = row.serve(scratch, &["--rebalance-after", PAST]);
    let expected = format!(r#"{{"noticeTime": "{PAST}"}}"#);
    assert_eq!(read(&serve, REBALANCE), Some(expected));
    assert_eq!(read(&serve, ACTION), None);
    let serve = row.serve(scratch, &["--rebalance-after", LATER]);
    assert_eq!(read(&serve, REBALANCE), None);
}

/// The README's table: the rows' two columns.
fn table() -> Vec<(String, String)> {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let (_, table) = readme
        .split_once("| amazon-ec2-metadata-mock | spotsim serve |\n|---|---|\n")
        .expect("the README has the table");
    let rows = table.lines().take_while(|line| !line.is_empty());
    let rows = rows.map(|line| {
        let row = line
            .strip_prefix("| ")
            .and_then(|line| line.strip_suffix(" |"));
        let (mock, spotsim) = row.and_then(|row| row.split_once(" | ")).expect(line);
        (mock.to_owned(), spotsim.to_owned())
    });
    rows.collect()
}

#[test]
fn the_flags_for_those_who_come_from_amazon_ec2_metadata_mock() {
    let rows = ROWS
        .iter()
        .map(|row| (row.mock.to_owned(), row.spotsim.to_owned()));
    assert_eq!(
        rows.collect::<Vec<_>>(),
        table(),
        "the README and this test"
    );
    thread::scope(|scope| {
        for row in &ROWS {
            scope.spawn(|| (row.shows)(row, &Scratch::new()));
        }
    });
}

/// Where a moment is, between when it began and when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Before,
    Between,
    After,
    /// Something may have changed meanwhile.
    Unknown,
}

/// The times of a notice, as `serve` said them.
struct Times {
    /// In whole seconds, and up to one before it appears.
    notice: Timestamp,
    deadline: Timestamp,
}

impl Times {
    fn of(serve: &Serve) -> Self {
        let (_, times) = serve.line.split_once(" at ").expect("a notice");
        let times = times.split(", then withdrawn").next().unwrap();
        let (_, times) = times.rsplit_once(") at ").unwrap_or(("", times));
        let (notice, deadline) = times.split_once(", deadline ").expect(times);
        Self {
            notice: notice.parse().unwrap(),
            deadline: deadline.parse().unwrap(),
        }
    }

    fn phase(&self, from: Timestamp, to: Timestamp) -> Phase {
        let Self { notice, deadline } = self;
        let second = SignedDuration::from_secs(1);
        if to < *notice {
            Phase::Before
        } else if from >= *notice + second && to < *deadline {
            Phase::Between
        } else if from >= *deadline {
            Phase::After
        } else {
            Phase::Unknown
        }
    }
}

/// Everything that a notice and a recommendation change: leaves, then listings.
const PLACES: [&str; 8] = [
    ACTION,
    "spot/termination-time",
    REBALANCE,
    "instance-life-cycle",
    "spot/",
    "events/recommendations/",
    "events/",
    "",
];

/// What each place is to be while something is announced, and while nothing is.
fn expected(times: &Times, top: &str, is_announced: bool) -> [Option<String>; 8] {
    let Times { notice, deadline } = times;
    let shown = |text: String| is_announced.then_some(text);
    let top = match is_announced {
        // In the order of the names, as the service has them.
        true => {
            let mut names: Vec<_> = top.lines().chain(["spot/"]).collect();
            names.sort_unstable();
            names.join("\n")
        }
        false => top.to_owned(),
    };
    let events = match is_announced {
        true => "maintenance/\nrecommendations/",
        false => "maintenance/",
    };
    [
        shown(format!(
            r#"{{"action": "terminate", "time": "{deadline}"}}"#
        )),
        shown(deadline.to_string()),
        shown(format!(r#"{{"noticeTime": "{notice}"}}"#)),
        Some("spot".to_owned()),
        shown("instance-action\ntermination-time".to_owned()),
        shown("rebalance".to_owned()),
        Some(events.to_owned()),
        Some(top),
    ]
}

/// Looks at everything, again and again, until a while after the deadline.
fn past_the_deadline(way: &str, is_there_then: bool) {
    let scratch = Scratch::new();
    let top = read(&scratch.serve(&["--hold"]), "").unwrap();
    let serve = scratch.serve(&[
        "--notice-after",
        "2s",
        "--rebalance-after",
        "2s",
        "--lead",
        "3s",
        "--after-deadline",
        way,
    ]);
    let times = Times::of(&serve);
    let mut seen = Vec::new();
    let end = times.deadline + SignedDuration::from_millis(1_500);
    loop {
        let from = Timestamp::now();
        let shown = PLACES.map(|place| read(&serve, place));
        let phase = times.phase(from, Timestamp::now());
        let is_announced = match phase {
            Phase::Before => false,
            Phase::Between => true,
            Phase::After => is_there_then,
            Phase::Unknown => continue,
        };
        let expected = expected(&times, &top, is_announced);
        assert_eq!(shown, expected, "{phase:?}, {}", serve.line);
        seen.push(phase);
        if from > end {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    seen.dedup();
    assert_eq!(seen, [Phase::Before, Phase::Between, Phase::After]);
}

#[test]
fn a_notice_is_kept_after_its_deadline() {
    past_the_deadline("keep", true);
}

#[test]
fn a_notice_is_withdrawn_at_its_deadline() {
    past_the_deadline("withdraw", false);
}

#[test]
fn a_stagger_is_refused() {
    let finished = Scratch::new().spotsim(&["serve", "--stagger", "1s"]);
    let error = "spotsim: error: --stagger is between targets, and serve has one alone\n";
    assert_eq!((finished.code, finished.stderr.as_str()), (2, error));
}
