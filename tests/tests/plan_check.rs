//! `spotsim plan check`: what a plan file comes to, and what is wrong with it.

use regex::Regex;
use tests::{Finished, Scratch};

/// One plan, in each format.
const PLAN: [(&str, &str); 3] = [
    (
        "plan.toml",
        r#"
after-deadline = "withdraw"
life-cycle = "on-demand"

[notice]
action = "stop"
appears = "+90s"
lead = "1h30m"

[rebalance]
appears = "10s"

[[scheduled]]
code = "system-reboot"
appears = "+1m"
not-before = "+1h"
not-after = "+2h"
event-id = "instance-event-1"

[[scheduled]]
code = "instance-stop"
canceled = "+3h"
lingers = "1h"

[[lifecycle-states]]
state = "InService"

[[lifecycle-states]]
state = "Warmed:Stopped"
appears = "+2m"
"#,
    ),
    (
        "plan.yaml",
        "
after-deadline: withdraw
life-cycle: on-demand
notice: {action: stop, appears: +90s, lead: 1h30m}
rebalance:
  appears: 10s
scheduled:
  - code: system-reboot
    appears: +1m
    not-before: +1h
    not-after: +2h
    event-id: instance-event-1
  - code: instance-stop
    canceled: +3h
    lingers: 1h
lifecycle-states:
  - state: InService
  - {state: 'Warmed:Stopped', appears: +2m}
",
    ),
    (
        "plan.json",
        r#"{
  "after-deadline": "withdraw",
  "life-cycle": "on-demand",
  "notice": {"action": "stop", "appears": "+90s", "lead": "1h30m"},
  "rebalance": {"appears": "10s"},
  "scheduled": [
    {"code": "system-reboot", "appears": "+1m", "not-before": "+1h", "not-after": "+2h",
     "event-id": "instance-event-1"},
    {"code": "instance-stop", "canceled": "+3h", "lingers": "1h"}
  ],
  "lifecycle-states": [
    {"state": "InService"},
    {"state": "Warmed:Stopped", "appears": "+2m"}
  ]
}"#,
    ),
];

