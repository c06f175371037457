//! The serving end: what a running spotsim does when it is asked.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use hyper::StatusCode;
use jiff::Timestamp;
use log::info;
use tokio::{net::UnixListener, sync::watch, task::JoinSet};

use super::{Change, Claim, Id, Reason, Refusal, Serves, Status, TargetStatus, Verb, server};
use crate::{
    consequence::{Consequences, Report},
    experiment::State,
    journal::Feed,
    responder::Responder,
    target::Target,
    timeline::{Plan, Timeline},
};

/// A running spotsim that can be controlled, if it has claimed an ID. When this is dropped, its
/// socket is removed.
pub struct Session {
    claim: Option<Claim>,
    subject: Arc<Subject>,
    server: JoinSet<()>,
}

/// What is controlled.
pub struct Subject {
    id: Id,
    verb: Verb,
    started: Timestamp,
    served: Served,
    /// How far its experiment is, if it runs one.
    experiment: Option<watch::Receiver<State>>,
    responder: Arc<Responder>,
    feed: Feed,
    consequences: Arc<Report>,
    /// Those of the timeline that was asked for last: they take long to find, and never change.
    steps: Mutex<(Timeline, Vec<Change>)>,
    phase: watch::Sender<Phase>,
}

/// Whom it serves, as it goes on.
pub enum Served {
    /// Targets, which come and go.
    Targets(watch::Receiver<Vec<Target>>),
    /// An address.
    Listen(String),
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Running,
    /// Somebody asked it to detach.
    Detaching,
    Ended(Reason),
}

impl Session {
    /// Answers on the claimed socket from now on. Must be called in a tokio runtime.
    pub fn start(
        claim: Option<Claim>,
        verb: Verb,
        served: Served,
        experiment: Option<watch::Receiver<State>>,
        responder: Arc<Responder>,
        feed: Feed,
        consequences: &Consequences,
    ) -> Result<Self> {
        let id = match &claim {
            Some(claim) => claim.id().clone(),
            None => Id::of_this_process(),
        };
        let report = Arc::clone(consequences.report());
        let subject = Subject::new(id, verb, served, experiment, responder, feed, report);
        let mut session = Self {
            subject: Arc::new(subject),
            claim,
            server: JoinSet::new(),
        };
        let Self {
            claim,
            subject,
            server,
        } = &mut session;
        if let Some(listener) = claim.as_mut().and_then(Claim::take_listener) {
            let listener =
                UnixListener::from_std(listener).context("cannot serve the control socket")?;
            server.spawn(server::serve(listener, Arc::clone(subject)));
        }
        Ok(session)
    }

    /// Waits until somebody asks it to detach. The one who asks is answered when
    /// [`Session::end`] is called.
    pub async fn asked_to_detach(&self) {
        let Self { subject, .. } = self;
        let mut phase = subject.phase.subscribe();
        // It cannot fail: we hold the other end.
        let _ = phase.wait_for(|phase| *phase == Phase::Detaching).await;
    }

    /// Removes the socket, tells everybody that it has ended, and lets the last answers be
    /// read, for a moment.
    pub async fn end(self, reason: Reason) {
        let Self {
            claim,
            subject,
            mut server,
        } = self;
        // First of all: who is told that it has ended must not find it any more.
        drop(claim);
        subject.phase.send_replace(Phase::Ended(reason));
        // Whatever became of it: what follows has to be done in any case.
        while server.join_next().await.is_some() {}
    }
}

impl Subject {
    /// Nothing is asked of it yet.
    pub fn new(
        id: Id,
        verb: Verb,
        served: Served,
        experiment: Option<watch::Receiver<State>>,
        responder: Arc<Responder>,
        feed: Feed,
        consequences: Arc<Report>,
    ) -> Self {
        Self {
            id,
            verb,
            started: Timestamp::now(),
            served,
            experiment,
            responder,
            feed,
            consequences,
            steps: Mutex::new((Timeline::nothing(Timestamp::now()), Vec::new())),
            phase: watch::Sender::new(Phase::Running),
        }
    }

    /// How far it is, to be watched.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// What happens.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// What shows the timeline.
    pub fn responder(&self) -> &Responder {
        &self.responder
    }

