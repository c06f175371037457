//! Judges each request by what was going on while it was under way: pure.
//!
//! The rule: a request may fail only where it would have failed without spotsim too, or where
//! spotsim says that it may. Which of that there was when is the [`Course`].

use std::{collections::HashMap, fmt};

use crate::client::{Failure, Kind, Outcome, Record};

/// What a client's IMDS says of itself (`src/bin/upstream`).
const INSTANCE_ID: &str = "i-0a1b2c3d4e5f60718";

/// What was going on, in microseconds of the records' clock.
#[derive(Debug, Default)]
pub struct Course {
    /// One spotsim after the other.
    pub lives: Vec<Life>,
    /// When the upstream was not well, or perhaps not.
    pub sick: Vec<Span>,
    pub clients: HashMap<String, Standing>,
}

/// From then, until then if it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: u64,
    pub to: Option<u64>,
}

/// A process of spotsim.
#[derive(Debug, Default)]
pub struct Life {
    pub started: u64,
    /// When it said so.
    pub armed: Option<u64>,
    /// When something was announced for sure, and what `spot/instance-action` must be then.
    pub shown: Vec<(Span, String)>,
    /// Since when it may have been dying of a kill.
    pub killed: Option<u64>,
    /// Since when it was gone.
    pub gone: Option<u64>,
}

/// Where a client is, as spotsim must see it.
#[derive(Clone, Debug)]
pub enum Standing {
    /// In no target.
    Outsider,
    Target {
        /// When it came.
        made: u64,
        /// Since when it may be intercepted; `None` while no spotsim can know it.
        possible: Option<u64>,
        /// Since when it must be; `None` until it was.
        covered: Option<u64>,
        /// Whether there is no way to any IMDS but spotsim.
        island: bool,
    },
}

/// What was found of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// It failed, and may.
    Excused(Reason),
    /// It broke a promise: which, and how.
    Broken(String),
}

/// Why a request may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The upstream failed, for everybody.
    Upstream,
    /// It was under way as spotsim died.
    InFlight,
    /// Its connection was older than the interception.
    CutAtArming,
    /// There is no IMDS for it, and spotsim did not listen there yet or had nothing announced.
    NoWay,
}

impl Reason {
    pub const ALL: [Self; 4] = [
        Self::Upstream,
        Self::InFlight,
        Self::CutAtArming,
        Self::NoWay,
    ];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upstream => "the upstream itself failed",
            Self::InFlight => "in flight as spotsim died",
            Self::CutAtArming => "connected before the arming, and cut",
            Self::NoWay => "no IMDS there, and not intercepted yet",
        })
    }
}

impl Span {
    pub fn since(from: u64) -> Self {
        Self { from, to: None }
    }

    /// Whether they have a moment in common.
    pub fn meets(&self, other: Self) -> bool {
        let begins_before = |one: Self, other: Self| other.to.is_none_or(|to| one.from <= to);
        begins_before(*self, other) && begins_before(other, *self)
    }

    fn overlaps(&self, record: &Record) -> bool {
        self.meets(Self {
            from: record.began,
            to: Some(record.ended),
        })
    }

    fn holds(&self, record: &Record) -> bool {
        self.from <= record.began && self.to.is_none_or(|to| record.ended <= to)
    }
}

impl Life {
    fn whole(&self) -> Span {
        Span {
            from: self.started,
            to: self.gone,
        }
    }

    /// While older connections may be cut: those that were there when it said that it is armed.
    fn arming(&self) -> Span {
        Span {
            from: self.started,
            to: self.armed.or(self.gone),
        }
    }

    fn dying(&self) -> Option<Span> {
        let from = self.killed?;
        Some(Span {
            from,
            to: self.gone,
        })
    }
}

impl Course {
    /// What every request must see that is wholly in the time of this record; `None` if that is
    /// not certain.
    fn shown(&self, record: &Record) -> Option<&str> {
        let mut shown = self.lives.iter().rev().flat_map(|life| &life.shown);
        let shown = shown.find(|(span, _)| span.holds(record));
        shown.map(|(_, document)| document.as_str())
    }

    fn alive(&self, record: &Record) -> bool {
        let mut lives = self.lives.iter().rev();
        lives.any(|life| life.whole().overlaps(record))
    }

    /// The life that may have cost a request its connection as it died.
    pub fn dying(&self, record: &Record) -> Option<usize> {
        self.lives
            .iter()
            .rposition(|life| life.dying().is_some_and(|dying| dying.overlaps(record)))
    }

    fn arming(&self, record: &Record) -> bool {
        let mut lives = self.lives.iter().rev();
        lives.any(|life| life.arming().overlaps(record))
    }

    fn sick(&self, record: &Record) -> bool {
        self.sick.iter().rev().any(|span| span.overlaps(record))
    }

    /// Judges a request of a client that is known.
    pub fn judge(&self, record: &Record) -> Verdict {
        match &self.clients[&record.client] {
            Standing::Outsider => self.judge_outsider(record),
            Standing::Target { .. } => self.judge_target(record),
        }
    }

