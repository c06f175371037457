//! Where the programs are that tests run.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use crate::{must_not_be_skipped, say};

/// The workspace's root directory.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The binary under test: `SPOTSIM_BIN`, else the release build beside these tests, else the
/// debug build.
pub fn spotsim_binary() -> PathBuf {
    if let Some(path) = env::var_os("SPOTSIM_BIN") {
        let path = PathBuf::from(path);
        // It is started from another directory than this one.
        return fs::canonicalize(&path)
            .unwrap_or_else(|error| panic!("SPOTSIM_BIN={}: {error}", path.display()));
    }
    let target = build_directory();
    let target = target.parent().unwrap();
    let builds = ["release", "debug"].map(|profile| target.join(profile).join("spotsim"));
    builds
        .iter()
        .find(|path| path.exists())
        .cloned()
        .unwrap_or_else(|| {
            panic!(
                "no {}; build it with: cargo build --release",
                builds[0].display()
            )
        })
}

/// Is the binary under test a release build? Nothing is promised of what another costs.
pub fn is_release() -> bool {
    /// Larger: a build with symbols.
    const NOT_A_RELEASE: u64 = 40_000_000;
    let release = fs::metadata(spotsim_binary()).unwrap().len() <= NOT_A_RELEASE;
    if !release {
        must_not_be_skipped("this is not a release build");
        say("skipped: not a release build");
    }
    release
}

/// A program of this crate (`src/bin`).
pub fn helper(name: &str) -> PathBuf {
    let path = build_directory().join(name);
    assert!(
        path.exists(),
        "no {}; build it with: cargo build -p tests",
        path.display()
    );
    path
}

/// The plain socket client's program (`src/bin/client.rs`).
pub fn client() -> PathBuf {
    helper("client")
}

/// The Python that has the Python clients, and one of `clients/python` for its argument.
pub fn python(script: &str) -> [OsString; 2] {
    [
        installed("venv/bin/python").into(),
        python_script(script).into(),
    ]
}

/// One of `clients/python`.
pub fn python_script(name: &str) -> PathBuf {
    scripts().join("python").join(name)
}

/// A program beside moto's server: itself, or the Python that has boto3.
pub fn moto(name: &str) -> PathBuf {
    installed(&format!("moto/bin/{name}"))
}

/// Node, one of `clients/node` for its argument, and the directory of its modules.
pub fn node(script: &str) -> [OsString; 3] {
    let modules = installed("node/node_modules");
    let script = scripts().join("node").join(script);
    [
        "node".into(),
        script.into(),
        modules.parent().unwrap().into(),
    ]
}

/// The Python that crawls IMDS as cloud-init, with the directory of its modules. `None`, with
/// the reason printed, where there is no cloud-init.
pub fn cloud_init_crawl() -> Option<[OsString; 3]> {
    let modules = unpacked("cloud-init/usr/lib/python3/dist-packages")?;
    let [python, script] = python("cloud_init_crawl.py");
    Some([python, script, modules.into()])
}

/// The containerd that `SPOTSIM_CONTAINERD` names, else the one on the `PATH`. `None`, with the
/// reason printed, where there is none.
pub fn containerd() -> Option<PathBuf> {
    if let Some(path) = env::var_os("SPOTSIM_CONTAINERD") {
        let path = PathBuf::from(path);
        let found = fs::canonicalize(&path);
        let found =
            found.unwrap_or_else(|error| panic!("SPOTSIM_CONTAINERD={}: {error}", path.display()));
        return Some(found);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|directory| directory.join("containerd"))
        .find(|program| program.is_file());
    if found.is_none() {
        skip("no containerd (Debian: apt-get install containerd)");
    }
    found
}

/// A containerd that streams container events, as 1.7 does and 1.6 does not. `None`, with the
/// reason printed, where there is none.
pub fn containerd_with_events() -> Option<PathBuf> {
    unpacked("containerd/usr/bin/containerd")
}

/// A part of a package that `cargo xtask test` unpacks.
fn unpacked(path: &str) -> Option<PathBuf> {
    let path = clients().join(path);
    if path.exists() {
        return Some(path);
    }
    skip(&format!(
        "no {}; on Debian and its kin `cargo xtask test` unpacks it",
        path.display()
    ));
    None
}

/// Says why a test does not run, or fails it where none may be skipped.
pub(crate) fn skip(reason: &str) {
    must_not_be_skipped(reason);
    say(&format!("skipped: {reason}"));
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn installed(path: &str) -> PathBuf {
    let path = clients().join(path);
    assert!(
        path.exists(),
        "no {}; install it with: cargo xtask test",
        path.display()
    );
    path
}

/// Where the clients are that `cargo xtask test` installs.
fn clients() -> PathBuf {
    let clients = env::var_os("SPOTSIM_CLIENTS");
    let clients = clients.map_or_else(|| workspace().join("target/clients"), PathBuf::from);
    std::path::absolute(clients).unwrap()
}

/// Where Cargo put this build's programs; tests are one directory below.
fn build_directory() -> PathBuf {
    let this = env::current_exe().unwrap();
    let directory = this.parent().unwrap();
    match directory.ends_with("deps") {
        true => directory.parent().unwrap().to_owned(),
        false => directory.to_owned(),
    }
}
