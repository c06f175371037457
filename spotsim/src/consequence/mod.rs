//! What follows from what is announced, besides what IMDS shows: events are sent to those who
//! listen elsewhere, and something is done to the targets at their deadline.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem::take,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use log::{debug, info, warn};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinError, JoinSet},
    time::{sleep, timeout},
};

use self::calendar::{Calendar, Due};
use crate::{
    effect::Effects,
    emit::{Courier, Delivery},
    event::{Event, Told},
    responder::Responder,
    target::Target,
    timeline::{Action, Occasion, Waves},
};

mod calendar;
mod identities;

pub use identities::Identities;

/// A timer reaches no further than this; what comes later is waited for in pieces.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// An event of what cannot be used before a deadline is delivered, or given up, within this.
const DELIVERED_WITHIN: Duration = Duration::from_secs(120);

/// At the end, so long an effect may take to notice that it is done.
const NOTICED_WITHIN: Duration = Duration::from_millis(500);

/// At the end, so long events are still delivered.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// Whom all this is about, as they come and go; `None` for whoever comes.
pub type Targets = Option<watch::Receiver<Vec<Target>>>;

/// What is done besides what IMDS shows. To drop it undoes what can be undone.
pub struct Consequences {
    report: Arc<Report>,
    stop: watch::Sender<()>,
    /// Sends and does it.
    tasks: JoinSet<()>,
}

/// How it is with all that.
#[derive(Default)]
pub struct Report {
    courier: Option<Arc<Courier>>,
    /// By the targets' ids.
    effects: Mutex<BTreeMap<u64, EffectState>>,
}

/// How far it is with what is done to a target at its deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum EffectState {
    UnderWay { since: Timestamp },
    Done { at: Timestamp },
    Failed { error: String },
}

impl Report {
    /// How it is with each sink.
    pub fn deliveries(&self) -> Vec<Delivery> {
        let Self { courier, .. } = self;
        let deliveries = courier.as_ref().map(|courier| courier.deliveries());
        deliveries.unwrap_or_default()
    }

    /// What was done to a target, if anything was.
    pub fn effect(&self, target: u64) -> Option<EffectState> {
        self.effects().get(&target).cloned()
    }

    fn note(&self, target: u64, state: EffectState) {
        self.effects().insert(target, state);
    }

    fn effects(&self) -> MutexGuard<'_, BTreeMap<u64, EffectState>> {
        let Self { effects, .. } = self;
        effects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Consequences {
    /// Sends events and has effects from now on, as the responder announces them to the targets.
    /// Must be called in a tokio runtime.
    pub fn start(
        responder: Arc<Responder>,
        targets: Targets,
        courier: Option<Courier>,
        effects: Option<Effects>,
    ) -> Self {
        let courier = courier.map(Arc::new);
        let report = Arc::new(Report {
            courier: courier.clone(),
            ..Report::default()
        });
        let (stop, stopped) = watch::channel(());
        let mut tasks = JoinSet::new();
        // Nobody waits for an identity but the events.
        let tell = courier.map(|courier| {
            let (tell, told) = mpsc::unbounded_channel();
            let telling = Telling {
                responder: Arc::clone(&responder),
                courier,
                identities: Identities::default(),
                sent: HashSet::new(),
                silent: HashSet::new(),
            };
            tasks.spawn(telling.tell(told));
            tell
        });
        if tell.is_some() || effects.is_some() {
            let following = Following {
                changes: responder.changes(),
                targets,
                calendar: Calendar::default(),
                effects: effects.map(Arc::new),
                running: JoinSet::new(),
                running_on: HashMap::new(),
                down: Vec::new(),
                tell,
                report: Arc::clone(&report),
            };
            tasks.spawn(following.follow(stopped));
        }
        Self {
            report,
            stop,
            tasks,
        }
    }

    pub fn report(&self) -> &Arc<Report> {
        &self.report
    }

    /// Undoes what can be undone, and lets the last events be delivered, for a while.
    pub async fn end(self) {
        let Self {
            report,
            stop,
            mut tasks,
        } = self;
        drop(stop);
        while tasks.join_next().await.is_some() {}
        if let Some(courier) = &report.courier {
            courier.finish(LAST_EVENTS).await;
        }
    }
}

/// Events of which it is remembered that they were sent.
const MOST_REMEMBERED: usize = 4_096;

/// Something of which an event is to be sent.
struct News {
    target: Option<Target>,
    told: Told,
    at: Timestamp,
    until: Timestamp,
}

/// A target whose deadline came.
struct Struck {
    target: Target,
    /// What the notice said.
    action: Action,
    deadline: Timestamp,
}

/// Waits for the occasions, and sees to it that what is due is done.
struct Following {
    changes: watch::Receiver<Waves>,
    targets: Targets,
    calendar: Calendar,
    effects: Option<Arc<Effects>>,
    /// Effects that take their time.
    running: JoinSet<(Struck, anyhow::Result<()>)>,
    /// By their targets, with their deadlines.
    running_on: HashMap<u64, (Timestamp, AbortHandle)>,
    /// Those to whom it is done.
    down: Vec<Struck>,
    tell: Option<mpsc::UnboundedSender<News>>,
    report: Arc<Report>,
}

impl Following {
    async fn follow(mut self, mut stopped: watch::Receiver<()>) {
        self.replace();
        loop {
            for due in self.calendar.due(Timestamp::now()) {
                self.act(due);
            }
            self.tell_of_down();
            let Self {
                changes,
                targets,
                calendar,
                running,
                ..
            } = &mut self;
            tokio::select! {
                Err(_) = stopped.changed() => break,
                Ok(()) = changes.changed() => self.replace(),
                () = changed(targets) => self.replace(),
                () = until(calendar.next()) => {}
                Some(done) = running.join_next() => self.note(done),
            }
        }
        self.end().await;
    }

