use std::path::Path;

use jiff::SignedDuration;
use proptest::{collection::vec, prelude::*};
use serde_json::json;

use super::*;
use crate::{experiment::Reading, timeline::Plan};

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn action(kind: Kind, after: &[&str]) -> Action {
    Action {
        kind,
        after: after.iter().map(|&name| name.to_owned()).collect(),
    }
}

fn interrupt(target: &str, seconds: i64) -> Kind {
    Kind::Interrupt {
        target: target.to_owned(),
        before: SignedDuration::from_secs(seconds),
    }
}

fn wait(seconds: i64) -> Kind {
    Kind::Wait(SignedDuration::from_secs(seconds))
}

fn template(actions: impl IntoIterator<Item = (String, Action)>) -> Template {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/templates/half-of-a-group.json"
    );
    let template = Template::read(Path::new(file), Reading::default()).unwrap();
    Template {
        actions: actions.into_iter().collect(),
        ..template
    }
}

fn progress(actions: &[(&str, Action)]) -> Progress {
    let actions = actions
        .iter()
        .map(|(name, action)| ((*name).to_owned(), action.clone()));
    Progress::new(&template(actions))
}

fn found(targets: &[(&str, &[u64])]) -> BTreeMap<String, Vec<u64>> {
    let targets = targets
        .iter()
        .map(|&(name, ids)| (name.to_owned(), ids.to_vec()));
    targets.collect()
}

/// What happened, without the times.
fn told(change: &Change) -> Vec<String> {
    change
        .transitions
        .iter()
        .map(Transition::to_string)
        .collect()
}

/// Whom what is announced to.
fn announced(change: &Change) -> Vec<(&str, &[u64])> {
    let announcements = change.announcements.iter();
    announcements
        .map(|it| (it.action.as_str(), &it.targets[..]))
        .collect()
}

