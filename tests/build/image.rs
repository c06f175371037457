//! An OCI image of one program, as an archive that container runtimes import.
//!
//! <https://github.com/opencontainers/image-spec>: `image-layout.md` for the archive,
//! `manifest.md` and `config.md` for the documents in it.

use std::{env, fs::File, io, path::Path};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};

/// By what the tests ask for it. A host of this name is never looked up.
pub const NAME: &str = "localhost/spotsim-tests/pod:latest";

/// Writes an image whose entry point is the program at `/pod`, and whose default argument is
/// `pause`.
pub fn write(archive: &Path, program: &[u8]) -> io::Result<()> {
    let layer = layer(program)?;
    let platform = architecture();
    let config = json!({
        "architecture": platform,
        "os": "linux",
        "config": {"Entrypoint": ["/pod"], "Cmd": ["pause"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut found = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    found["annotations"] = json!({"io.containerd.image.name": NAME});
    found["platform"] = json!({"architecture": platform, "os": "linux"});
    let index = json!({"schemaVersion": 2, "manifests": [found]});

    let mut archive = Builder::new(File::create(archive)?);
    let layout = json!({"imageLayoutVersion": "1.0.0"});
    append(
        &mut archive,
        "oci-layout",
        0o644,
        layout.to_string().as_bytes(),
    )?;
    append(
        &mut archive,
        "index.json",
        0o644,
        index.to_string().as_bytes(),
    )?;
    for blob in [layer, config, manifest] {
        let path = format!("blobs/{}", digest(&blob).replace(':', "/"));
        append(&mut archive, &path, 0o644, &blob)?;
    }
    archive.finish()
}

/// The image's files.
fn layer(program: &[u8]) -> io::Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    append(&mut layer, "pod", 0o755, program)?;
    layer.into_inner()
}

fn append(to: &mut Builder<impl io::Write>, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    to.append_data(&mut header, path, bytes)
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

fn digest(blob: &[u8]) -> String {
    let bytes = Sha256::digest(blob);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The build's target in Go's words, which images use.
fn architecture() -> String {
    let target = env::var("CARGO_CFG_TARGET_ARCH").unwrap();
    match target.as_str() {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        _ => target,
    }
}
