//! A virtual machine, which has an end.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::kernel::Unpacked;
use crate::{alone::Interrupted, shell, workspace};

const QEMU: &str = "qemu-system-x86_64";

/// What the guest's kernel is told: where to write, to end at a panic rather than to wait, and
/// to leave out what costs an emulated machine much and the tests nothing. Programs that lie at
/// the same addresses each time are translated once.
const COMMAND_LINE: &str =
    "console=ttyS0 loglevel=4 panic=-1 oops=panic mitigations=off audit=0 norandmaps";

/// All that can be emulated, but for what takes twice the time: a fifth level of page tables, and
/// copies byte by byte (`rep movsb`).
const CPU: &str = "max,la57=off,erms=off";

/// A guest that has not ended by then never will: its init gives up a minute before.
const LONGEST: Duration = Duration::from_secs(600);

/// A running QEMU, killed when dropped.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let Self(qemu) = self;
        // An error means that it has ended and was waited for.
        let _ = qemu.kill();
        let _ = qemu.wait();
    }
}

/// Fails unless there can be guests here.
pub fn check() -> Result<()> {
    for (program, package) in [
        (QEMU, "qemu-system-x86"),
        ("strip", "binutils"),
        ("ldd", "libc-bin"),
    ] {
        if !shell::has(program) {
            bail!("needs {program} (Debian: apt-get install {package})");
        }
    }
    Ok(())
}

/// Starts a kernel with an initial root, and returns what its serial console showed until it
/// powered off. That is in `log` too, all along.
pub fn boot(
    kernel: &Unpacked,
    initrd: &Path,
    log: &Path,
    interrupted: &Interrupted,
) -> Result<String> {
    // Emulated even where there is KVM: it is the same everywhere then.
    let mut qemu = Command::new(QEMU);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-accel", "tcg,thread=multi", "-cpu", CPU])
        .args(["-smp", "2", "-m", "2G", "-nic", "none", "-no-reboot"])
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", COMMAND_LINE])
        .stdin(Stdio::null());
    shell::announce(&shell::line(&qemu));
    workspace::remove(log)?;
    let child = qemu
        .spawn()
        .map_err(|error| shell::cannot_start(&qemu, &error))?;
    let ended = wait(&mut Guest(child), interrupted);
    // Without one, QEMU has not even started.
    let console = fs::read(log).unwrap_or_default();
    let console = String::from_utf8_lossy(&console).into_owned();
    match ended {
        Ok(()) => Ok(console),
        Err(error) => Err(error.context(super::outcome::tail(&console))),
    }
}

fn wait(Guest(qemu): &mut Guest, interrupted: &Interrupted) -> Result<()> {
    let deadline = Instant::now() + LONGEST;
    loop {
        if let Some(status) = qemu.try_wait()? {
            if !status.success() {
                bail!("{QEMU} failed: {status}");
            }
            return Ok(());
        }
        interrupted.check()?;
        if Instant::now() > deadline {
            bail!("the guest still runs after {LONGEST:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}
