//! The programs that run in guests: which tests, and how they are had.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::kernel::Kernel;
use crate::{build_ebpf, shell, workspace};

/// A program of tests/tests that runs in guests.
struct Test {
    name: &'static str,
    /// Its tests that do not, with the reason.
    without: &'static [(&'static str, &'static str)],
}

/// All of it runs.
const fn whole(name: &'static str) -> Test {
    Test { name, without: &[] }
}

/// What runs where spotsim runs: what depends on the kernel, as far as an emulated machine has
/// done it in time.
const TESTS: [Test; 11] = [
    whole("kernel"),
    whole("unified"),
    whole("blocked"),
    whole("choose"),
    whole("container"),
    Test {
        name: "keepalive",
        without: &[
            ("a_connection_that_is_never_quiet_is_cut_in_the_end", SLOW),
            ("an_answer_that_is_arriving_is_not_cut", SLOW),
        ],
    },
    whole("killed"),
    whole("lifecycle"),
    whole("run"),
    whole("terminal"),
    Test {
        name: "transparency",
        without: &[
            ("a_head_of_a_faked_path", HTTP),
            ("a_reason_phrase", HTTP),
            ("an_answer_in_http_1_0", HTTP),
            ("answers_are_the_same", HTTP),
            ("lines_of_one_header", HTTP),
            ("requests_reach_the_upstream_as_they_were_sent", HTTP),
            ("nothing_tells_the_upstream", HTTP),
            ("refusals_of_the_upstream", HTTP),
        ],
    },
];

/// What runs on a kernel that it refuses.
const REFUSED: [Test; 1] = [whole("kernel")];

/// Reasons why a guest does without something.
const HTTP: &str = "it is about HTTP, of which the kernel knows nothing";
#[cfg(test)]
const NO_KERNEL: &str = "it needs nothing of the kernel that other programs do not need";
#[cfg(test)]
const RUNTIME: &str = "it needs a container runtime";
#[cfg(test)]
const CLIENTS: &str = "it needs Python or Node.js";
const SLOW: &str = "an emulated machine takes too long for it";

/// The other programs of tests/tests.
#[cfg(test)]
const LEFT_OUT: [(&str, &str); 32] = [
    ("announced", HTTP),
    ("clients", CLIENTS),
    ("cloud_init", CLIENTS),
    ("conformance", HTTP),
    ("consequences", NO_KERNEL),
    ("control", NO_KERNEL),
    ("corpus", NO_KERNEL),
    ("daemon", RUNTIME),
    // `unified` has each effect once.
    ("deadline", SLOW),
    ("emit", CLIENTS),
    ("experiment", RUNTIME),
    ("footprint", SLOW),
    ("hostile", SLOW),
    ("invariants", NO_KERNEL),
    ("lab", NO_KERNEL),
    ("limits", HTTP),
    ("many", SLOW),
    ("node", RUNTIME),
    ("notice", HTTP),
    ("plan_check", NO_KERNEL),
    ("pods", RUNTIME),
    ("refusals", NO_KERNEL),
    ("responder", HTTP),
    ("runtime", RUNTIME),
    ("runtime_hangs", RUNTIME),
    ("save", HTTP),
    ("serve", HTTP),
    // It reads each sysctl several times.
    ("slow", SLOW),
    ("untouched", SLOW),
    ("upstream_down", HTTP),
    ("watch", NO_KERNEL),
    ("waves", CLIENTS),
];

/// Programs of the tests that the tests start.
const HELPERS: [&str; 3] = ["client", "inside", "upstream"];

/// What is to run in a guest, without symbols: their file names there, and where they are.
#[derive(Debug)]
pub struct Programs {
    pub init: PathBuf,
    pub spotsim: PathBuf,
    pub tests: BTreeMap<&'static str, PathBuf>,
    pub helpers: BTreeMap<&'static str, PathBuf>,
}

impl Test {
    fn of(kernel: Kernel) -> &'static [Self] {
        match kernel {
            Kernel::V5_10 => &REFUSED,
            Kernel::V6_1 | Kernel::V6_12 => &TESTS,
        }
    }
}

/// What `init` is to do: a program and its arguments a line.
pub fn plan(kernel: Kernel) -> String {
    let line = |test: &Test| {
        let skip = |(name, _): &(&str, _)| format!(" --skip {name}");
        let skips: String = test.without.iter().map(skip).collect();
        format!("{}{skips}\n", test.name)
    };
    Test::of(kernel).iter().map(line).collect()
}

