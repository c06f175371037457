//! `spotsim status`: what a running one announces.

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;

use super::{
    Exit,
    list::serves,
    options::Which,
    print, runtime,
    table::{brief, countdown, plain, table, time},
};
use crate::{
    consequence::EffectState,
    control::{self, Serves},
    emit::Delivery,
    target::Named,
};

#[derive(Args)]
pub struct Status {
    /// As JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    which: Which,
}

impl Status {
    pub fn run(self) -> Result<Exit> {
        let Self { json, which } = self;
        let client = which.find()?;
        let status = runtime()?.block_on(client.status())?;
        print(if json {
            format!("{}\n", serde_json::to_string(&status)?)
        } else {
            text(&status, Timestamp::now())
        })?;
        Ok(Exit::Done)
    }
}

fn text(status: &control::Status, now: Timestamp) -> String {
    let control::Status {
        id,
        verb,
        pid,
        version,
        started,
        experiment,
        upstream,
        held,
        own_clocks,
        steps,
        deadline,
        counts,
        deliveries,
        ..
    } = status;
    let mut text = format!(
        "{}: {verb}, pid {pid}, spotsim {}, since {}\n",
        plain(id),
        plain(version),
        time(*started)
    );
    if let Some(state) = experiment {
        text += &format!("experiment {state}\n");
    }
    text += &format!("serves     {}\n", serves(&status.serves));
    text += &format!("upstream   {}\n", plain(upstream));
    text += &format!(
        "requests   {}: {} faked, {} passed, {} unanswered; {} connects missed\n",
        counts.requests, counts.faked, counts.passed, counts.unanswered, counts.missed_connects
    );
    for delivery in deliveries {
        text += &format!("events     {}\n", delivered(delivery));
    }
    if let Serves::Targets(targets) = &status.serves {
        for target in targets {
            if let Some(state) = &target.effect {
                let name = plain(&target.name);
                text += &format!("effect     {name}: {}\n", effect(state, now));
            }
        }
    }
    if *held {
        return text
            + "announced  nothing: it is held until `spotsim trigger`\n"
            + &targets(status, now);
    }
    if *own_clocks {
        return text + &targets(status, now);
    }
    if let Some(deadline) = deadline {
        text += &format!(
            "deadline   {}, {}\n",
            time(*deadline),
            countdown(*deadline, now)
        );
    }
    let visible = status.visible(now);
    let is_now = |step: &control::Change| {
        visible
            .iter()
            .any(|item| item.path == step.path && item.since == step.at)
    };
    let rows: Vec<_> = steps
        .iter()
        .map(|step| {
            let value = step.value.as_deref().unwrap_or("(taken back)");
            let when = match (step.at > now, is_now(step)) {
                (true, _) => countdown(step.at, now),
                (false, true) => "now".to_owned(),
                (false, false) => "over".to_owned(),
            };
            [when, time(step.at), plain(&step.path), brief(value)]
        })
        .collect();
    text + "\n" + &table(["WHEN", "TIME", "PATH", "VALUE"], &rows) + &targets(status, now)
}

/// How it is with a sink, in a line.
fn delivered(delivery: &Delivery) -> String {
    let Delivery {
        sink,
        delivered,
        failed,
        pending,
        error,
    } = delivery;
    let mut text = format!(
        "{}: {delivered} delivered, {failed} failed, {pending} pending",
        plain(sink)
    );
    if let Some(error) = error {
        text += &format!("; last: {}", plain(error));
    }
    text
}

/// How far it is with what is done to a target at its deadline.
fn effect(effect: &EffectState, now: Timestamp) -> String {
    match effect {
        EffectState::UnderWay { since } => format!("began {}", countdown(*since, now)),
        EffectState::Done { at } => format!("done {}", countdown(*at, now)),
        EffectState::Failed { error } => format!("failed: {}", plain(error)),
    }
}

/// The targets, each with its own times; nothing where the line above has said it all.
fn targets(status: &control::Status, now: Timestamp) -> String {
    let Serves::Targets(targets) = &status.serves else {
        return String::new();
    };
    if !status.own_clocks && targets.iter().all(|target| target.named == Named::Cgroup) {
        return String::new();
    }
    let when = |time: Option<Timestamp>| match time {
        Some(time) => countdown(time, now),
        None => "-".to_owned(),
    };
    let rows: Vec<_> = targets
        .iter()
        .map(|target| {
            [
                plain(&target.name),
                when(target.notice),
                when(target.deadline),
                when(target.next),
                plain(&target.cgroup),
            ]
        })
        .collect();
    "\n".to_owned() + &table(["TARGET", "NOTICE", "DEADLINE", "NEXT", "CGROUP"], &rows)
}
