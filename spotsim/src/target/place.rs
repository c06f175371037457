//! Where in a process's cgroup path its pod ends, and its container.
//!
//! Runtimes and kubelets name cgroups in several ways, and a path is taken from a process, so
//! nothing here puts a path together: it finds the component that carries the whole uid of the
//! pod, or the whole id of the container, and cuts after it.
//!
//! What a container makes beneath its own cgroup is named by whoever is in it. So the outermost
//! component counts: what is found lies above all that the workload could have named.

/// The pod's cgroup: the path up to the component for a pod of this uid.
///
/// With the cgroupfs driver that is `pod<uid>`, with the systemd driver a slice that ends in
/// `-pod<uid>.slice` with `_` for the uid's `-` ([kubelet, `cgroup_manager_linux.go`][1]).
///
/// `None` if there is no such component, and for a path that leads out of this process's cgroup
/// namespace (`/../…`), where it cannot be followed.
///
/// [1]: https://github.com/kubernetes/kubernetes/blob/v1.33.0/pkg/kubelet/cm/cgroup_manager_linux.go
pub fn pod_of<'a>(path: &'a str, uid: &str) -> Option<&'a str> {
    let in_slices = uid.replace('-', "_");
    up_to(path, |component| {
        component.strip_prefix("pod") == Some(uid)
            || component
                .strip_suffix(".slice")
                .and_then(|name| name.strip_suffix(&in_slices))
                .is_some_and(|before| before.ends_with("-pod"))
    })
    .filter(|_| !uid.is_empty())
}

/// The container's cgroup: the path up to the component for a container of this id.
///
/// Such a component is the id, alone or after the runtime's name: `cri-containerd-<id>.scope`,
/// `crio-<id>`, or `…:cri-containerd:<id>` where containerd was not told that the driver is
/// systemd. `conmon`, which watches over a container beside it, is not the container.
///
/// `None` as in [`pod_of`].
pub fn container_of<'a>(path: &'a str, id: &str) -> Option<&'a str> {
    up_to(path, |component| {
        let name = component.strip_suffix(".scope").unwrap_or(component);
        component == id
            || name.strip_suffix(id).is_some_and(|before| {
                let runtime = before.strip_suffix(['-', ':']).unwrap_or_default();
                !runtime.is_empty() && !runtime.ends_with("conmon")
            })
    })
    .filter(|_| !id.is_empty())
}

