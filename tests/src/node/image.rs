//! The one image on a node, made by this crate's build script.

use std::path::Path;

use super::{containerd::Containerd, cri::Cri};
use crate::{Lab, run, wait_until};

/// Its name, by which pods ask for it.
pub const NAME: &str = env!("POD_IMAGE");

const ARCHIVE: &str = concat!(env!("OUT_DIR"), "/pod.tar");

/// Why there is no image; none if there is.
pub fn missing() -> Option<String> {
    let reason = "no image for pods: a static program could not be built (see cargo's warnings)";
    (!Path::new(ARCHIVE).exists()).then(|| reason.to_owned())
}

/// Hands it to the runtime and waits until pods can have it.
pub fn import(lab: &Lab, containerd: &Containerd, cri: &Cri) {
    let mut ctr = containerd.ctr(lab);
    // The namespace of what CRI looks after.
    ctr.args(["--namespace", "k8s.io", "images", "import"])
        .args(["--snapshotter", "native", ARCHIVE]);
    run(ctr, b"").expect("ctr images import");
    wait_until("the runtime knows its image", || {
        cri.has_image(NAME).then_some(())
    });
}
