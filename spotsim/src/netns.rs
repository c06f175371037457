//! Network namespaces: doing something inside one without ever leaving one's own.
//!
//! A socket belongs for life to the namespace of the thread that made it. So whatever has to
//! happen inside a namespace happens on a thread made for it, which enters, does it and ends; but
//! what each request needs, on one that stays. The runtime's threads never move.
//!
//! The host's cgroup namespace is another matter: a process in a container goes there once, at
//! its start, and stays ([`enter_hosts_cgroup_namespace`]).

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    sync::{Mutex, OnceLock, PoisonError, mpsc},
    thread,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::stat::fstat,
    unistd::{Gid, Uid, setfsgid, setfsuid},
};
use tokio::sync::oneshot;

/// What tells one namespace from another while either is alive: device and inode of its
/// `nsfs` file ([namespaces(7)][1]).
///
/// [1]: https://man7.org/linux/man-pages/man7/namespaces.7.html
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    device: u64,
    inode: u64,
}

impl Id {
    /// The number in `net:[4026531840]`, by which `lsns` and `ls -l /proc/PID/ns` show it.
    pub fn inode(self) -> u64 {
        self.inode
    }
}

/// An open network namespace. It cannot disappear while this is held.
#[derive(Debug)]
pub struct Namespace {
    file: OwnedFd,
    id: Id,
}

impl Namespace {
    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        File::open("/proc/thread-self/ns/net")?.try_into()
    }

    /// The host's own: that of its first process, if this is the host's pid namespace.
    pub fn of_init() -> io::Result<Self> {
        File::open("/proc/1/ns/net")?.try_into()
    }

    /// A new namespace with only `lo`, which is up.
    pub fn isolated() -> io::Result<Self> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            loopback_up()?;
            Self::current()
        })?
    }

    /// Another handle of the same namespace.
    pub fn try_clone(&self) -> io::Result<Self> {
        let Self { file, id } = self;
        Ok(Self {
            file: file.try_clone()?,
            id: *id,
        })
    }

    /// Which namespace it is.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Runs `f` on a thread inside the namespace and waits for its end.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_SYS_ADMIN` over the namespace; then `f` was not called.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_thread(|| {
            self.enter()?;
            Ok(f())
        })?
    }

    /// Whether it is spotsim's own, and spotsim runs as this owner. Nobody needs a thread, or a
    /// privilege, to be where and who they are.
    pub fn is_home(&self, owner: Owner) -> bool {
        static HOME: OnceLock<Option<Id>> = OnceLock::new();
        let home = HOME.get_or_init(|| Self::current().ok().map(|current| current.id));
        *home == Some(self.id) && owner == Owner::current()
    }

    /// As [`Namespace::run`], and as `owner`: to whatever goes by the owner of a socket (`ip rule
    /// … uidrange`, `iptables -m owner`), the sockets that `f` makes are that user's.
    ///
    /// For what each request needs: a thread that stays does it (`Errand`), and nobody blocks.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_SETUID` and `CAP_SETGID`, too.
    pub async fn run_as<T: Send + 'static>(
        &self,
        owner: Owner,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (done, outcome) = oneshot::channel();
        Errand {
            namespace: self.try_clone()?,
            owner,
            // Who asked may have given up.
            work: Box::new(|entered| _ = done.send(entered.map(|()| f()))),
        }
        .send()?;
        // Another thread will do it, when this is tried again.
        let lost = |_| io::Error::from_raw_os_error(libc::EAGAIN);
        outcome.await.map_err(lost)?
    }

    /// Moves the calling thread into the namespace. For a process that is about to execute
    /// something else; anything that goes on must use [`Namespace::run`].
    ///
    /// Async-signal-safe: one system call.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.file, CloneFlags::CLONE_NEWNET)?)
    }
}

impl TryFrom<File> for Namespace {
    type Error = io::Error;

    /// Takes an open `/proc/PID/ns/net`.
    fn try_from(file: File) -> io::Result<Self> {
        let stat = fstat(&file)?;
        Ok(Self {
            file: file.into(),
            id: Id {
                device: stat.st_dev,
                inode: stat.st_ino,
            },
        })
    }
}

/// Runs `f` inside each of the namespaces, one after the other on one thread, and waits for its
/// end.
///
/// # Errors
///
/// As [`Namespace::run`], for each; the outer one if there is no thread to be had.
pub fn run_in_each<T: Send>(
    namespaces: &[Namespace],
    f: impl Fn() -> T + Send,
) -> io::Result<Vec<io::Result<T>>> {
    on_thread(move || {
        let inside = |namespace: &Namespace| {
            namespace.enter()?;
            Ok(f())
        };
        namespaces.iter().map(inside).collect()
    })
}

/// Something to be done in another namespace and as another user, by the thread that does all of
/// these, one after the other. To make a thread for each takes five times as long as what they do.
struct Errand {
    namespace: Namespace,
    owner: Owner,
    /// Is told if the thread could not get there.
    work: Box<dyn FnOnce(io::Result<()>) + Send>,
}

impl Errand {
    /// Hands it to the thread, which is made when there is none.
    fn send(self) -> io::Result<()> {
        static THREAD: Mutex<Option<mpsc::Sender<Errand>>> = Mutex::new(None);
        let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
        let errand = match &*thread {
            Some(errands) => match errands.send(self) {
                Ok(()) => return Ok(()),
                Err(mpsc::SendError(errand)) => errand,
            },
            None => self,
        };
        let (errands, all) = mpsc::channel();
        let home = Namespace::current()?;
        thread::Builder::new()
            .name("netns".into())
            .spawn(move || Self::run_all(&all, &home))?;
        errands
            .send(errand)
            .map_err(|_| io::Error::from_raw_os_error(libc::EAGAIN))?;
        *thread = Some(errands);
        Ok(())
    }

