//! `cargo xtask soak`

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::{
    alone::{Interrupted, privileged, wait_for},
    build_ebpf, shell, workspace,
};

/// Torture spotsim, and check its promises meanwhile
///
/// First fifty arms and fifty kills under a client that asks in a tight loop, then, for the rest of
/// the time, faults of every kind while fifty targets and outsiders beside them poll. What fails
/// must have failed without spotsim too; nothing may be left behind. With the release build, in
/// network namespaces and cgroups of its own. Uses sudo, unless root.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long, all in all
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    minutes: f64,

    /// The same faults again, in the same order
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let Args { minutes, seed } = args;
    if !(minutes.is_finite() && *minutes > 0.0) {
        bail!("--minutes {minutes}: give it some time");
    }
    let interrupted = Interrupted::watch()?;
    build_ebpf::prepare()?;
    build_ebpf::release()?;
    build_ebpf::test_programs()?;
    let target = workspace::target_dir()?;
    // sudo may take away the environment.
    let mut soak: Command = privileged("env");
    soak.arg(format!(
        "SPOTSIM_BIN={}",
        target.join("release/spotsim").display()
    ))
    .arg(target.join("debug/soak"))
    .args(["--minutes", &minutes.to_string()])
    .current_dir(workspace::root());
    if let Some(seed) = seed {
        soak.args(["--seed", &seed.to_string()]);
    }
    shell::announce(&shell::line(&soak));
    let status = wait_for(&mut soak, &interrupted)?;
    Ok(match status.code().map(u8::try_from) {
        Some(Ok(code)) => ExitCode::from(code),
        _ => ExitCode::FAILURE,
    })
}
