//! Scheduled maintenance events, in the form of `events/maintenance` ([AWS: scheduled
//! events][1]).
//!
//! [1]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/viewing_scheduled_events.html

use std::{
    fmt::Write as _,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use jiff::Timestamp;

use super::written::words;

words! {
    /// What is going to happen to the instance.
    "event code": pub enum Code {
        InstanceStop = "instance-stop",
        InstanceRetirement = "instance-retirement",
        InstanceReboot = "instance-reboot",
        SystemReboot = "system-reboot",
        SystemMaintenance = "system-maintenance",
    }
}

impl Code {
    /// What the event's description says if nobody has a better one.
    pub fn description(self) -> &'static str {
        match self {
            Self::InstanceStop => "scheduled stop",
            Self::InstanceRetirement => "scheduled retirement",
            Self::InstanceReboot | Self::SystemReboot => "scheduled reboot",
            Self::SystemMaintenance => "scheduled maintenance",
        }
    }
}

words! {
    /// What became of an event.
    "event state": pub enum State {
        Active = "active",
        Completed = "completed",
        Canceled = "canceled",
    }
}

/// One event, in absolute times.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScheduledEvent {
    pub code: Code,
    /// When it is announced.
    pub appears: Timestamp,
    /// The earliest that it happens, in whole seconds, as the next two are.
    pub not_before: Timestamp,
    pub not_after: Option<Timestamp>,
    pub not_before_deadline: Option<Timestamp>,
    /// When it is over, and how. It is in the history from then on.
    pub end: Option<(Timestamp, State)>,
    /// When it leaves the scheduled events: at its end or later.
    pub leaves: Option<Timestamp>,
    pub id: String,
    pub description: String,
}

impl ScheduledEvent {
    /// An id in the real form. It is the same whenever the same plan is armed at the same
    /// time, and differs otherwise.
    pub fn made_up_id(armed_at: Timestamp, index: usize) -> String {
        let mut hasher = DefaultHasher::new();
        (armed_at.as_nanosecond(), index).hash(&mut hasher);
        format!("instance-event-0{:016x}", hasher.finish())
    }

    /// Whether it is among the scheduled events at `now`.
    pub fn is_scheduled(&self, now: Timestamp) -> bool {
        self.appears <= now && self.leaves.is_none_or(|leaves| now < leaves)
    }

    /// Whether it is in the history at `now`.
    pub fn is_history(&self, now: Timestamp) -> bool {
        self.end.is_some_and(|(end, _)| end <= now)
    }

    fn state(&self, now: Timestamp) -> State {
        match self.end {
            Some((end, state)) if end <= now => state,
            _ => State::Active,
        }
    }

    fn write(&self, out: &mut String, now: Timestamp) {
        let Self {
            code,
            not_before,
            not_after,
            not_before_deadline,
            id,
            description,
            ..
        } = self;
        let state = self.state(now);
        let prefix = match state {
            State::Active => "",
            State::Completed => "[Completed] ",
            State::Canceled => "[Canceled] ",
        };
        let members = [
            ("NotBefore", Some(gmt(*not_before))),
            ("Code", Some(code.to_string())),
            ("Description", Some(format!("{prefix}{description}"))),
            ("EventId", Some(id.clone())),
            ("NotAfter", not_after.map(gmt)),
            ("NotBeforeDeadline", not_before_deadline.map(gmt)),
            ("State", Some(state.to_string())),
        ];
        let mut separator = "{\n";
        for (name, value) in members {
            let Some(value) = value else { continue };
            let value = serde_json::Value::from(value);
            let _ = write!(out, "{separator}  \"{name}\" : {value}");
            separator = ",\n";
        }
        out.push_str("\n}");
    }
}

/// A list of events as they are at `now`; `[]` of none.
pub fn list<'a>(events: impl Iterator<Item = &'a ScheduledEvent>, now: Timestamp) -> String {
    let mut out = String::new();
    for event in events {
        out.push_str(if out.is_empty() { "[ " } else { ", " });
        event.write(&mut out, now);
    }
    out.push_str(if out.is_empty() { "[]" } else { " ]" });
    out
}

/// As in `21 Jan 2019 09:00:43 GMT`.
fn gmt(time: Timestamp) -> String {
    time.strftime("%-d %b %Y %H:%M:%S GMT").to_string()
}
