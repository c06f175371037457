//! What is done to a target at its deadline.
//!
//! - `vital`: to whom it is never done.
//! - `ending`: SIGTERM and SIGKILL.
//! - `freeze`, `record`: the freezer, and how a killed spotsim leaves nothing frozen.
//! - `files`, `process`: what is known of a cgroup and of a process.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use nix::unistd::{AccessFlags, access};
use tokio::sync::watch;

use crate::{
    intercept::{Cut, Links},
    target::Target,
    timeline::{Span, written::words},
};

mod ending;
mod files;
mod freeze;
mod process;
mod record;
mod vital;

use files::Files;
use freeze::Frozen;
pub use process::Process;
use record::Records;
pub use record::thaw_what_was_left;
pub use vital::{Vital, check};

words! {
    /// What is done at the deadline.
    "effect": pub enum AtDeadline {
        /// Nothing: only what IMDS shows tells of it.
        None = "none",
        /// SIGTERM, and SIGKILL to those that are left after a grace.
        Term = "term",
        /// SIGKILL.
        Kill = "kill",
        /// The cgroup is frozen, until spotsim ends.
        Freeze = "freeze",
        /// The network is cut, until spotsim ends.
        Cut = "cut",
    }
}

impl AtDeadline {
    /// Whether it can be done to a target: its cgroup can be written to.
    ///
    /// # Errors
    ///
    /// If it cannot, as in a container that has the hierarchy read-only.
    pub fn check(self, target: &Target) -> Result<()> {
        let file = match self {
            Self::Term | Self::Kill => "cgroup.kill",
            Self::Freeze => "cgroup.freeze",
            // A link needs no file.
            Self::None | Self::Cut => return Ok(()),
        };
        let path = target.cgroup.directory().join(file);
        access(&path, AccessFlags::W_OK).with_context(|| {
            format!(
                "cannot write {file} of {target}, as --at-deadline {self} does; mount the host's \
                 cgroup hierarchy writable"
            )
        })
    }
}

/// Does it. To drop the last clone undoes what can be undone.
#[derive(Clone)]
pub struct Effects(Arc<Inner>);

struct Inner {
    what: How,
    /// What is to be undone, by targets; `None` for one that is never to be frozen again.
    held: Mutex<HashMap<u64, Option<Held>>>,
    strikes: watch::Sender<Vec<Strike>>,
}

/// How it is done.
enum How {
    Term(Duration),
    Kill,
    Freeze(Records),
    Cut(Cut),
}

/// What was done and can be undone: to drop it undoes it.
#[expect(dead_code, reason = "held to be dropped")]
enum Held {
    Frozen(Frozen),
    Cut(Links),
}

/// A target's deadline came while processes were in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// The target's id.
    pub target: u64,
    pub at: Timestamp,
    /// Those that were there.
    pub processes: Vec<Process>,
}

impl Effects {
    /// Prepares everything, so that what cannot work is an error before anything is attached.
    /// `None` if nothing is to be done.
    pub fn prepare(what: AtDeadline, grace: Span) -> Result<Option<Self>> {
        let what = match what {
            AtDeadline::None => return Ok(None),
            AtDeadline::Term => How::Term(grace.duration().unsigned_abs()),
            AtDeadline::Kill => How::Kill,
            AtDeadline::Freeze => How::Freeze(Records::prepare()?),
            AtDeadline::Cut => How::Cut(Cut::load()?),
        };
        Ok(Some(Self(Arc::new(Inner {
            what,
            held: Mutex::default(),
            strikes: watch::Sender::default(),
        }))))
    }

    /// Refuses a target to which it must not be done, because of who is in it now.
    pub fn check(&self, target: &Target) -> Result<(), Vital> {
        check(target)
    }

    /// Does it, and returns when it is done: no process is left, all are frozen, the network is
    /// cut. Nothing is done to a target that is gone. To drop the future of `term` leaves it at
    /// SIGTERM.
    pub async fn apply(&self, target: &Target) -> Result<()> {
        let Self(inner) = self;
        let Inner {
            what,
            held,
            strikes,
        } = &**inner;
        let processes = Process::all_of(&target.cgroup);
        if !processes.is_empty() {
            let strike = Strike {
                target: target.id(),
                at: Timestamp::now(),
                processes,
            };
            strikes.send_modify(|strikes| strikes.push(strike));
        }
        check(target)?;
        let done = match what {
            How::Term(grace) => return ending::term(target, *grace).await,
            How::Kill => return ending::kill(target).await,
            How::Freeze(records) => Frozen::freeze(records, target).await?.map(Held::Frozen),
            How::Cut(cut) => cut_off(cut, target)?.map(Held::Cut),
        };
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = matches!(held.get(&target.id()), Some(None));
        if done.is_some() && !is_over {
            held.insert(target.id(), done);
        }
        Ok(())
    }

    /// Undoes what was done to the target of this id, if it can be undone.
    pub fn lift(&self, target: u64) {
        let Self(inner) = self;
        let mut held = inner.held.lock().unwrap_or_else(PoisonError::into_inner);
        let before = held.get_mut(&target).and_then(Option::take);
        if before.is_some() {
            held.remove(&target);
        }
        drop(held);
        drop(before);
    }

    /// Thaws a target, if it is frozen or is being, for good: it is asked to end, which it could
    /// not hear.
    pub fn thaw_for_good(&self, target: u64) {
        let Self(inner) = self;
        if let How::Freeze(_) = inner.what {
            let mut held = inner.held.lock().unwrap_or_else(PoisonError::into_inner);
            let before = held.insert(target, None);
            drop(held);
            drop(before);
        }
    }

    /// What it has been done to so far.
    pub fn strikes(&self) -> watch::Receiver<Vec<Strike>> {
        let Self(inner) = self;
        inner.strikes.subscribe()
    }
}

/// `SIGTERM, and SIGKILL after 30s`
impl fmt::Display for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(inner) = self;
        match &inner.what {
            How::Term(grace) => write!(f, "SIGTERM, and SIGKILL after {grace:?}"),
            How::Kill => f.write_str("SIGKILL"),
            How::Freeze(_) => f.write_str("frozen"),
            How::Cut(_) => f.write_str("network cut"),
        }
    }
}

/// Cuts a target's network; `None` if it is gone.
fn cut_off(cut: &Cut, target: &Target) -> Result<Option<Links>> {
    let cannot = || format!("cannot cut the network of {target}");
    let Some(files) = Files::open(&target.cgroup).with_context(cannot)? else {
        return Ok(None);
    };
    cut.attach(&files).map(Some).with_context(cannot)
}