    fn run_all(errands: &mpsc::Receiver<Self>, home: &Namespace) {
        for errand in errands {
            let Self {
                namespace,
                owner,
                work,
            } = errand;
            work(namespace.enter().and_then(|()| owner.assume()));
            drop(namespace);
            // Where a thread is, the namespace stays. One that cannot come back ends, and so
            // leaves.
            if home.enter().is_err() {
                return;
            }
        }
    }
}

/// A user and a group, as the initial user namespace numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl Owner {
    /// Whom spotsim runs as.
    pub fn current() -> Self {
        Self {
            uid: Uid::effective().as_raw(),
            gid: Gid::effective().as_raw(),
        }
    }

    /// Makes the calling thread one of this owner when it makes files and sockets.
    ///
    /// These two system calls report no error: they return what was before
    /// ([setfsuid(2)][1]).
    ///
    /// [1]: https://man7.org/linux/man-pages/man2/setfsuid.2.html
    fn assume(self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setfsgid(gid);
        setfsuid(uid);
        if setfsgid(gid) == gid && setfsuid(uid) == uid {
            Ok(())
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

/// Which cgroup namespace a thread is in. Paths in `/proc/PID/cgroup`, and the roots of mounted
/// hierarchies, are shown to it as seen from there ([cgroup_namespaces(7)][1]).
///
/// [1]: https://man7.org/linux/man-pages/man7/cgroup_namespaces.7.html
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupNamespace {
    /// The machine's first, in which every cgroup has a path.
    First,
    /// One within it: that of a container, or of a node that is a container itself.
    Nested,
}

/// Moves the calling thread, and so every thread that it starts, into the cgroup namespace of
/// process 1, and says which one that is.
///
/// Who is in a container, but shares the host's processes, sees the whole hierarchy from there,
/// with the paths that the host has. Who shares nothing is in the namespace of process 1
/// already, and who shares the processes of a pod stays: its process 1 is in a namespace beside
/// this one, which shows less and not more.
///
/// # Errors
///
/// `EACCES` without `CAP_SYS_PTRACE`, or where AppArmor or SELinux forbids to look at process 1;
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn enter_hosts_cgroup_namespace() -> io::Result<CgroupNamespace> {
    // `include/uapi/linux/nsfs.h`
    const FIRST: &str = "cgroup:[4026531835]";
    const INIT: &str = "/proc/1/ns/cgroup";
    let own = fs::read_link("/proc/thread-self/ns/cgroup")?;
    if own.as_os_str() == FIRST {
        return Ok(CgroupNamespace::First);
    }
    let inits = fs::read_link(INIT)?;
    if own == inits {
        return Ok(CgroupNamespace::Nested);
    }
    let file = File::open(INIT)?;
    let enter = || io::Result::Ok(setns(&file, CloneFlags::CLONE_NEWCGROUP)?);
    let is_outside = on_thread(|| {
        enter()?;
        let cgroups = fs::read_to_string("/proc/thread-self/cgroup")?;
        io::Result::Ok(is_outside(&cgroups))
    })??;
    if is_outside {
        return Ok(CgroupNamespace::Nested);
    }
    enter()?;
    Ok(if inits.as_os_str() == FIRST {
        CgroupNamespace::First
    } else {
        CgroupNamespace::Nested
    })
}

/// Whether a `/proc/PID/cgroup`, as it is shown in some cgroup namespace, is that of a process
/// outside it.
fn is_outside(cgroups: &str) -> bool {
    let mut lines = cgroups.lines();
    lines.any(|line| line == "0::/.." || line.starts_with("0::/../"))
}

/// The cookie of the namespace that `socket` belongs to: the number that the kernel half gets
/// from `bpf_get_netns_cookie`. Unlike an inode number it is never used twice.
///
/// # Errors
///
/// `ENOPROTOOPT` on kernels before 5.14.
pub fn cookie(socket: &impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` is valid for writes of `length` bytes and the kernel writes no more.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(cookie)
}

/// Calls `f` on a thread of its own and waits for its end.
pub fn on_thread<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, f)?;
        Ok(thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Sets `IFF_UP` on `lo` of the calling thread's namespace ([netdevice(7)][1]).
///
/// [1]: https://man7.org/linux/man-pages/man7/netdevice.7.html
fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: an all-zero `ifreq` is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_current_namespace_has_one_identity_and_one_cookie() {
        let (a, b) = (Namespace::current().unwrap(), Namespace::current().unwrap());
        assert_eq!(a.id(), b.id());
        let link = fs::read_link("/proc/self/ns/net").unwrap();
        assert_eq!(link.to_str().unwrap(), format!("net:[{}]", a.id().inode()));

        let listen = || TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (first, second) = (cookie(&listen()).unwrap(), cookie(&listen()).unwrap());
        assert_ne!(first, 0);
        assert_eq!(first, second);
    }

    #[test]
    fn outside_is_above_or_beside() {
        for outside in ["0::/..\n", "4:memory:/\n0::/../other\n", "0::/../../a\n"] {
            assert!(is_outside(outside), "{outside:?}");
        }
        for inside in ["0::/\n", "4:memory:/../a\n0::/a/b\n", "0::/..a\n", ""] {
            assert!(!is_outside(inside), "{inside:?}");
        }
    }

    #[test]
    fn who_one_is_already_one_may_assume() {
        on_thread(|| Owner::current().assume()).unwrap().unwrap();
    }

    #[test]
    fn a_cookie_needs_a_socket() {
        let file = File::open("/proc/self/stat").unwrap();
        let error = cookie(&file).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
    }
}
