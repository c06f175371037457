//! What the kernel half adds to `connect()`.
//!
//! Two ways: the kernel's own statistics of programs (`BPF_ENABLE_STATS`, whose clock readings are
//! in the figures), and loops of sockets that are connected and closed. Datagram sockets show small
//! differences best, since nothing is sent for them; the programs run for them as for streams, and
//! find at the address that they are none of theirs.

use std::{
    collections::HashSet,
    fs,
    fs::File,
    net::{Ipv4Addr, SocketAddrV4},
    thread::sleep,
    time::Duration,
};

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSockAddr, loaded_programs},
    sys::{Stats, enable_stats},
};
use serde_json::{Value, json};
use tests::{Cgroup, Lab, Running, Spotsim};

use crate::{
    client::{Client, IMDS},
    section::{Goal, Section, Table},
    statistics::{Spread, percentile},
};

const ROUNDS: usize = 25;
/// They are short, and what they look for is little.
const ROUNDS_OUTSIDE: usize = 100;
/// Of 200 connects each.
const BATCHES: usize = 20;

/// Nobody need be there for a datagram socket.
const NOBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);

/// What one round found for who is in no target, in nanoseconds for each connect.
struct Outside {
    /// No cgroup of the host has such a program.
    without: f64,
    /// Another cgroup has an empty one.
    empty: f64,
    /// Another cgroup is a target.
    spotsim: f64,
}

/// What one round found for who is in a target, in nanoseconds for each connect.
struct Round {
    empty: f64,
    elsewhere: f64,
    listener: f64,
    imds: f64,
    /// By the kernel's statistics. Between packets that are sent, an empty program takes longer,
    /// too.
    ran_empty: f64,
    ran_elsewhere: f64,
    ran_empty_stream: f64,
    ran_imds: f64,
}

/// A program that does nothing, on a cgroup. The kernel detaches it when this is dropped.
struct Empty {
    _ebpf: Ebpf,
    id: u32,
}

impl Empty {
    fn attach(cgroup: &Cgroup) -> Self {
        let mut ebpf = Ebpf::load(spotsim_ebpf::EMPTY).expect("the object is whole");
        let program = ebpf.program_mut("empty").expect("it is in there");
        let program: &mut CgroupSockAddr = program.try_into().expect("it is of this type");
        program.load().expect("the kernel takes it");
        let directory = File::open(cgroup.directory()).expect("the cgroup is there");
        program
            .attach(directory, CgroupAttachMode::Single)
            .expect("it attaches");
        let id = program.info().expect("the kernel knows it").id();
        Self { _ebpf: ebpf, id }
    }
}

/// The clients, each in its cgroup.
struct Clients {
    outside: Client,
    empty: Client,
    inside: Client,
}

pub fn measure(check: impl Fn()) -> Option<Section> {
    let lab = Lab::new()?;
    let other = lab.root.child("empty");
    let client = |cgroup| Client::start(&lab.place(&lab.node, cgroup), "/", "");
    let mut clients = Clients {
        outside: client(&lab.beside),
        empty: client(&other),
        inside: client(&lab.target),
    };
    let outside: Vec<_> = (0..ROUNDS_OUTSIDE)
        .map(|_| {
            check();
            outside(&lab, &mut clients.outside, &other)
        })
        .collect();
    let mut rounds: Vec<_> = (0..=ROUNDS)
        .map(|_| {
            check();
            round(&lab, &mut clients, &other)
        })
        .collect();
    // The first one found caches cold.
    rounds.remove(0);
    Some(section(&outside, &rounds))
}

/// There and back: what lies in the middle of two measurements is what a third one between them is
/// compared with, so that a machine that becomes faster or slower does not count.
fn outside(lab: &Lab, client: &mut Client, other: &Cgroup) -> Outside {
    let mut took = || median(client.connects("udp", NOBODY, BATCHES));
    let mut without = took();
    let program = Empty::attach(other);
    let mut empty = took();
    // No longer than spotsim, so that the kernel has one such program at a time.
    drop(program);
    let target = Spotsim::hold(lab, "bench", &[]);
    // At first it looks around its target more often.
    sleep(Duration::from_millis(200));
    let spotsim = took();
    drop(target);
    let program = Empty::attach(other);
    empty = (empty + took()) / 2.0;
    drop(program);
    without = (without + took()) / 2.0;
    Outside {
        without,
        empty,
        spotsim,
    }
}

