//! The container runtime: a real containerd, which has this node and no other to itself.
//!
//! It runs in the node's network namespace, so its bridge and its pods on the host network are
//! there. It has a mount namespace, in which directories of the lab are mounted over `/run` and
//! `/var/lib`: containerd, its shims, runc and the CNI plugins write there wherever they are told
//! to write. When the last of them ends, their mounts are gone. The socket is beside those
//! directories, so it can be reached from everywhere.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use serde_json::json;

use super::{cri::Cri, image};
use crate::{Cgroup, Lab, Running, wait_until};

/// Where the CNI plugins may be: Debian's package, the upstream release, Fedora's package.
const PLUGINS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// Longest path of a unix socket: `sun_path` less its final NUL, unix(7).
const SOCKET_PATH: usize = 107;

/// Its configuration file.
const SETTINGS: &str = "containerd.toml";

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    process: Mutex<Running>,
    /// The shims are in it too, and end with it.
    cgroup: Cgroup,
    program: PathBuf,
    pub socket: PathBuf,
}

/// Why containerd could not make pods here; none if it can.
pub fn missing() -> Option<String> {
    let reason = if runc().is_none() {
        "no runc (Debian: apt-get install runc)"
    } else if plugins().is_none() {
        "no CNI plugins (Debian: apt-get install containernetworking-plugins)"
    } else {
        return None;
    };
    Some(reason.to_owned())
}

impl Containerd {
    /// Starts a containerd on a lab's node.
    pub fn start(lab: &Lab, program: &Path) -> Self {
        let socket = lab.directory.join("containerd.sock");
        assert!(
            socket.as_os_str().len() <= SOCKET_PATH,
            "{}: too long for a socket; set TMPDIR to a shorter path",
            socket.display()
        );
        let home = home(lab);
        for directory in ["run", "lib", "cni"] {
            fs::create_dir_all(home.join(directory)).unwrap();
        }
        fs::write(home.join("cni/10-bridge.conflist"), bridge()).unwrap();
        fs::write(home.join(SETTINGS), settings(&home, &socket)).unwrap();
        let cgroup = lab.root.child("runtime");
        Self {
            process: Mutex::new(Running::start(command(lab, &cgroup, program))),
            cgroup,
            program: program.to_owned(),
            socket,
        }
    }

    pub fn pid(&self) -> i32 {
        self.process.lock().unwrap().pid() as i32
    }

    /// Ends it, not its shims and pods.
    pub fn kill(&self) {
        self.process.lock().unwrap().kill();
    }

    /// Starts it again.
    pub fn start_again(&self, lab: &Lab) {
        let Self {
            process,
            cgroup,
            program,
            ..
        } = self;
        *process.lock().unwrap() = Running::start(command(lab, cgroup, program));
    }

    /// Waits until it can make pods.
    pub fn wait_until_ready(&self, cri: &Cri) {
        for kind in ["RuntimeReady", "NetworkReady"] {
            wait_until(kind, || cri.ready(kind).ok());
        }
    }

    /// The command-line client that belongs to this containerd.
    pub fn ctr(&self, lab: &Lab) -> Command {
        let Self {
            program, socket, ..
        } = self;
        let mut ctr = lab
            .place(&lab.node, &lab.beside)
            .command(program.with_file_name("ctr"));
        ctr.arg("--address").arg(socket);
        ctr
    }
}

fn command(lab: &Lab, cgroup: &Cgroup, program: &Path) -> Command {
    let home = home(lab);
    let place = lab
        .place(&lab.node, cgroup)
        .with_bind(&home.join("run"), Path::new("/run"))
        .with_bind(&home.join("lib"), Path::new("/var/lib"));
    // Its shim is looked for there, and must be its own.
    let mut path = directories();
    path.insert(0, program.parent().unwrap().to_owned());
    let mut command = place.command(program);
    command
        .arg("--config")
        .arg(home.join(SETTINGS))
        .env("PATH", env::join_paths(path).unwrap());
    command
}

/// Where programs are looked for, in order: also where Debian has what only root runs, which a
/// user's `PATH` may lack.
fn directories() -> Vec<PathBuf> {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&inherited).chain(sbin).collect()
}

fn runc() -> Option<PathBuf> {
    let mut programs = directories().into_iter().map(|dir| dir.join("runc"));
    programs.find(|program| program.is_file())
}

fn plugins() -> Option<&'static str> {
    let has_bridge = |directory: &&str| Path::new(directory).join("bridge").is_file();
    PLUGINS.into_iter().find(has_bridge)
}

/// Its directory, for all but the socket.
fn home(lab: &Lab) -> PathBuf {
    lab.directory.join("containerd")
}

/// containerd's configuration, in the version that 1.6 and 1.7 both read. Its directories are
/// the usual ones, which are the node's own.
fn settings(home: &Path, socket: &Path) -> String {
    format!(
        r#"version = 2
disabled_plugins = [
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{socket}"

[debug]
level = "warn"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
# Lowering it takes CAP_SYS_RESOURCE, which root in a container may lack.
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{cni}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{runc}"
"#,
        socket = socket.display(),
        image = image::NAME,
        plugins = plugins().unwrap(),
        runc = runc().unwrap().display(),
        cni = home.join("cni").display(),
    )
}

/// The pods' network: a bridge on the node, and by it the node's addresses.
fn bridge() -> String {
    let network = json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.244.0.0/16"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    });
    network.to_string()
}
