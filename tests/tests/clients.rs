//! Real IMDS clients, with no configuration at all: those in the target see what is announced,
//! the same ones beside it see what IMDS says.

use std::process::Command;

use serde_json::{Value, json};
use tests::{Lab, Place, Running, Spotsim, Upstream, helper, node, python, run, say, workspace};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";
const TIME: &str = "/latest/meta-data/spot/termination-time";
const REBALANCE: &str = "/latest/meta-data/events/recommendations/rebalance";
const SCHEDULED: &str = "/latest/meta-data/events/maintenance/scheduled";
const HISTORY: &str = "/latest/meta-data/events/maintenance/history";
const STATE: &str = "/latest/meta-data/autoscaling/target-lifecycle-state";
const LIFE_CYCLE: &str = "/latest/meta-data/instance-life-cycle";

/// Every path at which something can be announced.
const ALL: [&str; 7] = [
    NOTICE, TIME, REBALANCE, SCHEDULED, HISTORY, STATE, LIFE_CYCLE,
];

/// One client.
struct Client {
    name: &'static str,
    /// Has it ask for each path.
    read: fn(&Place, &[&str]) -> Vec<Answer>,
    /// The paths that it has an API for.
    paths: &'static [&'static str],
    /// The requests that reach IMDS when it looks for a notice beside the target.
    asks: &'static [&'static str],
}

/// What a client says of a path.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    status: u64,
    /// Empty unless the status is 200.
    body: String,
}

const CURL: Client = Client {
    name: "curl",
    read: |place, paths| {
        let script = r#"
            token=$(curl -sf -X PUT http://169.254.169.254/latest/api/token \
                -H 'X-aws-ec2-metadata-token-ttl-seconds: 60') || exit
            for path; do
                curl -s -w '\t%{http_code} %{remote_ip} %{remote_port}' \
                    -H "X-aws-ec2-metadata-token: $token" "http://169.254.169.254$path"
                printf '\f'
            done"#;
        let mut command = place.command_line(["sh", "-c", script, "sh"]);
        command.args(paths);
        let text = run(command, b"").expect("curl");
        let answers = text.split_terminator('\x0c').map(|answer| {
            let (body, facts) = answer.rsplit_once('\t').unwrap();
            let facts: Vec<&str> = facts.split(' ').collect();
            assert_eq!(
                facts[1..],
                ["169.254.169.254", "80"],
                "the peer that curl shows"
            );
            Answer::new(facts[0].parse().unwrap(), body)
        });
        answers.collect()
    },
    paths: &ALL,
    asks: &[
        "PUT /latest/api/token",
        "GET /latest/meta-data/spot/instance-action",
    ],
};

const BOTOCORE: Client = Client {
    name: "botocore",
    read: |place, paths| lines(place.command_line(python("botocore_imds.py")), paths),
    paths: &ALL,
    asks: &[
        "PUT /latest/api/token",
        "GET /latest/meta-data/spot/instance-action",
    ],
};

const EC2_METADATA: Client = Client {
    name: "ec2-metadata",
    read: |place, paths| lines(place.command_line(python("ec2_metadata_imds.py")), paths),
    paths: &[NOTICE, STATE, LIFE_CYCLE],
    asks: &[
        "PUT /latest/api/token",
        "GET /latest/meta-data/spot/instance-action",
    ],
};

const METADATA_SERVICE: Client = Client {
    name: "@aws-sdk/ec2-metadata-service",
    read: |place, paths| lines(place.command_line(node("metadata-service.mjs")), paths),
    paths: &ALL,
    asks: &[
        "PUT /latest/api/token",
        "GET //latest/meta-data/spot/instance-action",
    ],
};

const AWS_CONFIG: Client = Client {
    name: "aws-config",
    read: |place, paths| lines(place.command(helper("aws-imds")), paths),
    paths: &ALL,
    asks: &[
        "PUT /latest/api/token",
        "GET /latest/meta-data/spot/instance-action",
    ],
};

const CLIENTS: [&Client; 5] = [
    &CURL,
    &BOTOCORE,
    &EC2_METADATA,
    &METADATA_SERVICE,
    &AWS_CONFIG,
];

impl Answer {
    fn new(status: u64, body: &str) -> Self {
        let body = if status == 200 { body } else { "" };
        Self {
            status,
            body: body.to_owned(),
        }
    }

