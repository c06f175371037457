//! From the start of the program to its being armed, and what it then holds.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Map, json};
use tests::{Held, Lab, Sandbox, resident, spotsim_binary};

use crate::{
    section::{Goal, Ratio, Section, Table},
    statistics::{Spread, round},
};

/// How many targets, and how often.
const COUNTS: [(usize, usize); 4] = [(1, 15), (10, 9), (100, 7), (1_000, 5)];

/// One attach, and the detach that followed.
struct Round {
    /// In milliseconds.
    armed: f64,
    detached: f64,
    /// In bytes.
    resident: u64,
    held: Held,
}

/// What came of one number of targets.
struct Found {
    targets: usize,
    rounds: Vec<Round>,
}

impl Found {
    fn spread(&self, of: impl Fn(&Round) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(of))
    }

    fn resident(&self) -> f64 {
        self.spread(|round| round.resident as f64).median
    }
}

pub fn measure(check: impl Fn()) -> Option<Section> {
    let lab = Lab::bare()?;
    let most = COUNTS.map(|(count, _)| count).into_iter().max();
    let sandboxes = lab.sandboxes(&lab.target, most.unwrap_or_default());
    let mut found = COUNTS.map(|(targets, _)| Found {
        targets,
        rounds: Vec::new(),
    });
    let longest = COUNTS.map(|(_, rounds)| rounds).into_iter().max();
    // In turns, there and back, so that none always comes after the same one. The first ones find
    // caches cold.
    for round in 0..=longest.unwrap_or_default() {
        let mut turns: Vec<_> = COUNTS.iter().zip(&mut found).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for ((targets, rounds), found) in turns {
            if round > *rounds {
                continue;
            }
            check();
            let took = round_of(&lab, &sandboxes[..*targets]);
            if round > 0 {
                found.rounds.push(took);
            }
        }
    }
    Some(section(&found))
}

/// A child that is killed when dropped.
struct Attached(Child);

impl Drop for Attached {
    fn drop(&mut self) {
        let Self(child) = self;
        // An error means that it has ended and was waited for.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn round_of(lab: &Lab, targets: &[Sandbox]) -> Round {
    let mut command = Command::new(spotsim_binary());
    command
        .args(["attach", "--upstream", "synthetic", "--run-dir"])
        .arg(lab.run_dir());
    for target in targets {
        command.arg("--cgroup").arg(target.cgroup.path());
    }
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    // Where the calling thread is, so that nothing but spotsim's own start is measured.
    let (mut spotsim, armed) = lab.node.enter(|| {
        let started = Instant::now();
        let mut child = command.spawn().expect("spotsim starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it can be heard");
        assert!(line.starts_with("armed: "), "spotsim did not arm: {line:?}");
        (Attached(child), started.elapsed())
    });
    let Attached(child) = &mut spotsim;
    // What came with the arming is over.
    sleep(Duration::from_millis(500));
    let resident = resident(child.id());
    let held = Held::by(child.id()).expect("spotsim runs");
    let pid = Pid::from_raw(child.id().cast_signed());
    let told = Instant::now();
    kill(pid, Signal::SIGTERM).expect("spotsim runs");
    child.wait().expect("it ends");
    Round {
        armed: armed.as_secs_f64() * 1e3,
        detached: told.elapsed().as_secs_f64() * 1e3,
        resident,
        held,
    }
}

fn section(found: &[Found; 4]) -> Section {
    let row = |found: &Found| {
        let Spread {
            median,
            least,
            most,
        } = found.spread(|round| round.armed);
        let Held { threads, .. } = found.rounds[0].held;
        vec![
            found.targets.to_string(),
            format!("{median:.0} ms"),
            format!("{least:.0} to {most:.0}"),
            format!("{:.0} ms", found.spread(|round| round.detached).median),
            format!("{:.1} MB", found.resident() / 1e6),
            found.rounds[0].held.descriptors().to_string(),
            threads.to_string(),
        ]
    };
    let [one, _, hundred, thousand] = found;
    let armed = |found: &Found| found.spread(|round| round.armed);
    let each =
        (thousand.resident() - one.resident()) / (thousand.targets - one.targets) as f64 / 1e3;
    let goals = vec![
        Goal::new(
            "armed under 40 ms",
            format!("{:.0} ms", armed(one).median),
            armed(one).median < 40.0,
        ),
        Goal::new(
            "1,000 targets armed under 1 s",
            format!("{:.2} s", armed(thousand).median / 1e3),
            armed(thousand).median < 1_000.0,
        ),
        Goal::new("under 20 KB a target", format!("{each:.1} KB"), each < 20.0),
    ];
    let rounds = hundred.rounds.iter().zip(&one.rounds);
    let ratio = Spread::of(rounds.map(|(hundred, one)| hundred.armed / one.armed));
    let figures: Map<_, _> = found
        .iter()
        .map(|found| {
            let Held {
                links,
                namespaces,
                sockets,
                others,
                threads,
            } = found.rounds[0].held;
            let figures = json!({
                "armed_ms": armed(found).json(),
                "detached_ms": found.spread(|round| round.detached).json(),
                "resident_mb": round(found.resident() / 1e6),
                "descriptors": {
                    "links": links, "namespaces": namespaces, "sockets": sockets, "others": others,
                },
                "threads": threads,
            });
            (found.targets.to_string(), figures)
        })
        .collect();
    Section {
        name: "arming",
        about: "From the start of the program to its being armed, each target in a network \
                namespace of its own; and from SIGTERM to its end, 100 ms of which are for late comers"
            .to_owned(),
        table: Table {
            head: vec!["targets", "armed", "rounds", "detached", "resident", "descriptors", "threads"],
            rows: found.iter().map(row).collect(),
        },
        goals,
        ratios: vec![Ratio {
            name: "100 targets to one",
            spread: ratio,
        }],
        figures: figures.into(),
    }
}
