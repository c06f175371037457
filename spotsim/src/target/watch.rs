//! Notices when processes, cgroups or namespaces come and go beneath targets.

use std::{io, path::Path};

use inotify::{Inotify, WatchMask};
use log::debug;
use tokio::io::unix::AsyncFd;

use crate::readiness::readable;

/// An inotify watch on cgroup directories.
///
/// A cgroup tells of a child made or removed (`IN_CREATE`, `IN_DELETE`), of its own end
/// (`IN_DELETE_SELF`) and, by a change of its `cgroup.events`, of its first process and its
/// last ([cgroup v2, un-populated notification][1]). What it cannot tell of is a process
/// that joins others and one that changes its network namespace.
///
/// [1]: https://docs.kernel.org/admin-guide/cgroup-v2.html#un-populated-notification
pub struct Watch {
    inotify: AsyncFd<Inotify>,
}

impl Watch {
    /// Must be called in a tokio runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            inotify: readable(Inotify::init()?)?,
        })
    }

    /// Watches a directory too. To watch one twice costs nothing.
    pub fn add(&self, directory: &Path) {
        let Self { inotify } = self;
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MODIFY
            | WatchMask::ONLYDIR;
        if let Err(error) = inotify.get_ref().watches().add(directory, mask) {
            // Gone already, or out of watches: whoever waits looks by the clock as well.
            debug!("cannot watch {}: {error}", directory.display());
        }
    }

    /// Waits until something changed. Several changes may be reported as one.
    pub async fn changed(&mut self) -> io::Result<()> {
        let Self { inotify } = self;
        let mut buffer = [0; 4096];
        let mut ready = inotify.readable_mut().await?;
        loop {
            match ready.get_inner_mut().read_events(&mut buffer) {
                Ok(events) => debug!("changes among the targets: {}", events.count()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}
