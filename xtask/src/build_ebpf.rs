//! `cargo xtask build-ebpf`

use anyhow::Result;

use crate::{shell, tool::BPF_LINKER, toolchain::Nightly};

/// Install what the kernel half needs, then compile it
///
/// It needs a nightly toolchain of rustup with LLVM 22 (`nightly`, or the one that
/// SPOTSIM_NIGHTLY names), that toolchain's rust-src, and bpf-linker 0.10.3 in target/tools;
/// the last two are installed when missing. Why these versions: xtask/src/toolchain.rs.
/// After this, a plain `cargo build` works.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Compile it for the release build of spotsim
    #[arg(long)]
    release: bool,
}

pub fn run(args: &Args) -> Result<()> {
    prepare()?;
    let mut cargo = shell::cargo(["build", "--package", "spotsim-ebpf", "--locked"]);
    if args.release {
        cargo.arg("--release");
    }
    // aya-build shows the progress of the cargo it runs as warnings of the build script, and
    // cargo repeats those at every later build.
    shell::run(cargo.env("CARGO_TERM_QUIET", "true"))
}

/// Builds spotsim as it is released. What the kernel half needs must be there.
pub fn release() -> Result<()> {
    shell::run(&mut shell::cargo([
        "build",
        "--release",
        "--locked",
        "--package",
        "spotsim",
    ]))
}

/// Builds the programs of the tests' crate: the benchmark and the soak test, and what they run.
/// With the whole workspace, as the tests are: alone, some dependencies would be compiled once
/// more.
pub fn test_programs() -> Result<()> {
    shell::run(&mut shell::cargo([
        "build",
        "--workspace",
        "--locked",
        "--bins",
    ]))
}

/// Makes sure of what the kernel half needs. Every build of spotsim then compiles it along the
/// way; the other verbs leave it to theirs, because one by itself selects other features of
/// the build script's dependencies, and so would compile it once more.
pub fn prepare() -> Result<()> {
    let nightly = Nightly::find()?;
    nightly.ensure_component("rust-src")?;
    BPF_LINKER.ensure()
}
