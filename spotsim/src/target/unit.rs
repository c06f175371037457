//! The cgroup of a unit of the host's systemd.

use std::{
    collections::VecDeque,
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// The kinds of units that have processes, and so a cgroup ([systemd.unit(5)][1],
/// [systemd.slice(5)][2]).
///
/// [1]: https://www.freedesktop.org/software/systemd/man/latest/systemd.unit.html
/// [2]: https://www.freedesktop.org/software/systemd/man/latest/systemd.slice.html
const WITH_PROCESSES: [&str; 6] = ["service", "scope", "slice", "socket", "mount", "swap"];

/// The kinds that have none.
const WITHOUT_PROCESSES: [&str; 5] = ["target", "device", "automount", "timer", "path"];

/// The longest name of a unit, `UNIT_NAME_MAX` less its final zero.
const LONGEST_NAME: usize = 255;

/// Why no cgroup of a unit is to be had.
#[derive(Debug)]
pub enum UnitError {
    /// No unit has such a name; `why` says what is wrong with it.
    Name { given: String, why: String },
    /// It has no cgroup now. systemd makes one when the unit starts and removes it at its end.
    NotRunning { unit: String, looked_at: PathBuf },
    /// The hierarchy could not be read.
    Io {
        directory: PathBuf,
        source: io::Error,
    },
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { given, why } => {
                write!(
                    f,
                    "`{}` is no unit with processes: {why}",
                    given.escape_debug()
                )
            }
            Self::NotRunning { unit, looked_at } => write!(
                f,
                "no running unit {unit} (looked through the slices below {}); start it, or, for \
                 a unit of a user's systemd or of one in a container, give --cgroup its path",
                looked_at.display()
            ),
            Self::Io { directory, source } => {
                write!(
                    f,
                    "cannot look for units in {}: {source}",
                    directory.display()
                )
            }
        }
    }
}

impl std::error::Error for UnitError {}

/// The cgroup directory of a unit of the host's systemd: `nginx`, which is `nginx.service`,
/// `getty@tty1.service`, `system.slice`.
///
/// `mount` is where the cgroup v2 hierarchy is mounted. Slices are the only units that contain
/// others, and of all in the hierarchy only slices are looked into: so neither a container that
/// has a systemd of its own, nor a user's systemd, which is a service, can put a unit of that
/// name in the way.
pub fn unit_path(mount: &Path, name: &str) -> Result<PathBuf, UnitError> {
    let unit = full_name(name).map_err(|why| UnitError::Name {
        given: name.to_owned(),
        why,
    })?;
    let mut open = VecDeque::from([mount.to_owned()]);
    while let Some(directory) = open.pop_front() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // A slice may end while it is looked for.
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory != mount => continue,
            Err(source) => return Err(UnitError::Io { directory, source }),
        };
        for entry in entries.flatten() {
            let file_name = entry.file_name();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let Some(found) = file_name.to_str().filter(|_| is_directory) else {
                continue;
            };
            if unescape(found) == unit {
                return Ok(entry.path());
            }
            if found.ends_with(".slice") {
                open.push_back(entry.path());
            }
        }
    }
    Err(UnitError::NotRunning {
        unit,
        looked_at: mount.to_owned(),
    })
}

/// The unit that a cgroup's name stands for. systemd puts a `_` before what might be taken for
/// a file of the kernel's (`cpu.service`), and before another `_` ([`cg_escape`][1]).
///
/// [1]: https://github.com/systemd/systemd/blob/v257/src/basic/cgroup-util.c
fn unescape(directory: &str) -> &str {
    directory.strip_prefix('_').unwrap_or(directory)
}

