//! What the containers of a pod live in.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use super::Container;
use crate::node::cri::{
    Cri,
    messages::{ContainerConfig, ContainerMetadata, PodSandboxConfig},
};

/// A sandbox that runs.
#[derive(Debug)]
pub struct Sandbox<'node> {
    cri: &'node Cri,
    /// The runtime's ID: 64 hexadecimal digits.
    pub id: String,
    pub pod: PodSandboxConfig,
    /// What its containers have in common.
    container: ContainerConfig,
    /// How many there have been.
    count: AtomicU32,
}

impl<'node> Sandbox<'node> {
    /// Makes one.
    pub fn run(cri: &'node Cri, pod: PodSandboxConfig, container: ContainerConfig) -> Self {
        Self {
            cri,
            id: cri.run_pod_sandbox(pod.clone()),
            pod,
            container,
            count: AtomicU32::new(0),
        }
    }

    /// Makes the next one of the same pod, in place of this, which has ended.
    pub fn again(&mut self) {
        let Self { cri, id, pod, .. } = self;
        cri.remove_pod_sandbox(id);
        pod.metadata.as_mut().unwrap().attempt += 1;
        *id = cri.run_pod_sandbox(pod.clone());
    }

    /// Creates and starts a container.
    pub fn start(&self, name: &str, args: &[&str]) -> Container<'node> {
        let Self {
            cri,
            id,
            pod,
            container,
            count,
        } = self;
        // With the name it is the container's own in its sandbox.
        let attempt = count.fetch_add(1, Ordering::Relaxed);
        let mut config = container.clone();
        config.metadata = Some(ContainerMetadata {
            name: name.to_owned(),
            attempt,
        });
        config.args = args.iter().map(|&word| word.to_owned()).collect();
        config.log_path = format!("{name}-{attempt}.log");
        // As kubelet's `newContainerLabels` has them.
        let label = "io.kubernetes.container.name".to_owned();
        config.labels.insert(label, name.to_owned());
        let log = Path::new(&pod.log_directory).join(&config.log_path);
        let id = cri.create_container(id, config, pod.clone());
        cri.start_container(&id);
        Container::new(cri, id, log)
    }
}
