//! What the kernel half is compiled with, and where that is pinned.
//!
//! BPF needs a nightly toolchain (`-Z build-std=core`) with `rust-src`, and bpf-linker, which
//! reads the LLVM bitcode rustc wrote by loading that rustc's own libLLVM. So the two must
//! agree on LLVM's major version. The pins, and why they are not newer:
//!
//! - `LLVM_MAJOR` below, and `BPF_LINKER` in `tool`: bpf-linker 0.10.3 is the last version that
//!   loads rustc's LLVM, and it knows LLVM 22; 0.11 wants LLVM 23 installed on the system.
//! - root `Cargo.toml` and `Cargo.lock`: aya 0.14, aya-ebpf 0.2.1, aya-build 0.2.0; their
//!   successors need Rust 1.98.

use std::{env, process::Command};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{shell, tool::BPF_LINKER, workspace};

const LLVM_MAJOR: u32 = 22;
/// A nightly with that LLVM, for machines that have none.
const FITTING_NIGHTLY: &str = "nightly-2026-05-20";

/// The nightly toolchain, which has LLVM 22.
#[derive(Debug)]
pub struct Nightly {
    /// As rustup knows it: `nightly`, or what `SPOTSIM_NIGHTLY` names.
    name: String,
}

impl Nightly {
    /// Finds the toolchain and refuses one that bpf-linker could not follow.
    pub fn find() -> Result<Self> {
        let name = env::var("SPOTSIM_NIGHTLY").unwrap_or_else(|_| "nightly".to_owned());
        let remedy = format!(
            "run `rustup toolchain install {FITTING_NIGHTLY} --profile minimal --component rust-src,clippy` \
             and set SPOTSIM_NIGHTLY={FITTING_NIGHTLY}"
        );
        if !shell::has("rustup") {
            bail!(
                "rustup is missing, which brings the nightly toolchain: see https://rustup.rs, then {remedy}"
            );
        }
        let nightly = Self { name };
        let version = shell::read(nightly.command("rustc").arg("-vV")).map_err(|_| {
            anyhow!(
                "rustup cannot run rustc of the toolchain {}, which the kernel half needs: {remedy}",
                nightly.name
            )
        })?;
        if !is_nightly(&version) {
            bail!(
                "the toolchain {} is not a nightly, which the kernel half needs: {remedy}",
                nightly.name
            );
        }
        let major = llvm_major(&version).with_context(|| {
            format!(
                "`rustc -vV` of {} names no LLVM version:\n{version}",
                nightly.name
            )
        })?;
        if major != LLVM_MAJOR {
            bail!(
                "the toolchain {} has LLVM {major}, but {BPF_LINKER} reads LLVM {LLVM_MAJOR}, \
                 as in the nightlies of May 2026: {remedy}",
                nightly.name
            );
        }
        Ok(nightly)
    }

    /// `program` of this toolchain.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("rustup");
        command
            .args(["run", &self.name, program])
            .current_dir(workspace::root());
        command
    }

    /// Installs the component unless it is there.
    pub fn ensure_component(&self, component: &str) -> Result<()> {
        ensure_component(component, Some(&self.name))
    }
}

/// The triple of this machine, for which the workspace is built.
pub fn host() -> Result<String> {
    let version = shell::read(
        Command::new("rustc")
            .arg("-vV")
            .current_dir(workspace::root()),
    )?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .with_context(|| format!("`rustc -vV` names no host:\n{version}"))
}

/// Installs a component of the toolchain, or of the one that builds this workspace.
pub fn ensure_component(component: &str, toolchain: Option<&str>) -> Result<()> {
    let rustup = |verb: &[&str]| {
        let mut command = Command::new("rustup");
        command.arg("component").args(verb);
        if let Some(toolchain) = toolchain {
            command.args(["--toolchain", toolchain]);
        }
        command.current_dir(workspace::root());
        command
    };
    let installed = shell::read(&mut rustup(&["list", "--installed"]))?;
    if has_component(&installed, component) {
        return Ok(());
    }
    let mut add = rustup(&["add", component]);
    shell::run(&mut add).with_context(|| {
        let line = shell::line(&add);
        format!("{component} is missing and cannot be installed: run `{line}` where it can")
    })
}

/// Whether the output of `rustc -vV` is that of a nightly.
fn is_nightly(rustc_version: &str) -> bool {
    rustc_version
        .lines()
        .filter_map(|line| line.strip_prefix("release: "))
        .any(|release| release.ends_with("-nightly"))
}

/// LLVM's major version in the output of `rustc -vV`.
fn llvm_major(rustc_version: &str) -> Option<u32> {
    let version = rustc_version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.trim().parse().ok()
}

/// Whether `rustup component list --installed` has it, with or without the host's triple.
fn has_component(installed: &str, component: &str) -> bool {
    installed.lines().any(|line| {
        line.strip_prefix(component)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUSTC: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\n\
        binary: rustc\n\
        commit-hash: e50aa6fba4e63ab34c72bf9acfd2c307c1155d1a\n\
        commit-date: 2026-05-19\n\
        host: x86_64-unknown-linux-gnu\n\
        release: 1.97.0-nightly\n\
        LLVM version: 22.1.4\n";

    #[test]
    fn the_llvm_of_a_rustc() {
        assert_eq!(llvm_major(RUSTC), Some(22));
        assert_eq!(llvm_major(&RUSTC.replace("22.1.4", "23.0")), Some(23));
        assert_eq!(llvm_major(&RUSTC.replace("22.1.4", "unknown")), None);
        assert_eq!(llvm_major("rustc 1.97.0-nightly"), None);
    }

    #[test]
    fn only_a_nightly_is_a_nightly() {
        assert!(is_nightly(RUSTC));
        assert!(!is_nightly(&RUSTC.replace("1.97.0-nightly", "1.97.0")));
        assert!(!is_nightly(
            &RUSTC.replace("1.97.0-nightly", "1.97.0-beta.2")
        ));
    }

    #[test]
    fn a_component_is_installed_for_the_host_or_for_all() {
        let installed = "cargo-x86_64-unknown-linux-gnu\nrust-src\nrust-std-bpfel\n";
        assert!(has_component(installed, "rust-src"));
        assert!(has_component(installed, "cargo"));
        assert!(!has_component(installed, "clippy"));
        assert!(!has_component(installed, "rust-s"));
    }
}
