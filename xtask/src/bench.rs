//! `cargo xtask bench`

mod trigger;

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    alone::{Interrupted, privileged},
    build_ebpf, shell, workspace,
};

/// Measure how soon a trigger is visible
///
/// All of it happens in a network namespace and a cgroup of its own, with the release build.
/// Prints a table, writes target/bench/trigger.json, and fails if a promise is not kept. Uses
/// sudo, unless root, for the part that needs it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Measure this spotsim, in this network namespace, which has nothing but lo
    #[arg(long, hide = true, value_name = "SPOTSIM")]
    inside: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    if let Some(spotsim) = &args.inside {
        let measured = trigger::measure(spotsim, &Interrupted::watch()?)?;
        println!("{}", measured.json());
        return Ok(());
    }
    build_ebpf::prepare()?;
    build_ebpf::release()?;
    let target = workspace::target_dir()?;
    let mut inside = privileged("unshare");
    inside
        .arg("--net")
        .arg(env::current_exe().context("cannot find this program's own file")?)
        .args(["bench", "--inside"])
        // sudo may take away the environment that says where this is.
        .arg(target.join("release/spotsim"))
        .current_dir(workspace::root());
    shell::announce(&shell::line(&inside));
    let measured = trigger::Measured::parse(&shell::read(&mut inside)?)?;
    let directory = target.join("bench");
    let file = directory.join("trigger.json");
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(&file, format!("{:#}\n", measured.json())))
        .with_context(|| format!("cannot write {}", file.display()))?;
    print!("{}", measured.table());
    measured.check()
}
