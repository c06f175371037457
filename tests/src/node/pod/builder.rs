//! What a pod is to be.

use std::{collections::HashMap, fs, path::Path};

use super::{Pod, Qos, sandbox::Sandbox};
use crate::node::{
    Node,
    cri::messages::{
        Capability, ContainerConfig, DnsConfig, IdMapping, ImageSpec, LinuxContainerConfig,
        LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount,
        NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, ProfileType,
        SecurityProfile, UserNamespace,
    },
    image,
};

/// A pod to be.
#[derive(Debug)]
#[must_use = "it is not started yet"]
pub struct PodBuilder<'node> {
    node: &'node Node,
    name: String,
    namespace: String,
    labels: HashMap<String, String>,
    qos: Qos,
    network: NamespaceMode,
    pids: NamespaceMode,
    users: Option<UserNamespace>,
    privileged: bool,
    /// None: those that the runtime gives.
    capabilities: Option<Vec<String>>,
    mounts: Vec<Mount>,
    /// None: the image's.
    program: Option<String>,
    args: Vec<String>,
}

impl<'node> PodBuilder<'node> {
    pub(in crate::node) fn new(node: &'node Node, name: &str) -> Self {
        Self {
            node,
            name: name.to_owned(),
            namespace: "default".to_owned(),
            labels: HashMap::new(),
            qos: Qos::Besteffort,
            network: NamespaceMode::Pod,
            pids: NamespaceMode::Container,
            users: None,
            privileged: false,
            capabilities: None,
            mounts: vec![],
            program: None,
            args: vec!["pause".to_owned()],
        }
    }

    /// `default`, if this is not called.
    pub fn namespace(self, namespace: &str) -> Self {
        let namespace = namespace.to_owned();
        Self { namespace, ..self }
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Besteffort, if this is not called.
    pub fn qos(self, qos: Qos) -> Self {
        Self { qos, ..self }
    }

    /// It shares the node's network.
    pub fn host_network(self) -> Self {
        let network = NamespaceMode::Node;
        Self { network, ..self }
    }

    /// It sees all processes of the host.
    pub fn host_pid(self) -> Self {
        let pids = NamespaceMode::Node;
        Self { pids, ..self }
    }

    /// Its users are not the host's: it has a user namespace of its own, which containerd can
    /// make since 1.7.
    pub fn own_users(self) -> Self {
        let whole = IdMapping {
            host_id: 100_000,
            container_id: 0,
            length: 65_536,
        };
        let users = Some(UserNamespace {
            mode: NamespaceMode::Pod.into(),
            uids: vec![whole.clone()],
            gids: vec![whole],
        });
        Self { users, ..self }
    }

    /// Its containers have every privilege that the runtime has.
    pub fn privileged(self) -> Self {
        let privileged = true;
        Self { privileged, ..self }
    }

    /// Its containers have these capabilities, written without `CAP_`, no others, and the
    /// runtime's seccomp profile.
    pub fn capabilities(self, names: &[&str]) -> Self {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let capabilities = Some(names);
        Self {
            capabilities,
            ..self
        }
    }

    /// Its containers can read a file or directory of the host, with what is mounted below it.
    /// `/run` and `/var/lib` are the node's own.
    pub fn mount(mut self, host: &Path, container: &str) -> Self {
        self.mounts.push(Mount {
            container_path: container.to_owned(),
            host_path: host.display().to_string(),
            readonly: true,
        });
        self
    }

    /// Its containers run this program, which they have by a mount, and not `src/bin/pod.rs`.
    pub fn program(self, path: &str) -> Self {
        let program = Some(path.to_owned());
        Self { program, ..self }
    }

    /// The arguments of what its container runs. That only waits, if this is not called.
    pub fn args(self, args: &[&str]) -> Self {
        let args = args.iter().map(|&word| word.to_owned()).collect();
        Self { args, ..self }
    }

    /// Makes the pod's cgroup, its sandbox and its container, and starts that, each as soon as
    /// the one before is there.
    pub fn start(self) -> Pod<'node> {
        let node = self.node;
        // Each read gives another one, random(4).
        let uid = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        let uid = uid.trim();
        let cgroup = node.pods.make(self.qos, uid);
        let pod = self.pod_config(uid, &cgroup);
        fs::create_dir_all(&pod.log_directory).unwrap();
        let sandbox = Sandbox::run(&node.cri, pod, self.container_config(uid));
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let main = sandbox.start("main", &args);
        Pod {
            node,
            sandbox,
            cgroup,
            main,
        }
    }

    fn pod_config(&self, uid: &str, cgroup: &Path) -> PodSandboxConfig {
        let Self {
            node,
            name,
            namespace,
            labels,
            privileged,
            ..
        } = self;
        let labels = labels.clone().into_iter().chain(self.kubelet_labels(uid));
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.clone(),
                uid: uid.to_owned(),
                namespace: namespace.clone(),
                attempt: 0,
            }),
            // A pod on the node's network has the node's, with its UTS namespace.
            hostname: match self.network {
                NamespaceMode::Node => String::new(),
                _ => name.clone(),
            },
            log_directory: node.log_directory(uid).display().to_string(),
            // Else it would be the host's, which may be a link into what the node does not see.
            dns_config: Some(DnsConfig {
                servers: vec!["10.96.0.10".to_owned()],
            }),
            labels: labels.collect(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: cgroup.display().to_string(),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(self.namespace_options()),
                    privileged: *privileged,
                }),
            }),
        }
    }

    /// What all its containers have.
    fn container_config(&self, uid: &str) -> ContainerConfig {
        let Self {
            privileged,
            capabilities,
            mounts,
            program,
            ..
        } = self;
        let image = image::NAME.to_owned();
        let only = |names: &Vec<String>| Capability {
            add_capabilities: names.clone(),
            drop_capabilities: vec!["ALL".to_owned()],
        };
        let profile_type = ProfileType::RuntimeDefault.into();
        let confined = |_| SecurityProfile { profile_type };
        ContainerConfig {
            image: Some(ImageSpec { image }),
            command: program.iter().cloned().collect(),
            mounts: mounts.clone(),
            labels: self.kubelet_labels(uid).into(),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    capabilities: capabilities.as_ref().map(only),
                    privileged: *privileged,
                    namespace_options: Some(self.namespace_options()),
                    seccomp: capabilities.as_ref().map(confined),
                }),
            }),
            ..ContainerConfig::default()
        }
    }

    /// Those that kubelet gives a pod and its containers, as `newPodLabels` has them.
    fn kubelet_labels(&self, uid: &str) -> [(String, String); 3] {
        let labels = [
            ("name", self.name.as_str()),
            ("namespace", &self.namespace),
            ("uid", uid),
        ];
        labels.map(|(key, value)| (format!("io.kubernetes.pod.{key}"), value.to_owned()))
    }

    fn namespace_options(&self) -> NamespaceOption {
        NamespaceOption {
            network: self.network.into(),
            pid: self.pids.into(),
            userns_options: self.users.clone(),
        }
    }
}
