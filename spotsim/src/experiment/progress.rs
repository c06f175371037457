//! What happens when: pure. Told the time, an experiment says what changes.
//!
//! An action is over when its notice is sent, as in FIS, and those that come after it start then.
//! The experiment goes on until the last deadline has passed: until then it can be stopped, and
//! what it announced is withdrawn.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    State,
    template::{Action, Kind, Template, interruption},
};
use crate::{document::printable, timeline::Plan};

/// An experiment as it goes on.
#[derive(Clone, Debug)]
pub struct Progress {
    state: State,
    steps: BTreeMap<String, Step>,
    /// The last deadline of each target that was interrupted, by its cgroup's id, and by which
    /// action.
    interrupted: HashMap<u64, (Timestamp, String)>,
}

/// An action as it goes on.
#[derive(Clone, Debug)]
struct Step {
    action: Action,
    /// Whom it interrupts, by their cgroups' ids.
    targets: Vec<u64>,
    state: State,
    /// Once it runs: when it is over.
    over: Option<Timestamp>,
}

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Transition {
    pub time: Timestamp,
    /// The action's name; `None` for the experiment itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    pub from: State,
    pub to: State,
    /// Why, where that does not go without saying.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What has to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub action: String,
    pub plan: Plan,
    /// When it is armed.
    pub at: Timestamp,
    /// Whom it is announced to, by their cgroups' ids.
    pub targets: Vec<u64>,
}

/// What changes, and what has to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub transitions: Vec<Transition>,
    pub announcements: Vec<Announcement>,
}

/// How it is around an experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The targets that are there, by their cgroups' ids.
    pub present: HashSet<u64>,
    /// Whether all that was to be done at the deadlines so far is done.
    pub settled: bool,
}

/// What comes next by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    pub at: Timestamp,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The notice of this action.
    Notice(String),
    /// The end of this wait.
    Waited(String),
    /// The deadline of this action, at which the experiment may be over.
    Deadline(String),
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time: _,
            action,
            from: _,
            to,
            reason,
        } = self;
        match action {
            Some(action) => write!(f, "action {}: {to}", printable(action))?,
            None => write!(f, "experiment: {to}")?,
        }
        match reason {
            Some(reason) => write!(f, ": {}", printable(reason)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Notice(action) => write!(f, "notice of action {}", printable(action)),
            Self::Waited(action) => write!(f, "end of action {}", printable(action)),
            Self::Deadline(action) => write!(f, "deadline of action {}", printable(action)),
        }
    }
}