/// The path up to the first component that `is_it`.
fn up_to(path: &str, is_it: impl Fn(&str) -> bool) -> Option<&str> {
    let mut end = 0;
    for component in path.strip_prefix('/')?.split('/') {
        end += 1 + component.len();
        if component == ".." {
            return None;
        }
        if is_it(component) {
            return Some(&path[..end]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "5f1e4b3a-9d7c-4c1e-8a55-0c2d3e4f5a6b";
    const ID: &str = "9e2c6b0f7d8a4c3e1b5f6a7d8c9e0f1a2b3c4d5e6f708192a3b4c5d6e7f80912";

    /// `{uid}`, `{slice}` (the uid as systemd has it) and `{id}` filled in.
    fn path(pattern: &str) -> String {
        let pattern = pattern.replace("{uid}", UID).replace("{id}", ID);
        pattern.replace("{slice}", &UID.replace('-', "_"))
    }

    /// Pod, then what lies beneath it up to the container, then the rest.
    const PATHS: [(&str, &str, &str); 16] = [
        // cgroupfs, each class of service.
        ("/kubepods/pod{uid}", "/{id}", ""),
        ("/kubepods/burstable/pod{uid}", "/{id}", ""),
        ("/kubepods/besteffort/pod{uid}", "/{id}", ""),
        ("/kubepods/besteffort/pod{uid}", "/crio-{id}", ""),
        // systemd.
        (
            "/kubepods.slice/kubepods-pod{slice}.slice",
            "/cri-containerd-{id}.scope",
            "",
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice",
            "/cri-containerd-{id}.scope",
            "",
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{slice}.slice",
            "/crio-{id}.scope",
            "",
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{slice}.slice",
            "/docker-{id}.scope",
            "",
        ),
        (
            "/kubepods.slice/kubepods-pod{slice}.slice",
            "/libpod-{id}.scope",
            "",
        ),
        // kind, beneath a node that is a container itself.
        ("/kubelet/kubepods/burstable/pod{uid}", "/{id}", ""),
        (
            "/system.slice/docker-0123456789ab.scope/kubelet.slice/kubelet-kubepods.slice/\
             kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{slice}.slice",
            "/cri-containerd-{id}.scope",
            "",
        ),
        (
            "/docker/0123456789ab/kubelet/kubepods/pod{uid}",
            "/{id}",
            "",
        ),
        // crun puts the processes into a cgroup beneath the scope.
        (
            "/kubepods.slice/kubepods-pod{slice}.slice",
            "/crio-{id}.scope",
            "/container",
        ),
        // systemd in the container.
        (
            "/kubepods/burstable/pod{uid}",
            "/{id}",
            "/system.slice/nginx.service",
        ),
        // Kubernetes in the container, and a workload that makes cgroups of the same names.
        (
            "/kubepods/pod{uid}",
            "/{id}",
            "/kubepods/pod0aef7be2-0000-4000-8000-000000000000/a",
        ),
        ("/kubepods/pod{uid}", "/{id}", "/kubepods/pod{uid}/{id}"),
    ];

    #[test]
    fn pods_and_containers_are_found() {
        for (pod, container, rest) in PATHS {
            let (pod, container, rest) = (path(pod), path(container), path(rest));
            let whole = format!("{pod}{container}{rest}");
            assert_eq!(pod_of(&whole, UID), Some(pod.as_str()), "{whole}");
            assert_eq!(pod_of(&pod, UID), Some(pod.as_str()), "{pod}");
            let container = format!("{pod}{container}");
            assert_eq!(
                container_of(&whole, ID),
                Some(container.as_str()),
                "{whole}"
            );
            assert_eq!(container_of(&pod, ID), None, "{pod}");
        }
    }

    /// The uid of a static pod, as long as the API server does not know it, is a hash of its
    /// manifest.
    #[test]
    fn static_pods() {
        let uid = "c4d5e6f708192a3b4c5d6e7f80912aaa";
        for pod in [
            format!("/kubepods/burstable/pod{uid}"),
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice"),
        ] {
            assert_eq!(pod_of(&format!("{pod}/{ID}"), uid), Some(pod.as_str()));
        }
    }

    #[test]
    fn no_pod_is_taken_for_another() {
        for other in [
            "/",
            "",
            "/system.slice/containerd.service",
            "/kubepods/burstable",
            "/kubepods/pod{uid}0/{id}",
            "/kubepods/pod0{uid}/{id}",
            "/kubepods/pod/{uid}",
            "/kubepods/{uid}",
            "/kubepods/xpod{uid}",
            "/kubepods/pod{slice}",
            "/kubepods/pod{uid}.slice",
            "/kubepods.slice/kubepods-pod{uid}.slice",
            "/kubepods.slice/kubepods-pod{slice}0.slice",
            "/kubepods.slice/kubepods-pod0{slice}.slice",
            "/kubepods.slice/kubepods_pod{slice}.slice",
            "/kubepods.slice/kubepods-pod{slice}.scope",
            "/kubepods.slice/kubepods-pod{slice}",
            // There is no cgroup of the pod here, only one for each container.
            "/kubepods-pod{slice}.slice:cri-containerd:{id}",
            "kubepods/pod{uid}",
            "/../../kubepods/pod{uid}/{id}",
            "/../pod{uid}",
        ] {
            assert_eq!(pod_of(&path(other), UID), None, "{other}");
        }
        // A uid that is the end of another.
        assert_eq!(pod_of("/k.slice/k-pod1_podab.slice", "ab"), None);
        assert_eq!(
            pod_of("/k.slice/k-pod1-podab.slice", "ab"),
            Some("/k.slice/k-pod1-podab.slice")
        );
        for path in ["/kubepods/pod/x", "/k.slice/k-pod.slice"] {
            assert_eq!(pod_of(path, ""), None, "{path}");
        }
    }

    #[test]
    fn no_container_is_taken_for_another() {
        let alone = path("/kubepods-pod{slice}.slice:cri-containerd:{id}");
        assert_eq!(container_of(&alone, ID), Some(alone.as_str()));
        for other in [
            "/kubepods/pod{uid}/{id}0",
            "/kubepods/pod{uid}/0{id}",
            "/kubepods/pod{uid}/crio-0{id}.scope",
            "/kubepods/pod{uid}/-{id}.scope",
            "/kubepods/pod{uid}/{id}.scope",
            "/kubepods/pod{uid}/crio-{id}.slice",
            "/kubepods/pod{uid}/crio-conmon-{id}.scope",
            "/kubepods/pod{uid}/crio-conmon-{id}",
            "/machine.slice/libpod-conmon-{id}.scope",
            "/../crio-{id}.scope",
            "{id}",
        ] {
            assert_eq!(container_of(&path(other), ID), None, "{other}");
        }
        for path in ["/", "//", "/kubepods/crio-.scope"] {
            assert_eq!(container_of(path, ""), None, "{path}");
        }
    }

    proptest! {
        /// What is found is the path, or what lies above a slash of it.
        #[test]
        fn what_is_found_is_above(path in "(/?(pod|k-pod|crio-)?[ab_.:/-]{0,3}(\\.slice|\\.scope)?){0,5}", name in "[ab-]{0,2}") {
            for found in [pod_of(&path, &name), container_of(&path, &name)].into_iter().flatten() {
                prop_assert!(path.strip_prefix(found).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
                prop_assert!(found.len() > 1 && !found.ends_with('/'), "{found}");
            }
        }
    }
}
