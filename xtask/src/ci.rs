//! `cargo xtask ci`

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use nix::unistd;

use crate::{
    build_ebpf, shell,
    toolchain::{self, Nightly},
    workspace,
};

/// Check everything: format, lints of both halves, docs, leftovers, fuzz targets, bench, soak,
/// other kernels, tests
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(Args {}: &Args) -> Result<ExitCode> {
    step("format", || {
        toolchain::ensure_component("rustfmt", None)?;
        shell::run(&mut shell::cargo(["fmt", "--all", "--check"]))
    })?;
    step("leftovers", leftovers)?;
    step("what the kernel half needs", build_ebpf::prepare)?;
    step("lints of the kernel half", lint_kernel_half)?;
    step("lints of the user half", || {
        toolchain::ensure_component("clippy", None)?;
        shell::run(&mut shell::cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step("documentation", || {
        let mut doc = shell::cargo([
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
            "--locked",
        ]);
        shell::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    step("fuzz targets", check_fuzz_targets)?;
    step("the benchmark, beside its baseline", bench)?;
    step("faults and soak", soak)?;
    step("other kernels", || {
        shell::run(&mut shell::cargo(["xtask", "vm", "6.1", "6.12"]))
    })?;
    // As the README has it. Its last line is the tests' summary and says how long they took,
    // so nothing is said after it.
    println!("{}", shell::bold("== tests"));
    let mut test = shell::cargo(["xtask", "test"]);
    shell::announce(&shell::line(&test));
    let status = test
        .status()
        .map_err(|error| shell::cannot_start(&test, &error))?;
    Ok(match status.code().map(u8::try_from) {
        Some(Ok(code)) => ExitCode::from(code),
        _ => ExitCode::FAILURE,
    })
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("{}", shell::bold(&format!("== {name}")));
    let start = Instant::now();
    work().with_context(|| format!("{name} failed"))?;
    println!("   {name}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Clippy with the toolchain, target and flags that aya-build compiles the programs with.
fn lint_kernel_half() -> Result<()> {
    let nightly = Nightly::find()?;
    nightly.ensure_component("clippy")?;
    let target = if cfg!(target_endian = "big") {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    };
    let arch = std::env::consts::ARCH;
    let mut clippy = nightly.command("cargo");
    clippy
        .args(["clippy", "--package", "spotsim-ebpf", "--bins", "--locked"])
        .args(["--no-default-features", "--features", "kernel"])
        .args(["-Z", "build-std=core", "--target", target, "--target-dir"])
        .arg(workspace::target_dir()?.join("clippy-ebpf"))
        .args(["--", "-D", "warnings"])
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{arch}\""));
    shell::run(&mut clippy)
}

/// They are built by another compiler and not by this workspace, but have to be in step with it.
/// Their lock file has the versions of this one, so what the lints compiled is not compiled again.
fn check_fuzz_targets() -> Result<()> {
    let mut check = shell::cargo([
        "check",
        "--manifest-path",
        "tests/fuzz/Cargo.toml",
        "--locked",
    ]);
    check
        .arg("--target-dir")
        .arg(workspace::target_dir()?)
        // Nothing is linked, so libFuzzer need not be built, which would take a C++ compiler.
        .env("CUSTOM_LIBFUZZER_PATH", "/dev/null");
    shell::run(&mut check)
}

/// Before the tests, which would be in its way.
fn bench() -> Result<()> {
    if !unistd::geteuid().is_root() {
        println!("   skipped: it needs root");
        return Ok(());
    }
    shell::run(&mut shell::cargo(["xtask", "bench", "--check"]))
}

/// Two minutes, before the tests, for the machine to itself.
fn soak() -> Result<()> {
    if !unistd::geteuid().is_root() {
        println!("   skipped: it needs root");
        return Ok(());
    }
    shell::run(&mut shell::cargo(["xtask", "soak"]))
}

/// Refuses what is meant for the author's own eyes, or hides a test.
fn leftovers() -> Result<()> {
    let mut found = Vec::new();
    for file in rust_files(workspace::root())? {
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = leftover(line) {
                found.push(format!(
                    "{}:{}: {word}",
                    workspace::display(&file),
                    number + 1
                ));
            }
        }
    }
    if !found.is_empty() {
        bail!("not to be committed:\n{}", found.join("\n"));
    }
    Ok(())
}

fn leftover(line: &str) -> Option<&'static str> {
    // Written in two parts, so that this line is not one of them.
    [
        concat!("todo", "!("),
        concat!("dbg", "!("),
        concat!("#[", "ignore"),
    ]
    .into_iter()
    .find(|word| line.contains(word))
}

/// All Rust files below a directory, except in hidden and build directories.
fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && name != "node_modules" && !name.starts_with('.') {
                files.extend(rust_files(&path)?);
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_found() {
        assert!(leftover(concat!("    todo", "!(\"later\")")).is_some());
        assert!(leftover(concat!("let x = dbg", "!(y);")).is_some());
        assert!(leftover(concat!("#[", "ignore = \"slow\"]")).is_some());
        assert!(leftover("fn todo() { debug!(\"ignored\") }").is_none());
    }

    #[test]
    fn the_files_of_the_workspace_are_seen() {
        let files = rust_files(workspace::root()).unwrap();
        assert!(files.contains(&workspace::root().join("xtask/src/ci.rs")));
        assert!(
            !files
                .iter()
                .any(|file| file.starts_with(workspace::root().join("target")))
        );
    }
}
