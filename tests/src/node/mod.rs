//! A Kubernetes node as spotsim finds one: containerd, runc, a CNI bridge, and pods made
//! through CRI as kubelet makes them. kubelet itself is played by the tests.

mod containerd;
pub mod cri;
mod image;
mod pod;

use std::path::{Path, PathBuf};

use crate::{Cgroup, Lab, programs};
use containerd::Containerd;
use cri::Cri;
use pod::cgroups::PodCgroups;
pub use pod::{Asked, Container, Pod, PodBuilder, Qos};

/// A node of a test's own. Whatever runs on it ends with it.
#[derive(Debug)]
pub struct Node {
    cri: Cri,
    // Dropped in this order: who makes processes, the processes, the world around them.
    containerd: Containerd,
    pods: PodCgroups,
    /// The node's network is the lab's node; containerd and pods on the host network run in it.
    pub lab: Lab,
}

impl Node {
    /// A node with the installed containerd, or that of `SPOTSIM_CONTAINERD`. `None`, with the
    /// reason printed, where there can be none.
    pub fn start() -> Option<Self> {
        Self::start_with(&programs::containerd()?)
    }

    /// A node with a containerd that streams container events, which releases before 1.7 do
    /// not. `None`, with the reason printed, where there can be none.
    pub fn with_events() -> Option<Self> {
        Self::start_with(&programs::containerd_with_events()?)
    }

    fn start_with(containerd: &Path) -> Option<Self> {
        if let Some(reason) = containerd::missing().or_else(image::missing) {
            programs::skip(&reason);
            return None;
        }
        let lab = Lab::new()?;
        let containerd = Containerd::start(&lab, containerd);
        let cri = Cri::connect(&containerd.socket);
        image::import(&lab, &containerd, &cri);
        containerd.wait_until_ready(&cri);
        Some(Self {
            cri,
            containerd,
            pods: PodCgroups::new(),
            lab,
        })
    }

    /// The runtime's socket, as `--runtime-endpoint` takes it.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The runtime's socket.
    pub fn socket(&self) -> &Path {
        &self.containerd.socket
    }

    /// The runtime's process.
    pub fn runtime_pid(&self) -> i32 {
        self.containerd.pid()
    }

    /// The runtime's API.
    pub fn cri(&self) -> &Cri {
        &self.cri
    }

    /// The cgroup of all pods: `kubepods`.
    pub fn kubepods(&self) -> &Cgroup {
        &self.pods.kubepods
    }

    /// A pod of this name, still to be started.
    pub fn pod(&self, name: &str) -> PodBuilder<'_> {
        PodBuilder::new(self, name)
    }

    /// Kills the runtime. Pods go on; the socket is there and refuses.
    pub fn kill_containerd(&self) {
        self.containerd.kill();
    }

    /// Starts the runtime again after [`Node::kill_containerd`]: it finds its pods.
    pub fn restart_containerd(&self) {
        self.containerd.start_again(&self.lab);
        self.containerd.wait_until_ready(&self.cri);
    }

    fn log_directory(&self, uid: &str) -> PathBuf {
        self.lab.directory.join("logs").join(uid)
    }
}
