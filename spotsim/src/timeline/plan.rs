//! What is to be announced, as the user wrote it: in flags, in a plan file or in a control
//! request.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{
    LifecycleState,
    scheduled::Code,
    when::{Span, When},
    written::words,
};

words! {
    /// What EC2 says it will do at the deadline ([AWS: interruption notices][1]).
    ///
    /// [1]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
    "action": pub enum Action {
        Terminate = "terminate",
        Stop = "stop",
        Hibernate = "hibernate",
    }
}

impl Action {
    /// From the notice to the deadline, where nobody says otherwise: two minutes, but
    /// hibernation begins at once.
    pub fn default_lead(self) -> Span {
        match self {
            Self::Terminate | Self::Stop => Span::seconds(120),
            Self::Hibernate => Span::default(),
        }
    }
}

words! {
    /// How the instance was bought: `instance-life-cycle`.
    "life cycle": pub enum LifeCycle {
        Spot = "spot",
        OnDemand = "on-demand",
    }
}

words! {
    /// What becomes of the notice and the rebalance recommendation at the deadline.
    "way to go on": pub enum AfterDeadline {
        /// They stay, as the real ones do when an interruption fails.
        Keep = "keep",
        /// They are taken back.
        Withdraw = "withdraw",
    }
}

/// What is to be announced. Nothing, if it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Plan {
    /// The interruption notice.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    pub notice: Option<NoticePlan>,
    /// The rebalance recommendation.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "not_null")]
    pub rebalance: Option<RebalancePlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_deadline: Option<AfterDeadline>,
    /// `instance-life-cycle`, from the arming on. Of an instance with a notice or a
    /// recommendation it is `spot` unless this says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub life_cycle: Option<LifeCycle>,
    /// Scheduled maintenance events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scheduled: Vec<ScheduledPlan>,
    /// What `autoscaling/target-lifecycle-state` is, one after the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lifecycle_states: Vec<LifecycleStatePlan>,
    /// How much later each target is shown all of it than the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stagger: Option<Span>,
}

/// Refuses null, which is nothing to some and "with its defaults" to others: `notice:` in YAML.
fn not_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    match Option::deserialize(deserializer)? {
        Some(given) => Ok(Some(given)),
        None => Err(D::Error::custom(
            "null may mean two things: write {} for one at once, or leave it out",
        )),
    }
}

/// An interruption notice to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NoticePlan {
    #[serde(default = "terminate")]
    pub action: Action,
    /// When it appears.
    #[serde(default)]
    pub appears: When,
    /// From then to the deadline; [`Action::default_lead`] if neither this nor `deadline` is
    /// given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lead: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<When>,
}

fn terminate() -> Action {
    Action::Terminate
}

impl Default for NoticePlan {
    fn default() -> Self {
        Self {
            action: terminate(),
            appears: When::default(),
            lead: None,
            deadline: None,
        }
    }
}

/// A rebalance recommendation to come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RebalancePlan {
    /// When it appears, which is also the time that it shows.
    #[serde(default)]
    pub appears: When,
}

/// A scheduled event to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ScheduledPlan {
    pub code: Code,
    /// When it is announced.
    #[serde(default)]
    pub appears: When,
    /// The earliest that it happens; from its announcement on if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<When>,
    /// The latest that it ends. It is completed then, unless something else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<When>,
    /// Until when its beginning can be put off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before_deadline: Option<When>,
    /// When it is completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<When>,
    /// When it is canceled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canceled: Option<When>,
    /// For how long it stays in `events/maintenance/scheduled` after its end. It is in the
    /// history at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lingers: Option<Span>,
    /// Made up if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl ScheduledPlan {
    /// An event of which nothing is known but its code.
    pub fn new(code: Code) -> Self {
        Self {
            code,
            appears: When::default(),
            not_before: None,
            not_after: None,
            not_before_deadline: None,
            completed: None,
            canceled: None,
            lingers: None,
            event_id: None,
            description: None,
        }
    }
}

