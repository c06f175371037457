use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn notice(action: Action) -> Plan {
    Plan {
        notice: Some(NoticePlan {
            action,
            appears: When::After(Span::seconds(10)),
            ..NoticePlan::default()
        }),
        life_cycle: None,
        ..Plan::default()
    }
}

fn values(timeline: &Timeline, now: &str) -> Vec<(&'static str, String)> {
    let visible = timeline.visible(at(now)).into_iter();
    visible
        .filter(|item| item.path != "instance-life-cycle")
        .map(|item| (item.path, item.value))
        .collect()
}

fn value(timeline: &Timeline, now: &str, path: &str) -> Option<String> {
    let mut visible = timeline.visible(at(now)).into_iter();
    visible
        .find(|item| item.path == path)
        .map(|item| item.value)
}

#[test]
fn nothing_is_visible_before_the_notice() {
    let timeline = notice(Action::Terminate)
        .arm(at("2017-09-18T08:20:00Z"))
        .unwrap();
    assert_eq!(values(&timeline, "2017-09-18T08:20:09.999Z"), []);
    assert_eq!(values(&timeline, "2017-09-18T08:20:10Z").len(), 2);
}

#[test]
fn a_termination_has_the_documented_form() {
    let timeline = notice(Action::Terminate)
        .arm(at("2017-09-18T08:19:50Z"))
        .unwrap();
    let expected = [
        (
            "spot/instance-action",
            r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#.to_owned(),
        ),
        ("spot/termination-time", "2017-09-18T08:22:00Z".to_owned()),
    ];
    for now in [
        "2017-09-18T08:20:00Z",
        "2017-09-18T08:21:59.5Z",
        "2030-01-01T00:00:00Z",
    ] {
        assert_eq!(values(&timeline, now), expected, "at {now}");
    }
}

#[test]
fn only_a_termination_has_a_termination_time() {
    for action in [Action::Stop, Action::Hibernate] {
        let timeline = notice(action).arm(at("2017-09-18T08:00:00Z")).unwrap();
        let visible = values(&timeline, "2018-01-01T00:00:00Z");
        assert_eq!(visible.len(), 1);
        let action = format!(r#"{{"action": "{action}","#);
        assert!(visible[0].1.starts_with(&action));
    }
}

#[test]
fn hibernation_has_no_lead() {
    let timeline = notice(Action::Hibernate)
        .arm(at("2017-09-18T08:00:00Z"))
        .unwrap();
    assert_eq!(
        timeline.notice().unwrap().deadline,
        at("2017-09-18T08:00:10Z")
    );
}

#[test]
fn a_deadline_is_a_whole_second_and_never_early() {
    let timeline = notice(Action::Stop)
        .arm(at("2017-09-18T08:00:00.000000001Z"))
        .unwrap();
    let deadline = timeline.notice().unwrap().deadline;
    assert_eq!(deadline.to_string(), "2017-09-18T08:02:11Z");
}

#[test]
fn a_recommendation_shows_when_it_was_made() {
    let plan = Plan {
        rebalance: Some(RebalancePlan {
            appears: "90s".parse().unwrap(),
        }),
        ..Plan::default()
    };
    let timeline = plan.arm(at("2020-10-27T08:20:30.7Z")).unwrap();
    let path = "events/recommendations/rebalance";
    assert_eq!(value(&timeline, "2020-10-27T08:22:00.6Z", path), None);
    assert_eq!(
        value(&timeline, "2020-10-27T08:22:00.7Z", path).as_deref(),
        Some(r#"{"noticeTime": "2020-10-27T08:22:00Z"}"#)
    );
}

#[test]
fn an_instance_with_a_notice_is_a_spot_instance() {
    let armed_at = at("2026-01-01T00:00:00Z");
    let life_cycle = |plan: Plan| {
        let timeline = plan.arm(armed_at).unwrap();
        value(&timeline, "2026-01-01T00:00:00Z", "instance-life-cycle")
    };
    assert_eq!(life_cycle(notice(Action::Stop)).as_deref(), Some("spot"));
    assert_eq!(life_cycle(Plan::default()), None);
    let other = Plan {
        life_cycle: Some(LifeCycle::OnDemand),
        ..notice(Action::Stop)
    };
    assert_eq!(life_cycle(other).as_deref(), Some("on-demand"));
}

#[test]
fn an_event_has_the_documented_form() {
    let mut event: ScheduledPlan = "system-reboot@2019-01-21T09:00:43Z..2019-01-21T09:17:23Z"
        .parse()
        .unwrap();
    event.event_id = Some("instance-event-0d59937288b749b32".to_owned());
    let plan = Plan {
        scheduled: vec![event],
        ..Plan::default()
    };
    let timeline = plan.arm(at("2019-01-20T00:00:00Z")).unwrap();
    let scheduled = value(
        &timeline,
        "2019-01-20T00:00:00Z",
        "events/maintenance/scheduled",
    );
    let expected = r#"[ {
  "NotBefore" : "21 Jan 2019 09:00:43 GMT",
  "Code" : "system-reboot",
  "Description" : "scheduled reboot",
  "EventId" : "instance-event-0d59937288b749b32",
  "NotAfter" : "21 Jan 2019 09:17:23 GMT",
  "State" : "active"
} ]"#;
    assert_eq!(scheduled.as_deref(), Some(expected));
    let history = value(
        &timeline,
        "2019-01-20T00:00:00Z",
        "events/maintenance/history",
    );
    assert_eq!(history.as_deref(), Some("[]"));
}

