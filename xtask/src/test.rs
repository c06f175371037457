//! `cargo xtask test`

pub mod clients;

use std::{
    env, io,
    process::{ExitCode, Stdio},
    thread,
    time::Instant,
};

use anyhow::Result;
use nix::unistd;

use crate::{
    build_ebpf, shell,
    summary::{Summary, Watch},
    workspace,
};

/// Run the tests of every layer
///
/// Sets up what they need first: the kernel half, a release build of spotsim, and the pinned
/// real clients (a Python venv, node modules, cloud-init) and a second containerd under
/// target/clients. Tests that need the kernel need root; those with pods need containerd, runc and
/// CNI plugins on this host, of which they start their own. What cannot run here is skipped and
/// says why; with SPOTSIM_REQUIRE_BPF=1 that is a failure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Arguments for `cargo test`
    #[arg(last = true)]
    cargo_test: Vec<String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let all_must_run = env::var_os("SPOTSIM_REQUIRE_BPF").is_some_and(|value| value == "1");
    build_ebpf::prepare()?;
    let target_dir = workspace::target_dir()?;
    let clients_dir = target_dir.join("clients");
    clients::install(&clients_dir, all_must_run)?;
    build_ebpf::release()?;
    if !unistd::geteuid().is_root() {
        println!(
            "The tests that need the kernel are skipped without root. \
             To run them too: sudo -E env PATH=$PATH cargo xtask test"
        );
    }

    let mut cargo = shell::cargo(["test", "--workspace", "--locked", "--no-fail-fast"]);
    cargo
        .args(&args.cargo_test)
        .env("SPOTSIM_BIN", target_dir.join("release/spotsim"))
        .env("SPOTSIM_CLIENTS", &clients_dir);
    shell::announce(&shell::line(&cargo));
    let start = Instant::now();
    let mut child = cargo
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| shell::cannot_start(&cargo, &error))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut results, mut skips) = (Summary::default(), Summary::default());
    thread::scope(|scope| {
        scope.spawn(|| Watch::results(&mut results).copy(stdout, io::stdout()));
        scope.spawn(|| Watch::skips(&mut skips).copy(stderr, io::stderr()));
    });
    let status = child.wait()?;
    let summary = results + skips;

    let incomplete = all_must_run && summary.skipped > 0;
    if incomplete {
        eprintln!("xtask: error: tests were skipped, which SPOTSIM_REQUIRE_BPF=1 forbids");
    }
    println!("cargo test took {:.1} s", start.elapsed().as_secs_f64());
    println!("{summary}");
    Ok(match status.code() {
        Some(0) if incomplete => ExitCode::FAILURE,
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => ExitCode::FAILURE,
    })
}
