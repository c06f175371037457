//! The options that `attach`, `run` and `serve` share.

use anyhow::Result;
use clap::Args;
use log::LevelFilter;

mod announced;
mod behind;
mod effect;
mod events;
mod session;
mod targets;

pub use announced::{Announced, read as read_plan};
pub use behind::Behind;
pub use effect::{Consent, EffectOptions};
pub use events::Events;
pub use session::{RunDir, SessionOptions, Which};
pub use targets::{Candidates, DEFAULT_NAMESPACE, RuntimeOptions, Targets};

use crate::{
    control::Claim,
    timeline::{Plan, Span},
};

/// What is announced, and what happens to everything else.
#[derive(Args)]
#[command(next_help_heading = None)]
pub struct Options {
    /// Announce nothing until `spotsim trigger`
    #[arg(long, conflicts_with = "announced")]
    hold: bool,

    /// End after this long
    #[arg(long = "for", value_name = "DURATION")]
    lasts: Option<Span>,

    #[command(flatten)]
    session: SessionOptions,

    #[command(flatten)]
    pub verbosity: Verbosity,

    // Each has a heading, which goes for what comes after it.
    #[command(flatten)]
    pub upstream: Behind,

    #[command(flatten)]
    announced: Announced,

    #[command(flatten)]
    pub events: Events,
}

impl Options {
    /// What is announced.
    pub fn plan(&self) -> Result<Plan> {
        if self.hold {
            return Ok(Plan::default());
        }
        self.announced.plan()
    }

    /// What is announced, for who has no more than one target.
    pub fn plan_for_one(&self, who: &str) -> Result<Plan> {
        self.announced.for_one(who)?;
        self.plan()
    }

    /// Claims the ID by which it can be controlled. Without one, nobody could end a `--hold`.
    pub fn claim(&self) -> Result<Option<Claim>> {
        self.session.claim(self.hold)
    }

    /// Waits until `--for` is over; for ever without it.
    pub async fn lasts(&self) {
        match self.lasts {
            Some(lasts) => tokio::time::sleep(lasts.duration().unsigned_abs()).await,
            None => std::future::pending().await,
        }
    }
}

/// How much is logged.
#[derive(Args)]
pub struct Verbosity {
    /// Log more; repeat it for still more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Verbosity {
    /// What is to be logged, where `quiet` is without any `-v`.
    pub fn log_level(&self, quiet: LevelFilter) -> LevelFilter {
        let more = usize::from(self.verbose);
        let mut levels = LevelFilter::iter().filter(|level| *level >= quiet);
        levels.nth(more).unwrap_or(LevelFilter::Trace)
    }
}
