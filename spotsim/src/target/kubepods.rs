//! Where kubelets make the cgroups of pods.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::pod_of;

/// A kubelet's own tree begins at most so far down: `/kubepods`, or in kind
/// `/kubelet.slice/kubelet-kubepods.slice`.
const DEEPEST_ROOT: usize = 3;

/// Beneath that there are classes of service, then pods.
const DEEPEST_POD: usize = 2;

/// To look for roots is to walk a large part of the hierarchy. Once there are some, it is done
/// this often.
const LOOK_FOR_ROOTS: Duration = Duration::from_secs(10);

/// The roots of the kubelets' trees under a cgroup v2 mount, remembered.
#[derive(Default)]
pub struct Roots {
    found: Vec<PathBuf>,
    looked: Option<Instant>,
}

impl Roots {
    /// Directories in which something appears when a pod or a container does: the roots, their
    /// classes of service, and pods.
    pub fn places(&mut self, mount: &Path, now: Instant) -> Vec<PathBuf> {
        let Self { found, looked } = self;
        found.retain(|root| root.is_dir());
        let recently = |looked: Instant| now.duration_since(looked) < LOOK_FOR_ROOTS;
        if found.is_empty() || !looked.is_some_and(recently) {
            found.clear();
            roots(mount, DEEPEST_ROOT, found);
            *looked = Some(now);
        }
        beneath(found)
    }
}

/// Roots, and the directories of classes of service and pods beneath them.
fn beneath(roots: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = roots.to_vec();
    let mut layer = found.clone();
    for _ in 0..DEEPEST_POD {
        layer = layer
            .iter()
            .flat_map(|directory| children(directory))
            .collect();
        found.extend_from_slice(&layer);
    }
    found
}

/// The path of the cgroup of a pod with this uid, if a kubelet made one. For pods of which no
/// process can be asked.
pub fn find(mount: &Path, uid: &str) -> Option<String> {
    let paths = Roots::default().places(mount, Instant::now());
    let paths = paths.into_iter().filter_map(|directory| {
        let below = directory.strip_prefix(mount).ok()?;
        Some(format!("/{}", below.display()))
    });
    paths
        .into_iter()
        .find(|path| pod_of(path, uid) == Some(path))
}

fn roots(directory: &Path, deepest: usize, found: &mut Vec<PathBuf>) {
    if deepest == 0 {
        return;
    }
    for child in children(directory) {
        let name = child.file_name().unwrap_or_default().to_string_lossy();
        if name == "kubepods" || name == "kubepods.slice" || name.ends_with("-kubepods.slice") {
            found.push(child);
        } else {
            roots(&child, deepest - 1, found);
        }
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    // One that vanished meanwhile has none.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths beneath the mount, sorted.
    fn shown(mount: &Path, places: Vec<PathBuf>) -> Vec<String> {
        let below = |path: &PathBuf| path.strip_prefix(mount).unwrap().display().to_string();
        let mut shown: Vec<_> = places.iter().map(below).collect();
        shown.sort();
        shown
    }

    #[test]
    fn roots_are_looked_for_when_none_is_known_and_rarely_else() {
        let mount = std::env::temp_dir().join(format!("kubepods-roots-{}", std::process::id()));
        fs::create_dir_all(&mount).unwrap();
        let make = |path: &str| fs::create_dir_all(mount.join(path)).unwrap();
        let mut roots = Roots::default();
        let began = Instant::now();
        let mut at = |seconds| {
            let now = began + Duration::from_secs(seconds);
            shown(&mount, roots.places(&mount, now))
        };
        assert_eq!(at(0), [""; 0]);
        make("kubepods");
        assert_eq!(at(1), ["kubepods"]);
        make("kubepods/pod1");
        make("other/kubepods");
        assert_eq!(at(2), ["kubepods", "kubepods/pod1"]);
        assert_eq!(at(11), ["kubepods", "kubepods/pod1", "other/kubepods"]);
        fs::remove_dir_all(mount.join("kubepods")).unwrap();
        assert_eq!(at(12), ["other/kubepods"]);
        fs::remove_dir_all(mount.join("other")).unwrap();
        make("late/kubepods");
        assert_eq!(at(13), ["late/kubepods"]);
        fs::remove_dir_all(&mount).unwrap();
    }

    #[test]
    fn pods_appear_beneath_every_kubelet() {
        let mount = std::env::temp_dir().join(format!("kubepods-{}", std::process::id()));
        for path in [
            "kubepods/burstable/pod1/container/deep",
            "kubepods/pod2",
            "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/x-pod3.slice",
            "system.slice/kubelet.service",
            "a/b/c/kubepods/pod4",
        ] {
            fs::create_dir_all(mount.join(path)).unwrap();
        }
        let found = shown(&mount, Roots::default().places(&mount, Instant::now()));
        let of_uid = |uid| find(&mount, uid);
        assert_eq!(of_uid("1").unwrap(), "/kubepods/burstable/pod1");
        assert_eq!(of_uid("9"), None);
        fs::remove_dir_all(&mount).unwrap();
        let slice = "kubelet.slice/kubelet-kubepods.slice";
        assert_eq!(
            found,
            [
                slice.to_owned(),
                format!("{slice}/kubelet-kubepods-besteffort.slice"),
                format!("{slice}/kubelet-kubepods-besteffort.slice/x-pod3.slice"),
                "kubepods".to_owned(),
                "kubepods/burstable".to_owned(),
                "kubepods/burstable/pod1".to_owned(),
                "kubepods/pod2".to_owned(),
            ]
        );
    }
}
