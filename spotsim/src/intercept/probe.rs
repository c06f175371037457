//! Whether this kernel takes the kernel half, piece by piece.

use std::io;

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported},
};

use super::Programs;

/// What this kernel lets this process do. An error says why it does not; it is of the kind
/// `PermissionDenied` if the kernel may well have it, but not for this process.
#[derive(Debug)]
pub struct Probe {
    /// Programs on a cgroup that see addresses: `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
    pub program: io::Result<()>,
    /// `BPF_MAP_TYPE_RINGBUF`, by which the kernel half reports.
    pub ring_buffer: io::Result<()>,
    /// `bpf_get_netns_cookie` in such a program.
    pub netns_cookie_helper: io::Result<()>,
    /// All four programs with their maps, as `attach` loads them.
    pub load: io::Result<()>,
}

/// Loads and drops what it takes to find out. Attaches nothing.
pub fn probe() -> Probe {
    Probe {
        program: supported(is_program_supported(ProgramType::CgroupSockAddr)),
        ring_buffer: supported(is_map_supported(MapType::RingBuf)),
        netns_cookie_helper: supported(is_helper_supported(
            ProgramType::CgroupSockAddr,
            BpfHelper::BPF_FUNC_get_netns_cookie,
        )),
        load: Programs::load(false).map(drop).map_err(obstacle),
    }
}

fn supported<E>(answer: Result<bool, E>) -> io::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    match answer {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel does not have it",
        )),
        Err(error) => Err(obstacle(error.into())),
    }
}

/// The whole chain in one error.
fn obstacle(error: anyhow::Error) -> io::Error {
    let mut reason = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Some errors say what their source says.
        if reason.is_empty() {
            reason = cause;
        } else if !reason.ends_with(&cause) {
            reason = format!("{reason}: {cause}");
        }
    }
    let kind = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .map_or(io::ErrorKind::Other, io::Error::kind);
    io::Error::new(kind, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_obstacle_says_everything_once() {
        let denied = io::Error::from_raw_os_error(libc::EPERM);
        let error = anyhow::Error::from(denied)
            .context("no map X")
            .context("map error: no map X")
            .context("cannot load");
        let obstacle = obstacle(error);
        let expected = "cannot load: map error: no map X: Operation not permitted (os error 1)";
        assert_eq!(obstacle.to_string(), expected);
        assert_eq!(obstacle.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn what_is_not_supported_is_not_forbidden() {
        let kind = |answer| supported(answer).unwrap_err().kind();
        assert!(supported::<io::Error>(Ok(true)).is_ok());
        assert_eq!(kind(Ok(false)), io::ErrorKind::Unsupported);
        let denied = io::Error::from_raw_os_error(libc::EPERM);
        assert_eq!(kind(Err(denied)), io::ErrorKind::PermissionDenied);
    }
}
