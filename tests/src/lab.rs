//! The world of one test.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    Cgroup, NetNs, Running, missing_privilege, must_not_be_skipped, process::kept_environment, say,
};

/// Namespaces, cgroups and a directory made for one test. Nothing in it can reach an IMDS but
/// the test's own.
#[derive(Debug)]
pub struct Lab {
    /// Where spotsim runs, and the upstream: a node's namespace.
    pub node: NetNs,
    /// Where the workload runs, if not on the node's network.
    pub pod: Option<NetNs>,
    /// The cgroup that spotsim is told to attach to.
    pub target: Cgroup,
    /// A cgroup beside it.
    pub beside: Cgroup,
    /// spotsim's own.
    pub daemon: Cgroup,
    /// Holds the three above. Dropped after them.
    pub root: Cgroup,
    /// For logs and other files.
    pub directory: PathBuf,
}

/// Where a process runs: a network namespace and a cgroup.
#[derive(Clone, Debug)]
pub struct Place {
    net: PathBuf,
    cgroup: PathBuf,
    home: PathBuf,
    /// Directories, each with the one that it is seen as.
    binds: Vec<[PathBuf; 2]>,
}

impl Lab {
    /// A lab with one network namespace, which holds the IMDS addresses. `None`, with the
    /// reason printed, where this process may not make one.
    pub fn new() -> Option<Self> {
        let lab = Self::bare()?;
        lab.node.hold_imds_addresses();
        Some(lab)
    }

    /// A lab whose workload has a namespace of its own, from which it reaches the IMDS
    /// addresses on the node.
    pub fn with_pod() -> Option<Self> {
        let mut lab = Self::new()?;
        let pod = NetNs::new();
        lab.node.connect_pod(&pod);
        lab.pod = Some(pod);
        Some(lab)
    }

    /// A lab with one network namespace that has nothing but loopback.
    pub fn bare() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if let Some(reason) = missing_privilege() {
            must_not_be_skipped(&format!("this process {reason}"));
            say(&format!("skipped: {reason}"));
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("spotsim-tests-{}-{count}", std::process::id());
        let directory = env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        let root = Cgroup::new().unwrap();
        Some(Self {
            node: NetNs::new(),
            pod: None,
            target: root.child("target"),
            beside: root.child("beside"),
            daemon: root.child("daemon"),
            root,
            directory,
        })
    }

    /// The namespace of the workload.
    pub fn workload(&self) -> &NetNs {
        self.pod.as_ref().unwrap_or(&self.node)
    }

    /// A place in the target cgroup.
    pub fn inside(&self) -> Place {
        self.place(self.workload(), &self.target)
    }

    /// A place in the same network namespace, outside the target cgroup.
    pub fn outside(&self) -> Place {
        self.place(self.workload(), &self.beside)
    }

    /// Where spotsim runs.
    pub fn daemon_place(&self) -> Place {
        self.place(&self.node, &self.daemon)
    }

    pub fn place(&self, net: &NetNs, cgroup: &Cgroup) -> Place {
        Place::new(net.path(), cgroup, &self.directory)
    }

    /// Where the control sockets of its spotsims are.
    pub fn run_dir(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// A workload that does nothing: it makes the target's network namespace known.
    #[must_use = "the workload ends when it is dropped"]
    pub fn workload_process(&self) -> Running {
        self.inside().sleeper()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            say(&format!(
                "left behind: {}: {error}",
                self.directory.display()
            ));
        }
    }
}

impl Place {
    /// This place, but in the cgroup of a directory.
    pub fn in_cgroup(self, directory: &Path) -> Self {
        let cgroup = directory.to_owned();
        Self { cgroup, ..self }
    }

    /// A cgroup, and a network namespace by a file of it.
    pub(crate) fn new(net: PathBuf, cgroup: &Cgroup, home: &Path) -> Self {
        Self {
            net,
            cgroup: cgroup.directory().to_owned(),
            home: home.to_owned(),
            binds: vec![],
        }
    }

    /// This place, but with a directory mounted over another, which is seen nowhere else.
    pub fn with_bind(mut self, source: &Path, target: &Path) -> Self {
        self.binds.push([source, target].map(Path::to_owned));
        self
    }

    /// A command that will run here, with none of the caller's environment: no proxy, endpoint,
    /// profile or credential of it can help or hinder a client.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(crate::helper("inside"));
        command
            .args(["--cgroup".as_ref(), self.cgroup.as_os_str()])
            .args(["--net".as_ref(), self.net.as_os_str()]);
        for bind in &self.binds {
            command.arg("--bind").args(bind);
        }
        command
            .arg("--")
            .arg(program)
            .env_clear()
            .envs(kept_environment())
            .env("HOME", &self.home)
            .current_dir(&self.home);
        command
    }

    /// A command from its program and arguments.
    pub fn command_line<S: AsRef<OsStr>>(&self, line: impl IntoIterator<Item = S>) -> Command {
        let mut line = line.into_iter();
        let mut command = self.command(line.next().expect("a program"));
        command.args(line);
        command
    }

    /// A process that only waits.
    pub fn sleeper(&self) -> Running {
        let mut running =
            Running::start(self.command_line(["sh", "-c", "echo up; exec sleep 600"]));
        running.stdout_line("up", 0);
        running
    }
}
