//! A target: a cgroup, and what the user knows it by.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::Cgroup;
use crate::document::printable;

/// A cgroup that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub cgroup: Cgroup,
    pub named: Named,
}

/// What the user knows a target by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Named {
    /// Its path, which every target has.
    Cgroup,
    /// A process that is in it.
    Process { pid: u32 },
    /// A unit of systemd.
    Unit { unit: String },
    /// A container.
    Container {
        id: String,
        container: String,
        #[serde(flatten)]
        pod: PodName,
    },
    /// All of a pod.
    Pod {
        #[serde(flatten)]
        pod: PodName,
        uid: String,
        labels: BTreeMap<String, String>,
        /// Whether it is in the node's own network namespace.
        host_network: bool,
    },
}

/// A pod's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodName {
    pub namespace: String,
    #[serde(rename = "pod")]
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name } = self;
        write!(f, "{}/{}", printable(namespace), printable(name))
    }
}

impl Target {
    /// Its cgroup's id, by which it is told from every other.
    pub fn id(&self) -> u64 {
        self.cgroup.id()
    }
}

impl From<Cgroup> for Target {
    fn from(cgroup: Cgroup) -> Self {
        Self {
            cgroup,
            named: Named::Cgroup,
        }
    }
}

/// `pod default/web-0`, `cgroup /system.slice`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cgroup, named } = self;
        f.write_str(&named.describe(cgroup.path()))
    }
}

impl Named {
    /// In the user's words, as they can be shown; a cgroup by its path, which is this.
    pub fn describe(&self, cgroup: &str) -> String {
        match self {
            Self::Cgroup => format!("cgroup {}", printable(cgroup)),
            Self::Process { pid } => format!("process {pid}"),
            Self::Unit { unit } => format!("unit {}", printable(unit)),
            Self::Container { container, pod, .. } => {
                format!("container {} of pod {pod}", printable(container))
            }
            Self::Pod { pod, .. } => format!("pod {pod}"),
        }
    }
}