/// The name with its kind; `.service` if it has none.
fn full_name(name: &str) -> Result<String, String> {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || r":-_.\@".contains(letter);
    if name.is_empty() {
        return Err("it is empty".to_owned());
    }
    if let Some(letter) = name.chars().find(|letter| !is_allowed(*letter)) {
        let letter = letter.escape_debug();
        return Err(format!(
            r"`{letter}` cannot be in it, only letters, digits, and `:-_.\@`"
        ));
    }
    let kind = name.rsplit_once('.').map_or("", |(_, kind)| kind);
    if WITHOUT_PROCESSES.contains(&kind) {
        return Err(format!("a {kind} starts others and has none itself"));
    }
    let full = if WITH_PROCESSES.contains(&kind) {
        name.to_owned()
    } else {
        format!("{name}.service")
    };
    let before_kind = full.rsplit_once('.').map_or("", |(before, _)| before);
    if before_kind.is_empty() || before_kind.starts_with('@') {
        Err("there is nothing before its kind".to_owned())
    } else if before_kind.ends_with('@') {
        Err("it is a template; name an instance, as in getty@tty1.service".to_owned())
    } else if full.len() > LONGEST_NAME {
        Err(format!("it is longer than {LONGEST_NAME}"))
    } else {
        Ok(full)
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    /// Directories like those of a cgroup hierarchy; removed when dropped.
    struct Hierarchy(PathBuf);

    impl Hierarchy {
        fn new(test: &str, directories: &[&str]) -> Self {
            let name = format!("spotsim-unit-{}-{test}", process::id());
            let hierarchy = Self(env::temp_dir().join(name));
            fs::create_dir_all(&hierarchy.0).unwrap();
            for directory in directories {
                fs::create_dir_all(hierarchy.0.join(directory)).unwrap();
            }
            hierarchy
        }

        fn find(&self, name: &str) -> Result<String, UnitError> {
            let Self(mount) = self;
            let found = unit_path(mount, name)?;
            Ok(found
                .strip_prefix(mount)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned())
        }
    }

    impl Drop for Hierarchy {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn units_lie_in_slices() {
        let host = Hierarchy::new(
            "slices",
            &[
                "init.scope",
                "system.slice/nginx.service/workers",
                "system.slice/nginx.service.d",
                r"system.slice/dev-disk-by\x2dlabel-swap.swap",
                "system.slice/system-getty.slice/getty@tty1.service",
                "system.slice/docker.socket",
                "system.slice/boot.mount",
                "user.slice/user-1000.slice/session-3.scope",
                "user.slice/user-1000.slice/user@1000.service/app.slice/shell.service",
            ],
        );
        for (name, path) in [
            ("nginx", "system.slice/nginx.service"),
            ("nginx.service", "system.slice/nginx.service"),
            (
                "getty@tty1",
                "system.slice/system-getty.slice/getty@tty1.service",
            ),
            ("system-getty.slice", "system.slice/system-getty.slice"),
            ("system.slice", "system.slice"),
            ("init.scope", "init.scope"),
            ("docker.socket", "system.slice/docker.socket"),
            ("boot.mount", "system.slice/boot.mount"),
            (
                r"dev-disk-by\x2dlabel-swap.swap",
                r"system.slice/dev-disk-by\x2dlabel-swap.swap",
            ),
            (
                "session-3.scope",
                "user.slice/user-1000.slice/session-3.scope",
            ),
            ("user@1000", "user.slice/user-1000.slice/user@1000.service"),
        ] {
            assert_eq!(host.find(name).unwrap(), path, "{name}");
        }
        for name in [
            "docker",
            "ngin",
            "nginx.service.d",
            "shell",
            "app.slice",
            "workers",
            "init",
        ] {
            let error = host.find(name).unwrap_err();
            assert!(
                matches!(error, UnitError::NotRunning { .. }),
                "{name}: {error}"
            );
        }
    }

    /// Neither a container nor a user can have their unit taken for the host's.
    #[test]
    fn a_unit_of_that_name_elsewhere() {
        let host = Hierarchy::new(
            "elsewhere",
            &[
                "nginx.d/nginx.service",
                "docker/0123/system.slice/nginx.service",
                "kubepods/pod1/abc/system.slice/nginx.service",
                "kubepods.slice/kubepods-pod1.slice/cri-containerd-abc.scope/system.slice/nginx.service",
                "user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service",
            ],
        );
        let error = host.find("nginx").unwrap_err().to_string();
        let expected = format!(
            "no running unit nginx.service (looked through the slices below {}); start it, or, \
             for a unit of a user's systemd or of one in a container, give --cgroup its path",
            host.0.display()
        );
        assert_eq!(error, expected);
        fs::create_dir_all(host.0.join("a.slice/a-b.slice/nginx.service")).unwrap();
        assert_eq!(
            host.find("nginx").unwrap(),
            "a.slice/a-b.slice/nginx.service"
        );
    }

    #[test]
    fn names_that_systemd_escapes() {
        let host = Hierarchy::new(
            "escapes",
            &[
                "s.slice/_cpu.service",
                "s.slice/__under.service",
                "_memory.slice/x.service",
            ],
        );
        for (name, path) in [
            ("cpu", "s.slice/_cpu.service"),
            ("_under", "s.slice/__under.service"),
            ("memory.slice", "_memory.slice"),
            ("x", "_memory.slice/x.service"),
        ] {
            assert_eq!(host.find(name).unwrap(), path, "{name}");
        }
        // `_cpu.service` is the cgroup of another unit.
        for name in ["_cpu", "__under", "under"] {
            assert!(host.find(name).is_err(), "{name}");
        }
    }

    #[test]
    fn files_and_links_are_no_units() {
        let host = Hierarchy::new("files", &["real.slice/a.service"]);
        fs::write(host.0.join("b.service"), "").unwrap();
        std::os::unix::fs::symlink("real.slice", host.0.join("link.slice")).unwrap();
        assert_eq!(host.find("a").unwrap(), "real.slice/a.service");
        assert!(host.find("b").is_err());
        assert!(host.find("link.slice").is_err());
    }

    #[test]
    fn names_that_are_none() {
        let long = "n".repeat(LONGEST_NAME + 1 - ".service".len());
        for (name, why) in [
            ("", "`` is no unit with processes: it is empty"),
            ("../x", "`/` cannot be in it"),
            ("system.slice/nginx.service", "`/` cannot be in it"),
            ("a b", "` ` cannot be in it"),
            ("a\n", r"`\n` cannot be in it"),
            ("é", "`é` cannot be in it"),
            (".service", "nothing before its kind"),
            ("@a.service", "nothing before its kind"),
            ("getty@", "it is a template; name an instance"),
            ("getty@.service", "it is a template; name an instance"),
            ("apt-daily.timer", "a timer starts others"),
            ("basic.target", "a target starts others"),
            (&long, "it is longer than 255"),
        ] {
            let error = unit_path(Path::new("/nowhere"), name).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(why), "{name:?}: {error}");
            assert!(!error.contains('\n'), "{error:?}");
        }
        // `..` is `...service`, a name like any other.
        let longest = &long[1..];
        for name in [longest, ".", ".."] {
            let error = unit_path(Path::new("/nowhere"), name)
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("cannot look for units in /nowhere: "),
                "{error}"
            );
        }
    }
}
