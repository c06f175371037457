//! A client of the container runtime's API, with the calls that kubelet makes pods with.

pub mod messages;

use std::{collections::HashMap, path::Path, time::Duration};

use hyper::Uri;
use prost::Message;
use serde_json::Value;
use tokio::runtime::{self, Runtime};
use tonic::{
    Request, Status,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{Finished, process::patience, wait_until};
use messages::*;

/// A connection to a runtime. Its calls block, and panic where the runtime refuses.
#[derive(Debug)]
pub struct Cri {
    runtime: Runtime,
    channel: Channel,
}

impl Cri {
    /// Connects to a socket as soon as somebody listens on it.
    pub fn connect(socket: &Path) -> Self {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let uri = format!("unix://{}", socket.display());
        let endpoint = Endpoint::from_shared(uri).unwrap().timeout(patience());
        let awaited = format!("{} accepts connections", socket.display());
        let channel = wait_until(&awaited, || runtime.block_on(endpoint.connect()).ok());
        Self { runtime, channel }
    }

    pub fn version(&self) -> VersionResponse {
        let version = String::new();
        self.runtime_service("Version", VersionRequest { version })
    }

    /// Is this part, `RuntimeReady` or `NetworkReady`, ready? The runtime's reason if not.
    pub fn ready(&self, kind: &str) -> Result<(), String> {
        let service = "runtime.v1.RuntimeService";
        let response: StatusResponse = self
            .try_call(service, "Status", StatusRequest {})
            .map_err(|status| status.to_string())?;
        let conditions = response.status.unwrap_or_default().conditions;
        let condition = conditions.into_iter().find(|found| found.kind == kind);
        match condition {
            Some(condition) if condition.status => Ok(()),
            found => Err(format!("{kind}: {found:?}")),
        }
    }

    /// Does it have an image of this name?
    pub fn has_image(&self, name: &str) -> bool {
        let image = name.to_owned();
        let request = ImageStatusRequest {
            image: Some(ImageSpec { image }),
        };
        let service = "runtime.v1.ImageService";
        let response: Result<ImageStatusResponse, _> =
            self.try_call(service, "ImageStatus", request);
        response.is_ok_and(|response| response.image.is_some())
    }

    /// Returns the sandbox's ID.
    pub fn run_pod_sandbox(&self, config: PodSandboxConfig) -> String {
        let config = Some(config);
        let response: RunPodSandboxResponse =
            self.runtime_service("RunPodSandbox", RunPodSandboxRequest { config });
        response.pod_sandbox_id
    }

    /// Ends what runs in a sandbox, and its network.
    pub fn stop_pod_sandbox(&self, id: &str) {
        let pod_sandbox_id = id.to_owned();
        let Empty {} = self.runtime_service("StopPodSandbox", PodSandboxRequest { pod_sandbox_id });
    }

    pub fn remove_pod_sandbox(&self, id: &str) {
        let pod_sandbox_id = id.to_owned();
        let Empty {} =
            self.runtime_service("RemovePodSandbox", PodSandboxRequest { pod_sandbox_id });
    }

    pub fn list_pod_sandbox(&self) -> Vec<PodSandbox> {
        let response: ListPodSandboxResponse =
            self.runtime_service("ListPodSandbox", ListPodSandboxRequest {});
        response.items
    }

    /// The sandbox's status, and what the runtime tells of it besides.
    pub fn pod_sandbox_status(&self, id: &str) -> (PodSandboxStatus, Value) {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        let response: PodSandboxStatusResponse = self.runtime_service("PodSandboxStatus", request);
        (response.status.unwrap(), details(&response.info))
    }

    /// Returns the container's ID.
    pub fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> String {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let response: CreateContainerResponse = self.runtime_service("CreateContainer", request);
        response.container_id
    }

    pub fn start_container(&self, id: &str) {
        let container_id = id.to_owned();
        let Empty {} = self.runtime_service("StartContainer", ContainerRequest { container_id });
    }

    /// Kills it, with a grace period of whole seconds.
    pub fn stop_container(&self, id: &str, grace: Duration) {
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout: grace.as_secs() as i64,
        };
        let Empty {} = self.runtime_service("StopContainer", request);
    }

    pub fn remove_container(&self, id: &str) {
        let container_id = id.to_owned();
        let Empty {} = self.runtime_service("RemoveContainer", ContainerRequest { container_id });
    }

    /// The container's status, and what the runtime tells of it besides.
    pub fn container_status(&self, id: &str) -> (ContainerStatus, Value) {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: true,
        };
        let response: ContainerStatusResponse = self.runtime_service("ContainerStatus", request);
        (response.status.unwrap(), details(&response.info))
    }

    /// Runs a command in a container to its end.
    pub fn exec_sync(&self, id: &str, command: &[&str]) -> Finished {
        let request = ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            timeout: patience().as_secs() as i64,
        };
        let response: ExecSyncResponse = self.runtime_service("ExecSync", request);
        Finished {
            code: response.exit_code,
            stdout: response.stdout,
            stderr: String::from_utf8_lossy(&response.stderr).into_owned(),
        }
    }

    fn runtime_service<Q, A>(&self, method: &str, request: Q) -> A
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.try_call("runtime.v1.RuntimeService", method, request)
            .unwrap_or_else(|status| panic!("{method}: {status}"))
    }

    fn try_call<Q, A>(&self, service: &str, method: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let Self { runtime, channel } = self;
        let uri = Uri::try_from(format!("/{service}/{method}")).unwrap();
        let path = uri.into_parts().path_and_query.unwrap();
        let mut client = Grpc::new(channel.clone());
        runtime.block_on(async {
            let ready = client.ready().await;
            ready.map_err(|error| Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<Q, A>::default();
            let response = client.unary(Request::new(request), path, codec).await?;
            Ok(response.into_inner())
        })
    }
}

/// What containerd and CRI-O answer a verbose request with: JSON under `info`.
fn details(info: &HashMap<String, String>) -> Value {
    let text = info.get("info").expect("the verbose part of a status");
    serde_json::from_str(text).unwrap()
}
