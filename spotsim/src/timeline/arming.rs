//! From a plan to a timeline: every duration becomes a time, once.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::{
    AfterDeadline, LifeCycle, LifecycleState, LifecycleStatePlan, Notice, NoticePlan, Plan,
    ScheduledPlan, Timeline,
    scheduled::{ScheduledEvent, State},
    when::{Span, When, whole_second_after},
};

/// More events, or states, than any instance ever had. Each request looks at all of them.
const MOST: usize = 50;

/// In characters. Each request for the list, and each look at what is announced, has all of them.
const LONGEST_ID: usize = 64;
const LONGEST_DESCRIPTION: usize = 256;

/// A notice that is withdrawn must have been there for longer than the rounding of its deadline.
const SHORTEST_SHOWN: SignedDuration = SignedDuration::from_secs(1);

/// Why a plan cannot be armed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Where, as in a plan file: `notice.deadline`.
    pub field: String,
    pub problem: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, problem } = self;
        write!(f, "{field}: {problem}")
    }
}

impl std::error::Error for Invalid {}

fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Invalid {
    Invalid {
        field: field.into(),
        problem: problem.into(),
    }
}

impl Plan {
    /// Fixes the plan's times.
    ///
    /// # Errors
    ///
    /// The first thing in it that makes no sense.
    pub fn arm(&self, armed_at: Timestamp) -> Result<Timeline, Invalid> {
        self.arm_later(armed_at, SignedDuration::ZERO)
    }

    /// Fixes the plan's times, all of them so much later, for a target whose turn that is.
    pub fn arm_later(
        &self,
        armed_at: Timestamp,
        later: SignedDuration,
    ) -> Result<Timeline, Invalid> {
        let Self {
            notice,
            rebalance,
            after_deadline,
            life_cycle,
            scheduled,
            lifecycle_states,
            stagger: _,
        } = self;
        few("scheduled", scheduled)?;
        few("lifecycle-states", lifecycle_states)?;
        let at = Arming { armed_at, later };
        let notice = notice.as_ref().map(|plan| at.notice(plan)).transpose()?;
        let rebalance = rebalance
            .as_ref()
            .map(|plan| at.time("rebalance.appears", plan.appears))
            .transpose()?;
        let withdrawn = match after_deadline {
            Some(AfterDeadline::Withdraw) => Some(withdrawn(notice, rebalance)?),
            Some(AfterDeadline::Keep) | None => None,
        };
        let spot = (notice.is_some() || rebalance.is_some()).then_some(LifeCycle::Spot);
        Ok(Timeline {
            armed_at,
            notice,
            rebalance,
            withdrawn,
            life_cycle: life_cycle.or(spot),
            scheduled: at.scheduled(scheduled)?,
            lifecycle_states: at.lifecycle_states(lifecycle_states)?,
        })
    }
}

fn few<T>(field: &str, plans: &[T]) -> Result<(), Invalid> {
    let count = plans.len();
    if count > MOST {
        return Err(invalid(field, format!("{count} are more than {MOST}")));
    }
    Ok(())
}

/// When a notice and a recommendation are taken back.
fn withdrawn(notice: Option<Notice>, rebalance: Option<Timestamp>) -> Result<Timestamp, Invalid> {
    let problem = |problem: &str| Err(invalid("after-deadline", problem));
    let Some(Notice {
        appears, deadline, ..
    }) = notice
    else {
        return problem("there is no notice to withdraw");
    };
    if deadline.duration_since(appears) <= SHORTEST_SHOWN {
        return problem("the notice would be withdrawn as it appears; give it a lead");
    }
    match rebalance {
        Some(appears) if appears >= deadline => {
            let problem = format!("at {appears:.3} everything is withdrawn already");
            Err(invalid("rebalance.appears", problem))
        }
        _ => Ok(deadline),
    }
}

/// Resolves a plan's parts at the time of its arming.
#[derive(Clone, Copy)]
struct Arming {
    armed_at: Timestamp,
    /// For so long after the first target's.
    later: SignedDuration,
}

impl Arming {
    /// What counts from a time that was resolved already.
    fn from(armed_at: Timestamp) -> Self {
        let later = SignedDuration::ZERO;
        Self { armed_at, later }
    }

    fn time(self, field: &str, when: When) -> Result<Timestamp, Invalid> {
        let Self { armed_at, later } = self;
        let time = when
            .resolve(armed_at)
            .and_then(|time| time.checked_add(later).ok())
            .ok_or_else(|| invalid(field, format!("{when} lies past the year 9999")))?;
        // HTTP has no dates before (RFC 9110, 5.6.7), and neither had EC2.
        if time < Timestamp::UNIX_EPOCH {
            return Err(invalid(field, format!("{when} lies before 1970")));
        }
        Ok(time)
    }

