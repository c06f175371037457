//! The options that choose targets.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{
    cli::Misuse,
    target::cri::{Runtime, RuntimeError},
    target::{Choice, PodName, Select, Selector},
};

/// The namespace of a selector, and of a pod that is named, without one, as kubectl has it.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What is named, and how many of it.
#[derive(Args)]
#[command(next_help_heading = "Targets")]
pub struct Targets {
    #[command(flatten)]
    candidates: Candidates,

    /// How many of all these, at random; they are chosen once
    #[arg(
        long,
        value_name = "all|count(N)|percent(N)",
        default_value_t,
        hide_default_value = true
    )]
    select: Select,

    /// Choose the same again
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
}

/// Several of them may be given; what several name is chosen once.
#[derive(Args)]
#[command(next_help_heading = "Targets")]
pub struct Candidates {
    /// A pod of this node; repeatable
    #[arg(long = "pod", value_name = "NAMESPACE/NAME")]
    pods: Vec<String>,

    /// Pods with such labels, as kubectl has it: app=web,tier!=db or 'env in (a, b)'
    #[arg(short = 'l', long, value_name = "SELECTOR", allow_hyphen_values = true)]
    selector: Option<Selector>,

    /// The namespace of --selector, and of a --pod without one [default: default]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// --selector goes for all namespaces
    #[arg(short = 'A', long, requires = "selector", conflicts_with = "namespace")]
    all_namespaces: bool,

    /// A container by its ID, or the beginning of it; repeatable
    #[arg(long = "container", value_name = "ID")]
    containers: Vec<String>,

    /// A cgroup: a path as in /proc/PID/cgroup (`/kubepods/…`) or the full directory; repeatable
    #[arg(long = "cgroup", value_name = "PATH")]
    cgroups: Vec<String>,

    /// A unit of the host's systemd; repeatable
    #[arg(long = "unit", value_name = "NAME.service")]
    units: Vec<String>,

    /// The cgroup that a process is in; repeatable
    #[arg(long = "pid", value_name = "PID")]
    processes: Vec<u32>,
}

/// Where the container runtime is.
#[derive(Args)]
pub struct RuntimeOptions {
    /// The container runtime's socket [default: the first that is there of containerd's, CRI-O's
    /// and cri-dockerd's]
    #[arg(long, value_name = "unix:///PATH")]
    runtime_endpoint: Option<String>,

    /// Where the host's file system is mounted, for one who is in a container
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/",
        hide_default_value = true
    )]
    host_root: PathBuf,
}

impl RuntimeOptions {
    pub async fn connect(&self) -> Result<Runtime, RuntimeError> {
        let Self {
            runtime_endpoint,
            host_root,
        } = self;
        Runtime::connect(runtime_endpoint.as_deref(), host_root).await
    }
}

impl Targets {
    /// Whether anything is named.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// What is named, of which there must be something.
    pub fn required(&self) -> Result<Choice> {
        if self.is_empty() {
            return Err(Misuse::error(
                "choose targets: --pod, --selector, --container, --cgroup, --unit or --pid",
            ));
        }
        self.choice()
    }

    /// What is named.
    pub fn choice(&self) -> Result<Choice> {
        let Self {
            candidates,
            select,
            seed,
        } = self;
        let choice = candidates.choice()?;
        if seed.is_some() && *select == Select::All {
            return Err(Misuse::error(
                "--seed goes with --select count(N) or percent(N)",
            ));
        }
        Ok(Choice {
            select: *select,
            seed: seed.unwrap_or_else(|| fastrand::u32(..)).into(),
            ..choice
        })
    }
}

impl Candidates {
    /// Whether anything is named.
    pub fn is_empty(&self) -> bool {
        let Self {
            cgroups,
            pods,
            selector,
            containers,
            processes,
            units,
            namespace: _,
            all_namespaces: _,
        } = self;
        cgroups.is_empty()
            && pods.is_empty()
            && selector.is_none()
            && containers.is_empty()
            && processes.is_empty()
            && units.is_empty()
    }

    /// All that is named.
    pub fn choice(&self) -> Result<Choice> {
        let Self {
            cgroups,
            pods,
            selector,
            namespace,
            all_namespaces,
            containers,
            processes,
            units,
        } = self;
        if namespace.is_some() && selector.is_none() && pods.is_empty() {
            return Err(Misuse::error("--namespace goes with --selector or --pod"));
        }
        let namespace = namespace
            .clone()
            .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        let pods = pods.iter().map(|pod| name(pod, &namespace));
        Ok(Choice {
            cgroups: cgroups.clone(),
            processes: processes.clone(),
            units: units.clone(),
            containers: containers.clone(),
            pods: pods.collect::<Result<_>>()?,
            selector: selector.clone(),
            namespace: (!all_namespaces).then_some(namespace),
            ..Choice::default()
        })
    }
}

/// Reads `NAMESPACE/NAME`, or a name in this namespace.
fn name(pod: &str, namespace: &str) -> Result<PodName> {
    let (namespace, name) = pod.split_once('/').unwrap_or((namespace, pod));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(Misuse::error(format!(
            "--pod {pod:?}: write it as NAMESPACE/NAME"
        )));
    }
    Ok(PodName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}
