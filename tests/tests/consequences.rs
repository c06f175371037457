//! What follows from what is announced: one event for each instance and occasion, and something
//! done to those, and only those, whose deadline has come.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Cgroup, Lab, NetNs, Place, Running, Spotsim, Upstream, run, wait_until};

const ACTION: &str = "/latest/meta-data/spot/instance-action";

const REBALANCE: &str = "EC2 Instance Rebalance Recommendation";
const WARNING: &str = "EC2 Spot Instance Interruption Warning";
const CHANGE: &str = "EC2 Instance State-change Notification";

/// Cgroups in a lab, and a file for events.
struct World {
    lab: Lab,
    cgroups: Vec<Cgroup>,
    events: PathBuf,
}

impl World {
    fn new(cgroups: usize) -> Option<Self> {
        let lab = Lab::new()?;
        let child = |index| lab.target.child(&format!("t{index}"));
        Some(Self {
            cgroups: (0..cgroups).map(child).collect(),
            events: lab.directory.join("events.jsonl"),
            lab,
        })
    }

    fn path(&self, index: usize) -> String {
        self.cgroups[index].path().display().to_string()
    }

    fn place(&self, index: usize) -> Place {
        self.lab.place(&self.lab.node, &self.cgroups[index])
    }

    /// `spotsim attach` to all of them, under the ID `one`, with the events in the file.
    fn attach(&self, options: &[&str]) -> Running {
        let paths: Vec<_> = (0..self.cgroups.len()).map(|one| self.path(one)).collect();
        self.attach_to(&paths, options)
    }

    fn attach_to(&self, paths: &[String], options: &[&str]) -> Running {
        let sink = format!("file:{}", self.events.display());
        let mut args = vec!["attach", "--id", "one", "--emit", &sink];
        args.extend(paths.iter().flat_map(|path| ["--cgroup", path]));
        args.extend(options);
        let mut spotsim = Running::start(Spotsim::command(&self.lab, &args));
        spotsim.stdout_line("armed: ", 0);
        spotsim
    }

    fn said(&self, args: &[&str]) -> String {
        run(Spotsim::command(&self.lab, args), b"").expect(&args.join(" "))
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.said(&["status", "--json"])).unwrap()
    }

    /// How far it is with what is done to each target.
    fn effects(&self) -> Vec<Option<String>> {
        let status = self.status();
        let targets = status["targets"].as_array().unwrap().iter();
        let state = |target: &Value| Some(target["effect"]["state"].as_str()?.to_owned());
        targets.map(state).collect()
    }

    fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.events).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The events, once there are so many.
    fn first_events(&self, count: usize) -> Vec<Value> {
        wait_until(&format!("{count} events"), || {
            let events = self.events();
            (events.len() >= count).then_some(events)
        })
    }
}

const ANOTHER: &str = "i-0ffffffffffffffff";

/// Another instance's IMDS in a namespace: a service that spotsim plays.
fn serve_another(lab: &Lab, namespace: &NetNs) -> Running {
    let instance = lab.directory.join("other.yaml");
    fs::write(
        &instance,
        format!("meta-data: {{instance-id: {ANOTHER}}}\n"),
    )
    .unwrap();
    let serve = [
        tests::spotsim_binary().display().to_string(),
        "serve".to_owned(),
        "--listen".to_owned(),
        "169.254.169.254:80".to_owned(),
        "--instance".to_owned(),
        instance.display().to_string(),
        "--run-dir".to_owned(),
        lab.directory.join("other-run").display().to_string(),
    ];
    let outside = lab.place(namespace, &lab.beside);
    let mut served = Running::start(outside.command_line(serve));
    served.stdout_line("serving: ", 0);
    served
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let kind = |event: &'_ Value| event["detail-type"].as_str().unwrap().to_owned();
    let known = [REBALANCE, WARNING, CHANGE];
    let found = events.iter().map(|event| {
        let kind = kind(event);
        *known.iter().find(|known| **known == kind).unwrap()
    });
    found.collect()
}

fn states(events: &[Value]) -> Vec<&str> {
    let changes = events.iter().filter(|event| event["detail-type"] == CHANGE);
    changes
        .map(|event| event["detail"]["state"].as_str().unwrap())
        .collect()
}

fn stop(spotsim: Running) {
    spotsim.signal(Signal::SIGTERM);
    spotsim.finish().expect("spotsim");
}

fn sees(place: &Place) -> bool {
    place.get(ACTION).status() == 200
}