/// Builds the programs that these kernels need; those without symbols go into a directory.
/// `SPOTSIM_BIN` names another spotsim than the release build, as for the tests themselves.
pub fn build(kernels: &[Kernel], directory: &Path) -> Result<Programs> {
    build_ebpf::prepare()?;
    let spotsim = match env::var_os("SPOTSIM_BIN") {
        Some(path) => fs::canonicalize(&path)
            .with_context(|| format!("SPOTSIM_BIN={}", Path::new(&path).display()))?,
        None => {
            build_ebpf::release()?;
            workspace::target_dir()?.join("release/spotsim")
        }
    };
    // As `cargo xtask test` builds them, which then has nothing left to build.
    let mut cargo = shell::cargo(["test", "--workspace", "--locked", "--no-run"]);
    cargo.arg("--message-format=json").stderr(Stdio::inherit());
    shell::announce(&shell::line(&cargo));
    let built = Built::read(&shell::read(&mut cargo)?)?;
    fs::create_dir_all(directory)?;
    let stripped = |name: &str, path: &Path| strip(path, &directory.join(name));
    let names = kernels.iter().flat_map(|kernel| Test::of(*kernel));
    let test = |test: &Test| Ok((test.name, stripped(test.name, built.test(test.name)?)?));
    let helper = |name: &&'static str| Ok((*name, stripped(name, built.program(name)?)?));
    Ok(Programs {
        init: stripped("init", built.program("init")?)?,
        spotsim: stripped("spotsim", &spotsim)?,
        tests: names.map(test).collect::<Result<_>>()?,
        helpers: HELPERS.iter().map(helper).collect::<Result<_>>()?,
    })
}

/// Copies a program without its symbols, which are most of it.
fn strip(from: &Path, to: &Path) -> Result<PathBuf> {
    let modified = |path: &Path| fs::metadata(path)?.modified();
    let made = modified(to).and_then(|made| Ok(made > modified(from)?));
    if !made.unwrap_or(false) {
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(to).arg(from);
        shell::read(&mut strip)?;
    }
    Ok(to.to_owned())
}

/// The executables that cargo says it has built, by the names of their targets.
#[derive(Debug, Default)]
struct Built {
    tests: BTreeMap<String, PathBuf>,
    programs: BTreeMap<String, PathBuf>,
}

impl Built {
    /// Reads `--message-format=json`
    /// ([The Cargo Book](https://doc.rust-lang.org/cargo/reference/external-tools.html)).
    fn read(messages: &str) -> Result<Self> {
        let mut built = Self::default();
        for message in messages.lines() {
            let message: Value = serde_json::from_str(message)
                .with_context(|| format!("cargo printed what is no message: {message}"))?;
            let target = &message["target"];
            let (Some(name), Some(path)) =
                (target["name"].as_str(), message["executable"].as_str())
            else {
                continue;
            };
            let is_test = message["profile"]["test"] == true;
            let of_kind = match target["kind"][0].as_str() {
                Some("test") => &mut built.tests,
                Some("bin") if !is_test => &mut built.programs,
                _ => continue,
            };
            of_kind.insert(name.to_owned(), path.into());
        }
        Ok(built)
    }

    fn test(&self, name: &str) -> Result<&Path> {
        let Self { tests, .. } = self;
        match tests.get(name) {
            Some(path) => Ok(path),
            None => bail!("cargo built no tests/tests/{name}"),
        }
    }

    fn program(&self, name: &str) -> Result<&Path> {
        let Self { programs, .. } = self;
        match programs.get(name) {
            Some(path) => Ok(path),
            None => bail!("cargo built no program {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_test_program_runs_or_is_left_out_for_a_reason() {
        let entries = fs::read_dir(workspace::root().join("tests/tests")).unwrap();
        let names = entries.map(|entry| entry.unwrap().path());
        let there: BTreeSet<_> = names
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        let mut known = BTreeSet::new();
        let runs = TESTS.iter().map(|test| test.name);
        let left_out = LEFT_OUT.iter().map(|(name, _)| *name);
        for name in runs.chain(left_out) {
            assert!(known.insert(name.to_owned()), "{name} is there twice");
        }
        assert_eq!(known, there);
        for test in &REFUSED {
            assert!(known.contains(test.name), "{}", test.name);
        }
        for (name, reason) in TESTS.iter().flat_map(|test| test.without).chain(&LEFT_OUT) {
            assert!(!reason.is_empty(), "{name}");
        }
    }

    #[test]
    fn what_cargo_built() {
        let built = Built::read(
            r#"{"reason":"compiler-artifact","target":{"name":"notice","kind":["test"]},"profile":{"test":true},"executable":"/t/deps/notice-1"}
{"reason":"compiler-artifact","target":{"name":"client","kind":["bin"]},"profile":{"test":true},"executable":"/t/deps/client-1"}
{"reason":"compiler-artifact","target":{"name":"client","kind":["bin"]},"profile":{"test":false},"executable":"/t/client"}
{"reason":"compiler-artifact","target":{"name":"tests","kind":["lib"]},"profile":{"test":false},"executable":null}
{"reason":"build-finished","success":true}"#,
        );
        let built = built.unwrap();
        assert_eq!(built.test("notice").unwrap(), "/t/deps/notice-1");
        assert_eq!(built.program("client").unwrap(), "/t/client");
        let error = built.test("client").unwrap_err().to_string();
        assert_eq!(error, "cargo built no tests/tests/client");
        assert!(built.program("tests").is_err());
        assert!(Built::read("   Compiling tests").is_err());
    }
}
