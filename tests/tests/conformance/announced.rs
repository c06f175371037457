//! Everything that can be announced, in its exact form.

use super::{
    case::{Case, Group, Service, allowing, ask, forbidden, get, not_found, text, unauthorized},
    service::TOP,
};

const ACTION: &str = "/latest/meta-data/spot/instance-action";
const TIME: &str = "/latest/meta-data/spot/termination-time";
const REBALANCE: &str = "/latest/meta-data/events/recommendations/rebalance";
const SCHEDULED: &str = "/latest/meta-data/events/maintenance/scheduled";
const HISTORY: &str = "/latest/meta-data/events/maintenance/history";
const STATE: &str = "/latest/meta-data/autoscaling/target-lifecycle-state";
const LIFE_CYCLE: &str = "/latest/meta-data/instance-life-cycle";

const APPEARS: &str = "2020-01-01T00:00:00Z";
const SINCE: &str = "Wed, 01 Jan 2020 00:00:00 GMT";
const DEADLINE: &str = "2099-12-31T23:59:00Z";

pub fn groups() -> Vec<Group> {
    let mut groups = notices();
    groups.push(rebalance());
    groups.push(notice_without_a_token());
    groups.push(notice_where_imds_is_off());
    groups.extend(life_cycles());
    groups.extend(lifecycle_states());
    groups.extend(scheduled_events());
    groups
}

/// The names in `meta-data/`, with some more.
fn top_with(more: &[&str]) -> String {
    let mut names: Vec<_> = TOP.iter().chain(more).copied().collect();
    names.sort_unstable();
    names.join("\n")
}

