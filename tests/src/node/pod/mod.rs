//! Pods: a sandbox and containers, made by the calls and with the names that kubelet uses.

mod builder;
pub mod cgroups;
mod container;
mod sandbox;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use super::{
    Node,
    cri::messages::{PodSandboxMetadata, PodSandboxState},
};
use crate::{Finished, cgroup, wait_until};
pub use builder::PodBuilder;
pub use cgroups::Qos;
pub use container::{Asked, Container};
use sandbox::Sandbox;

/// A pod, which lives until it is removed or its node ends.
#[derive(Debug)]
pub struct Pod<'node> {
    node: &'node Node,
    sandbox: Sandbox<'node>,
    /// In the hierarchy.
    cgroup: PathBuf,
    /// The container that it was started with, `main`.
    pub main: Container<'node>,
}

impl<'node> Pod<'node> {
    pub fn name(&self) -> &str {
        &self.metadata().name
    }

    pub fn namespace(&self) -> &str {
        &self.metadata().namespace
    }

    pub fn uid(&self) -> &str {
        &self.metadata().uid
    }

    fn metadata(&self) -> &PodSandboxMetadata {
        self.sandbox.pod.metadata.as_ref().unwrap()
    }

    pub fn sandbox_id(&self) -> &str {
        &self.sandbox.id
    }

    /// The pod's cgroup, as `/proc/PID/cgroup` begins its containers' `0::` lines.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The pod's cgroup, as a directory.
    pub fn cgroup_directory(&self) -> PathBuf {
        self.node.pods.directory(&self.cgroup)
    }

    /// The process of the container that it was started with.
    pub fn pid(&self) -> i32 {
        self.main.pid()
    }

    /// The process that holds the pod's namespaces.
    pub fn sandbox_pid(&self) -> i32 {
        let (_, info) = self.node.cri.pod_sandbox_status(self.sandbox_id());
        info["pid"].as_i64().unwrap() as i32
    }

    /// What `/proc/PID/ns/net` of its processes is a link to: `net:[4026531840]`.
    pub fn network(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/ns/net", self.sandbox_pid())).unwrap()
    }

    /// Its address on the pods' network; panics for one on the node's.
    pub fn ip(&self) -> Ipv4Addr {
        let (status, _) = self.node.cri.pod_sandbox_status(self.sandbox_id());
        status.network.unwrap().ip.parse().unwrap()
    }

    /// Starts another container, or the next one of that name, with arguments of
    /// `src/bin/pod.rs`.
    pub fn container(&self, name: &str, args: &[&str]) -> Container<'node> {
        self.sandbox.start(name, args)
    }

    /// Runs `src/bin/pod.rs` with arguments in the main container.
    pub fn exec(&self, args: &[&str]) -> Finished {
        self.main.exec(args)
    }

    /// What a GET gets from inside: of a path of IMDS, without a token.
    pub fn get(&self, path: &str) -> Asked {
        self.main.get(path)
    }

    /// Kills its containers and its sandbox, as a crash does: the runtime keeps what it knows
    /// of it.
    pub fn kill(&self) {
        cgroup::kill_all(&self.cgroup_directory());
        wait_until("the runtime has noticed the pod's end", || {
            let (status, _) = self.node.cri.pod_sandbox_status(self.sandbox_id());
            (status.state() == PodSandboxState::NotReady).then_some(())
        });
    }

    /// Ends what runs in it, and its network. The runtime still knows it.
    pub fn stop(&self) {
        self.node.cri.stop_pod_sandbox(self.sandbox_id());
    }

    /// Makes another sandbox for it after [`Pod::stop`] or [`Pod::kill`], with another network
    /// namespace, and a container in it: as kubelet does for a pod whose sandbox is gone.
    pub fn restart(&mut self, args: &[&str]) {
        let Self { sandbox, main, .. } = self;
        sandbox.again();
        *main = sandbox.start("main", args);
    }

    /// Removes it with all that it had.
    pub fn remove(self) {
        let Self {
            node,
            sandbox,
            cgroup,
            ..
        } = self;
        node.cri.stop_pod_sandbox(&sandbox.id);
        node.cri.remove_pod_sandbox(&sandbox.id);
        node.pods.remove(&cgroup);
    }
}