fn round(lab: &Lab, clients: &mut Clients, other: &Cgroup) -> Round {
    let imds: SocketAddrV4 = IMDS.parse().expect("an address");
    let udp = |client: &mut Client| median(client.connects("udp", NOBODY, BATCHES));
    let tcp = |client: &mut Client, to| median(client.connects("tcp", to, BATCHES));

    let empty = Empty::attach(other);
    let spotsim = Spotsim::hold(lab, "bench", &[]);
    let listener = listener(lab);
    let by_empty = udp(&mut clients.empty);
    let elsewhere = udp(&mut clients.inside);
    let to_listener = tcp(&mut clients.outside, listener);
    let to_imds = tcp(&mut clients.inside, imds);

    let id = connect4(&spotsim);
    let _stats = enable_stats(Stats::RunTime).expect("the kernel counts");
    let ran_empty = runs(empty.id, || udp(&mut clients.empty));
    let ran_elsewhere = runs(id, || udp(&mut clients.inside));
    let ran_empty_stream = runs(empty.id, || tcp(&mut clients.empty, listener));
    let ran_imds = runs(id, || tcp(&mut clients.inside, imds));
    Round {
        empty: by_empty,
        elsewhere,
        listener: to_listener,
        imds: to_imds,
        ran_empty,
        ran_elsewhere,
        ran_empty_stream,
        ran_imds,
    }
}

fn median(mut batches: Vec<u64>) -> f64 {
    batches.sort_unstable();
    percentile(&batches, 0.5) as f64
}

/// Where spotsim listens for the target's connections.
fn listener(lab: &Lab) -> SocketAddrV4 {
    let listeners = lab.node.listeners().into_iter();
    let mut v4 = listeners.filter_map(|address| match address {
        std::net::SocketAddr::V4(address) => Some(address),
        std::net::SocketAddr::V6(_) => None,
    });
    v4.next().expect("spotsim listens")
}

/// The id of the program that spotsim has on the target for connections over IPv4.
fn connect4(spotsim: &Running) -> u32 {
    let directory = format!("/proc/{}/fdinfo", spotsim.pid());
    let descriptors = fs::read_dir(directory).expect("spotsim runs").flatten();
    let ids: HashSet<u32> = descriptors
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .filter_map(|info| {
            let id = info
                .lines()
                .find_map(|line| line.strip_prefix("prog_id:"))?;
            id.trim().parse().ok()
        })
        .collect();
    let programs = loaded_programs().flatten();
    let mut own = programs
        .filter(|program| program.name_as_str() == Some("connect4") && ids.contains(&program.id()));
    own.next().expect("it is attached").id()
}

/// How long the program's runs took meanwhile, on average.
fn runs(id: u32, meanwhile: impl FnOnce() -> f64) -> f64 {
    let so_far = || {
        let program = loaded_programs()
            .flatten()
            .find(|program| program.id() == id);
        let program = program.expect("it is loaded");
        (program.run_time().as_nanos() as f64, program.run_count())
    };
    let (time, count) = so_far();
    meanwhile();
    let (later, more) = so_far();
    assert!(more > count, "the program did not run");
    (later - time) / (more - count) as f64
}

