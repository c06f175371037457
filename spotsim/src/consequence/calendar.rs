//! What is due for whom: pure, and told the time.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use crate::timeline::{Occasion, Timeline, Waves};

/// Every target's occasions, as far as they have not been dealt with. Without targets there is
/// one clock, for whoever comes.
#[derive(Default)]
pub struct Calendar {
    clocks: BTreeMap<Option<u64>, Clock>,
    /// Whether it was ever told who there is.
    began: bool,
}

struct Clock {
    timeline: Arc<Timeline>,
    occasions: Vec<(Timestamp, Occasion)>,
    /// How many have been dealt with.
    done: usize,
    /// When the target came, unless it was there when this began to be announced.
    came: Option<Timestamp>,
}

/// An occasion that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// For whom.
    pub target: Option<u64>,
    pub at: Timestamp,
    pub occasion: Occasion,
    /// Until when it is of use to be told of it.
    pub until: Timestamp,
    /// Whether the target came after it.
    pub missed: bool,
}

impl Calendar {
    /// These are the targets now, and this is shown to them. Returns those of them that are not
    /// shown what they were any more.
    pub fn replace(
        &mut self,
        waves: &Waves,
        targets: impl IntoIterator<Item = Option<u64>>,
        now: Timestamp,
    ) -> Vec<u64> {
        let Self { clocks, began } = self;
        // All may have gone since.
        let first = !std::mem::replace(began, true);
        let mut before = std::mem::take(clocks);
        let mut others = Vec::new();
        for target in targets {
            let timeline = waves.of(target);
            let old = before.remove(&target);
            let clock = match old {
                Some(clock) if clock.timeline == *timeline => clock,
                old => {
                    others.extend(target.filter(|_| old.is_some()));
                    let there = first || old.is_some() || timeline.armed_at() >= now;
                    Clock::new(timeline, (!there).then_some(now))
                }
            };
            clocks.insert(target, clock);
        }
        others
    }

    /// When the next occasion comes.
    pub fn next(&self) -> Option<Timestamp> {
        let Self { clocks, .. } = self;
        let next = |clock: &Clock| Some(clock.occasions.get(clock.done)?.0);
        clocks.values().filter_map(next).min()
    }

    /// Those that have come since the last time, in the order of their times.
    pub fn due(&mut self, now: Timestamp) -> Vec<Due> {
        let Self { clocks, .. } = self;
        let mut due = Vec::new();
        for (target, clock) in clocks {
            due.extend(clock.due(now).map(|due| Due {
                target: *target,
                ..due
            }));
        }
        due.sort_by_key(|due| due.at);
        due
    }
}

impl Clock {
    fn new(timeline: &Arc<Timeline>, came: Option<Timestamp>) -> Self {
        Self {
            timeline: Arc::clone(timeline),
            occasions: timeline.occasions(),
            done: 0,
            came,
        }
    }