impl Progress {
    /// Nothing has happened yet.
    pub fn new(template: &Template) -> Self {
        let step = |(name, action): (&String, &Action)| {
            let step = Step {
                action: action.clone(),
                targets: Vec::new(),
                state: State::Pending,
                over: None,
            };
            (name.clone(), step)
        };
        Self {
            state: State::Pending,
            steps: template.actions.iter().map(step).collect(),
            interrupted: HashMap::new(),
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Each action's state, by their names.
    pub fn actions(&self) -> impl Iterator<Item = (&str, State)> {
        self.steps
            .iter()
            .map(|(name, step)| (name.as_str(), step.state))
    }

    /// It is being prepared: targets are looked for.
    pub fn initiate(&mut self, now: Timestamp) -> Change {
        let mut change = Change::default();
        self.become_(State::Initiating, now, None, &mut change);
        change
    }

    /// Starts, with the targets that were found for each of the template's, by their cgroups'
    /// ids. Actions whose target is nobody are skipped.
    pub fn start(&mut self, found: &BTreeMap<String, Vec<u64>>, now: Timestamp) -> Change {
        let mut change = Change::default();
        self.become_(State::Running, now, None, &mut change);
        for (name, step) in &mut self.steps {
            let Kind::Interrupt { target, .. } = &step.action.kind else {
                continue;
            };
            step.targets = found.get(target).cloned().unwrap_or_default();
            if step.targets.is_empty() {
                let reason = Some("nothing was found for its target".to_owned());
                step.become_(State::Skipped, name, now, reason, &mut change);
            }
        }
        change
    }

    /// Leaves every action out.
    pub fn skip(&mut self, now: Timestamp) -> Change {
        let mut change = Change::default();
        self.become_(State::Running, now, None, &mut change);
        for (name, step) in &mut self.steps {
            step.become_(State::Skipped, name, now, None, &mut change);
        }
        self.become_(State::Completed, now, None, &mut change);
        change
    }

    /// What has become of it by now, while it runs.
    pub fn advance(&mut self, around: &Surroundings, now: Timestamp) -> Change {
        let Surroundings { present, settled } = around;
        let mut change = Change::default();
        if self.state != State::Running {
            return change;
        }
        // What ends may let others start, which may be over at once.
        loop {
            let before = change.transitions.len();
            self.end_actions(now, &mut change);
            if let Err(reason) = self.start_actions(present, now, &mut change) {
                self.give_up(reason, now, &mut change);
                return change;
            }
            if change.transitions.len() == before {
                break;
            }
        }
        let over = self.steps.values().all(|step| step.state.is_final());
        if over && *settled && self.last_deadline().is_none_or(|deadline| deadline <= now) {
            self.become_(State::Completed, now, None, &mut change);
        }
        change
    }

    /// It is asked to stop: nothing more begins. What is announced is to be withdrawn, and
    /// [`Progress::stopped`] to be told.
    pub fn stop(&mut self, reason: &str, now: Timestamp) -> Change {
        let mut change = Change::default();
        if self.state.is_final() || self.state == State::Stopping {
            return change;
        }
        self.become_(State::Stopping, now, Some(reason.to_owned()), &mut change);
        for (name, step) in &mut self.steps {
            match step.state {
                State::Pending => step.become_(State::Cancelled, name, now, None, &mut change),
                State::Running => step.become_(State::Stopping, name, now, None, &mut change),
                _ => {}
            }
        }
        change
    }

    /// Everything is withdrawn.
    pub fn stopped(&mut self, now: Timestamp) -> Change {
        let mut change = Change::default();
        if self.state != State::Stopping {
            return change;
        }
        for (name, step) in &mut self.steps {
            if step.state == State::Stopping {
                step.become_(State::Stopped, name, now, None, &mut change);
            }
        }
        self.become_(State::Stopped, now, None, &mut change);
        change
    }

    /// It cannot go on. What is announced is to be withdrawn.
    pub fn fail(&mut self, reason: String, now: Timestamp) -> Change {
        let mut change = Change::default();
        if !self.state.is_final() {
            self.give_up(reason, now, &mut change);
        }
        change
    }

    /// What comes next by itself, if anything does.
    pub fn next(&self, now: Timestamp) -> Option<Next> {
        if self.state != State::Running {
            return None;
        }
        let running = self
            .steps
            .iter()
            .filter(|(_, step)| step.state == State::Running);
        let ends = running.filter_map(|(name, step)| {
            let what = match step.action.kind {
                Kind::Interrupt { .. } => What::Notice(name.clone()),
                Kind::Wait(_) => What::Waited(name.clone()),
            };
            Some(Next {
                at: step.over?,
                what,
            })
        });
        let deadlines = self
            .interrupted
            .values()
            .filter(|(deadline, _)| *deadline > now)
            .map(|(deadline, action)| Next {
                at: *deadline,
                what: What::Deadline(action.clone()),
            });
        // By the names, of those at the same time: targets have no order.
        ends.chain(deadlines)
            .min_by_key(|next| (next.at, next.what.to_string()))
    }

    /// Those that were interrupted so far, by their cgroups' ids.
    pub fn interrupted(&self) -> impl Iterator<Item = u64> {
        self.interrupted.keys().copied()
    }

    /// When the last of those that were interrupted so far have their deadline.
    fn last_deadline(&self) -> Option<Timestamp> {
        let deadlines = self.interrupted.values().map(|(deadline, _)| *deadline);
        deadlines.max()
    }

    fn end_actions(&mut self, now: Timestamp, change: &mut Change) {
        for (name, step) in &mut self.steps {
            let is_over = step.over.is_some_and(|over| over <= now);
            if step.state == State::Running && is_over {
                step.become_(State::Completed, name, now, None, change);
            }
        }
    }

    /// Starts those that can.
    fn start_actions(
        &mut self,
        present: &HashSet<u64>,
        now: Timestamp,
        change: &mut Change,
    ) -> Result<(), String> {
        let Self {
            steps, interrupted, ..
        } = self;
        let over: BTreeSet<_> = steps
            .iter()
            .filter(|(_, step)| step.state.is_final())
            .map(|(name, _)| name.clone())
            .collect();
        for (name, step) in steps.iter_mut() {
            let is_due = step.action.after.iter().all(|before| over.contains(before));
            if step.state != State::Pending || !is_due {
                continue;
            }
            step.become_(State::Initiating, name, now, None, change);
            if let Err(reason) = step.begin(name, present, interrupted, now, change) {
                step.become_(State::Failed, name, now, Some(reason.clone()), change);
                return Err(format!("action {name}: {reason}"));
            }
            step.become_(State::Running, name, now, None, change);
        }
        Ok(())
    }

    fn give_up(&mut self, reason: String, now: Timestamp, change: &mut Change) {
        for (name, step) in &mut self.steps {
            match step.state {
                State::Pending => step.become_(State::Cancelled, name, now, None, change),
                State::Running => {
                    step.become_(State::Stopping, name, now, None, change);
                    step.become_(State::Stopped, name, now, None, change);
                }
                State::Stopping => step.become_(State::Stopped, name, now, None, change),
                _ => {}
            }
        }
        self.become_(State::Failed, now, Some(reason), change);
    }

    fn become_(&mut self, to: State, time: Timestamp, reason: Option<String>, change: &mut Change) {
        let from = std::mem::replace(&mut self.state, to);
        debug_assert!(to.can_follow(from), "{from} -> {to}");
        change.transitions.push(Transition {
            time,
            action: None,
            from,
            to,
            reason,
        });
    }
}

impl Step {
    /// Announces what it has to announce, to those that are there.
    fn begin(
        &mut self,
        name: &str,
        present: &HashSet<u64>,
        interrupted: &mut HashMap<u64, (Timestamp, String)>,
        now: Timestamp,
        change: &mut Change,
    ) -> Result<(), String> {
        let plan = match self.action.kind {
            Kind::Interrupt { before, .. } => interruption(before),
            Kind::Wait(duration) => {
                self.over = Some(
                    now.checked_add(duration)
                        .map_err(|error| error.to_string())?,
                );
                return Ok(());
            }
        };
        let timeline = plan.arm(now).map_err(|invalid| invalid.to_string())?;
        let targets = self.targets.iter().copied();
        let targets: Vec<_> = targets.filter(|target| present.contains(target)).collect();
        if targets.is_empty() {
            return Err("none of its targets is there any more".to_owned());
        }
        // What EC2 is interrupting cannot be interrupted once more.
        let before = targets.iter().filter_map(|target| interrupted.get(target));
        if let Some((_, other)) = before.into_iter().find(|(deadline, _)| *deadline > now) {
            return Err(format!(
                "one of its targets is being interrupted by action {} already",
                printable(other)
            ));
        }
        let notice = timeline.notice().ok_or("it has no notice")?;
        for target in &targets {
            interrupted.insert(*target, (notice.deadline, name.to_owned()));
        }
        self.over = Some(notice.appears);
        change.announcements.push(Announcement {
            action: name.to_owned(),
            plan,
            at: now,
            targets,
        });
        Ok(())
    }

    fn become_(
        &mut self,
        to: State,
        name: &str,
        time: Timestamp,
        reason: Option<String>,
        change: &mut Change,
    ) {
        let from = std::mem::replace(&mut self.state, to);
        debug_assert!(to.can_follow(from), "{name}: {from} -> {to}");
        change.transitions.push(Transition {
            time,
            action: Some(name.to_owned()),
            from,
            to,
            reason,
        });
    }
}

#[cfg(test)]
mod tests;
