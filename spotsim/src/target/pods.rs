//! The pods and containers of this node, and their cgroups: the container runtime tells of
//! processes, and these tell where they are.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::{
    sync::OnceCell,
    time::{Duration, Instant},
};

use super::{
    Cgroup, Named, PodName, Target,
    cgroup::TargetError,
    cgroup2_mount, container_of,
    cri::{Container, ContainerState, Network, Pod, Runtime, RuntimeError, at_once},
    kubepods, pod_of,
};
use crate::document::printable;

/// Runtime handlers whose sandboxes are machines of their own, or bring a network stack of their
/// own: what connects in them is no process of this kernel.
const MACHINES: [&str; 5] = ["firecracker", "gvisor", "kata", "runsc", "vm"];

/// One of which the runtime tells nothing holds up whoever waits for it. It is asked again after
/// the shorter time, then at growing intervals up to the longer one.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// Where nobody is any more, somebody may soon be again: a pod whose sandbox died gets another in
/// the same cgroup. So a cgroup in which nothing is stays the pod's own for so long, and a network
/// namespace in which nobody is keeps its listener.
pub const VACANT: Duration = Duration::from_secs(10);

/// The pods of this node. What was found out about a pod's sandbox is remembered.
pub struct Pods {
    runtime: Runtime,
    /// By the sandboxes' IDs.
    known: HashMap<String, Target>,
    /// Those of which the runtime told nothing, by the same.
    silent: HashMap<String, Silent>,
    /// Since when nothing is in the cgroups of pods without a sandbox, by the cgroups' ids.
    vacant: HashMap<u64, Instant>,
}

struct Silent {
    /// Why it cannot be a target.
    why: String,
    ask_again: Instant,
    pause: Duration,
}

/// What became of looking for a pod's cgroup.
#[derive(Clone, Debug)]
pub enum Resolved {
    Target(Target),
    /// It ended meanwhile.
    Gone,
    /// It cannot be a target, for this reason.
    Refused(String),
}

/// The list of containers, asked for when it is first needed.
type Containers = Arc<OnceCell<Vec<Container>>>;

impl Pods {
    /// Those that this runtime knows.
    pub fn new(runtime: Runtime) -> Self {
        Self {
            runtime,
            known: HashMap::new(),
            silent: HashMap::new(),
            vacant: HashMap::new(),
        }
    }

    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// All of them, those too that have ended and are not removed, in the order of their names.
    pub async fn list(&mut self) -> Result<Vec<Pod>, RuntimeError> {
        let Self {
            runtime,
            known,
            silent,
            ..
        } = self;
        let mut pods = runtime.pods().await?;
        pods.sort_by_cached_key(Pod::full_name);
        let listed: HashSet<_> = pods.iter().map(|pod| &pod.id).collect();
        known.retain(|sandbox, _| listed.contains(sandbox));
        silent.retain(|sandbox, _| listed.contains(sandbox));
        Ok(pods)
    }

    /// Finds the pods' own cgroups, each by a process of the pod. The runtime is asked of many at
    /// once: one of which it tells nothing does not hold up the others for long.
    pub async fn resolve(&mut self, pods: &[&Pod]) -> Result<Vec<Resolved>, RuntimeError> {
        let new = pods.iter().filter(|pod| self.remembered(pod).is_none());
        let new: Vec<&Pod> = new.copied().collect();
        let containers = Containers::default();
        let answers = at_once(new.iter().map(|pod| {
            let (pod, containers) = (Pod::clone(pod), Arc::clone(&containers));
            look_up(self.runtime.clone(), pod, containers)
        }));
        let mut found = HashMap::new();
        for (pod, answer) in new.iter().zip(answers.await) {
            found.insert(&pod.id, self.learn(pod, answer)?);
        }
        let resolved = pods.iter().map(|pod| {
            let found = found.get(&pod.id).cloned();
            // What was remembered a moment ago is not if it has ended since.
            found
                .or_else(|| self.remembered(pod))
                .unwrap_or(Resolved::Gone)
        });
        Ok(resolved.collect())
    }