    /// The members of a notice.
    fn notice(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

/// The answers of a client that prints one JSON line for each path.
fn lines(mut command: Command, paths: &[&str]) -> Vec<Answer> {
    command.args(paths);
    let text = run(command, b"").expect("the client");
    let answers = text.lines().map(|line| {
        let found: Value = serde_json::from_str(line).unwrap();
        let status = found["status"].as_u64();
        let status = status.unwrap_or_else(|| panic!("{found}"));
        Answer::new(status, found["body"].as_str().unwrap_or_default())
    });
    answers.collect()
}

/// Lets a client look inside and beside the target of an armed spotsim.
fn sees_the_notice_only_inside(lab: Option<Lab>, client: &Client) {
    let Some(lab) = lab else { return };
    let Client {
        name, read, asks, ..
    } = client;
    let upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    let spotsim = Spotsim::attach(&lab, &[]);

    let inside = read(&lab.inside(), &[NOTICE]);
    let expected = json!({"action": "terminate", "time": spotsim.armed.deadline});
    assert_eq!(
        inside[0].notice(),
        expected,
        "{name}: {inside:?}\n{}",
        spotsim.stderr()
    );

    let before = upstream.seen().len();
    let beside = read(&lab.outside(), &[NOTICE]);
    assert_eq!(
        beside,
        [Answer::new(404, "")],
        "{name}\n{}",
        spotsim.stderr()
    );
    let asked = upstream.seen().split_off(before);
    let asked: Vec<String> = asked.iter().map(tests::Seen::request).collect();
    assert_eq!(asked, *asks, "{name}: its own requests, straight to IMDS");
    say(&format!("{name}: inside {inside:?}, beside {beside:?}"));
}

#[test]
fn curl() {
    sees_the_notice_only_inside(Lab::new(), &CURL);
}

#[test]
fn botocore() {
    sees_the_notice_only_inside(Lab::new(), &BOTOCORE);
}

#[test]
fn botocore_finds_credentials_and_region_through_spotsim() {
    let Some(lab) = Lab::new() else { return };
    let upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    let _spotsim = Spotsim::attach(&lab, &[]);
    for place in [lab.inside(), lab.outside()] {
        let before = upstream.seen().len();
        let mut command = place.command_line(python("botocore_imds.py"));
        command.args([NOTICE, "--credentials"]);
        let text = run(command, b"").expect("botocore");
        let found: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(found["access_key"], "ASIAUPSTREAMEXAMPLE0", "{found}");
        assert_eq!(found["region"], "eu-central-1", "{found}");
        let asked = upstream.seen().split_off(before);
        let asked: Vec<String> = asked.iter().map(tests::Seen::request).collect();
        let expected = [
            "PUT /latest/api/token",
            "GET /latest/meta-data/spot/instance-action",
            "PUT /latest/api/token",
            "GET /latest/meta-data/iam/security-credentials/",
            "GET /latest/meta-data/iam/security-credentials/upstream-role",
            "PUT /latest/api/token",
            "GET /latest/meta-data/placement/availability-zone/",
        ];
        assert_eq!(asked, expected);
    }
}

#[test]
fn ec2_metadata() {
    sees_the_notice_only_inside(Lab::new(), &EC2_METADATA);
}

#[test]
fn aws_sdk_for_javascript() {
    sees_the_notice_only_inside(Lab::new(), &METADATA_SERVICE);
}

#[test]
fn aws_sdk_for_rust() {
    sees_the_notice_only_inside(Lab::new(), &AWS_CONFIG);
}

#[test]
fn all_of_them_in_a_pod() {
    for client in CLIENTS {
        sees_the_notice_only_inside(Lab::with_pod(), client);
    }
}

/// Everything at once, for one kind of notice.
struct Everything {
    action: &'static str,
    state: &'static str,
    life_cycle: &'static str,
    /// Of the three scheduled events: how each is written, and where it then is.
    scheduled: [(&'static str, Event); 3],
}

struct Event {
    code: &'static str,
    state: &'static str,
    description: &'static str,
    scheduled: bool,
    history: bool,
}

const APPEARED: &str = "2020-01-01T00:00:00Z";
const DEADLINE: &str = "2099-12-31T23:59:00Z";

impl Everything {
    /// The options that announce it.
    fn options(&self) -> Vec<String> {
        let Self {
            action,
            state,
            life_cycle,
            scheduled,
        } = self;
        let state = format!("{state}@{APPEARED}");
        let mut options = [
            ["--action", action],
            ["--notice-after", APPEARED],
            ["--deadline", DEADLINE],
            ["--rebalance-after", APPEARED],
            ["--lifecycle-state", &state],
            ["--life-cycle", life_cycle],
        ]
        .concat();
        for (event, _) in scheduled {
            options.extend(["--scheduled", event]);
        }
        options.into_iter().map(str::to_owned).collect()
    }

    /// What a client is to see at a path, with lists in the form of [`summary`].
    fn expected(&self, path: &str) -> Answer {
        let Self {
            action,
            state,
            life_cycle,
            scheduled,
        } = self;
        let events = |is_in: fn(&Event) -> bool| {
            let events = scheduled.iter().map(|(_, event)| event);
            let events = events.filter(|event| is_in(event)).map(|event| {
                let Event {
                    code,
                    state,
                    description,
                    ..
                } = event;
                format!("{code} {state} {description}")
            });
            events.collect::<Vec<_>>().join("; ")
        };
        let body = match path {
            NOTICE => format!(r#"{{"action": "{action}", "time": "{DEADLINE}"}}"#),
            TIME if *action == "terminate" => DEADLINE.to_owned(),
            TIME => return Answer::new(404, ""),
            REBALANCE => format!(r#"{{"noticeTime": "{APPEARED}"}}"#),
            SCHEDULED => events(|event| event.scheduled),
            HISTORY => events(|event| event.history),
            STATE => (*state).to_owned(),
            _ => (*life_cycle).to_owned(),
        };
        Answer::new(200, &body)
    }
}

/// A list of events in a line; other values as they are.
fn summary(path: &str, answer: &Answer) -> Answer {
    if ![SCHEDULED, HISTORY].contains(&path) {
        return answer.clone();
    }
    let list: Vec<Value> = serde_json::from_str(&answer.body).expect("a list of events");
    let events = list.iter().map(|event| {
        let members = ["Code", "State", "Description"].map(|name| event[name].as_str().unwrap());
        members.join(" ")
    });
    Answer::new(answer.status, &events.collect::<Vec<_>>().join("; "))
}

/// What the recorded instance says by itself.
fn by_itself(path: &str) -> Answer {
    match path {
        SCHEDULED | HISTORY => Answer::new(200, "[]"),
        LIFE_CYCLE => Answer::new(200, "on-demand"),
        _ => Answer::new(404, ""),
    }
}

/// Lets every client look for everything that it knows, inside and beside the target.
fn every_client_sees(everything: &Everything) {
    let Some(lab) = Lab::new() else { return };
    let recording = workspace().join("tests/recordings/instance.json");
    let _upstream = Upstream::start(&lab, &["--recording", recording.to_str().unwrap()]);
    let _workload = lab.workload_process();
    let options = everything.options();
    let mut options: Vec<_> = options.iter().map(String::as_str).collect();
    options.extend(["--upstream", "real"]);
    let spotsim = Spotsim::announce(&lab, &options);
    for Client {
        name, read, paths, ..
    } in CLIENTS
    {
        let inside = read(&lab.inside(), paths);
        assert_eq!(inside.len(), paths.len(), "{name}\n{}", spotsim.stderr());
        for (path, answer) in paths.iter().zip(&inside) {
            let answer = summary(path, answer);
            assert_eq!(answer, everything.expected(path), "{name}: {path}");
        }
        let beside = read(&lab.outside(), paths);
        let expected: Vec<_> = paths.iter().map(|path| by_itself(path)).collect();
        assert_eq!(beside, expected, "{name}, beside the target");
        say(&format!("{name}: {} of {}", paths.len(), ALL.len()));
    }
}

#[test]
fn every_client_sees_everything_about_a_termination() {
    every_client_sees(&Everything {
        action: "terminate",
        state: "Terminated",
        life_cycle: "spot",
        scheduled: [
            (
                "system-reboot@2099-01-01T00:00:00Z..2099-01-02T00:00:00Z",
                Event {
                    code: "system-reboot",
                    state: "active",
                    description: "scheduled reboot",
                    scheduled: true,
                    history: false,
                },
            ),
            (
                "instance-stop@2020-01-01T00:00:00Z..2020-01-02T00:00:00Z,\
                 appears=2020-01-01T00:00:00Z",
                Event {
                    code: "instance-stop",
                    state: "completed",
                    description: "[Completed] scheduled stop",
                    scheduled: false,
                    history: true,
                },
            ),
            (
                "system-maintenance@2099-01-01T00:00:00Z,appears=2020-01-01T00:00:00Z,\
                 canceled=2020-01-02T00:00:00Z",
                Event {
                    code: "system-maintenance",
                    state: "canceled",
                    description: "[Canceled] scheduled maintenance",
                    scheduled: false,
                    history: true,
                },
            ),
        ],
    });
}

#[test]
fn every_client_sees_everything_about_a_stop() {
    every_client_sees(&Everything {
        action: "stop",
        state: "Warmed:Stopped",
        life_cycle: "on-demand",
        scheduled: [
            (
                "instance-reboot@2099-01-01T00:00:00Z",
                Event {
                    code: "instance-reboot",
                    state: "active",
                    description: "scheduled reboot",
                    scheduled: true,
                    history: false,
                },
            ),
            (
                "instance-retirement@2099-01-01T00:00:00Z,appears=2020-01-01T00:00:00Z,\
                 canceled=2020-01-02T00:00:00Z,lingers=876000h",
                Event {
                    code: "instance-retirement",
                    state: "canceled",
                    description: "[Canceled] scheduled retirement",
                    scheduled: true,
                    history: true,
                },
            ),
            (
                "system-reboot@2020-01-01T00:00:00Z,appears=2020-01-01T00:00:00Z,\
                 completed=2020-01-02T00:00:00Z,lingers=876000h",
                Event {
                    code: "system-reboot",
                    state: "completed",
                    description: "[Completed] scheduled reboot",
                    scheduled: true,
                    history: true,
                },
            ),
        ],
    });
}

#[test]
fn every_client_sees_everything_about_a_hibernation() {
    every_client_sees(&Everything {
        action: "hibernate",
        state: "Warmed:Hibernated",
        life_cycle: "spot",
        scheduled: ["system-reboot", "system-maintenance", "instance-retirement"].map(|code| {
            let description = match code {
                "system-reboot" => "scheduled reboot",
                "system-maintenance" => "scheduled maintenance",
                _ => "scheduled retirement",
            };
            let event = Event {
                code,
                state: "active",
                description,
                scheduled: true,
                history: false,
            };
            (code, event)
        }),
    });
}

/// What a client that is told of an endpoint finds there.
fn finds_at_an_endpoint(name: &str, client: impl Fn(&Place) -> Command, has_providers: bool) {
    // With nothing else in reach: who does not listen finds nothing.
    let Some(lab) = Lab::bare() else { return };
    let options = [
        ["--listen", "127.0.0.1:0"],
        ["--action", "stop"],
        ["--notice-after", APPEARED],
        ["--deadline", DEADLINE],
    ];
    let args = [&["serve"], &options.concat()[..]].concat();
    let mut serve = Running::start(Spotsim::command(&lab, &args));
    let line = serve.stdout_line("serving: ", 0);
    let (_, endpoint) = line.split_once("serving: ").unwrap();
    let endpoint = endpoint.split(';').next().unwrap();

    let place = lab.outside();
    let ask = |paths: &[&str]| {
        let mut command = client(&place);
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint);
        if has_providers {
            command.arg("--credentials");
        }
        command.args(paths);
        let text = run(command, b"").expect(name);
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect::<Vec<Value>>()
    };
    let role = "/latest/meta-data/iam/security-credentials/";
    let region = "/latest/meta-data/placement/region";
    let found = ask(&[NOTICE, TIME, LIFE_CYCLE, region, role]);
    let notice: Value = serde_json::from_str(found[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        notice,
        json!({"action": "stop", "time": DEADLINE}),
        "{name}"
    );
    assert_eq!(found[1]["status"], 404, "{name}");
    assert_eq!(found[2]["body"], "spot", "{name}");
    let region = found[3]["body"].as_str().unwrap();
    assert!(region.contains('-'), "{name}: {found:?}");
    let role = format!("{role}{}", found[4]["body"].as_str().unwrap());
    let credentials = ask(&[&role]).remove(0);
    let credentials: Value = serde_json::from_str(credentials["body"].as_str().unwrap()).unwrap();
    assert_eq!(credentials["Code"], "Success", "{name}");
    if has_providers {
        let providers = found.last().unwrap();
        let key = &credentials["AccessKeyId"];
        assert_eq!(
            *providers,
            json!({"access_key": key, "region": region}),
            "{name}"
        );
    }
    assert!(
        serve.stderr().contains("instance-action"),
        "{}",
        serve.stderr()
    );
}

#[test]
fn botocore_at_an_endpoint() {
    let client = |place: &Place| place.command_line(python("botocore_imds.py"));
    finds_at_an_endpoint("botocore", client, true);
}

#[test]
fn aws_sdk_for_rust_at_an_endpoint() {
    let client = |place: &Place| place.command(helper("aws-imds"));
    finds_at_an_endpoint("aws-config", client, true);
}

#[test]
fn aws_sdk_for_javascript_at_an_endpoint() {
    let client = |place: &Place| place.command_line(node("metadata-service.mjs"));
    finds_at_an_endpoint("@aws-sdk/ec2-metadata-service", client, false);
}
