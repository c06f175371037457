//! `spotsim experiment run`: a template's actions, on workloads of this node.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use log::{Level, LevelFilter, info, log_enabled, warn};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    TEMPLATES, TemplateFile,
    show::{self, Teller},
    start_log, warn_of_ignored,
};
use crate::{
    cli::{
        Exit, Misuse,
        options::{
            Behind, Candidates, Consent, EffectOptions, Events, RuntimeOptions, SessionOptions,
            Verbosity,
        },
        runtime,
        stop::Stop,
    },
    consequence::{Consequences, EffectState, Identities},
    control::{Reason, Served, Session, Verb},
    descriptors::make_room,
    doctor,
    experiment::{self, Candidate, Condition, State, Template},
    interception::{Config, Ended, Interception},
    journal::Feed,
    responder::{Responder, Upstream},
    target::{Choice, Pods, Selector, Target},
    timeline::Timeline,
};

type Conduct = experiment::Conduct<Teller>;
type Resolved = BTreeMap<String, Vec<Candidate>>;

#[derive(Args)]
#[command(after_help = TEMPLATES)]
pub struct Run {
    #[command(flatten)]
    template: TemplateFile,

    /// Run the actions, or only find and show their targets
    #[arg(
        long,
        value_name = "run-all|skip-all",
        default_value = "run-all",
        hide_default_value = true,
        hide_possible_values = true
    )]
    actions_mode: ActionsMode,

    /// Show the targets of skip-all as JSON
    #[arg(long)]
    json: bool,

    /// Stop when this command, for sh, succeeds; it is tried each 5s
    #[arg(long, value_name = "COMMAND")]
    stop_if: Option<String>,

    /// Keep a record of what happened in this file: JSON
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// Choose the same targets again
    #[arg(long, value_name = "N")]
    seed: Option<u32>,

    #[command(flatten)]
    session: SessionOptions,

    #[command(flatten)]
    verbosity: Verbosity,

    // Each has a heading, which goes for what comes after it.
    #[command(flatten)]
    candidates: Candidates,

    #[command(flatten)]
    runtime: RuntimeOptions,

    #[command(flatten)]
    upstream: Behind,

    #[command(flatten)]
    events: Events,

    #[command(flatten)]
    effect: EffectOptions,

    #[command(flatten)]
    consent: Consent,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ActionsMode {
    RunAll,
    SkipAll,
}

impl Run {
    pub fn run(self) -> Result<Exit> {
        make_room();
        start_log(self.verbosity.log_level(LevelFilter::Info))?;
        let template = self.template.read()?;
        let upstream = self.upstream.upstream(false)?;
        let choice = self.choice()?;
        let skips = self.actions_mode == ActionsMode::SkipAll;
        if self.json && !skips {
            return Err(Misuse::error("--json goes with --actions-mode skip-all"));
        }
        self.effect.validate()?;
        self.check_alarms(&template)?;
        warn_of_ignored(&template);
        if !skips {
            self.consent.validate(&self.effect)?;
            doctor::preflight_for_others()?;
        }
        runtime()?.block_on(self.conduct(template, upstream, choice))
    }

    /// Where something is done to processes or the network, somebody has to watch.
    fn check_alarms(&self, template: &Template) -> Result<()> {
        let Self {
            effect, stop_if, ..
        } = self;
        match template.alarms.first() {
            Some(path) if effect.is_some() && stop_if.is_none() => Err(Misuse::error(format!(
                "{}: {path}: the alarm is not watched here: with --at-deadline, give --stop-if \
                 COMMAND, which is",
                self.template.shown()
            ))),
            _ => Ok(()),
        }
    }

    /// Whom it may choose from: what is named, or else all pods of this node.
    fn choice(&self) -> Result<Choice> {
        match self.candidates.is_empty() {
            false => self.candidates.choice(),
            true => {
                // Fails on a namespace that is not for anything.
                self.candidates.choice()?;
                Ok(Choice {
                    selector: Some(Selector::default()),
                    // That there are none is for the template to judge.
                    wait: true,
                    ..Choice::default()
                })
            }
        }
    }

    async fn conduct(self, template: Template, upstream: Upstream, choice: Choice) -> Result<Exit> {
        let skips = self.actions_mode == ActionsMode::SkipAll;
        let condition = self.stop_if.clone().map(Condition::new);
        let mut stop = Stop::new()?;
        // Suspended, it would leave its targets without an IMDS. A signal that is listened for
        // does not suspend.
        let _suspend = signal(SignalKind::from_raw(libc::SIGTSTP))?;
        let begins_not = match &condition {
            Some(condition) if !skips => tokio::select! {
                already = condition.holds_already() => already
                    .map_err(|error| Misuse::error(format!("{error:#}")))?
                    .then_some("the condition of --stop-if held before it began"),
                () = stop.asked() => Some(STOPPED),
            },
            _ => None,
        };
        let seed = self.seed.unwrap_or_else(|| fastrand::u32(..)).into();
        let mut conduct = Conduct::new(template, seed, self.record.clone(), Teller::new(skips))?;
        if let Some(why) = begins_not {
            conduct.stop(why);
            return Ok(exit(&conduct));
        }
        conduct.initiate();
        let responder = Arc::new(Responder::new(
            Timeline::nothing(Timestamp::now()),
            upstream,
        ));
        let candidates = tokio::select! {
            candidates = self.candidates(&choice, &responder) => candidates,
            () = stop.asked() => {
                conduct.stop(STOPPED);
                return Ok(exit(&conduct));
            }
        };
        let candidates = candidates.inspect_err(|error| conduct.fail(format!("{error:#}")))?;
        let found = conduct.resolve(&candidates);
        info!("targets are chosen with --seed {seed}");
        if skips {
            show::targets(&found, self.json)?;
            if !conduct.state().is_final() {
                conduct.skip();
            }
            return Ok(exit(&conduct));
        }
        if !conduct.state().is_final() {
            let begun = self
                .begin(&mut conduct, &found, responder, condition, stop)
                .await;
            begun.inspect_err(|error| conduct.fail(format!("{error:#}")))?;
        }
        Ok(exit(&conduct))
    }

