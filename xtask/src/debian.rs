//! Packages of Debian that are unpacked, not installed. What this system knows of packages is
//! left as it is: another release has lists of its own.

use std::{ffi::OsStr, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{shell, workspace};

/// What Debian signs its archives with, of any release.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The packages of one release of Debian.
#[derive(Debug)]
pub struct Packages {
    /// What makes apt look at this release.
    settings: Vec<String>,
}

/// Where this system gets Debian from.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mirrors {
    releases: Option<String>,
    security: Option<String>,
}

impl Packages {
    /// Those of this system's own release.
    pub fn of_this_system() -> Result<Self> {
        if !shell::has("apt-get") || !shell::has("dpkg-deb") {
            bail!("needs apt-get and dpkg-deb, which Debian and its kin have");
        }
        Ok(Self { settings: vec![] })
    }

    /// Those of a release, its security updates too, with lists in this directory.
    pub fn of_release(release: &str, directory: &Path) -> Result<Self> {
        Self::of_this_system()?;
        if !Path::new(KEYRING).exists() {
            bail!("needs {KEYRING} (Debian and its kin: apt-get install debian-archive-keyring)");
        }
        let mirrors = Mirrors::of_this_system()?;
        let (lists, sources) = (directory.join("lists"), directory.join("sources.list"));
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(directory.join("cache/archives/partial"))?;
        fs::write(&sources, mirrors.sources(release)?)?;
        let settings = [
            format!("Dir::Etc::SourceList={}", sources.display()),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={}", lists.display()),
            format!("Dir::Cache={}", directory.join("cache").display()),
            // Only the names and places of packages.
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ];
        let packages = Self {
            settings: settings.into(),
        };
        shell::run(packages.apt("apt-get").arg("update"))?;
        Ok(packages)
    }

    /// Downloads a package and unpacks it into a directory.
    pub fn unpack(&self, package: &str, directory: &Path) -> Result<()> {
        let mut download = self.apt("apt-get");
        download.args(["download", package]).current_dir(directory);
        shell::run(&mut download)?;
        let package = fs::read_dir(directory)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension() == Some(OsStr::new("deb")))
            .context("apt-get downloaded no package")?;
        let mut extract = Command::new("dpkg-deb");
        extract.arg("--extract").arg(&package).arg(directory);
        shell::run(&mut extract)?;
        workspace::remove(&package)
    }

    /// The package that one without content stands for.
    pub fn behind(&self, package: &str) -> Result<String> {
        let mut depends = self.apt("apt-cache");
        depends.args(["depends", "--no-recommends", "--no-suggests", package]);
        let shown = shell::read(&mut depends)?;
        let found = dependency(&shown).map(str::to_owned);
        found.with_context(|| format!("the package {package} stands for none: {shown}"))
    }

    fn apt(&self, program: &str) -> Command {
        let Self { settings } = self;
        let mut apt = Command::new(program);
        // Its user for downloads may not write where we do.
        apt.args(["--quiet=2", "--option", "APT::Sandbox::User=root"]);
        for setting in settings {
            apt.args(["--option", setting]);
        }
        apt
    }
}

impl Mirrors {
    fn of_this_system() -> Result<Self> {
        let mut targets = Command::new("apt-get");
        targets.args(["indextargets", "--format", "$(LABEL) $(REPO_URI)"]);
        targets.arg("Created-By: Packages");
        Ok(Self::read(&shell::read(&mut targets)?))
    }

    /// Reads lines of an archive's label and address. Of each kind the first one counts.
    fn read(targets: &str) -> Self {
        let find = |label: &str| {
            let mut pairs = targets.lines().filter_map(|line| line.split_once(' '));
            let (_, address) = pairs.find(|(name, _)| *name == label)?;
            Some(address.trim_end_matches('/').to_owned())
        };
        Self {
            releases: find("Debian"),
            security: find("Debian-Security"),
        }
    }

    /// The sources.list of a release.
    fn sources(&self, release: &str) -> Result<String> {
        let Self { releases, security } = self;
        let releases = releases.as_ref().context(
            "this system's apt knows no archive of Debian: add one to its sources, and run \
             `apt-get update`",
        )?;
        let line = |address: &str, suite: &str| {
            format!("deb [signed-by={KEYRING}] {address} {suite} main\n")
        };
        let mut sources = line(releases, release);
        if let Some(security) = security {
            sources += &line(security, &format!("{release}-security"));
        }
        Ok(sources)
    }
}

/// The first package that `apt-cache depends` names.
fn dependency(shown: &str) -> Option<&str> {
    shown
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("Depends: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "\
        Node Source https://packages.example/node/\n\
        Debian http://mirror.example/debian/\n\
        Debian http://other.example/debian/\n\
        Debian-Security http://mirror.example/debian-security/\n";

    #[test]
    fn another_release_comes_from_where_this_one_does() {
        let sources = Mirrors::read(TARGETS).sources("trixie").unwrap();
        let expected = format!(
            "deb [signed-by={KEYRING}] http://mirror.example/debian trixie main\n\
             deb [signed-by={KEYRING}] http://mirror.example/debian-security trixie-security main\n"
        );
        assert_eq!(sources, expected);
    }

    #[test]
    fn without_an_archive_of_debian_it_says_what_to_do() {
        let mirrors = Mirrors::read("Ubuntu http://mirror.example/ubuntu/\n");
        let error = mirrors.sources("trixie").unwrap_err();
        assert!(error.to_string().contains("add one"), "{error}");
        // Without security updates there are still the releases.
        let mirrors = Mirrors::read("Debian http://mirror.example/debian\n");
        assert_eq!(mirrors.sources("trixie").unwrap().lines().count(), 1);
    }

    #[test]
    fn the_package_behind_another() {
        let shown = "linux-image-cloud-amd64\n  Depends: linux-image-6.12.117+deb13-cloud-amd64\n";
        let behind = dependency(shown);
        assert_eq!(behind, Some("linux-image-6.12.117+deb13-cloud-amd64"));
        assert_eq!(dependency("linux-image-cloud-amd64\n"), None);
    }
}