    /// What is known of a pod without asking.
    fn remembered(&self, pod: &Pod) -> Option<Resolved> {
        let Self { known, silent, .. } = self;
        let target = known.get(&pod.id).filter(|target| target.cgroup.exists());
        let silent = || {
            let silent = silent.get(&pod.id)?;
            let waits = Instant::now() < silent.ask_again;
            waits.then(|| Resolved::Refused(silent.why.clone()))
        };
        target.cloned().map(Resolved::Target).or_else(silent)
    }

    /// Remembers what was found out about a pod. What is wrong with one must not keep others from
    /// being followed.
    fn learn(
        &mut self,
        pod: &Pod,
        answer: Result<Resolved, RuntimeError>,
    ) -> Result<Resolved, RuntimeError> {
        let Self { known, silent, .. } = self;
        let before = silent.remove(&pod.id);
        let refused = |error| format!("pod {}: {error}", pod.full_name());
        match answer {
            Ok(Resolved::Target(target)) => {
                known.insert(pod.id.clone(), target.clone());
                Ok(Resolved::Target(target))
            }
            Err(error @ RuntimeError::Silent { .. }) => {
                let (soon, late) = ASK_AGAIN;
                let pause = before.map_or(soon, |before| (before.pause * 2).min(late));
                let why = refused(error);
                let again = Silent {
                    why: why.clone(),
                    ask_again: Instant::now() + pause,
                    pause,
                };
                silent.insert(pod.id.clone(), again);
                Ok(Resolved::Refused(why))
            }
            Err(error @ RuntimeError::Failed { .. }) => Ok(Resolved::Refused(refused(error))),
            answer => answer,
        }
    }

    /// Whether a pod that has no sandbox now still has its cgroup: as long as something is in it,
    /// and for a while after. Its sandbox may be made anew.
    pub fn may_come_back(&mut self, cgroup: &Cgroup) -> bool {
        let Self { vacant, .. } = self;
        if !cgroup.exists() {
            vacant.remove(&cgroup.id());
            return false;
        }
        if cgroup.is_populated() {
            vacant.remove(&cgroup.id());
            return true;
        }
        let since = vacant.entry(cgroup.id()).or_insert_with(Instant::now);
        since.elapsed() < VACANT
    }

    /// Forgets what is known of the cgroups of pods that have no sandbox, but for these.
    pub fn forget_others(&mut self, kept: &[Target]) {
        let Self { vacant, .. } = self;
        vacant.retain(|id, _| kept.iter().any(|target| target.id() == *id));
    }

    /// Finds the own cgroup of the only container that runs and whose ID begins like this.
    pub async fn container(&self, prefix: &str) -> Result<Target> {
        let Self { runtime, .. } = self;
        let containers = runtime.containers().await?;
        let pods = runtime.pods().await?;
        let Some(container) = one_with(prefix, &containers)? else {
            if let Some(pod) = pods.iter().find(|pod| pod.id.starts_with(prefix)) {
                let name = pod.full_name();
                bail!("{prefix} is no container's ID, but that of a sandbox: --pod {name}");
            }
            bail!("no container that runs on this node has an ID that begins with {prefix}");
        };
        let (id, name) = (printable(&container.id), printable(&container.name));
        let ended = || anyhow!("container {name} ({id}) has ended");
        let detail = runtime.container(&container.id).await?.ok_or_else(ended)?;
        let pid = detail.pid.ok_or_else(ended)?;
        let path = Cgroup::path_of(pid).with_context(|| not_here(pid))?;
        let own = container_of(&path, &container.id).with_context(|| {
            format!(
                "container {name} ({id}): its process {pid} is in the cgroup {path}, no part of \
                 which is its own"
            )
        })?;
        let pod = pods.iter().find(|pod| pod.id == container.sandbox);
        Ok(Target {
            cgroup: Cgroup::find(own)?,
            named: Named::Container {
                id: container.id.clone(),
                container: container.name.clone(),
                pod: pod.map(Pod::full_name).ok_or_else(ended)?,
            },
        })
    }
}

