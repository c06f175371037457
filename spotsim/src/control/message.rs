//! What the two ends of a control socket say to each other.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    consequence::EffectState,
    emit::Delivery,
    experiment::State,
    interception::Ended,
    journal::{Connect, Counts, Request},
    target::{Named, Target},
    timeline::{self, Timeline},
};

/// The verb by which a spotsim was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    Attach,
    Experiment,
    Run,
    Serve,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attach => "attach",
            Self::Experiment => "experiment",
            Self::Run => "run",
            Self::Serve => "serve",
        })
    }
}

/// Whom it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Serves {
    /// Those that are intercepted, in the order in which they came.
    Targets(Vec<TargetStatus>),
    /// Whoever comes to this address.
    Listen(String),
}

/// How it is with a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// As `pod default/web-0` or `cgroup /system.slice/web.service`.
    pub name: String,
    #[serde(flatten)]
    pub named: Named,
    /// The path as in `/proc/PID/cgroup`.
    pub cgroup: String,
    /// All that is announced to it, in a line.
    pub timeline: String,
    /// When the notice appears to it, if there is one.
    pub notice: Option<Timestamp>,
    /// The time in its notice.
    pub deadline: Option<Timestamp>,
    /// When something changes for it next.
    pub next: Option<Timestamp>,
    /// How far it is with what is done to it at its deadline, once that has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<EffectState>,
}

impl TargetStatus {
    /// With what it is shown.
    pub fn new(
        target: &Target,
        timeline: &Timeline,
        effect: Option<EffectState>,
        now: Timestamp,
    ) -> Self {
        let notice = timeline.notice();
        Self {
            name: target.to_string(),
            named: target.named.clone(),
            cgroup: target.cgroup.path().to_owned(),
            timeline: timeline.to_string(),
            notice: notice.map(|notice| notice.appears),
            deadline: notice.map(|notice| notice.deadline),
            next: timeline.next_change(now),
            effect,
        }
    }
}

/// How it is with a running spotsim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub id: String,
    pub verb: Verb,
    pub pid: u32,
    /// spotsim's own.
    pub version: String,
    pub started: Timestamp,
    /// How far its experiment is, if it runs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<State>,
    /// `targets` or `listen`.
    #[serde(flatten)]
    pub serves: Serves,
    /// Who answers what is not announced: `real`, `synthetic`, `none` or a URL.
    pub upstream: String,
    /// Whether nothing is announced, now or later, until somebody triggers it.
    pub held: bool,
    /// Whether targets have clocks of their own, which each has with it. Then what follows goes
    /// for those that have none; with a stagger, for the first.
    pub own_clocks: bool,
    /// All that is announced, in a line.
    pub timeline: String,
    /// What is visible now, in the order of the paths.
    pub announced: Vec<Item>,
    /// Every change of the timeline, in the order of their times; those before now too. Of a list
    /// of events each has codes and states alone: all of fifty lists of fifty events would be
    /// many megabytes.
    pub steps: Vec<Change>,
    /// When the next of them is due.
    pub next: Option<Timestamp>,
    /// The time in the notice, if there is one, visible or not.
    pub deadline: Option<Timestamp>,
    pub counts: Counts,
    /// How it is with those who are sent events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliveries: Vec<Delivery>,
}

/// An item that is visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its place under `/{version}/meta-data/`.
    pub path: String,
    pub value: String,
    pub since: Timestamp,
}

/// An item's change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub at: Timestamp,
    /// Its place under `/{version}/meta-data/`.
    pub path: String,
    /// What it becomes; `None` if it is taken back.
    pub value: Option<String>,
}

/// A line of `GET /watch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Message {
    /// The first line, and another when somebody triggers or cancels, or a target comes or goes.
    Status(Box<Status>),
    Connect(Connect),
    Request(Request),
    /// It changes as it was announced, or because somebody triggered or canceled.
    Announced {
        /// To whom, where targets have clocks of their own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        #[serde(flatten)]
        change: Change,
    },
    /// How much has happened so far: at most each second, while that changes.
    Counts(Counts),
    /// Whoever watches was too slow for so many lines.
    Lost {
        count: u64,
    },
    /// The last line.
    End {
        reason: Reason,
    },
}

/// Why a spotsim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Somebody asked it to.
    Detached,
    /// By a signal.
    Stopped,
    /// That of `--for`.
    TimeOver,
    TargetsGone,
    /// That of a `run`.
    CommandEnded,
    /// That of an experiment.
    ExperimentEnded,
    /// Of an error, which its standard error has.
    Failed,
}

