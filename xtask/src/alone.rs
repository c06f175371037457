//! What runs in a network namespace of its own, with the privileges that this takes, and tidies
//! up when it is stopped.

use std::{
    fs,
    process::{Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{self, Pid},
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::shell;

/// `program`, through sudo unless we are root.
pub fn privileged(program: &str) -> Command {
    if unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg(program);
    sudo
}

/// Runs the command to its end, also when we are asked to stop: it tidies up.
pub fn wait_for(command: &mut Command, interrupted: &Interrupted) -> Result<ExitStatus> {
    let mut child = command
        .spawn()
        .map_err(|error| shell::cannot_start(command, &error))?;
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if !told && interrupted.check().is_err() {
            // Ctrl-C reached it anyway; a SIGTERM may have been for us alone.
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
            told = true;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether somebody wants us to stop. The signals only set this, so that what was made is
/// removed on the way out.
pub struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    pub fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&flag)).context("cannot watch for signals")?;
        }
        Ok(Self(flag))
    }

    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}

/// Refuses a network namespace that leads anywhere: on some machines somebody else answers at
/// the address of IMDS.
pub fn only_lo() -> Result<()> {
    let devices = fs::read_to_string("/proc/self/net/dev").context("cannot list the interfaces")?;
    let names = interfaces(&devices);
    ensure!(
        names == ["lo"],
        "this is not a network namespace made for this, it has {}",
        names.join(", ")
    );
    Ok(())
}

/// The names in `/proc/PID/net/dev`: two lines of headings, then `NAME: COUNTERS`.
fn interfaces(devices: &str) -> Vec<&str> {
    devices
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interfaces_of_a_namespace() {
        let devices = "Inter-|   Receive\n face |bytes    packets\n    lo:  10 1\n  eth0: 20 2\n";
        assert_eq!(interfaces(devices), ["lo", "eth0"]);
        assert_eq!(interfaces(""), [""; 0]);
    }
}
