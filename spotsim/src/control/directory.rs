//! The run directory: who claims which ID, and what a dead process left.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use log::{debug, info};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt,
            listen, socket, sockopt::PeerCredentials,
        },
        stat::{Mode, fchmod},
    },
};

use super::Id;
use crate::run_directory::RunDirectory;

/// What a socket's name ends with.
const SUFFIX: &str = ".sock";

/// The longest path of a unix socket in bytes (`sun_path` without its NUL, unix(7)).
const LONGEST_PATH: usize = 107;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1_024;

/// Where the sockets are.
#[derive(Clone, Debug)]
pub struct Directory {
    run: RunDirectory,
}

/// An ID that is ours, and its socket, which listens already. It is removed when this is
/// dropped.
#[derive(Debug)]
pub struct Claim {
    id: Id,
    path: PathBuf,
    /// Device and inode: what somebody else made in its place is left alone.
    inode: (u64, u64),
    listener: Option<UnixListener>,
}

/// What is at the other side of a socket.
enum Peer {
    /// A process that listens; its id, if it is in our pid namespace.
    Alive(Option<i32>),
    /// A socket that nobody listens on any more.
    Dead,
    /// Nothing that we could ask.
    Unknown(Errno),
}

impl Directory {
    /// The one at this path, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            run: RunDirectory::new(path),
        }
    }

    /// The one where every spotsim of this user looks; `None` if there is none.
    pub fn default_for_user() -> Option<Self> {
        RunDirectory::default_for_user().map(|run| Self { run })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.run.path()
    }

    /// Where the socket of an ID is, if there is one.
    pub fn socket(&self, id: &Id) -> PathBuf {
        self.path().join(format!("{id}{SUFFIX}"))
    }

    /// Claims an ID and listens. Makes the directory if there is none, for its owner alone.
    ///
    /// # Errors
    ///
    /// If a running process has it, or the directory is not ours alone.
    pub fn claim(&self, id: Id) -> Result<Claim> {
        let path = self.socket(&id);
        let length = path.as_os_str().len();
        if length > LONGEST_PATH {
            bail!(
                "the path {} has {length} bytes, and a socket's can have {LONGEST_PATH}: choose \
                 a shorter --run-dir or --id",
                path.display()
            );
        }
        self.run.make()?;
        let lock = self.run.lock()?;
        self.clear()?;
        match Peer::at(&path) {
            Peer::Unknown(Errno::ENOENT) => {}
            Peer::Alive(pid) => {
                let pid = pid.map_or_else(String::new, |pid| format!(" with pid {pid}"));
                bail!("the ID {id} is taken by a spotsim{pid}: choose another with --id");
            }
            Peer::Dead | Peer::Unknown(_) => {
                bail!(
                    "{} is in the way: remove it, or choose another --id",
                    path.display()
                )
            }
        }
        let listener =
            open(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
        // Nobody takes it for a dead one, because it listens.
        drop(lock);
        let made = fs::symlink_metadata(&path)
            .with_context(|| format!("cannot look at {}", path.display()))?;
        Ok(Claim {
            id,
            inode: (made.dev(), made.ino()),
            path,
            listener: Some(listener),
        })
    }

    /// The IDs of the running ones. What dead ones left is removed.
    pub fn ids(&self) -> Result<Vec<Id>> {
        match self.run.lock() {
            Ok(lock) => {
                let ids = self.clear();
                drop(lock);
                ids
            }
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Removes the sockets of dead processes, and returns the IDs of the others. The directory
    /// must be locked: a socket that is bound and does not listen yet looks dead.
    fn clear(&self) -> Result<Vec<Id>> {
        let cannot = || format!("cannot list {}", self.path().display());
        let entries = fs::read_dir(self.path()).with_context(cannot)?;
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.with_context(cannot)?;
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            let Some(id) = id.and_then(|id| id.parse::<Id>().ok()) else {
                continue;
            };
            if !entry.file_type().is_ok_and(|kind| kind.is_socket()) {
                continue;
            }
            match Peer::at(&entry.path()) {
                Peer::Alive(_) => ids.push(id),
                Peer::Dead => {
                    debug!("removing {}: its process is dead", entry.path().display());
                    if let Err(error) = fs::remove_file(entry.path()) {
                        info!("cannot remove {}: {error}", entry.path().display());
                    }
                }
                Peer::Unknown(error) => debug!("{}: {error}", entry.path().display()),
            }
        }
        ids.sort();
        Ok(ids)
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

impl Peer {
    fn at(path: &Path) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let connected = UnixAddr::new(path).and_then(|address| {
            let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
            connect(socket.as_raw_fd(), &address).map(|()| socket)
        });
        match connected {
            Ok(socket) => {
                let peer = getsockopt(&socket, PeerCredentials).map(|peer| peer.pid());
                Self::Alive(peer.ok().filter(|pid| *pid > 0))
            }
            // So many wait that there is no room for another.
            Err(Errno::EAGAIN) => Self::Alive(None),
            Err(Errno::ECONNREFUSED) => Self::Dead,
            Err(error) => Self::Unknown(error),
        }
    }
}

/// A socket for its owner alone. It gets its mode before its name: Linux gives a name the mode
/// of the socket, less the umask ([net/unix/af_unix.c, `unix_bind_bsd`][1]).
///
/// [1]: https://elixir.bootlin.com/linux/v6.12/source/net/unix/af_unix.c
fn open(path: &Path) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(socket.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket.into())
}

impl Claim {
    /// What is claimed.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Where its socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket, the first time. It does not block.
    pub fn take_listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Self { path, inode, .. } = self;
        let ours = fs::symlink_metadata(&*path).is_ok_and(|it| (it.dev(), it.ino()) == *inode);
        if ours && let Err(error) = fs::remove_file(&*path) {
            info!("cannot remove {}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, thread};

    use nix::unistd::geteuid;

    use super::*;

    /// A directory that is not there yet.
    struct Fresh(Directory);

    impl Fresh {
        fn new(name: &str) -> Self {
            let name = format!("spotsim-run-{}-{name}", std::process::id());
            Self(Directory::new(std::env::temp_dir().join(name)))
        }
    }

    impl Drop for Fresh {
        fn drop(&mut self) {
            let Self(directory) = self;
            let _ = fs::remove_dir_all(directory.path());
        }
    }

    fn id(text: &str) -> Id {
        text.parse().unwrap()
    }

    #[test]
    fn a_claim_is_for_its_owner_alone_and_ends_with_it() {
        let Fresh(directory) = &Fresh::new("modes");
        assert_eq!(directory.ids().unwrap(), []);
        assert!(!directory.path().exists(), "to look makes nothing");
        let claim = directory.claim(id("one")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(directory.path()), 0o700);
        assert_eq!(mode(claim.path()), 0o600);
        assert_eq!(directory.ids().unwrap(), [id("one")]);
        drop(claim);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_id_is_claimed_once() {
        let Fresh(directory) = &Fresh::new("once");
        let claim = directory.claim(id("one")).unwrap();
        let error = directory.claim(id("one")).unwrap_err().to_string();
        let pid = std::process::id();
        let expected =
            format!("the ID one is taken by a spotsim with pid {pid}: choose another with --id");
        assert_eq!(error, expected);
        let _other = directory.claim(id("two")).unwrap();
        assert_eq!(directory.ids().unwrap(), [id("one"), id("two")]);
        drop(claim);
        directory.claim(id("one")).unwrap();
    }

    #[test]
    fn of_many_at_once_one_gets_it() {
        let Fresh(directory) = &Fresh::new("race");
        let claims: Vec<_> = thread::scope(|scope| {
            let one = |_| scope.spawn(|| directory.claim(id("one")));
            let threads: Vec<_> = (0..16).map(one).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 1);
    }

    #[test]
    fn what_a_dead_process_left_is_removed() {
        let Fresh(directory) = &Fresh::new("dead");
        let _alive = directory.claim(id("alive")).unwrap();
        let dead = directory.path().join("dead.sock");
        drop(UnixListener::bind(&dead).unwrap());
        // Others than sockets are none of ours.
        fs::write(directory.path().join("file.sock"), "").unwrap();
        fs::write(directory.path().join("note.txt"), "").unwrap();
        assert_eq!(directory.ids().unwrap(), [id("alive")]);
        assert!(!dead.exists());
        assert!(directory.path().join("note.txt").exists());
        let error = directory.claim(id("file")).unwrap_err().to_string();
        assert!(error.contains("file.sock is in the way"), "{error}");
    }

    #[test]
    fn another_ones_socket_is_left_alone() {
        let Fresh(directory) = &Fresh::new("other");
        let claim = directory.claim(id("one")).unwrap();
        fs::remove_file(claim.path()).unwrap();
        let other = directory.claim(id("one")).unwrap();
        drop(claim);
        assert!(other.path().exists());
    }

    #[test]
    fn a_directory_of_others_is_left_alone() {
        let Fresh(directory) = &Fresh::new("others");
        fs::create_dir(directory.path()).unwrap();
        let dead = directory.path().join("dead.sock");
        drop(UnixListener::bind(&dead).unwrap());
        let refused = |reason: &str| {
            let look = directory.ids().unwrap_err().to_string();
            let claim = directory.claim(id("one")).unwrap_err().to_string();
            assert_eq!(look, claim);
            assert!(look.contains(reason), "{look}");
            assert!(dead.exists(), "what is in it is none of ours");
        };
        let set_mode = |mode| {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
        };
        for mode in [0o755, 0o701, 0o720, 0o1777] {
            set_mode(mode);
            refused(&format!("is open to others (mode {mode:04o}): choose"));
        }
        set_mode(0o700);
        if geteuid().is_root() {
            std::os::unix::fs::chown(directory.path(), Some(65_534), None).unwrap();
            refused("belongs to user 65534 and not to us, user 0: ");
            std::os::unix::fs::chown(directory.path(), Some(0), None).unwrap();
        }
        assert_eq!(directory.ids().unwrap(), []);
        assert!(!dead.exists());
    }

    #[test]
    fn a_path_that_is_too_long_is_said_to_be() {
        let Fresh(directory) = &Fresh::new(&"x".repeat(90));
        let error = directory.claim(id("one")).unwrap_err().to_string();
        assert!(
            error.contains("bytes, and a socket's can have 107"),
            "{error}"
        );
        assert!(!directory.path().exists());
    }
}
