//! How a run went.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::{
    cli::Exit,
    effect::{Process, Strike},
};

/// What happened to the command, as far as it came.
#[derive(Debug, Default)]
pub struct Course {
    /// When it was started.
    pub started: Option<(Timestamp, Instant)>,
    /// When it had ended.
    pub ended: Option<Instant>,
    pub notice: Option<Timestamp>,
    pub deadline: Option<Timestamp>,
    /// What was done at the deadline, and to whom.
    pub strike: Option<Strike>,
    /// Why it could not be started.
    pub not_started: Option<String>,
}

/// What is to be said of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It ended by itself before the deadline, and says that all is well.
    Passed,
    /// It did not.
    Failed(String),
    /// It never ran, or nobody saw it to its end.
    Error(String),
}

impl Course {
    /// How long the command ran.
    pub fn took(&self) -> Duration {
        let Self { started, ended, .. } = self;
        started.map_or(Duration::ZERO, |(_, began)| {
            ended.unwrap_or_else(Instant::now) - began
        })
    }

    /// The exit code: the command's own, unless it was still there at the deadline.
    pub fn exit(&self, own: Exit) -> Exit {
        match (&self.strike, own) {
            (Some(_), Exit::Command(_)) => Exit::Struck,
            (_, own) => own,
        }
    }

    /// The verdict, where spotsim ends like this.
    pub fn verdict(&self, exit: Result<Exit, &anyhow::Error>) -> Verdict {
        let Self {
            strike,
            not_started,
            ..
        } = self;
        match (exit, not_started, strike) {
            (Err(error), ..) => Verdict::Error(format!("{error:#}")),
            (_, Some(why), _) => Verdict::Error(why.clone()),
            (_, _, Some(strike)) => Verdict::Failed(still_there(strike)),
            (Ok(Exit::Command(0)), ..) => Verdict::Passed,
            (Ok(Exit::Command(code)), ..) => {
                Verdict::Failed(format!("the command ended with exit code {code}"))
            }
            (Ok(exit), ..) => Verdict::Error(format!("the command did not run: {exit:?}")),
        }
    }
}

/// Who was still there.
pub fn still_there(strike: &Strike) -> String {
    let Strike { processes, .. } = strike;
    format!(
        "still running at the deadline: {}",
        Process::list(processes)
    )
}
