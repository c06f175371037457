//! Tortures spotsim and checks its promises meanwhile. `cargo xtask soak` builds what it takes.
//!
//! `soak [--minutes N] [--seed N]`: first kills and arms under a client that connects in a tight
//! loop (`kills`); then, for the rest of the time, faults after a `plan` that follows from the
//! seed, while clients poll from many targets and outsiders beside them (`client`). Each request
//! is judged by what was going on (`judge`), what spotsim holds is counted after each fault, and
//! what is left on the machine at the end (`leaks`).
//!
//! | promise | checked here | and in `tests/tests/` |
//! |---|---|---|
//! | a kill costs what was in flight | `kills`; each death in `judge` | `killed.rs` |
//! | an arming refuses no connect | `kills`; each start in `judge` | `killed.rs` |
//! | nobody outside a target is redirected | outsiders: the upstream must see their own sockets | `transparency.rs` |
//! | no route, address, rule or sysctl changes | `leaks`, in every namespace | `untouched.rs` |
//! | with the upstream down faked paths answer, the rest fails as without spotsim | each sickness | `upstream_down.rs` |
//! | a hostile client costs its own connection | crowds, garbage for the control socket | `hostile.rs`, `control.rs` |
//! | a target that vanishes frees what it held | targets removed, then `leaks` | `many.rs`, `lifecycle.rs` |

mod client;
mod faults;
mod judge;
mod kills;
mod leaks;
mod plan;
mod report;
mod world;

use std::{
    collections::HashSet,
    io::{self, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use ::tests::{Interrupted, Lab};

use crate::{
    client::{Outcome, Record, now},
    judge::Standing,
    kills::Kills,
    leaks::{Account, Machine},
    plan::{Fault, Plan, Step},
    report::Tally,
    world::World,
};

/// When nobody says how long.
const MINUTES: f64 = 2.0;

/// After a fault, clients are well again within this time: more than any of them waits for an
/// answer.
const WELL_WITHIN: Duration = Duration::from_secs(20);

/// So many breaches are shown of one step; more say nothing new.
const SHOWN_AT_ONCE: usize = 5;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["poll", name, via, ref kinds @ ..] => client::poll(name, via, kinds),
        ["dial"] => kills::dial(),
        ref options => return soak(options),
    }
    ExitCode::SUCCESS
}

fn soak(options: &[&str]) -> ExitCode {
    let (mut minutes, mut seed) = (MINUTES, fastrand::u64(..1_000_000));
    for option in options.chunks(2) {
        match option {
            ["--minutes", value] => minutes = value.parse().expect("--minutes takes a number"),
            ["--seed", value] => seed = value.parse().expect("--seed takes a number"),
            _ => panic!("unknown options {option:?}"),
        }
    }
    let asked = Interrupted::watch();
    let until = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    println!("seed {seed} (the same faults again: cargo xtask soak --seed {seed})");
    // What cannot go on panics; by then everything has been tidied up.
    let outcome = catch_unwind(AssertUnwindSafe(|| torture(seed, until, &asked)));
    let broken = match outcome {
        Ok(Some(broken)) => broken,
        Ok(None) => return ExitCode::FAILURE,
        Err(_) => vec!["it could not go on, as said above".to_owned()],
    };
    if asked.is_set() {
        println!("stopped; what was made for it is removed");
        return ExitCode::from(130);
    }
    match broken.first() {
        None => {
            println!("verdict: every promise was kept");
            ExitCode::SUCCESS
        }
        Some(first) => {
            println!("verdict: BROKEN with seed {seed}: {first}");
            ExitCode::FAILURE
        }
    }
}

/// All of it. What broke; `None` where it cannot be done at all.
fn torture(seed: u64, until: Instant, asked: &Interrupted) -> Option<Vec<String>> {
    let lab = Lab::new()?;
    let times = kills::TIMES;
    println!("\n{times} arms and {times} kills under a client that connects in a tight loop");
    let kills = kills::torture(&lab, seed, asked);
    drop(lab);
    show_kills(&kills);
    let mut broken = kills.broken;
    if !asked.is_set() {
        broken.extend(faults(seed, until, asked)?);
    }
    Some(broken)
}

