//! Who is shown what: one timeline to everybody, or to each target its own.

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{Invalid, Plan, Timeline};

/// What is shown to each target. Targets are known by their cgroups' ids.
#[derive(Clone, Debug)]
pub struct Waves {
    /// What whoever is no target is shown, and every target without a clock of its own.
    first: Arc<Timeline>,
    /// With a stagger, what the next target is shown.
    next: Option<Turn>,
    /// In the order in which they came.
    targets: Vec<u64>,
    own: HashMap<u64, Arc<Timeline>>,
}

/// Whose turn it is in a plan with a stagger.
#[derive(Clone, Debug)]
struct Turn {
    plan: Arc<Plan>,
    stagger: SignedDuration,
    armed_at: Timestamp,
    /// When the first turn's first event appears.
    begins: Timestamp,
    /// How much later than the first the next turn is.
    later: SignedDuration,
}

/// The same to everybody.
impl From<Timeline> for Waves {
    fn from(timeline: Timeline) -> Self {
        Self {
            first: Arc::new(timeline),
            next: None,
            targets: Vec::new(),
            own: HashMap::new(),
        }
    }
}

impl Waves {
    /// Arms a plan for these targets, whose turns come in their order.
    ///
    /// # Errors
    ///
    /// The first thing in the plan that makes no sense, at the last of the turns too.
    pub fn arm(
        plan: &Plan,
        armed_at: Timestamp,
        targets: impl IntoIterator<Item = u64>,
    ) -> Result<Self, Invalid> {
        let first = plan.arm(armed_at)?;
        let next = plan.stagger.map(|stagger| Turn {
            plan: Arc::new(plan.clone()),
            stagger: stagger.duration(),
            armed_at,
            begins: first.begins().unwrap_or(armed_at),
            later: SignedDuration::ZERO,
        });
        let mut waves = Self {
            next,
            ..Self::from(first)
        };
        for target in targets {
            waves.targets.push(target);
            if let Some(turn) = &mut waves.next {
                waves.own.insert(target, turn.take(turn.later)?);
            }
        }
        Ok(waves)
    }

    /// Another plan, for the same targets.
    ///
    /// # Errors
    ///
    /// As [`Waves::arm`].
    pub fn replaced(&self, plan: &Plan, now: Timestamp) -> Result<Self, Invalid> {
        Self::arm(plan, now, self.targets.iter().copied())
    }

    /// Another plan for some of the targets, but for those that left meanwhile. Those that are to
    /// come are shown what they would have been.
    ///
    /// # Errors
    ///
    /// As [`Waves::arm`].
    pub fn replaced_for(&self, some: &[u64], plan: &Plan, now: Timestamp) -> Result<Self, Invalid> {
        let there = some.iter().copied();
        let there = there.filter(|target| self.targets.contains(target));
        let theirs = Self::arm(plan, now, there)?;
        let mut waves = self.clone();
        for target in &theirs.targets {
            let timeline = Arc::clone(theirs.of(Some(*target)));
            waves.own.insert(*target, timeline);
        }
        Ok(waves)
    }

    /// A target that came later has the next turn that is not over.
    pub fn join(&mut self, target: u64, now: Timestamp) {
        if self.targets.contains(&target) {
            return;
        }
        self.targets.push(target);
        // A turn past the year 9999 will not come: that target is shown what the first is.
        if let Some(turn) = &mut self.next
            && let Ok(timeline) = turn.take(turn.later.max(turn.missed(now)))
        {
            self.own.insert(target, timeline);
        }
    }

    /// A target is gone.
    pub fn leave(&mut self, target: u64) {
        let Self { targets, own, .. } = self;
        targets.retain(|other| *other != target);
        own.remove(&target);
    }

    /// What whoever is no target is shown, and every target without a clock of its own.
    pub fn first(&self) -> &Arc<Timeline> {
        &self.first
    }

    /// What a target is shown.
    pub fn of(&self, target: Option<u64>) -> &Arc<Timeline> {
        let Self { first, own, .. } = self;
        target.and_then(|target| own.get(&target)).unwrap_or(first)
    }

    /// Whether targets have clocks of their own.
    pub fn differ(&self) -> bool {
        let Self { first, own, .. } = self;
        own.values().any(|timeline| timeline != first)
    }

    /// The clocks: one for everybody, or one for each target.
    pub fn clocks(&self) -> Vec<(Option<u64>, Arc<Timeline>)> {
        let Self { first, targets, .. } = self;
        if !self.differ() {
            return vec![(None, Arc::clone(first))];
        }
        let clock = |target: &u64| (Some(*target), Arc::clone(self.of(Some(*target))));
        targets.iter().map(clock).collect()
    }
}

impl Turn {
    /// Arms the turn that is so much later than the first. The next one follows it.
    fn take(&mut self, later: SignedDuration) -> Result<Arc<Timeline>, Invalid> {
        let timeline = self.plan.arm_later(self.armed_at, later)?;
        self.later = later.saturating_add(self.stagger);
        Ok(Arc::new(timeline))
    }

