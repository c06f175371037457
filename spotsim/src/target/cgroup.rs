//! A cgroup v2 directory, the processes beneath it, and the network namespaces they are in.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, openat},
    sys::{
        stat::Mode,
        statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs},
    },
};

use super::mount::cgroup2_mount;
use crate::netns::{self, Namespace};

/// A cgroup of the unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: String,
    directory: PathBuf,
    id: u64,
}

/// Why a cgroup cannot be a target. Each says what to do instead.
#[derive(Debug)]
pub enum TargetError {
    /// There is no such directory; `elsewhere` is where a v1 hierarchy has one of that path.
    Missing {
        given: String,
        looked_at: PathBuf,
        elsewhere: Option<PathBuf>,
    },
    /// A directory of a v1 hierarchy, or of no cgroup hierarchy at all.
    NotV2 { directory: PathBuf, v1: bool },
    /// spotsim's own cgroup is this one or beneath it.
    ContainsSpotsim { path: String, own: String },
    /// Something else failed.
    Io { what: String, source: io::Error },
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing {
                given,
                looked_at,
                elsewhere,
            } => {
                write!(
                    f,
                    "no such cgroup: {given} (looked at {})",
                    looked_at.display()
                )?;
                match elsewhere {
                    Some(v1) => write!(
                        f,
                        "; only the cgroup v1 hierarchy at {} has it, and programs attach to \
                         cgroup v2 only: choose a path from the `0::` line of /proc/PID/cgroup",
                        v1.display()
                    ),
                    None => f.write_str(
                        "; give a path as in the `0::` line of /proc/PID/cgroup, or the full \
                         directory",
                    ),
                }
            }
            Self::NotV2 {
                directory,
                v1: true,
            } => write!(
                f,
                "{} is a cgroup v1 directory, and programs attach to cgroup v2 only; choose a \
                 path from the `0::` line of /proc/PID/cgroup",
                directory.display()
            ),
            Self::NotV2 {
                directory,
                v1: false,
            } => write!(
                f,
                "{} is not a cgroup directory; give a path as in the `0::` line of \
                 /proc/PID/cgroup, or the full directory",
                directory.display()
            ),
            Self::ContainsSpotsim { path, own } => write!(
                f,
                "cgroup {path} contains spotsim itself (it is in {own}), whose own way to IMDS \
                 must stay open; choose a cgroup below {path} that spotsim is not in, or start \
                 spotsim from another cgroup"
            ),
            Self::Io { what, source } => write!(f, "cannot {what}: {source}"),
        }
    }
}

impl std::error::Error for TargetError {}

impl TargetError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl Cgroup {
    /// Finds a target by a path as in `/proc/PID/cgroup` (`/kubepods/…`) or by its full
    /// directory, and makes sure that spotsim is not in it.
    pub fn find(given: &str) -> Result<Self, TargetError> {
        let mount = mount()?;
        let cgroup = Self::at(&mount, given)?;
        let own = own_path()?;
        if cgroup.contains(&own) {
            let Self { path, .. } = cgroup;
            return Err(TargetError::ContainsSpotsim { path, own });
        }
        Ok(cgroup)
    }

    /// The path, as in `/proc/PID/cgroup`, that is meant by one or by a full directory.
    pub fn path_meant(given: &str) -> PathBuf {
        let mount = mount().ok();
        let below = mount.and_then(|mount| Path::new(given).strip_prefix(mount).ok());
        Path::new("/").join(below.unwrap_or(Path::new(given.trim_start_matches('/'))))
    }

    /// The path of the cgroup that a process is in.
    pub fn path_of(pid: u32) -> io::Result<String> {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let path = unified(&cgroups).ok_or(io::ErrorKind::NotFound)?;
        Ok(path.to_owned())
    }

    /// The path of the cgroup with this id, if that is the one that a process or thread is in.
    pub fn path_with(id: u64, pid: u32) -> Option<String> {
        let path = Self::path_of(pid).ok()?;
        let directory = mount().ok()?.join(path.trim_start_matches('/'));
        // Whoever has that number in this pid namespace, and wherever it was moved meanwhile.
        let same = fs::metadata(directory).is_ok_and(|metadata| metadata.ino() == id);
        same.then_some(path)
    }