/// What it comes to, but for the times.
const TABLE: &str = "AFTER        TIME                  PATH                                VALUE
+0s          TIME  autoscaling/target-lifecycle-state  InService
+0s          TIME  events/maintenance/history          []
+0s          TIME  events/maintenance/scheduled        instance-stop active
+0s          TIME  instance-life-cycle                 on-demand
+10s         TIME  events/recommendations/rebalance    {\"noticeTime\": \"TIME\"}
+1m          TIME  events/maintenance/scheduled        system-reboot active, instance-stop active
+1m 30s      TIME  spot/instance-action                {\"action\": \"stop\", \"time\": \"TIME\"}
+2m          TIME  autoscaling/target-lifecycle-state  Warmed:Stopped
+1h 31m 30s  TIME  events/recommendations/rebalance    (taken back)
+1h 31m 30s  TIME  spot/instance-action                (taken back)
+2h          TIME  events/maintenance/history          system-reboot completed
+2h          TIME  events/maintenance/scheduled        instance-stop active
+3h          TIME  events/maintenance/history          system-reboot completed, instance-stop canceled
+3h          TIME  events/maintenance/scheduled        instance-stop canceled
+4h          TIME  events/maintenance/scheduled        []
";

fn check(scratch: &Scratch, name: &str, plan: &str) -> Finished {
    scratch.write(name, plan);
    scratch.spotsim(&["plan", "check", name])
}

#[test]
fn a_plan_comes_to_the_same_in_every_format() {
    let scratch = Scratch::new();
    let time = Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").unwrap();
    for (name, plan) in PLAN {
        let finished = check(&scratch, name, plan);
        assert_eq!(finished.stderr, "", "{name}");
        let table = finished.expect(name);
        let table = time.replace_all(&table, "TIME");
        assert_eq!(table, TABLE, "{name}");
    }
}

#[test]
fn a_stagger_is_told_of() {
    let scratch = Scratch::new();
    for (name, plan) in [
        ("a.toml", "stagger = \"90s\"\n[notice]\n"),
        ("a.yaml", "stagger: 90s\nnotice: {}\n"),
        ("a.json", r#"{"stagger": "90s", "notice": {}}"#),
    ] {
        let table = check(&scratch, name, plan).expect(name);
        let last = "\n\nto each further target 1m 30s later than to the one before\n";
        assert!(table.ends_with(last), "{table}");
        assert_eq!(table.matches("spot/instance-action").count(), 1, "{table}");
    }
    is_refused(
        "a.yaml",
        "notice: {}\nstagger: -1s\n",
        "a.yaml:2:10: \"-1s\": ",
    );
    is_refused("a.yaml", "notice: {}\nstagger: 5\n", "a.yaml:2:10: ");
}

#[test]
fn nothing_is_announced_by_an_empty_plan() {
    let scratch = Scratch::new();
    for (name, plan) in [
        ("a.toml", ""),
        ("a.yaml", "{}"),
        ("a.json", "{}"),
        ("a.yaml", "stagger: 5s"),
    ] {
        let said = check(&scratch, name, plan).expect(name);
        assert_eq!(said, "nothing is announced\n", "{name}");
    }
}

/// Checks that a plan is refused with one line that begins so.
fn is_refused(name: &str, plan: &str, begins: &str) {
    let scratch = Scratch::new();
    let finished = check(&scratch, name, plan);
    let Finished { stderr, .. } = &finished;
    assert_eq!(finished.code, 1, "{plan}: {stderr}");
    assert_eq!(finished.text(), "", "{plan}");
    assert_eq!(stderr.lines().count(), 1, "{plan}: {stderr}");
    let begins = format!("spotsim: error: {begins}");
    assert!(stderr.starts_with(&begins), "{plan}: {stderr}");
}

#[test]
fn a_typo_is_found_where_it_is() {
    for (name, plan, begins) in [
        (
            "a.toml",
            "[notice]\naction = \"stop\"\nleed = \"2m\"\n",
            "a.toml:3:1: unknown field `leed`",
        ),
        (
            "a.yaml",
            "notice:\n  action: stop\n  leed: 2m\n",
            "a.yaml:3:3: unknown field `leed`",
        ),
        ("a.yml", "notise: {}\n", "a.yml:1:1: unknown field `notise`"),
        (
            "a.json",
            "{\n  \"notice\": {\n    \"leed\": \"2m\"}}\n",
            "a.json:3:10: unknown field `leed`",
        ),
        (
            "a.toml",
            "[[scheduled]]\ncode = \"system-rebot\"\n",
            "a.toml:2:8: \"system-rebot\": unknown event code",
        ),
        (
            "a.yaml",
            "lifecycle-states:\n  - state: Inservice\n",
            "a.yaml:2:12: \"Inservice\": unknown target lifecycle state",
        ),
        (
            "a.json",
            "{\"notice\": {\"action\": \"reboot\"}}",
            "a.json:1:30: \"reboot\": unknown action",
        ),
        ("a.toml", "[notice\n", "a.toml:1:8: "),
        ("a.yaml", "notice: {\n", "a.yaml:"),
        ("a.json", "{\"notice\": {}\n", "a.json:2:1: "),
    ] {
        is_refused(name, plan, begins);
    }
}

#[test]
fn a_contradiction_is_told_by_its_field() {
    for (plan, field) in [
        (
            "notice: {lead: 2m, deadline: +3m}",
            "notice.deadline: give a deadline or a lead, not both",
        ),
        (
            "notice: {appears: +90s, deadline: +60s}",
            "notice.deadline: ",
        ),
        ("after-deadline: withdraw", "after-deadline: "),
        (
            "notice: {action: hibernate}\nafter-deadline: withdraw",
            "after-deadline: ",
        ),
        (
            "notice: {}\nrebalance: {appears: 5m}\nafter-deadline: withdraw",
            "rebalance.appears: ",
        ),
        (
            "scheduled:\n- {code: system-reboot, not-before: +2h, not-after: +1h}",
            "scheduled[0].not-after: ",
        ),
        (
            "scheduled:\n- {code: system-reboot}\n- {code: instance-stop, canceled: 1h, completed: 1h}",
            "scheduled[1].canceled: ",
        ),
        (
            "scheduled:\n- {code: system-reboot, lingers: 1h}",
            "scheduled[0].lingers: ",
        ),
        (
            "lifecycle-states:\n- {state: InService}\n- {state: Standby}",
            "lifecycle-states[1].appears: ",
        ),
    ] {
        is_refused("a.yaml", plan, &format!("a.yaml: {field}"));
    }
}

#[test]
fn a_file_that_is_none() {
    let scratch = Scratch::new();
    for (name, says) in [
        ("gone.yaml", "cannot read gone.yaml: "),
        ("plan", "cannot tell the format of plan: "),
        ("plan.txt", "cannot tell the format of plan.txt: "),
    ] {
        let finished = scratch.spotsim(&["plan", "check", name]);
        let Finished { stderr, .. } = &finished;
        assert_eq!(finished.code, 1, "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        let begins = format!("spotsim: error: {says}");
        assert!(stderr.starts_with(&begins), "{stderr}");
    }
}
