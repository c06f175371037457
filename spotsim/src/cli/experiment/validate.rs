//! `spotsim experiment validate`: what is wrong with a template, or what it comes to.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use log::LevelFilter;

use super::{TEMPLATES, TemplateFile, start_log, warn_of_ignored};
use crate::{
    cli::{
        Exit, print,
        table::{length, plain, table},
    },
    experiment::{Kind, Progress, State, Surroundings, Template, Transition, What},
};

#[derive(Args)]
#[command(after_help = TEMPLATES)]
pub struct Validate {
    #[command(flatten)]
    template: TemplateFile,
}

impl Validate {
    pub fn run(self) -> Result<Exit> {
        start_log(LevelFilter::Warn)?;
        let template = self.template.read()?;
        warn_of_ignored(&template);
        let (rows, state) = rehearse(&template);
        print(table(["AFTER", "WHAT"], &rows))?;
        Ok(match state {
            State::Completed => Exit::Done,
            _ => Exit::Failed,
        })
    }
}

/// What happens when, if something is found for every target, and how it ends.
fn rehearse(template: &Template) -> (Vec<[String; 2]>, State) {
    let began = Timestamp::UNIX_EPOCH;
    let row = |at: Timestamp, what: String| {
        let after = at.duration_since(began).as_secs();
        [format!("+{}", length(after)), plain(&what)]
    };
    let mut found = BTreeMap::new();
    for (id, name) in (0..).zip(template.targets.keys()) {
        found.insert(name.clone(), vec![id]);
    }
    let around = Surroundings {
        present: found.values().flatten().copied().collect(),
        settled: true,
    };
    let mut progress = Progress::new(template);
    let mut rows = Vec::new();
    let mut now = began;
    let changes = [progress.initiate(now), progress.start(&found, now)];
    let mut happened: Vec<Transition> = changes
        .into_iter()
        .flat_map(|change| change.transitions)
        .collect();
    loop {
        happened.extend(progress.advance(&around, now).transitions);
        for transition in happened.drain(..) {
            if transition.to != State::Initiating {
                let what = format!("{transition}{}", shown(template, &transition));
                rows.push(row(transition.time, what));
            }
        }
        let Some(next) = progress.next(now) else {
            return (rows, progress.state());
        };
        now = next.at;
        if matches!(next.what, What::Deadline(_)) {
            rows.push(row(now, next.what.to_string()));
        }
    }
}

/// What IMDS shows from then on.
fn shown(template: &Template, transition: &Transition) -> &'static str {
    let action = transition.action.as_ref();
    let action = action.and_then(|name| template.actions.get(name));
    match (action.map(|action| &action.kind), transition.to) {
        (Some(Kind::Interrupt { .. }), State::Running) => " (rebalance recommendation)",
        (Some(Kind::Interrupt { .. }), State::Completed) => " (notice)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::experiment::Reading;

    #[test]
    fn a_template_comes_to_its_steps() {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/templates/two-in-turn.yaml"
        );
        let template = Template::read(Path::new(file), Reading::default()).unwrap();
        let (rows, state) = rehearse(&template);
        let rows: Vec<_> = rows
            .iter()
            .map(|[after, what]| format!("{after} {what}"))
            .collect();
        assert_eq!(state, State::Completed);
        assert_eq!(
            rows,
            [
                "+0s experiment: running",
                "+0s action interrupt-web: running (rebalance recommendation)",
                "+1m action interrupt-web: completed (notice)",
                "+1m action settle: running",
                "+2m action settle: completed",
                "+2m action interrupt-batch: running (rebalance recommendation)",
                "+2m action interrupt-batch: completed (notice)",
                "+3m deadline of action interrupt-web",
                "+4m deadline of action interrupt-batch",
                "+4m experiment: completed",
            ]
        );
    }
}