    /// How much later than the first the first turn is that begins at `now` or later.
    fn missed(&self, now: Timestamp) -> SignedDuration {
        let Self {
            stagger,
            armed_at,
            begins,
            ..
        } = self;
        // What began before it was armed was meant to.
        let late = now.duration_since((*begins).max(*armed_at));
        let late = late.max(SignedDuration::ZERO);
        let nanoseconds = stagger.as_nanos();
        let turns = (late.as_nanos() + nanoseconds - 1).checked_div(nanoseconds);
        turns
            .and_then(|turns| stagger.checked_mul(turns.try_into().ok()?))
            .unwrap_or(late)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::json;

    use super::*;

    fn start() -> Timestamp {
        "2026-12-01T10:00:00.5Z".parse().unwrap()
    }

    fn plan(plan: serde_json::Value) -> Plan {
        serde_json::from_value(plan).unwrap()
    }

    /// When the notice appears to a target, and its deadline.
    fn notice(waves: &Waves, target: u64) -> (String, String) {
        let notice = waves.of(Some(target)).notice().unwrap();
        (notice.appears.to_string(), notice.deadline.to_string())
    }

    #[test]
    fn without_a_stagger_all_have_one_clock() {
        let mut waves = Waves::arm(&plan(json!({"notice": {}})), start(), [3, 1]).unwrap();
        waves.join(7, start());
        assert!(!waves.differ());
        assert_eq!(waves.clocks(), [(None, Arc::clone(waves.first()))]);
        for target in [None, Some(1), Some(7), Some(99)] {
            assert!(Arc::ptr_eq(waves.of(target), waves.first()));
        }
    }

    #[test]
    fn each_has_its_turn_in_the_order_in_which_they_came() {
        let staggered = plan(json!({"notice": {"appears": "10s"}, "stagger": "700ms"}));
        let mut waves = Waves::arm(&staggered, start(), [30, 10]).unwrap();
        waves.join(20, start());
        waves.join(30, start());
        let text = |appears: &str, deadline: &str| (appears.to_owned(), deadline.to_owned());
        assert_eq!(
            notice(&waves, 30),
            text("2026-12-01T10:00:10.5Z", "2026-12-01T10:02:11Z")
        );
        assert_eq!(
            notice(&waves, 10),
            text("2026-12-01T10:00:11.2Z", "2026-12-01T10:02:12Z"),
            "a deadline is a whole second in each turn"
        );
        assert_eq!(
            notice(&waves, 20),
            text("2026-12-01T10:00:11.9Z", "2026-12-01T10:02:12Z")
        );
        assert!(waves.differ());
        assert_eq!(waves.clocks().len(), 3);
        // One that is made anew has the next turn, not its old one.
        waves.leave(10);
        assert_eq!(
            notice(&waves, 10),
            notice(&waves, 30),
            "none is as the first"
        );
        waves.join(10, start());
        assert_eq!(
            notice(&waves, 10),
            text("2026-12-01T10:00:12.6Z", "2026-12-01T10:02:13Z")
        );
    }

    #[test]
    fn who_comes_late_has_a_turn_that_is_not_over() {
        let staggered = plan(json!({"notice": {"appears": "10s"}, "stagger": "30s"}));
        let mut waves = Waves::arm(&staggered, start(), [1]).unwrap();
        let appears = |waves: &Waves, target| notice(waves, target).0;
        // The second turn, as long as it has not begun; then the first that has not.
        let seconds = |seconds| start() + SignedDuration::from_secs(seconds);
        waves.join(2, seconds(40));
        assert_eq!(appears(&waves, 2), "2026-12-01T10:00:40.5Z");
        waves.join(3, seconds(101));
        assert_eq!(appears(&waves, 3), "2026-12-01T10:02:10.5Z");
        waves.join(4, seconds(101));
        assert_eq!(appears(&waves, 4), "2026-12-01T10:02:40.5Z");

        // Without a distance, each one's clock begins when it comes.
        let each = plan(json!({"notice": {}, "stagger": "0s"}));
        let mut waves = Waves::arm(&each, start(), [1, 2]).unwrap();
        assert!(!waves.differ());
        waves.join(3, seconds(600));
        assert_eq!(appears(&waves, 3), "2026-12-01T10:10:00.5Z");
        assert_eq!(appears(&waves, 2), "2026-12-01T10:00:00.5Z");
        // What is to come anyway is not put off.
        let later = plan(json!({"notice": {"appears": "1h"}, "stagger": "0s"}));
        let mut waves = Waves::arm(&later, start(), []).unwrap();
        waves.join(1, seconds(600));
        assert_eq!(appears(&waves, 1), "2026-12-01T11:00:00.5Z");
    }

    #[test]
    fn times_of_day_are_staggered_too_and_the_life_cycle_is_not() {
        let staggered = plan(json!({
            "notice": {"appears": "2026-12-01T11:00:00Z", "deadline": "2026-12-01T11:05:00Z"},
            "stagger": "1m",
        }));
        let waves = Waves::arm(&staggered, start(), [1, 2]).unwrap();
        let second = notice(&waves, 2);
        assert_eq!(second.0, "2026-12-01T11:01:00Z");
        assert_eq!(second.1, "2026-12-01T11:06:00Z");
        let visible = waves.of(Some(2)).visible(start());
        assert_eq!(visible.len(), 1);
        assert_eq!(visible[0].path, "instance-life-cycle");
    }

    #[test]
    fn some_can_be_shown_another_plan() {
        let waves = Waves::arm(&Plan::default(), start(), [1, 2, 3]).unwrap();
        let waves = waves
            .replaced_for(&[2], &plan(json!({"notice": {}})), start())
            .unwrap();
        let gone = waves.replaced_for(&[9], &plan(json!({"notice": {}})), start());
        assert_eq!(gone.unwrap().own.len(), 1);
        assert!(waves.of(Some(1)).is_empty());
        assert!(waves.of(Some(2)).notice().is_some());
        assert!(waves.first().is_empty(), "for those to come");
        let clocks = waves.clocks().into_iter();
        assert!(
            clocks
                .map(|(target, _)| target)
                .eq([Some(1), Some(2), Some(3)])
        );
    }

    #[test]
    fn a_last_turn_past_all_years_is_refused() {
        let long = plan(json!({"notice": {}, "stagger": "876000h"}));
        let error = Waves::arm(&long, start(), 0..200).unwrap_err().to_string();
        assert!(error.contains("lies past the year 9999"), "{error}");
        let mut waves = Waves::arm(&long, start(), 0..2).unwrap();
        for target in 2..200 {
            waves.join(target, start());
        }
        assert_eq!(notice(&waves, 199), notice(&waves, 0));
    }

    #[test]
    fn a_plan_for_some_has_their_turns_and_the_rest_keeps_its_own() {
        let staggered = |stagger: &str| plan(json!({"notice": {}, "stagger": stagger}));
        let before = Waves::arm(&staggered("1m"), start(), [1, 2, 3, 4]).unwrap();
        let mut waves = before
            .replaced_for(&[4, 2], &staggered("10s"), start())
            .unwrap();
        assert_eq!(notice(&waves, 4), notice(&before, 1), "its first turn");
        assert_eq!(notice(&waves, 2).0, "2026-12-01T10:00:10.5Z");
        for other in [1, 3] {
            assert_eq!(notice(&waves, other), notice(&before, other));
        }
        // Who comes now has the turn that it would have had.
        waves.join(5, start());
        assert_eq!(notice(&waves, 5).0, "2026-12-01T10:04:00.5Z");
        let bad = plan(json!({"notice": {"appears": "2m", "deadline": "1m"}}));
        assert!(before.replaced_for(&[1], &bad, start()).is_err());
    }

    proptest! {
        /// Whoever comes and goes: no two have the same turn, and nobody's changes.
        #[test]
        fn turns_are_taken_once_and_kept(
            first in vec(0..8_u64, 0..4),
            moves in vec((any::<bool>(), 0..8_u64), 0..40),
        ) {
            let staggered = plan(json!({"notice": {"appears": "5s"}, "stagger": "1500ms"}));
            let mut expected: Vec<(u64, u32)> = Vec::new();
            let mut turns = 0..;
            for target in first {
                if expected.iter().all(|(other, _)| *other != target) {
                    expected.extend(turns.next().map(|turn| (target, turn)));
                }
            }
            let there = expected.iter().map(|(target, _)| *target);
            let mut waves = Waves::arm(&staggered, start(), there).unwrap();
            for (comes, target) in moves {
                let index = expected.iter().position(|(other, _)| *other == target);
                match (comes, index) {
                    (true, None) => expected.extend(turns.next().map(|turn| (target, turn))),
                    (false, Some(index)) => _ = expected.remove(index),
                    _ => {}
                }
                if comes { waves.join(target, start()) } else { waves.leave(target) }
            }
            for (target, turn) in &expected {
                let later = SignedDuration::from_millis(1_500) * i32::try_from(*turn).unwrap();
                let timeline = staggered.arm_later(start(), later).unwrap();
                prop_assert_eq!(&**waves.of(Some(*target)), &timeline);
            }
            prop_assert_eq!(waves.differ(), expected.iter().any(|(_, turn)| *turn > 0));
            if waves.differ() {
                let clocks: Vec<_> = waves.clocks().into_iter().map(|(target, _)| target).collect();
                let targets: Vec<_> = expected.iter().map(|(target, _)| Some(*target)).collect();
                prop_assert_eq!(clocks, targets);
            }
            // All again, in the order in which they came.
            let again = waves.replaced(&staggered, start()).unwrap();
            for ((target, _), turn) in expected.iter().zip(0..) {
                let timeline = staggered
                    .arm_later(start(), SignedDuration::from_millis(1_500) * turn)
                    .unwrap();
                prop_assert_eq!(&**again.of(Some(*target)), &timeline);
            }
        }
    }
}
