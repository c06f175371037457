//! What the user named, as cgroup directories and network namespaces.

mod cgroup;
mod mount;
mod watch;

pub use cgroup::{Cgroup, TargetError};
pub use mount::cgroup2_mount;
pub use watch::Watch;
