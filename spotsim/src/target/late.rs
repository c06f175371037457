//! Whether pods were attached before their containers started: what one asked until then went
//! past.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use log::warn;
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Duration, sleep},
};

use super::cri::{Container, ContainerState, Pod, Runtime, RuntimeError, at_once};
use crate::document::printable;

/// A runtime notes a container's start when that has returned, which its process need not wait
/// for.
const NOTED_LATE: SignedDuration = SignedDuration::from_millis(20);

/// And until it tells of what it noted, it may have to wait for a disk. A container that is being
/// started is looked at again after the shorter time, then at growing intervals up to the longer
/// one.
const STARTING: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Of a rollout, so many pods are asked about together.
const MOST_TOGETHER: usize = 1_024;

/// A pod that was attached.
#[derive(Clone, Debug)]
pub struct Attached {
    /// In the user's words.
    pub name: String,
    pub uid: String,
    pub at: Timestamp,
}

/// Reports those of these pods' containers that started earlier, for as long as more are told.
/// Those that are `first`, by their uids, are none that came late, when they are attached for
/// the first time.
pub async fn report(
    runtime: Runtime,
    mut attached: UnboundedReceiver<Attached>,
    mut first: HashSet<String>,
) {
    let mut together = Vec::new();
    while attached.recv_many(&mut together, MOST_TOGETHER).await > 0 {
        together.retain(|Attached { uid, .. }| !first.remove(uid));
        if together.is_empty() {
            continue;
        }
        let (soon, _) = STARTING;
        sleep(soon).await;
        for line in missed(&runtime, &std::mem::take(&mut together)).await {
            warn!("{line}");
        }
    }
}

/// What is to be said of them.
async fn missed(runtime: &Runtime, attached: &[Attached]) -> Vec<String> {
    let told = tokio::try_join!(runtime.pods(), runtime.containers());
    let (pods, containers) = match told {
        Ok(told) => told,
        Err(error) => {
            let unsure = |pod| unsure(pod, &error);
            return attached.iter().map(unsure).collect();
        }
    };
    let mut asked = Vec::new();
    for pod in attached {
        // The containers of a sandbox that it had before are not what was to be covered.
        let is_its = |sandbox: &&Pod| sandbox.ready && sandbox.uid == pod.uid;
        let sandboxes: HashSet<_> = pods.iter().filter(is_its).map(|pod| &pod.id).collect();
        let of_pod = containers
            .iter()
            .filter(|container| sandboxes.contains(&container.sandbox));
        asked.extend(of_pod.map(|container| (pod, container)));
    }
    let (mut pause, longest) = STARTING;
    let mut said = Vec::new();
    loop {
        let mut starting = Vec::new();
        let answers = at_once(asked.iter().map(|(_, container)| {
            let (runtime, id) = (runtime.clone(), container.id.clone());
            async move { runtime.container(&id).await }
        }));
        let answers = answers.await;
        for ((pod, container), answer) in asked.into_iter().zip(answers) {
            match answer.map(|detail| detail.map(|detail| (detail.started_at, detail.state))) {
                Ok(Some((Some(started), _))) => said.extend(early(pod, container, started)),
                Ok(Some((None, ContainerState::Created))) => starting.push((pod, container)),
                Ok(_) => {}
                Err(error) => said.push(unsure(pod, &error)),
            }
        }
        if starting.is_empty() || pause > longest {
            return said;
        }
        asked = starting;
        sleep(pause).await;
        pause *= 2;
    }
}

/// What is to be said of a container that was started then.
fn early(pod: &Attached, container: &Container, started: Timestamp) -> Option<String> {
    let Attached { name, at, .. } = pod;
    let container = printable(&container.name);
    if started < *at {
        Some(format!(
            "missed: {name}: its container {container} was started before it was attached; what \
             it asked until then went past to the real IMDS"
        ))
    } else if started < *at + NOTED_LATE {
        Some(format!(
            "perhaps missed: {name}: its container {container} may have been started a moment \
             before it was attached; what it asked until then went past to the real IMDS"
        ))
    } else {
        None
    }
}

