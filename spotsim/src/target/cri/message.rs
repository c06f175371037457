//! The messages of CRI v1, and of containerd's events, as far as they are read.
//!
//! Written by hand, so that no build needs `protoc`: only the fields that are read, with the
//! numbers of [cri-api's `api.proto`][1]. What else is sent is passed over.
//!
//! [1]: https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto

use std::collections::{BTreeMap, HashMap};

use prost::Message;

/// A call of the runtime service: where it is asked for.
pub mod path {
    pub const VERSION: &str = "/runtime.v1.RuntimeService/Version";
    pub const PODS: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
    pub const POD: &str = "/runtime.v1.RuntimeService/PodSandboxStatus";
    pub const CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
    pub const CONTAINER: &str = "/runtime.v1.RuntimeService/ContainerStatus";
    pub const EVENTS: &str = "/runtime.v1.RuntimeService/GetContainerEvents";

    /// The same question in the version before, which Kubernetes 1.26 gave up.
    pub const VERSION_ALPHA: &str = "/runtime.v1alpha2.RuntimeService/Version";

    /// Of [containerd's own API][1], on the same socket.
    ///
    /// [1]: https://github.com/containerd/containerd/blob/main/api/services/events/v1/events.proto
    pub const CONTAINERD_EVENTS: &str = "/containerd.services.events.v1.Events/Subscribe";
}

/// A question with nothing in it (all lists are asked for whole), and an answer of which nothing
/// is read.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub struct VersionRequest {
    #[prost(string, tag = "1")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct VersionResponse {
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    #[prost(string, tag = "3")]
    pub runtime_version: String,
    #[prost(string, tag = "4")]
    pub runtime_api_version: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandbox {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    #[prost(enumeration = "PodSandboxState", tag = "3")]
    pub state: i32,
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: BTreeMap<String, String>,
    #[prost(string, tag = "7")]
    pub runtime_handler: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum PodSandboxState {
    Ready = 0,
    NotReady = 1,
}

/// Of a sandbox or a container.
#[derive(Clone, PartialEq, Message)]
pub struct StatusRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<PodSandboxStatus>,
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxStatus {
    #[prost(enumeration = "PodSandboxState", tag = "3")]
    pub state: i32,
    #[prost(message, optional, tag = "6")]
    pub linux: Option<LinuxPodSandboxStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LinuxPodSandboxStatus {
    #[prost(message, optional, tag = "1")]
    pub namespaces: Option<Namespace>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Namespace {
    #[prost(message, optional, tag = "2")]
    pub options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
pub struct NamespaceOption {
    #[prost(enumeration = "NamespaceMode", tag = "1")]
    pub network: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum NamespaceMode {
    Pod = 0,
    Container = 1,
    Node = 2,
    Target = 3,
}

#[derive(Clone, PartialEq, Message)]
pub struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<ContainerMetadata>,
    #[prost(enumeration = "ContainerState", tag = "6")]
    pub state: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    Created = 0,
    Running = 1,
    Exited = 2,
    Unknown = 3,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<ContainerStatus>,
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerStatus {
    #[prost(enumeration = "ContainerState", tag = "3")]
    pub state: i32,
    /// Nanoseconds since 1970; 0 if that has not happened.
    #[prost(int64, tag = "5")]
    pub started_at: i64,
}

/// What containerd is asked to tell.
#[derive(Clone, PartialEq, Message)]
pub struct SubscribeRequest {
    /// An event is told if one of them matches.
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

/// An event of containerd.
#[derive(Clone, PartialEq, Message)]
pub struct Envelope {
    #[prost(string, tag = "3")]
    pub topic: String,
    #[prost(message, optional, tag = "4")]
    pub event: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// A process of a container or a sandbox ended.
#[derive(Clone, PartialEq, Message)]
pub struct TaskExit {
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// The process's, which is the container's if it is its first.
    #[prost(string, tag = "2")]
    pub id: String,
}
