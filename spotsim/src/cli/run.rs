//! `spotsim run`: run a command that sees the interruption.

use std::{ffi::OsString, os::unix::process::ExitStatusExt as _, process::ExitStatus};

use anyhow::{Context as _, Result};
use clap::Args;
use log::{Level, LevelFilter, info, log_enabled, warn};
use nix::{sys::signal::SigSet, unistd::Pid};
use tokio::process::Child;

use self::{
    launch::{Launch, StartError},
    signals::Signals,
};
use super::{Exit, guard::Guarded, log as log_to, options::Options, runtime};
use crate::{
    doctor,
    interception::{Config, Ended, Interception},
    netns::Namespace,
};

mod launch;
mod signals;

#[derive(Args)]
#[command(override_usage = "spotsim run [OPTIONS] -- COMMAND [ARGUMENTS]...")]
pub struct Run {
    #[command(flatten)]
    options: Options,

    /// Give the command a network namespace of its own, with only `lo`
    #[arg(long)]
    isolate: bool,

    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<OsString>,
}

impl Run {
    pub fn run(self) -> Result<Exit> {
        // Before there is another thread, which could take a signal that is the command's.
        let blocked = Signals::block().context("cannot block signals")?;
        // Standard error is the command's first of all.
        log_to::start(self.options.log_level(LevelFilter::Warn))?;
        doctor::preflight()?;
        runtime()?.block_on(self.supervise(blocked))
    }

    async fn supervise(self, blocked: SigSet) -> Result<Exit> {
        let Self {
            options,
            isolate,
            command,
        } = self;
        let signals = Signals::take().context("cannot take signals over")?;
        let mut launch = Launch::prepare(&command)?;
        let namespace = if isolate {
            Namespace::isolated().context("cannot make a network namespace")?
        } else {
            Namespace::current().context("cannot open the network namespace")?
        };

        let (guard, cgroup) = Guarded::cgroup()?;
        launch.enter(&cgroup, isolate.then_some(&namespace), blocked)?;
        let mut interception = Interception::arm(Config {
            targets: vec![cgroup],
            namespace: Some(namespace),
            plan: options.plan(),
            // Where there is only `lo`, there is no other.
            upstream: options.upstream(isolate),
            kernel_log: log_enabled!(Level::Trace),
        })?;
        log_to::say(interception.armed().to_string());

        let exit = match signals.early()? {
            Some(signal) => Ok(Exit::Command(128 + signal as u8)),
            None => match launch.start() {
                Ok(mut child) => attend(&mut child, &signals, &mut interception, &options).await,
                Err(StartError::NotExecuted(error)) => {
                    log_to::say(format!(
                        "spotsim: error: cannot execute {}: {error}",
                        command[0].display()
                    ));
                    Ok(Exit::NotExecuted)
                }
                Err(StartError::NotPlaced(step, error)) => {
                    Err(anyhow::Error::from(error).context(format!("cannot {step}")))
                }
            },
        };
        // What is left of the command ends first: then nobody is redirected any more.
        guard.finish();
        drop(interception);
        exit
    }
}

/// Sees the command through to its end. The interception may be over before.
async fn attend(
    child: &mut Child,
    signals: &Signals,
    interception: &mut Interception,
    options: &Options,
) -> Result<Exit> {
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .map(Pid::from_raw);
    let mut ended = std::pin::pin!(async {
        tokio::select! {
            status = child.wait() => status,
            error = signals.pass_on(pid) => Err(error),
        }
    });
    let kept = tokio::select! {
        status = &mut ended => return Ok(exit_of(status.context("cannot wait for the command")?)),
        kept = interception.keep(options.lasts()) => kept?,
    };
    match kept {
        Ended::Asked => {
            info!("the time given with --for is over: the command goes on without a notice");
            interception.release();
        }
        Ended::TargetsGone => warn!("the command's cgroup was removed"),
    }
    Ok(exit_of(ended.await.context("cannot wait for the command")?))
}

fn exit_of(status: ExitStatus) -> Exit {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, signal) => 128 + signal.unwrap_or_default(),
    };
    Exit::Command(u8::try_from(code).unwrap_or(u8::MAX))
}