fn show_kills(kills: &Kills) {
    let Kills {
        arms,
        kills,
        through,
        direct,
        costly,
        most,
        in_flight,
        cut,
        broken,
    } = kills;
    let share = *costly as f64 / (*kills).max(1) as f64 * 100.0;
    println!("  {through} requests were redirected, {direct} were not");
    println!("  {arms} arms, which cut {cut} older connections");
    println!(
        "  {kills} kills, {in_flight} requests in flight; {costly} of them refused a connect \
         ({share:.0}%), {most} at most"
    );
    if broken.is_empty() {
        println!("  no other connect or request failed");
    }
    for how in broken.iter().take(report::SHOWN) {
        println!("  BROKEN {how}");
    }
}

/// The faults of the plan, until the time is over. What broke; `None` where there can be none.
fn faults(seed: u64, until: Instant, asked: &Interrupted) -> Option<Vec<String>> {
    let mut world = World::new()?;
    let before = Machine::now(&world);
    let targets = world::TARGETS;
    println!("\nfaults, while {targets} targets and outsiders poll");
    let began = Instant::now();
    let mut tally = Tally::default();
    world.populate();
    settle(&mut world, &mut tally, asked);
    world.start_spotsim(None);
    settle(&mut world, &mut tally, asked);
    let mut account = Account::open(&world, asked);
    let mut steps = Plan::of(seed);
    let mut played = 0;
    while Instant::now() < until && !asked.is_set() {
        let step = steps.next()?;
        played += 1;
        print!("  {:6.1} s  ", began.elapsed().as_secs_f64());
        play(&step, &mut world, &mut tally, &mut account, asked);
    }
    if asked.is_set() {
        return Some(tally.broken);
    }
    if played == 0 {
        tally
            .broken
            .push("there was no time for a fault".to_owned());
    }
    tally.broken.extend(world.stop_spotsim().err());
    world.depopulate();
    let left = before.left(&world);
    tally.count_left(&left, account.memory);
    println!("\n{tally}");
    Some(tally.broken)
}

/// Plays one step, to the end of what it has caused, and says what that was.
fn play(
    step: &Step,
    world: &mut World,
    tally: &mut Tally,
    account: &mut Account,
    asked: &Interrupted,
) {
    let (requests, excused, broken) = (tally.requests(), tally.excused(), tally.broken.len());
    let lives = world.course.lives.len();
    print!("{step}");
    // Somebody may watch.
    let _ = io::stdout().flush();
    let outcome = faults::suffer(world, step, asked);
    tally.broken.extend(outcome.err());
    settle(world, tally, asked);
    tally.broken.extend(account.settle(world, asked).err());
    let (requests, excused) = (tally.requests() - requests, tally.excused() - excused);
    let died = match (&step.fault, world.course.lives.len() > lives) {
        (Fault::NoMemory(_), true) => " and died of it",
        _ => "",
    };
    println!("{died}: {requests} requests, {excused} failed and may");
    let new = &tally.broken[broken..];
    for how in new.iter().take(SHOWN_AT_ONCE) {
        println!("            BROKEN {how}");
    }
    if !new.is_empty() {
        for line in world.complaints() {
            println!("            spotsim: {line}");
        }
    }
}

/// Waits until everybody is well, and judges what happened until then.
fn settle(world: &mut World, tally: &mut Tally, asked: &Interrupted) {
    let since = now();
    let until = Instant::now() + WELL_WITHIN;
    let mut unwell: HashSet<_> = world.asking().into_iter().collect();
    let mut records = Vec::new();
    while !(unwell.is_empty() && world.all_covered()) && Instant::now() < until && !asked.is_set() {
        thread::sleep(Duration::from_millis(20));
        let told = world.take_records();
        world.note_covered(&told);
        for record in told.iter().filter(|record| is_well(world, record, since)) {
            unwell.remove(&(record.client.clone(), record.kind));
        }
        records.extend(told);
    }
    for record in &records {
        tally.count(&world.course, record);
    }
    if asked.is_set() {
        return;
    }
    if let Some((client, kind)) = unwell.into_iter().min() {
        let kind = kind.name();
        let how = format!("{client} is not well again within {WELL_WITHIN:?} ({kind})");
        tally.broken.push(how);
    } else if !world.all_covered() {
        tally
            .broken
            .push(format!("a target is not covered within {WELL_WITHIN:?}"));
    }
}

/// Whether somebody was answered who asked since then. Where there is no IMDS nobody is, but by
/// spotsim.
fn is_well(world: &World, record: &Record, since: u64) -> bool {
    let answered = matches!(record.outcome, Outcome::Answered { .. });
    let alone = world.spotsim.is_none()
        && matches!(
            world.course.clients[&record.client],
            Standing::Target { island: true, .. }
        );
    record.began >= since && (answered || alone)
}