    /// Waits until there are other targets; for ever if that cannot be.
    pub async fn targets_changed(targets: &mut Option<watch::Receiver<Vec<Target>>>) {
        if let Some(changes) = targets
            && changes.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// The targets, if there are any, to be watched.
    pub fn targets(&self) -> Option<watch::Receiver<Vec<Target>>> {
        match &self.served {
            Served::Targets(targets) => Some(targets.clone()),
            Served::Listen(_) => None,
        }
    }

    /// The words for a target.
    pub fn name_of(&self, target: u64) -> Option<String> {
        let Served::Targets(targets) = &self.served else {
            return None;
        };
        let targets = targets.borrow();
        let target = targets.iter().find(|other| other.id() == target)?;
        Some(target.to_string())
    }

    /// How it is now.
    pub fn status(&self) -> Status {
        let now = Timestamp::now();
        let Self {
            id,
            verb,
            started,
            served,
            experiment,
            responder,
            feed,
            consequences,
            steps: _,
            phase: _,
        } = self;
        let waves = responder.waves();
        let timeline = waves.first();
        let steps = self.steps(timeline);
        Status {
            id: id.to_string(),
            verb: *verb,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: *started,
            experiment: experiment.as_ref().map(|state| *state.borrow()),
            serves: match served {
                Served::Targets(targets) => {
                    let targets = targets.borrow();
                    let status = |target: &Target| {
                        let effect = consequences.effect(target.id());
                        TargetStatus::new(target, waves.of(Some(target.id())), effect, now)
                    };
                    Serves::Targets(targets.iter().map(status).collect())
                }
                Served::Listen(address) => Serves::Listen(address.clone()),
            },
            upstream: responder.upstream().to_string(),
            held: waves.clocks().iter().all(|(_, clock)| clock.is_empty()),
            own_clocks: waves.differ(),
            timeline: timeline.to_string(),
            announced: timeline.visible(now).into_iter().map(Into::into).collect(),
            next: steps.iter().map(|step| step.at).find(|at| *at > now),
            steps,
            deadline: timeline.notice().map(|notice| notice.deadline),
            counts: feed.counts(),
            deliveries: consequences.deliveries(),
        }
    }

    fn steps(&self, timeline: &Timeline) -> Vec<Change> {
        let Self { steps, .. } = self;
        let known = || steps.lock().unwrap_or_else(PoisonError::into_inner);
        if let (known, steps) = &*known()
            && known == timeline
        {
            return steps.clone();
        }
        let steps = timeline.steps().into_iter();
        let steps: Vec<_> = steps.map(Change::briefly).collect();
        *known() = (timeline.clone(), steps.clone());
        steps
    }

    /// Announces a plan instead of what is announced, to every target or to those in these
    /// cgroups: when this returns, every later request sees it.
    pub fn trigger(&self, plan: &Plan, cgroups: &[String]) -> Result<Status, Refusal> {
        let Self {
            responder,
            phase,
            verb,
            ..
        } = self;
        // Held until it is shown: nothing is shown by one who is told that it is too late.
        let phase = phase.borrow();
        running(*phase)?;
        if *verb == Verb::Experiment {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "it runs an experiment, whose template says what is announced; `spotsim detach` \
                 stops it",
            ));
        }
        let some = self.ids(cgroups)?;
        let now = Timestamp::now();
        let announced = responder.announce(plan, now, some.as_deref());
        announced.map_err(|invalid| {
            Refusal::new(StatusCode::BAD_REQUEST, format!("the plan: {invalid}"))
        })?;
        let waves = responder.waves();
        match some.as_deref() {
            None => info!("control: {}", waves.first()),
            Some(some) => info!(
                "control: {} for {}",
                waves.of(some.first().copied()),
                cgroups.join(", ")
            ),
        }
        Ok(self.status())
    }

    /// The ids of the targets of these paths; `None` of no paths, which means all.
    fn ids(&self, cgroups: &[String]) -> Result<Option<Vec<u64>>, Refusal> {
        if cgroups.is_empty() {
            return Ok(None);
        }
        let refused = |error: String| Refusal::new(StatusCode::BAD_REQUEST, error);
        let Served::Targets(targets) = &self.served else {
            return Err(refused("it has no targets to choose from".to_owned()));
        };
        let targets = targets.borrow();
        let id = |path: &String| {
            let target = targets.iter().find(|target| target.cgroup.path() == path);
            target
                .map(Target::id)
                .ok_or_else(|| refused(format!("no target of it is cgroup {path}")))
        };
        cgroups.iter().map(id).collect::<Result<_, _>>().map(Some)
    }

    /// Withdraws everything, from every target or from those in these cgroups.
    pub fn cancel(&self, cgroups: &[String]) -> Result<Status, Refusal> {
        self.trigger(&Plan::default(), cgroups)
    }

    /// Asks for the end, and waits for it.
    pub async fn detach(&self) -> Result<Status, Refusal> {
        let Self { phase, .. } = self;
        let mut refused = Ok(());
        phase.send_if_modified(|phase| {
            refused = running(*phase);
            if refused.is_ok() {
                info!("control: asked to detach");
                *phase = Phase::Detaching;
            }
            refused.is_ok()
        });
        refused?;
        let mut phase = phase.subscribe();
        // It cannot fail: we hold the other end.
        let _ = phase
            .wait_for(|phase| matches!(phase, Phase::Ended(_)))
            .await;
        Ok(self.status())
    }
}

fn running(phase: Phase) -> Result<(), Refusal> {
    let conflict = |error: &str| Err(Refusal::new(StatusCode::CONFLICT, error));
    match phase {
        Phase::Running => Ok(()),
        Phase::Detaching => conflict("it is being detached"),
        Phase::Ended(_) => conflict("it has ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::responder::Upstream;

    fn session() -> Session {
        let timeline = Timeline::nothing(Timestamp::now());
        let responder = Arc::new(Responder::new(timeline, Upstream::Nothing));
        let served = Served::Listen("127.0.0.1:1".to_owned());
        let none = Consequences::start(Arc::clone(&responder), None, None, None);
        let feed = Feed::default();
        Session::start(None, Verb::Serve, served, None, responder, feed, &none).unwrap()
    }

    #[tokio::test]
    async fn a_bug_in_the_control_server_does_not_keep_it_from_ending() {
        let mut session = session();
        session.server.spawn(async { panic!("on purpose") });
        session.end(Reason::Stopped).await;
    }
}
