//! A process of a target.

use std::{fmt, fs, path::Path};

use serde::Serialize;

use crate::{document::printable, target::Cgroup};

/// A process, by its number and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    pub pid: u32,
    pub name: String,
}

impl Process {
    /// Those in a cgroup and beneath it. One that ended meanwhile is left out.
    pub fn all_of(cgroup: &Cgroup) -> Vec<Self> {
        let pids = cgroup.processes().into_iter();
        pids.filter_map(|pid| {
            let name = name(pid)?;
            Some(Self { pid, name })
        })
        .collect()
    }

    /// Several of them in a few words.
    pub fn list(processes: &[Self]) -> String {
        /// More are counted only.
        const NAMED: usize = 10;
        let named: Vec<_> = processes
            .iter()
            .take(NAMED)
            .map(ToString::to_string)
            .collect();
        match processes.len().saturating_sub(NAMED) {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }
}

/// `sleep (1234)`
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, name } = self;
        write!(f, "{} ({pid})", printable(name))
    }
}

/// What a process executes, by its file's name; where that cannot be read, what it calls itself.
/// `None` if there is no such process.
pub fn name(pid: u32) -> Option<String> {
    let executable = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let file = executable.as_deref().and_then(Path::file_name);
    let file = file.map(|file| file.to_string_lossy());
    match file {
        // As the kernel shows one whose file was replaced, by an update say.
        Some(file) => Some(file.trim_end_matches(" (deleted)").to_owned()),
        None => fs::read_to_string(format!("/proc/{pid}/comm"))
            .ok()
            .map(|comm| comm.trim_end().to_owned()),
    }
}
