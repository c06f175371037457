//! What an experiment does, one after the other or together.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::{
    Scope, duration,
    field::{Field, Fields, Invalid},
};
use crate::{
    document::printable,
    timeline::{NoticePlan, Plan, RebalancePlan, Span, When},
};

/// The notice that a Spot instance gets.
const LEAD: u32 = 120;

/// `durationBeforeInterruption`, in seconds ([AWS][1]).
///
/// [1]: https://docs.aws.amazon.com/fis/latest/userguide/fis-actions-reference.html#send-spot-instance-interruptions
const INTERRUPTION: [u32; 2] = [2 * 60, 15 * 60];

/// `duration` of a wait, in seconds.
const WAIT: [u32; 2] = [60, 12 * 60 * 60];

const SEND: &str = "aws:ec2:send-spot-instance-interruptions";
const PAUSE: &str = "aws:fis:wait";

/// An action of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    pub kind: Kind,
    /// The names of those that are over before it starts.
    pub after: Vec<String>,
}

/// What an action does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `aws:ec2:send-spot-instance-interruptions`.
    Interrupt {
        /// The name of its target.
        target: String,
        /// From its start to the interruption.
        before: SignedDuration,
    },
    /// `aws:fis:wait`.
    Wait(SignedDuration),
}

impl Action {
    pub(super) fn read(
        field: &Field<'_>,
        targets: &BTreeMap<String, Scope>,
        allow_short: bool,
    ) -> Result<Self, Invalid> {
        let fields = field.fields(&[
            "actionId",
            "description",
            "parameters",
            "targets",
            "startAfter",
        ])?;
        if let Some(description) = fields.get("description") {
            description.free_text(super::LONGEST_TEXT)?;
        }
        let id = fields.required("actionId")?;
        let kind = match id.word(128)?.as_str() {
            SEND => Kind::Interrupt {
                target: target(&fields, targets)?,
                before: parameter(
                    &fields,
                    "durationBeforeInterruption",
                    INTERRUPTION,
                    allow_short,
                )?,
            },
            PAUSE => {
                if let Some((_, target)) = fields.entries("targets")?.first() {
                    return Err(target.fault(format!("{PAUSE} has no targets")));
                }
                Kind::Wait(parameter(&fields, "duration", WAIT, allow_short)?)
            }
            other => {
                return Err(id.fault(format!(
                    "{} cannot be run here; what can is {SEND} and {PAUSE}",
                    printable(other)
                )));
            }
        };
        let after = fields.items("startAfter")?;
        let after = after.iter().map(|name| name.word(64));
        Ok(Self {
            kind,
            after: after.collect::<Result<_, _>>()?,
        })
    }
}

impl Kind {
    /// As the API has it.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Interrupt { .. } => SEND,
            Self::Wait(_) => PAUSE,
        }
    }
}

/// What is announced from the start of an action on, so long before the interruption.
pub fn interruption(before: SignedDuration) -> Plan {
    // It has minutes, and cannot overflow.
    let seconds = u32::try_from(before.as_secs()).unwrap_or(u32::MAX);
    let after = |seconds| When::After(Span::seconds(seconds));
    Plan {
        rebalance: Some(RebalancePlan::default()),
        notice: Some(NoticePlan {
            appears: after(seconds.saturating_sub(LEAD)),
            deadline: Some(after(seconds)),
            ..NoticePlan::default()
        }),
        ..Plan::default()
    }
}

/// The only parameter that an action has.
fn parameter(
    fields: &Fields<'_>,
    name: &'static str,
    range: [u32; 2],
    allow_short: bool,
) -> Result<SignedDuration, Invalid> {
    let parameters = fields.required("parameters")?;
    let mut found = None;
    // Their names are the same in every style.
    for (key, value) in parameters.entries()? {
        if key != name {
            return Err(value.fault(format!("unknown parameter; there is {name}")));
        }
        found = Some(value);
    }
    match found {
        Some(value) => duration(&value, range, allow_short),
        None => Err(parameters.child(name, parameters.node).fault("is required")),
    }
}

/// The name of what is interrupted.
fn target(fields: &Fields<'_>, targets: &BTreeMap<String, Scope>) -> Result<String, Invalid> {
    const KEY: &str = "SpotInstances";
    let given = fields.required("targets")?;
    let mut found = None;
    for (key, value) in given.entries()? {
        if key != KEY {
            return Err(value.fault(format!("unknown target; {SEND} has {KEY}")));
        }
        found = Some(value);
    }
    let Some(field) = found else {
        return Err(given.child(KEY, given.node).fault("is required"));
    };
    let name = field.word(64)?;
    if targets.contains_key(&name) {
        return Ok(name);
    }
    let known: Vec<_> = targets.keys().map(|name| printable(name)).collect();
    let known = match known.is_empty() {
        true => "there are none".to_owned(),
        false => format!("there is {}", known.join(", ")),
    };
    let problem = format!("there is no target {:?}; {known}", printable(&name));
    Err(field.fault(problem))
}
