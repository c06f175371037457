//! Where the figures come from.

use std::{fs, thread};

/// The processor, the memory and the kernel, in a line.
pub fn description() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unknown processor", |(_, model)| model);
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let meminfo = read("/proc/meminfo");
    let memory = meminfo.split_whitespace().nth(1);
    let memory: u64 = memory
        .and_then(|memory| memory.parse().ok())
        .unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores of {}, {} GiB, Linux {}",
        model.trim(),
        memory.div_ceil(1 << 20),
        release.trim()
    )
}
