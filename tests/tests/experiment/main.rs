//! Templates of AWS FIS, run against real cgroups and real pods.

mod effects;
mod group;
mod pods;
mod record;
mod refused;
mod stopped;
mod targets;
mod terminal;

use std::{fs, path::PathBuf};

use jiff::Timestamp;
use serde_json::Value;
use tests::{Cgroup, Lab, Place, Running, Spotsim, Via, get, workspace};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";
const REBALANCE: &str = "/latest/meta-data/events/recommendations/rebalance";

/// The instance that every target of a lab is on, in a group and of the web tier.
const INSTANCE: &str = "\
meta-data:
  placement/availability-zone: eu-central-1b
  tags/instance:
    Name: web
    app: web
    aws:autoscaling:groupName: EC2SpotWorkshopASG
";

/// A template of the tests' own, as it is.
fn template(name: &str) -> String {
    let path = workspace().join("tests/templates").join(name);
    fs::read_to_string(path).unwrap()
}

/// A template with some of its text replaced, each of which must be there.
fn changed(name: &str, changes: &[(&str, &str)]) -> String {
    let mut text = template(name);
    for (from, to) in changes {
        assert!(text.contains(from), "{from:?} in {name}");
        text = text.replace(from, to);
    }
    text
}

/// Cgroups of a lab, each with a process in it.
struct Group {
    lab: Lab,
    cgroups: Vec<Cgroup>,
    _workloads: Vec<Running>,
}

impl Group {
    fn new(names: &[&str]) -> Option<Self> {
        let lab = Lab::bare()?;
        let cgroups: Vec<_> = names.iter().map(|name| lab.target.child(name)).collect();
        let workloads = cgroups
            .iter()
            .map(|cgroup| lab.place(&lab.node, cgroup).sleeper());
        Some(Self {
            _workloads: workloads.collect(),
            cgroups,
            lab,
        })
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.lab.directory.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// `spotsim experiment run` of such a template, with all cgroups to choose from.
    fn run(&self, name: &str, text: &str, options: &[&str]) -> Running {
        let file = self.write(name, text);
        let instance = self.write("instance.yaml", INSTANCE);
        let mut args = vec!["experiment", "run", file.to_str().unwrap()];
        args.extend(["--instance", instance.to_str().unwrap(), "--id", "one"]);
        let paths = self
            .cgroups
            .iter()
            .map(|cgroup| cgroup.path().display().to_string());
        let paths: Vec<_> = paths.collect();
        args.extend(paths.iter().flat_map(|path| ["--cgroup", path]));
        args.extend(options);
        Running::start(Spotsim::command(&self.lab, &args))
    }

    /// Which of them see this, by their place in the group.
    fn who_sees(&self, path: &str) -> Vec<usize> {
        let places = self
            .cgroups
            .iter()
            .map(|cgroup| self.lab.place(&self.lab.node, cgroup));
        let seeing = places.enumerate().filter(|(_, place)| sees(place, path));
        seeing.map(|(index, _)| index).collect()
    }
}

/// Whether a client is answered with something at a path. Where nobody is intercepted, there is
/// nobody to answer.
fn sees(place: &Place, path: &str) -> bool {
    let answer = place.try_send(Via::V4, &get(path));
    answer.code == 0 && answer.stdout.starts_with(b"HTTP/1.1 200 ")
}

/// What happened, as it was printed: without the times, and without what comes next.
fn told(stdout: &str) -> Vec<String> {
    let told = stdout.lines().map(|line| {
        let (time, what) = line.split_once("  ").unwrap_or_else(|| panic!("{line:?}"));
        time.parse::<Timestamp>().unwrap();
        what.split("; next: ").next().unwrap().to_owned()
    });
    told.collect()
}

fn record(path: &PathBuf) -> Value {
    let text = fs::read(path).unwrap();
    serde_json::from_slice(&text).unwrap()
}