    /// In whole seconds, as IMDS shows it.
    fn shown(self, field: &str, when: When) -> Result<Timestamp, Invalid> {
        let time = self.time(field, when)?;
        whole_second_after(time)
            .ok_or_else(|| invalid(field, format!("{when} lies past the year 9999")))
    }

    fn notice(self, plan: &NoticePlan) -> Result<Notice, Invalid> {
        let NoticePlan {
            action,
            appears,
            lead,
            deadline,
        } = plan;
        let appears = self.time("notice.appears", *appears)?;
        let deadline = match (lead, deadline) {
            (Some(_), Some(_)) => {
                let problem = "give a deadline or a lead, not both";
                return Err(invalid("notice.deadline", problem));
            }
            (None, Some(deadline)) => self.shown("notice.deadline", *deadline)?,
            (lead, None) => {
                let lead = lead.unwrap_or_else(|| action.default_lead());
                Self::from(appears).shown("notice.lead", When::After(lead))?
            }
        };
        if deadline < appears {
            let problem = format!("{deadline} is before the notice appears, {appears:.3}");
            return Err(invalid("notice.deadline", problem));
        }
        Ok(Notice {
            action: *action,
            appears,
            deadline,
        })
    }

    fn scheduled(self, plans: &[ScheduledPlan]) -> Result<Vec<ScheduledEvent>, Invalid> {
        let mut events: Vec<ScheduledEvent> = Vec::with_capacity(plans.len());
        for (index, plan) in plans.iter().enumerate() {
            let event = Event { at: self, index }.arm(plan)?;
            if events.iter().any(|other| other.id == event.id) {
                let field = format!("scheduled[{index}].event-id");
                return Err(invalid(field, "another event has this id"));
            }
            events.push(event);
        }
        Ok(events)
    }

    fn lifecycle_states(
        self,
        plans: &[LifecycleStatePlan],
    ) -> Result<Vec<(Timestamp, LifecycleState)>, Invalid> {
        let mut states: Vec<(Timestamp, LifecycleState)> = Vec::with_capacity(plans.len());
        for (index, LifecycleStatePlan { state, appears }) in plans.iter().enumerate() {
            let field = format!("lifecycle-states[{index}].appears");
            let time = self.time(&field, *appears)?;
            if let Some((_, other)) = states.iter().find(|(other, _)| *other == time) {
                let problem = format!("{state} and {other} are both to appear at {time:.3}");
                return Err(invalid(field, problem));
            }
            states.push((time, *state));
        }
        states.sort_by_key(|(time, _)| *time);
        Ok(states)
    }
}

/// Resolves one scheduled event.
#[derive(Clone, Copy)]
struct Event {
    at: Arming,
    /// Which of them it is.
    index: usize,
}

impl Event {
    fn arm(self, plan: &ScheduledPlan) -> Result<ScheduledEvent, Invalid> {
        let ScheduledPlan {
            code,
            appears,
            not_before,
            not_after,
            not_before_deadline,
            completed,
            canceled,
            lingers,
            event_id,
            description,
        } = plan;
        let Self { at, index } = self;
        let Arming { armed_at, .. } = at;
        let appears = at.time(&self.field("appears"), *appears)?;
        let not_before = match not_before {
            Some(when) => at.shown(&self.field("not-before"), *when)?,
            None => Arming::from(appears).shown(&self.field("not-before"), When::default())?,
        };
        let not_after = self.not_earlier("not-after", *not_after, not_before)?;
        let end = match self.end(appears, *completed, *canceled)? {
            Some(end) => Some(end),
            None => not_after.map(|time| (time.max(appears), State::Completed)),
        };
        Ok(ScheduledEvent {
            code: *code,
            appears,
            not_before,
            not_after,
            not_before_deadline: self.not_earlier(
                "not-before-deadline",
                *not_before_deadline,
                not_before,
            )?,
            end,
            leaves: self.leaves(end.map(|(end, _)| end), *lingers)?,
            id: match event_id {
                Some(id) => self.short("event-id", id, LONGEST_ID)?,
                None => ScheduledEvent::made_up_id(armed_at, index),
            },
            description: match description {
                Some(text) => self.short("description", text, LONGEST_DESCRIPTION)?,
                None => code.description().to_owned(),
            },
        })
    }

    fn field(self, key: &str) -> String {
        format!("scheduled[{}].{key}", self.index)
    }

    /// A time that must not lie before the earliest that the event happens.
    fn not_earlier(
        self,
        key: &str,
        when: Option<When>,
        not_before: Timestamp,
    ) -> Result<Option<Timestamp>, Invalid> {
        let field = self.field(key);
        let time = when.map(|when| self.at.shown(&field, when)).transpose()?;
        match time {
            Some(time) if time < not_before => {
                let problem = format!("{time} is before not-before, {not_before}");
                Err(invalid(field, problem))
            }
            time => Ok(time),
        }
    }

