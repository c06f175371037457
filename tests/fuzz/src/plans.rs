//! Plan files, in any of the formats.

use jiff::{SignedDuration, Timestamp};
use spotsim::{
    document::{self, Format},
    timeline::{Item, Plan, Theirs, Timeline},
};

pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    for format in [Format::Toml, Format::Yaml, Format::Json] {
        match document::parse::<Plan>(text, format) {
            Ok(plan) => of(&plan),
            Err(invalid) => is_a_line(&invalid.to_string()),
        }
    }
}

fn is_a_line(error: &str) {
    assert!(!error.is_empty() && !error.contains('\n'), "{error:?}");
}

fn of(plan: &Plan) {
    let written = serde_json::to_string(plan).unwrap();
    let read = document::parse::<Plan>(&written, Format::Json);
    assert_eq!(read.as_ref(), Ok(plan), "written and read again");

    let armed_at = Timestamp::constant(1_792_663_200, 500_000_000);
    match plan.arm(armed_at) {
        Ok(timeline) => {
            assert_eq!(plan.arm(armed_at).as_ref(), Ok(&timeline), "armed again");
            shows_its_steps(&timeline);
        }
        Err(invalid) => {
            assert!(!invalid.field.is_empty(), "{invalid}");
            is_a_line(&invalid.to_string());
        }
    }
}

/// What is visible changes at the timeline's steps, as they say, and never between them.
fn shows_its_steps(timeline: &Timeline) {
    let steps = timeline.steps();
    assert!(steps.is_sorted_by_key(|step| step.at));
    let values = |at| -> Vec<(&str, String)> {
        let visible = timeline.visible(at).into_iter();
        visible.map(|item| (item.path, item.value)).collect()
    };
    let mut instants: Vec<_> = steps.iter().map(|step| step.at).collect();
    instants.dedup();
    let nanosecond = SignedDuration::from_nanos(1);
    for (index, at) in instants.iter().copied().enumerate() {
        let visible = timeline.visible(at);
        visible.iter().for_each(|item| is_shown_well(item, at));
        assert!(visible.is_sorted_by_key(|item| item.path), "{visible:?}");
        for step in steps.iter().filter(|step| step.at == at) {
            let shown = visible.iter().find(|item| item.path == step.path);
            assert_eq!(shown.map(|item| &item.value), step.value.as_ref());
        }
        if let Some(next) = instants.get(index + 1) {
            assert_eq!(values(*next - nanosecond), values(at), "before {next}");
            assert!(
                timeline
                    .next_change(at)
                    .is_some_and(|change| change <= *next)
            );
        }
    }
    if let Some(last) = instants.last() {
        assert_eq!(values(Timestamp::MAX), values(*last), "after {last}");
    }
    assert_eq!(steps.is_empty(), timeline.is_empty());
}

fn is_shown_well(item: &Item, now: Timestamp) {
    assert!(item.since <= now, "{item:?} at {now}");
    let json: Result<serde_json::Value, _> = serde_json::from_str(&item.value);
    match item.path {
        "events/maintenance/history" | "events/maintenance/scheduled" => {
            assert!(
                item.theirs == Theirs::Joined && json.unwrap().is_array(),
                "{item:?}"
            );
        }
        "events/recommendations/rebalance" | "spot/instance-action" => {
            assert!(json.unwrap().is_object() && !item.value.contains('\n'));
        }
        _ => assert!(!item.value.is_empty() && !item.value.contains('\n')),
    }
}
