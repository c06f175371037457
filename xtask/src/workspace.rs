//! Where things are in this checkout.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::shell;

/// The workspace's root directory, absolute.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a directory of the workspace")
}

/// The directory cargo builds in: `target`, unless the environment or cargo's configuration
/// names another one.
pub fn target_dir() -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["metadata", "--no-deps", "--format-version=1", "--locked"])
        .current_dir(root());
    let metadata: serde_json::Value =
        serde_json::from_str(&shell::read(&mut cargo)?).context("cannot read cargo metadata")?;
    metadata["target_directory"]
        .as_str()
        .map(PathBuf::from)
        .context("cargo metadata names no target directory")
}

/// `cargo install --root` of the tools. Always below the checkout itself, because
/// `.cargo/config.toml` and `spotsim-ebpf/build.rs` look there.
pub fn tools_dir() -> PathBuf {
    root().join("target/tools")
}

/// `path` as a reader in the root directory would write it.
pub fn display(path: &Path) -> std::path::Display<'_> {
    path.strip_prefix(root()).unwrap_or(path).display()
}

/// Removes a file or directory, which may be missing.
pub fn remove(path: &Path) -> Result<()> {
    let outcome = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
