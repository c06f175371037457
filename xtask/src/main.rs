//! The chores of this workspace, as `cargo xtask VERB`; one file per verb.
//!
//! Below the verbs: `alone` and `cgroup` make places where nothing else is touched, `workspace`
//! knows the directories, `shell` prints and runs commands, `toolchain` knows what the kernel
//! half is compiled with and where that is pinned.

mod alone;
mod bench;
mod build_ebpf;
mod cgroup;
mod ci;
mod demo;
mod shell;
mod test;
mod toolchain;
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
    Test(test::Args),
    Ci(ci::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::BuildEbpf(args) => build_ebpf::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Demo(args) => demo::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Test(args) => test::run(&args),
        Verb::Ci(args) => ci::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: error: {error:#}");
        ExitCode::FAILURE
    })
}
