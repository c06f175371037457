//! Builds what is run by other means than cargo's: the image that the tests' pods run.

#[path = "build/image.rs"]
mod image;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The one program in the image; cargo builds it too, for its lints.
const PROGRAM: &str = "src/bin/pod.rs";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed={PROGRAM}");
    println!("cargo::rustc-env=POD_IMAGE={}", image::NAME);
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    let (program, archive) = (out.join("pod"), out.join("pod.tar"));
    // What was made of an earlier source must not be taken for this one's.
    let _ = fs::remove_file(&archive);
    // The tests with pods say that there is none. All others can do without.
    if let Err(error) = build_static(&program) {
        println!("cargo::warning=no image for pods: {error}");
        return;
    }
    image::write(&archive, &fs::read(&program).unwrap()).unwrap();
}

/// A cargo of its own for one file without dependencies would be no shorter.
fn build_static(program: &Path) -> Result<(), String> {
    let compiler = env::var_os("RUSTC").unwrap();
    let target = env::var_os("TARGET").unwrap();
    let output = Command::new(compiler)
        .args(["--edition", "2024", "--target"])
        .arg(target)
        .args(["-C", "opt-level=1", "-C", "panic=abort"])
        .args(["-C", "strip=symbols", "-C", "target-feature=+crt-static"])
        .arg("-o")
        .arg(program)
        .arg(PROGRAM)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let first = stderr.lines().next().unwrap_or_default();
    Err(format!("a static build of {PROGRAM} failed: {first}"))
}
