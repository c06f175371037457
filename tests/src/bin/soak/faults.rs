//! Does to the world what the plan says: each fault begins, lasts, and ends.

use std::{
    collections::HashSet,
    fs, io,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use ::tests::{Interrupted, Running, address_space, client, data};
use fastrand::Rng;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::{
    client::now,
    plan::{Fault, Step},
    world::World,
};

/// So often it is looked whether spotsim still runs, where it may die by itself.
const LOOK: Duration = Duration::from_millis(2);

/// So many connections come while memory is short.
const CROWD: usize = 800;

/// Nobody waits longer for the control socket.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does one step. What went wrong besides requests is the error.
pub fn suffer(world: &mut World, step: &Step, asked: &Interrupted) -> Result<(), String> {
    let Step {
        fault,
        meanwhile,
        lasts,
    } = step;
    if let Some(sickness) = *meanwhile {
        world.sicken(sickness);
    }
    let outcome = match fault {
        Fault::Kill => {
            world.kill_spotsim();
            asked.sleep(*lasts);
            world.start_spotsim(None);
            Ok(())
        }
        Fault::FewDescriptors(most) => {
            world.kill_spotsim();
            asked.sleep(*lasts);
            world.start_spotsim(Some(*most));
            Ok(())
        }
        Fault::Stop => {
            let stopped = world.stop_spotsim();
            asked.sleep(*lasts);
            world.start_spotsim(None);
            stopped
        }
        Fault::NoDescriptors(spare) => {
            let limit = first_free_descriptor(world.spotsim_pid()) + spare;
            match limited(world, &[(Resource::Nofile, limit)], *lasts, asked) {
                true => Err("spotsim died for want of descriptors".to_owned()),
                false => Ok(()),
            }
        }
        Fault::NoMemory(spare) => {
            let pid = world.spotsim_pid();
            let limits = [
                (Resource::As, address_space(pid) + spare),
                (Resource::Data, data(pid) + spare),
            ];
            // What is free by now suffices for who is there by now.
            let crowd = crowd(world, CROWD);
            limited(world, &limits, *lasts, asked);
            disperse(crowd);
            Ok(())
        }
        Fault::Targets(targets) => {
            for target in targets {
                world.remove(*target);
            }
            asked.sleep(*lasts);
            for target in targets {
                world.make(*target);
            }
            Ok(())
        }
        Fault::Upstream(sickness) => {
            world.sicken(*sickness);
            asked.sleep(*lasts);
            world.heal();
            Ok(())
        }
        Fault::ControlGarbage(seed) => {
            let socket = world.socket();
            garbage(&socket, *seed, *lasts, asked);
            status(&socket).map(drop)
        }
        Fault::ControlRace(clients) => race(world, *clients, *lasts),
        Fault::Hostile(connections) => {
            let crowd = crowd(world, *connections);
            asked.sleep(*lasts);
            disperse(crowd);
            Ok(())
        }
    };
    if meanwhile.is_some() {
        world.heal();
    }
    outcome
}

/// The lowest descriptor that a process has not.
fn first_free_descriptor(pid: u32) -> u64 {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let held: HashSet<u64> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    (0..).find(|number| !held.contains(number)).unwrap()
}

/// Lets spotsim have no more than this for a while. Whether it died of that; then it is started again.
fn limited(
    world: &mut World,
    limits: &[(Resource, u64)],
    lasts: Duration,
    asked: &Interrupted,
) -> bool {
    let spotsim = world.spotsim_pid();
    let limit_to = |resource, limit| {
        let process = Pid::from_raw(spotsim.cast_signed());
        prlimit(process, resource, limit)
    };
    let until = Instant::now() + lasts;
    let mut seen = now();
    let mut before = Vec::new();
    for (resource, limit) in limits {
        let short = Rlimit {
            current: Some(*limit),
            maximum: hard_limit(spotsim, *resource),
        };
        // One that has just died is noted below.
        before.extend(limit_to(*resource, short).map(|before| (*resource, before)));
    }
    let mut died = false;
    while Instant::now() < until && !asked.is_set() && !died {
        let looked = now();
        if !is_dying(spotsim) {
            seen = looked;
        }
        died = world.note_death(seen);
        thread::sleep(LOOK);
    }
    if !died && is_dying(spotsim) {
        died = world.await_death(seen);
    }
    for (resource, before) in before {
        let _ = limit_to(resource, before);
    }
    if died {
        world.start_spotsim(None);
    }
    died
}

/// Whether a process ends or has ended. Until it can be waited for, it closes what it has.
fn is_dying(pid: u32) -> bool {
    /// `include/linux/sched.h`
    const PF_EXITING: u32 = 4;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; the flags are the seventh after it.
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
    let flags = fields.and_then(|fields| fields.split(' ').nth(6)?.parse::<u32>().ok());
    flags.is_none_or(|flags| flags & PF_EXITING != 0)
}

/// To raise one is a privilege of its own, so it stays as it is. `None` if there is none.
fn hard_limit(pid: u32, resource: Resource) -> Option<u64> {
    let name = match resource {
        Resource::Nofile => "Max open files",
        Resource::As => "Max address space",
        Resource::Data => "Max data size",
        other => panic!("{other:?} is not limited here"),
    };
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let values = limits.lines().find_map(|line| line.strip_prefix(name));
    values?.split_whitespace().nth(1)?.parse().ok()
}

/// Sends what is no request, in many ways.
fn garbage(socket: &Path, seed: u64, lasts: Duration, asked: &Interrupted) {
    let mut rng = Rng::with_seed(seed);
    let until = Instant::now() + lasts;
    let mut open = Vec::new();
    while Instant::now() < until && !asked.is_set() {
        let Ok(mut stream) = UnixStream::connect(socket) else {
            continue;
        };
        let mut bytes: Vec<u8> = match rng.u8(..6) {
            0 => (0..rng.usize(1..10_000)).map(|_| rng.u8(..)).collect(),
            1 => [b"GET /".to_vec(), vec![b'x'; 100_000]].concat(),
            2 => b"POST /trigger HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{\"not".to_vec(),
            3 => b"POST /trigger HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nnull".to_vec(),
            4 => b"DELETE /../status HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            _ => Vec::new(),
        };
        bytes.truncate(rng.usize(..=bytes.len()));
        // It may well be closed before all of it was read.
        let _ = stream.write_all(&bytes);
        if rng.bool() {
            open.push(stream);
        }
    }
}

/// Has several clients trigger and cancel, then triggers what is to stay.
fn race(world: &mut World, clients: usize, lasts: Duration) -> Result<(), String> {
    let socket = world.socket();
    world.unsure();
    let until = Instant::now() + lasts;
    let outcomes: Vec<_> = thread::scope(|scope| {
        let one = |number: usize| {
            let socket = &socket;
            scope.spawn(move || {
                let mut rng = Rng::with_seed(number as u64);
                let mut outcome = Ok(());
                while Instant::now() < until && outcome.is_ok() {
                    outcome = match rng.u8(..3) {
                        0 => ask(socket, "POST", "/cancel", "").map(drop),
                        1 => ask(socket, "GET", "/status", "").map(drop),
                        // What its answer says may be another's work already.
                        _ => {
                            let action = rng.choice(["stop", "terminate"]).unwrap_or_default();
                            ask(socket, "POST", "/trigger", &notice(action)).map(drop)
                        }
                    };
                }
                outcome
            })
        };
        let threads: Vec<_> = (0..clients).map(one).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let document = trigger(&socket, "hibernate")?;
    world.sure(document);
    outcomes.into_iter().collect()
}

fn notice(action: &str) -> String {
    format!(r#"{{"notice": {{"action": "{action}", "lead": "1h"}}}}"#)
}

/// Triggers a notice, and returns the document that everybody sees from now on.
fn trigger(socket: &Path, action: &str) -> Result<String, String> {
    let status = ask(socket, "POST", "/trigger", &notice(action))?;
    let mut announced = status["announced"].as_array().into_iter().flatten();
    let notice = announced.find(|item| item["path"] == "spot/instance-action");
    let document = notice.and_then(|item| item["value"].as_str());
    document
        .map(str::to_owned)
        .ok_or_else(|| format!("a trigger that announces nothing: {status}"))
}

fn status(socket: &Path) -> Result<Value, String> {
    ask(socket, "GET", "/status", "")
}

/// One request on the control socket, which is to be answered with 200.
fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Result<Value, String> {
    let exchange = || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: spotsim\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|error| format!("control: {method} {path}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("control: {method} {path}: {answer:?}"));
    }
    serde_json::from_str(body).map_err(|error| format!("control: {method} {path}: {error}: {body}"))
}

/// Has connections opened from a target on the node, with the beginning of a request on each.
fn crowd(world: &World, connections: usize) -> Running {
    let mut command = world.hostile_place(0).command(client());
    command.args(["idle", "v4", &connections.to_string(), "GET /latest/"]);
    Running::start(command)
}

fn disperse(mut crowd: Running) {
    crowd.close_stdin();
    crowd.finish();
}