    fn replace(&mut self) {
        let Self {
            changes,
            targets,
            calendar,
            ..
        } = self;
        let waves = changes.borrow_and_update().clone();
        let ids: Vec<_> = match targets {
            Some(targets) => {
                let targets = targets.borrow_and_update();
                targets.iter().map(|target| Some(target.id())).collect()
            }
            None => vec![None],
        };
        let others = calendar.replace(&waves, ids.iter().copied(), Timestamp::now());
        for target in others {
            self.lift(target);
        }
        // One that is gone may be so because of its effect, which is about to be done.
        let Self {
            running_on, report, ..
        } = self;
        let over = |target: &u64| !ids.contains(&Some(*target)) && !running_on.contains_key(target);
        let gone: Vec<_> = report.effects().keys().copied().filter(over).collect();
        for target in gone {
            self.lift(target);
        }
    }

    /// What was done to a target goes with what announced it.
    fn lift(&mut self, target: u64) {
        let Self {
            effects,
            running_on,
            report,
            ..
        } = self;
        if let Some((_, running)) = running_on.remove(&target) {
            running.abort();
        }
        if report.effects().remove(&target).is_some()
            && let Some(effects) = effects
        {
            effects.lift(target);
        }
    }

    fn act(&mut self, due: Due) {
        let Due {
            target: id,
            at,
            occasion,
            until,
            missed,
        } = due;
        let target = self.targets.as_ref().and_then(|targets| {
            let targets = targets.borrow();
            targets.iter().find(|there| Some(there.id()) == id).cloned()
        });
        if let Occasion::Deadline(action) = occasion {
            // Of an instance that goes on nothing is told.
            let (Some(target), Some(effects), false) = (&target, &self.effects, missed) else {
                return;
            };
            let effects = Arc::clone(effects);
            let struck = Struck {
                target: target.clone(),
                action,
                deadline: at,
            };
            self.strike(struck, effects);
        }
        self.tell(target, Told::Occasion(occasion), at, until);
    }

    /// Begins to do to a target what is done at its deadline.
    fn strike(&mut self, struck: Struck, effects: Arc<Effects>) {
        let Self {
            running,
            running_on,
            report,
            ..
        } = self;
        let Struck {
            target, deadline, ..
        } = &struck;
        info!("the deadline of {target} is here");
        let (id, deadline) = (target.id(), *deadline);
        let since = Timestamp::now();
        report.note(id, EffectState::UnderWay { since });
        let handle = running.spawn(async move {
            let result = effects.apply(&struck.target).await;
            (struck, result)
        });
        running_on.insert(id, (deadline, handle));
    }

