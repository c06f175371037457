//! Many clients at once, each with one connection a request, on each way.

use std::time::Duration;

use serde_json::{Map, json};

use crate::{
    chart::{Bar, Chart},
    client::Load,
    section::{Goal, Ratio, Section, Table, microseconds},
    statistics::Spread,
    ways::{CHECKED, DIRECT, FAKED, PASSED, RELAY, SOCAT, Ways},
};

const ROUNDS: usize = 7;
const CLIENTS: usize = 64;
const TIME: Duration = Duration::from_secs(1);

/// A round on one way: what the clients saw, and the processor time of all who took part.
struct Round {
    load: Load,
    processor: Duration,
}

impl Round {
    /// Requests answered in a second.
    fn rate(&self) -> f64 {
        self.load.requests as f64 / self.load.elapsed.as_secs_f64()
    }

    /// Processor time for each request, in microseconds.
    fn cost(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / self.load.requests.max(1) as f64
    }
}

/// What came of one way.
struct Found {
    name: &'static str,
    rounds: Vec<Round>,
}

impl Found {
    fn spread(&self, of: impl Fn(&Round) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(of))
    }

    /// Round by round, another's figure by one's own.
    fn to(&self, other: &Self, of: impl Fn(&Round) -> f64) -> Spread {
        let rounds = self.rounds.iter().zip(&other.rounds);
        Spread::of(rounds.map(|(own, other)| of(own) / of(other)))
    }

    /// The longest that a client waited for an answer, in nanoseconds.
    fn worst(&self) -> u64 {
        let longest = self.rounds.iter().map(|round| round.load.max);
        longest.max().unwrap_or_default()
    }

    fn failed(&self) -> u64 {
        self.rounds.iter().map(|round| round.load.failed).sum()
    }
}

pub fn measure(ways: &mut Ways, check: impl Fn()) -> (Section, Chart) {
    let mut found: Vec<_> = ways
        .ways
        .iter()
        .map(|way| Found {
            name: way.name,
            rounds: vec![],
        })
        .collect();
    // The first round found caches cold.
    for round in 0..=ROUNDS {
        for index in ways.order(round) {
            check();
            let before = ways.processor_time();
            let load = ways.ways[index].client.load(CLIENTS, TIME);
            let processor = ways.processor_time() - before;
            if round > 0 {
                found[index].rounds.push(Round { load, processor });
            }
        }
    }
    section(&found)
}

fn section(found: &[Found]) -> (Section, Chart) {
    let way = |name| {
        let found = found.iter().find(|found| found.name == name);
        found.expect("it was measured")
    };
    let direct = way(DIRECT);
    let row = |found: &Found| {
        let rate = found.spread(Round::rate);
        let percentile = |of: fn(&Load) -> u64| {
            let spread = found.spread(|round| microseconds(of(&round.load)));
            format!("{:.1} ms", spread.median / 1e3)
        };
        vec![
            found.name.to_owned(),
            format!("{:.0}/s", rate.median),
            format!("{:.0} to {:.0}", rate.least, rate.most),
            format!("{:.2}", found.to(direct, Round::rate).median),
            format!("{:.0} µs", found.spread(Round::cost).median),
            percentile(|load| load.p50),
            percentile(|load| load.p99),
            format!("{:.0} ms", microseconds(found.worst()) / 1e3),
            found.failed().to_string(),
        ]
    };
    let [faked, passed] = [FAKED, PASSED].map(|name| way(name).to(direct, Round::rate));
    let ours = [FAKED, CHECKED, PASSED].map(way);
    let worst = ours.iter().map(|found| found.worst()).max();
    let worst = microseconds(worst.unwrap_or_default()) / 1e3;
    let failed: u64 = ours.iter().map(|found| found.failed()).sum();
    let goals = vec![
        Goal::new(
            "faked at least 0.95 of direct",
            format!("{:.2}", faked.median),
            faked.median >= 0.95,
        ),
        Goal::new(
            "passed through at least 0.55 of direct",
            format!("{:.2}", passed.median),
            passed.median >= 0.55,
        ),
        Goal::new(
            "through spotsim none fails, and none takes over 100 ms",
            format!("{failed} failed, the longest took {worst:.0} ms"),
            failed == 0 && worst <= 100.0,
        ),
    ];
    // Turned around, so that less is better.
    let ratios = [
        (
            "direct's rate to faked's",
            direct.to(way(FAKED), Round::rate),
        ),
        (
            "direct's rate to passed's",
            direct.to(way(PASSED), Round::rate),
        ),
        (
            "relay's rate to passed's",
            way(RELAY).to(way(PASSED), Round::rate),
        ),
        (
            "socat's rate to faked's",
            way(SOCAT).to(way(FAKED), Round::rate),
        ),
        (
            "processor time, faked to direct",
            way(FAKED).to(direct, Round::cost),
        ),
        (
            "processor time, passed to direct",
            way(PASSED).to(direct, Round::cost),
        ),
    ];
    let figures: Map<_, _> = found
        .iter()
        .map(|found| {
            let figures = json!({
                "requests_per_second": found.spread(Round::rate).json(),
                "to_direct": found.to(direct, Round::rate).json(),
                "processor_us_per_request": found.spread(Round::cost).json(),
                "p99_us": found.spread(|round| microseconds(round.load.p99)).json(),
                "max_us": microseconds(found.worst()),
                "failed": found.failed(),
            });
            (found.name.to_owned(), figures)
        })
        .collect();
    let section = Section {
        name: "throughput",
        about: format!(
            "{CLIENTS} clients at once, one connection a request: {ROUNDS} rounds of {} s on every way",
            TIME.as_secs()
        ),
        table: Table {
            head: vec![
                "way",
                "requests",
                "rounds",
                "of direct",
                "CPU each",
                "p50",
                "p99",
                "longest",
                "failed",
            ],
            rows: found.iter().map(row).collect(),
        },
        goals,
        ratios: ratios.map(|(name, spread)| Ratio { name, spread }).into(),
        figures: figures.into(),
    };
    let bars = found.iter().map(|found| Bar {
        name: found.name,
        value: found.spread(Round::rate).median,
        most: None,
    });
    let chart = Chart {
        title: "64 clients at once",
        unit: "requests/s",
        bars: bars.collect(),
    };
    (section, chart)
}
