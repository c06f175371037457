//! Programs that the chores need, compiled from crates.io into target/tools, and their versions.
//!
//! Pinned, so that what a chore finds depends on this checkout alone. When one is moved, see the
//! reasons in `toolchain` first.

use std::{fmt, process::Command};

use anyhow::{Context as _, Result};

use crate::{shell, workspace};

pub const BPF_LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.10.3",
    asked_for_it: &["--version"],
    takes: "80 s",
};
pub const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    asked_for_it: &["--version"],
    takes: "4 minutes",
};
pub const CARGO_LLVM_COV: Tool = Tool {
    name: "cargo-llvm-cov",
    version: "0.9.1",
    asked_for_it: &["llvm-cov", "--version"],
    takes: "a minute",
};

/// One version of a program, of the crate of the same name.
#[derive(Debug)]
pub struct Tool {
    name: &'static str,
    version: &'static str,
    /// The arguments with which it prints its name and its version.
    asked_for_it: &'static [&'static str],
    /// How long it is compiled, on two cores.
    takes: &'static str,
}

impl Tool {
    /// The program, if it is there.
    pub fn command(&self) -> Command {
        let mut command = Command::new(workspace::tools_dir().join("bin").join(self.name));
        command.current_dir(workspace::root());
        command
    }

    /// Installs it into `target/tools` unless this very version is there.
    pub fn ensure(&self) -> Result<()> {
        let Self {
            name,
            version,
            asked_for_it,
            takes,
        } = self;
        let found = shell::read(self.command().args(*asked_for_it));
        if found.is_ok_and(|output| version_in(&output, name) == Some(version)) {
            return Ok(());
        }
        println!("{self} is compiled into target/tools, once; about {takes} on two cores");
        // With `=`, or cargo would take a newer one that is compatible for as good.
        let exactly = format!("={version}");
        let mut install = shell::cargo(["install", name, "--version", &exactly]);
        install
            .args(["--locked", "--force", "--root"])
            .arg(workspace::tools_dir());
        // What is meant for this workspace's builds is not meant for that one.
        for variable in [
            "CARGO_BUILD_TARGET",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "RUSTFLAGS",
        ] {
            install.env_remove(variable);
        }
        shell::run(&mut install).with_context(|| {
            let line = shell::line(&install);
            format!("{self} cannot be installed: run `{line}` where crates.io can be reached")
        })
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// The version in what a program of that name prints when it is asked.
fn version_in<'a>(output: &'a str, name: &str) -> Option<&'a str> {
    let mut words = output.split_whitespace();
    (words.next()? == name).then(|| words.next())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_program() {
        let version = |output| version_in(output, "bpf-linker");
        assert_eq!(version("bpf-linker 0.10.3\n"), Some("0.10.3"));
        assert_eq!(version("bpf-linker 0.10.30\n"), Some("0.10.30"));
        assert_eq!(version("bpf-linker\n"), None);
        assert_eq!(version("ld 0.10.3\n"), None);
        assert_eq!(version(""), None);
    }
}
