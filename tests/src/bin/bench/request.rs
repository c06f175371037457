//! One GET after the other, on each way.

use serde_json::{Map, json};

use crate::{
    chart::{Bar, Chart},
    section::{Goal, Ratio, Section, Table, microseconds, times},
    statistics::{Spread, percentile},
    ways::{CHECKED, DIRECT, DNAT, FAKED, PASSED, POD_DIRECT, POD_PASSED, RELAY, SOCAT, Ways},
};

const ROUNDS: usize = 30;
const REQUESTS: usize = 200;

/// What came of one way.
struct Found {
    name: &'static str,
    /// Of each round, in nanoseconds.
    medians: Vec<u64>,
    /// Of all requests, sorted.
    all: Vec<u64>,
}

impl Found {
    fn p50(&self) -> u64 {
        percentile(&self.all, 0.5)
    }

    fn p99(&self) -> u64 {
        percentile(&self.all, 0.99)
    }

    /// How many times as long as another, round by round.
    fn to(&self, other: &Self) -> Spread {
        let rounds = self.medians.iter().zip(&other.medians);
        Spread::of(rounds.map(|(own, other)| *own as f64 / *other as f64))
    }
}

pub fn measure(ways: &mut Ways, check: impl Fn()) -> (Section, Chart) {
    let mut found: Vec<_> = ways.ways.iter().map(|way| Found::new(way.name)).collect();
    // The first ones find caches cold.
    for round in 0..=ROUNDS {
        check();
        for index in ways.order(round) {
            let took = ways.ways[index].client.latencies(REQUESTS);
            if round > 0 {
                found[index].add(took);
            }
        }
    }
    for Found { all, .. } in &mut found {
        all.sort_unstable();
    }
    section(&found)
}

impl Found {
    fn new(name: &'static str) -> Self {
        let (medians, all) = (vec![], vec![]);
        Self { name, medians, all }
    }

    fn add(&mut self, mut took: Vec<u64>) {
        took.sort_unstable();
        self.medians.push(percentile(&took, 0.5));
        self.all.append(&mut took);
    }
}

fn section(found: &[Found]) -> (Section, Chart) {
    let way = |name| {
        let found = found.iter().find(|found| found.name == name);
        found.expect("it was measured")
    };
    let direct = way(DIRECT);
    let row = |found: &Found| {
        let Spread {
            median,
            least,
            most,
        } = found.to(direct);
        vec![
            found.name.to_owned(),
            format!("{:.0} µs", microseconds(found.p50())),
            format!("{:.0} µs", microseconds(found.p99())),
            times(median),
            format!("{least:.2} to {most:.2}"),
        ]
    };
    let [faked, passed, checked] = [FAKED, PASSED, CHECKED].map(|name| way(name).to(direct));
    let socat = way(SOCAT).to(way(FAKED));
    let added = |passed, direct| microseconds(way(passed).p50()) - microseconds(way(direct).p50());
    let [added, from_pod] = [added(PASSED, DIRECT), added(POD_PASSED, POD_DIRECT)];
    let goals = vec![
        Goal::new(
            "faked within 15% of direct",
            times(faked.median),
            faked.median <= 1.15,
        ),
        Goal::new(
            "faked 4 times as fast as socat",
            times(socat.median),
            socat.median >= 4.0,
        ),
        Goal::new(
            "passed through adds at most 120 µs to direct",
            format!("{added:.0} µs"),
            added <= 120.0,
        ),
        Goal::new(
            "from a pod too",
            format!("{from_pod:.0} µs"),
            from_pod <= 120.0,
        ),
    ];
    let ratios = [
        ("faked to direct", faked),
        ("faked to socat", way(FAKED).to(way(SOCAT))),
        ("faked to DNAT", way(FAKED).to(way(DNAT))),
        ("faked with a verdict to direct", checked),
        ("passed to direct", passed),
        ("passed to relay", way(PASSED).to(way(RELAY))),
        (
            "passed to direct, from a pod",
            way(POD_PASSED).to(way(POD_DIRECT)),
        ),
    ];
    let figures: Map<_, _> = found
        .iter()
        .map(|found| {
            let us = json!({
                "p50_us": microseconds(found.p50()),
                "p99_us": microseconds(found.p99()),
                "to_direct": found.to(direct).json(),
            });
            (found.name.to_owned(), us)
        })
        .collect();
    let section = Section {
        name: "request",
        about: format!(
            "One GET, each over a new connection: {ROUNDS} rounds of {REQUESTS} on every way"
        ),
        table: Table {
            head: vec!["way", "p50", "p99", "to direct", "rounds"],
            rows: found.iter().map(row).collect(),
        },
        goals,
        ratios: ratios.map(|(name, spread)| Ratio { name, spread }).into(),
        figures: figures.into(),
    };
    let bars = found.iter().map(|found| Bar {
        name: found.name,
        value: microseconds(found.p50()),
        most: Some(microseconds(found.p99())),
    });
    let chart = Chart {
        title: "One GET: median, and 99th percentile",
        unit: "µs",
        bars: bars.collect(),
    };
    (section, chart)
}
