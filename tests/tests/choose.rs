//! Targets that need no container runtime: processes, units of systemd, cgroups, and several of
//! them at once.

use serde_json::{Value, json};
use tests::{Cgroup, Finished, Lab, Place, Running, Spotsim, run, wait_until};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";

fn path(cgroup: &Cgroup) -> String {
    cgroup.path().display().to_string()
}

/// `spotsim attach` with these options, under the ID `one`, once it is armed.
fn attach(lab: &Lab, options: &[&str]) -> Running {
    let args = ["attach", "--id", "one", "--upstream", "synthetic"];
    let mut spotsim = Running::start(Spotsim::command(lab, &[&args, options].concat()));
    spotsim.stdout_line("armed: ", 0);
    spotsim
}

/// What it refuses, in one line.
fn refused(lab: &Lab, options: &[&str]) -> String {
    let finished = run(Spotsim::command(lab, &[&["attach"], options].concat()), b"");
    let Finished { code, stderr, .. } = &finished;
    assert_eq!(*code, 1, "{options:?}: {stderr}");
    assert_eq!(finished.text(), "", "{options:?}");
    assert_eq!(stderr.lines().count(), 1, "{options:?}: {stderr}");
    stderr.clone()
}

fn said(lab: &Lab, args: &[&str]) -> String {
    run(Spotsim::command(lab, args), b"").expect(&args.join(" "))
}

/// The targets' names.
fn names(lab: &Lab) -> Vec<String> {
    let status: Value = serde_json::from_str(&said(lab, &["status", "--json"])).unwrap();
    let targets = status["targets"].as_array().unwrap();
    let name = |target: &Value| target["name"].as_str().unwrap().to_owned();
    targets.iter().map(name).collect()
}

/// The rows that a dry run shows.
fn dry_run(lab: &Lab, options: &[&str]) -> Vec<Value> {
    let args = ["attach", "--dry-run", "--json"];
    let shown = said(lab, &[&args, options].concat());
    assert_eq!(shown.lines().count(), 1, "{shown}");
    let rows: Value = serde_json::from_str(&shown).unwrap();
    rows.as_array().unwrap().clone()
}

/// Whether a client there sees the notice. Without an interception it reaches nothing at all.
fn sees(place: &Place) -> bool {
    let answer = place.try_send(tests::Via::V4, &tests::get(NOTICE));
    answer.text().contains(" 200 OK\r\n")
}

/// A lab, and a slice at the top of the hierarchy, where systemd has its own.
struct Slices {
    lab: Lab,
    slice: Cgroup,
}

impl Slices {
    fn new() -> Option<Self> {
        Some(Self {
            lab: Lab::bare()?,
            slice: Cgroup::slice().unwrap(),
        })
    }

    fn place(&self, cgroup: &Cgroup) -> Place {
        self.lab.place(&self.lab.node, cgroup)
    }

    /// A name that no unit of the machine has.
    fn unit(&self, name: &str) -> String {
        let of_this_test = path(&self.slice).replace('/', "");
        format!("{name}-{}", of_this_test.trim_end_matches(".slice"))
    }
}

#[test]
fn the_cgroup_that_a_process_is_in() {
    let Some(lab) = Lab::bare() else { return };
    let workload = lab.workload_process();
    let pid = workload.pid().to_string();
    let cgroup = path(&lab.target);

    let rows = dry_run(&lab, &["--pid", &pid]);
    let name = format!("process {pid}");
    let namespace = lab.node.name().display().to_string();
    let number = namespace.trim_start_matches("net:[").trim_end_matches(']');
    let expected = json!({
        "name": name, "kind": "process", "pid": workload.pid(), "cgroup": cgroup,
        "network_namespaces": [number.parse::<u64>().unwrap()],
        "in_host_network": false, "refused": null,
    });
    assert_eq!(rows, [expected]);
    assert!(!sees(&lab.inside()), "nothing is attached");

    let _spotsim = attach(&lab, &["--pid", &pid]);
    assert_eq!(names(&lab), [name]);
    assert!(sees(&lab.inside()));
    assert!(!sees(&lab.outside()));
}

