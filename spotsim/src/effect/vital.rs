//! The processes without which the node, or spotsim, does not go on.

use std::{fmt, fs};

use super::process::{self, Process};
use crate::target::{Cgroup, Target};

/// The kubelet, also as distributions build it in.
const KUBELETS: [&str; 6] = ["kubelet", "kubelite", "hyperkube", "k3s", "k0s", "rke2"];

/// Container runtimes. What stands between them and a container, a shim, conmon or a pause, is
/// a part of the pod.
const RUNTIMES: [&str; 4] = ["containerd", "crio", "cri-dockerd", "dockerd"];

/// Why nothing may be done to a target.
#[derive(Debug, PartialEq, Eq)]
pub enum Vital {
    /// It is all there is.
    Root,
    /// It holds such a process.
    Holds {
        target: String,
        process: Process,
        is: &'static str,
        cgroup: String,
    },
    /// It holds a process of which nothing can be known.
    Unknown { target: String },
}

impl fmt::Display for Vital {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str(
                "nothing is done to the root cgroup at the deadline: it holds every process; \
                 choose a cgroup below it",
            ),
            Self::Holds {
                target,
                process,
                is,
                cgroup,
            } => write!(
                f,
                "nothing is done to {target} at the deadline: it holds {is}, {process}, in cgroup \
                 {cgroup}; choose a target without it"
            ),
            Self::Unknown { target } => write!(
                f,
                "nothing is done to {target} at the deadline: it holds processes that are not \
                 seen from spotsim's pid namespace, so that they may be anything; share the \
                 host's (`hostPID: true`)"
            ),
        }
    }
}

impl std::error::Error for Vital {}

/// Refuses a target that holds such a process or is above one's cgroup.
pub fn check(target: &Target) -> Result<(), Vital> {
    let cgroup = &target.cgroup;
    // An empty path would be the root's, too.
    if cgroup.path().trim_matches('/').is_empty() {
        return Err(Vital::Root);
    }
    for pid in cgroup.processes() {
        if pid == 0 {
            let target = target.to_string();
            return Err(Vital::Unknown { target });
        }
        // One that has ended is nothing any more.
        let Some(name) = process::name(pid) else {
            continue;
        };
        if let Some(is) = role(pid, &name) {
            let path = Cgroup::path_of(pid);
            return Err(Vital::Holds {
                target: target.to_string(),
                process: Process { pid, name },
                is,
                cgroup: path.unwrap_or_else(|_| cgroup.path().to_owned()),
            });
        }
    }
    Ok(())
}

/// What such a process is; `None` of any other.
fn role(pid: u32, name: &str) -> Option<&'static str> {
    // NixOS starts some through a wrapper: `.kubelet-wrapped`.
    let name = name.trim_start_matches('.').trim_end_matches("-wrapped");
    if pid == 1 {
        Some("process 1")
    } else if pid == std::process::id() {
        Some("spotsim itself")
    } else if KUBELETS.contains(&name) {
        Some("the kubelet")
    } else if RUNTIMES.contains(&name) || (name == "podman" && is_service(pid)) {
        Some("the container runtime")
    } else {
        None
    }
}

/// Whether a podman is the one that others ask: `podman system service`.
fn is_service(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split(|&byte| byte == 0).collect();
    let system = words.iter().position(|word| *word == b"system");
    system.is_some_and(|at| words.get(at + 1) == Some(&b"service".as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_refused_by_any_of_its_names() {
        for path in ["", "/", "//"] {
            let cgroup = Cgroup::plain(path, std::env::temp_dir());
            assert_eq!(check(&cgroup.into()), Err(Vital::Root), "{path:?}");
        }
    }

    #[test]
    fn kubelets_and_runtimes_are_known_and_what_is_a_pods_is_not() {
        /// More than a process id can be.
        const NOBODY: u32 = u32::MAX;
        for (name, is) in [
            ("kubelet", Some("the kubelet")),
            (".kubelet-wrapped", Some("the kubelet")),
            ("k3s", Some("the kubelet")),
            ("containerd", Some("the container runtime")),
            ("crio", Some("the container runtime")),
            ("containerd-shim-runc-v2", None),
            ("conmon", None),
            ("pause", None),
            ("podman", None),
            ("my-kubelet", None),
        ] {
            assert_eq!(role(NOBODY, name), is, "{name}");
        }
        assert_eq!(role(1, "sh"), Some("process 1"));
        let own = std::process::id();
        assert_eq!(role(own, "sh"), Some("spotsim itself"));
    }
}
