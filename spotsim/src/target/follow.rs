//! Keeps up with what comes and goes: pods that match later, pods that end, units that restart.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    path::PathBuf,
    time::Duration,
};

use jiff::Timestamp;
use log::{debug, info, warn};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Choice, Found, Named, Pods, Target, Watch,
    cri::{Events, RuntimeError},
    kubepods::Roots,
    late::{self, Attached},
};

/// After a change it is looked again after the shorter time, then at growing intervals up to the
/// longer one, which is also how often without a change.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// After a look, so many times as long as it took without another, but no longer than the longer
/// of these times: an event of every health check must not keep the runtime busy with us.
const LOOKS_ARE_RARE: u32 = 9;

/// The same, once a cgroup appeared: its pod may be about to start.
const LOOKS_ARE_URGENT: u32 = 1;

/// Tells who the targets are, as that changes.
pub struct Follower {
    targets: watch::Receiver<Vec<Target>>,
    attached: mpsc::UnboundedSender<Attached>,
    /// It follows.
    task: JoinSet<()>,
    /// It reports pods that were attached late.
    _reporting: JoinSet<()>,
}

impl Follower {
    /// Follows what was chosen, beginning with what was found by then. Must be called in a tokio
    /// runtime.
    pub fn start(choice: Choice, pods: Option<Pods>, found: &Found) -> io::Result<Self> {
        let Found {
            targets: now,
            refused,
        } = found;
        let (targets, followed) = watch::channel(now.clone());
        let (attached, told) = mpsc::unbounded_channel();
        let mut reporting = JoinSet::new();
        // Containers, units and cgroups need no runtime to be followed.
        let pods = pods.filter(|_| choice.may_grow());
        if let Some(pods) = &pods {
            let first = now.iter().filter_map(|target| match &target.named {
                Named::Pod { uid, .. } => Some(uid.clone()),
                _ => None,
            });
            reporting.spawn(late::report(pods.runtime().clone(), told, first.collect()));
        }
        let following = Following {
            choice,
            pods,
            watch: Watch::new()?,
            targets,
            slices: BTreeSet::new(),
            roots: Roots::default(),
            failing: false,
            refused: refused.iter().cloned().collect(),
        };
        let mut task = JoinSet::new();
        task.spawn(following.follow());
        Ok(Self {
            targets: followed,
            attached,
            task,
            _reporting: reporting,
        })
    }

    /// Waits until the targets are others, and returns all of them.
    pub async fn changed(&mut self) -> Vec<Target> {
        let Self { targets, task, .. } = self;
        if targets.changed().await.is_err() {
            // Its task ended of a bug. What is attached stays so. It is told once: then there is
            // no task any more.
            if let Some(ended) = task.join_next().await {
                warn!("targets are not followed any more, start spotsim again: {ended:?}");
            }
            std::future::pending::<()>().await;
        }
        targets.borrow_and_update().clone()
    }

    /// Is told that a target is attached, now.
    pub fn attached(&self, target: &Target) {
        let Self { attached, .. } = self;
        if let Named::Pod { uid, .. } = &target.named {
            // Without a runtime nobody listens.
            let _ = attached.send(Attached {
                name: target.to_string(),
                uid: uid.clone(),
                at: Timestamp::now(),
            });
        }
    }
}

struct Following {
    choice: Choice,
    pods: Option<Pods>,
    watch: Watch,
    targets: watch::Sender<Vec<Target>>,
    /// Those that units were in: a unit that ended comes back there.
    slices: BTreeSet<PathBuf>,
    roots: Roots,
    /// Whether the runtime fails, which has been reported.
    failing: bool,
    /// Pods that match and cannot be targets, which has been reported.
    refused: HashSet<String>,
}

impl Following {
    async fn follow(mut self) {
        let (soon, late) = LOOK_AGAIN;
        let mut pause = soon;
        let mut ask_again = soon;
        let mut events = self.pods.as_ref().map(|pods| pods.runtime().events());
        let (mut ended, mut took) = (Instant::now(), Duration::ZERO);
        let mut rarely = LOOKS_ARE_URGENT;
        self.watch_places();
        loop {
            let Self { watch, .. } = &mut self;
            tokio::select! {
                changed = watch.changed() => {
                    match changed {
                        Ok(true) => rarely = LOOKS_ARE_URGENT,
                        Ok(false) => {}
                        Err(error) => {
                            warn!("cannot watch cgroups: {error}");
                            sleep(late).await;
                        }
                    }
                    pause = soon;
                }
                told = next(&mut events) => match told {
                    Ok(true) => (pause, ask_again) = (soon, soon),
                    // Such a runtime is looked at by the clock.
                    Ok(false) => events = None,
                    Err(error) => {
                        debug!("no more events: {error}");
                        // One that is down for long must not keep us busy.
                        sleep(ask_again).await;
                        ask_again = (ask_again * 2).min(late);
                    }
                },
                () = sleep(pause) => pause = (pause * 2).min(late),
            }
            sleep_until(ended + (took * rarely).min(late)).await;
            // One look is for all that happened until it began.
            if let Some(events) = &mut events {
                events.drain();
            }
            let began = Instant::now();
            if self.look().await {
                pause = soon;
            }
            self.watch_places();
            (ended, took) = (Instant::now(), began.elapsed());
            if pause == late {
                rarely = LOOKS_ARE_RARE;
            }
        }
    }

    fn watch_places(&mut self) {
        let Self {
            choice,
            watch,
            targets,
            slices,
            roots,
            ..
        } = self;
        let targets = targets.borrow();
        let is_unit = |target: &&Target| matches!(target.named, Named::Unit { .. });
        let units = targets.iter().filter(is_unit);
        slices.extend(units.filter_map(|unit| Some(unit.cgroup.directory().parent()?.to_owned())));
        watch.watch(choice.places(roots).union(slices));
    }

    /// Looks who the targets are now; whether they are others.
    async fn look(&mut self) -> bool {
        let before = self.targets.borrow().clone();
        let found = self.choice.find_again(self.pods.as_mut(), &before).await;
        let Found { targets, refused } = match found {
            Ok(found) => {
                if std::mem::take(&mut self.failing) {
                    info!("the container runtime answers again");
                }
                found
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!("{error}; targets stay as they are until it answers");
                }
                return false;
            }
        };
        for reason in refused
            .iter()
            .filter(|reason| !self.refused.contains(*reason))
        {
            warn!("{reason}");
        }
        self.refused = refused.into_iter().collect();
        self.targets.send_if_modified(|now| {
            let changed = *now != targets;
            *now = targets;
            changed
        })
    }
}

/// Waits for the next event; `false` if there will be none.
async fn next(events: &mut Option<Events>) -> Result<bool, RuntimeError> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}
