//! Pods and containers, as the runtime tells of them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    message::{
        self, ContainerStatusResponse, NamespaceMode, PodSandbox, PodSandboxState,
        PodSandboxStatusResponse,
    },
    verbose::pid,
};

/// A pod's sandbox: what its containers share, one for each attempt to run the pod here.
///
/// Names and labels are the runtime's words as they came. Kubernetes allows few characters in
/// them, a runtime any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The sandbox's ID.
    pub id: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    /// Whether the sandbox is up. One that is not has no processes any more.
    pub ready: bool,
    /// The name of its runtime class's handler; empty for the default.
    pub runtime_handler: String,
}

/// Of which network namespace a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Of its own.
    Pod,
    /// Of the node's: host network.
    Node,
}

/// What is known of a single sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    pub ready: bool,
    pub network: Network,
    /// Its process, as the runtime's own pid namespace (the host's) numbers it. `None` if it
    /// ended, and where the runtime does not tell.
    pub pid: Option<u32>,
}

/// A container in the list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    /// The ID of its pod's sandbox.
    pub sandbox: String,
    pub name: String,
    pub state: ContainerState,
}

/// What is known of a single container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerDetail {
    pub state: ContainerState,
    pub started_at: Option<Timestamp>,
    /// Its first process; see [`Sandbox::pid`].
    pub pid: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    /// The runtime does not know, or tells a state that CRI v1 does not have.
    Unknown,
}

impl Pod {
    /// `None` for a sandbox without metadata: no pod of Kubernetes has such a one.
    pub(super) fn of(sandbox: PodSandbox) -> Option<Self> {
        let ready = sandbox.state() == PodSandboxState::Ready;
        let PodSandbox {
            id,
            metadata,
            state: _,
            labels,
            runtime_handler,
        } = sandbox;
        let metadata = metadata?;
        Some(Self {
            id,
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            labels,
            ready,
            runtime_handler,
        })
    }
}

impl Sandbox {
    pub(super) fn of(response: PodSandboxStatusResponse) -> Option<Self> {
        let PodSandboxStatusResponse { status, info } = response;
        let status = status?;
        let ready = status.state() == PodSandboxState::Ready;
        let namespaces = status.linux.and_then(|linux| linux.namespaces);
        let network = match namespaces.and_then(|namespaces| namespaces.options) {
            Some(options) if options.network() == NamespaceMode::Node => Network::Node,
            _ => Network::Pod,
        };
        Some(Self {
            ready,
            network,
            pid: pid(&info),
        })
    }
}

impl Container {
    pub(super) fn of(container: message::Container) -> Self {
        let state = container.state.into();
        let message::Container {
            id,
            pod_sandbox_id,
            metadata,
            ..
        } = container;
        Self {
            id,
            sandbox: pod_sandbox_id,
            name: metadata.unwrap_or_default().name,
            state,
        }
    }
}

impl ContainerDetail {
    pub(super) fn of(response: ContainerStatusResponse) -> Option<Self> {
        let ContainerStatusResponse { status, info } = response;
        let message::ContainerStatus { state, started_at } = status?;
        Some(Self {
            state: state.into(),
            started_at: time(started_at),
            pid: pid(&info),
        })
    }
}

impl From<i32> for ContainerState {
    fn from(number: i32) -> Self {
        match message::ContainerState::try_from(number) {
            Ok(message::ContainerState::Created) => Self::Created,
            Ok(message::ContainerState::Running) => Self::Running,
            Ok(message::ContainerState::Exited) => Self::Exited,
            Ok(message::ContainerState::Unknown) | Err(_) => Self::Unknown,
        }
    }
}