#[test]
fn an_event_that_is_over_is_history() {
    let events = [
        "system-reboot@1h..2h",
        "instance-stop@1h,canceled=30m,lingers=1m",
        "instance-retirement",
    ];
    let plan = Plan {
        scheduled: events.map(|event| event.parse().unwrap()).into(),
        ..Plan::default()
    };
    let timeline = plan.arm(at("2026-01-01T00:00:00Z")).unwrap();
    let codes = |now: &str, list: &str| {
        let list = value(&timeline, now, &format!("events/maintenance/{list}")).unwrap();
        let list: Vec<serde_json::Value> = serde_json::from_str(&list).unwrap();
        list.iter()
            .map(|event| {
                let text = |member| event[member].as_str().unwrap().to_owned();
                format!("{} {} {}", text("Code"), text("State"), text("Description"))
            })
            .collect::<Vec<_>>()
            .join(", ")
    };
    assert_eq!(
        codes("2026-01-01T00:30:30Z", "scheduled"),
        "system-reboot active scheduled reboot, \
         instance-stop canceled [Canceled] scheduled stop, \
         instance-retirement active scheduled retirement"
    );
    assert_eq!(
        codes("2026-01-01T00:30:30Z", "history"),
        "instance-stop canceled [Canceled] scheduled stop"
    );
    assert_eq!(
        codes("2026-01-01T02:00:00Z", "scheduled"),
        "instance-retirement active scheduled retirement"
    );
    assert_eq!(
        codes("2026-01-01T02:00:00Z", "history"),
        "system-reboot completed [Completed] scheduled reboot, \
         instance-stop canceled [Canceled] scheduled stop"
    );
}

#[test]
fn a_state_lasts_until_the_next() {
    let states = ["Terminated@2m", "InService"];
    let plan = Plan {
        lifecycle_states: states.map(|state| state.parse().unwrap()).into(),
        ..Plan::default()
    };
    let timeline = plan.arm(at("2026-01-01T00:00:00Z")).unwrap();
    let path = "autoscaling/target-lifecycle-state";
    for (now, expected) in [
        ("2025-12-31T23:59:59Z", None),
        ("2026-01-01T00:00:00Z", Some("InService")),
        ("2026-01-01T00:01:59Z", Some("InService")),
        ("2026-01-01T00:02:00Z", Some("Terminated")),
    ] {
        assert_eq!(value(&timeline, now, path).as_deref(), expected, "at {now}");
    }
}