    /// Those that targets are chosen from.
    async fn candidates(&self, choice: &Choice, responder: &Responder) -> Result<Vec<Candidate>> {
        let mut pods = match choice.asks_runtime() {
            true => Some(Pods::new(self.runtime.connect().await?)),
            false => None,
        };
        let found = choice.find(pods.as_mut()).await?;
        for reason in &found.refused {
            warn!("{reason}");
        }
        let mut identities = Identities::default();
        let mut candidates = Vec::new();
        for target in found.targets {
            let identity = identities.of(Some(&target), responder).await;
            let identity = identity.inspect_err(|error| {
                warn!("{target}: its IMDS does not tell its tags and attributes: {error:#}");
            });
            candidates.push(Candidate {
                running: target.cgroup.is_populated(),
                identity: identity.ok(),
                target,
            });
        }
        Ok(candidates)
    }

    /// Attaches to those that were found, and goes on to the end.
    async fn begin(
        &self,
        conduct: &mut Conduct,
        found: &Resolved,
        responder: Arc<Responder>,
        condition: Option<Condition>,
        mut stop: Stop,
    ) -> Result<()> {
        let targets = all_of(found);
        let effects = self.effect.prepare()?;
        tokio::select! {
            consent = self.consent.obtain(&self.effect, &targets, false) => consent?,
            () = stop.asked() => {
                conduct.stop(STOPPED);
                return Ok(());
            }
        }
        let claim = self.session.claim(false)?;
        let courier = self.events.courier().await?;
        let feed = Feed::default();
        // With nobody to be interrupted there may still be waits.
        let mut interception = match targets.is_empty() {
            true => None,
            false => Some(Interception::arm(Config {
                targets,
                some_suffice: false,
                follower: None,
                namespace: None,
                responder: Arc::clone(&responder),
                feed: feed.clone(),
                kernel_log: log_enabled!(Level::Trace),
            })?),
        };
        let targets = match &interception {
            Some(interception) => interception.targets(),
            None => watch::Sender::default().subscribe(),
        };
        let of_targets = Some(targets.clone());
        let consequences =
            Consequences::start(Arc::clone(&responder), of_targets, courier, effects);
        let served = Served::Targets(targets.clone());
        let shown = Arc::clone(&responder);
        let state = Some(conduct.watch());
        let session = Session::start(
            claim,
            Verb::Experiment,
            served,
            state,
            shown,
            feed,
            &consequences,
        )?;
        conduct.start(found);

        let reason = Cell::new(Reason::ExperimentEnded);
        let halt = async {
            let (why, of) = tokio::select! {
                () = stop.asked() => (STOPPED, Reason::Stopped),
                () = session.asked_to_detach() => ("it was told to detach", Reason::Detached),
                () = holds(condition) => (HELD, Reason::ExperimentEnded),
            };
            reason.set(of);
            why.to_owned()
        };
        let report = consequences.report();
        let is_done = |target| match report.effect(target) {
            None => !self.effect.is_some(),
            Some(EffectState::UnderWay { .. }) => false,
            Some(EffectState::Done { .. } | EffectState::Failed { .. }) => true,
        };
        let run = conduct.run(&responder, &targets, is_done, halt);
        let kept = match &mut interception {
            Some(interception) => interception.keep(run).await,
            None => {
                run.await;
                Ok(Ended::Asked(()))
            }
        };
        match &kept {
            Ok(Ended::Asked(())) => {}
            Ok(Ended::TargetsGone) => {
                conduct.targets_gone(&responder, &targets);
                reason.set(Reason::TargetsGone);
            }
            Err(_) => reason.set(Reason::Failed),
        }
        let detach = async {
            if let Some(mut interception) = interception {
                interception.release();
                interception.detach().await;
            }
        };
        tokio::join!(session.end(reason.get()), consequences.end(), detach);
        kept?;
        Ok(())
    }
}

const STOPPED: &str = "it was stopped by a signal";
const HELD: &str = "the condition of --stop-if holds";

/// Waits until the condition holds; for ever without one.
async fn holds(condition: Option<Condition>) {
    match condition {
        Some(condition) => condition.holds().await,
        None => std::future::pending().await,
    }
}

/// All that were found, each once.
fn all_of(found: &Resolved) -> Vec<Target> {
    let mut seen = HashSet::new();
    let all = found.values().flatten();
    let all = all.filter(|candidate| seen.insert(candidate.target.id()));
    all.map(|candidate| candidate.target.clone()).collect()
}

fn exit(conduct: &Conduct) -> Exit {
    match conduct.state() {
        State::Completed => Exit::Done,
        _ => Exit::Failed,
    }
}
