//! Ends the processes of a cgroup.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context as _, Result, bail};
use log::info;
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::time::{Instant, sleep};

use super::{files::Files, process::Process, vital};
use crate::target::{Cgroup, Target};

/// Processes that were killed need a moment to be gone; so long it may take.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Between two looks for processes that were made meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Sends SIGTERM to all, and SIGKILL to those that are left after the grace.
pub async fn term(target: &Target, grace: Duration) -> Result<()> {
    let deadline = Instant::now() + grace;
    let cannot = || format!("cannot end {target}");
    let Some(files) = Files::open(&target.cgroup).with_context(cannot)? else {
        return Ok(());
    };
    signal_all(target, deadline).await?;
    let left = deadline.saturating_duration_since(Instant::now());
    let ended = files.event_within("populated 0", left).await;
    if ended.with_context(cannot)? {
        return Ok(());
    }
    info!(
        "{target}: SIGKILL after the grace, to {}",
        Process::list(&Process::all_of(&target.cgroup))
    );
    kill(target).await
}

/// Sends SIGKILL to all ([cgroup.kill][1]), those that are just being made too.
///
/// [1]: https://docs.kernel.org/admin-guide/cgroup-v2.html
pub async fn kill(target: &Target) -> Result<()> {
    let cannot = || format!("cannot kill {target}");
    let Some(files) = Files::open(&target.cgroup).with_context(cannot)? else {
        return Ok(());
    };
    vital::check(target)?;
    let written = files.write("cgroup.kill", "1");
    written.with_context(|| format!("{}: cgroup.kill", cannot()))?;
    let ended = files.event_within("populated 0", GONE_WITHIN).await;
    if !ended.with_context(cannot)? {
        let left = Process::list(&Process::all_of(&target.cgroup));
        bail!("{target}: still there 10s after SIGKILL: {left}");
    }
    Ok(())
}

/// Sends SIGTERM once to each process. One that appears meanwhile gets it too, unless who made it
/// has it already: that may be its way to end. When a look finds nobody new, all have it.
async fn signal_all(target: &Target, deadline: Instant) -> Result<()> {
    let mut known: HashSet<u32> = HashSet::new();
    loop {
        vital::check(target)?;
        let mut new = target.cgroup.processes();
        new.retain(|pid| !known.contains(pid));
        let by_known = |pid: &u32| parent(*pid).is_some_and(|parent| known.contains(&parent));
        let (_spared, told): (Vec<_>, Vec<_>) = new.iter().partition(|pid| by_known(pid));
        if told.is_empty() || Instant::now() >= deadline {
            return Ok(());
        }
        for pid in told {
            signal(&target.cgroup, pid)
                .with_context(|| format!("cannot send SIGTERM to process {pid} of {target}"))?;
        }
        known.extend(new);
        sleep(LOOK_AGAIN).await;
    }
}

/// Who made a process, or has it since its maker ended: proc_pid_stat(5), the second field after
/// the name, which is in parentheses and may hold anything.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(1)?.parse().ok()
}

/// Sends SIGTERM to a process, unless it is no longer in the cgroup.
fn signal(cgroup: &Cgroup, pid: u32) -> rustix::io::Result<()> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    // The process is held before it is looked at: one that has its number later gets no signal.
    let sent = pidfd_open(pid, PidfdFlags::empty()).and_then(|process| {
        match cgroup.holds(pid.as_raw_nonzero().get().cast_unsigned()) {
            true => pidfd_send_signal(process, Signal::TERM),
            false => Ok(()),
        }
    });
    match sent {
        // It has ended. A thread that was left by its process's first has no descriptor.
        Err(Errno::SRCH | Errno::INVAL) => Ok(()),
        sent => sent,
    }
}
