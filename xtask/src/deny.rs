//! `cargo xtask deny`

use std::process::Command;

use anyhow::Result;

use crate::{shell, tool::CARGO_DENY};

/// Check what spotsim is built from: advisories, licenses, duplicate versions, sources
///
/// By .ci/deny.toml, for both lock files. It needs cargo-deny 0.20.2, which is compiled into
/// target/tools when missing, and RustSec's database of advisories, which it fetches with git.
/// Where that cannot be had, it says so and checks the rest.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// A lock file each.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "tests/fuzz/Cargo.toml"];

pub fn run(Args {}: &Args) -> Result<()> {
    CARGO_DENY.ensure()?;
    let advisories = shell::read(of(MANIFESTS[0]).args(["fetch", "db"]));
    let mut checks = vec!["bans", "licenses", "sources"];
    if advisories.is_ok() {
        checks.push("advisories");
    }
    for manifest in MANIFESTS {
        let mut check = of(manifest);
        check.args(["check", "--hide-inclusion-graph"]);
        // What is configured is of the workspace; the fuzz targets have less of it.
        let level = if manifest == MANIFESTS[0] { "-D" } else { "-A" };
        for unused in [
            "license-not-encountered",
            "unmatched-skip",
            "unnecessary-skip",
        ] {
            check.args([level, unused]);
        }
        shell::run(check.args(&checks))?;
    }
    if let Err(error) = advisories {
        // git's own word is last.
        let error = error.to_string();
        let why = error.lines().last().unwrap_or_default();
        println!(
            "not checked: advisories and withdrawn versions, as RustSec's database cannot be had: \
             {why}"
        );
    }
    Ok(())
}

/// cargo-deny for one of the manifests.
fn of(manifest: &str) -> Command {
    let mut deny = CARGO_DENY.command();
    deny.args(["--config", ".ci/deny.toml", "--manifest-path", manifest]);
    deny.args(["--locked", "--log-level", "error"]);
    deny
}
