//! What is announced when: pure, and frozen when it is armed.
//!
//! A [`Plan`] is relative ("two minutes' notice, in ten seconds"); [`Plan::arm`] makes it a
//! [`Timeline`] of absolute times. From then on every answer is a function of the timeline and
//! the time of the request, so that no two answers can disagree and no time ever moves: clients
//! take a changed time for a new event.

use std::fmt;

use jiff::Timestamp;

mod arming;
mod occasion;
mod plan;
mod scheduled;
mod waves;
mod when;
pub(crate) mod written;

pub use arming::Invalid;
pub use occasion::Occasion;
pub use plan::{
    Action, AfterDeadline, LifeCycle, LifecycleStatePlan, NoticePlan, Plan, RebalancePlan,
    ScheduledPlan,
};
pub use scheduled::{Code, ScheduledEvent, State};
pub use waves::Waves;
pub use when::{Span, When};

use written::words;

words! {
    /// Where an Auto Scaling group takes the instance ([AWS: target lifecycle state][1]).
    ///
    /// [1]: https://docs.aws.amazon.com/autoscaling/ec2/userguide/retrieving-target-lifecycle-state-through-imds.html
    "target lifecycle state": pub enum LifecycleState {
        Detached = "Detached",
        InService = "InService",
        Standby = "Standby",
        Terminated = "Terminated",
        WarmedHibernated = "Warmed:Hibernated",
        WarmedRunning = "Warmed:Running",
        WarmedStopped = "Warmed:Stopped",
        WarmedTerminated = "Warmed:Terminated",
    }
}

/// The interruption notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    pub action: Action,
    /// From when IMDS shows it.
    pub appears: Timestamp,
    /// The time that it names, in whole seconds.
    pub deadline: Timestamp,
}

/// What is announced when, in absolute times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    armed_at: Timestamp,
    notice: Option<Notice>,
    /// When a rebalance recommendation appears.
    rebalance: Option<Timestamp>,
    /// When the two above are taken back.
    withdrawn: Option<Timestamp>,
    life_cycle: Option<LifeCycle>,
    scheduled: Vec<ScheduledEvent>,
    /// In the order of their times.
    lifecycle_states: Vec<(Timestamp, LifecycleState)>,
}

/// One item that IMDS shows at some instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its place under `/{version}/meta-data/`.
    pub path: &'static str,
    /// Its exact value.
    pub value: String,
    /// Since when it is like this.
    pub since: Timestamp,
    /// What becomes of what the upstream has in its place.
    pub theirs: Theirs,
}

/// What becomes of what the upstream has in an item's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theirs {
    /// It gives way.
    Replaced,
    /// It is shown instead: a real interruption is never hidden behind a fake one.
    Preferred,
    /// Its entries stay, in one JSON list with the item's.
    Joined,
}

/// One item's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub at: Timestamp,
    /// Its place under `/{version}/meta-data/`.
    pub path: &'static str,
    /// What it becomes; `None` if it is taken back.
    pub value: Option<String>,
}

impl Timeline {
    /// Announces nothing.
    pub fn nothing(armed_at: Timestamp) -> Self {
        Self {
            armed_at,
            notice: None,
            rebalance: None,
            withdrawn: None,
            life_cycle: None,
            scheduled: Vec::new(),
            lifecycle_states: Vec::new(),
        }
    }

    /// When it was armed.
    pub fn armed_at(&self) -> Timestamp {
        self.armed_at
    }

    /// The notice, whether it is visible yet or not.
    pub fn notice(&self) -> Option<&Notice> {
        self.notice.as_ref()
    }

    /// When the first of all that is announced appears.
    pub fn begins(&self) -> Option<Timestamp> {
        let Self {
            armed_at: _,
            notice,
            rebalance,
            withdrawn: _,
            life_cycle: _,
            scheduled,
            lifecycle_states,
        } = self;
        let notice = notice.map(|notice| notice.appears);
        let scheduled = scheduled.iter().map(|event| event.appears);
        let states = lifecycle_states.iter().map(|(from, _)| *from);
        let all = notice.into_iter().chain(*rebalance).chain(scheduled);
        all.chain(states).min()
    }

    /// Whether it has nothing to announce, now or later.
    pub fn is_empty(&self) -> bool {
        *self == Self::nothing(self.armed_at)
    }

    /// Everything that is visible at `now`, in the order of their paths.
    pub fn visible(&self, now: Timestamp) -> Vec<Item> {
        let mut items = Vec::new();
        items.extend(self.lifecycle_state(now));
        items.extend(self.maintenance(now).into_iter().flatten());
        items.extend(self.recommendation(now));
        items.extend(self.life_cycle(now));
        items.extend(self.interruption(now).into_iter().flatten().flatten());
        items
    }

    fn lifecycle_state(&self, now: Timestamp) -> Option<Item> {
        let mut states = self.lifecycle_states.iter();
        let (since, state) = states.rfind(|(from, _)| *from <= now)?;
        Some(Item {
            path: "autoscaling/target-lifecycle-state",
            value: state.to_string(),
            since: *since,
            theirs: Theirs::Replaced,
        })
    }

    /// Both lists are there from the first event on, though one may be empty.
    fn maintenance(&self, now: Timestamp) -> Option<[Item; 2]> {
        let Self { scheduled, .. } = self;
        let changes = scheduled.iter().flat_map(event_changes);
        let since = changes.filter(|change| *change <= now).max()?;
        let list = |path, shown: fn(&ScheduledEvent, Timestamp) -> bool| Item {
            path,
            value: scheduled::list(scheduled.iter().filter(|event| shown(event, now)), now),
            since,
            theirs: Theirs::Joined,
        };
        Some([
            list("events/maintenance/history", ScheduledEvent::is_history),
            list("events/maintenance/scheduled", ScheduledEvent::is_scheduled),
        ])
    }

