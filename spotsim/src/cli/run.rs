//! `spotsim run`: run a command that sees the interruption.

use std::{ffi::OsString, os::unix::process::ExitStatusExt as _, process::ExitStatus, sync::Arc};

use anyhow::{Context as _, Result};
use clap::Args;
use jiff::Timestamp;
use log::{Level, LevelFilter, info, log_enabled};
use nix::{sys::signal::SigSet, unistd::Pid};
use tokio::process::Child;

use self::{
    launch::{Launch, StartError},
    signals::Signals,
};
use super::{Exit, guard::Guarded, log as log_to, options::Options, runtime};
use crate::{
    control::{Reason, Served, Session, Verb},
    doctor,
    interception::{Config, Interception},
    journal::Feed,
    netns::Namespace,
    responder::{Responder, Upstream},
    timeline::{Plan, Timeline},
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
        // What is wrong with the options is wrong on every host.
        let plan = self.options.plan()?;
        // Where there is only `lo`, there is no other.
        let upstream = self.options.upstream.upstream(self.isolate)?;
        doctor::preflight()?;
        runtime()?.block_on(self.supervise(blocked, plan, upstream))
    }

    async fn supervise(self, blocked: SigSet, plan: Plan, upstream: Upstream) -> Result<Exit> {
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

        let claim = options.claim()?;
        let (guard, cgroup) = Guarded::cgroup()?;
        launch.enter(&cgroup, isolate.then_some(&namespace), blocked)?;
        let responder = Arc::new(Responder::new(
            Timeline::nothing(Timestamp::now()),
            upstream,
        ));
        let feed = Feed::default();
        let mut interception = Interception::arm(Config {
            targets: vec![cgroup.into()],
            some_suffice: false,
            follower: None,
            namespace: Some(namespace),
            responder: Arc::clone(&responder),
            feed: feed.clone(),
            kernel_log: log_enabled!(Level::Trace),
        })?;
        // Its times count from when somebody can see it.
        responder.announce(&plan, Timestamp::now(), None)?;
        let served = Served::Targets(interception.targets());
        let session = Session::start(claim, Verb::Run, served, responder, feed)?;
        log_to::say(interception.armed().to_string());

        let exit = match signals.early()? {
            Some(signal) => Ok(Exit::Command(128 + signal as u8)),
            None => match launch.start() {
                Ok(mut child) => {
                    let attended = Attended {
                        interception: &mut interception,
                        session,
                        options: &options,
                    };
                    attended.attend(&mut child, &signals).await
                }
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

/// What goes on beside the command.
struct Attended<'a> {
    interception: &'a mut Interception,
    session: Session,
    options: &'a Options,
}

impl Attended<'_> {
    /// Sees the command through to its end. The interception may be over before.
    async fn attend(self, child: &mut Child, signals: &Signals) -> Result<Exit> {
        let Self {
            interception,
            session,
            options,
        } = self;
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
        let until = async {
            tokio::select! {
                () = options.lasts() => Reason::TimeOver,
                () = session.asked_to_detach() => Reason::Detached,
            }
        };
        let kept = tokio::select! {
            status = &mut ended => {
                session.end(Reason::CommandEnded).await;
                return Ok(exit_of(status.context("cannot wait for the command")?));
            }
            kept = interception.keep(until) => kept,
        };
        let reason = Reason::of(&kept);
        interception.release();
        if let Err(error) = kept {
            session.end(reason).await;
            return Err(error);
        }
        info!("{reason}: the command goes on without a notice");
        // The command may end, or a signal come, while somebody reads the last answer.
        let (status, ()) = tokio::join!(ended, session.end(reason));
        Ok(exit_of(status.context("cannot wait for the command")?))
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, signal) => 128 + signal.unwrap_or_default(),
    };
    Exit::Command(u8::try_from(code).unwrap_or(u8::MAX))
}
