//! Which faults there are, and in which order they come: pure, and the same for the same seed.

use std::{fmt, time::Duration};

use fastrand::Rng;

use crate::world::TARGETS;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// spotsim is killed, and started again after a while.
    Kill,
    /// spotsim is told to end, and started again after a while.
    Stop,
    /// spotsim is killed, and started again with so many descriptors.
    FewDescriptors(u64),
    /// spotsim can have no more descriptors than it has just now, but for so many.
    NoDescriptors(u64),
    /// spotsim can have no more memory than it has just now, but for so many bytes, and a crowd
    /// comes.
    NoMemory(u64),
    /// These targets are removed with all that runs in them, and made again.
    Targets(Vec<usize>),
    /// The upstream is not what it should be.
    Upstream(Sickness),
    /// The control socket gets what is no request, made of this seed.
    ControlGarbage(u64),
    /// So many clients of the control socket trigger and cancel at the same time.
    ControlRace(usize),
    /// A target opens so many connections and sends nothing of use.
    Hostile(usize),
}

/// What an upstream can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sickness {
    /// It is not there: connections are refused.
    Stopped,
    /// It takes requests and never answers.
    Hangs,
    /// It answers late.
    Slow,
    /// It resets whoever asks.
    Resets,
    /// It answers with what is no HTTP.
    Garbage,
    /// It speaks HTTP/1.0.
    Http10,
}

/// One fault, which begins, lasts, and ends; then everything must be well again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub fault: Fault,
    /// What the upstream has meanwhile.
    pub meanwhile: Option<Sickness>,
    pub lasts: Duration,
}

/// An endless row of steps. Each kind of fault comes once before any comes again.
#[derive(Clone, Debug)]
pub struct Plan {
    rng: Rng,
    /// The kinds that are still to come in this round.
    round: Vec<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Stop,
    FewDescriptors,
    NoDescriptors,
    NoMemory,
    Targets,
    Upstream(Sickness),
    ControlGarbage,
    ControlRace,
    Hostile,
}

const KINDS: [Kind; 15] = [
    Kind::Kill,
    Kind::Stop,
    Kind::FewDescriptors,
    Kind::NoDescriptors,
    Kind::NoMemory,
    Kind::Targets,
    Kind::Upstream(Sickness::Stopped),
    Kind::Upstream(Sickness::Hangs),
    Kind::Upstream(Sickness::Slow),
    Kind::Upstream(Sickness::Resets),
    Kind::Upstream(Sickness::Garbage),
    Kind::Upstream(Sickness::Http10),
    Kind::ControlGarbage,
    Kind::ControlRace,
    Kind::Hostile,
];

const SICKNESSES: [Sickness; 6] = [
    Sickness::Stopped,
    Sickness::Hangs,
    Sickness::Slow,
    Sickness::Resets,
    Sickness::Garbage,
    Sickness::Http10,
];

impl Plan {
    pub fn of(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            round: Vec::new(),
        }
    }

    fn fault(&mut self, kind: Kind) -> Fault {
        let Self { rng, .. } = self;
        match kind {
            Kind::Kill => Fault::Kill,
            Kind::Stop => Fault::Stop,
            // A sixteenth of it are one listener's connections (ARCHITECTURE.md): enough for a
            // crowd and for those who ask besides. What gives way where it is not, `hostile.rs`
            // tests.
            Kind::FewDescriptors => Fault::FewDescriptors(rng.u64(2_048..4_096)),
            Kind::NoDescriptors => Fault::NoDescriptors(rng.u64(0..6)),
            Kind::NoMemory => Fault::NoMemory(rng.u64(0..4 * 1024 * 1024)),
            Kind::Targets => {
                let mut targets = rng.choose_multiple(0..TARGETS, 6);
                targets.sort_unstable();
                Fault::Targets(targets)
            }
            Kind::Upstream(sickness) => Fault::Upstream(sickness),
            Kind::ControlGarbage => Fault::ControlGarbage(rng.u64(..)),
            Kind::ControlRace => Fault::ControlRace(rng.usize(2..8)),
            Kind::Hostile => Fault::Hostile(rng.usize(100..1_000)),
        }
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let Self { rng, round } = self;
        if round.is_empty() {
            round.extend(KINDS);
            rng.shuffle(round);
        }
        let kind = round.pop()?;
        let fault = self.fault(kind);
        let Self { rng, .. } = self;
        let accompanied = !matches!(fault, Fault::Upstream(_)) && rng.u8(..3) == 0;
        let meanwhile = accompanied.then(|| SICKNESSES[rng.usize(..SICKNESSES.len())]);
        let lasts = Duration::from_millis(rng.u64(200..1_500));
        Some(Step {
            fault,
            meanwhile,
            lasts,
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            fault,
            meanwhile,
            lasts: _,
        } = self;
        match fault {
            Fault::Kill => f.write_str("spotsim is killed")?,
            Fault::Stop => f.write_str("spotsim is told to end")?,
            Fault::FewDescriptors(limit) => {
                write!(f, "spotsim is killed, and has {limit} descriptors then")?;
            }
            Fault::NoDescriptors(0) => f.write_str("spotsim gets no descriptor any more")?,
            Fault::NoDescriptors(spare) => write!(f, "spotsim gets {spare} descriptors more")?,
            Fault::NoMemory(spare) => {
                write!(f, "spotsim gets {} KB more, and a crowd", spare / 1024)?
            }
            Fault::Targets(targets) => {
                let names = targets.iter().map(ToString::to_string);
                let names = names.collect::<Vec<_>>().join(", ");
                write!(f, "targets {names} are removed and made again")?;
            }
            Fault::Upstream(sickness) => write!(f, "the upstream {sickness}")?,
            Fault::ControlGarbage(_) => f.write_str("the control socket gets garbage")?,
            Fault::ControlRace(clients) => write!(f, "{clients} trigger and cancel at once")?,
            Fault::Hostile(connections) => {
                write!(
                    f,
                    "a target opens {connections} connections and asks nothing"
                )?;
            }
        }
        match meanwhile {
            Some(sickness) => write!(f, ", while the upstream {sickness}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Sickness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "is not there",
            Self::Hangs => "hangs",
            Self::Slow => "is slow",
            Self::Resets => "resets connections",
            Self::Garbage => "answers garbage",
            Self::Http10 => "speaks HTTP/1.0",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seed: u64, count: usize) -> Vec<Step> {
        Plan::of(seed).take(count).collect()
    }

    #[test]
    fn a_seed_gives_the_same_plan_again() {
        assert_eq!(first(7, 200), first(7, 200));
        assert_ne!(first(7, 200), first(8, 200));
    }

    #[test]
    fn every_kind_comes_in_every_round() {
        for seed in 0..50 {
            for round in first(seed, 3 * KINDS.len()).chunks(KINDS.len()) {
                let mut kinds: Vec<_> = round
                    .iter()
                    .map(|step| match &step.fault {
                        Fault::Upstream(sickness) => format!("{sickness:?}"),
                        fault => format!("{:?}", std::mem::discriminant(fault)),
                    })
                    .collect();
                kinds.sort();
                kinds.dedup();
                assert_eq!(kinds.len(), KINDS.len(), "{round:?}");
            }
        }
    }

    #[test]
    fn the_upstream_has_one_sickness_at_a_time() {
        let alone =
            |step: &Step| !matches!(step.fault, Fault::Upstream(_)) || step.meanwhile.is_none();
        assert!(first(1, 500).iter().all(alone));
        assert!(first(1, 500).iter().any(|step| step.meanwhile.is_some()));
    }
}
