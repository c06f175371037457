//! `spotsim trigger`, `cancel` and `detach`: have a running one do something.

use anyhow::Result;
use clap::Args;

use super::{
    Exit,
    options::{Announced, Which},
    print, runtime,
    table::plain,
};
use crate::control::Status;

#[derive(Args)]
pub struct Trigger {
    #[command(flatten)]
    which: Which,

    // Last, because its heading goes for what comes after it.
    #[command(flatten)]
    announced: Announced,
}

#[derive(Args)]
pub struct Cancel {
    #[command(flatten)]
    which: Which,
}

#[derive(Args)]
pub struct Detach {
    #[command(flatten)]
    which: Which,
}

impl Trigger {
    pub fn run(self) -> Result<Exit> {
        let Self { which, announced } = self;
        let plan = announced.plan()?;
        let client = which.find()?;
        let status = runtime()?.block_on(client.trigger(&plan))?;
        say(&status, &status.timeline)
    }
}

impl Cancel {
    pub fn run(self) -> Result<Exit> {
        let Self { which } = self;
        let client = which.find()?;
        let status = runtime()?.block_on(client.cancel())?;
        say(&status, &status.timeline)
    }
}

impl Detach {
    pub fn run(self) -> Result<Exit> {
        let Self { which } = self;
        let client = which.find()?;
        let status = runtime()?.block_on(client.detach())?;
        say(&status, "detached")
    }
}

fn say(status: &Status, what: &str) -> Result<Exit> {
    print(format!("{}: {}\n", plain(&status.id), plain(what)))?;
    Ok(Exit::Done)
}
