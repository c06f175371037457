//! The cgroups of pods, as kubelet's `cgroupfs` driver names them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Cgroup, cgroup};

/// By which of its cgroups a pod is treated when the node runs short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Besteffort,
    Burstable,
    Guaranteed,
}

/// `kubepods` and what is below it.
#[derive(Debug)]
pub struct PodCgroups {
    /// Dropped before the one that holds it.
    pub kubepods: Cgroup,
    /// Holds no process: a cgroup that does could not give its children controllers.
    root: Cgroup,
}

impl PodCgroups {
    pub fn new() -> Self {
        let root = Cgroup::new().unwrap();
        Self {
            kubepods: root.child("kubepods"),
            root,
        }
    }

    /// Makes a pod's cgroup. Returns its path in the hierarchy.
    pub fn make(&self, qos: Qos, uid: &str) -> PathBuf {
        let pod = format!("pod{uid}");
        let path = match qos {
            Qos::Besteffort => self.kubepods.path().join("besteffort").join(pod),
            Qos::Burstable => self.kubepods.path().join("burstable").join(pod),
            Qos::Guaranteed => self.kubepods.path().join(pod),
        };
        fs::create_dir_all(self.directory(&path)).unwrap();
        path
    }

    /// Removes a pod's cgroup, in which nothing runs any more.
    pub fn remove(&self, path: &Path) {
        cgroup::end(&self.directory(path));
        remove_from_version_1(path);
    }

    /// The directory of a path in the hierarchy.
    pub fn directory(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(self.root.path()).unwrap();
        self.root.directory().join(below)
    }
}

impl Drop for PodCgroups {
    fn drop(&mut self) {
        remove_from_version_1(&self.root.path());
    }
}

/// runc makes a container's cgroup in every hierarchy there is.
fn remove_from_version_1(path: &Path) {
    let path = path.strip_prefix("/").unwrap();
    for mount in cgroup::mount_points("cgroup") {
        cgroup::end(&mount.join(path));
    }
}
