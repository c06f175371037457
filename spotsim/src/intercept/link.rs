//! The attachments of one cgroup.
//!
//! They are made with `BPF_LINK_CREATE` here and not by aya, for the sake of one promise. When
//! a process is killed, its links must go before its listeners, so their descriptors must lie
//! above all others (see `descriptors`). aya 0.14 keeps a link's descriptor to itself and where
//! it fell.

use std::{
    fmt, io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use aya::Ebpf;
use aya_obj::generated::{bpf_attach_type, bpf_cmd};
use nix::errno::Errno;
use rustix::io::fcntl_dupfd_cloexec;
use spotsim_common::names;

use crate::descriptors::links_from;

/// A program by its name, and where it is attached.
pub type Attachment = (&'static str, bpf_attach_type);

/// The programs of an interception.
pub const ATTACHMENTS: [Attachment; 4] = [
    // The names of peers first, and off last: where connections are redirected, their peer must
    // look right.
    (
        names::GETPEERNAME4,
        bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME,
    ),
    (
        names::GETPEERNAME6,
        bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME,
    ),
    (names::CONNECT4, bpf_attach_type::BPF_CGROUP_INET4_CONNECT),
    (names::CONNECT6, bpf_attach_type::BPF_CGROUP_INET6_CONNECT),
];

/// The programs of a cut.
pub const CUT: [Attachment; 2] = [
    (names::CUT_INGRESS, bpf_attach_type::BPF_CGROUP_INET_INGRESS),
    (names::CUT_EGRESS, bpf_attach_type::BPF_CGROUP_INET_EGRESS),
];

/// The attachments of one cgroup. Dropping them detaches; so does the end of the process,
/// since they are never pinned.
#[derive(Debug)]
pub struct Links {
    fds: Vec<OwnedFd>,
}

impl Drop for Links {
    fn drop(&mut self) {
        let Self { fds } = self;
        while fds.pop().is_some() {}
    }
}

impl Links {
    pub(super) fn attach(
        ebpf: &Ebpf,
        cgroup: BorrowedFd<'_>,
        attachments: &[Attachment],
    ) -> Result<Self, AttachError> {
        let mut fds = Vec::with_capacity(attachments.len());
        for &(name, attach_type) in attachments {
            let attach = || {
                let program = ebpf.program(name).ok_or(io::ErrorKind::NotFound)?;
                let program = program.fd().map_err(io::Error::other)?;
                raise(create(program.as_fd(), cgroup, attach_type)?)
            };
            fds.push(attach().map_err(|source| AttachError {
                program: name,
                source,
            })?);
        }
        Ok(Self { fds })
    }
}

/// Which program could not be attached, and what the kernel said.
#[derive(Debug)]
pub struct AttachError {
    program: &'static str,
    source: io::Error,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, source } = self;
        write!(f, "{program}: {source}")?;
        // What EPERM means for one who could load programs: kernel/bpf/cgroup.c,
        // `hierarchy_allows_attach`.
        if source.raw_os_error() == Some(libc::EPERM) {
            f.write_str(
                "; another program holds this cgroup or one above it exclusively \
                 (see `bpftool cgroup tree`)",
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for AttachError {}

/// `BPF_LINK_CREATE` ([bpf(2)][1]). Without flags: the kernel gives a cgroup link the "multi"
/// mode by itself and refuses to be told so.
///
/// [1]: https://docs.kernel.org/userspace-api/ebpf/syscall.html
fn create(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: bpf_attach_type,
) -> io::Result<OwnedFd> {
    /// The head of `union bpf_attr` for this command; the kernel takes what is left out for 0.
    #[repr(C)]
    struct LinkCreate {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
    }
    let attr = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: attach_type as u32,
        flags: 0,
    };
    // SAFETY: the kernel reads `attr`, of the size given, and keeps no pointer to it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_LINK_CREATE as libc::c_long,
            &raw const attr,
            size_of::<LinkCreate>(),
        )
    };
    let fd = Errno::result(fd)? as RawFd;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Moves a descriptor into the upper half of the table, which links have to themselves.
fn raise(fd: OwnedFd) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(fd, links_from())?)
}
