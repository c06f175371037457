//! Who may have which file descriptors.
//!
//! When a process is killed, the kernel closes its descriptors from the highest down. The links
//! of the kernel half must go before the listeners that they lead to, so the upper half of the
//! table is theirs alone.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, RawFd},
    sync::OnceLock,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::io::fcntl_dupfd_cloexec;

/// The kernel's table grows with the highest descriptor, by 8 bytes each.
const MOST: u64 = 65_536;

/// The lowest descriptor of a link: half of how many there can be.
///
/// The first call raises the soft limit, which for `select`'s sake is usually 1,024, as far as
/// the hard one lets it.
pub fn links_from() -> RawFd {
    static FLOOR: OnceLock<RawFd> = OnceLock::new();
    *FLOOR.get_or_init(|| {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1_024, 1_024));
        let wanted = hard.min(MOST).max(soft);
        let limit = match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
            Ok(()) => wanted,
            Err(_) => soft,
        };
        (limit.min(MOST) / 2) as RawFd
    })
}

/// Makes the kernel's table as long as links will need it. Before there is another thread; later
/// the kernel waits until none can be using the shorter table (`expand_fdtable` in fs/file.c),
/// which takes 15 ms and more.
pub fn make_room() {
    // Where this fails, so will whatever needs the room, and say what it was for.
    let _ = fcntl_dupfd_cloexec(io::stdin(), links_from());
}

/// How many connections all listeners together may have at a time. With a second one each, to the
/// upstream, they take half of what links leave; the other half, but for [`spares`], is for
/// listeners.
pub fn connections() -> usize {
    (links_from() as usize / 4).max(16)
}

/// How many sockets may be there that no connection needs yet: an eighth of what connections have.
pub fn spares() -> usize {
    connections() / 8
}

/// Makes sure that a listener's descriptor lies below those of links.
///
/// # Errors
///
/// `ErrorKind::QuotaExceeded` if none was left there.
pub fn below_links(listener: &impl AsFd) -> io::Result<()> {
    let floor = links_from();
    if listener.as_fd().as_raw_fd() < floor {
        return Ok(());
    }
    let error = format!(
        "the {floor} file descriptors for listeners and connections are used up; raise the limit \
         of open files (`ulimit -Hn`, LimitNOFILE=)"
    );
    Err(io::Error::new(io::ErrorKind::QuotaExceeded, error))
}
