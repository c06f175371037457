//! What the user named, as cgroup directories and network namespaces.

mod cgroup;
mod choice;
pub mod cri;
mod follow;
mod kubepods;
mod late;
mod lookup;
mod mount;
mod named;
mod place;
mod pods;
mod select;
mod selector;
mod unit;
mod watch;

pub use cgroup::{Cgroup, TargetError};
pub use choice::Choice;
pub use follow::Follower;
pub use lookup::Found;
pub use mount::cgroup2_mount;
pub use named::{Named, PodName, Target};
pub use place::{container_of, pod_of};
pub use pods::{Pods, Resolved, VACANT};
pub use select::{Percent, Select, TooFew};
pub use selector::Selector;
pub use unit::{UnitError, unit_path};
pub use watch::Watch;
