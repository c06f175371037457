//! `spotsim guard`: the process that cleans up behind `run`, whatever happens to it.
//!
//! A cgroup outlives the process that made it. The guard makes one, says so, and waits on a
//! pipe whose other end `run` holds; when that closes, because `run` is done or because it was
//! killed, it ends every process in the cgroup and removes it. It touches no other.

use std::{
    fs,
    hash::{BuildHasher as _, RandomState},
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use log::warn;

use super::Exit;
use crate::target::Cgroup;

/// Processes that were killed need a moment to be gone; so long it may take.
const GONE_WITHIN: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct Guard {
    /// The directory of the cgroup, which must not be there yet
    cgroup: PathBuf,
}

impl Guard {
    pub fn run(self) -> Result<Exit> {
        let Self { cgroup } = self;
        fs::create_dir(&cgroup)
            .with_context(|| format!("cannot make the cgroup {}", cgroup.display()))?;
        // If nobody hears it, the pipe has closed already.
        let _ = io::stdout().write_all(b"made\n");
        let _ = io::stdin().read_to_end(&mut Vec::new());
        remove(&cgroup)
            .with_context(|| format!("cannot remove the cgroup {}", cgroup.display()))?;
        Ok(Exit::Done)
    }
}

/// A cgroup with a guard over it.
pub struct Guarded {
    guard: Child,
    directory: PathBuf,
}

impl Guarded {
    /// Has a cgroup made beneath the one that spotsim is in.
    pub fn cgroup() -> Result<(Self, Cgroup)> {
        // Process ids repeat in other pid namespaces.
        let chance = RandomState::new().hash_one(()) as u32;
        let name = format!("spotsim-run-{}-{chance:08x}", std::process::id());
        let directory = Cgroup::own()?.directory().join(name);
        let mut guard = Command::new("/proc/self/exe")
            .arg0("spotsim")
            .arg("guard")
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Not in the group that Ctrl-C reaches.
            .process_group(0)
            .spawn()
            .context("cannot start a guard for the command's cgroup")?;
        let mut answer = Vec::new();
        if let Some(stdout) = &mut guard.stdout {
            let mut byte = [0];
            while stdout.read(&mut byte)? == 1 && byte != *b"\n" {
                answer.extend(byte);
            }
        }
        if answer != b"made" {
            // Its own error says why.
            guard.wait().context("cannot wait for the guard")?;
            bail!("there is no cgroup for the command; see what the guard said above");
        }
        let guarded = Self { guard, directory };
        let cgroup = Cgroup::find(&guarded.directory.display().to_string())?;
        Ok((guarded, cgroup))
    }

    /// Has the cgroup removed, and waits for it. If the guard is gone, it is removed here.
    pub fn finish(self) {
        let Self {
            mut guard,
            directory,
        } = self;
        drop(guard.stdin.take());
        if !guard.wait().is_ok_and(|status| status.success())
            && let Err(error) = remove(&directory)
        {
            warn!("the cgroup {} is left: {error}", directory.display());
        }
    }
}

/// Ends every process in a cgroup and removes it with all beneath it. One that is not there
/// is no error.
fn remove(cgroup: &Path) -> io::Result<()> {
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        let result = kill(cgroup).and_then(|()| remove_tree(cgroup));
        match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(2)),
            Ok(()) => return Ok(()),
        }
    }
}

/// Reaches every process beneath as well, and those that are being made
/// (Documentation/admin-guide/cgroup-v2.rst, since Linux 5.14).
fn kill(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.kill"), "1")
}

fn remove_tree(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}
