//! An experiment under way: announces what it has to when it is time, and keeps the record.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use anyhow::Result;
use jiff::Timestamp;
use log::warn;
use tokio::{sync::watch, time::sleep};

use super::{
    Candidate, IfEmpty, Next, Progress, Record, State, Template, Transition,
    progress::{Announcement, Change, Surroundings},
    resolve,
};
use crate::{
    document::printable,
    responder::Responder,
    target::{Select, Target},
    timeline::Plan,
};

/// It is looked at so often at least, and whoever watches is told.
const TICK: Duration = Duration::from_secs(1);

/// Is told how it goes.
pub trait Observer {
    /// This happened, one after the other; then this comes next.
    fn happened(&mut self, transitions: &[Transition], next: Option<Next>);

    /// It goes on, which is told each second.
    fn goes_on(&mut self, progress: &Progress);
}

/// An experiment under way.
pub struct Conduct<O> {
    template: Template,
    progress: Progress,
    record: Record,
    /// Where the record is kept.
    file: Option<PathBuf>,
    observer: O,
    state: watch::Sender<State>,
}

impl<O: Observer> Conduct<O> {
    /// An experiment that is pending. Its record, if one is to be kept, is there from now on.
    pub fn new(template: Template, seed: u64, file: Option<PathBuf>, observer: O) -> Result<Self> {
        let progress = Progress::new(&template);
        let mut record = Record::new(template.given.clone(), seed, Timestamp::now());
        record.note(&[], &progress);
        if let Some(file) = &file {
            record.write(file)?;
        }
        Ok(Self {
            template,
            progress,
            record,
            file,
            observer,
            state: watch::Sender::new(State::Pending),
        })
    }

    pub fn state(&self) -> State {
        self.progress.state()
    }

    /// How far it is, to be watched.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// It begins to be prepared.
    pub fn initiate(&mut self) {
        let change = self.progress.initiate(Timestamp::now());
        self.note(&change.transitions);
    }

    /// Who its targets are, of these. Where a target has none, it may have failed.
    pub fn resolve(&mut self, candidates: &[Candidate]) -> BTreeMap<String, Vec<Candidate>> {
        let Self {
            template, record, ..
        } = self;
        let found = resolve(&template.used_targets(), candidates, record.seed);
        for (name, scope) in template.used_targets() {
            let taken = found[name].len();
            if let Select::Count(count) = scope.select
                && (1..count.get() as usize).contains(&taken)
            {
                let (name, select) = (printable(name), scope.select);
                warn!("target {name}: only {taken} match where {select} was wanted; all are taken");
            }
        }
        self.record.resolved(&found);
        let empty = found.iter().find(|(_, candidates)| candidates.is_empty());
        if let (IfEmpty::Fail, Some((name, _))) = (self.template.if_empty, empty) {
            self.fail(format!("target {}: nothing matches", printable(name)));
        }
        found
    }

    /// Leaves every action out.
    pub fn skip(&mut self) {
        let change = self.progress.skip(Timestamp::now());
        self.note(&change.transitions);
    }

    /// It cannot go on.
    pub fn fail(&mut self, reason: String) {
        let change = self.progress.fail(reason, Timestamp::now());
        self.note(&change.transitions);
    }

    /// It is stopped before anything was announced.
    pub fn stop(&mut self, reason: &str) {
        let change = self.progress.stop(reason, Timestamp::now());
        self.note(&change.transitions);
        let change = self.progress.stopped(Timestamp::now());
        self.note(&change.transitions);
    }

    /// Starts, with these targets.
    pub fn start(&mut self, found: &BTreeMap<String, Vec<Candidate>>) {
        let ids = found.iter().map(|(name, candidates)| {
            let ids = candidates.iter().map(|candidate| candidate.target.id());
            (name.clone(), ids.collect())
        });
        let change = self.progress.start(&ids.collect(), Timestamp::now());
        self.note(&change.transitions);
    }

    /// Goes on to the end, or until it is to halt for some reason. What is announced is withdrawn
    /// then, unless it is completed. It is not over before all is done to a target that is to be
    /// done at its deadline.
    pub async fn run(
        &mut self,
        responder: &Responder,
        targets: &watch::Receiver<Vec<Target>>,
        is_done: impl Fn(u64) -> bool,
        halt: impl Future<Output = String>,
    ) {
        let mut halt = pin!(halt);
        loop {
            self.advance(responder, targets, &is_done);
            if self.state().is_final() {
                return;
            }
            self.observer.goes_on(&self.progress);
            tokio::select! {
                reason = &mut halt => return self.halt(&reason, responder),
                () = sleep(self.pause()) => {}
            }
        }
    }

    /// None of its targets is there any more: it has failed, unless it was over anyway.
    pub fn targets_gone(&mut self, responder: &Responder, targets: &watch::Receiver<Vec<Target>>) {
        self.advance(responder, targets, &|_| true);
        self.fail("none of its targets is there any more".to_owned());
    }

    fn advance(
        &mut self,
        responder: &Responder,
        targets: &watch::Receiver<Vec<Target>>,
        is_done: &dyn Fn(u64) -> bool,
    ) {
        let present: HashSet<_> = targets.borrow().iter().map(Target::id).collect();
        let mut interrupted = self.progress.interrupted();
        let around = Surroundings {
            // To one that is gone nothing can be done.
            settled: interrupted.all(|id| !present.contains(&id) || is_done(id)),
            present,
        };
        drop(interrupted);
        let Change {
            transitions,
            announcements,
        } = self.progress.advance(&around, Timestamp::now());
        if self.state() == State::Failed {
            withdraw(responder);
        } else {
            for announcement in announcements {
                let Announcement {
                    action: _,
                    plan,
                    at,
                    targets,
                } = announcement;
                // It was armed before, at the same time.
                let _ = responder.announce(&plan, at, Some(&targets));
            }
        }
        self.note(&transitions);
    }

    fn halt(&mut self, reason: &str, responder: &Responder) {
        let change = self.progress.stop(reason, Timestamp::now());
        self.note(&change.transitions);
        withdraw(responder);
        let change = self.progress.stopped(Timestamp::now());
        self.note(&change.transitions);
    }

    /// Until something is due, or a tick.
    fn pause(&self) -> Duration {
        let now = Timestamp::now();
        let due = self
            .progress
            .next(now)
            .map(|next| next.at.duration_since(now));
        // Not a moment before: then nothing would be due yet.
        let due = due.map(|due| due.unsigned_abs() + Duration::from_millis(1));
        due.map_or(TICK, |due| due.min(TICK))
    }

    /// Tells and records what happened.
    fn note(&mut self, transitions: &[Transition]) {
        let Self {
            progress,
            record,
            file,
            observer,
            state,
            template: _,
        } = self;
        if transitions.is_empty() {
            return;
        }
        state.send_replace(progress.state());
        record.note(transitions, progress);
        if let Some(file) = file
            && let Err(error) = record.write(file)
        {
            log::warn!("{error:#}");
        }
        observer.happened(transitions, progress.next(Timestamp::now()));
    }
}

fn withdraw(responder: &Responder) {
    // Nothing can always be announced.
    let _ = responder.announce(&Plan::default(), Timestamp::now(), None);
}
