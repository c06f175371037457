//! `spotsim run`: run a command that sees the interruption.

use std::{
    ffi::OsString, os::unix::process::ExitStatusExt as _, path::PathBuf, process::ExitStatus,
    sync::Arc, time::Instant,
};

use anyhow::{Context as _, Result};
use clap::Args;
use jiff::Timestamp;
use log::{Level, LevelFilter, info, log_enabled};
use nix::{sys::signal::SigSet, unistd::Pid};
use tokio::process::Child;

use self::{
    course::{Course, still_there},
    junit::Junit,
    launch::{Launch, StartError},
    signals::Signals,
};
use super::{
    Exit,
    guard::Guarded,
    log as log_to,
    options::{EffectOptions, Options},
    runtime,
};
use crate::{
    consequence::Consequences,
    control::{Reason, Served, Session, Verb},
    descriptors::make_room,
    doctor,
    effect::Effects,
    interception::{Config, Interception},
    journal::Feed,
    netns::Namespace,
    responder::{Responder, Upstream},
    timeline::{Plan, Timeline},
};

mod course;
mod junit;
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

    /// Write the verdict as a JUnit report: passed if the command ended by itself, with 0
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    #[command(flatten)]
    effect: EffectOptions,

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
        make_room();
        // Before there is another thread, which could take a signal that is the command's.
        let blocked = Signals::block().context("cannot block signals")?;
        // Standard error is the command's first of all.
        log_to::start(self.options.verbosity.log_level(LevelFilter::Warn))?;
        // What is wrong with the options is wrong on every host.
        let plan = self.options.plan_for_one("run")?;
        self.effect.validate()?;
        // Where there is only `lo`, there is no other.
        let upstream = self.options.upstream.upstream(self.isolate)?;
        let junit = self.junit.as_deref();
        let mut junit = junit
            .map(|path| Junit::create(path, &self.command))
            .transpose()?;
        let mut course = Course::default();
        let exit = self.supervise(blocked, plan, upstream, &mut course);
        if let Some(junit) = &mut junit {
            junit.write(&course, &course.verdict(exit.as_ref().copied()))?;
        }
        exit
    }

    fn supervise(
        self,
        blocked: SigSet,
        plan: Plan,
        upstream: Upstream,
        course: &mut Course,
    ) -> Result<Exit> {
        doctor::preflight()?;
        runtime()?.block_on(self.intercept(blocked, plan, upstream, course))
    }

    async fn intercept(
        self,
        blocked: SigSet,
        plan: Plan,
        upstream: Upstream,
        course: &mut Course,
    ) -> Result<Exit> {
        let Self {
            options,
            isolate,
            junit: _,
            effect,
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
        let courier = options.events.courier().await?;
        let effects = effect.prepare()?;
        let (guard, cgroup) = Guarded::cgroup()?;
        let target = cgroup.id();
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
        let targets = interception.targets();
        let consequences = Consequences::start(
            Arc::clone(&responder),
            Some(targets.clone()),
            courier,
            effects.clone(),
        );
        let served = Served::Targets(targets);
        let session = Session::start(
            claim,
            Verb::Run,
            served,
            None,
            Arc::clone(&responder),
            feed,
            &consequences,
        )?;
        log_to::say(interception.armed().to_string());

        let exit = match signals.early()? {
            Some(signal) => Ok(Exit::Command(128 + signal as u8)),
            None => match launch.start() {
                Ok(mut child) => {
                    course.started = Some((Timestamp::now(), Instant::now()));
                    let attended = Attended {
                        interception: &mut interception,
                        session,
                        consequences,
                        options: &options,
                        effects: effects.as_ref().map(|effects| (effects, target)),
                    };
                    let exit = attended.attend(&mut child, &signals).await;
                    course.ended = Some(Instant::now());
                    exit
                }
                Err(StartError::NotExecuted(error)) => {
                    let program = command[0].display();
                    let why = format!("cannot execute {program}: {error}");
                    log_to::say(format!("spotsim: error: {why}"));
                    course.not_started = Some(why);
                    Ok(Exit::NotExecuted)
                }
                Err(StartError::NotPlaced(step, error)) => {
                    Err(anyhow::Error::from(error).context(format!("cannot {step}")))
                }
            },
        };
        let timeline = Arc::clone(responder.waves().of(Some(target)));
        course.notice = timeline.notice().map(|notice| notice.appears);
        course.deadline = timeline.notice().map(|notice| notice.deadline);
        let strikes = effects.as_ref().map(Effects::strikes);
        course.strike = strikes.and_then(|strikes| strikes.borrow().first().cloned());
        if let Some(strike) = &course.strike {
            log_to::say(still_there(strike));
        }
        // What is left of the command ends first: then nobody is redirected any more.
        guard.finish();
        drop(interception);
        exit.map(|own| course.exit(own))
    }
}

/// What goes on beside the command.
struct Attended<'a> {
    interception: &'a mut Interception,
    session: Session,
    consequences: Consequences,
    options: &'a Options,
    /// What may be done to the command, and the id of its target.
    effects: Option<(&'a Effects, u64)>,
}

impl Attended<'_> {
    /// Sees the command through to its end. The interception may be over before.
    async fn attend(self, child: &mut Child, signals: &Signals) -> Result<Exit> {
        let Self {
            interception,
            session,
            consequences,
            options,
            effects,
        } = self;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .map(Pid::from_raw);
        // Frozen, it would not hear that it is to end.
        let to_end = || {
            if let Some((effects, target)) = effects {
                effects.thaw_for_good(target);
            }
        };
        let mut ended = std::pin::pin!(async {
            tokio::select! {
                status = child.wait() => status,
                error = signals.pass_on(pid, to_end) => Err(error),
            }
        });
        let until = async {
            tokio::select! {
                () = options.lasts() => Reason::TimeOver,
                () = session.asked_to_detach() => Reason::Detached,
            }
        };
        // What was done at the deadline is undone with the rest.
        let over = async {
            consequences.end().await;
            if let Some((effects, target)) = effects {
                effects.lift(target);
            }
        };
        let kept = tokio::select! {
            status = &mut ended => {
                tokio::join!(session.end(Reason::CommandEnded), over);
                return Ok(exit_of(status.context("cannot wait for the command")?));
            }
            kept = interception.keep(until) => kept,
        };
        let reason = Reason::of(&kept);
        interception.release();
        if let Err(error) = kept {
            tokio::join!(session.end(reason), over);
            return Err(error);
        }
        info!("{reason}: the command goes on without a notice");
        // The command may end, or a signal come, while somebody reads the last answer.
        let (status, (), ()) = tokio::join!(ended, session.end(reason), over);
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