    /// The end that the plan tells.
    fn end(
        self,
        appears: Timestamp,
        completed: Option<When>,
        canceled: Option<When>,
    ) -> Result<Option<(Timestamp, State)>, Invalid> {
        let (key, state, when) = match (completed, canceled) {
            (Some(_), Some(_)) => {
                let problem = "an event is completed or canceled, not both";
                return Err(invalid(self.field("canceled"), problem));
            }
            (Some(when), None) => ("completed", State::Completed, when),
            (None, Some(when)) => ("canceled", State::Canceled, when),
            (None, None) => return Ok(None),
        };
        let field = self.field(key);
        let time = self.at.time(&field, when)?;
        if time < appears {
            let problem = format!("{time:.3} is before the event appears, {appears:.3}");
            return Err(invalid(field, problem));
        }
        Ok(Some((time, state)))
    }

    /// When it leaves the scheduled events.
    fn leaves(
        self,
        end: Option<Timestamp>,
        lingers: Option<Span>,
    ) -> Result<Option<Timestamp>, Invalid> {
        let field = self.field("lingers");
        match (end, lingers) {
            (Some(end), Some(lingers)) => {
                let leaves = Arming::from(end).time(&field, When::After(lingers))?;
                Ok(Some(leaves))
            }
            (end, None) => Ok(end),
            (None, Some(_)) => Err(invalid(field, "an event without an end is there for ever")),
        }
    }

    fn short(self, key: &str, text: &str, longest: usize) -> Result<String, Invalid> {
        if text.is_empty() || text.chars().count() > longest {
            let problem = format!("1 to {longest} characters");
            return Err(invalid(self.field(key), problem));
        }
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn armed_at() -> Timestamp {
        "2026-12-01T10:00:00Z".parse().unwrap()
    }

    fn refused(plan: serde_json::Value) -> String {
        let plan: Plan = serde_json::from_value(plan).unwrap();
        plan.arm(armed_at()).unwrap_err().to_string()
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_field() {
        for (plan, field) in [
            (
                json!({"notice": {"appears": "+90s", "deadline": "+60s"}}),
                "notice.deadline: 2026-12-01T10:01:00Z is before the notice appears, \
                 2026-12-01T10:01:30.000Z",
            ),
            (
                json!({"notice": {"lead": "1s", "deadline": "+60s"}}),
                "notice.deadline: give",
            ),
            (
                json!({"notice": {"appears": "9999-12-30T21:00:00Z", "lead": "876000h"}}),
                "notice.lead: +876000h lies past",
            ),
            (
                json!({"notice": {"appears": "1969-12-31T23:59:59Z"}}),
                "notice.appears: 1969-12-31T23:59:59Z lies before 1970",
            ),
            (
                json!({"lifecycle-states": vec![json!({"state": "Standby"}); 51]}),
                "lifecycle-states: 51 are more than 50",
            ),
            (
                json!({"notice": {"lead": "200ms"}, "after-deadline": "withdraw"}),
                "after-deadline: the notice would",
            ),
            (
                json!({"after-deadline": "withdraw"}),
                "after-deadline: there is no notice",
            ),
            (
                json!({"notice": {"action": "hibernate"}, "after-deadline": "withdraw"}),
                "after-deadline: the notice would",
            ),
            (
                json!({"notice": {}, "rebalance": {"appears": "2m"}, "after-deadline": "withdraw"}),
                "rebalance.appears: at",
            ),
            (
                json!({"scheduled": [
                    {"code": "system-reboot"},
                    {"code": "system-reboot", "not-before": "+2h", "not-after": "+1h"},
                ]}),
                "scheduled[1].not-after: 2026-12-01T11:00:00Z is before not-before",
            ),
            (
                json!({"scheduled": [{"code": "system-reboot", "appears": "1h", "canceled": "1m"}]}),
                "scheduled[0].canceled: ",
            ),
            (
                json!({"scheduled": [{"code": "instance-stop", "completed": "1h", "canceled": "1m"}]}),
                "scheduled[0].canceled: an event is completed or canceled",
            ),
            (
                json!({"scheduled": [{"code": "instance-stop", "lingers": "1h"}]}),
                "scheduled[0].lingers: ",
            ),
            (
                json!({"scheduled": [{"code": "instance-stop", "event-id": ""}]}),
                "scheduled[0].event-id: 1 to 64 characters",
            ),
            (
                json!({"scheduled": [{"code": "instance-stop", "description": "x".repeat(257)}]}),
                "scheduled[0].description: 1 to 256 characters",
            ),
            (
                json!({"scheduled": [
                    {"code": "instance-stop", "event-id": "a"},
                    {"code": "instance-stop", "event-id": "a"},
                ]}),
                "scheduled[1].event-id: ",
            ),
            (
                json!({"lifecycle-states": [
                    {"state": "InService", "appears": "1m"},
                    {"state": "Terminated", "appears": "60s"},
                ]}),
                "lifecycle-states[1].appears: Terminated and InService are both to appear",
            ),
        ] {
            let error = refused(plan);
            assert!(error.starts_with(field), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
