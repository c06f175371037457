//! What must be as it was before: of a spotsim that runs, and of the machine when all is over.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use ::tests::{
    BpfObjects, Configuration, Held, Interrupted, all_bpf_objects, bpf_objects, entries, files,
    resident,
};

use crate::{client::now, report::Left, world::World};

/// What goes by itself is gone by then.
const PATIENCE: Duration = Duration::from_secs(20);

/// For how long a namespace in which nobody is any more keeps its listeners, and a second look.
const VACANT: u64 = 13_000_000;

/// Between two looks at what spotsim holds.
const LOOK: Duration = Duration::from_millis(7);

/// Descriptors for each target, sockets for each network namespace, and threads where something was
/// passed on from another namespace
/// (ARCHITECTURE.md).
const LINKS: usize = 4;
const SOCKETS: usize = 3;
const THREADS: usize = 5;

/// What a spotsim holds for so many targets in so many network namespaces, while nobody is
/// connected.
pub struct Account {
    held: Held,
    targets: usize,
    namespaces: usize,
    /// The most resident memory there was, in bytes.
    pub memory: u64,
}

impl Account {
    /// Of one that has just been armed, when it holds the same for half a second.
    pub fn open(world: &World, asked: &Interrupted) -> Self {
        const SAME: Duration = Duration::from_millis(500);
        // Sockets that were made before they are needed are closed by then.
        const RESTED: Duration = Duration::from_secs(3);
        let pid = world.spotsim_pid();
        let look = || Held::by(pid).expect("spotsim runs");
        let held = world.quietly(|| {
            sleep(RESTED);
            let (mut held, mut since) = (look(), Instant::now());
            while since.elapsed() < SAME && !asked.is_set() {
                sleep(LOOK);
                let now = look();
                if now != held {
                    (held, since) = (now, Instant::now());
                }
            }
            held
        });
        Self {
            held,
            targets: world.attached(),
            namespaces: world.namespaces(),
            memory: 0,
        }
    }

    /// Waits, with nobody asking, until what spotsim holds is what it must hold. Namespaces that
    /// were left just now may still be listened in.
    pub fn settle(&mut self, world: &World, asked: &Interrupted) -> Result<(), String> {
        let pid = world.spotsim_pid();
        self.memory = self.memory.max(resident(pid));
        let expected = self.expected(world);
        world.quietly(|| {
            let until = Instant::now() + PATIENCE;
            loop {
                let left = world.left_since(now().saturating_sub(VACANT));
                let held = Held::by(pid).map_err(|error| format!("spotsim is gone: {error}"))?;
                if within(&held, &expected, left) || asked.is_set() {
                    return Ok(());
                }
                if Instant::now() > until {
                    return Err(format!("spotsim holds {held:?}, and should {expected:?}"));
                }
                sleep(LOOK);
            }
        })
    }

    fn expected(&self, world: &World) -> Held {
        let Self {
            held,
            targets,
            namespaces,
            ..
        } = self;
        let (now_targets, now_namespaces) = (world.attached(), world.namespaces());
        let of =
            |before: usize, each: usize, was: usize, is: usize| before + each * is - each * was;
        Held {
            links: of(held.links, LINKS, *targets, now_targets),
            namespaces: of(held.namespaces, 1, *namespaces, now_namespaces),
            sockets: of(held.sockets, SOCKETS, *namespaces, now_namespaces),
            threads: THREADS,
            others: held.others,
        }
    }
}

/// Whether it is this, but for so many namespaces that may still be held.
fn within(held: &Held, expected: &Held, left: usize) -> bool {
    let extra = held.namespaces.checked_sub(expected.namespaces);
    extra.is_some_and(|extra| {
        extra <= left
            && *held
                == Held {
                    namespaces: expected.namespaces + extra,
                    sockets: expected.sockets + SOCKETS * extra,
                    ..expected.clone()
                }
    })
}