fn notices() -> Vec<Group> {
    ["terminate", "stop", "hibernate"]
        .map(|action| {
            let value = format!(r#"{{"action": "{action}", "time": "{DEADLINE}"}}"#);
            let mut cases = of_an_item(ACTION, &value);
            let names = match action {
                "terminate" => {
                    cases.extend(of_an_item(TIME, DEADLINE));
                    "instance-action\ntermination-time"
                }
                _ => {
                    cases.push(get(TIME).is(not_found()));
                    "instance-action"
                }
            };
            cases.extend([
                get("/latest/meta-data/spot").is(text(names).since(SINCE)),
                get("/latest/meta-data/spot/")
                    .token("{good}")
                    .is(text(names).since(SINCE).left()),
                ask("HEAD", "/latest/meta-data/spot/").is(text(names).since(SINCE)),
                get("/latest/meta-data/spot/").token("x").is(unauthorized()),
                get("/latest/meta-data").is(text(&top_with(&["spot/"]))),
                get("/2021-07-15/meta-data/")
                    .token("{good}")
                    .is(text(&top_with(&["spot/"])).left()),
                ask("HEAD", "/latest/meta-data/").is(text(&top_with(&["spot/"]))),
                get("/latest/meta-data/").token("x").is(unauthorized()),
                get("/latest/meta-data/events/").is(text("maintenance/")),
                get(LIFE_CYCLE).is(text("spot")),
                get(REBALANCE).is(not_found()),
                get(STATE).is(not_found()),
                get(SCHEDULED).is(text("[]")),
                get(HISTORY).is(text("[]")),
                get("/latest/meta-data/instance-id").is(text("i-0123456789abcdef0")),
            ]);
            let options = [
                "--action",
                action,
                "--notice-after",
                APPEARS,
                "--deadline",
                DEADLINE,
            ];
            Group::new(action, &options, cases)
        })
        .into()
}

/// An announced item is found in every way in which the others are, and obeys the same rules.
fn of_an_item(path: &str, value: &str) -> Vec<Case> {
    let below = path.strip_prefix("/latest").unwrap();
    let value = || text(value).since(SINCE);
    let mut cases = vec![
        ask("HEAD", path).is(value()),
        ask("HEAD", path).token("{good}").is(value().left()),
        get(path).token("{good}").is(value().left()),
        get(path)
            .token("{expired}")
            .token("{good}")
            .is(value().left()),
        get(path)
            .token("{good}")
            .token("{expired}")
            .is(value().left()),
        get(path).token("{expired}").is(unauthorized()),
        get(path).token("nonsense").is(unauthorized()),
        get(path).token("{good}").forwarded().is(forbidden()),
        get(path).forwarded().is(value()),
        get(path).http10().is(value()),
        get(path)
            .with("Connection: Upgrade, HTTP2-Settings")
            .with("Upgrade: h2c")
            .is(value()),
        get(&format!("{path}/more")).is(not_found()),
        get(&format!("/newest{below}")).is(not_found()),
        ask("POST", path).is(allowing("405 Not Allowed", "OPTIONS, GET, HEAD")),
        ask("DELETE", path).is(allowing("405 Not Allowed", "OPTIONS, GET, HEAD")),
        ask("PUT", path).ttl("60").is(forbidden()),
    ];
    for path in [
        path.to_owned(),
        format!("{path}/"),
        format!("/{path}"),
        format!("{path}?a=b"),
        path.replace("/meta-data", "//meta-data/"),
        format!("/2021-07-15{below}"),
        format!("/2009-04-04{below}"),
        format!("/1.0{below}"),
    ] {
        cases.push(get(&path).is(value()));
    }
    cases
}

fn rebalance() -> Group {
    let value = format!(r#"{{"noticeTime": "{APPEARS}"}}"#);
    let mut cases = of_an_item(REBALANCE, &value);
    let events = || text("maintenance/\nrecommendations/");
    cases.extend([
        get("/latest/meta-data/events").is(events()),
        get("/latest/meta-data/events/")
            .token("{good}")
            .is(events().left()),
        get("/latest/meta-data/events/recommendations").is(text("rebalance").since(SINCE)),
        get("/latest/meta-data/events/recommendations/").is(text("rebalance").since(SINCE)),
        get("/latest/meta-data/").is(text(&top_with(&[]))),
        get(LIFE_CYCLE).is(text("spot")),
        get(ACTION).is(not_found()),
        get(TIME).is(not_found()),
        get("/latest/meta-data/spot/").is(not_found()),
    ]);
    Group::new("rebalance", &["--rebalance-after", APPEARS], cases)
}

const TERMINATE: [&str; 4] = ["--notice-after", APPEARS, "--deadline", DEADLINE];

/// The service judges tokens for announced items as for the others.
fn notice_without_a_token() -> Group {
    let value = format!(r#"{{"action": "terminate", "time": "{DEADLINE}"}}"#);
    let cases = vec![
        get(ACTION).is(unauthorized()),
        ask("HEAD", ACTION).is(unauthorized()),
        get("/latest/meta-data/spot/").is(unauthorized()),
        get("/latest/meta-data/").is(unauthorized()),
        get(ACTION).token("{expired}").is(unauthorized()),
        get(ACTION)
            .token("{good}")
            .is(text(&value).since(SINCE).left()),
        get("/latest/meta-data/")
            .token("{good}")
            .is(text(&top_with(&["spot/"])).left()),
    ];
    Group::new("terminate, tokens required", &TERMINATE, cases).of(Service::V2)
}

fn notice_where_imds_is_off() -> Group {
    let cases = vec![
        get(ACTION).is(forbidden()),
        get(ACTION).token("x").is(forbidden()),
        get("/latest/meta-data/spot/").is(forbidden()),
        get("/latest/meta-data/").is(forbidden()),
    ];
    Group::new("terminate, switched off", &TERMINATE, cases).of(Service::Off)
}

fn life_cycles() -> Vec<Group> {
    let value = |value| {
        vec![
            get(LIFE_CYCLE).is(text(value)),
            get(LIFE_CYCLE).token("{good}").is(text(value).left()),
            get("/latest/meta-data/").is(text(&top_with(&[]))),
            get(ACTION).is(not_found()),
        ]
    };
    let mut with_a_notice = TERMINATE.to_vec();
    with_a_notice.extend(["--life-cycle", "on-demand"]);
    let on_demand = vec![
        get(LIFE_CYCLE).is(text("on-demand")),
        get(TIME).is(text(DEADLINE).since(SINCE)),
    ];
    vec![
        Group::new("spot", &["--life-cycle", "spot"], value("spot")),
        Group::new(
            "on-demand",
            &["--life-cycle", "on-demand"],
            value("on-demand"),
        )
        .change("meta-data/instance-life-cycle", Some("spot")),
        Group::new("on-demand with a notice", &with_a_notice, on_demand),
    ]
}

fn lifecycle_states() -> Vec<Group> {
    [
        "Detached",
        "InService",
        "Standby",
        "Terminated",
        "Warmed:Hibernated",
        "Warmed:Running",
        "Warmed:Stopped",
        "Warmed:Terminated",
    ]
    .map(|state| {
        let directory = "/latest/meta-data/autoscaling/";
        let mut cases = match state {
            "Terminated" => of_an_item(STATE, state),
            _ => vec![get(STATE).is(text(state).since(SINCE))],
        };
        cases.extend([
            get(directory).is(text("target-lifecycle-state").since(SINCE)),
            get("/latest/meta-data/").is(text(&top_with(&["autoscaling/"]))),
            get(ACTION).is(not_found()),
            get(LIFE_CYCLE).is(text("on-demand")),
        ]);
        let option = format!("{state}@{APPEARS}");
        Group::new(state, &["--lifecycle-state", &option], cases)
    })
    .into()
}

/// One event as the service writes it.
fn event(code: &str, description: &str, more: &str, state: &str) -> String {
    format!(
        "{{\n  \"NotBefore\" : \"21 Jan 2019 09:00:43 GMT\",\n  \"Code\" : \"{code}\",\n  \
         \"Description\" : \"{description}\",\n  \"EventId\" : \"instance-event-{code}\",\n  \
         {more}\"State\" : \"{state}\"\n}}"
    )
}

const CODES: [(&str, &str); 5] = [
    ("instance-stop", "scheduled stop"),
    ("instance-retirement", "scheduled retirement"),
    ("instance-reboot", "scheduled reboot"),
    ("system-reboot", "scheduled reboot"),
    ("system-maintenance", "scheduled maintenance"),
];

/// The lists with an event of each code, and how they are given as options.
fn all_codes(keys: &str, prefix: &str, more: &str, state: &str) -> (Vec<String>, String) {
    let options = CODES.iter().flat_map(|(code, _)| {
        let event = format!("{code}@2019-01-21T09:00:43Z{keys},event-id=instance-event-{code}");
        ["--scheduled".to_owned(), event]
    });
    let events = CODES
        .iter()
        .map(|(code, description)| event(code, &format!("{prefix}{description}"), more, state));
    let events = events.collect::<Vec<_>>().join(", ");
    (options.collect(), format!("[ {events} ]"))
}

fn scheduled_events() -> Vec<Group> {
    let lists = |name: &str, options: &[String], scheduled: &str, history: &str| {
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let directory = "/latest/meta-data/events/maintenance/";
        let cases = vec![
            get(SCHEDULED).is(text(scheduled)),
            get(SCHEDULED).token("{good}").is(text(scheduled).left()),
            ask("HEAD", SCHEDULED).is(text(scheduled)),
            get(SCHEDULED).token("x").is(unauthorized()),
            get(SCHEDULED).token("{good}").forwarded().is(forbidden()),
            ask("POST", SCHEDULED).is(allowing("405 Not Allowed", "OPTIONS, GET, HEAD")),
            get(&format!("/{SCHEDULED}/")).is(text(scheduled)),
            get(&SCHEDULED.replace("latest", "2021-07-15")).is(text(scheduled)),
            get(HISTORY).is(text(history)),
            get(HISTORY).token("{good}").is(text(history).left()),
            ask("HEAD", HISTORY).is(text(history)),
            get(directory).is(text("history\nscheduled")),
            get("/latest/meta-data/events/").is(text("maintenance/")),
            get("/latest/meta-data/").is(text(&top_with(&[]))),
            get(ACTION).is(not_found()),
            get(LIFE_CYCLE).is(text("on-demand")),
        ];
        Group::new(name, &options, cases)
    };
    let since = ",appears=2018-12-31T00:00:00Z";
    let (options, active) = all_codes(since, "", "", "active");
    let mut groups = vec![lists("active", &options, &active, "[]")];

    let ends = format!("..2019-01-21T09:17:23Z{since}");
    let not_after = "\"NotAfter\" : \"21 Jan 2019 09:17:23 GMT\",\n  ";
    let (options, completed) = all_codes(&ends, "[Completed] ", not_after, "completed");
    groups.push(lists("completed", &options, "[]", &completed));

    let keys = format!("{since},canceled=2019-01-01T00:00:00Z");
    let (options, canceled) = all_codes(&keys, "[Canceled] ", "", "canceled");
    groups.push(lists("canceled", &options, "[]", &canceled));

    let keys = format!("{keys},lingers=876000h");
    let (options, canceled) = all_codes(&keys, "[Canceled] ", "", "canceled");
    groups.push(lists(
        "canceled and still listed",
        &options,
        &canceled,
        &canceled,
    ));

    let keys = format!(
        "..2099-01-01T00:00:00Z{since},not-before-deadline=2019-02-01T00:00:00Z,\
         description=a \"quoted\" one,event-id=instance-event-system-reboot"
    );
    let options = format!("system-reboot@2019-01-21T09:00:43Z{keys}");
    let more = "\"NotAfter\" : \"1 Jan 2099 00:00:00 GMT\",\n  \
                \"NotBeforeDeadline\" : \"1 Feb 2019 00:00:00 GMT\",\n  ";
    let ours = event("system-reboot", r#"a \"quoted\" one"#, more, "active");
    let options = ["--scheduled".to_owned(), options];
    let alone = format!("[ {ours} ]");
    groups.push(lists("all of an event", &options, &alone, "[]"));
    let words = options.each_ref().map(String::as_str);
    groups.push(events_without_a_token(&words, &alone));
    groups.push(events_where_imds_is_off(&words));

    // What the instance says by itself stays, as it was written, before what is announced.
    let theirs = r#"{"EventId":"instance-event-theirs","Code":"instance-stop"}"#;
    let list = format!("[ {theirs}, {theirs}\n]\n");
    let both = format!("[ {theirs}, {theirs}, {ours} ]");
    let beside = lists("beside the instance's own", &options, &both, "[]");
    groups.push(beside.change("meta-data/events/maintenance/scheduled", Some(&list)));

    // An instance that knows of no events at all.
    let mut nowhere = lists("where there are no lists", &options, &alone, "[]");
    nowhere = nowhere.change("meta-data/events", None);
    groups.push(nowhere);
    let names: Vec<_> = TOP.iter().filter(|name| **name != "events/").collect();
    let names = names
        .iter()
        .map(|name| **name)
        .collect::<Vec<_>>()
        .join("\n");
    let without = vec![
        get(SCHEDULED).is(not_found()),
        get("/latest/meta-data/events/").is(not_found()),
        get("/latest/meta-data/").is(text(&names)),
    ];
    groups.push(Group::new("no events anywhere", &[], without).change("meta-data/events", None));
    groups
}

const EVENTS: [&str; 4] = [
    SCHEDULED,
    HISTORY,
    "/latest/meta-data/events/maintenance/",
    "/latest/meta-data/events/",
];

/// A list that is put together with the service's own obeys the service's rules.
fn events_without_a_token(options: &[&str], scheduled: &str) -> Group {
    let mut cases = Vec::new();
    for (path, value) in
        EVENTS
            .into_iter()
            .zip([scheduled, "[]", "history\nscheduled", "maintenance/"])
    {
        cases.extend([
            get(path).is(unauthorized()),
            ask("HEAD", path).is(unauthorized()),
            get(path).token("x").is(unauthorized()),
            get(path).token("{expired}").is(unauthorized()),
            get(path).token("{good}").is(text(value).left()),
            ask("HEAD", path).token("{good}").is(text(value).left()),
        ]);
    }
    Group::new("an event, tokens required", options, cases).of(Service::V2)
}

fn events_where_imds_is_off(options: &[&str]) -> Group {
    let cases = EVENTS.into_iter().flat_map(|path| {
        [
            get(path).is(forbidden()),
            ask("HEAD", path).is(forbidden()),
            get(path).token("x").is(forbidden()),
        ]
    });
    Group::new("an event, switched off", options, cases.collect()).of(Service::Off)
}