    /// An effect is done, or has failed.
    fn note(&mut self, done: Result<(Struck, anyhow::Result<()>), JoinError>) {
        let Self {
            running_on,
            down,
            report,
            effects,
            ..
        } = self;
        let (struck, result) = match done {
            Ok(done) => done,
            // It was lifted.
            Err(error) if error.is_cancelled() => return,
            Err(error) => return warn!("an effect at a deadline: {error}"),
        };
        let Struck { target, .. } = &struck;
        if running_on.remove(&target.id()).is_none() {
            // It was lifted, but too late to keep it from being done.
            if let Some(effects) = effects {
                effects.lift(target.id());
            }
            return;
        }
        match result {
            Ok(()) => {
                let at = Timestamp::now();
                report.note(target.id(), EffectState::Done { at });
                down.push(struck);
            }
            Err(error) => {
                let error = format!("{error:#}");
                warn!("at the deadline of {target}: {error}");
                report.note(target.id(), EffectState::Failed { error });
            }
        }
    }

    /// Targets with the same deadline may share an instance, which is down when all of them are.
    fn tell_of_down(&mut self) {
        let Self {
            running_on, down, ..
        } = self;
        let waits = |struck: &Struck| running_on.values().any(|(at, _)| *at == struck.deadline);
        let (waiting, told) = take(down).into_iter().partition::<Vec<_>, _>(waits);
        *down = waiting;
        let at = Timestamp::now();
        for Struck { target, action, .. } in told {
            self.tell(Some(target), Told::Down(action), at, at);
        }
    }

    fn tell(&self, target: Option<Target>, told: Told, at: Timestamp, until: Timestamp) {
        let Self { tell, .. } = self;
        if let Some(tell) = tell {
            let within = SignedDuration::try_from(DELIVERED_WITHIN).unwrap_or_default();
            let later = at.checked_add(within).unwrap_or(at);
            let until = if until > at { until } else { later };
            // Whoever listens does so until this is dropped.
            let _ = tell.send(News {
                target,
                told,
                at,
                until,
            });
        }
    }

    /// What ended by an effect just now is told of; what is under way is left at that.
    async fn end(mut self) {
        let noticed = async {
            while let Some(done) = self.running.join_next().await {
                self.note(done);
                self.tell_of_down();
            }
        };
        if timeout(NOTICED_WITHIN, noticed).await.is_err() {
            debug!("what is done at the deadline is given up");
        }
    }
}

/// Makes events of the news, and hands them over.
struct Telling {
    responder: Arc<Responder>,
    courier: Arc<Courier>,
    identities: Identities,
    /// Of each instance what was told, and when that was: its targets share an event.
    sent: HashSet<(String, Told, Timestamp)>,
    /// Why instances are not known, which has been reported.
    silent: HashSet<String>,
}

impl Telling {
    async fn tell(mut self, mut news: mpsc::UnboundedReceiver<News>) {
        while let Some(news) = news.recv().await {
            self.send(news).await;
        }
    }

    async fn send(&mut self, news: News) {
        let Self {
            responder,
            courier,
            identities,
            sent,
            silent,
        } = self;
        let News {
            target,
            told,
            at,
            until,
        } = news;
        let identity = match identities.of(target.as_ref(), responder).await {
            Ok(identity) => identity,
            Err(error) => {
                let why = format!("no event is sent: the instance is not known: {error:#}");
                if silent.insert(why.clone()) {
                    warn!("{why}");
                }
                return;
            }
        };
        if sent.len() >= MOST_REMEMBERED {
            sent.clear();
        }
        if let Some(event) = Event::of(&told, &identity, at)
            && sent.insert((identity.instance, told, at))
        {
            courier.send(Arc::new(event), until);
        }
    }
}

/// Waits until other targets are there.
async fn changed(targets: &mut Targets) {
    match targets {
        Some(targets) => {
            if targets.changed().await.is_err() {
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}

/// Waits until a time, or a part of that if it is far.
async fn until(at: Option<Timestamp>) {
    let Some(at) = at else {
        return std::future::pending().await;
    };
    let left = at.duration_since(Timestamp::now());
    let left = Duration::try_from(left).unwrap_or_default();
    sleep(left.min(LONGEST_WAIT)).await;
}
