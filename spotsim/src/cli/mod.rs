//! The command line: one file a verb.

use std::{ffi::OsString, io::Write as _};

use anyhow::Result;
use clap::{Parser, Subcommand, error::ErrorKind};

mod attach;
mod control;
mod doctor;
mod exit;
mod experiment;
mod guard;
mod list;
mod log;
mod options;
mod plan;
mod pods;
mod run;
mod serve;
mod status;
mod stop;
mod table;
mod watch;

pub use exit::Exit;
use exit::Misuse;

use crate::{effect, netns};

const ABOUT: &str =
    "Shows a fake EC2 Spot interruption to chosen pods and cgroups, and to nobody else";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  this host cannot (`spotsim doctor` says why)
  `run` returns the command's own: 127 if it cannot be executed, 128+N if signal N ended it;
  124 if it was still there at the deadline, with --at-deadline.";

#[derive(Parser)]
#[command(name = "spotsim", version, about = ABOUT, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Intercept pods, containers, units or cgroups, until Ctrl-C
    Attach(Box<attach::Attach>),
    /// Run a command that sees the interruption
    Run(run::Run),
    /// Run a template of AWS Fault Injection Service against workloads of this node
    Experiment(experiment::Experiment),
    /// Serve IMDS on an address of your choice, without root and without intercepting anybody
    Serve(serve::Serve),
    /// Announce something in a running one, to all of its targets or to some
    Trigger(control::Trigger),
    /// Withdraw what a running one announces, from all of its targets or from some
    Cancel(control::Cancel),
    /// End a running one
    Detach(control::Detach),
    /// Show those that run
    List(list::List),
    /// Show what a running one announces
    Status(status::Status),
    /// Show connects and requests as they happen
    Watch(watch::Watch),
    /// Show the pods of this node
    Pods(pods::ListPods),
    /// Look at a plan file
    Plan(plan::Plan),
    /// Check whether this host can do it
    Doctor(doctor::Doctor),
    /// Remove a cgroup when standard input ends (used by `run`)
    #[command(hide = true)]
    Guard(guard::Guard),
}

impl Verb {
    /// Whether it looks at what others run, wherever on the host. The other verbs stay in the
    /// cgroup namespace that they were started in, and `run` starts its command there.
    fn is_about_others(&self) -> bool {
        matches!(
            self,
            Self::Attach(_)
                | Self::Experiment(_)
                | Self::Trigger(_)
                | Self::Cancel(_)
                | Self::Pods(_)
                | Self::Doctor(_)
        )
    }
}

/// Runs the command line `args`, including the program's name, and says how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Exit {
    let parsed = Cli::try_parse_from(args);
    if parsed.as_ref().is_ok_and(|cli| cli.verb.is_about_others()) {
        // Before there is another thread, which would stay where it is. If it fails, the verb's
        // own checks tell why.
        let _ = netns::enter_hosts_cgroup_namespace();
    }
    // Whatever is asked for.
    for line in effect::thaw_what_was_left() {
        let _ = writeln!(std::io::stderr(), "spotsim: {}", printable(&line));
    }
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too, with exit code 0. If they cannot be printed,
            // nobody is there to be told.
            let _ = match error.kind() {
                ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.print(),
                _ => writeln!(std::io::stderr(), "spotsim: {}", one_line(&error)),
            };
            return Exit::of_usage(&error);
        }
    };
    let result = match cli.verb {
        Verb::Attach(attach) => attach.run(),
        Verb::Run(run) => run.run(),
        Verb::Experiment(experiment) => experiment.run(),
        Verb::Serve(serve) => serve.run(),
        Verb::Trigger(trigger) => trigger.run(),
        Verb::Cancel(cancel) => cancel.run(),
        Verb::Detach(detach) => detach.run(),
        Verb::List(list) => list.run(),
        Verb::Status(status) => status.run(),
        Verb::Watch(watch) => watch.run(),
        Verb::Pods(pods) => pods.run(),
        Verb::Plan(plan) => plan.run(),
        Verb::Doctor(doctor) => doctor.run(),
        Verb::Guard(guard) => guard.run(),
    };
    log::finish();
    result.unwrap_or_else(|error| {
        let text = printable(&format!("{error:#}"));
        let _ = writeln!(std::io::stderr(), "spotsim: error: {text}");
        Exit::of_error(&error)
    })
}

/// Prints to standard output; `false` if whoever read it has seen enough.
fn print(text: impl AsRef<[u8]>) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    let printed = stdout
        .write_all(text.as_ref())
        .and_then(|()| stdout.flush());
    match printed {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(true),
    }
}

/// What clap says of a command line, without the usage and the hints that follow.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    shortened(&printable(
        &first.split_whitespace().collect::<Vec<_>>().join(" "),
    ))
}

/// What clap quotes may be of any length. What is wrong with it is told at the end.
fn shortened(text: &str) -> String {
    const EACH_END: usize = 200;
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= 2 * EACH_END {
        return text.to_owned();
    }
    let (first, last) = (&letters[..EACH_END], &letters[letters.len() - EACH_END..]);
    first.iter().chain(['…'].iter()).chain(last).collect()
}

/// An error may quote what somebody else wrote: a file, its name, or a workload's.
fn printable(text: &str) -> String {
    let escape = |letter: char| match letter {
        letter if letter.is_control() => letter.escape_debug().collect(),
        letter => String::from(letter),
    };
    text.chars().map(escape).collect()
}

/// A small runtime: two workers, so that one slow thing does not hold up every client.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_shortened_in_the_middle() {
        let short = "é".repeat(400);
        assert_eq!(shortened(&short), short);
        let long = format!("invalid value '{}' is why", "é".repeat(400));
        let text = shortened(&long);
        assert_eq!(text.chars().count(), 401);
        assert!(text.starts_with("invalid value 'é") && text.ends_with("é' is why"));
    }
}