    fn due(&mut self, now: Timestamp) -> impl Iterator<Item = Due> {
        let Self {
            timeline,
            occasions,
            done,
            came,
        } = self;
        let passed = occasions.partition_point(|(at, _)| *at <= now);
        let new = &occasions[std::mem::replace(done, passed)..passed];
        let deadline = timeline.notice().map(|notice| notice.deadline);
        new.iter().map(move |(at, occasion)| Due {
            target: None,
            // What was to be seen from the arming on is told of then.
            at: (*at).max(timeline.armed_at()),
            occasion: occasion.clone(),
            until: deadline.filter(|deadline| deadline > at).unwrap_or(*at),
            missed: came.is_some_and(|came| *at <= came),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::timeline::{Action, Plan};

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn waves(plan: serde_json::Value, targets: &[u64]) -> Waves {
        let plan: Plan = serde_json::from_value(plan).unwrap();
        Waves::arm(&plan, second(0), targets.iter().copied()).unwrap()
    }

    fn told(calendar: &mut Calendar, now: i64) -> Vec<(Option<u64>, i64, Occasion, bool)> {
        let due = calendar.due(second(now)).into_iter();
        due.map(|due| {
            let at = due.at.as_second() - second(0).as_second();
            (due.target, at, due.occasion, due.missed)
        })
        .collect()
    }

    const NOTICE: Occasion = Occasion::Notice(Action::Terminate);
    const DEADLINE: Occasion = Occasion::Deadline(Action::Terminate);

    #[test]
    fn each_occasion_comes_once() {
        let plan = json!({"notice": {"appears": "10s"}, "rebalance": {}});
        let mut calendar = Calendar::default();
        calendar.replace(&waves(plan, &[]), [None], second(0));
        assert_eq!(calendar.next(), Some(second(0)));
        assert_eq!(
            told(&mut calendar, 5),
            [(None, 0, Occasion::Rebalance, false)]
        );
        assert_eq!(calendar.next(), Some(second(10)));
        assert_eq!(told(&mut calendar, 9), []);
        assert_eq!(
            told(&mut calendar, 300),
            [(None, 10, NOTICE, false), (None, 130, DEADLINE, false)]
        );
        assert_eq!(calendar.next(), None);
        assert_eq!(told(&mut calendar, 400), []);
    }

    #[test]
    fn it_is_of_use_until_the_deadline() {
        let plan = json!({"notice": {"appears": "10s"}, "rebalance": {}});
        let mut calendar = Calendar::default();
        calendar.replace(&waves(plan, &[]), [None], second(0));
        let until = calendar.due(second(300)).into_iter().map(|due| due.until);
        assert!(until.eq([second(130); 3]));
    }

    #[test]
    fn who_comes_later_has_missed_what_was() {
        let shown = waves(json!({"notice": {}}), &[1]);
        let mut calendar = Calendar::default();
        calendar.replace(&shown, [Some(1)], second(1));
        assert_eq!(told(&mut calendar, 1), [(Some(1), 0, NOTICE, false)]);
        let others = calendar.replace(&shown, [Some(1), Some(2)], second(100));
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(told(&mut calendar, 100), [(Some(2), 0, NOTICE, true)]);
        calendar.replace(&shown, [], second(101));
        calendar.replace(&shown, [Some(1), Some(2), Some(3)], second(121));
        assert_eq!(
            told(&mut calendar, 121),
            [
                (Some(1), 0, NOTICE, true),
                (Some(2), 0, NOTICE, true),
                (Some(3), 0, NOTICE, true),
                (Some(1), 120, DEADLINE, true),
                (Some(2), 120, DEADLINE, true),
                (Some(3), 120, DEADLINE, true),
            ]
        );
        let others = calendar.replace(&shown, [Some(3)], second(122));
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(told(&mut calendar, 122), []);
    }

    #[test]
    fn what_is_triggered_is_for_those_who_are_there() {
        let mut calendar = Calendar::default();
        let nothing = waves(json!({}), &[1, 2]);
        calendar.replace(&nothing, [Some(1), Some(2)], second(0));
        let plan: Plan = serde_json::from_value(json!({"notice": {"lead": "5s"}})).unwrap();
        let shown = nothing.replaced_for(&[2], &plan, second(50)).unwrap();
        let others = calendar.replace(&shown, [Some(1), Some(2)], second(51));
        assert_eq!(others, [2]);
        assert_eq!(
            told(&mut calendar, 56),
            [(Some(2), 50, NOTICE, false), (Some(2), 55, DEADLINE, false)]
        );
        // Withdrawn, and what was due then is not.
        let shown = shown.replaced_for(&[2], &plan, second(60)).unwrap();
        calendar.replace(&shown, [Some(1), Some(2)], second(60));
        assert_eq!(told(&mut calendar, 60).len(), 1);
        calendar.replace(&nothing, [Some(1), Some(2)], second(61));
        assert_eq!(told(&mut calendar, 99), []);
    }
}
