//! Clocks: what each target of one interception is shown, and when.

use std::{fs, process::Command, thread::sleep, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tests::{Cgroup, Finished, Lab, NetNs, Place, Running, Spotsim, run, wait_until};

const ACTION: &str = "/latest/meta-data/spot/instance-action";
const TIME: &str = "/latest/meta-data/spot/termination-time";
const SPOT: &str = "/latest/meta-data/spot/";

fn path(cgroup: &Cgroup) -> String {
    cgroup.path().display().to_string()
}

/// `spotsim attach` to these cgroups, under the ID `one`, once it is armed.
fn attach(lab: &Lab, cgroups: &[&Cgroup], options: &[&str]) -> Running {
    let paths: Vec<_> = cgroups.iter().map(|cgroup| path(cgroup)).collect();
    let mut args = vec!["attach", "--id", "one", "--upstream", "synthetic"];
    args.extend(paths.iter().flat_map(|path| ["--cgroup", path]));
    args.extend(options);
    let mut spotsim = Running::start(Spotsim::command(lab, &args));
    spotsim.stdout_line("armed: ", 0);
    spotsim
}

/// What a verb prints that must succeed.
fn said(lab: &Lab, args: &[&str]) -> String {
    run(Spotsim::command(lab, args), b"").expect(&args.join(" "))
}

fn status(lab: &Lab) -> Value {
    serde_json::from_str(&said(lab, &["status", "--json"])).unwrap()
}

fn targets(lab: &Lab) -> Vec<Value> {
    status(lab)["targets"].as_array().unwrap().clone()
}

fn at(time: &Value) -> Timestamp {
    let time = time.as_str().unwrap_or_else(|| panic!("{time} is no time"));
    time.parse().unwrap()
}

/// How much later the notice appears to each target than to the one before.
fn gaps(lab: &Lab) -> Vec<SignedDuration> {
    let targets = targets(lab);
    let turns: Vec<_> = targets.iter().map(|target| at(&target["notice"])).collect();
    let gap = |pair: &[Timestamp]| pair[1].duration_since(pair[0]);
    turns.windows(2).map(gap).collect()
}

fn sees(place: &Place) -> bool {
    match place.get(ACTION).status() {
        200 => true,
        404 => false,
        other => panic!("{other}"),
    }
}

/// What a target sees, all of which tells the same: listing, leaves, and the leaf again.
fn notice(place: &Place) -> Option<String> {
    loop {
        let before = place.get(ACTION);
        let (listing, time) = (place.get(SPOT), place.get(TIME));
        let after = place.get(ACTION);
        // Else it appeared in between.
        if before.status() != after.status() {
            continue;
        }
        if before.status() == 404 {
            assert_eq!((listing.status(), time.status()), (404, 404));
            return None;
        }
        let (before, time) = (before.text(), time.text());
        assert_eq!(listing.text(), "instance-action\ntermination-time");
        assert_eq!(before, after.text());
        assert_eq!(
            before,
            format!(r#"{{"action": "terminate", "time": "{time}"}}"#)
        );
        return Some(time);
    }
}

/// Three cgroups, of which the first two share a network namespace.
struct Three {
    lab: Lab,
    cgroups: [Cgroup; 3],
    places: [Place; 3],
    _namespace: NetNs,
    _workload: Running,
}

impl Three {
    fn new() -> Option<Self> {
        let lab = Lab::bare()?;
        let cgroups = ["a", "b", "c"].map(|name| lab.target.child(name));
        let namespace = NetNs::new();
        let [a, b, c] = &cgroups;
        let places = [
            lab.place(&lab.node, a),
            lab.place(&lab.node, b),
            lab.place(&namespace, c),
        ];
        Some(Self {
            _workload: places[2].sleeper(),
            _namespace: namespace,
            places,
            cgroups,
            lab,
        })
    }

    fn attach(&self, options: &[&str]) -> Running {
        attach(&self.lab, &self.cgroups.each_ref(), options)
    }

    /// Which of them see a notice.
    fn see(&self) -> [bool; 3] {
        self.places.each_ref().map(sees)
    }
}

#[test]
fn each_target_sees_it_in_its_turn() {
    let Some(three) = Three::new() else { return };
    let _spotsim = three.attach(&["--notice-after", "500ms", "--stagger", "700ms"]);
    assert_eq!(gaps(&three.lab), [SignedDuration::from_millis(700); 2]);
    let targets = targets(&three.lab);
    let mut seen = [false; 3];
    while seen != [true; 3] {
        for ((place, target), seen) in three.places.iter().zip(&targets).zip(&mut seen) {
            let (turn, before) = (at(&target["notice"]), Timestamp::now());
            match notice(place) {
                Some(deadline) => {
                    assert!(Timestamp::now() >= turn, "too early");
                    assert_eq!(target["deadline"], deadline.as_str());
                    *seen = true;
                }
                None => assert!(before < turn, "too late"),
            }
        }
    }
    for (target, cgroup) in targets.iter().zip(&three.cgroups) {
        assert_eq!(target["cgroup"], path(cgroup));
        let deadline = at(&target["deadline"]);
        let lead = deadline.duration_since(at(&target["notice"]));
        assert!((120_000..121_000).contains(&lead.as_millis()), "{target}");
    }
}

#[test]
fn status_shows_each_its_own_clock() {
    let Some(three) = Three::new() else { return };
    let lab = &three.lab;
    let _spotsim = three.attach(&["--notice-after", "1h", "--stagger", "1h"]);
    let status = status(lab);
    assert_eq!(status["own_clocks"], true);
    assert_eq!(status["targets"][0]["timeline"], status["timeline"]);
    for target in status["targets"].as_array().unwrap() {
        let notice = target["notice"].as_str().unwrap();
        let second = notice.split('.').next().unwrap();
        let timeline = target["timeline"].as_str().unwrap();
        assert!(timeline.contains(second.trim_end_matches('Z')), "{target}");
        // Before it, the life cycle is there already.
        assert_eq!(target["next"], target["notice"]);
    }
    let text = said(lab, &["status"]);
    let rows: Vec<Vec<_>> = text
        .lines()
        .skip_while(|line| !line.starts_with("TARGET"))
        .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(rows.len(), 4, "{text}");
    for ((row, cgroup), hours) in rows[1..].iter().zip(&three.cgroups).zip(0..) {
        let path = path(cgroup);
        assert_eq!(row[0].trim(), format!("cgroup {path}"), "{text}");
        let about = format!(
            "in {}",
            if hours == 0 {
                "59m".into()
            } else {
                format!("{hours}h 59m")
            }
        );
        let exact = format!("in {}h", hours + 1);
        let soon = |cell: &str| cell.trim().starts_with(&about) || cell.trim() == exact;
        assert!(soon(row[1]), "{text}");
        assert_eq!(row[4].trim(), path, "{text}");
    }
}

#[test]
fn in_plans_of_each_format_and_by_trigger() {
    const PLANS: [(&str, &str); 3] = [
        (
            "plan.toml",
            "stagger = \"5s\"\n[notice]\nappears = \"1h\"\n",
        ),
        ("plan.yaml", "stagger: 5s\nnotice: {appears: 1h}\n"),
        (
            "plan.json",
            r#"{"stagger": "5s", "notice": {"appears": "1h"}}"#,
        ),
    ];
    let Some(three) = Three::new() else { return };
    let lab = &three.lab;
    let turns = [SignedDuration::from_secs(5); 2];
    for (name, plan) in PLANS {
        let file = lab.directory.join(name);
        fs::write(&file, plan).unwrap();
        let file = file.to_str().unwrap();
        let mut spotsim = three.attach(&["--plan", file]);
        assert_eq!(gaps(lab), turns, "{name}");
        said(lab, &["cancel"]);
        assert_eq!(status(lab)["own_clocks"], false);
        let told = said(lab, &["trigger", "--plan", file]);
        assert_eq!(gaps(lab), turns, "{name}");
        for (line, cgroup) in told.lines().zip(&three.cgroups) {
            let begin = format!("one: cgroup {}: notice (terminate) at ", path(cgroup));
            assert!(line.starts_with(&begin), "{told}");
        }
        assert_eq!(told.lines().count(), 3, "{told}");
        spotsim.kill();
    }
    let _spotsim = three.attach(&["--hold"]);
    said(lab, &["trigger", "--notice-after", "1h", "--stagger", "5s"]);
    assert_eq!(gaps(lab), turns);
    said(lab, &["cancel"]);
    let (_, plan) = PLANS[2];
    curl(lab, "trigger", &["-d", plan]).expect("curl");
    assert_eq!(gaps(lab), turns);
}

/// Asks by the control socket.
fn curl(lab: &Lab, path: &str, options: &[&str]) -> Finished {
    let mut command = curl_command(lab, path);
    command.args(options);
    run(command, b"")
}

fn curl_command(lab: &Lab, path: &str) -> Command {
    let mut command = lab.daemon_place().command("curl");
    command
        .args(["-sS", "--fail-with-body", "-X", "POST", "--unix-socket"])
        .arg(lab.run_dir().join("one.sock"))
        .arg(format!("http://spotsim/{path}"));
    command
}

/// The innermost target that a client is in counts, in whatever order they were named.
#[test]
fn targets_within_targets_have_their_own_clocks() {
    let Some(lab) = Lab::bare() else { return };
    let inner = lab.target.child("inner");
    let innermost = inner.child("no target itself");
    let places = [&lab.target, &inner, &innermost].map(|cgroup| lab.place(&lab.node, cgroup));
    let staggered = ["--stagger", "1h"];
    let mut spotsim = attach(&lab, &[&lab.target, &inner], &staggered);
    assert_eq!(places.each_ref().map(sees), [true, false, false]);
    spotsim.kill();
    let _spotsim = attach(&lab, &[&inner, &lab.target], &staggered);
    assert_eq!(places.each_ref().map(sees), [false, true, true]);
}

#[test]
fn some_of_the_targets_are_triggered_and_canceled() {
    let Some(three) = Three::new() else { return };
    let lab = &three.lab;
    let _spotsim = three.attach(&["--hold"]);
    let [a, b, c] = three.cgroups.each_ref().map(path);
    let told = said(lab, &["trigger", "one", "--cgroup", &a, "--cgroup", &c]);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(lines[0].starts_with(&format!("one: cgroup {a}: notice (terminate) at ")));
    assert!(lines[1].starts_with(&format!("one: cgroup {c}: notice (terminate) at ")));
    assert_eq!(three.see(), [true, false, true]);

    let told = said(lab, &["cancel", "one", "--cgroup", &a]);
    assert_eq!(told, format!("one: cgroup {a}: nothing announced\n"));
    assert_eq!(three.see(), [false, false, true]);
    // The rest goes on as it was.
    said(lab, &["trigger", "--cgroup", &b, "--lead", "5m"]);
    assert_eq!(three.see(), [false, true, true]);
    // A cgroup above targets is all of those, and nothing named is all there are.
    said(lab, &["cancel", "--cgroup", &path(&lab.target)]);
    assert_eq!(three.see(), [false; 3]);
    said(lab, &["trigger"]);
    assert_eq!(three.see(), [true; 3]);
    // The full directory is another name of it.
    let directory = three.cgroups[1].directory().to_str().unwrap();
    said(lab, &["cancel", "--cgroup", directory]);
    assert_eq!(three.see(), [true, false, true]);
    said(lab, &["cancel"]);
    assert_eq!(three.see(), [false; 3]);

    // By the control socket.
    let query = format!("?cgroup={a}&cgroup={b}");
    curl(lab, &format!("trigger{query}"), &[]).expect("curl");
    assert_eq!(three.see(), [true, true, false]);
    let encoded = a.replace('/', "%2F").replace('-', "%2d");
    curl(lab, &format!("cancel?cgroup={encoded}"), &[]).expect("curl");
    assert_eq!(three.see(), [false, true, false]);
}

#[test]
fn some_are_chosen_at_random() {
    let Some(three) = Three::new() else { return };
    let lab = &three.lab;
    let _spotsim = three.attach(&["--hold"]);
    let above = path(&lab.target);
    let mut chosen = Vec::new();
    for seed in 0..8 {
        let seed = seed.to_string();
        let args = ["--cgroup", &above, "--select", "count(1)", "--seed", &seed];
        for _ in 0..2 {
            said(lab, &[&["trigger"], &args[..]].concat());
            chosen.push(three.see());
            // The same seed chooses the same.
            said(lab, &[&["cancel"], &args[..]].concat());
            assert_eq!(three.see(), [false; 3]);
        }
    }
    for (n, pair) in chosen.chunks(2).enumerate() {
        assert_eq!(pair[0], pair[1], "seed {n}");
        let count = pair[0].iter().filter(|sees| **sees).count();
        assert_eq!(count, 1, "seed {n}");
    }
    assert!(chosen.iter().any(|see| *see != chosen[0]), "{chosen:?}");
}

#[test]
fn what_cannot_be_chosen_changes_nothing() {
    let Some(three) = Three::new() else { return };
    let lab = &three.lab;
    let _spotsim = three.attach(&["--notice-after", "1h", "--stagger", "1h"]);
    let a = path(&three.cgroups[0]);
    let before = targets(lab);
    let refused = |args: &[&str], code: i32, line: &str| {
        for verb in ["trigger", "cancel"] {
            let finished = run(Spotsim::command(lab, &[&[verb, "one"], args].concat()), b"");
            let text = finished.text();
            assert_eq!((finished.code, text.as_str()), (code, ""), "{args:?}");
            assert_eq!(
                finished.stderr,
                format!("spotsim: error: {line}\n"),
                "{args:?}"
            );
            assert_eq!(targets(lab), before, "{args:?}");
        }
    };
    for missing in [
        ["--cgroup", "/no/such"],
        ["--unit", "nginx"],
        ["--pod", "default/web-0"],
        ["--container", "0123"],
        ["--pid", "1"],
        ["--selector", "app=web"],
    ] {
        let words = missing.join(" ");
        let line = format!("one: none of its targets is chosen by {words} (see `spotsim status`)");
        refused(&missing, 1, &line);
        // Nor is one that is there, if another is not.
        refused(&[&["--cgroup", &a], &missing[..]].concat(), 1, &line);
    }
    let above = path(&lab.target);
    let four = ["--cgroup", &above, "--select", "count(4)"];
    refused(&four, 1, "count(4): only 3 match");
    let seed = ["--cgroup", &a, "--seed", "3"];
    refused(&seed, 2, "--seed goes with --select count(N) or percent(N)");

    let bad = |query: &str, error: &str| {
        for verb in ["trigger", "cancel"] {
            let finished = curl(lab, &format!("{verb}?{query}"), &[]);
            let said: Value = serde_json::from_str(&finished.text()).unwrap();
            assert_eq!(said, serde_json::json!({"error": error}), "{query}");
            assert_eq!(targets(lab), before, "{query}");
        }
    };
    let words = "the query is not cgroup=PATH&cgroup=PATH, percent-encoded UTF-8";
    bad("pod=web", words);
    bad("cgroup=%ff", words);
    bad(
        &format!("cgroup={a}&cgroup=/no/such"),
        "no target of it is cgroup /no/such",
    );
    // A bad plan is refused for some, too.
    let plan = r#"{"notice": {"appears": "2m", "deadline": "1m"}}"#;
    let finished = curl(lab, &format!("trigger?cgroup={a}"), &["-d", plan]);
    assert!(
        finished.text().contains("before the notice appears"),
        "{}",
        finished.text()
    );
    assert_eq!(targets(lab), before);
}

/// A unit that restarts has another cgroup, and so another turn: the next.
#[test]
fn who_comes_later_has_the_next_turn() {
    let Some(lab) = Lab::bare() else { return };
    let slice = Cgroup::slice().unwrap();
    let unit = slice.child("late.service");
    let options = ["--unit", "late", "--notice-after", "1h", "--stagger", "10s"];
    let _spotsim = attach(&lab, &[&lab.target], &options);
    let before = targets(&lab);
    assert_eq!(gaps(&lab), [SignedDuration::from_secs(10)]);
    unit.remove();
    wait_until("its end", || (targets(&lab).len() == 1).then_some(()));
    let _unit = slice.child("late.service");
    wait_until("its return", || (targets(&lab).len() == 2).then_some(()));
    let after = targets(&lab);
    assert_eq!(after[0], before[0]);
    assert_eq!(after[1]["name"], "unit late");
    assert_eq!(gaps(&lab), [SignedDuration::from_secs(20)]);
}

/// The changes of the notice that one who watches was told of: to whom, and whether it came.
fn told(lines: &str) -> Vec<(Option<String>, bool)> {
    let whole = &lines[..lines.rfind('\n').map_or(0, |end| end + 1)];
    let messages = whole
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let notices = messages.filter(|message| {
        message["type"] == "announced" && message["path"] == "spot/instance-action"
    });
    let change = |message: Value| {
        let target = message
            .get("target")
            .map(|name| name.as_str().unwrap().to_owned());
        (target, message["value"].is_string())
    };
    notices.map(change).collect()
}

#[test]
fn who_watches_is_told_whose_clock_it_is() {
    let Some(three) = Three::new() else { return };
    let lab = &three.lab;
    let _spotsim = three.attach(&["--hold"]);
    let watch = |options: &[&str], first: &str| {
        let mut watch = Running::start(Spotsim::command(lab, &[&["watch"], options].concat()));
        watch.stdout_line(first, 0);
        watch
    };
    let json = watch(&["--json"], r#""type":"status""#);
    let text = watch(&[], "attach one: ");
    let names = three
        .cgroups
        .each_ref()
        .map(|cgroup| format!("cgroup {}", path(cgroup)));

    let mut expected = Vec::new();
    let mut tells = |new: Vec<(Option<&String>, bool)>| {
        expected.extend(new.into_iter().map(|(name, comes)| (name.cloned(), comes)));
        wait_until("what is announced", || {
            (told(&json.stdout()).len() >= expected.len()).then_some(())
        });
        // Nothing is told twice.
        sleep(Duration::from_millis(50));
        assert_eq!(told(&json.stdout()), expected);
    };
    said(lab, &["trigger"]);
    tells(vec![(None, true)]);
    said(lab, &["cancel"]);
    tells(vec![(None, false)]);
    said(lab, &["trigger", "--stagger", "300ms"]);
    tells(names.iter().map(|name| (Some(name), true)).collect());
    said(lab, &["cancel", "--cgroup", &path(&three.cgroups[1])]);
    tells(vec![(Some(&names[1]), false)]);
    said(lab, &["cancel"]);
    tells(vec![(Some(&names[0]), false), (Some(&names[2]), false)]);
    said(lab, &["trigger"]);
    tells(vec![(None, true)]);

    let to_all = "Z spot/instance-action is {";
    wait_until("the last change in text", || {
        (text.stdout().matches(to_all).count() >= 2).then_some(())
    });
    let text = text.stdout();
    for name in &names {
        let line = format!("Z {name}: spot/instance-action is {{");
        assert_eq!(text.matches(&line).count(), 1, "{text}");
    }
    let taken_back = format!("Z {}: spot/instance-action is taken back\n", names[1]);
    assert!(text.contains(&taken_back), "{text}");
    assert_eq!(text.matches(to_all).count(), 2, "{text}");
    assert!(
        text.contains("Z spot/instance-action is taken back\n"),
        "{text}"
    );
}

#[test]
fn a_terminal_shows_each_its_own() {
    let Some(three) = Three::new() else { return };
    let lab = &three.lab;
    let _spotsim = three.attach(&["--notice-after", "1h", "--stagger", "1h"]);
    let binary = tests::spotsim_binary();
    let command = format!(
        "stty cols 200 rows 50; exec {} watch --run-dir {}",
        binary.display(),
        lab.run_dir().display()
    );
    let line = ["script", "-q", "-e", "-c", &command, "/dev/null"];
    let mut command = lab.daemon_place().command_line(line);
    command.env("TERM", "xterm");
    let mut watch = Running::start(command);
    for cgroup in &three.cgroups {
        let words = format!("cgroup {}: notice in ", path(cgroup));
        wait_until("a target's clock", || {
            watch.stdout().contains(&words).then_some(())
        });
    }
    assert!(
        watch.stdout().contains("to each its own"),
        "{}",
        watch.stdout()
    );
    watch.kill();
}

/// Its first socket is made in the first target, and it connects from the second: by then its
/// own cgroup counts, and tells whose clock it sees.
#[test]
fn who_moved_sees_the_clock_of_where_it_is() {
    const MOVES: &str = r#"
import os, socket, sys
made = socket.socket()
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
made.connect(("169.254.169.254", 80))
open(sys.argv[2] + "/cgroup.procs", "w").write(str(os.getpid()))
made.sendall(b"GET /latest/meta-data/spot/instance-action HTTP/1.0\r\n\r\n")
print(made.recv(100).split()[1].decode())
"#;
    let Some(three) = Three::new() else { return };
    let [a, b, c] = &three.cgroups;
    let _spotsim = three.attach(&["--notice-after", "0s", "--stagger", "1h"]);
    assert_eq!(three.see(), [true, false, false]);
    // The last is where it is when it asks.
    for (to, at_last, status) in [(a, b, "200"), (b, a, "404"), (c, a, "404")] {
        let directories = [to, at_last].map(|cgroup| cgroup.directory().to_str().unwrap());
        let line = [["python3", "-c", MOVES].as_slice(), &directories].concat();
        let text = run(three.places[0].command_line(line), b"").expect("a process that moves");
        assert_eq!(text.trim(), status, "{to:?}");
    }
}
