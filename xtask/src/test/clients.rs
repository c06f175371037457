//! What the tests run that is not spotsim: real clients (a Python venv, node modules, and Debian's
//! cloud-init), moto's server for the services of AWS, and a container runtime beside the installed
//! one.
//!
//! What is pinned lies in `tests/clients`; it is installed again only when that has changed.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{debian::Packages, shell, workspace};

/// The clients of one kind.
struct Clients {
    /// For messages.
    kind: &'static str,
    /// The pinned files, below `tests/clients`.
    pins: &'static [&'static str],
    /// The directory below `target/clients`.
    dir: &'static str,
    /// Installs into the directory, which is there and empty, from the pinned files.
    install: fn(&Path, &[PathBuf]) -> Result<()>,
}

const ALL: [Clients; 5] = [
    Clients {
        kind: "Python clients",
        pins: &["python/requirements.txt"],
        dir: "venv",
        install: venv,
    },
    // Not with the clients: its pins are its own affair.
    Clients {
        kind: "moto's server",
        pins: &["moto/requirements.txt"],
        dir: "moto",
        install: venv,
    },
    Clients {
        kind: "Node.js clients",
        pins: &["node/package.json", "node/package-lock.json"],
        dir: "node",
        install: node_modules,
    },
    // Its version is the one of this Debian; what it needs of Python is in the venv.
    Clients {
        kind: "cloud-init",
        pins: &[],
        dir: "cloud-init",
        install: cloud_init,
    },
    Clients {
        kind: "containerd with events",
        pins: &[],
        dir: "containerd",
        install: containerd,
    },
];

/// The Debian whose containerd streams container events (1.7); that of bookworm (1.6) does not,
/// and the tests want both.
const RELEASE: &str = "trixie";

/// Installs what is not up to date. A failure is an error only if `required`; otherwise the
/// tests that need these clients cannot run.
pub fn install(dir: &Path, required: bool) -> Result<()> {
    for clients in &ALL {
        let outcome = clients
            .ensure(dir)
            .with_context(|| format!("cannot install {}", clients.kind));
        match outcome {
            Err(error) if !required => {
                eprintln!("xtask: warning: {error:#}; the tests with them cannot run");
            }
            outcome => outcome?,
        }
    }
    Ok(())
}

impl Clients {
    fn ensure(&self, parent: &Path) -> Result<()> {
        let pins: Vec<_> = self
            .pins
            .iter()
            .map(|pin| workspace::root().join("tests/clients").join(pin))
            .collect();
        let stamp = parent.join(format!("{}.stamp", self.dir));
        let wanted = contents(&pins)?;
        if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(());
        }
        let dir = parent.join(self.dir);
        workspace::remove(&stamp)?;
        workspace::remove(&dir)?;
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        if let Err(error) = (self.install)(&dir, &pins) {
            // Half of it would look like clients that fail.
            workspace::remove(&dir)?;
            return Err(error);
        }
        fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
    }
}

fn venv(dir: &Path, pins: &[PathBuf]) -> Result<()> {
    shell::run(Command::new("python3").args(["-m", "venv"]).arg(dir))
        .context("needs Python with venv (Debian: apt-get install python3-venv)")?;
    let mut pip = Command::new(dir.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    for requirements in pins {
        pip.arg("--requirement").arg(requirements);
    }
    shell::run(&mut pip)
}

fn node_modules(dir: &Path, pins: &[PathBuf]) -> Result<()> {
    if !shell::has("node") || !shell::has("npm") {
        bail!("needs node and npm (Debian: apt-get install nodejs npm)");
    }
    for pin in pins {
        let name = pin.file_name().map(OsStr::to_owned).unwrap_or_default();
        fs::copy(pin, dir.join(name)).with_context(|| format!("cannot copy {}", pin.display()))?;
    }
    shell::run(
        Command::new("npm")
            .args(["ci", "--silent", "--no-audit", "--no-fund", "--prefix"])
            .arg(dir),
    )
}

/// Unpacks the package. It is not installed: on the next boot it would take this host for its
/// own.
fn cloud_init(dir: &Path, _: &[PathBuf]) -> Result<()> {
    Packages::of_this_system()?
        .unpack("cloud-init", dir)
        .context("perhaps it helps to run: apt-get update")
}

/// Unpacks another Debian's package.
fn containerd(dir: &Path, _: &[PathBuf]) -> Result<()> {
    let apt = dir.join("apt");
    Packages::of_release(RELEASE, &apt)?.unpack("containerd", dir)?;
    workspace::remove(&apt)
}

/// The pinned files, one after the other.
fn contents(pins: &[PathBuf]) -> Result<Vec<u8>> {
    let files = pins.iter().map(|pin| {
        fs::read(pin).map_err(|error| anyhow!("cannot read {}: {error}", pin.display()))
    });
    Ok(files.collect::<Result<Vec<_>>>()?.concat())
}