#[test]
fn a_process_that_cannot_be_chosen() {
    let Some(lab) = Lab::bare() else { return };
    // Beside spotsim, in its cgroup.
    let beside = lab.daemon_place().sleeper();
    let line = refused(&lab, &["--pid", &beside.pid().to_string()]);
    let words = format!("process {}: cgroup {}", beside.pid(), path(&lab.daemon));
    assert!(line.contains(&words), "{line}");
    assert!(line.contains("contains spotsim itself"), "{line}");

    // More than there can be.
    let line = refused(&lab, &["--pid", "4194305"]);
    assert!(line.contains("no such process: 4194305"), "{line}");
    // A good one beside it is not attached either.
    let target = path(&lab.target);
    let line = refused(&lab, &["--cgroup", &target, "--pid", "4194305"]);
    assert!(line.contains("no such process: 4194305"), "{line}");
}

#[test]
fn a_unit_is_found_in_its_slice_and_nowhere_else() {
    let Some(all) = Slices::new() else { return };
    let Slices { lab, slice } = &all;
    let name = all.unit("web");
    let service = format!("{name}.service");

    // A unit of a container's systemd, and one of a user's.
    let machines = ["docker-0123.scope", "user@1000.service"].map(|name| slice.child(name));
    let slices = machines.each_ref().map(|above| above.child("system.slice"));
    let others = slices.each_ref().map(|slice| slice.child(&service));
    let line = refused(lab, &["--unit", &name]);
    assert!(
        line.contains(&format!("no running unit {service}")),
        "{line}"
    );

    let inner = slice.child("inner.slice");
    let unit = inner.child(&service);
    let rows = dry_run(lab, &["--unit", &name]);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["name"], format!("unit {name}"));
    assert_eq!(rows[0]["kind"], "unit");
    assert_eq!(rows[0]["cgroup"], path(&unit));

    let _spotsim = attach(lab, &["--unit", &service]);
    assert!(sees(&all.place(&unit)));
    for other in &others {
        assert!(!sees(&all.place(other)));
    }
}

#[test]
fn a_unit_that_restarts_is_followed() {
    let Some(all) = Slices::new() else { return };
    let Slices { lab, slice } = &all;
    let name = all.unit("web");
    let service = format!("{name}.service");
    let unit = slice.child(&service);
    let mut spotsim = attach(lab, &["--unit", &name]);
    assert!(sees(&all.place(&unit)));
    let before = format!("unit {name}");
    for _ in 0..3 {
        unit_ends(&mut spotsim, slice, &service);
        assert_eq!(names(lab), [""; 0]);
        let again = slice.child(&service);
        wait_until("its return", || {
            (names(lab) == [before.as_str()]).then_some(())
        });
        assert!(sees(&all.place(&again)));
        // The directory stays for the next turn.
        std::mem::forget(again);
    }
    assert!(!spotsim.has_ended());
}

/// Removes a unit's cgroup, and waits until that was noticed.
fn unit_ends(spotsim: &mut Running, slice: &Cgroup, service: &str) {
    let from = spotsim.stderr().len();
    let directory = slice.directory().join(service);
    wait_until("an empty cgroup", || std::fs::remove_dir(&directory).ok());
    let name = service.trim_end_matches(".service");
    spotsim.stderr_line(&format!("unit {name} "), from);
}

