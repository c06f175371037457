//! Cgroups made for a test.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A directory in the cgroup v2 hierarchy. What still runs in it, and below it, is killed when
/// it is dropped.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// A cgroup below the hierarchy's root, named for this process.
    pub fn new() -> io::Result<Self> {
        Self::at_the_top("")
    }

    /// As [`Cgroup::new`], called as a slice of systemd is.
    pub fn slice() -> io::Result<Self> {
        Self::at_the_top(".slice")
    }

    fn at_the_top(kind: &str) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mount = mount_point().ok_or_else(|| io::Error::other("no cgroup2 mount"))?;
        let name = format!("spotsim-tests-{}-{count}{kind}", std::process::id());
        Self::create(mount.join(name))
    }

    /// A cgroup below this one. It ends with this one, or before.
    pub fn child(&self, name: &str) -> Self {
        Self::create(self.directory.join(name)).unwrap()
    }

    fn create(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir(&directory)?;
        Ok(Self { directory })
    }

    /// The full directory path.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path as `/proc/PID/cgroup` shows it.
    pub fn path(&self) -> PathBuf {
        let below = self.directory.strip_prefix(mount_point().unwrap()).unwrap();
        Path::new("/").join(below)
    }

    /// The processes in it and below it.
    pub fn processes(&self) -> Vec<i32> {
        processes(&self.directory)
    }

    /// The names of the cgroups directly below it.
    pub fn children(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        let directories = entries.filter(|entry| entry.path().is_dir());
        directories
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Kills what runs in it and removes it.
    pub fn remove(self) {}
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        end(&self.directory);
    }
}

/// The processes in a cgroup and below it.
fn processes(directory: &Path) -> Vec<i32> {
    let mut pids = Vec::new();
    walk(directory, &mut |directory| {
        let procs = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        // A process of another pid namespace would show as 0.
        pids.extend(
            procs
                .lines()
                .filter_map(|pid| pid.parse().ok())
                .filter(|&pid: &i32| pid > 0),
        );
    });
    pids
}

/// Kills what is in a cgroup and below it.
pub(crate) fn kill_all(directory: &Path) {
    for pid in processes(directory) {
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => crate::say(&format!("cannot end {pid}: {error}")),
        }
    }
}

/// Kills what is in a cgroup and below it, and removes it.
pub(crate) fn end(directory: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while directory.exists() {
        kill_all(directory);
        // Deepest first; busy until the kernel is done with the processes.
        walk(directory, &mut |directory| {
            let _ = fs::remove_dir(directory);
        });
        if Instant::now() > deadline {
            crate::say(&format!("left behind: {}", directory.display()));
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Visits a directory's subdirectories, then the directory itself.
fn walk(directory: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
    visit(directory);
}

/// Where the cgroup v2 hierarchy's root is mounted.
fn mount_point() -> Option<PathBuf> {
    mount_points("cgroup2").into_iter().next()
}

/// Where the roots of hierarchies of a kind are mounted: `cgroup2`, or `cgroup` for version 1.
pub(crate) fn mount_points(kind: &str) -> Vec<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mountinfo.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (root == "/" && source.split(' ').next() == Some(kind)).then(|| PathBuf::from(point))
    });
    points.collect()
}
