//! Notices when processes, cgroups or namespaces come and go beneath targets.

use std::{collections::BTreeSet, io, path::Path};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
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
///
/// When a cgroup is removed the kernel keeps what watched it (nothing counts the links of a
/// kernfs inode down), so that has to be given up here.
pub struct Watch {
    inotify: AsyncFd<Inotify>,
    /// Each of the directories that are watched.
    watched: BTreeSet<WatchDescriptor>,
}

impl Watch {
    /// Must be called in a tokio runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            inotify: readable(Inotify::init()?)?,
            watched: BTreeSet::new(),
        })
    }

    /// Watches these directories from now on, and no others.
    pub fn watch(&mut self, directories: impl IntoIterator<Item = impl AsRef<Path>>) {
        let Self { inotify, watched } = self;
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MODIFY
            | WatchMask::ONLYDIR;
        let mut watches = inotify.get_ref().watches();
        let mut now = BTreeSet::new();
        for directory in directories {
            // One that is watched already keeps its descriptor.
            let directory = directory.as_ref();
            match watches.add(directory, mask) {
                Ok(descriptor) => _ = now.insert(descriptor),
                // Gone already, or out of watches: whoever waits looks by the clock as well.
                Err(error) => debug!("cannot watch {}: {error}", directory.display()),
            }
        }
        for gone in watched.difference(&now) {
            if let Err(error) = watches.remove(gone.clone()) {
                debug!("the kernel has given up a watch itself: {error}");
            }
        }
        *watched = now;
    }

    /// Waits until something changed, and says whether a cgroup appeared. Several changes may be
    /// reported as one.
    pub async fn changed(&mut self) -> io::Result<bool> {
        let Self { inotify, .. } = self;
        let mut buffer = [0; 4096];
        let mut ready = inotify.readable_mut().await?;
        let mut appeared = false;
        loop {
            match ready.get_inner_mut().read_events(&mut buffer) {
                Ok(events) => {
                    let masks: Vec<_> = events.map(|event| event.mask).collect();
                    debug!("changes among the targets: {}", masks.len());
                    appeared |= masks.iter().any(|mask| mask.contains(EventMask::CREATE));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        ready.clear_ready();
        Ok(appeared)
    }
}
