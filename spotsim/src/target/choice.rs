//! What the user named, and how many of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Instant,
};

use super::{Cgroup, Named, PodName, Select, Selector, cgroup2_mount, kubepods::Roots};

/// What the user named. Together they are the choice; what several of them name is chosen once.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Paths as in `/proc/PID/cgroup`, or full directories.
    pub cgroups: Vec<String>,
    pub processes: Vec<u32>,
    /// Units of systemd.
    pub units: Vec<String>,
    /// Containers' IDs, or beginnings of them.
    pub containers: Vec<String>,
    pub pods: Vec<PodName>,
    /// Pods with labels like this.
    pub selector: Option<Selector>,
    /// The namespace of these; `None` for all.
    pub namespace: Option<String>,
    /// Whether something that is named need not be there yet.
    pub wait: bool,
    /// How many of all these.
    pub select: Select,
    /// For the same seed and the same things to choose from, the same are chosen.
    pub seed: u64,
}

impl Choice {
    /// Whether a container runtime has to be asked.
    pub fn asks_runtime(&self) -> bool {
        !self.containers.is_empty() || self.may_grow()
    }

    /// Whether what is chosen by it may come, go, and come again.
    pub fn is_alive(&self) -> bool {
        self.select == Select::All && (self.may_grow() || !self.units.is_empty())
    }

    /// Whether pods are named, of which more may come.
    pub(super) fn may_grow(&self) -> bool {
        !self.pods.is_empty() || self.selector.is_some()
    }

    /// Directories in which something appears when there is more to choose from: those that
    /// pods' cgroups are made in, pods' cgroups themselves, in which a container appears, and the
    /// slice that most units are in.
    pub(super) fn places(&self, roots: &mut Roots) -> BTreeSet<PathBuf> {
        let mut places = BTreeSet::new();
        let Ok(Some(mount)) = cgroup2_mount() else {
            return places;
        };
        if self.may_grow() {
            places.extend(roots.places(&mount, Instant::now()));
        }
        if !self.units.is_empty() {
            places.insert(mount.join("system.slice"));
        }
        places
    }

    /// Each thing that is named, by itself, and the option that names it.
    pub fn each(&self) -> Vec<(String, Self)> {
        let Self {
            cgroups,
            processes,
            units,
            containers,
            pods,
            selector,
            namespace,
            ..
        } = self;
        let nothing = Self::default;
        let mut each = Vec::new();
        for cgroup in cgroups {
            let cgroups = vec![cgroup.clone()];
            each.push((
                format!("--cgroup {cgroup}"),
                Self {
                    cgroups,
                    ..nothing()
                },
            ));
        }
        for pid in processes {
            let processes = vec![*pid];
            each.push((
                format!("--pid {pid}"),
                Self {
                    processes,
                    ..nothing()
                },
            ));
        }
        for unit in units {
            let units = vec![unit.clone()];
            each.push((format!("--unit {unit}"), Self { units, ..nothing() }));
        }
        for id in containers {
            let containers = vec![id.clone()];
            each.push((
                format!("--container {id}"),
                Self {
                    containers,
                    ..nothing()
                },
            ));
        }
        for pod in pods {
            let pods = vec![pod.clone()];
            each.push((format!("--pod {pod}"), Self { pods, ..nothing() }));
        }
        if let Some(labels) = selector {
            let (selector, namespace) = (selector.clone(), namespace.clone());
            each.push((
                format!("--selector {labels}"),
                Self {
                    selector,
                    namespace,
                    ..nothing()
                },
            ));
        }
        each
    }

    /// Whether a target is named by any of it, by what is known of that one already.
    pub fn has(&self, named: &Named, cgroup: &str) -> bool {
        let Self {
            cgroups,
            processes,
            units,
            containers,
            pods,
            ..
        } = self;
        let beneath = |given: &String| Path::new(cgroup).starts_with(Cgroup::path_meant(given));
        let around = |pid: &u32| {
            Cgroup::path_of(*pid).is_ok_and(|path| Path::new(&path).starts_with(cgroup))
        };
        cgroups.iter().any(beneath)
            || processes.iter().any(around)
            || match named {
                Named::Cgroup | Named::Process { .. } => false,
                Named::Unit { unit } => units.contains(unit),
                Named::Container { id, pod, .. } => {
                    pods.contains(pod) || containers.iter().any(|prefix| id.starts_with(prefix))
                }
                Named::Pod { pod, labels, .. } => {
                    pods.contains(pod) || self.selects(&pod.namespace, labels)
                }
            }
    }

    /// Whether the selector has a pod of this namespace with these labels.
    pub fn selects(&self, of: &str, labels: &BTreeMap<String, String>) -> bool {
        let Self {
            selector,
            namespace,
            ..
        } = self;
        let here = namespace.as_ref().is_none_or(|namespace| namespace == of);
        let matches = |selector: &Selector| selector.matches(labels);
        here && selector.as_ref().is_some_and(matches)
    }
}
