//! `cargo xtask demo`

mod curl;
mod scene;
mod spotsim;

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{
    alone::{Interrupted, privileged, wait_for},
    build_ebpf, shell, workspace,
};

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
    build_ebpf::release()?;
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