const EVERYBODY: [u64; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

fn these(present: &[u64]) -> Surroundings {
    Surroundings {
        present: present.iter().copied().collect(),
        settled: true,
    }
}

fn everybody() -> Surroundings {
    these(&EVERYBODY)
}

#[test]
fn an_action_is_over_with_its_notice_and_the_experiment_with_its_deadline() {
    let mut it = progress(&[
        ("first", action(interrupt("a", 180), &[])),
        ("gap", action(wait(60), &["first"])),
        ("second", action(interrupt("b", 120), &["gap"])),
    ]);
    assert_eq!(told(&it.initiate(second(0))), ["experiment: initiating"]);
    let found = found(&[("a", &[1]), ("b", &[2, 3])]);
    assert_eq!(told(&it.start(&found, second(0))), ["experiment: running"]);
    let change = it.advance(&everybody(), second(0));
    assert_eq!(
        told(&change),
        ["action first: initiating", "action first: running"]
    );
    assert_eq!(announced(&change), [("first", &[1_u64][..])]);
    let timeline = change.announcements[0].plan.arm(second(0)).unwrap();
    assert_eq!(timeline.notice().unwrap().deadline, second(180));
    let next = |it: &Progress, now| {
        let next = it.next(second(now)).unwrap();
        (next.at, next.what.to_string())
    };
    assert_eq!(
        next(&it, 0),
        (second(60), "notice of action first".to_owned())
    );
    assert_eq!(it.advance(&everybody(), second(59)), Change::default());
    let change = it.advance(&everybody(), second(60));
    assert_eq!(
        told(&change),
        [
            "action first: completed",
            "action gap: initiating",
            "action gap: running"
        ]
    );
    assert_eq!(next(&it, 60), (second(120), "end of action gap".to_owned()));
    let change = it.advance(&everybody(), second(120));
    assert_eq!(
        told(&change),
        [
            "action gap: completed",
            "action second: initiating",
            "action second: running",
            // Two minutes are no more than a notice's.
            "action second: completed",
        ]
    );
    assert_eq!(announced(&change), [("second", &[2_u64, 3][..])]);
    assert_eq!(
        next(&it, 120),
        (second(180), "deadline of action first".to_owned())
    );
    assert_eq!(it.advance(&everybody(), second(239)), Change::default());
    assert_eq!(
        next(&it, 239),
        (second(240), "deadline of action second".to_owned())
    );
    assert_eq!(
        told(&it.advance(&everybody(), second(240))),
        ["experiment: completed"]
    );
    assert_eq!(it.next(second(240)), None);
}

#[test]
fn what_is_stopped_is_stopping_first() {
    let mut it = progress(&[
        ("a", action(interrupt("x", 180), &[])),
        ("b", action(wait(60), &["a"])),
        ("over", action(interrupt("y", 120), &[])),
    ]);
    it.initiate(second(0));
    it.start(&found(&[("x", &[1]), ("y", &[2])]), second(0));
    it.advance(&everybody(), second(0));
    assert_eq!(
        told(&it.stop("by hand", second(5))),
        [
            "experiment: stopping: by hand",
            "action a: stopping",
            "action b: cancelled"
        ]
    );
    assert_eq!(it.stop("again", second(5)), Change::default());
    assert_eq!(it.advance(&everybody(), second(60)), Change::default());
    assert_eq!(
        told(&it.stopped(second(6))),
        ["action a: stopped", "experiment: stopped"]
    );
    assert_eq!(
        it.actions().find(|(name, _)| *name == "over"),
        Some(("over", State::Completed))
    );
    assert_eq!(it.fail("late".to_owned(), second(7)), Change::default());
}

#[test]
fn it_can_be_stopped_before_it_began() {
    let mut it = progress(&[("a", action(wait(60), &[]))]);
    assert_eq!(
        told(&it.stop("at once", second(0))),
        ["experiment: stopping: at once", "action a: cancelled"]
    );
    assert_eq!(told(&it.stopped(second(0))), ["experiment: stopped"]);
}

#[test]
fn an_action_without_targets_is_skipped_and_holds_up_nobody() {
    let mut it = progress(&[
        ("a", action(interrupt("x", 120), &[])),
        ("b", action(interrupt("y", 120), &["a"])),
    ]);
    it.initiate(second(0));
    assert_eq!(
        told(&it.start(&found(&[("x", &[]), ("y", &[1])]), second(0))),
        [
            "experiment: running",
            "action a: skipped: nothing was found for its target"
        ]
    );
    assert_eq!(
        announced(&it.advance(&everybody(), second(0))),
        [("b", &[1_u64][..])]
    );
    assert_eq!(it.state(), State::Running);
}

#[test]
fn nobody_is_interrupted_twice_at_a_time() {
    let both = |gap: i64| {
        let mut it = progress(&[
            ("a", action(interrupt("x", 120), &[])),
            ("b", action(wait(gap), &["a"])),
            ("c", action(interrupt("x", 120), &["b"])),
        ]);
        it.initiate(second(0));
        it.start(&found(&[("x", &[1])]), second(0));
        it.advance(&everybody(), second(0));
        it.advance(&everybody(), second(gap))
    };
    assert_eq!(
        told(&both(119)),
        [
            "action b: completed",
            "action c: initiating",
            "action c: failed: one of its targets is being interrupted by action a already",
            "experiment: failed: action c: one of its targets is being interrupted by action a \
             already",
        ]
    );
    // What was not terminated after all can be.
    assert_eq!(announced(&both(120)), [("c", &[1_u64][..])]);
}

#[test]
fn an_action_is_for_those_who_are_there() {
    let begin = |present: &[u64]| {
        let mut it = progress(&[
            ("a", action(interrupt("x", 300), &[])),
            ("b", action(wait(9), &[])),
        ]);
        it.initiate(second(0));
        it.start(&found(&[("x", &[1, 2])]), second(0));
        it.advance(&these(present), second(0))
    };
    assert_eq!(announced(&begin(&[2, 3])), [("a", &[2_u64][..])]);
    assert_eq!(
        told(&begin(&[3])),
        [
            "action a: initiating",
            "action a: failed: none of its targets is there any more",
            "action b: cancelled",
            "experiment: failed: action a: none of its targets is there any more",
        ]
    );
}

#[test]
fn it_is_not_over_before_what_is_done_at_the_deadline() {
    let mut it = progress(&[("a", action(interrupt("x", 120), &[]))]);
    it.initiate(second(0));
    it.start(&found(&[("x", &[1])]), second(0));
    it.advance(&everybody(), second(0));
    let busy = Surroundings {
        settled: false,
        ..everybody()
    };
    assert_eq!(it.advance(&busy, second(125)), Change::default());
    assert_eq!(it.next(second(125)), None);
    assert_eq!(
        told(&it.advance(&everybody(), second(130))),
        ["experiment: completed"]
    );
}

#[test]
fn all_can_be_left_out() {
    let mut it = progress(&[
        ("a", action(wait(60), &[])),
        ("b", action(wait(60), &["a"])),
    ]);
    it.initiate(second(0));
    assert_eq!(
        told(&it.skip(second(0))),
        [
            "experiment: running",
            "action a: skipped",
            "action b: skipped",
            "experiment: completed",
        ]
    );
}

#[test]
fn a_transition_is_written_in_fiss_words() {
    let mut it = progress(&[("a", action(wait(60), &[]))]);
    let change = it.stop("why", second(0));
    assert_eq!(
        serde_json::to_value(&change.transitions).unwrap(),
        json!([
            {"time": "2027-01-15T08:00:00Z", "from": "pending", "to": "stopping", "reason": "why"},
            {"time": "2027-01-15T08:00:00Z", "action": "a", "from": "pending", "to": "cancelled"},
        ])
    );
}

/// What is done with an experiment.
#[derive(Clone, Debug)]
enum Deed {
    Advance(i64),
    Stop,
    Stopped,
    Fail,
    Leave(u64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        20 => (0..400_i64).prop_map(Deed::Advance),
        1 => Just(Deed::Stop),
        1 => Just(Deed::Stopped),
        1 => Just(Deed::Fail),
        2 => (0..6_u64).prop_map(Deed::Leave),
    ];
    vec(deed, 0..30)
}

/// Each comes after some of those before it, and the names are in no order.
fn actions(disjoint: bool) -> impl Strategy<Value = Vec<(String, Action)>> {
    let one = (
        any::<bool>(),
        0..6_u64,
        1..900_i64,
        any::<u8>(),
        any::<u16>(),
    );
    vec(one, 1..7).prop_map(move |all| {
        let names: Vec<_> = all
            .iter()
            .enumerate()
            .map(|(index, (.., salt))| format!("{salt:05}-{index}"))
            .collect();
        let actions = all
            .iter()
            .enumerate()
            .map(|(index, (waits, target, seconds, after, _))| {
                let target = if disjoint { index as u64 } else { *target };
                let after = (0..index).filter(|before| after >> before & 1 == 1);
                let after: Vec<_> = after.map(|before| names[before].as_str()).collect();
                let kind = match waits {
                    true => wait(*seconds),
                    false => interrupt(&target.to_string(), *seconds),
                };
                (names[index].clone(), action(kind, &after))
            });
        actions.collect()
    })
}

/// Target 5 is nobody.
fn one_each() -> BTreeMap<String, Vec<u64>> {
    let one = |id: u64| (id.to_string(), if id == 5 { vec![] } else { vec![id] });
    (0..7).map(one).collect()
}

/// Who is in which state by what was told, and whether all of it can be.
struct Told {
    states: BTreeMap<Option<String>, State>,
    after: BTreeMap<String, Vec<String>>,
}

impl Told {
    fn new(actions: &[(String, Action)]) -> Self {
        let names = actions.iter().map(|(name, _)| Some(name.clone()));
        let after = actions
            .iter()
            .map(|(name, action)| (name.clone(), action.after.clone()));
        Self {
            states: names
                .chain([None])
                .map(|name| (name, State::Pending))
                .collect(),
            after: after.collect(),
        }
    }

    fn note(&mut self, change: &Change) -> Result<(), TestCaseError> {
        for Transition {
            action, from, to, ..
        } in &change.transitions
        {
            prop_assert!(to.can_follow(*from), "{:?}: {} -> {}", action, from, to);
            prop_assert!(!self.states[&None].is_final(), "after the end");
            if let (Some(name), State::Initiating) = (action, to) {
                prop_assert_eq!(self.states[&None], State::Running);
                for before in &self.after[name] {
                    let state = self.states[&Some(before.clone())];
                    prop_assert!(matches!(state, State::Completed | State::Skipped));
                }
            }
            let before = self.states.insert(action.clone(), *to);
            prop_assert_eq!(before, Some(*from), "{:?}", action);
        }
        Ok(())
    }
}

proptest! {
    /// Whatever happens to it: states come in their order, nothing starts before its time, and
    /// what is final stays so.
    #[test]
    fn states_come_in_their_order(actions in actions(false), deeds in deeds()) {
        let mut it = Progress::new(&template(actions.clone()));
        let mut told = Told::new(&actions);
        let (mut now, mut present) = (second(0), everybody());
        told.note(&it.initiate(now))?;
        told.note(&it.start(&one_each(), now))?;
        for deed in deeds {
            let change = match deed {
                Deed::Advance(seconds) => {
                    now += SignedDuration::from_secs(seconds);
                    it.advance(&present, now)
                }
                Deed::Stop => it.stop("why", now),
                Deed::Stopped => it.stopped(now),
                Deed::Fail => it.fail("why".to_owned(), now),
                Deed::Leave(id) => {
                    present.present.remove(&id);
                    continue;
                }
            };
            told.note(&change)?;
            prop_assert_eq!(told.states[&None], it.state());
            for (name, state) in it.actions() {
                prop_assert_eq!(told.states[&Some(name.to_owned())], state);
                prop_assert!(!it.state().is_final() || state.is_final());
            }
        }
    }

    /// Left to itself, each action runs once and in its turn, and what `next` says is when
    /// something happens.
    #[test]
    fn left_to_itself_it_completes(actions in actions(true)) {
        let mut it = Progress::new(&template(actions.clone()));
        let mut told = Told::new(&actions);
        let mut now = second(0);
        told.note(&it.initiate(now))?;
        told.note(&it.start(&one_each(), now))?;
        let mut ends = BTreeMap::new();
        let mut interrupted = HashSet::new();
        loop {
            let change = it.advance(&everybody(), now);
            told.note(&change)?;
            for Transition { action, to, time, .. } in &change.transitions {
                prop_assert_eq!(*time, now);
                if let (Some(name), State::Completed) = (action, to) {
                    ends.insert(name.clone(), *time);
                }
            }
            for Announcement { action, plan, at, targets } in &change.announcements {
                prop_assert_eq!(*at, now);
                prop_assert_ne!(plan, &Plan::default());
                prop_assert!(interrupted.insert(action.clone()), "{} twice", action);
                prop_assert_eq!(targets.len(), 1);
            }
            let Some(next) = it.next(now) else { break };
            prop_assert!(next.at > now);
            // A moment before, nothing happens.
            let before = next.at - SignedDuration::from_nanos(1);
            prop_assert_eq!(it.clone().advance(&everybody(), before), Change::default());
            now = next.at;
        }
        prop_assert_eq!(it.state(), State::Completed);
        let mut last = second(0);
        for (name, Action { kind, after }) in &actions {
            let started = after.iter().filter_map(|before| ends.get(before)).max();
            let started = started.copied().unwrap_or(second(0));
            let seconds = match kind {
                Kind::Wait(duration) => duration.as_secs(),
                Kind::Interrupt { target, .. } if target == "5" => {
                    prop_assert_eq!(told.states[&Some(name.clone())], State::Skipped);
                    continue;
                }
                Kind::Interrupt { before, .. } => {
                    prop_assert!(interrupted.contains(name));
                    last = last.max(started + *before);
                    (before.as_secs() - 120).max(0)
                }
            };
            // One whose way leads through a skipped one may have started with that.
            prop_assert_eq!(ends[name], started + SignedDuration::from_secs(seconds));
            last = last.max(ends[name]);
        }
        prop_assert_eq!(now, last);
    }
}
