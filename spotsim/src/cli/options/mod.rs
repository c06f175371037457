//! The options that `attach`, `run` and `serve` share.

use anyhow::Result;
use clap::Args;
use log::LevelFilter;

mod announced;
mod behind;
mod session;
mod targets;

pub use announced::{Announced, read as read_plan};
use behind::Behind;
use session::SessionOptions;
pub use session::{RunDir, Which};
pub use targets::{DEFAULT_NAMESPACE, RuntimeOptions, Targets};

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

    /// Log more; repeat it for still more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,

    // Each has a heading, which goes for what comes after it.
    #[command(flatten)]
    pub upstream: Behind,

    #[command(flatten)]
    announced: Announced,
}

impl Options {
    /// What is announced.
    pub fn plan(&self) -> Result<Plan> {
        if self.hold {
            return Ok(Plan::default());
        }
        self.announced.plan()
    }

    /// Claims the ID by which it can be controlled. Without one, nobody could end a `--hold`.
    pub fn claim(&self) -> Result<Option<Claim>> {
        self.session.claim(self.hold)
    }

    /// What is to be logged, where `quiet` is without any `-v`.
    pub fn log_level(&self, quiet: LevelFilter) -> LevelFilter {
        let more = usize::from(self.verbose);
        let mut levels = LevelFilter::iter().filter(|level| *level >= quiet);
        levels.nth(more).unwrap_or(LevelFilter::Trace)
    }

    /// Waits until `--for` is over; for ever without it.
    pub async fn lasts(&self) {
        match self.lasts {
            Some(lasts) => tokio::time::sleep(lasts.duration().unsigned_abs()).await,
            None => std::future::pending().await,
        }
    }
}
