//! `spotsim trigger`, `cancel` and `detach`: have a running one do something.

use anyhow::{Result, bail};
use clap::Args;

use super::{
    Exit,
    options::{Announced, Targets, Which},
    print, runtime,
    table::plain,
};
use crate::{
    control::{Client, Serves, Status, TargetStatus},
    target::Select,
};

#[derive(Args)]
pub struct Trigger {
    #[command(flatten)]
    which: Which,

    // Each has a heading, which goes for what comes after it.
    #[command(flatten)]
    targets: Targets,

    #[command(flatten)]
    announced: Announced,
}

#[derive(Args)]
pub struct Cancel {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    targets: Targets,
}

#[derive(Args)]
pub struct Detach {
    #[command(flatten)]
    which: Which,
}

impl Trigger {
    pub fn run(self) -> Result<Exit> {
        let Self {
            which,
            targets,
            announced,
        } = self;
        let plan = announced.plan()?;
        let client = which.find()?;
        runtime()?.block_on(async {
            let to = targets.among(&client).await?;
            say(&client.trigger(&plan, &to).await?, &to)
        })
    }
}

impl Cancel {
    pub fn run(self) -> Result<Exit> {
        let Self { which, targets } = self;
        let client = which.find()?;
        runtime()?.block_on(async {
            let to = targets.among(&client).await?;
            say(&client.cancel(&to).await?, &to)
        })
    }
}

impl Detach {
    pub fn run(self) -> Result<Exit> {
        let Self { which } = self;
        let client = which.find()?;
        let status = runtime()?.block_on(client.detach())?;
        print(format!("{}: detached\n", plain(&status.id)))?;
        Ok(Exit::Done)
    }
}

/// Says what is announced now to those in these cgroups, or to everybody.
fn say(status: &Status, to: &[String]) -> Result<Exit> {
    let mut text = String::new();
    let id = plain(&status.id);
    match &status.serves {
        Serves::Targets(targets) if status.own_clocks || !to.is_empty() => {
            let told = |target: &&TargetStatus| to.is_empty() || to.contains(&target.cgroup);
            for TargetStatus { name, timeline, .. } in targets.iter().filter(told) {
                text += &format!("{id}: {}: {}\n", plain(name), plain(timeline));
            }
        }
        _ => text = format!("{id}: {}\n", plain(&status.timeline)),
    }
    print(text)?;
    Ok(Exit::Done)
}

impl Targets {
    /// The cgroups of those of its targets that are chosen; none if nothing was chosen, which
    /// means all.
    async fn among(&self, client: &Client) -> Result<Vec<String>> {
        let choice = self.choice()?;
        let anyone = self.is_empty();
        if anyone && choice.select == Select::All {
            return Ok(Vec::new());
        }
        let Serves::Targets(targets) = client.status().await?.serves else {
            bail!("{}: it has no targets to choose from", client.id());
        };
        // One that is not there would be missed by nobody, if the others were told without it.
        for (option, one) in choice.each() {
            let is_it = |target: &TargetStatus| one.has(&target.named, &target.cgroup);
            if !targets.iter().any(is_it) {
                bail!(
                    "{}: none of its targets is chosen by {option} (see `spotsim status`)",
                    client.id()
                );
            }
        }
        let chosen = |target: &TargetStatus| anyone || choice.has(&target.named, &target.cgroup);
        let matching: Vec<_> = targets.into_iter().filter(chosen).collect();
        if matching.is_empty() {
            bail!("{}: it has no targets (see `spotsim status`)", client.id());
        }
        let key = |target: &TargetStatus| target.cgroup.clone();
        let picked = choice.select.pick(matching, choice.seed, key)?;
        Ok(picked.into_iter().map(|target| target.cgroup).collect())
    }
}