    fn judge_outsider(&self, record: &Record) -> Verdict {
        let right = match (&record.outcome, record.kind) {
            (Outcome::Answered { direct: false, .. }, _) => {
                return broken(record, "an outsider was redirected");
            }
            (Outcome::Answered { status, .. }, Kind::Faked) => *status == 404,
            (Outcome::Answered { status, body, .. }, _) => is_the_id(*status, body),
            (Outcome::Failed(..), _) => false,
        };
        match right {
            true => Verdict::Good,
            false if self.sick(record) => Verdict::Excused(Reason::Upstream),
            false => broken(record, "a request of an outsider failed"),
        }
    }

    fn judge_target(&self, record: &Record) -> Verdict {
        let covered = self.is_covered(record);
        let must = covered.then(|| self.shown(record)).flatten();
        match (&record.outcome, record.kind) {
            (
                Outcome::Answered {
                    status: 200, body, ..
                },
                Kind::Faked,
            ) => match must {
                Some(document) if document == body => Verdict::Good,
                Some(_) => broken(record, "not the notice that was announced"),
                None if self.may_be_faked(record) && looks_like_a_notice(body) => Verdict::Good,
                None => broken(record, "a fake where none can be"),
            },
            (Outcome::Answered { status: 404, .. }, Kind::Faked) => match must {
                None => Verdict::Good,
                Some(_) => broken(record, "the notice was not shown"),
            },
            (
                Outcome::Answered {
                    status,
                    body,
                    direct,
                },
                Kind::Passed | Kind::Token,
            ) if is_the_id(*status, body) => match direct {
                true if must.is_some() => broken(record, "a request of a target went past"),
                false if !self.alive(record) => broken(record, "somebody stood between"),
                _ => Verdict::Good,
            },
            (Outcome::Answered { .. }, Kind::Token) if self.sick(record) => {
                Verdict::Excused(Reason::Upstream)
            }
            (Outcome::Answered { .. }, _) => broken(record, "not what the upstream answers"),
            (Outcome::Failed(failure, _), kind) => {
                match self.excuse(record, *failure, kind, must.is_some()) {
                    Some(reason) => Verdict::Excused(reason),
                    None => broken(
                        record,
                        "a request failed that would not have without spotsim",
                    ),
                }
            }
        }
    }

    fn excuse(&self, record: &Record, failure: Failure, kind: Kind, must: bool) -> Option<Reason> {
        let Standing::Target {
            made,
            covered,
            island,
            ..
        } = self.clients[&record.client]
        else {
            return None;
        };
        let new = Span {
            from: made,
            to: covered,
        };
        if self.sick(record) && (kind != Kind::Faked || !must) {
            return Some(Reason::Upstream);
        }
        // Its every request fails while there is no spotsim.
        if island && !must && failure == Failure::Unreachable {
            return Some(Reason::NoWay);
        }
        if self.dying(record).is_some() {
            return Some(Reason::InFlight);
        }
        if failure == Failure::Aborted && (self.arming(record) || new.overlaps(record)) {
            return Some(Reason::CutAtArming);
        }
        (island && !must).then_some(Reason::NoWay)
    }

    fn is_covered(&self, record: &Record) -> bool {
        matches!(
            self.clients[&record.client],
            Standing::Target { covered: Some(covered), .. } if covered <= record.began
        )
    }

    fn may_be_faked(&self, record: &Record) -> bool {
        let possible = matches!(
            self.clients[&record.client],
            Standing::Target { possible: Some(possible), .. } if possible <= record.ended
        );
        possible && self.alive(record)
    }
}

fn is_the_id(status: u16, body: &str) -> bool {
    status == 200 && body == INSTANCE_ID
}