/// Reads `CODE[@NOT_BEFORE[..NOT_AFTER]][,KEY=VALUE]…`, with the keys of a plan file.
impl FromStr for ScheduledPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',');
        let event = parts.next().unwrap_or_default();
        let (code, window) = match event.split_once('@') {
            Some((code, window)) => (code, Some(window)),
            None => (event, None),
        };
        let mut plan = Self::new(code.parse()?);
        if let Some(window) = window {
            let (from, to) = match window.split_once("..") {
                Some((from, to)) => (from, Some(to)),
                None => (window, None),
            };
            plan.not_before = Some(field("NOT_BEFORE", from)?);
            plan.not_after = to.map(|to| field("NOT_AFTER", to)).transpose()?;
        }
        for part in parts {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is not KEY=VALUE"))?;
            match key {
                "appears" => plan.appears = field(key, value)?,
                "not-before-deadline" => plan.not_before_deadline = Some(field(key, value)?),
                "completed" => plan.completed = Some(field(key, value)?),
                "canceled" => plan.canceled = Some(field(key, value)?),
                "lingers" => plan.lingers = Some(field(key, value)?),
                "event-id" => plan.event_id = Some(value.to_owned()),
                "description" => plan.description = Some(value.to_owned()),
                _ => {
                    return Err(format!(
                        "unknown key {key:?}; use appears, completed, canceled, lingers, \
                         not-before-deadline, event-id or description"
                    ));
                }
            }
        }
        Ok(plan)
    }
}

/// A target lifecycle state to come. It lasts until the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LifecycleStatePlan {
    pub state: LifecycleState,
    #[serde(default)]
    pub appears: When,
}

/// Reads `STATE[@AFTER]`.
impl FromStr for LifecycleStatePlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (state, appears) = match text.split_once('@') {
            Some((state, appears)) => (state, field("AFTER", appears)?),
            None => (text, When::default()),
        };
        Ok(Self {
            state: state.parse()?,
            appears,
        })
    }
}

fn field<T: FromStr<Err = String>>(name: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|error| format!("{name} {value:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_files_say_the_same() {
        let flag: ScheduledPlan = "system-reboot@+1h..2026-12-02T00:00:00Z,canceled=10m,lingers=1m"
            .parse()
            .unwrap();
        let file = serde_json::json!({
            "code": "system-reboot",
            "not-before": "1h",
            "not-after": "2026-12-02T00:00:00Z",
            "canceled": "+10m",
            "lingers": "60s",
        });
        assert_eq!(flag, serde_json::from_value(file).unwrap());
        let flag: LifecycleStatePlan = "Warmed:Stopped@30s".parse().unwrap();
        let file = serde_json::json!({"state": "Warmed:Stopped", "appears": "+30s"});
        assert_eq!(flag, serde_json::from_value(file).unwrap());
    }

    #[test]
    fn flags_with_a_typo_are_refused() {
        for (text, reason) in [
            ("system-rebot", "unknown event code"),
            ("system-reboot@", "NOT_BEFORE"),
            ("system-reboot@1h..", "NOT_AFTER"),
            ("system-reboot@soon", "NOT_BEFORE \"soon\""),
            ("system-reboot,cancelled=1h", "unknown key \"cancelled\""),
            ("system-reboot,canceled", "not KEY=VALUE"),
            ("", "unknown event code"),
        ] {
            let error = text.parse::<ScheduledPlan>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        for (text, reason) in [
            ("Inservice", "unknown target lifecycle state"),
            ("InService@x", "AFTER"),
        ] {
            let error = text.parse::<LifecycleStatePlan>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!("Terminate".parse::<Action>().is_err());
    }

    #[test]
    fn a_plan_is_written_as_it_is_read() {
        let plan = Plan {
            notice: Some(NoticePlan {
                action: Action::Stop,
                lead: Some(Span::seconds(90)),
                ..NoticePlan::default()
            }),
            scheduled: vec![ScheduledPlan::new(Code::InstanceStop)],
            ..Plan::default()
        };
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        assert!(serde_json::from_str::<Plan>(r#"{"notice": null}"#).is_err());
        assert!(serde_json::from_str::<Plan>(r#"{"notise": {}}"#).is_err());
        assert!(serde_json::from_str::<Plan>(r#"{"notice": {"lead": 90}}"#).is_err());
    }
}
