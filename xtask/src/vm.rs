//! `cargo xtask vm`

mod cpio;
mod guest;
mod image;
mod kernel;
mod outcome;
mod programs;

use std::{fs, path::Path, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;

use crate::{alone::Interrupted, summary::Summary, workspace};
use kernel::Kernel;
use programs::Programs;

/// Run the tests that need the kernel on other kernels, in virtual machines
///
/// QEMU emulates them, so this needs no privilege and no KVM. Kernels are Debian's, downloaded
/// once into target/vm from where this system gets its packages. On 6.1 and 6.12 the tests must
/// pass, with the unified cgroup hierarchy and no other; 5.10 must be refused. A test that is
/// skipped has failed. SPOTSIM_BIN names another spotsim than the release build.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which kernels; all of them if none is named
    #[arg(value_name = "KERNEL")]
    kernels: Vec<Kernel>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let interrupted = Interrupted::watch()?;
    let Args { kernels } = args;
    let kernels = match kernels.as_slice() {
        [] => Kernel::value_variants(),
        named => named,
    };
    guest::check()?;
    let directory = workspace::target_dir()?.join("vm");
    fs::create_dir_all(&directory)?;
    let programs = programs::build(kernels, &directory.join("programs"))?;
    let mut all = Summary::default();
    let mut failed = Vec::new();
    for &kernel in kernels {
        match test(kernel, &directory, &programs, &interrupted) {
            Ok(summary) => all = all + summary,
            Err(error) => {
                interrupted.check()?;
                eprintln!("xtask: error: {error:#}");
                failed.push(kernel.name());
            }
        }
    }
    if failed.is_empty() {
        println!("{} kernels: {all}", kernels.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} of {} kernels failed: {}",
        failed.len(),
        kernels.len(),
        failed.join(", ")
    );
    Ok(ExitCode::FAILURE)
}

fn test(
    kernel: Kernel,
    directory: &Path,
    programs: &Programs,
    interrupted: &Interrupted,
) -> Result<Summary> {
    let unpacked = kernel.unpack(directory)?;
    let start = Instant::now();
    let [image, log] =
        ["cpio", "log"].map(|kind| directory.join(format!("{}.{kind}", kernel.name())));
    image::write(&image, &unpacked, programs, &programs::plan(kernel))?;
    let console = guest::boot(&unpacked, &image, &log, interrupted);
    let summary = console.and_then(|console| outcome::judge(&console));
    let took = start.elapsed().as_secs_f64();
    let summary = summary.with_context(|| {
        let log = workspace::display(&log);
        format!(
            "{} failed after {took:.0} s; all of its console is in {log}",
            unpacked.release
        )
    })?;
    println!("{}: {summary}, {took:.0} s", unpacked.release);
    Ok(summary)
}