    /// The cgroup of this path as in `/proc/PID/cgroup`, if it still has this id.
    pub fn find_with_id(path: &str, id: u64) -> Result<Option<Self>, TargetError> {
        match Self::at(&mount()?, path) {
            Ok(found) => Ok((found.id == id).then_some(found)),
            Err(TargetError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A plain directory in the place of a cgroup.
    #[cfg(test)]
    pub fn plain(path: &str, directory: PathBuf) -> Self {
        Self {
            path: path.to_owned(),
            id: fs::metadata(&directory).unwrap().ino(),
            directory,
        }
    }

    /// The cgroup that spotsim is in.
    pub fn own() -> Result<Self, TargetError> {
        Self::at(&mount()?, &own_path()?)
    }

    /// Makes a cgroup called `name` beneath the one that spotsim is in.
    pub fn create(name: &str) -> Result<Self, TargetError> {
        let mount = mount()?;
        let directory = Self::own()?.directory.join(name);
        fs::create_dir(&directory).map_err(TargetError::io(format!(
            "make the cgroup {}",
            directory.display()
        )))?;
        Self::of_directory(&mount, directory)
    }

    fn at(mount: &Path, given: &str) -> Result<Self, TargetError> {
        let full = Path::new(given);
        let directory = if full.starts_with(mount) || is_v1(full) {
            full.to_owned()
        } else {
            mount.join(given.trim_start_matches('/'))
        };
        let directory = directory
            .canonicalize()
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => TargetError::Missing {
                    given: given.to_owned(),
                    elsewhere: in_v1(mount, given),
                    looked_at: directory.clone(),
                },
                _ => TargetError::io(format!("look at the cgroup {}", directory.display()))(source),
            })?;
        Self::of_directory(mount, directory)
    }

    fn of_directory(mount: &Path, directory: PathBuf) -> Result<Self, TargetError> {
        let look = || {
            let metadata = fs::metadata(&directory)?;
            let kind = statfs(&directory)?.filesystem_type();
            io::Result::Ok((metadata, kind))
        };
        let (metadata, kind) = look().map_err(TargetError::io(format!(
            "look at the cgroup {}",
            directory.display()
        )))?;
        let below = directory.strip_prefix(mount);
        let (true, true, Ok(below)) = (metadata.is_dir(), kind == CGROUP2_SUPER_MAGIC, below)
        else {
            let v1 = kind == CGROUP_SUPER_MAGIC;
            return Err(TargetError::NotV2 { directory, v1 });
        };
        Ok(Self {
            path: format!("/{}", below.display()),
            id: metadata.ino(),
            directory,
        })
    }

    /// The path as in `/proc/PID/cgroup`.
    pub fn path(&self) -> &str {
        let Self { path, .. } = self;
        path
    }

    /// The cgroup id, as the kernel half tells it: no two cgroups ever have the same.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The directory under the cgroup v2 mount.
    pub fn directory(&self) -> &Path {
        let Self { directory, .. } = self;
        directory
    }

    /// A descriptor of the directory, as programs are attached to.
    pub fn open(&self) -> io::Result<File> {
        fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(self.directory())
    }

    /// Whether it is still there: a directory made anew under the same path is another cgroup.
    pub fn exists(&self) -> bool {
        let Self { directory, id, .. } = self;
        fs::metadata(directory).is_ok_and(|metadata| metadata.ino() == *id)
    }

    /// Whether a process is in it or beneath it.
    pub fn is_populated(&self) -> bool {
        let events = fs::read_to_string(self.directory().join("cgroup.events"));
        events.is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }

    /// Whether the cgroup at `path` is this one or beneath it.
    pub fn contains(&self, path: &str) -> bool {
        Path::new(path).starts_with(self.path())
    }

    /// This directory and all beneath it.
    pub fn directories(&self) -> Vec<PathBuf> {
        let mut found = vec![self.directory().to_owned()];
        let mut next = 0;
        while let Some(directory) = found.get(next) {
            // One that vanished meanwhile has nothing beneath it.
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let children: Vec<_> = entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path())
                .collect();
            found.extend(children);
            next += 1;
        }
        found
    }

    /// The processes in it and beneath it, as this pid namespace numbers them; 0 for one that it
    /// does not show.
    pub fn processes(&self) -> Vec<u32> {
        processes(&self.directories())
    }

    /// Whether a process is in it or beneath it.
    pub fn holds(&self, pid: u32) -> bool {
        // The path first: if the cgroup is still there after that, it was the one of that path.
        Self::path_of(pid).is_ok_and(|path| self.contains(&path)) && self.exists()
    }

    /// The cgroup ids (inode numbers) of this directory and all beneath it, with their paths.
    pub fn ids(&self) -> HashMap<u64, String> {
        let directories = self.directories().into_iter();
        let named = directories.filter_map(|directory| {
            let id = fs::metadata(&directory).ok()?.ino();
            let below = directory.strip_prefix(self.directory()).ok()?;
            let path = Path::new(self.path()).join(below);
            let path = path.to_string_lossy();
            // Joining nothing leaves a slash at the end.
            Some((
                id,
                if path.len() > 1 {
                    path.trim_end_matches('/')
                } else {
                    &path
                }
                .to_owned(),
            ))
        });
        named.collect()
    }

    /// The network namespaces of the processes in `directories` of it: the identities of all, and
    /// those that are not in `known`.
    pub fn namespaces(
        &self,
        directories: &[PathBuf],
        known: &HashSet<netns::Id>,
    ) -> (HashSet<netns::Id>, Vec<Namespace>) {
        let mut seen = HashSet::new();
        let mut new = Vec::new();
        for pid in processes(directories) {
            // A process that ended meanwhile is in no namespace.
            let Ok(Some(namespace)) = self.namespace_of(pid) else {
                continue;
            };
            if seen.insert(namespace.id()) && !known.contains(&namespace.id()) {
                new.push(namespace);
            }
        }
        (seen, new)
    }

