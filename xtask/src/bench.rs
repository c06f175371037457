//! `cargo xtask bench`

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{
    alone::{Interrupted, privileged, wait_for},
    build_ebpf, shell, workspace,
};

/// Measure what spotsim costs, beside what it is compared with
///
/// All of it happens in network namespaces and cgroups of its own, with the release build: what is
/// added to connect(), one request and many at once (beside a direct one, an alias on lo with
/// socat, and a DNAT), arming, and how soon a trigger is visible. Prints tables and how goals are
/// met, and writes bench.json, bench.md and bench.svg to target/bench. Uses sudo, unless root, for
/// the part that needs it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fail if a ratio is a quarter worse than in the committed baseline, and so when its part is
    /// measured again
    #[arg(long)]
    check: bool,

    /// Make what was measured the baseline
    #[arg(long, conflicts_with = "check", conflicts_with = "part")]
    save_baseline: bool,

    /// Which parts: kernel, request, throughput, arming, trigger [default: all]
    part: Vec<String>,
}

/// The charts are of requests and throughput.
const OUTPUT: [&str; 3] = ["bench.json", "bench.md", "bench.svg"];

pub fn run(args: &Args) -> Result<()> {
    let Args {
        check,
        save_baseline,
        part,
    } = args;
    for (program, package) in [
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("socat", "socat"),
        ("unshare", "util-linux"),
    ] {
        if !shell::has(program) {
            bail!("the benchmark needs {program} (Debian: apt-get install {package})");
        }
    }
    let interrupted = Interrupted::watch()?;
    build_ebpf::prepare()?;
    build_ebpf::release()?;
    build_ebpf::test_programs()?;
    let target = workspace::target_dir()?;
    let out = target.join("bench");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    for name in OUTPUT {
        workspace::remove(&out.join(name))?;
    }
    // sudo may take away the environment that says where this is.
    let mut bench = privileged("env");
    bench
        .arg(format!(
            "SPOTSIM_BIN={}",
            target.join("release/spotsim").display()
        ))
        .arg(target.join("debug/bench"))
        .arg("--out")
        .arg(&out)
        .current_dir(workspace::root());
    if *check {
        bench.arg("--check").arg(baseline());
    }
    bench.args(part);
    shell::announce(&shell::line(&bench));
    if !wait_for(&mut bench, &interrupted)?.success() {
        bail!("nothing was measured, or something has become worse: see above");
    }
    for file in OUTPUT.map(|name| out.join(name)) {
        if file.exists() {
            println!("wrote {}", workspace::display(&file));
        }
    }
    if *save_baseline {
        save(&out.join("bench.json"))?;
    }
    Ok(())
}

/// The ratios that are committed.
fn baseline() -> PathBuf {
    workspace::root().join("tests/src/bin/bench/baseline.json")
}

fn save(measured: &std::path::Path) -> Result<()> {
    let read = || -> Result<String> {
        let text = fs::read_to_string(measured)?;
        let all: serde_json::Value = serde_json::from_str(&text)?;
        Ok(format!("{:#}\n", all["baseline"]))
    };
    let ratios = read().with_context(|| format!("cannot read {}", measured.display()))?;
    let file = baseline();
    fs::write(&file, ratios).with_context(|| format!("cannot write {}", file.display()))?;
    println!("wrote {}", workspace::display(&file));
    Ok(())
}
