//! What became of an experiment, in a file that is whole at any moment.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{Candidate, Progress, State, Transition};
use crate::{document::shown, instance::Identity, target::Named};

/// A record as it is written: JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// The template as it was given.
    pub template: Value,
    pub state: State,
    /// Why it ended as it did; `None` while it goes on.
    pub exit_reason: Option<String>,
    pub start_time: Timestamp,
    pub end_time: Option<Timestamp>,
    /// With which the same are chosen again.
    pub seed: u64,
    /// Who was found for each target of the template; `None` until they are looked for.
    pub resolved_targets: Option<BTreeMap<String, Vec<ResolvedTarget>>>,
    /// Each action's state.
    pub actions: BTreeMap<String, State>,
    /// In their order.
    pub transitions: Vec<Transition>,
}

/// A workload that was chosen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResolvedTarget {
    /// As `pod default/web-0`.
    pub name: String,
    #[serde(flatten)]
    pub named: Named,
    /// The path as in `/proc/PID/cgroup`.
    pub cgroup: String,
    /// The id and the ARN of the instance that it is on, where its IMDS told.
    pub instance: Option<String>,
    pub arn: Option<String>,
}

impl From<&Candidate> for ResolvedTarget {
    fn from(candidate: &Candidate) -> Self {
        let Candidate {
            target,
            running: _,
            identity,
        } = candidate;
        Self {
            name: target.to_string(),
            named: target.named.clone(),
            cgroup: target.cgroup.path().to_owned(),
            instance: identity.as_ref().map(|it| it.instance.clone()),
            arn: identity.as_ref().map(Identity::arn),
        }
    }
}

impl Record {
    /// Nothing has happened yet.
    pub fn new(template: Value, seed: u64, now: Timestamp) -> Self {
        Self {
            template,
            state: State::Pending,
            exit_reason: None,
            start_time: now,
            end_time: None,
            seed,
            resolved_targets: None,
            actions: BTreeMap::new(),
            transitions: Vec::new(),
        }
    }

    /// These were found.
    pub fn resolved(&mut self, found: &BTreeMap<String, Vec<Candidate>>) {
        let rows = found.iter().map(|(name, candidates)| {
            let candidates = candidates.iter().map(ResolvedTarget::from);
            (name.clone(), candidates.collect())
        });
        self.resolved_targets = Some(rows.collect());
    }

    /// This happened, and the experiment is like this now.
    pub fn note(&mut self, transitions: &[Transition], progress: &Progress) {
        self.state = progress.state();
        let actions = progress.actions();
        self.actions = actions
            .map(|(name, state)| (name.to_owned(), state))
            .collect();
        for transition in transitions {
            if transition.action.is_none() {
                let reason = transition.reason.clone();
                self.exit_reason = reason.or_else(|| self.exit_reason.take());
                if transition.to.is_final() {
                    self.end_time = Some(transition.time);
                    let completed = || "every action is over, and every deadline".to_owned();
                    self.exit_reason.get_or_insert_with(completed);
                }
            }
        }
        self.transitions.extend_from_slice(transitions);
    }

    /// Writes it in place of what was there. Whoever looks, or is left with it, has all of the
    /// one or all of the other.
    pub fn write(&self, file: &Path) -> Result<()> {
        // What is renamed into its place would take that of a device, such as /dev/null, too.
        let there = fs::symlink_metadata(file);
        ensure!(
            there.is_err() || there.is_ok_and(|there| there.is_file()),
            "cannot write the record {}: there is something that is no regular file",
            shown(file)
        );
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let beside = beside(file);
        let written = write_new(&beside, &text).and_then(|()| fs::rename(&beside, file));
        written
            .inspect_err(|_| _ = fs::remove_file(&beside))
            .with_context(|| format!("cannot write the record {}", shown(file)))
    }
}

/// A name in the same directory: from there it can be renamed.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    file.with_file_name(name)
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text)?;
    file.sync_all()
}