fn unsure(pod: &Attached, error: &RuntimeError) -> String {
    let Attached { name, .. } = pod;
    format!("cannot tell whether {name} was attached before its containers were started: {error}")
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        path::Path,
        sync::{
            Arc, Mutex,
            atomic::{AtomicU32, Ordering},
        },
    };

    use super::{
        super::cri::{
            fake::{Fake, Place, Reply},
            message::{
                self, ContainerMetadata, ContainerStatus, ContainerStatusResponse,
                ListContainersResponse, ListPodSandboxResponse, PodSandbox, PodSandboxMetadata,
                path,
            },
        },
        *,
    };

    const ATTACHED: i64 = 1_700_000_000_000_000_000;
    const MILLISECOND: i64 = 1_000_000;

    /// A sandbox of the pod of this uid.
    fn sandbox(id: &str, uid: &str, state: i32) -> PodSandbox {
        PodSandbox {
            id: id.to_owned(),
            metadata: Some(PodSandboxMetadata {
                uid: uid.to_owned(),
                ..Default::default()
            }),
            state,
            ..Default::default()
        }
    }

    /// A container whose ID is its sandbox's and its name.
    fn container(sandbox: &str, name: &str) -> message::Container {
        message::Container {
            id: format!("{sandbox}/{name}"),
            pod_sandbox_id: sandbox.to_owned(),
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
            }),
            ..Default::default()
        }
    }

    /// A runtime with these containers of these sandboxes, and when they were started as it is
    /// told from one question to the next. It counts the lists that it tells.
    fn runtime(
        place: &Place,
        sandboxes: Vec<PodSandbox>,
        containers: Vec<(message::Container, Vec<i64>)>,
    ) -> (Fake, Arc<AtomicU32>) {
        let lists = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&lists);
        let told = containers
            .iter()
            .map(|(one, starts)| (one.id.clone(), starts.clone()));
        let told: Mutex<HashMap<_, _>> = Mutex::new(told.collect());
        let fake = Fake::start(place, move |at, question| match at {
            path::VERSION => Reply::message(&message::VersionResponse::default()),
            path::PODS => Reply::message(&ListPodSandboxResponse {
                items: sandboxes.clone(),
            }),
            path::CONTAINERS => {
                counted.fetch_add(1, Ordering::Relaxed);
                let containers = containers.iter().map(|(one, _)| one.clone());
                Reply::message(&ListContainersResponse {
                    containers: containers.collect(),
                })
            }
            path::CONTAINER => {
                let id = Fake::id(question);
                let mut told = told.lock().unwrap();
                let starts = told.get_mut(&id).unwrap();
                let started_at = match starts.len() {
                    1 => starts[0],
                    _ => starts.remove(0),
                };
                let status = Some(ContainerStatus {
                    state: i32::from(started_at > 0),
                    started_at,
                });
                Reply::message(&ContainerStatusResponse {
                    status,
                    ..Default::default()
                })
            }
            _ => Reply::status(12, "unknown method"),
        });
        (fake, lists)
    }

    async fn connect(place: &Place) -> Runtime {
        let runtime = Runtime::connect(Some(place.given()), Path::new("/"));
        runtime.await.unwrap()
    }

    fn attached(uid: &str) -> Attached {
        Attached {
            name: format!("pod a/{uid}"),
            uid: uid.to_owned(),
            at: Timestamp::from_nanosecond(ATTACHED.into()).unwrap(),
        }
    }

    #[tokio::test]
    async fn what_started_earlier_is_told_by_name() {
        let place = Place::new();
        let of_it = |name, starts| (container("1", name), starts);
        let containers = vec![
            of_it("before", vec![ATTACHED - 1]),
            of_it("a\u{1b}[2J", vec![ATTACHED + MILLISECOND]),
            of_it("noted late", vec![0, 0, ATTACHED - 1]),
            of_it("after", vec![ATTACHED + 20 * MILLISECOND]),
            of_it("started after", vec![0, ATTACHED + 300 * MILLISECOND]),
            of_it("never started", vec![0]),
            (container("0", "of the sandbox before"), vec![ATTACHED - 1]),
            (container("2", "of another"), vec![ATTACHED - 1]),
        ];
        let sandboxes = vec![
            sandbox("0", "web", 1),
            sandbox("1", "web", 0),
            sandbox("2", "db", 0),
        ];
        let (_fake, _) = runtime(&place, sandboxes, containers);
        let said = missed(&connect(&place).await, &[attached("web")]).await;
        let [before, perhaps, late] = &said[..] else {
            panic!("{said:?}");
        };
        assert!(
            before.starts_with("missed: pod a/web: its container before was started before"),
            "{before}"
        );
        let words = "perhaps missed: pod a/web: its container a\\u{1b}[2J may have been";
        assert!(perhaps.starts_with(words), "{perhaps}");
        let words = "missed: pod a/web: its container noted late was started before";
        assert!(late.starts_with(words), "{late}");
    }

    #[tokio::test]
    async fn those_of_a_rollout_are_asked_about_together() {
        let place = Place::new();
        let uids: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        let sandboxes = uids.iter().map(|uid| sandbox(uid, uid, 0)).collect();
        let containers = uids
            .iter()
            .map(|uid| (container(uid, "app"), vec![1]))
            .collect();
        let (_fake, lists) = runtime(&place, sandboxes, containers);
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        for uid in &uids {
            tell.send(attached(uid)).unwrap();
        }
        // No more are told.
        drop(tell);
        report(connect(&place).await, told, HashSet::new()).await;
        assert_eq!(lists.load(Ordering::Relaxed), 1);

        // Those that were there first are not asked about, but are when they come again.
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        tell.send(attached("1")).unwrap();
        tell.send(attached("2")).unwrap();
        drop(tell);
        let first = ["1", "2"].map(str::to_owned).into();
        report(connect(&place).await, told, first).await;
        assert_eq!(lists.load(Ordering::Relaxed), 1);
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        tell.send(attached("1")).unwrap();
        tell.send(attached("1")).unwrap();
        drop(tell);
        report(connect(&place).await, told, ["1".to_owned()].into()).await;
        assert_eq!(lists.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn what_cannot_be_told_is_said() {
        let place = Place::new();
        let (fake, _) = runtime(&place, Vec::new(), Vec::new());
        let runtime = connect(&place).await;
        fake.stop().await;
        let said = missed(&runtime, &[attached("web"), attached("db")]).await;
        assert_eq!(said.len(), 2, "{said:?}");
        let words = "cannot tell whether pod a/web was attached before its containers were started";
        assert!(said[0].starts_with(words), "{}", said[0]);
    }
}
