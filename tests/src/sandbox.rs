//! Pods without containers, to have many of them soon.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
};

use crate::{Cgroup, Lab, NetNs, Place, wait_until};

/// What is left of a pod without containers: a cgroup, and a process that waits in a network
/// namespace of its own. Both end when it is dropped.
#[derive(Debug)]
pub struct Sandbox {
    process: Child,
    pub cgroup: Cgroup,
    home: PathBuf,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let Self { process, .. } = self;
        // An error means that it has ended and was waited for.
        let _ = process.kill();
        let _ = process.wait();
    }
}

impl Lab {
    /// So many of them beneath a cgroup, called `pod0` and so on. They have `lo` alone, so that
    /// nothing leads from them to any IMDS.
    pub fn sandboxes(&self, above: &Cgroup, count: usize) -> Vec<Sandbox> {
        const WAIT: &str = "ip link set lo up && exec sleep 600";
        let start = |index| {
            let cgroup = above.child(&format!("pod{index}"));
            let place = self.place(&self.node, &cgroup);
            let process = place
                .command_line(["unshare", "--net", "sh", "-c", WAIT])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            Sandbox {
                process,
                cgroup,
                home: self.directory.clone(),
            }
        };
        let sandboxes: Vec<_> = (0..count).map(start).collect();
        for sandbox in &sandboxes {
            let name = format!("/proc/{}/comm", sandbox.pid());
            let waits = || fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n");
            wait_until("a sandbox that waits", || waits().then_some(()));
        }
        sandboxes
    }
}

impl Sandbox {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A place in it.
    pub fn place(&self) -> Place {
        let net = format!("/proc/{}/ns/net", self.pid());
        Place::new(net.into(), &self.cgroup, &self.home)
    }

    /// Gives its network namespace a device whose other end, of this name, is on a node. The
    /// kernel removes it together with the namespace.
    pub fn wire(&self, node: &NetNs, name: &str) {
        let pid = self.pid();
        node.ip(&format!(
            "link add {name} type veth peer name eth0 netns {pid}"
        ));
    }
}
