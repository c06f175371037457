//! `spotsim pods`: the node's pods, as `attach` would find them.

use std::collections::HashSet;

use anyhow::Result;
use clap::Args;
use log::LevelFilter;
use serde::Serialize;

use super::{
    Exit, log as log_to,
    options::{DEFAULT_NAMESPACE, RuntimeOptions},
    print, runtime,
    table::{plain, table},
};
use crate::{
    effect::{self, Process},
    netns::{self, Namespace},
    target::{Choice, Named, Pods, Resolved, Selector, Target},
};

#[derive(Args)]
pub struct ListPods {
    /// Only those of this namespace [default: with --selector `default`, else all]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Those of all namespaces, with --selector too
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,

    /// Only those with such labels, as attach would choose them
    #[arg(short = 'l', long, value_name = "SELECTOR", allow_hyphen_values = true)]
    selector: Option<Selector>,

    /// As JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    runtime: RuntimeOptions,
}

impl ListPods {
    pub fn run(self) -> Result<Exit> {
        log_to::start(LevelFilter::Warn)?;
        runtime()?.block_on(self.list())
    }

    async fn list(self) -> Result<Exit> {
        let choice = self.choice();
        let mut pods = Pods::new(self.runtime.connect().await?);
        let mut listed = pods.list().await?;
        listed.retain(|pod| pod.ready && choice.selects(&pod.namespace, &pod.labels));
        let resolved = pods.resolve(&listed.iter().collect::<Vec<_>>()).await?;
        let mut rows = Vec::new();
        for (pod, resolved) in listed.into_iter().zip(resolved) {
            match resolved {
                Resolved::Target(target) => rows.push(Row::of(&target)),
                Resolved::Gone => {}
                Resolved::Refused(reason) => {
                    let named = Named::Pod {
                        pod: pod.full_name(),
                        uid: pod.uid,
                        labels: pod.labels,
                        host_network: false,
                    };
                    rows.push(Row::refused(named, reason));
                }
            }
        }
        let none = match self.namespace.is_some() || self.selector.is_some() {
            true => "no such pod runs on this node",
            false => "no pod runs on this node",
        };
        show(&rows, self.json, none)
    }

    /// Those that the same options choose for `attach`; without any, all of the node.
    fn choice(&self) -> Choice {
        let Self {
            namespace,
            all_namespaces,
            selector,
            ..
        } = self;
        let default = selector.as_ref().map(|_| DEFAULT_NAMESPACE.to_owned());
        Choice {
            selector: Some(selector.clone().unwrap_or_default()),
            namespace: namespace.clone().or(default).filter(|_| !all_namespaces),
            ..Choice::default()
        }
    }
}

/// A target, as a row of a table or an object of JSON.
#[derive(Serialize)]
pub struct Row {
    name: String,
    #[serde(flatten)]
    named: Named,
    /// The path as in `/proc/PID/cgroup`; `None` if it is not known.
    cgroup: Option<String>,
    /// The numbers of the network namespaces that its processes are in, as `lsns` shows them.
    network_namespaces: Vec<u64>,
    /// Whether the host's is among them.
    in_host_network: bool,
    /// The processes in it; `None` if nobody wants to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<Vec<Process>>,
    /// Why it cannot be a target; `None` if it can.
    refused: Option<String>,
}

impl Row {
    /// A target as it is now.
    pub fn of(target: &Target) -> Self {
        let (namespaces, _) = target
            .cgroup
            .namespaces(&target.cgroup.directories(), &HashSet::new());
        let host = Namespace::of_init().ok();
        let of_pod = matches!(
            target.named,
            Named::Pod {
                host_network: true,
                ..
            }
        );
        let mut numbers: Vec<_> = namespaces.iter().copied().map(netns::Id::inode).collect();
        numbers.sort_unstable();
        Self {
            name: target.to_string(),
            named: target.named.clone(),
            cgroup: Some(target.cgroup.path().to_owned()),
            in_host_network: of_pod || host.is_some_and(|host| namespaces.contains(&host.id())),
            network_namespaces: numbers,
            processes: None,
            refused: None,
        }
    }

    /// One to which something is to be done at its deadline.
    pub fn with_processes(target: &Target) -> Self {
        let refused = effect::check(target).err();
        Self {
            processes: Some(Process::all_of(&target.cgroup)),
            refused: refused.map(|reason| reason.to_string()),
            ..Self::of(target)
        }
    }

    fn refused(named: Named, reason: String) -> Self {
        Self {
            name: named.describe(""),
            named,
            cgroup: None,
            network_namespaces: Vec::new(),
            in_host_network: false,
            processes: None,
            refused: Some(reason),
        }
    }

    fn processes(&self) -> Option<String> {
        let processes = self.processes.as_deref()?;
        let pids: Vec<_> = processes.iter().map(|one| one.pid.to_string()).collect();
        Some(match pids.is_empty() {
            true => "-".to_owned(),
            false => pids.join(","),
        })
    }

    fn cells(&self) -> [String; 4] {
        let unknown = || "-".to_owned();
        let Self {
            name,
            named,
            cgroup,
            network_namespaces,
            in_host_network,
            processes: _,
            refused: _,
        } = self;
        let uid = match named {
            Named::Pod { uid, .. } => plain(uid),
            _ => unknown(),
        };
        let numbers: Vec<_> = network_namespaces.iter().map(u64::to_string).collect();
        let network = match (numbers.is_empty(), in_host_network) {
            (true, false) => unknown(),
            (true, true) => "host".to_owned(),
            (false, true) => format!("{} (host)", numbers.join(",")),
            (false, false) => numbers.join(","),
        };
        let cgroup = cgroup.clone().unwrap_or_else(unknown);
        [plain(name), uid, network, plain(&cgroup)]
    }
}

/// Processes have a column if anybody wants to know of them.
fn as_table(rows: &[Row]) -> String {
    let heading = ["TARGET", "UID", "NETWORK NAMESPACE", "CGROUP"];
    let cells = rows.iter().map(Row::cells);
    let processes: Option<Vec<_>> = rows.iter().map(Row::processes).collect();
    let Some(processes) = processes else {
        return table(heading, &cells.collect::<Vec<_>>());
    };
    let [target, uid, network, cgroup] = heading;
    let cells = cells.zip(processes);
    let cells = cells.map(|([a, b, c, d], pids)| [a, b, c, d, pids]);
    table(
        [target, uid, network, cgroup, "PIDS"],
        &cells.collect::<Vec<_>>(),
    )
}

/// Prints them.
pub fn show(rows: &[Row], json: bool, none: &str) -> Result<Exit> {
    if json {
        print(format!("{}\n", serde_json::to_string(rows)?))?;
    } else if rows.is_empty() {
        log_to::print(none.to_owned());
    } else {
        let mut text = as_table(rows);
        for reason in rows.iter().filter_map(|row| row.refused.as_deref()) {
            text += &format!("cannot be a target: {}\n", plain(reason));
        }
        print(text)?;
    }
    Ok(Exit::Done)
}