#[test]
fn what_is_withdrawn_is_gone_at_the_deadline() {
    let plan = Plan {
        rebalance: Some(RebalancePlan {
            appears: When::default(),
        }),
        after_deadline: Some(AfterDeadline::Withdraw),
        ..notice(Action::Terminate)
    };
    let timeline = plan.arm(at("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(values(&timeline, "2026-01-01T00:02:09.9Z").len(), 3);
    assert_eq!(values(&timeline, "2026-01-01T00:02:10Z"), []);
    let last: Vec<_> = timeline
        .steps()
        .into_iter()
        .filter(|step| step.at == at("2026-01-01T00:02:10Z"))
        .map(|step| (step.path, step.value))
        .collect();
    assert_eq!(
        last,
        [
            ("events/recommendations/rebalance", None),
            ("spot/instance-action", None),
            ("spot/termination-time", None),
        ]
    );
}

fn span() -> impl Strategy<Value = Span> {
    (0_u32..400).prop_map(Span::seconds)
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        span().prop_map(When::After),
        (0_i64..400).prop_map(|second| When::At(
            at("2026-01-01T00:00:00Z") + jiff::SignedDuration::from_secs(second)
        )),
    ]
}

fn notices() -> impl Strategy<Value = NoticePlan> {
    let action = select(Action::ALL);
    (action, when(), option::of(span()), option::of(when())).prop_map(
        |(action, appears, lead, deadline)| NoticePlan {
            action,
            appears,
            lead,
            deadline,
        },
    )
}

fn events() -> impl Strategy<Value = ScheduledPlan> {
    let times = (
        when(),
        option::of(when()),
        option::of(when()),
        option::of(when()),
        option::of(when()),
        option::of(span()),
    );
    (select(Code::ALL), times).prop_map(|(code, times)| {
        let (appears, not_before, not_after, completed, canceled, lingers) = times;
        ScheduledPlan {
            appears,
            not_before,
            not_after,
            completed,
            canceled,
            lingers,
            ..ScheduledPlan::new(code)
        }
    })
}

fn states() -> impl Strategy<Value = LifecycleStatePlan> {
    (select(LifecycleState::ALL), when())
        .prop_map(|(state, appears)| LifecycleStatePlan { state, appears })
}

/// Any plan, whether it makes sense or not.
fn plans() -> impl Strategy<Value = Plan> {
    (
        option::of(notices()),
        option::of(when().prop_map(|appears| RebalancePlan { appears })),
        option::of(select(AfterDeadline::ALL)),
        option::of(select(LifeCycle::ALL)),
        vec(events(), 0..3),
        vec(states(), 0..3),
        option::of(span()),
    )
        .prop_map(
            |(
                notice,
                rebalance,
                after_deadline,
                life_cycle,
                scheduled,
                lifecycle_states,
                stagger,
            )| Plan {
                notice,
                rebalance,
                after_deadline,
                life_cycle,
                scheduled,
                lifecycle_states,
                stagger,
            },
        )
}

/// Half seconds around the time in which the plans have their changes.
fn instants() -> impl Strategy<Value = Timestamp> {
    (-20_i64..1_000)
        .prop_map(|half| at("2026-01-01T00:00:00Z") + jiff::SignedDuration::from_millis(half * 500))
}

proptest! {
    #[test]
    fn a_plan_survives_being_sent(plan in plans()) {
        let text = serde_json::to_string(&plan).unwrap();
        prop_assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }

    /// What a client saw stays true: an item that is there at two instants and did not change
    /// between them has the same value and the same age at both.
    #[test]
    fn times_never_move(plan in plans(), one in instants(), other in instants()) {
        let Ok(timeline) = plan.arm(at("2026-01-01T00:00:00Z")) else { return Ok(()) };
        let (early, late) = (one.min(other), one.max(other));
        let later = timeline.visible(late);
        for item in timeline.visible(early) {
            prop_assert!(item.since <= early);
            let Some(again) = later.iter().find(|again| again.path == item.path) else {
                continue;
            };
            if again.since <= early {
                prop_assert_eq!(again, &item);
            }
            // A notice never changes, whatever else does.
            if item.path.starts_with("spot/") || item.path.ends_with("rebalance") {
                prop_assert_eq!(again, &item);
            }
        }
    }

    /// The announcements of one instant agree with each other.
    #[test]
    fn one_instant_tells_one_story(plan in plans(), now in instants()) {
        let Ok(timeline) = plan.arm(at("2026-01-01T00:00:00Z")) else { return Ok(()) };
        let visible = timeline.visible(now);
        let get = |path: &str| visible.iter().find(|item| item.path == path);
        let paths: Vec<_> = visible.iter().map(|item| item.path).collect();
        prop_assert!(paths.is_sorted(), "{paths:?}");
        if let Some(time) = get("spot/termination-time") {
            let action = get("spot/instance-action").unwrap();
            let expected = format!(r#"{{"action": "terminate", "time": "{}"}}"#, time.value);
            prop_assert_eq!(&action.value, &expected);
        }
        if let Some(recommendation) = get("events/recommendations/rebalance") {
            let time = recommendation.value.split('"').nth(3).unwrap();
            prop_assert!(time.parse::<Timestamp>().unwrap() <= now);
        }
        let scheduled = get("events/maintenance/scheduled");
        let history = get("events/maintenance/history");
        prop_assert_eq!(scheduled.is_some(), history.is_some());
        for list in [scheduled, history].into_iter().flatten() {
            let list: Vec<serde_json::Value> = serde_json::from_str(&list.value).unwrap();
            for event in list {
                let prefixed = event["Description"].as_str().unwrap().starts_with('[');
                prop_assert_eq!(prefixed, event["State"] != "active");
            }
        }
    }

    /// The steps are the whole story: replayed up to an instant, they are what is visible then.
    #[test]
    fn steps_and_items_agree(plan in plans(), now in instants()) {
        let Ok(timeline) = plan.arm(at("2026-01-01T00:00:00Z")) else { return Ok(()) };
        let mut replayed = BTreeMap::new();
        for Step { at, path, value } in timeline.steps() {
            // What was planned for a time before the arming is there at the arming.
            if at <= now {
                match value {
                    Some(value) => replayed.insert(path, value),
                    None => replayed.remove(path),
                };
            }
        }
        let visible = timeline.visible(now).into_iter();
        let visible: BTreeMap<_, _> = visible.map(|item| (item.path, item.value)).collect();
        prop_assert_eq!(replayed, visible);
        let next = timeline.next_change(now);
        if let Some(next) = next {
            prop_assert!(next > now);
        }
    }

    #[test]
    fn nothing_is_nothing_at_any_time(now in instants()) {
        prop_assert_eq!(Timeline::nothing(now).visible(now), []);
        prop_assert!(Plan::default().arm(now).unwrap().is_empty());
    }
}
