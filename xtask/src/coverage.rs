//! `cargo xtask coverage`

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{build_ebpf, shell, test, tool::CARGO_LLVM_COV, toolchain, workspace};

/// Run all tests and show which lines of spotsim they reach
///
/// A table of the modules, and each line in target/coverage/html. What spotsim does as a child
/// process of the tests counts, until the instant of its SIGKILL. So do the lines of unit tests,
/// which are in the modules themselves; the kernel half does not. As root, for the tests that need
/// the kernel. The build has a directory of its own (some GB in target/coverage/build).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Arguments for `cargo test`
    #[arg(last = true)]
    cargo_test: Vec<String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    build_ebpf::prepare()?;
    toolchain::ensure_component("llvm-tools", None)?;
    CARGO_LLVM_COV.ensure()?;
    let target = workspace::target_dir()?;
    let clients = target.join("clients");
    test::clients::install(&clients, false)?;
    let coverage = Coverage {
        host: toolchain::host()?,
        directory: &target.join("coverage"),
    };
    shell::run(&mut coverage.command(["clean", "--profraw-only"]))?;
    // This builds the binary that the tests are to run.
    shell::run(
        coverage
            .build("run")
            .args(["--package", "spotsim", "--", "--version"]),
    )?;
    let mut tests = coverage.build("test");
    tests
        .args(["--workspace", "--no-fail-fast"])
        .args(&args.cargo_test)
        .env("SPOTSIM_BIN", coverage.binary())
        .env("SPOTSIM_CLIENTS", &clients);
    // A few promises are about what a release takes: what fails here is shown, with what it
    // reached.
    let passed = shell::run(&mut tests);
    shell::run(
        coverage
            .report("--html")
            .arg("--output-dir")
            .arg(coverage.directory),
    )?;
    let summary = shell::read(coverage.report("--json").arg("--summary-only"))?;
    print!("{}", Table::of(&summary)?);
    passed.map(|()| ExitCode::SUCCESS)
}

/// One way of building and measuring.
struct Coverage<'a> {
    host: String,
    directory: &'a Path,
}

impl Coverage<'_> {
    /// Where `spotsim` is built.
    fn binary(&self) -> PathBuf {
        let Self { host, directory } = self;
        directory.join("build").join(host).join("debug/spotsim")
    }

    fn command<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut command = CARGO_LLVM_COV.command();
        command
            .arg("llvm-cov")
            .args(args)
            .env("CARGO_LLVM_COV_TARGET_DIR", self.directory.join("build"))
            .env_remove("CARGO_TERM_QUIET")
            // Nobody debugs it.
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            // `%c`: what is counted is in the file at once. Most spotsims of the tests are killed.
            .env("LLVM_PROFILE_FILE_NAME", "%c%4m.profraw")
            .env("RUSTFLAGS", "-Cllvm-args=-runtime-counter-relocation");
        command
    }

    /// Builds something, and runs it.
    fn build(&self, verb: &str) -> Command {
        let mut build = self.command([verb, "--no-report", "--locked"]);
        build.args(self.only_the_host());
        build
    }

    /// Shows what was counted, but for what the tests and the chores themselves consist of.
    fn report(&self, form: &str) -> Command {
        let mut report = self.command(["report", form]);
        report
            .args(["--ignore-filename-regex", "/(tests|xtask)/"])
            .args(self.only_the_host());
        report
    }

    /// The kernel half is built by a cargo of its own, and could not count anything.
    fn only_the_host(&self) -> [&str; 3] {
        ["--coverage-target-only", "--target", &self.host]
    }
}

/// How many lines there are, and how many were reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lines {
    count: u64,
    covered: u64,
}

/// The lines of each module.
#[derive(Debug, Default)]
struct Table(BTreeMap<String, Lines>);

impl Table {
    /// Reads what `llvm-cov export --summary-only` writes.
    fn of(summary: &str) -> Result<Self> {
        let summary: Value = serde_json::from_str(summary).context("cannot read the coverage")?;
        let files = summary["data"][0]["files"].as_array();
        let mut table = Self::default();
        for file in files.context("the coverage names no files")? {
            let name = file["filename"].as_str().context("a file has no name")?;
            let lines = &file["summary"]["lines"];
            let number = |key: &str| lines[key].as_u64().context("a file has no lines");
            let Self(modules) = &mut table;
            let module = modules.entry(module_of(Path::new(name))).or_default();
            module.count += number("count")?;
            module.covered += number("covered")?;
        }
        Ok(table)
    }
}

/// The crate and the module at its top that a file is of: `spotsim responder`.
fn module_of(file: &Path) -> String {
    let file = file.strip_prefix(workspace::root()).unwrap_or(file);
    let mut parts = file.iter().map(|part| part.to_string_lossy());
    let package = parts.next().unwrap_or_default();
    let module = parts.nth(1).unwrap_or_default();
    format!("{package} {}", module.trim_end_matches(".rs"))
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, covered } = *self;
        let share = 100.0 * covered as f64 / count.max(1) as f64;
        write!(f, "{count:>7} {covered:>8} {share:>6.1} %")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(modules) = self;
        writeln!(f, "{:<32}   lines  reached", "module")?;
        let mut all = Lines::default();
        for (module, lines) in modules {
            writeln!(f, "{module:<32} {lines}")?;
            all.count += lines.count;
            all.covered += lines.covered;
        }
        writeln!(f, "{:<32} {all}", "all")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_in_their_modules() {
        let file = |name: &str, count: u64, covered: u64| {
            let filename = workspace::root().join(name);
            serde_json::json!({
                "filename": filename,
                "summary": {"lines": {"count": count, "covered": covered, "percent": 0}},
            })
        };
        let files = [
            file("spotsim/src/journal.rs", 90, 45),
            file("spotsim/src/journal/feed.rs", 10, 5),
            file("spotsim-common/src/lib.rs", 3, 3),
        ];
        let summary = serde_json::json!({"data": [{"files": files}]}).to_string();
        assert_eq!(
            Table::of(&summary).unwrap().to_string(),
            "module                             lines  reached\n\
             spotsim journal                      100       50   50.0 %\n\
             spotsim-common lib                     3        3  100.0 %\n\
             all                                  103       53   51.5 %\n"
        );
        assert!(Table::of("{}").is_err());
    }
}
