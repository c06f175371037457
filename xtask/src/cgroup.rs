//! A cgroup made for a chore.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// A cgroup v2 directory, removed when dropped.
pub struct Cgroup {
    dir: PathBuf,
    removed: bool,
}

impl Cgroup {
    /// Makes `spotsim-CHORE-PID` at the top of the cgroup v2 hierarchy.
    pub fn create(chore: &str) -> Result<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo")
            .context("cannot read /proc/self/mountinfo")?;
        let mount = cgroup2_mount(&mountinfo).context(
            "no cgroup v2 is mounted here: \
             run `mount -t cgroup2 none DIRECTORY`, or boot with systemd.unified_cgroup_hierarchy=1",
        )?;
        let dir = Path::new(mount).join(format!("spotsim-{chore}-{}", process::id()));
        fs::create_dir(&dir)
            .with_context(|| format!("cannot make the cgroup {}", dir.display()))?;
        Ok(Self {
            dir,
            removed: false,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// As in `/proc/PID/cgroup`.
    pub fn path(&self) -> String {
        let name = self.dir.file_name().unwrap_or_default();
        format!("/{}", name.display())
    }

    /// The file that takes the process ids of new members.
    pub fn procs(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// Removes the cgroup, and says so if that cannot be done.
    pub fn remove(mut self) -> Result<()> {
        self.removed = true;
        remove(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.removed
            && let Err(error) = remove(&self.dir)
        {
            let dir = self.dir.display();
            // Printing must not panic here, where we may be unwinding.
            let _ = writeln!(io::stderr(), "cannot remove {dir}: {error}");
        }
    }
}

/// Removes the directory; a process that has just ended can hold it for a moment.
fn remove(dir: &Path) -> io::Result<()> {
    for _ in 0..50 {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                thread::sleep(Duration::from_millis(20));
            }
            outcome => return outcome,
        }
    }
    fs::remove_dir(dir)
}

/// The first mount point of a cgroup v2 hierarchy; see proc_pid_mountinfo(5).
fn cgroup2_mount(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        filesystem.starts_with("cgroup2 ").then_some(())?;
        mount.split(' ').nth(4)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_point_of_cgroup_v2() {
        let hybrid = "\
            24 23 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            25 24 0:22 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory\n\
            26 24 0:23 / /sys/fs/cgroup/unified rw shared:2 master:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_mount(hybrid), Some("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup2_mount(&hybrid.replace("cgroup2", "cgroup")), None);
    }
}