#[test]
fn a_unit_that_is_chosen_once_is_not_followed() {
    let Some(all) = Slices::new() else { return };
    let Slices { lab, slice } = &all;
    let name = all.unit("web");
    let unit = slice.child(&format!("{name}.service"));
    let spotsim = attach(lab, &["--unit", &name, "--once"]);
    assert!(sees(&all.place(&unit)));
    unit.remove();
    let finished = spotsim.finish();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(
        finished.stderr.ends_with("detached: no target is left\n"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_unit_that_comes_later_is_waited_for() {
    let Some(all) = Slices::new() else { return };
    let Slices { lab, slice } = &all;
    let name = all.unit("web");
    assert_eq!(dry_run(lab, &["--unit", &name, "--wait"]), [Value::Null; 0]);
    let mut spotsim = attach(lab, &["--unit", &name, "--wait"]);
    assert!(
        spotsim.stdout().starts_with("armed: no target yet, in "),
        "{}",
        spotsim.stdout()
    );
    assert_eq!(names(lab), [""; 0]);
    let unit = slice.child(&format!("{name}.service"));
    wait_until("it is attached", || (names(lab).len() == 1).then_some(()));
    assert!(sees(&all.place(&unit)));
    unit.remove();
    wait_until("its end", || names(lab).is_empty().then_some(()));
    assert!(!spotsim.has_ended(), "{}", spotsim.stderr());
}

#[test]
fn several_kinds_at_once_and_each_cgroup_once() {
    let Some(all) = Slices::new() else { return };
    let Slices { lab, slice } = &all;
    let name = all.unit("web");
    let unit = slice.child(&format!("{name}.service"));
    let workload = lab.workload_process();
    let pid = workload.pid().to_string();
    let [target, of_unit] = [&lab.target, &unit].map(path);
    let full = lab.target.directory().to_str().unwrap();
    let options = [
        "--unit", &name, "--cgroup", &target, "--pid", &pid, "--cgroup", full, "--cgroup", &of_unit,
    ];
    let rows = dry_run(lab, &options);
    let shown: Vec<_> = rows.iter().map(|row| &row["name"]).collect();
    let expected = [format!("cgroup {target}"), format!("cgroup {of_unit}")];
    assert_eq!(shown, [&expected[0], &expected[1]]);

    let beside = path(&lab.beside);
    let options = ["--unit", &name, "--cgroup", &beside, "--pid", &pid];
    let spotsim = attach(lab, &options);
    let names = names(lab);
    let expected = [
        format!("cgroup {beside}"),
        format!("process {pid}"),
        format!("unit {name}"),
    ];
    assert_eq!(names, expected);
    let line = spotsim.stdout();
    assert!(
        line.contains(&format!(
            "armed: {} in 1 network namespace;",
            expected.join(", ")
        )),
        "{line}"
    );
    for place in [lab.inside(), lab.outside(), all.place(&unit)] {
        assert!(sees(&place));
    }
    assert!(!sees(&lab.place(&lab.node, slice)));
    // Each by its own name, while it runs.
    let told = said(lab, &["cancel", "--unit", &name]);
    assert_eq!(told, format!("one: unit {name}: nothing announced\n"));
    assert!(!sees_notice(&all.place(&unit)));
    let told = said(lab, &["cancel", "--pid", &pid]);
    assert_eq!(told, format!("one: process {pid}: nothing announced\n"));
    assert!(!sees_notice(&lab.inside()));
    assert!(sees_notice(&lab.outside()));
}

fn sees_notice(place: &Place) -> bool {
    place.get(NOTICE).status() == 200
}

#[test]
fn some_of_those_that_are_named() {
    let Some(lab) = Lab::bare() else { return };
    let children = ["a", "b", "c", "d"].map(|name| lab.target.child(name));
    let mut paths = children.each_ref().map(path);
    let some = |paths: &[String], select: &str| -> Vec<Value> {
        let mut options = vec!["--select", select, "--seed", "7"];
        options.extend(paths.iter().flat_map(|path| ["--cgroup", path]));
        let rows = dry_run(&lab, &options);
        rows.into_iter().map(|row| row["cgroup"].clone()).collect()
    };
    let two = some(&paths, "count(2)");
    assert_eq!(two.len(), 2);
    assert_eq!(some(&paths, "percent(50)"), two);
    paths.reverse();
    assert_eq!(
        some(&paths, "count(2)"),
        two,
        "in whatever order they are named"
    );
    assert_eq!(some(&paths, "count(4)").len(), 4);

    let above = path(&lab.target);
    let line = refused(&lab, &["--cgroup", &above, "--select", "count(2)"]);
    assert!(line.contains("count(2): only one matches"), "{line}");

    // They are chosen once, and which ones is said.
    let mut options = vec!["--select", "count(2)", "--seed", "7"];
    options.extend(paths.iter().flat_map(|path| ["--cgroup", path]));
    let spotsim = attach(&lab, &options);
    assert!(
        spotsim.stderr().contains("chose 2 by count(2), --seed 7\n"),
        "{}",
        spotsim.stderr()
    );
    let expected: Vec<_> = two
        .iter()
        .map(|path| format!("cgroup {}", path.as_str().unwrap()))
        .collect();
    assert_eq!(names(&lab), expected);
}
