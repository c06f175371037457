//! `spotsim attach`: intercept chosen pods, containers, units or cgroups.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use jiff::Timestamp;
use log::{Level, LevelFilter, info, log_enabled, warn};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Exit, Misuse, log as log_to,
    options::{Consent, EffectOptions, Options, RuntimeOptions, Targets},
    pods::{Row, show},
    runtime,
    stop::Stop,
};
use crate::{
    consequence::Consequences,
    control::{Reason, Served, Session, Verb},
    descriptors::make_room,
    doctor,
    interception::{Config, Interception},
    journal::Feed,
    responder::{Responder, Upstream},
    target::{Choice, Follower, Found, Pods, Select},
    timeline::{Plan, Timeline},
};

#[derive(Args)]
#[command(override_usage = "spotsim attach TARGETS [OPTIONS]")]
pub struct Attach {
    // Its heading goes for what comes after it, up to the runtime's options.
    #[command(flatten)]
    targets: Targets,

    /// Choose once: pods that match later are left alone
    #[arg(long)]
    once: bool,

    /// Start though what is named is not there yet
    #[arg(long, conflicts_with = "once")]
    wait: bool,

    /// Show what would be chosen, and attach to nothing
    #[arg(long)]
    dry_run: bool,

    /// With --dry-run, as JSON
    #[arg(long, requires = "dry_run")]
    json: bool,

    #[command(flatten)]
    runtime: RuntimeOptions,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    effect: EffectOptions,

    #[command(flatten)]
    consent: Consent,
}

impl Attach {
    pub fn run(self) -> Result<Exit> {
        make_room();
        log_to::start(self.options.verbosity.log_level(LevelFilter::Info))?;
        // What is wrong with the options is wrong on every host.
        let plan = self.options.plan()?;
        let upstream = self.options.upstream.upstream(false)?;
        let choice = self.choice()?;
        self.effect.validate()?;
        if self.dry_run {
            return runtime()?.block_on(self.show(choice));
        }
        self.consent.validate(&self.effect)?;
        doctor::preflight_for_others()?;
        runtime()?.block_on(self.intercept(plan, upstream, choice))
    }

    fn choice(&self) -> Result<Choice> {
        let choice = Choice {
            wait: self.wait,
            ..self.targets.required()?
        };
        if choice.wait && !choice.is_alive() {
            return Err(Misuse::error(
                "--wait is for --pod, --selector and --unit, and for all of them",
            ));
        }
        Ok(choice)
    }

    /// Finds those who are chosen now.
    async fn find(&self, choice: &Choice) -> Result<(Found, Option<Pods>)> {
        let mut pods = match choice.asks_runtime() {
            true => Some(Pods::new(self.runtime.connect().await?)),
            false => None,
        };
        let found = choice.find(pods.as_mut()).await?;
        if choice.select != Select::All {
            let (count, seed) = (found.targets.len(), choice.seed);
            info!("chose {count} by {}, --seed {seed}", choice.select);
        }
        for reason in &found.refused {
            warn!("{reason}");
        }
        Ok((found, pods))
    }

    async fn show(self, choice: Choice) -> Result<Exit> {
        let (found, _) = self.find(&choice).await?;
        let row = match self.effect.is_some() {
            true => Row::with_processes,
            false => Row::of,
        };
        let rows: Vec<_> = found.targets.iter().map(row).collect();
        show(&rows, self.json, "nothing is chosen yet")
    }

    async fn intercept(self, plan: Plan, upstream: Upstream, choice: Choice) -> Result<Exit> {
        let (found, pods) = self.find(&choice).await?;
        let Self {
            options,
            once,
            effect,
            consent,
            ..
        } = self;
        let effects = effect.prepare()?;
        let later = choice.is_alive() && !once;
        consent.obtain(&effect, &found.targets, later).await?;
        // What merely matches may be more than can be attached to.
        let some_suffice = choice.selector.is_some();
        let follower = match choice.is_alive() && !once {
            true => {
                let follower = Follower::start(choice, pods, &found);
                Some(follower.context("cannot watch cgroups")?)
            }
            false => None,
        };
        let claim = options.claim()?;
        let courier = options.events.courier().await?;
        let mut stop = Stop::new()?;
        // Suspended, it would leave its targets without an IMDS. A signal that is listened for
        // does not suspend.
        let _suspend = signal(SignalKind::from_raw(libc::SIGTSTP))?;
        let responder = Arc::new(Responder::new(
            Timeline::nothing(Timestamp::now()),
            upstream,
        ));
        let feed = Feed::default();
        let mut interception = Interception::arm(Config {
            targets: found.targets,
            some_suffice,
            follower,
            namespace: None,
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
            effects,
        );
        let served = Served::Targets(targets);
        let session = Session::start(
            claim,
            Verb::Attach,
            served,
            None,
            responder,
            feed,
            &consequences,
        )?;
        log_to::print(interception.armed().to_string());

        let until = async {
            tokio::select! {
                () = stop.asked() => Reason::Stopped,
                () = options.lasts() => Reason::TimeOver,
                () = session.asked_to_detach() => Reason::Detached,
            }
        };
        let kept = interception.keep(until).await;
        let reason = Reason::of(&kept);
        interception.release();
        tokio::join!(
            session.end(reason),
            consequences.end(),
            interception.detach()
        );
        kept?;
        info!("detached: {reason}");
        Ok(Exit::Done)
    }
}