impl Reason {
    /// Why an interception was not kept up any longer.
    pub fn of(kept: &anyhow::Result<Ended<Self>>) -> Self {
        match kept {
            Ok(Ended::Asked(reason)) => *reason,
            Ok(Ended::TargetsGone) => Self::TargetsGone,
            Err(_) => Self::Failed,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Detached => "it was told to detach",
            Self::Stopped => "it was stopped by a signal",
            Self::TimeOver => "the time given with --for is over",
            Self::TargetsGone => "no target is left",
            Self::CommandEnded => "its command ended",
            Self::ExperimentEnded => "the experiment is over",
            Self::Failed => "it failed",
        })
    }
}

impl From<timeline::Item> for Item {
    fn from(item: timeline::Item) -> Self {
        let timeline::Item {
            path, value, since, ..
        } = item;
        Self {
            path: path.to_owned(),
            value,
            since,
        }
    }
}

impl From<timeline::Step> for Change {
    fn from(step: timeline::Step) -> Self {
        let timeline::Step { at, path, value } = step;
        Self {
            at,
            path: path.to_owned(),
            value,
        }
    }
}

impl Change {
    /// Without what makes it long.
    pub fn briefly(step: timeline::Step) -> Self {
        let mut change = Self::from(step);
        change.value = change.value.map(|value| brief(&value));
        change
    }
}

/// A value on one line: of each event in a list its code and state.
pub fn brief(value: &str) -> String {
    let events: Vec<serde_json::Value> = serde_json::from_str(value).unwrap_or_default();
    let event = |event: &serde_json::Value| {
        let code = event["Code"].as_str()?;
        Some(format!("{code} {}", event["State"].as_str()?))
    };
    let events: Option<Vec<_>> = events.iter().map(event).collect();
    match events {
        Some(events) if !events.is_empty() => events.join(", "),
        _ => value.to_owned(),
    }
}

impl Status {
    /// What is visible at `now`, if nobody triggers or cancels before; lists as in the steps.
    pub fn visible(&self, now: Timestamp) -> Vec<Item> {
        let mut visible = BTreeMap::new();
        for Change { at, path, value } in self.steps.iter().filter(|step| step.at <= now) {
            match value {
                Some(value) => _ = visible.insert(path, (value, *at)),
                None => _ = visible.remove(path),
            }
        }
        let items = visible.into_iter();
        items
            .map(|(path, (value, since))| Item {
                path: path.clone(),
                value: value.clone(),
                since,
            })
            .collect()
    }

    /// The changes that are due after `now`.
    pub fn to_come(&self, now: Timestamp) -> impl Iterator<Item = &Change> {
        self.steps.iter().filter(move |step| step.at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_list_of_events_is_told_briefly() {
        let list = "[ {\n  \"Code\" : \"system-reboot\",\n  \"State\" : \"active\"\n}, \
                    {\"Code\": \"instance-stop\", \"State\": \"canceled\"} ]";
        assert_eq!(brief(list), "system-reboot active, instance-stop canceled");
        for other in ["[]", "spot", "{\"action\": \"stop\"}", "[1]", "[{}]"] {
            assert_eq!(brief(other), other);
        }
    }

    #[test]
    fn an_interception_that_fails_has_failed() {
        let failed = Err(anyhow::anyhow!("cannot watch cgroups"));
        assert_eq!(Reason::of(&failed), Reason::Failed);
        assert_eq!(Reason::of(&Ok(Ended::TargetsGone)), Reason::TargetsGone);
        let asked = Ok(Ended::Asked(Reason::TimeOver));
        assert_eq!(Reason::of(&asked), Reason::TimeOver);
    }

    #[test]
    fn a_message_is_tagged_and_comes_back() {
        let change = Change {
            at: time("2026-01-01T00:00:00Z"),
            path: "spot/instance-action".to_owned(),
            value: None,
        };
        for (message, text) in [
            (
                Message::Announced {
                    target: None,
                    change,
                },
                r#"{"type":"announced","at":"2026-01-01T00:00:00Z","path":"spot/instance-action","value":null}"#,
            ),
            (Message::Lost { count: 3 }, r#"{"type":"lost","count":3}"#),
            (
                Message::End {
                    reason: Reason::TimeOver,
                },
                r#"{"type":"end","reason":"time-over"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&message).unwrap(), text);
            assert_eq!(serde_json::from_str::<Message>(text).unwrap(), message);
        }
    }
}