/// The machine, and the lab on it, without any spotsim of ours.
pub struct Machine {
    bpf: BpfObjects,
    files: BTreeSet<PathBuf>,
    lab: Vec<PathBuf>,
    cgroups: Vec<String>,
    /// Of each network namespace of the lab.
    networks: Vec<Configuration>,
}

impl Machine {
    pub fn now(world: &World) -> Self {
        // Its temporary files would be in the lab's directory.
        let files = files()
            .into_iter()
            .filter(|path| path.starts_with("/run/spotsim") || path.starts_with("/sys/fs/bpf"));
        let lab = [entries(&world.lab.directory), entries(&world.lab.run_dir())].concat();
        Self {
            bpf: all_bpf_objects(),
            files: files.collect(),
            // The directory of the control sockets stays.
            lab: lab
                .into_iter()
                .filter(|path| *path != world.lab.run_dir())
                .collect(),
            cgroups: world.cgroups(),
            networks: world.nets().map(network).collect(),
        }
    }

    /// What is there now, and was not, or is other than it was: the kinds, with how many there
    /// are of each and what they are.
    pub fn left(&self, world: &World) -> Vec<Left> {
        let until = Instant::now() + PATIENCE;
        loop {
            let counted = self.compare(&Self::now(world));
            let clean = counted.iter().all(|(_, count, _)| *count == 0);
            if clean || Instant::now() > until {
                return counted;
            }
            sleep(Duration::from_millis(100));
        }
    }

    fn compare(&self, now: &Self) -> Vec<Left> {
        // On a machine with others that use spotsim, theirs are held by them.
        let mut new: BTreeSet<_> = now.bpf.difference(&self.bpf).collect();
        let theirs = match new.is_empty() {
            true => BpfObjects::new(),
            false => held_by_anybody(),
        };
        new.retain(|object| !theirs.contains(*object));
        let kind = |kind: &str| {
            let ids = new.iter().filter(|(other, _)| other == kind);
            let ids: Vec<_> = ids.map(|(_, id)| id.to_string()).collect();
            (ids.len(), ids.join(", "))
        };
        let counted = |name, (count, what)| (name, count, what);
        let paths = |now: Vec<&PathBuf>| {
            let names: Vec<_> = now.iter().map(|path| path.display().to_string()).collect();
            (names.len(), names.join(", "))
        };
        let lab = now.lab.iter().filter(|path| !self.lab.contains(path));
        let cgroups = now
            .cgroups
            .iter()
            .filter(|name| !self.cgroups.contains(name));
        let cgroups: Vec<_> = cgroups.cloned().collect();
        let differing = self.differing(now);
        vec![
            counted("BPF programs", kind("prog_id")),
            counted("BPF maps", kind("map_id")),
            counted("BPF links", kind("link_id")),
            counted("cgroups", (cgroups.len(), cgroups.join(", "))),
            counted(
                "sockets and files of the run directory",
                paths(lab.collect()),
            ),
            counted(
                "other files",
                paths(now.files.difference(&self.files).collect()),
            ),
            counted(
                "routes, addresses, rules, links, sysctls",
                (differing.len(), differing.join(", ")),
            ),
        ]
    }

    /// The views of networks that are not what they were.
    fn differing(&self, now: &Self) -> Vec<String> {
        let mut differing = Vec::new();
        for (index, (then, now)) in self.networks.iter().zip(&now.networks).enumerate() {
            let names: BTreeSet<_> = then.keys().chain(now.keys()).collect();
            let other = names
                .into_iter()
                .filter(|name| then.get(*name) != now.get(*name));
            differing.extend(other.map(|name| format!("{name} of namespace {index}")));
        }
        differing
    }
}

/// A namespace's configuration, without what is the machine's.
fn network(net: &tests::NetNs) -> Configuration {
    let mut views = net.configuration();
    views.retain(|name, _| !name.starts_with("/proc/sys/") || name.starts_with("/proc/sys/net/"));
    views
}

fn held_by_anybody() -> BpfObjects {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.flat_map(bpf_objects).collect()
}
