//! The chores of this workspace, as `cargo xtask VERB`; one file per verb.
//!
//! Below the verbs: `alone` and `cgroup` make places where nothing else is touched, `workspace`
//! knows the directories, `shell` prints and runs commands, `summary` counts tests, `debian`
//! unpacks packages, `tool` installs programs from crates.io, `toolchain` knows what the kernel
//! half is compiled with and where that is pinned.

mod alone;
mod bench;
mod build_ebpf;
mod cgroup;
mod ci;
mod coverage;
mod debian;
mod demo;
mod deny;
mod shell;
mod soak;
mod summary;
mod test;
mod tool;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The chores of the spotsim workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    BuildEbpf(build_ebpf::Args),
    Demo(demo::Args),
    Bench(bench::Args),
    Soak(soak::Args),
    Test(test::Args),
    Coverage(coverage::Args),
    Deny(deny::Args),
    Vm(vm::Args),
    Ci(ci::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::BuildEbpf(args) => build_ebpf::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Demo(args) => demo::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Soak(args) => soak::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Coverage(args) => coverage::run(&args),
        Verb::Deny(args) => deny::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Vm(args) => vm::run(&args),
        Verb::Ci(args) => ci::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: error: {error:#}");
        ExitCode::FAILURE
    })
}
