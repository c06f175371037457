//! The command line: one file a verb.

use std::{ffi::OsString, io::Write as _};

use anyhow::Result;
use clap::{Parser, Subcommand};

mod attach;
mod doctor;
mod exit;
mod guard;
mod log;
mod options;
mod run;

pub use exit::Exit;

const ABOUT: &str = "Shows a fake EC2 Spot interruption to chosen cgroups, and to nobody else";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  this host cannot (`spotsim doctor` says why)
  `run` returns the command's own: 127 if it cannot be executed, 128+N if signal N ended it.";

#[derive(Parser)]
#[command(name = "spotsim", version, about = ABOUT, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Intercept what runs in cgroups, until Ctrl-C
    Attach(attach::Attach),
    /// Run a command that sees the interruption
    Run(run::Run),
    /// Check whether this host can do it
    Doctor(doctor::Doctor),
    /// Remove a cgroup when standard input ends (used by `run`)
    #[command(hide = true)]
    Guard(guard::Guard),
}

/// Runs the command line `args`, including the program's name, and says how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too, with exit code 0. If they cannot be printed,
            // nobody is there to be told.
            let _ = error.print();
            return Exit::of_usage(&error);
        }
    };
    let result = match cli.verb {
        Verb::Attach(attach) => attach.run(),
        Verb::Run(run) => run.run(),
        Verb::Doctor(doctor) => doctor.run(),
        Verb::Guard(guard) => guard.run(),
    };
    log::finish();
    result.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "spotsim: error: {error:#}");
        Exit::of_error(&error)
    })
}

/// A small runtime: two workers, so that one slow thing does not hold up every client.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}
