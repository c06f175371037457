//! What AWS would send besides what IMDS shows, in the form in which EventBridge delivers it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use uuid::{Builder, Uuid};

use crate::{
    instance::Identity,
    timeline::{Action, Code, LifecycleState, Occasion, ScheduledEvent, State},
};

mod autoscaling;
mod ec2;
mod health;

pub use autoscaling::LifecycleAction;
pub use ec2::{Interruption, Rebalance, StateChange};
pub use health::{Entity, Health, Text};

/// Of what an event tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// What is announced, or due. At a deadline: that the instance is on its way down.
    Occasion(Occasion),
    /// What was due at the deadline is done: the instance has stopped, or is terminated.
    Down(Action),
}

/// An event in EventBridge's envelope, with its fields in the documented order ([AWS: events][1]).
///
/// [1]: https://docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Event {
    /// `0`.
    pub version: &'static str,
    /// A UUID.
    pub id: String,
    pub detail_type: &'static str,
    pub source: &'static str,
    /// 12 digits.
    pub account: String,
    /// As in `2026-03-01T12:00:00Z`: in whole seconds.
    pub time: String,
    pub region: String,
    /// ARNs; for AWS Health instance ids.
    pub resources: Vec<String>,
    pub detail: Detail,
}

/// What an event's type has of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Detail {
    Interruption(Interruption),
    Rebalance(Rebalance),
    StateChange(StateChange),
    // It is far larger than the others.
    Health(Box<Health>),
    LifecycleAction(LifecycleAction),
}

impl Event {
    /// What AWS would send of this instance, which happened `at`. `None` of what it sends nothing.
    pub fn of(told: &Told, identity: &Identity, at: Timestamp) -> Option<Self> {
        let (detail, resource) = match told {
            Told::Occasion(Occasion::LifecycleState(LifecycleState::Terminated)) => {
                LifecycleAction::of(identity)
            }
            Told::Occasion(Occasion::LifecycleState(_)) => return None,
            Told::Occasion(Occasion::Scheduled(event, state)) => {
                let health = Health::of(event, *state, identity, at);
                (Detail::Health(Box::new(health)), identity.instance.clone())
            }
            Told::Occasion(Occasion::Rebalance) => {
                (Detail::Rebalance(Rebalance::of(identity)), identity.arn())
            }
            Told::Occasion(Occasion::Notice(action)) => {
                let interruption = Interruption::of(*action, identity);
                (Detail::Interruption(interruption), identity.arn())
            }
            Told::Occasion(Occasion::Deadline(action)) => {
                let change = StateChange::begun(*action, identity);
                (Detail::StateChange(change), identity.arn())
            }
            Told::Down(action) => {
                let change = StateChange::done(*action, identity);
                (Detail::StateChange(change), identity.arn())
            }
        };
        Some(Self {
            version: "0",
            id: unique().to_string(),
            detail_type: detail.detail_type(),
            source: detail.source(),
            account: identity.account.clone(),
            time: at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            region: identity.region.clone(),
            resources: vec![resource],
            detail,
        })
    }

    /// The names of all fields that events have, those of an object after its own: `detail`,
    /// `detail.instance-id`, `resources.0`.
    pub fn fields() -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for event in Self::samples() {
            let event = serde_json::to_value(event).unwrap_or_default();
            collect("", &event, &mut names);
        }
        names
    }

    /// One of each type, with all fields that it may have.
    fn samples() -> impl Iterator<Item = Self> {
        let identity = Identity {
            instance: String::new(),
            account: String::new(),
            region: String::new(),
            partition: String::new(),
            zone: String::new(),
            instance_type: String::new(),
            image: String::new(),
            architecture: String::new(),
            private_ip: String::new(),
            network: crate::instance::Network::default(),
            tags: BTreeMap::new(),
        };
        let now = Timestamp::UNIX_EPOCH;
        let scheduled = ScheduledEvent {
            code: Code::SystemReboot,
            appears: now,
            not_before: now,
            not_after: None,
            not_before_deadline: None,
            end: None,
            leaves: None,
            id: String::new(),
            description: String::new(),
        };
        let told = [
            Occasion::Rebalance,
            Occasion::Notice(Action::Terminate),
            Occasion::Deadline(Action::Terminate),
            Occasion::Scheduled(scheduled, State::Completed),
            Occasion::LifecycleState(LifecycleState::Terminated),
        ];
        let told = told.into_iter().map(Told::Occasion);
        told.filter_map(move |told| Self::of(&told, &identity, now))
    }

    /// The id of the instance that it is about.
    pub fn instance(&self) -> &str {
        match &self.detail {
            Detail::Interruption(detail) => &detail.instance_id,
            Detail::Rebalance(detail) => &detail.instance_id,
            Detail::StateChange(detail) => &detail.instance_id,
            Detail::Health(detail) => &detail.affected_entities[0].entity_value,
            Detail::LifecycleAction(detail) => &detail.ec2_instance_id,
        }
    }
}

impl Detail {
    fn detail_type(&self) -> &'static str {
        match self {
            Self::Interruption(_) => "EC2 Spot Instance Interruption Warning",
            Self::Rebalance(_) => "EC2 Instance Rebalance Recommendation",
            Self::StateChange(_) => "EC2 Instance State-change Notification",
            Self::Health(_) => "AWS Health Event",
            Self::LifecycleAction(_) => "EC2 Instance-terminate Lifecycle Action",
        }
    }

    fn source(&self) -> &'static str {
        match self {
            Self::Interruption(_) | Self::Rebalance(_) | Self::StateChange(_) => "aws.ec2",
            Self::Health(_) => "aws.health",
            Self::LifecycleAction(_) => "aws.autoscaling",
        }
    }
}

/// The names of a value's members and items, and of theirs.
fn collect(name: &str, value: &Value, names: &mut BTreeSet<String>) {
    let mut add = |member: &dyn Display, value: &Value| {
        let dot = if name.is_empty() { "" } else { "." };
        let name = format!("{name}{dot}{member}");
        collect(&name, value, names);
        names.insert(name);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| add(key, value)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(at, value)| add(&at, value)),
        _ => {}
    }
}

/// A UUID that nothing else has.
fn unique() -> Uuid {
    Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid()
}

/// A UUID that is the same whenever it is made of the same names.
fn derived(names: &[&str]) -> Uuid {
    let mut hasher = DefaultHasher::new();
    names.hash(&mut hasher);
    let mut random = fastrand::Rng::with_seed(hasher.finish());
    Builder::from_random_bytes(random.u128(..).to_ne_bytes()).into_uuid()
}

#[cfg(test)]
mod tests;
