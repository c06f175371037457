//! The record that the kernel half leaves for each connection to IMDS.

use bytemuck::{Pod, Zeroable};

/// One connection to IMDS by a process in a target, and what became of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ConnectRecord {
    /// `CLOCK_MONOTONIC` at the connect, in nanoseconds.
    pub time_ns: u64,
    /// The connecting task's own cgroup (its directory's inode number). The *socket's* cgroup
    /// chose the program; the two differ after a process was moved.
    pub cgroup_id: u64,
    /// The namespace's cookie, as `SO_NETNS_COOKIE` gives it.
    pub netns_cookie: u64,
    /// The socket's cookie, as `SO_COOKIE` and sock_diag give it; never used twice.
    pub socket_cookie: u64,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// Group id in the initial user namespace.
    pub gid: u32,
    /// `AF_INET` or `AF_INET6`: the family of the socket, not of the wire.
    pub family: u16,
    /// A [`Verdict`].
    pub verdict: u8,
    /// Always 0.
    pub padding: [u8; 5],
    /// The thread's name, NUL-padded.
    pub comm: [u8; 16],
}

/// The kernel half writes it in one piece; a change of shape must be seen by both halves.
const _: () = assert!(size_of::<ConnectRecord>() == 72);

/// The decision in a [`ConnectRecord`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Redirected to the responder.
    Redirected = 1,
    /// Passed to the real IMDS: no listener in the caller's network namespace.
    Missed = 2,
    /// Passed to the real IMDS: the socket is bound to a device, which its owner may not change.
    Bound = 3,
}

impl ConnectRecord {
    /// The verdict, if this build knows it.
    pub const fn verdict(&self) -> Option<Verdict> {
        match self.verdict {
            1 => Some(Verdict::Redirected),
            2 => Some(Verdict::Missed),
            3 => Some(Verdict::Bound),
            _ => None,
        }
    }

    /// The thread's name up to its first NUL.
    pub fn comm(&self) -> &[u8] {
        let end = self.comm.iter().position(|&b| b == 0);
        &self.comm[..end.unwrap_or(self.comm.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_survive_the_wire() {
        let mut record = ConnectRecord::zeroed();
        assert_eq!(record.verdict(), None);
        for verdict in [Verdict::Redirected, Verdict::Missed, Verdict::Bound] {
            record.verdict = verdict as u8;
            assert_eq!(record.verdict(), Some(verdict));
        }
    }

    #[test]
    fn comm_ends_at_its_first_nul() {
        let mut record = ConnectRecord::zeroed();
        record.comm[..4].copy_from_slice(b"curl");
        assert_eq!(record.comm(), b"curl");
        record.comm = *b"sixteen-bytes-ok";
        assert_eq!(record.comm(), b"sixteen-bytes-ok");
    }
}
