//! Compiles `main.rs`, `cut.rs` and `empty.rs` for BPF while this crate is built for the host.

use std::{env, path::Path};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

fn main() {
    if let Err(error) = build() {
        println!("cargo::error={error:#}");
    }
}

fn build() -> Result<()> {
    if env::var("CARGO_CFG_TARGET_ARCH")? == "bpf" {
        return Ok(());
    }
    // .cargo/config.toml names this file as the linker for BPF.
    let linker = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/bpf-linker");
    println!("cargo:rerun-if-changed={}", linker.display());
    println!("cargo:rerun-if-changed=../spotsim-common/src");
    if !linker.is_file() {
        bail!(
            "the kernel half needs bpf-linker in target/tools: run `cargo xtask build-ebpf` once"
        );
    }
    // As xtask takes it, for a dated nightly.
    println!("cargo:rerun-if-env-changed=SPOTSIM_NIGHTLY");
    let nightly = env::var("SPOTSIM_NIGHTLY");

    aya_build::build_ebpf(
        [Package {
            name: "spotsim-ebpf",
            root_dir: env!("CARGO_MANIFEST_DIR"),
            no_default_features: true,
            features: &["kernel"],
        }],
        nightly
            .as_deref()
            .map_or(Toolchain::Nightly, Toolchain::Custom),
    )
    .context(
        "cannot compile the kernel half: run `cargo xtask build-ebpf`, which names what is missing",
    )
}
