//! What the tests run that is not spotsim: real clients (a Python venv, node modules, and Debian's
//! cloud-init), moto's server for the services of AWS, and a container runtime beside the installed one.
//!
//! What is pinned lies in `tests/clients`; it is installed again only when that has changed.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{shell, workspace};

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
const SUITE: &str = "trixie";

/// What Debian signs its archives with, of any release.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

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
        remove(&stamp)?;
        remove(&dir)?;
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        if let Err(error) = (self.install)(&dir, &pins) {
            // Half of it would look like clients that fail.
            remove(&dir)?;
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
    needs_apt()?;
    unpack(dir, "cloud-init", &[]).context("perhaps it helps to run: apt-get update")
}

/// Unpacks another Debian's package, with lists of its own: this system's are left alone.
fn containerd(dir: &Path, _: &[PathBuf]) -> Result<()> {
    needs_apt()?;
    if !Path::new(KEYRING).exists() {
        bail!("needs {KEYRING} (Debian and its kin: apt-get install debian-archive-keyring)");
    }
    let apt = dir.join("apt");
    let (lists, sources) = (apt.join("lists"), apt.join("sources.list"));
    fs::create_dir_all(lists.join("partial"))?;
    fs::create_dir_all(apt.join("cache/archives/partial"))?;
    let source = format!("deb [signed-by={KEYRING}] http://deb.debian.org/debian {SUITE} main\n");
    fs::write(&sources, source)?;
    let settings = [
        format!("Dir::Etc::SourceList={}", sources.display()),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        format!("Dir::State::Lists={}", lists.display()),
        format!("Dir::Cache={}", apt.join("cache").display()),
        // Only the names and places of packages.
        "Acquire::Languages=none".to_owned(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
    ];
    shell::run(apt_get(&settings).arg("update"))?;
    unpack(dir, "containerd", &settings)?;
    remove(&apt)
}

fn needs_apt() -> Result<()> {
    if !shell::has("apt-get") || !shell::has("dpkg-deb") {
        bail!("needs apt-get and dpkg-deb, which Debian and its kin have");
    }
    Ok(())
}

fn apt_get(settings: &[String]) -> Command {
    let mut apt = Command::new("apt-get");
    // Its user for downloads may not write where we do.
    apt.args(["--quiet=2", "--option", "APT::Sandbox::User=root"]);
    for setting in settings {
        apt.args(["--option", setting]);
    }
    apt
}

/// Downloads a package and unpacks it into a directory.
fn unpack(dir: &Path, package: &str, settings: &[String]) -> Result<()> {
    let mut download = apt_get(settings);
    download.args(["download", package]).current_dir(dir);
    shell::run(&mut download)?;
    let package = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension() == Some(OsStr::new("deb")))
        .context("apt-get downloaded no package")?;
    shell::run(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&package)
            .arg(dir),
    )?;
    remove(&package)
}

/// The pinned files, one after the other.
fn contents(pins: &[PathBuf]) -> Result<Vec<u8>> {
    let files = pins.iter().map(|pin| {
        fs::read(pin).map_err(|error| anyhow!("cannot read {}: {error}", pin.display()))
    });
    Ok(files.collect::<Result<Vec<_>>>()?.concat())
}

/// Removes a file or directory, which may be missing.
fn remove(path: &Path) -> Result<()> {
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
