//! `cargo xtask demo`

mod cgroup;
mod curl;
mod scene;
mod spotsim;

use std::{
    env,
    path::PathBuf,
    process::{Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{self, Pid},
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::{build_ebpf, shell, workspace};

/// Build everything and show what spotsim does, without AWS
///
/// A command in a chosen cgroup sees a Spot interruption notice, the same command outside it
/// sees nothing. All of it happens in a network namespace of its own, and nothing is left
/// behind. Uses sudo, unless root, for the part that needs it. Fails if what was seen is not
/// what spotsim promises.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Play the scene with this spotsim, in this network namespace, which has nothing but lo
    #[arg(long, hide = true, value_name = "SPOTSIM")]
    inside: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let interrupted = Interrupted::watch()?;
    if let Some(spotsim) = &args.inside {
        return scene::play(spotsim, &interrupted);
    }
    for (program, package) in [
        ("curl", "curl"),
        ("ip", "iproute2"),
        ("unshare", "util-linux"),
    ] {
        if !shell::has(program) {
            bail!("the demo needs {program} (Debian: apt-get install {package})");
        }
    }
    build_ebpf::prepare()?;
    shell::run(&mut shell::cargo([
        "build",
        "--release",
        "--locked",
        "--package",
        "spotsim",
    ]))?;
    println!();
    let mut inside = privileged("unshare");
    inside
        .arg("--net")
        .arg(env::current_exe().context("cannot find this program's own file")?)
        .args(["demo", "--inside"])
        // sudo may take away the environment that says where this is.
        .arg(workspace::target_dir()?.join("release/spotsim"))
        .current_dir(workspace::root());
    shell::announce(&shell::line(&inside));
    let status = wait_for(&mut inside, &interrupted)?;
    if !status.success() {
        bail!("the demo did not show what it should");
    }
    Ok(())
}

/// `program`, through sudo unless we are root.
fn privileged(program: &str) -> Command {
    if unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg(program);
    sudo
}

/// Runs the command to its end, also when we are asked to stop: it tidies up.
fn wait_for(command: &mut Command, interrupted: &Interrupted) -> Result<ExitStatus> {
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
struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&flag)).context("cannot watch for signals")?;
        }
        Ok(Self(flag))
    }

    fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}
