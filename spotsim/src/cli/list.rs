//! `spotsim list`: those that run.

use std::io::{self, Write as _};

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    Exit,
    options::RunDir,
    print, runtime,
    table::{announced, plain, table},
};
use crate::{
    control::{Client, Id, Serves, Status, TargetStatus},
    target::Named,
};

#[derive(Args)]
pub struct List {
    /// An array of what `status --json` prints
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    run_dir: RunDir,
}

impl List {
    pub fn run(self) -> Result<Exit> {
        let Self { json, run_dir } = self;
        let directory = run_dir.directory()?;
        let clients = Client::all(&directory)?;
        if clients.is_empty() && !json {
            let mut stderr = io::stderr();
            let path = directory.path().display();
            let _ = writeln!(stderr, "no spotsim is running (looked in {path})");
            return Ok(Exit::Done);
        }
        let answers = runtime()?.block_on(ask(clients));
        if json {
            let all: Vec<_> = answers.into_iter().map(value).collect();
            print(format!("{}\n", serde_json::to_string(&all)?))?;
        } else {
            let now = Timestamp::now();
            let rows: Vec<_> = answers.into_iter().map(|answer| row(answer, now)).collect();
            let heading = ["ID", "VERB", "PID", "TARGETS", "UPSTREAM", "ANNOUNCED"];
            print(table(heading, &rows))?;
        }
        Ok(Exit::Done)
    }
}

type Answer = (Id, Result<Status>);

/// Asks them all at once, in case that some hang.
async fn ask(clients: Vec<Client>) -> Vec<Answer> {
    let mut asking = JoinSet::new();
    for client in clients {
        asking.spawn(async move { (client.id().clone(), client.status().await) });
    }
    let mut answers = asking.join_all().await;
    answers.sort_by(|(one, _), (other, _)| one.cmp(other));
    answers
}

fn value((id, answer): Answer) -> serde_json::Value {
    match answer.and_then(|status| Ok(serde_json::to_value(status)?)) {
        Ok(status) => status,
        Err(error) => json!({ "id": id.as_str(), "error": format!("{error:#}") }),
    }
}

fn row((id, answer): Answer, now: Timestamp) -> [String; 6] {
    let unknown = || "-".to_owned();
    let id = id.to_string();
    match answer {
        Ok(status) => [
            id,
            status.verb.to_string(),
            status.pid.to_string(),
            serves(&status.serves),
            plain(&status.upstream),
            announced(&status, now),
        ],
        Err(error) => [
            id,
            unknown(),
            unknown(),
            unknown(),
            unknown(),
            plain(&format!("{error:#}")),
        ],
    }
}

/// Whom one serves, in a word.
pub fn serves(serves: &Serves) -> String {
    plain(&match serves {
        Serves::Targets(targets) => several(targets),
        Serves::Listen(address) => format!("http://{address}"),
    })
}

/// Targets in few words: paths of cgroups as they are, of many the first.
fn several(targets: &[TargetStatus]) -> String {
    const MOST: usize = 3;
    if targets.is_empty() {
        return "no target yet".to_owned();
    }
    let name = |target: &TargetStatus| match target.named {
        Named::Cgroup => target.cgroup.clone(),
        _ => target.name.clone(),
    };
    let first: Vec<_> = targets.iter().take(MOST).map(name).collect();
    match targets.len().saturating_sub(MOST) {
        0 => first.join(","),
        more => format!("{} and {more} more", first.join(",")),
    }
}
