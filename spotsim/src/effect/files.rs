//! The files of one cgroup.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sys::{
        stat::Mode,
        statfs::{CGROUP2_SUPER_MAGIC, fstatfs},
    },
};
use tokio::time::{Instant, sleep};

use crate::target::Cgroup;

/// How often it is looked whether a cgroup has come to a state.
const EACH: Duration = Duration::from_millis(50);

/// A cgroup's directory, held open: what is made anew under its path is never written to.
#[derive(Debug)]
pub struct Files(File);

impl Files {
    /// `None` if the cgroup is gone.
    pub fn open(cgroup: &Cgroup) -> io::Result<Option<Self>> {
        Self::at(cgroup.directory(), cgroup.id())
    }

    /// `None` if what is at this path is not the cgroup with this id.
    pub fn at(directory: &Path, id: u64) -> io::Result<Option<Self>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = match open(directory, flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            directory => File::from(directory?),
        };
        let is_cgroup = fstatfs(&directory)?.filesystem_type() == CGROUP2_SUPER_MAGIC;
        let same = is_cgroup && directory.metadata()?.ino() == id;
        Ok(same.then_some(Self(directory)))
    }

    /// What one of its files says; `None` if the cgroup is gone.
    pub fn read(&self, name: &str) -> io::Result<Option<String>> {
        let read = || {
            let mut text = String::new();
            self.file(name, OFlag::O_RDONLY)?
                .read_to_string(&mut text)?;
            Ok(text)
        };
        unless_gone(read())
    }

    /// Writes to one of its files; `false` if the cgroup is gone.
    pub fn write(&self, name: &str, text: &str) -> io::Result<bool> {
        let write = || self.file(name, OFlag::O_WRONLY)?.write_all(text.as_bytes());
        unless_gone(write()).map(|written| written.is_some())
    }

    /// Whether its `cgroup.events` says so, as `frozen 1` ([cgroup-v2][1]); `None` if it is gone.
    ///
    /// [1]: https://docs.kernel.org/admin-guide/cgroup-v2.html
    pub fn has_event(&self, event: &str) -> io::Result<Option<bool>> {
        let events = self.read("cgroup.events")?;
        Ok(events.map(|events| events.lines().any(|line| line == event)))
    }

    /// Waits until its `cgroup.events` says so, or it is gone; `false` if it takes longer.
    pub async fn event_within(&self, event: &str, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            match self.has_event(event)? {
                None | Some(true) => return Ok(true),
                Some(false) if Instant::now() >= deadline => return Ok(false),
                Some(false) => sleep(EACH.min(limit / 10)).await,
            }
        }
    }

    fn file(&self, name: &str, flags: OFlag) -> io::Result<File> {
        let Self(directory) = self;
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        Ok(openat(directory, name, flags, Mode::empty())?.into())
    }
}

impl AsFd for Files {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let Self(directory) = self;
        directory.as_fd()
    }
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if is_gone(&error) => Ok(None),
        result => result.map(Some),
    }
}

/// What is said of a directory that was removed, and of a file in it that was open.
fn is_gone(error: &io::Error) -> bool {
    [Some(libc::ENOENT), Some(libc::ENODEV)].contains(&error.raw_os_error())
}