fn looks_like_a_notice(body: &str) -> bool {
    body.starts_with(r#"{"action": ""#) && body.ends_with(r#"Z"}"#)
}

fn broken(record: &Record, how: &str) -> Verdict {
    Verdict::Broken(format!("{how}: {}", described(record)))
}

/// A request in words.
fn described(record: &Record) -> String {
    let Record {
        client,
        kind,
        began,
        ended,
        outcome,
    } = record;
    let what = match outcome {
        Outcome::Answered {
            status,
            direct,
            body,
        } => {
            let way = if *direct { "direct" } else { "not direct" };
            let body: String = body.chars().take(60).collect();
            format!("{status} ({way}) {body:?}")
        }
        Outcome::Failed(failure, why) => format!("{} ({why})", failure.name()),
    };
    let took = (ended - began) as f64 / 1_000.0;
    format!("{client}, {}: {what} after {took:.1} ms", kind.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTICE: &str = r#"{"action": "stop", "time": "2026-11-21T09:49:21Z"}"#;

    fn span(from: u64, to: u64) -> Span {
        Span { from, to: Some(to) }
    }

    /// spotsim from 100 to 500, killed at 480, armed at 120 and shown from 130; the upstream sick
    /// from 300 to 350.
    fn course() -> Course {
        let life = Life {
            started: 100,
            armed: Some(120),
            shown: vec![(span(130, 480), NOTICE.to_owned())],
            killed: Some(480),
            gone: Some(500),
        };
        let target = |island| Standing::Target {
            made: 10,
            possible: Some(100),
            covered: Some(120),
            island,
        };
        Course {
            lives: vec![life],
            sick: vec![span(300, 350)],
            clients: HashMap::from([
                ("target".to_owned(), target(false)),
                ("island".to_owned(), target(true)),
                ("outsider".to_owned(), Standing::Outsider),
            ]),
        }
    }

    fn judged(client: &str, kind: Kind, (began, ended): (u64, u64), outcome: Outcome) -> Verdict {
        course().judge(&Record {
            client: client.to_owned(),
            kind,
            began,
            ended,
            outcome,
        })
    }

    fn answered(status: u16, direct: bool, body: &str) -> Outcome {
        Outcome::Answered {
            status,
            direct,
            body: body.to_owned(),
        }
    }

    fn failed(failure: Failure) -> Outcome {
        Outcome::Failed(failure, String::new())
    }

    fn is_broken(verdict: Verdict, how: &str) -> bool {
        matches!(verdict, Verdict::Broken(text) if text.starts_with(how))
    }

    #[test]
    fn a_notice_must_be_seen_while_it_is_shown_and_by_targets_only() {
        let fake = || answered(200, false, NOTICE);
        assert_eq!(
            judged("target", Kind::Faked, (200, 210), fake()),
            Verdict::Good
        );
        assert_eq!(
            judged("target", Kind::Faked, (90, 105), fake()),
            Verdict::Good
        );
        for when in [(10, 99), (501, 600)] {
            assert!(is_broken(
                judged("target", Kind::Faked, when, fake()),
                "a fake where"
            ));
        }
        let other = answered(200, false, &NOTICE.replace("stop", "terminate"));
        assert!(is_broken(
            judged("target", Kind::Faked, (200, 210), other),
            "not the notice"
        ));
        let none = || answered(404, true, "");
        assert!(is_broken(
            judged("target", Kind::Faked, (310, 320), none()),
            "the notice was not shown"
        ));
        assert_eq!(
            judged("target", Kind::Faked, (110, 140), none()),
            Verdict::Good
        );
        assert_eq!(
            judged("outsider", Kind::Faked, (200, 210), none()),
            Verdict::Good
        );
        for fake in [fake(), answered(200, true, NOTICE)] {
            let verdict = judged("outsider", Kind::Faked, (200, 210), fake);
            assert!(is_broken(verdict, "a"), "whatever it says");
        }
    }

    #[test]
    fn who_stands_between_is_noticed() {
        let through = || answered(200, false, INSTANCE_ID);
        let direct = || answered(200, true, INSTANCE_ID);
        for kind in [Kind::Passed, Kind::Token] {
            assert_eq!(judged("target", kind, (200, 210), through()), Verdict::Good);
            assert!(is_broken(
                judged("target", kind, (200, 210), direct()),
                "a request of"
            ));
            assert!(is_broken(
                judged("target", kind, (600, 610), through()),
                "somebody"
            ));
            assert!(is_broken(
                judged("outsider", kind, (200, 210), through()),
                "an outsider"
            ));
            assert_eq!(
                judged("outsider", kind, (200, 210), direct()),
                Verdict::Good
            );
        }
    }

    #[test]
    fn a_failure_needs_its_reason() {
        let excused =
            |client, kind, when, failure| match judged(client, kind, when, failed(failure)) {
                Verdict::Excused(reason) => Some(reason),
                Verdict::Broken(_) => None,
                Verdict::Good => panic!("a failure is not good"),
            };
        use Failure::{Aborted, Broken, Refused, TimedOut, Unreachable};
        let sick = (310, 320);
        assert_eq!(excused("target", Kind::Passed, (200, 210), Broken), None);
        assert_eq!(
            excused("target", Kind::Passed, sick, TimedOut),
            Some(Reason::Upstream)
        );
        // The upstream's faults are none of a faked path.
        assert_eq!(excused("target", Kind::Faked, sick, TimedOut), None);
        assert_eq!(
            excused("outsider", Kind::Faked, sick, Broken),
            Some(Reason::Upstream)
        );
        assert_eq!(
            excused("target", Kind::Faked, (470, 490), Refused),
            Some(Reason::InFlight)
        );
        assert_eq!(excused("outsider", Kind::Faked, (470, 490), Refused), None);
        assert_eq!(excused("target", Kind::Faked, (501, 510), Refused), None);
        assert_eq!(
            excused("target", Kind::Passed, (90, 110), Aborted),
            Some(Reason::CutAtArming)
        );
        assert_eq!(excused("target", Kind::Passed, (90, 110), Refused), None);
        assert_eq!(excused("target", Kind::Passed, (200, 210), Aborted), None);
        assert_eq!(
            excused("island", Kind::Faked, (20, 30), Unreachable),
            Some(Reason::NoWay)
        );
        assert_eq!(
            excused("island", Kind::Faked, (200, 210), Unreachable),
            None
        );
        assert_eq!(
            excused("island", Kind::Faked, (490, 491), Unreachable),
            Some(Reason::NoWay)
        );
        assert_eq!(
            excused("island", Kind::Faked, (470, 490), Broken),
            Some(Reason::InFlight)
        );
    }
}
