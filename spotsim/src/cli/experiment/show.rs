//! What is shown of an experiment: its targets, and how it goes.

use std::{collections::BTreeMap, io::IsTerminal as _};

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cli::{
        log as log_to, print,
        table::{countdown, plain, table, time},
    },
    experiment::{Candidate, Next, Observer, Progress, ResolvedTarget, State, Transition},
};

/// Prints who was found for each target: a table, or an array of objects.
pub fn targets(found: &BTreeMap<String, Vec<Candidate>>, json: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Row<'a> {
        /// The target's name in the template.
        target: &'a str,
        #[serde(flatten)]
        resolved: ResolvedTarget,
    }

    let rows = found.iter().flat_map(|(target, candidates)| {
        candidates.iter().map(|candidate| Row {
            target,
            resolved: candidate.into(),
        })
    });
    let rows: Vec<_> = rows.collect();
    if json {
        print(format!("{}\n", serde_json::to_string(&rows)?))?;
        return Ok(());
    }
    let cells = rows.iter().map(|Row { target, resolved }| {
        let instance = resolved.instance.as_deref().unwrap_or("-");
        [*target, &resolved.name, instance, &resolved.cgroup].map(plain)
    });
    let heading = ["TARGET", "WORKLOAD", "INSTANCE", "CGROUP"];
    print(table(heading, &cells.collect::<Vec<_>>()))?;
    Ok(())
}

/// Prints what happens, and on a terminal keeps a line of how it is below that.
pub struct Teller {
    /// On standard error too, where standard output is for something else.
    is_aside: bool,
    /// On standard error, so that standard output has what happened alone.
    is_live: bool,
}

impl Teller {
    pub fn new(is_aside: bool) -> Self {
        Self {
            is_aside,
            is_live: std::io::stderr().is_terminal(),
        }
    }

    fn clear(&self) {
        if self.is_live {
            log_to::keep(String::new());
        }
    }
}

impl Observer for Teller {
    fn happened(&mut self, transitions: &[Transition], next: Option<Next>) {
        let last = transitions.len().saturating_sub(1);
        let is_over = |it: &Transition| it.action.is_none() && it.to.is_final();
        if transitions.iter().any(is_over) {
            self.clear();
        }
        for (index, transition) in transitions.iter().enumerate() {
            let mut line = format!("{}  {transition}", time(transition.time));
            if index == last
                && let Some(Next { at, what }) = &next
            {
                line += &format!("; next: {what} {}", countdown(*at, Timestamp::now()));
            }
            match self.is_aside {
                true => log_to::say(line),
                false => log_to::print(line),
            }
        }
    }

    fn goes_on(&mut self, progress: &Progress) {
        if !self.is_live {
            return;
        }
        // Some terminals do not tell.
        let width = match crossterm::terminal::size() {
            Ok((width @ 2.., _)) => usize::from(width),
            _ => 80,
        };
        let line = line(progress, Timestamp::now());
        log_to::keep(line.chars().take(width - 1).collect());
    }
}

/// Nothing is left of the line in a terminal that is used on.
impl Drop for Teller {
    fn drop(&mut self) {
        self.clear();
    }
}

/// How it is, in a line.
fn line(progress: &Progress, now: Timestamp) -> String {
    let running = progress
        .actions()
        .filter(|(_, state)| *state == State::Running);
    let names: Vec<_> = running.map(|(name, _)| plain(name)).collect();
    let mut line = format!("experiment {}", progress.state());
    match &names[..] {
        [] => {}
        [one] => line += &format!("; action {one}"),
        several => line += &format!("; actions {}", several.join(", ")),
    }
    if let Some(Next { at, what }) = progress.next(now) {
        line += &format!("; {} {}", plain(&what.to_string()), countdown(at, now));
    }
    line
}
