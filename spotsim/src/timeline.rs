//! What is announced when: pure, and frozen when it is armed.
//!
//! A [`Plan`] is relative ("two minutes' notice, in ten seconds"); [`Plan::arm`] makes it a
//! [`Timeline`] of absolute times. From then on every answer is a function of the timeline and
//! the time of the request, so that no two answers can disagree and no time ever moves: clients
//! take a changed time for a new event.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp, TimestampRound, Unit};

/// What EC2 says it will do at the deadline ([AWS: interruption notices][1]).
///
/// [1]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Terminate,
    Stop,
    Hibernate,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 3] = [Self::Terminate, Self::Stop, Self::Hibernate];

    /// The word that IMDS uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminate => "terminate",
            Self::Stop => "stop",
            Self::Hibernate => "hibernate",
        }
    }

    /// From the notice to the deadline, where nobody says otherwise: two minutes, but
    /// hibernation begins at once.
    pub fn default_lead(self) -> SignedDuration {
        match self {
            Self::Terminate | Self::Stop => SignedDuration::from_mins(2),
            Self::Hibernate => SignedDuration::ZERO,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str() == word)
            .ok_or_else(|| "unknown action: use terminate, stop or hibernate".to_owned())
    }
}

/// What is to be announced, in times relative to the arming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What the notice says.
    pub action: Action,
    /// From the arming to the notice; not negative.
    pub notice_after: SignedDuration,
    /// From the notice to the deadline; not negative.
    pub lead: SignedDuration,
}

impl Plan {
    /// Fixes the plan's times. `None` if one lies past what a timestamp can hold (the year
    /// 9999).
    pub fn arm(&self, armed_at: Timestamp) -> Option<Timeline> {
        let appears = armed_at.checked_add(self.notice_after).ok()?;
        let deadline = appears.checked_add(self.lead).ok()?;
        // IMDS shows whole seconds. Rounded up, a client is never left with less than the lead.
        let deadline = deadline
            .round(
                TimestampRound::new()
                    .smallest(Unit::Second)
                    .mode(jiff::RoundMode::Ceil),
            )
            .ok()?;
        Some(Timeline {
            notice: Notice {
                action: self.action,
                appears,
                deadline,
            },
        })
    }
}

/// The interruption notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    pub action: Action,
    /// From when IMDS shows it.
    pub appears: Timestamp,
    /// The time that it names, in whole seconds. The notice stays after it, as the real one
    /// does when an interruption fails.
    pub deadline: Timestamp,
}

/// What is announced when, in absolute times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    notice: Notice,
}

/// One item that IMDS shows at some instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its place under `/{version}/meta-data/`.
    pub path: &'static str,
    /// Its exact value.
    pub value: String,
    /// Since when it is there.
    pub since: Timestamp,
}

impl Timeline {
    /// The notice, whether it is visible yet or not.
    pub fn notice(&self) -> &Notice {
        let Self { notice } = self;
        notice
    }

    /// Everything that is visible at `now`, in the order of their paths.
    pub fn visible(&self, now: Timestamp) -> Vec<Item> {
        let Self { notice } = self;
        if now < notice.appears {
            return Vec::new();
        }
        let Notice {
            action,
            appears: since,
            deadline,
        } = *notice;
        let mut items = vec![Item {
            path: "spot/instance-action",
            value: format!(r#"{{"action": "{action}", "time": "{deadline}"}}"#),
            since,
        }];
        // The older item has no word for the others.
        if action == Action::Terminate {
            items.push(Item {
                path: "spot/termination-time",
                value: deadline.to_string(),
                since,
            });
        }
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn plan(action: Action) -> Plan {
        Plan {
            action,
            notice_after: SignedDuration::from_secs(10),
            lead: action.default_lead(),
        }
    }

    fn values(timeline: &Timeline, now: &str) -> Vec<(&'static str, String)> {
        let visible = timeline.visible(at(now)).into_iter();
        visible.map(|item| (item.path, item.value)).collect()
    }

    #[test]
    fn nothing_is_visible_before_the_notice() {
        let timeline = plan(Action::Terminate)
            .arm(at("2017-09-18T08:20:00Z"))
            .unwrap();
        assert_eq!(values(&timeline, "2017-09-18T08:20:09.999Z"), []);
        assert_eq!(values(&timeline, "2017-09-18T08:20:10Z").len(), 2);
    }

    #[test]
    fn a_termination_has_the_documented_form() {
        let timeline = plan(Action::Terminate)
            .arm(at("2017-09-18T08:19:50Z"))
            .unwrap();
        let expected = [
            (
                "spot/instance-action",
                r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#.to_owned(),
            ),
            ("spot/termination-time", "2017-09-18T08:22:00Z".to_owned()),
        ];
        for now in [
            "2017-09-18T08:20:00Z",
            "2017-09-18T08:21:59.5Z",
            "2030-01-01T00:00:00Z",
        ] {
            assert_eq!(values(&timeline, now), expected, "at {now}");
        }
    }

    #[test]
    fn only_a_termination_has_a_termination_time() {
        for action in [Action::Stop, Action::Hibernate] {
            let timeline = plan(action).arm(at("2017-09-18T08:00:00Z")).unwrap();
            let visible = values(&timeline, "2018-01-01T00:00:00Z");
            assert_eq!(visible.len(), 1);
            assert!(
                visible[0]
                    .1
                    .starts_with(&format!(r#"{{"action": "{action}","#))
            );
        }
    }

    #[test]
    fn hibernation_has_no_lead() {
        let timeline = plan(Action::Hibernate)
            .arm(at("2017-09-18T08:00:00Z"))
            .unwrap();
        assert_eq!(timeline.notice().deadline, at("2017-09-18T08:00:10Z"));
    }

    #[test]
    fn a_deadline_is_a_whole_second_and_never_early() {
        let timeline = plan(Action::Stop)
            .arm(at("2017-09-18T08:00:00.000000001Z"))
            .unwrap();
        assert_eq!(timeline.notice().deadline, at("2017-09-18T08:02:11Z"));
        assert_eq!(
            timeline.notice().deadline.to_string(),
            "2017-09-18T08:02:11Z"
        );
    }

    #[test]
    fn a_plan_past_the_end_of_time_is_refused() {
        let forever = Plan {
            lead: SignedDuration::MAX,
            ..plan(Action::Stop)
        };
        assert_eq!(forever.arm(at("2017-09-18T08:00:00Z")), None);
    }

    #[test]
    fn actions_are_read_as_they_are_written() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse(), Ok(action));
        }
        assert!("Terminate".parse::<Action>().is_err());
    }
}