    fn recommendation(&self, now: Timestamp) -> Option<Item> {
        let since = self.rebalance.filter(|since| self.stands(*since, now))?;
        Some(Item {
            path: "events/recommendations/rebalance",
            value: format!(r#"{{"noticeTime": "{}"}}"#, seconds(since)),
            since,
            theirs: Theirs::Replaced,
        })
    }

    fn life_cycle(&self, now: Timestamp) -> Option<Item> {
        let Self {
            armed_at,
            life_cycle,
            ..
        } = self;
        let life_cycle = life_cycle.filter(|_| *armed_at <= now)?;
        Some(Item {
            path: "instance-life-cycle",
            value: life_cycle.to_string(),
            since: *armed_at,
            theirs: Theirs::Replaced,
        })
    }

    fn interruption(&self, now: Timestamp) -> Option<[Option<Item>; 2]> {
        let Notice {
            action,
            appears: since,
            deadline,
        } = self.notice?;
        let item = |path, value| Item {
            path,
            value,
            since,
            theirs: Theirs::Preferred,
        };
        let notice = format!(r#"{{"action": "{action}", "time": "{deadline}"}}"#);
        // The older item has no word for the other actions.
        let is_termination = action == Action::Terminate;
        self.stands(since, now).then(|| {
            [
                Some(item("spot/instance-action", notice)),
                is_termination.then(|| item("spot/termination-time", deadline.to_string())),
            ]
        })
    }

    /// Whether what appeared at `since` is there, and not taken back.
    fn stands(&self, since: Timestamp, now: Timestamp) -> bool {
        since <= now && self.withdrawn.is_none_or(|end| now < end)
    }

    /// Every change, in the order of their times.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut shown = Vec::new();
        for at in self.instants() {
            let visible = self.visible(at);
            steps.extend(diff(&shown, &visible, at));
            shown = visible;
        }
        steps
    }

    /// The next instant after `now` at which something changes.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.instants().into_iter().find(|at| *at > now)
    }

    /// Every instant at which something may change, in order.
    fn instants(&self) -> Vec<Timestamp> {
        let Self {
            armed_at,
            notice,
            rebalance,
            withdrawn,
            life_cycle: _,
            scheduled,
            lifecycle_states,
        } = self;
        let mut instants = vec![*armed_at];
        instants.extend(notice.map(|notice| notice.appears));
        instants.extend(rebalance);
        instants.extend(withdrawn);
        instants.extend(scheduled.iter().flat_map(event_changes));
        instants.extend(lifecycle_states.iter().map(|(from, _)| *from));
        instants.sort_unstable();
        instants.dedup();
        instants
    }
}

/// What changes at `at` for one to whom the items `before` were visible, and then those `after`.
pub fn diff(before: &[Item], after: &[Item], at: Timestamp) -> Vec<Step> {
    let step = |path, value| Step { at, path, value };
    let in_place = |items: &[Item], path| items.iter().position(|item| item.path == path);
    let new = after.iter().filter(|item| {
        let old = in_place(before, item.path).map(|index| &before[index].value);
        old != Some(&item.value)
    });
    let new = new.map(|item| step(item.path, Some(item.value.clone())));
    let gone = before
        .iter()
        .filter(|item| in_place(after, item.path).is_none());
    new.chain(gone.map(|item| step(item.path, None))).collect()
}

/// When an event appears, ends, and leaves the scheduled ones.
fn event_changes(event: &ScheduledEvent) -> impl Iterator<Item = Timestamp> {
    let end = event.end.map(|(end, _)| end);
    [Some(event.appears), end, event.leaves]
        .into_iter()
        .flatten()
}

/// In whole seconds, not after `time`: when something was said cannot lie in the future.
fn seconds(time: Timestamp) -> impl fmt::Display {
    time.strftime("%Y-%m-%dT%H:%M:%SZ")
}

/// All of it in a line.
impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing announced");
        }
        let Self {
            armed_at: _,
            notice,
            rebalance,
            withdrawn,
            life_cycle,
            scheduled,
            lifecycle_states,
        } = self;
        let mut parts = Vec::new();
        if let Some(life_cycle) = life_cycle {
            // Everybody expects it of an instance with a notice.
            if *life_cycle != LifeCycle::Spot || (notice.is_none() && rebalance.is_none()) {
                parts.push(format!("life cycle {life_cycle}"));
            }
        }
        for event in scheduled {
            parts.push(format!("{} at {}", event.code, event.not_before));
        }
        for (from, state) in lifecycle_states {
            parts.push(format!("{state} at {}", seconds(*from)));
        }
        if let Some(since) = rebalance {
            parts.push(format!("rebalance recommendation at {}", seconds(*since)));
        }
        if let Some(notice) = notice {
            let Notice {
                action,
                appears,
                deadline,
            } = notice;
            let appears = seconds(*appears);
            let then = if withdrawn.is_some() {
                ", then withdrawn"
            } else {
                ""
            };
            parts.push(format!(
                "notice ({action}) at {appears}, deadline {deadline}{then}"
            ));
        }
        f.write_str(&parts.join("; "))
    }
}

#[cfg(test)]
mod tests;