fn section(outside: &[Outside], rounds: &[Round]) -> Section {
    let beside = |of: fn(&Outside) -> f64| Spread::of(outside.iter().map(of));
    let by_any = |round: &Outside| round.empty - round.without;
    let by_ours = |round: &Outside| round.spotsim - round.without;
    let spread = |of: fn(&Round) -> f64| Spread::of(rounds.iter().map(of));
    // Differences of one round: what drifts between rounds drifts in both.
    let added_elsewhere = spread(|round| round.elsewhere - round.empty);
    let added_imds = spread(|round| round.imds - round.listener);
    let ran_empty = spread(|round| round.ran_empty);
    let ran_elsewhere = spread(|round| round.ran_elsewhere);
    let ran_empty_stream = spread(|round| round.ran_empty_stream);
    let ran_imds = spread(|round| round.ran_imds);
    let over_empty = ran_elsewhere.median - ran_empty.median;
    let imds_over_empty = ran_imds.median - ran_empty_stream.median;
    let row = |name: &str, took: Option<Spread>, added: Option<Spread>, ran: Option<Spread>| {
        let nanoseconds = |spread: Option<Spread>, sign: bool| {
            spread.map_or_else(String::new, |Spread { median, .. }| match sign {
                true => format!("{median:+.0} ns"),
                false => format!("{median:.0} ns"),
            })
        };
        vec![
            name.to_owned(),
            nanoseconds(took, false),
            nanoseconds(added, true),
            added.map_or_else(String::new, |Spread { least, most, .. }| {
                format!("{least:+.0} to {most:+.0}")
            }),
            nanoseconds(ran, false),
        ]
    };
    let rows = vec![
        row(
            "datagram, no cgroup has a program",
            Some(beside(|round| round.without)),
            None,
            None,
        ),
        row(
            "datagram, another cgroup has an empty one",
            Some(beside(|round| round.empty)),
            Some(beside(by_any)),
            None,
        ),
        row(
            "datagram, outside every target",
            Some(beside(|round| round.spotsim)),
            Some(beside(by_ours)),
            None,
        ),
        row(
            "datagram, an empty program",
            Some(spread(|round| round.empty)),
            None,
            Some(ran_empty),
        ),
        row(
            "datagram, inside a target, elsewhere",
            Some(spread(|round| round.elsewhere)),
            Some(added_elsewhere),
            Some(ran_elsewhere),
        ),
        row(
            "stream, outside, straight to the responder",
            Some(spread(|round| round.listener)),
            None,
            None,
        ),
        row(
            "stream, an empty program",
            None,
            None,
            Some(ran_empty_stream),
        ),
        row(
            "stream, inside a target, to IMDS",
            Some(spread(|round| round.imds)),
            Some(added_imds),
            Some(ran_imds),
        ),
    ];
    let [low, high] = sure(outside.iter().map(by_ours));
    let more = beside(|round| round.spotsim - round.empty).median;
    let goals = vec![
        Goal::new(
            "outside every target nothing measurable is added",
            format!("{low:+.0} to {high:+.0} ns, with 95% confidence"),
            low <= 0.0,
        ),
        Goal::new(
            "outside: within 25 ns of what an empty program on any cgroup adds",
            format!("{more:+.0} ns"),
            more <= 25.0,
        ),
        Goal::new(
            "inside, not to IMDS: within 25 ns of an empty program",
            format!("{over_empty:+.0} ns"),
            over_empty <= 25.0,
        ),
        Goal::new(
            "inside, to IMDS: within 400 ns of an empty program",
            format!("{imds_over_empty:+.0} ns"),
            imds_over_empty <= 400.0,
        ),
    ];
    Section {
        name: "kernel",
        about: format!(
            "What is added to connect(): {ROUNDS_OUTSIDE} rounds outside, {ROUNDS} inside, of {} sockets \
             connected and closed",
            BATCHES * 200
        ),
        table: Table {
            head: vec![
                "connect and close",
                "took",
                "added",
                "rounds",
                "program ran",
            ],
            rows,
        },
        goals,
        // A few nanoseconds of a few hundred: their ratios tell nothing.
        ratios: vec![],
        figures: figures(&[
            ("added_outside_ns", beside(by_ours)),
            ("added_outside_by_empty_ns", beside(by_any)),
            ("added_elsewhere_over_empty_ns", added_elsewhere),
            ("added_to_imds_ns", added_imds),
            ("empty_ran_ns", ran_empty),
            ("elsewhere_ran_ns", ran_elsewhere),
            ("empty_stream_ran_ns", ran_empty_stream),
            ("to_imds_ran_ns", ran_imds),
        ]),
    }
}

/// Between which two values the true median lies, with a confidence of 95%: as many of the sorted
/// values lie below the first one and above the second as a fair coin shows heads too rarely (the
/// sign test).
fn sure(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let rank = (count / 2.0 - 0.98 * count.sqrt()).floor().max(0.0) as usize;
    [values[rank], values[values.len() - 1 - rank]]
}

fn figures(spreads: &[(&str, Spread)]) -> Value {
    let mut figures = json!({});
    for (name, spread) in spreads {
        figures[name] = spread.json();
    }
    figures
}
