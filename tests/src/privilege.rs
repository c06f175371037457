//! May this process run the privileged tests?

use std::{env, fs};

use crate::Cgroup;

/// What spotsim itself needs, and the tests to make namespaces: bit and name, as
/// `include/uapi/linux/capability.h` has them.
const NEEDED: [(u32, &str); 3] = [
    (12, "CAP_NET_ADMIN"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
];

/// Why privileged tests cannot run here; none if they can.
pub fn missing_privilege() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    let effective = u64::from_str_radix(effective.trim(), 16).unwrap();
    let lacking = NEEDED.iter().filter(|(bit, _)| effective >> bit & 1 == 0);
    let lacking: Vec<&str> = lacking.map(|(_, name)| *name).collect();
    if !lacking.is_empty() {
        return Some(format!("lacks {}", lacking.join(", ")));
    }
    match Cgroup::new() {
        Ok(_) => None,
        Err(error) => Some(format!("cannot make a cgroup: {error}")),
    }
}

/// Panics with the reason where no test may be skipped.
pub fn must_not_be_skipped(reason: &str) {
    assert!(
        env::var_os("SPOTSIM_REQUIRE_BPF").is_none_or(|value| value != "1"),
        "SPOTSIM_REQUIRE_BPF=1, but {reason}"
    );
}
