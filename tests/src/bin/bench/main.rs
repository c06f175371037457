//! What spotsim costs, measured beside what it is compared with. `cargo xtask bench` runs it.
//!
//! Everything happens in network namespaces and cgroups made for it. What is compared is measured
//! in turns, in rounds, so that what drifts drifts for both. Each section prints a table and how
//! its goals are met; all of it goes into `bench.json`, the tables into `bench.md`, two charts into
//! `bench.svg`.

mod arming;
mod baseline;
mod chart;
mod client;
mod kernel;
mod machine;
mod relay;
mod request;
mod section;
mod statistics;
mod throughput;
mod trigger;
mod ways;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use serde_json::{Map, Value, json};
use tests::Interrupted;

use crate::{
    baseline::{Baseline, Regression},
    chart::Chart,
    section::Section,
    ways::Ways,
};

#[derive(Parser)]
struct Cli {
    /// Write bench.json and bench.svg there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Compare the ratios with those of this file, and fail if one is a quarter worse, twice
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,

    /// Which parts; all, unless some are named
    part: Vec<Part>,
}

/// Named as its section is.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Kernel,
    Request,
    Throughput,
    Arming,
    Trigger,
}

fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args[..] {
        [client::ARGUMENT, path, expected] => client::main(path, expected),
        [relay::ARGUMENT, listen, to] => relay::main(listen, to),
        _ => return run(&Cli::parse()),
    }
    ExitCode::SUCCESS
}

fn run(cli: &Cli) -> ExitCode {
    let Cli { out, check, part } = cli;
    let interrupted = Interrupted::watch();
    let parts = match part.is_empty() {
        true => Part::value_variants(),
        false => part,
    };
    let machine = machine::description();
    println!("{machine}");
    let Some((sections, charts)) = measure(parts, || interrupted.check()) else {
        return ExitCode::FAILURE;
    };
    write(out, &sections, &charts, &machine);
    let Some(check) = check else {
        return ExitCode::SUCCESS;
    };
    let baseline = Baseline::read(check);
    let mut worse = baseline.regressions(&sections);
    show(&worse);
    if !worse.is_empty() {
        // A machine that had something else to do has not each time; what is slower is.
        println!("\nmeasured again:");
        let named = |worse: &Regression| Part::from_str(worse.section, false);
        let parts: Vec<_> = worse
            .iter()
            .map(named)
            .collect::<Result<_, _>>()
            .expect("sections are named as parts");
        let Some((sections, _)) = measure(&parts, || interrupted.check()) else {
            return ExitCode::FAILURE;
        };
        let mut again = baseline.regressions(&sections);
        again.retain(|again| worse.iter().any(|before| before.is_of(again)));
        worse = again;
        show(&worse);
    }
    if worse.is_empty() {
        println!("\nno ratio is a quarter worse than in {}", check.display());
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

fn show(worse: &[Regression]) {
    for regression in worse {
        println!("  WORSE   {regression}");
    }
}

/// `None` where nothing can be measured, with the reason printed.
fn measure(parts: &[Part], check: impl Fn()) -> Option<(Vec<Section>, Vec<Chart>)> {
    let (mut sections, mut charts) = (vec![], vec![]);
    let mut keep = |section: Section| {
        print!("{}", section.text());
        sections.push(section);
    };
    let has = |part| parts.contains(&part);
    if has(Part::Kernel) {
        keep(kernel::measure(&check)?);
    }
    if has(Part::Request) || has(Part::Throughput) {
        let mut ways = Ways::new()?;
        if has(Part::Request) {
            let (section, chart) = request::measure(&mut ways, &check);
            keep(section);
            charts.push(chart);
        }
        if has(Part::Throughput) {
            let (section, chart) = throughput::measure(&mut ways, &check);
            keep(section);
            charts.push(chart);
        }
    }
    if has(Part::Arming) {
        keep(arming::measure(&check)?);
    }
    if has(Part::Trigger) {
        keep(trigger::measure(&check)?);
    }
    Some((sections, charts))
}

fn write(out: &Path, sections: &[Section], charts: &[Chart], machine: &str) {
    let named = sections
        .iter()
        .map(|section| (section.name.to_owned(), section.json()));
    let all = json!({
        "machine": machine,
        "sections": Value::Object(named.collect::<Map<_, _>>()),
        "baseline": Baseline::of(sections),
    });
    let save = |name: &str, text: String| {
        let file = out.join(name);
        fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    };
    save("bench.json", format!("{all:#}\n"));
    let tables = sections.iter().map(Section::markdown);
    save("bench.md", tables.collect::<Vec<_>>().join("\n"));
    if !charts.is_empty() {
        save("bench.svg", chart::svg(charts, machine));
    }
}