    /// The namespace of a process or thread, unless it is no longer in this cgroup.
    pub fn namespace_of(&self, pid: u32) -> io::Result<Option<Namespace>> {
        // Everything is read through one directory of one process, so that a pid that is used
        // again in between leads to an error and not to somebody else's namespace.
        let process = File::open(format!("/proc/{pid}"))?;
        let namespace = Namespace::try_from(open_below(&process, "ns/net")?)?;
        let mut cgroups = String::new();
        open_below(&process, "cgroup")?.read_to_string(&mut cgroups)?;
        let inside = unified(&cgroups).is_some_and(|path| self.contains(path));
        Ok(inside.then_some(namespace))
    }
}

/// The processes in cgroups, as this pid namespace numbers them.
fn processes(directories: &[PathBuf]) -> Vec<u32> {
    let lists = directories
        .iter()
        .filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok());
    let mut processes = Vec::new();
    for list in lists {
        processes.extend(list.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    processes
}

fn open_below(directory: &impl AsFd, path: &str) -> io::Result<File> {
    let fd = openat(
        directory,
        path,
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    Ok(fd.into())
}

fn mount() -> Result<PathBuf, TargetError> {
    let missing = || io::Error::other("no cgroup v2 hierarchy is mounted (see `spotsim doctor`)");
    cgroup2_mount()
        .and_then(|mount| mount.ok_or_else(missing))
        .map_err(TargetError::io("find the cgroup v2 mount"))
}

fn own_path() -> Result<String, TargetError> {
    let read = || {
        let cgroups = fs::read_to_string("/proc/self/cgroup")?;
        let path = unified(&cgroups).ok_or(io::ErrorKind::NotFound)?;
        Ok(path.to_owned())
    };
    read().map_err(TargetError::io(
        "find spotsim's own cgroup in /proc/self/cgroup",
    ))
}

/// The cgroup v2 path in a `/proc/PID/cgroup`: the line of hierarchy 0 ([cgroups(7)][1]).
///
/// [1]: https://man7.org/linux/man-pages/man7/cgroups.7.html
fn unified(cgroups: &str) -> Option<&str> {
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.strip_suffix(" (deleted)").unwrap_or(path))
}

fn is_v1(path: &Path) -> bool {
    path.is_absolute() && statfs(path).is_ok_and(|fs| fs.filesystem_type() == CGROUP_SUPER_MAGIC)
}

/// Where a v1 hierarchy mounted beside the v2 one has a directory of that path.
fn in_v1(mount: &Path, given: &str) -> Option<PathBuf> {
    let beside = [mount, mount.parent()?];
    let hierarchies = beside
        .into_iter()
        .filter_map(|directory| fs::read_dir(directory).ok());
    hierarchies
        .flatten()
        .flatten()
        .map(|hierarchy| hierarchy.path().join(given.trim_start_matches('/')))
        .find(|path| is_v1(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(path: &str) -> Cgroup {
        Cgroup {
            path: path.to_owned(),
            directory: PathBuf::from("/nowhere"),
            id: 1,
        }
    }

    #[test]
    fn a_cgroup_contains_itself_and_what_is_beneath() {
        let pods = cgroup("/kubepods/pod1");
        assert!(pods.contains("/kubepods/pod1"));
        assert!(pods.contains("/kubepods/pod1/container"));
        assert!(!pods.contains("/kubepods/pod10"));
        assert!(!pods.contains("/kubepods"));
        assert!(cgroup("/").contains("/init.scope"));
    }

    #[test]
    fn the_unified_path_is_found_beside_v1_lines() {
        let hybrid = "9:name=systemd:/\n4:memory:/a\n0::/kubepods/pod1\n";
        assert_eq!(unified(hybrid), Some("/kubepods/pod1"));
        assert_eq!(unified("0::/a:b (deleted)\n"), Some("/a:b"));
        assert_eq!(unified("4:memory:/a\n"), None);
    }

    #[test]
    fn what_is_not_there_is_named_with_where_it_was_looked_for() {
        let mount = std::env::temp_dir();
        let error = Cgroup::at(&mount, "/no/such/cgroup")
            .unwrap_err()
            .to_string();
        let expected = format!("looked at {}/no/such/cgroup", mount.display());
        assert!(error.contains(&expected), "{error}");
    }

    #[test]
    fn a_plain_directory_is_no_cgroup() {
        let mount = std::env::temp_dir();
        let error = Cgroup::at(&mount, "/").unwrap_err();
        assert!(
            matches!(error, TargetError::NotV2 { v1: false, .. }),
            "{error}"
        );
    }
}