/// A time that has come. What has not is told as 0, or as Go's zero time, long before 1970.
fn time(nanoseconds: i64) -> Option<Timestamp> {
    let time = Timestamp::from_nanosecond(nanoseconds.into()).ok()?;
    (nanoseconds > 0).then_some(time)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{
        super::message::{
            ContainerStatus, LinuxPodSandboxStatus, Namespace, NamespaceOption, PodSandboxMetadata,
            PodSandboxStatus,
        },
        *,
    };

    /// What Go makes of the time that is none, and CRI-O tells of what has not happened.
    const GO_ZERO: i64 = -6_795_364_578_871_345_152;

    #[test]
    fn a_time_that_has_not_come_is_none() {
        for none in [0, -1, GO_ZERO, i64::MIN] {
            assert_eq!(time(none), None);
        }
        let second = time(1_700_000_000_000_000_001).unwrap();
        assert_eq!(second.to_string(), "2023-11-14T22:13:20.000000001Z");
        assert!(time(i64::MAX).is_some());
    }

    #[test]
    fn a_sandbox_without_metadata_is_no_pod() {
        assert_eq!(Pod::of(PodSandbox::default()), None);
    }

    #[test]
    fn a_pod_is_told_as_it_came() {
        let odd = "we\u{1b}[31mb\n".to_owned();
        let pod = Pod::of(PodSandbox {
            id: "x".repeat(1_000_000),
            metadata: Some(PodSandboxMetadata {
                name: odd.clone(),
                uid: String::new(),
                namespace: odd.clone(),
            }),
            state: 1,
            labels: [(odd.clone(), odd.clone())].into(),
            runtime_handler: "kata".to_owned(),
        });
        let pod = pod.unwrap();
        assert!(!pod.ready);
        assert_eq!((&pod.name, &pod.namespace), (&odd, &odd));
        assert_eq!(pod.labels.get(&odd), Some(&odd));
        assert_eq!(pod.id.len(), 1_000_000);
    }

    #[test]
    fn a_sandbox_is_of_its_own_network_or_of_the_nodes() {
        let of = |network| {
            let options = Some(NamespaceOption { network });
            let namespaces = Some(Namespace { options });
            let status = PodSandboxStatus {
                linux: Some(LinuxPodSandboxStatus { namespaces }),
                ..Default::default()
            };
            let response = PodSandboxStatusResponse {
                status: Some(status),
                ..Default::default()
            };
            Sandbox::of(response).unwrap().network
        };
        assert_eq!(of(2), Network::Node);
        for own in [0, 1, 3, 77, -1] {
            assert_eq!(of(own), Network::Pod);
        }
    }

    #[test]
    fn a_status_that_tells_nothing() {
        let response = PodSandboxStatusResponse::default();
        assert_eq!(Sandbox::of(response), None);
        assert_eq!(
            ContainerDetail::of(ContainerStatusResponse::default()),
            None
        );

        let status = Some(PodSandboxStatus::default());
        let info = HashMap::new();
        let sandbox = Sandbox::of(PodSandboxStatusResponse { status, info }).unwrap();
        assert_eq!((sandbox.pid, sandbox.network), (None, Network::Pod));
    }

    #[test]
    fn a_container_is_in_a_state() {
        let of = |state| {
            Container::of(message::Container {
                state,
                ..Default::default()
            })
            .state
        };
        assert_eq!(of(0), ContainerState::Created);
        assert_eq!(of(1), ContainerState::Running);
        assert_eq!(of(2), ContainerState::Exited);
        for unknown in [3, 4, -1, i32::MAX] {
            assert_eq!(of(unknown), ContainerState::Unknown);
        }
    }

    #[test]
    fn a_container_that_runs_was_started() {
        let status = ContainerStatus {
            state: 1,
            started_at: 2,
        };
        let info = [("info".to_owned(), r#"{"pid": 17}"#.to_owned())];
        let detail = ContainerDetail::of(ContainerStatusResponse {
            status: Some(status),
            info: info.into(),
        });
        let detail = detail.unwrap();
        assert_eq!((detail.pid, detail.started_at), (Some(17), time(2)));
        assert_eq!(detail.state, ContainerState::Running);
    }
}