fn is_frozen(cgroup: &Path) -> bool {
    let events = fs::read_to_string(cgroup.join("cgroup.events")).unwrap();
    events.lines().any(|line| line == "frozen 1")
}

#[test]
fn targets_on_one_instance_share_its_events() {
    let Some(world) = World::new(3) else { return };
    let _upstream = Upstream::start(&world.lab, &[]);
    let _workload = world.place(1).sleeper();
    let spotsim = world.attach(&[
        "--upstream",
        "real",
        "--rebalance-after",
        "0s",
        "--notice-after",
        "1s",
        "--lead",
        "1s",
    ]);
    let events = world.first_events(2);
    // Past the deadline, at which nothing is done: so nothing changes its state.
    sleep(Duration::from_millis(2_500));
    assert_eq!(kinds(&world.events()), [REBALANCE, WARNING]);
    for event in &events {
        // As the tests' own IMDS has it.
        assert_eq!(event["detail"]["instance-id"], "i-0a1b2c3d4e5f60718");
        assert_eq!(event["account"], "123456789012");
        assert_eq!(event["region"], "eu-central-1");
        let arn = "arn:aws:ec2:eu-central-1:123456789012:instance/i-0a1b2c3d4e5f60718";
        assert_eq!(event["resources"], serde_json::json!([arn]));
    }
    let seen: Timestamp = events[1]["time"].as_str().unwrap().parse().unwrap();
    let notice: Timestamp = world.status()["targets"][0]["notice"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(seen.as_second(), notice.as_second());
    let deliveries = &world.status()["deliveries"];
    assert_eq!(deliveries[0]["delivered"], 2, "{deliveries}");
    stop(spotsim);
}

#[test]
fn each_instance_has_events_of_its_own() {
    let Some(world) = World::new(2) else { return };
    let other = NetNs::new();
    other.hold_imds_addresses();
    let _upstream = Upstream::start(&world.lab, &[]);
    let _served = serve_another(&world.lab, &other);
    let _one = world.place(0).sleeper();
    let _two = world.lab.place(&other, &world.cgroups[1]).sleeper();
    let spotsim = world.attach(&["--upstream", "real"]);
    let events = world.first_events(2);
    let mut ids: Vec<_> = events
        .iter()
        .map(|event| event["detail"]["instance-id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, ["i-0a1b2c3d4e5f60718", ANOTHER]);
    stop(spotsim);
}

/// What a target's instance is, is not to be asked of it any more when nobody is left in it.
#[test]
fn who_was_ended_was_on_its_own_instance() {
    let Some(world) = World::new(1) else { return };
    let other = NetNs::new();
    other.hold_imds_addresses();
    // Where spotsim itself is, another instance answers.
    let _upstream = Upstream::start(&world.lab, &[]);
    let _served = serve_another(&world.lab, &other);
    let _workload = world.lab.place(&other, &world.cgroups[0]).sleeper();
    let options = ["--lead", "1s", "--at-deadline", "kill", "--yes"];
    let spotsim = world.attach(&[&["--upstream", "real"][..], &options].concat());
    let events = world.first_events(3);
    assert_eq!(states(&events), ["shutting-down", "terminated"]);
    for event in &events {
        assert_eq!(event["detail"]["instance-id"], ANOTHER, "{event}");
    }
    stop(spotsim);
}

/// An instance is down when all that was on it is.
#[test]
fn targets_on_one_instance_go_down_together() {
    let Some(world) = World::new(2) else { return };
    let _quick = world.place(0).sleeper();
    let script = "trap '' TERM; echo up; while :; do sleep 0.1; done";
    let mut stubborn = Running::start(world.place(1).command_line(["sh", "-c", script]));
    stubborn.stdout_line("up", 0);
    let options = ["--at-deadline", "term", "--grace", "5s", "--yes"];
    let spotsim =
        world.attach(&[&["--upstream", "synthetic", "--lead", "1s"][..], &options].concat());
    wait_until("the quick one's end", || {
        (world.effects()[0].as_deref() == Some("done")).then_some(())
    });
    assert_eq!(states(&world.first_events(2)), ["shutting-down"]);
    stubborn.finish();
    assert_eq!(
        states(&world.first_events(3)),
        ["shutting-down", "terminated"]
    );
    sleep(Duration::from_millis(300));
    assert_eq!(world.events().len(), 3);
    stop(spotsim);
}

#[test]
fn each_turn_of_a_stagger_and_each_trigger_has_its_event() {
    let Some(world) = World::new(3) else { return };
    let staggered = ["--upstream", "synthetic", "--stagger", "600ms"];
    let spotsim = world.attach(&staggered);
    assert_eq!(kinds(&world.first_events(3)), [WARNING; 3]);
    let second = world.path(1);
    world.said(&["cancel", "one"]);
    world.said(&[
        "trigger",
        "one",
        "--cgroup",
        &second,
        "--rebalance-after",
        "0s",
    ]);
    let events = world.first_events(4);
    assert_eq!(kinds(&events)[3], REBALANCE);
    sleep(Duration::from_millis(300));
    assert_eq!(world.events().len(), 4, "to cancel is no occasion");
    stop(spotsim);
}

#[test]
fn an_instance_that_is_not_known_has_no_events_and_its_workload_its_notice() {
    let Some(world) = World::new(1) else { return };
    // Nothing answers at the addresses of IMDS.
    let _workload = world.place(0).sleeper();
    let mut spotsim = world.attach(&["--upstream", "real"]);
    assert!(sees(&world.place(0)));
    spotsim.stderr_line("no event is sent: the instance is not known", 0);
    assert!(world.events().is_empty());
    stop(spotsim);
}

#[test]
fn at_the_deadline_something_is_done_and_told() {
    let Some(world) = World::new(2) else { return };
    let workloads = [0, 1].map(|index| world.place(index).sleeper());
    let spotsim = world.attach(&[
        "--upstream",
        "synthetic",
        "--lead",
        "1s",
        "--stagger",
        "5s",
        "--at-deadline",
        "kill",
        "--yes",
    ]);
    wait_until("the first one's end", || {
        world.cgroups[0].processes().is_empty().then_some(())
    });
    // The next one's turn is to come.
    assert_eq!(world.cgroups[1].processes().len(), 1);
    wait_until("that it is done", || {
        (world.effects() == [Some("done".to_owned()), None]).then_some(())
    });
    let status = world.said(&["status"]);
    assert!(status.contains(": done "), "{status}");
    let events = world.first_events(6);
    let expected = ["shutting-down", "terminated", "shutting-down", "terminated"];
    assert_eq!(states(&events), expected);
    for mut workload in workloads {
        assert!(workload.has_ended());
    }
    stop(spotsim);
}

#[test]
fn what_is_canceled_before_its_deadline_is_not_done() {
    let Some(world) = World::new(1) else { return };
    let mut workload = world.place(0).sleeper();
    let spotsim = world.attach(&[
        "--upstream",
        "synthetic",
        "--lead",
        "2s",
        "--at-deadline",
        "kill",
        "--yes",
    ]);
    world.first_events(1);
    world.said(&["cancel", "one"]);
    sleep(Duration::from_secs(4));
    assert!(!workload.has_ended());
    assert_eq!(kinds(&world.events()), [WARNING]);
    // As long as it runs, another trigger has its own deadline.
    world.said(&["trigger", "one", "--lead", "1s"]);
    wait_until("its end", || workload.has_ended().then_some(()));
    stop(spotsim);
}

#[test]
fn who_is_frozen_is_thawed_when_it_is_canceled() {
    let Some(world) = World::new(1) else { return };
    let _workload = world.place(0).sleeper();
    let frozen = || is_frozen(world.cgroups[0].directory()).then_some(());
    let spotsim = world.attach(&[
        "--upstream",
        "synthetic",
        "--lead",
        "1s",
        "--at-deadline",
        "freeze",
        "--yes",
    ]);
    wait_until("that it is frozen", frozen);
    wait_until("that it is done", || {
        (world.effects() == [Some("done".to_owned())]).then_some(())
    });
    world.said(&["cancel", "one"]);
    wait_until("that it is thawed", || frozen().is_none().then_some(()));
    assert_eq!(world.effects(), [None]);
    world.said(&["trigger", "one", "--lead", "1s"]);
    wait_until("that it is frozen again", frozen);
    stop(spotsim);
    assert!(frozen().is_none());
}

/// Who starts in the target afterwards is left alone.
#[test]
fn what_is_done_at_a_deadline_is_done_once() {
    let Some(world) = World::new(1) else { return };
    let above = &world.lab.target;
    let first = world.place(0).sleeper();
    let spotsim = world.attach_to(
        &[above.path().display().to_string()],
        &[
            "--upstream",
            "synthetic",
            "--lead",
            "1s",
            "--at-deadline",
            "kill",
            "--yes",
        ],
    );
    first.finish_within(Duration::from_secs(5));
    let mut later = world.place(0).sleeper();
    assert!(sees(&world.place(0)));
    sleep(Duration::from_secs(2));
    assert!(!later.has_ended());
    stop(spotsim);
}
