//! What a process holds and costs, as the kernel tells it in `/proc`.

use std::{collections::BTreeMap, fs, io, time::Duration};

/// What a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Descriptors of attached programs.
    pub links: usize,
    /// Descriptors of network namespaces.
    pub namespaces: usize,
    pub sockets: usize,
    /// Descriptors of any other kind.
    pub others: usize,
    pub threads: usize,
}

impl Held {
    /// What a process holds now.
    ///
    /// # Errors
    ///
    /// If there is no such process (any more).
    pub fn by(pid: u32) -> io::Result<Self> {
        let proc = format!("/proc/{pid}");
        let mut kinds = BTreeMap::<String, usize>::new();
        for entry in fs::read_dir(format!("{proc}/fd"))?.flatten() {
            // One may be closed meanwhile.
            let Ok(link) = fs::read_link(entry.path()) else {
                continue;
            };
            let link = link.to_string_lossy().into_owned();
            let kind = link.split_once(":[").map_or(&*link, |(kind, _)| kind);
            *kinds.entry(kind.to_owned()).or_default() += 1;
        }
        let mut take = |kind| kinds.remove(kind).unwrap_or_default();
        Ok(Self {
            links: take("anon_inode:bpf_link"),
            namespaces: take("net"),
            sockets: take("socket"),
            threads: fs::read_dir(format!("{proc}/task"))?.count(),
            others: kinds.into_values().sum(),
        })
    }

    /// Descriptors of all kinds.
    pub fn descriptors(&self) -> usize {
        let Self {
            links,
            namespaces,
            sockets,
            others,
            threads: _,
        } = self;
        links + namespaces + sockets + others
    }
}

/// Resident memory of a process in bytes.
pub fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:") * 1024
}

/// Address space of a process in bytes: what `RLIMIT_AS` limits.
pub fn address_space(pid: u32) -> u64 {
    status(pid, "VmSize:") * 1024
}

/// Memory that a process has for itself to write to, in bytes: what `RLIMIT_DATA` limits. Of its
/// address space, allocators reserve far more than they use.
pub fn data(pid: u32) -> u64 {
    status(pid, "VmData:") * 1024
}

/// A number in `/proc/PID/status`.
fn status(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.split_whitespace().next());
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} of process {pid}"))
}

/// Processor time of a process so far.
pub fn processor_time(pid: u32) -> Duration {
    /// `USER_HZ` of every Linux.
    const TICKS: u32 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u32 = ticks.map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    Duration::from_secs(1) * ticks / TICKS
}
