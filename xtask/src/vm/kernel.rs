//! Kernels, as Debian builds them for clouds.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{debian::Packages, workspace};

/// A line of kernels that a release of Debian has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    /// Too old for spotsim
    #[value(name = "5.10")]
    V5_10,
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
}

/// The package that stands for the newest kernel of a release: small, as it is for virtual
/// machines, but with all that spotsim needs.
const NEWEST: &str = "linux-image-cloud-amd64";

/// Modules that the tests need, each after those that it needs itself: sock_diag for TCP, and
/// the network of pods.
const MODULES: [&str; 3] = ["inet_diag.ko", "tcp_diag.ko", "veth.ko"];

/// A kernel, ready to be started.
#[derive(Debug)]
pub struct Unpacked {
    /// As `uname -r` shows it.
    pub release: String,
    pub image: PathBuf,
    /// In the order in which they are to be loaded.
    pub modules: Vec<PathBuf>,
}

impl Kernel {
    pub fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The release of Debian that has it.
    fn release(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
        }
    }

    /// The kernel in a directory of its own, downloaded unless it is there. A newer one is only
    /// looked for when that directory is gone.
    pub fn unpack(self, directory: &Path) -> Result<Unpacked> {
        let directory = directory.join(self.name());
        if !directory.exists() {
            self.download(&directory)
                .with_context(|| format!("cannot get a kernel {}", self.name()))?;
        }
        Unpacked::find(&directory).with_context(|| {
            let directory = workspace::display(&directory);
            format!("{directory} is not what was unpacked: remove it")
        })
    }

    fn download(self, directory: &Path) -> Result<()> {
        // Half of it would look like a kernel that lacks something.
        let part = directory.with_added_extension("part");
        let apt = part.join("apt");
        workspace::remove(&part)?;
        fs::create_dir_all(&part)?;
        let packages = Packages::of_release(self.release(), &apt)?;
        packages.unpack(&packages.behind(NEWEST)?, &part)?;
        workspace::remove(&apt)?;
        Ok(fs::rename(part, directory)?)
    }
}

impl Unpacked {
    fn find(directory: &Path) -> Result<Self> {
        let images = files(&directory.join("boot"))?;
        let release = |path: &PathBuf| Some(name(path)?.strip_prefix("vmlinuz-")?.to_owned());
        let (image, release) = images
            .into_iter()
            .find_map(|path| Some((path.clone(), release(&path)?)))
            .context("it has no vmlinuz")?;
        let all = files(directory)?;
        // They may be compressed, `.ko.xz`: then the kernel can take them like that.
        let module = |wanted: &&str| {
            let found = all
                .iter()
                .find(|path| name(path).is_some_and(|name| name.starts_with(*wanted)));
            found
                .cloned()
                .with_context(|| format!("it has no {wanted}"))
        };
        let modules = MODULES.iter().map(module).collect::<Result<_>>()?;
        Ok(Self {
            release,
            image,
            modules,
        })
    }
}

fn name(path: &Path) -> Option<&str> {
    path.file_name().and_then(OsStr::to_str)
}

/// All files below a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", workspace::display(directory)))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_known_by_its_name_alone() {
        for kernel in Kernel::value_variants() {
            assert_eq!(Kernel::from_str(kernel.name(), false).as_ref(), Ok(kernel));
        }
        assert!(Kernel::from_str("6.13", false).is_err());
    }

    #[test]
    fn what_a_package_has() {
        let directory = std::env::temp_dir().join(format!("xtask-kernel-{}", std::process::id()));
        let put = |path: &str| {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        let error = || Unpacked::find(&directory).unwrap_err().to_string();
        put("boot/config-6.12.1+deb13-cloud-amd64");
        assert_eq!(error(), "it has no vmlinuz");
        put("boot/vmlinuz-6.12.1+deb13-cloud-amd64");
        assert_eq!(error(), "it has no inet_diag.ko");
        for module in ["ipv4/tcp_diag.ko.xz", "veth.ko.xz", "ipv4/inet_diag.ko.xz"] {
            put(&format!("usr/lib/modules/6.12.1/{module}"));
        }
        let kernel = Unpacked::find(&directory).unwrap();
        assert_eq!(kernel.release, "6.12.1+deb13-cloud-amd64");
        let modules: Vec<_> = kernel
            .modules
            .iter()
            .map(|path| name(path).unwrap())
            .collect();
        assert_eq!(modules, ["inet_diag.ko.xz", "tcp_diag.ko.xz", "veth.ko.xz"]);
        fs::remove_dir_all(&directory).unwrap();
    }
}