impl Pod {
    pub fn full_name(&self) -> PodName {
        PodName {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// Finds a pod's own cgroup.
async fn look_up(
    runtime: Runtime,
    pod: Pod,
    containers: Containers,
) -> Result<Resolved, RuntimeError> {
    let name = pod.full_name();
    let refused = |reason: String| Ok(Resolved::Refused(format!("pod {name}: {reason}")));
    let handler = pod.runtime_handler.to_ascii_lowercase();
    if MACHINES.iter().any(|machine| handler.starts_with(machine)) {
        return refused(format!(
            "its runtime handler is {}: its connections are not made by processes of this \
             kernel, and nothing on its cgroup sees them",
            printable(&handler)
        ));
    }
    let sandbox = match runtime.sandbox(&pod.id).await? {
        Some(sandbox) if sandbox.ready => sandbox,
        _ => return Ok(Resolved::Gone),
    };
    let mut pids: Vec<_> = sandbox.pid.into_iter().collect();
    if pids.is_empty() {
        pids = processes(&runtime, &pod, &containers).await?;
    }
    let path = match place(&pod, &pids) {
        Ok(path) => path,
        // The runtime was asked a moment ago: it may have ended since.
        Err(reason) => {
            return match runtime.sandbox(&pod.id).await? {
                Some(sandbox) if sandbox.ready => refused(reason),
                _ => Ok(Resolved::Gone),
            };
        }
    };
    let cgroup = match Cgroup::find(&path) {
        Ok(cgroup) => cgroup,
        Err(TargetError::ContainsSpotsim { .. }) => {
            return refused(
                "it contains spotsim itself, whose own way to IMDS must stay open".to_owned(),
            );
        }
        Err(error) => return refused(error.to_string()),
    };
    Ok(Resolved::Target(Target {
        cgroup,
        named: Named::Pod {
            pod: name,
            uid: pod.uid,
            labels: pod.labels,
            host_network: sandbox.network == Network::Node,
        },
    }))
}

/// The processes of a pod's containers.
async fn processes(
    runtime: &Runtime,
    pod: &Pod,
    containers: &Containers,
) -> Result<Vec<u32>, RuntimeError> {
    let containers = containers.get_or_try_init(|| runtime.containers()).await?;
    let mut pids = Vec::new();
    for container in containers {
        if container.sandbox == pod.id && container.state == ContainerState::Running {
            let detail = runtime.container(&container.id).await?;
            pids.extend(detail.and_then(|detail| detail.pid));
        }
    }
    Ok(pids)
}

/// The path of a pod's cgroup: a process tells. Only where there is none it is searched for.
fn place(pod: &Pod, pids: &[u32]) -> Result<String, String> {
    let mut reason = None;
    for pid in pids {
        match Cgroup::path_of(*pid) {
            Ok(path) => match pod_of(&path, &pod.uid) {
                Some(own) => return Ok(own.to_owned()),
                None => {
                    reason.get_or_insert(format!(
                        "its process {pid} is in the cgroup {path}, no part of which is the pod's \
                         own (one that no kubelet made?); name a cgroup with --cgroup"
                    ));
                }
            },
            Err(_) => _ = reason.get_or_insert_with(|| not_here(*pid)),
        }
    }
    let searched = || {
        let mount = cgroup2_mount().ok().flatten()?;
        kubepods::find(&mount, &pod.uid)
    };
    match reason {
        Some(reason) => Err(reason),
        None => searched().ok_or_else(|| {
            format!(
                "the runtime tells no process of it, and no cgroup has its uid {}",
                pod.uid
            )
        }),
    }
}

fn not_here(pid: u32) -> String {
    format!(
        "process {pid}, of which the runtime tells, is not to be found: spotsim must be in the \
         host's pid namespace (hostPID: true)"
    )
}

/// The only running container whose ID begins like this; `None` if there is none.
fn one_with<'a>(prefix: &str, containers: &'a [Container]) -> Result<Option<&'a Container>> {
    let running = containers
        .iter()
        .filter(|container| container.state == ContainerState::Running);
    let matching: Vec<_> = running
        .filter(|container| container.id.starts_with(prefix))
        .collect();
    match &matching[..] {
        _ if prefix.is_empty() => bail!("the ID of a container cannot be empty"),
        [one] => Ok(Some(one)),
        [] => Ok(None),
        several => {
            let names: BTreeMap<_, _> = several
                .iter()
                .map(|container| {
                    (
                        container.id.chars().take(13).collect::<String>(),
                        &container.name,
                    )
                })
                .collect();
            let names: Vec<_> = names
                .iter()
                .map(|(id, name)| format!("{}… ({})", printable(id), printable(name)))
                .collect();
            bail!(
                "{prefix} is the beginning of several containers' IDs: {}; give more of it",
                names.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        super::cri::{
            fake::{Fake, Place, Reply},
            message::{PodSandboxStatus, PodSandboxStatusResponse, VersionResponse, path},
        },
        *,
    };

    fn pod(id: &str) -> Pod {
        Pod {
            id: id.to_owned(),
            namespace: "a".to_owned(),
            name: id.to_owned(),
            uid: "no cgroup has it".to_owned(),
            labels: BTreeMap::new(),
            ready: true,
            runtime_handler: String::new(),
        }
    }

    /// A runtime that tells nothing of some sandboxes, and of others that they are ready.
    async fn runtime(place: &Place, hangs: fn(&str) -> bool) -> (Fake, Pods) {
        let fake = Fake::start(place, move |at, question| match at {
            path::VERSION => Reply::message(&VersionResponse::default()),
            path::POD if hangs(&Fake::id(question)) => Reply::never(),
            path::POD => Reply::message(&PodSandboxStatusResponse {
                status: Some(PodSandboxStatus::default()),
                // No process of this system.
                info: [("info".to_owned(), r#"{"pid": 2147483647}"#.to_owned())].into(),
            }),
            _ => Reply::status(12, "unknown method"),
        });
        let runtime = Runtime::connect(Some(place.given()), Path::new("/"));
        (fake, Pods::new(runtime.await.unwrap()))
    }

    fn why(resolved: &Resolved) -> &str {
        match resolved {
            Resolved::Refused(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn one_that_hangs_holds_up_nobody() {
        let place = Place::new();
        let (_fake, mut pods) = runtime(&place, |id| id.starts_with("hangs")).await;
        let all = ["hangs-0", "web-0", "hangs-1", "web-1", "hangs-2"].map(pod);
        let began = Instant::now();
        let resolved = pods.resolve(&all.each_ref()).await.unwrap();
        // A second for all of them, and not for each.
        assert!(
            began.elapsed() < Duration::from_millis(2_500),
            "{:?}",
            began.elapsed()
        );
        for (pod, resolved) in all.iter().zip(&resolved) {
            let why = why(resolved);
            let expected = match pod.id.starts_with("hangs") {
                true => "gave no answer to PodSandboxStatus within 1s",
                false => "is not to be found",
            };
            let of_it = format!("pod a/{}: ", pod.id);
            assert!(why.starts_with(&of_it) && why.contains(expected), "{why}");
        }
        // The next look does not wait for them at all.
        let began = Instant::now();
        let again = pods.resolve(&all.each_ref()).await.unwrap();
        assert!(
            began.elapsed() < Duration::from_millis(500),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(why(&again[0]), why(&resolved[0]), "it is reported once");
    }

    #[tokio::test]
    async fn one_that_hung_is_asked_again() {
        let place = Place::new();
        let (fake, mut pods) = runtime(&place, |_| true).await;
        let web = pod("web-0");
        for pause in [2, 4, 8] {
            let resolved = pods.resolve(&[&web]).await.unwrap();
            assert!(why(&resolved[0]).contains("no answer"), "{resolved:?}");
            let silent = pods.silent.get_mut(&web.id).unwrap();
            assert_eq!(silent.pause.as_secs(), pause);
            silent.ask_again = Instant::now();
        }
        fake.stop().await;
        let (_fake, _) = runtime(&place, |_| false).await;
        let resolved = pods.resolve(&[&web]).await.unwrap();
        assert!(
            why(&resolved[0]).contains("is not to be found"),
            "{resolved:?}"
        );
        assert!(pods.silent.is_empty());
    }

    #[tokio::test]
    async fn what_a_runtime_calls_things_is_shown_escaped() {
        let place = Place::new();
        let (_fake, mut pods) = runtime(&place, |_| false).await;
        let odd = Pod {
            name: "a\u{1b}[2J".to_owned(),
            runtime_handler: "kata\n\u{1b}".to_owned(),
            ..pod("a")
        };
        let resolved = pods.resolve(&[&odd]).await.unwrap();
        let why = why(&resolved[0]);
        assert!(!why.contains(char::is_control), "{why}");
        assert!(
            why.contains("pod a/a\\u{1b}[2J: its runtime handler is kata\\n"),
            "{why}"
        );
    }
}
