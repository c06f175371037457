//! What is counted, and how it is shown.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::Duration,
};

use crate::{
    client::{Kind, Outcome, Record},
    judge::{Course, Reason, Standing, Verdict},
};

/// So many breaches are shown; more say nothing new.
pub const SHOWN: usize = 12;

/// More resident memory than this, in bytes, is a leak: with these targets and a crowd it is a
/// third.
const MOST_MEMORY: u64 = 100_000_000;

/// What was left: its kind, how many, and which.
pub type Left = (&'static str, usize, String);

/// Everything that was counted.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests by who asked for what.
    requests: BTreeMap<(&'static str, Kind), u64>,
    excused: BTreeMap<Reason, u64>,
    /// Failures in flight, by the life that ended, the client, and what it asked for.
    in_flight: HashMap<(usize, String, Kind), u32>,
    /// What the notice took those who saw it, in microseconds.
    latencies: Vec<u32>,
    /// What broke, in the order in which it was seen.
    pub broken: Vec<String>,
    /// What was left behind, by its kind.
    left: Vec<(&'static str, usize)>,
    /// The most memory that spotsim had, in bytes.
    memory: u64,
}

impl Tally {
    /// Judges and counts a request.
    pub fn count(&mut self, course: &Course, record: &Record) {
        let who = match course.clients[&record.client] {
            Standing::Outsider => "outsiders",
            Standing::Target { .. } => "targets",
        };
        *self.requests.entry((who, record.kind)).or_default() += 1;
        let seen = matches!(record.outcome, Outcome::Answered { status: 200, .. });
        if record.kind == Kind::Faked && seen {
            let took = record.ended - record.began;
            self.latencies.push(u32::try_from(took).unwrap_or(u32::MAX));
        }
        match course.judge(record) {
            Verdict::Good => {}
            Verdict::Excused(reason) => {
                *self.excused.entry(reason).or_default() += 1;
                if reason == Reason::InFlight {
                    self.count_in_flight(course, record);
                }
            }
            Verdict::Broken(how) => self.broken.push(how),
        }
    }

    /// Of whoever asks for one thing at a time, one request can be in flight.
    fn count_in_flight(&mut self, course: &Course, record: &Record) {
        let Some(life) = course.dying(record) else {
            return;
        };
        let key = (life, record.client.clone(), record.kind);
        let count = self.in_flight.entry(key).or_default();
        *count += 1;
        if *count > 1 {
            let Record { client, kind, .. } = record;
            self.broken.push(format!(
                "one death of spotsim cost {client} {count} requests of a kind ({})",
                kind.name()
            ));
        }
    }

    /// Counts what is there at the end and was not before, and the most memory there was.
    pub fn count_left(&mut self, left: &[Left], memory: u64) {
        for (kind, count, what) in left {
            self.left.push((kind, *count));
            if *count > 0 {
                self.broken.push(format!("left: {count} {kind}: {what}"));
            }
        }
        self.memory = memory;
        if memory > MOST_MEMORY {
            self.broken
                .push(format!("spotsim had {memory} bytes resident"));
        }
        // Or nothing was tried.
        if self.latencies.is_empty() {
            self.broken.push("nobody ever saw a notice".to_owned());
        }
    }

    /// How many requests there were.
    pub fn requests(&self) -> u64 {
        self.requests.values().sum()
    }

    /// How many of them failed and may.
    pub fn excused(&self) -> u64 {
        self.excused.values().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            requests,
            excused,
            latencies,
            broken,
            left,
            memory,
            in_flight: _,
        } = self;
        writeln!(f, "requests            faked      passed       token")?;
        for who in ["targets", "outsiders"] {
            write!(f, "  {who:<12}")?;
            for kind in Kind::ALL {
                let count = requests.get(&(who, kind)).copied().unwrap_or_default();
                write!(f, "{count:>12}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "failures that may be")?;
        for reason in Reason::ALL {
            let count = excused.get(&reason).copied().unwrap_or_default();
            writeln!(f, "  {:<40}{count:>8}", reason.to_string())?;
        }
        writeln!(f, "  {:<40}{:>8}", "any other", broken.len())?;
        let mut sorted = latencies.clone();
        sorted.sort_unstable();
        let at = |share: f64| {
            let index = (sorted.len() as f64 * share) as usize;
            let micros = sorted.get(index.min(sorted.len().saturating_sub(1)));
            Duration::from_micros(micros.copied().unwrap_or_default().into())
        };
        writeln!(
            f,
            "the notice took     p50 {}   p99 {}   worst {}",
            millis(at(0.5)),
            millis(at(0.99)),
            millis(at(1.0))
        )?;
        writeln!(
            f,
            "spotsim's memory    {:.1} MB at most",
            *memory as f64 / 1e6
        )?;
        writeln!(f, "left behind")?;
        for (kind, count) in left {
            writeln!(f, "  {kind:<40}{count:>8}")?;
        }
        for how in broken.iter().take(SHOWN) {
            writeln!(f, "  BROKEN {how}")?;
        }
        if broken.len() > SHOWN {
            writeln!(f, "  … and {} more", broken.len() - SHOWN)?;
        }
        Ok(())
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}
