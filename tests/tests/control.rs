//! Control while it runs: hold, trigger, cancel, detach, and what is refused.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{
    Finished, Lab, Response, Running, Spotsim, Upstream, attach_args, run, say, spotsim_binary,
    wait_until,
};

const ACTION: &str = "/latest/meta-data/spot/instance-action";
const TIME: &str = "/latest/meta-data/spot/termination-time";

/// Everything in which a notice can be seen.
const PATHS: [&str; 8] = [
    ACTION,
    TIME,
    "/latest/meta-data/spot/",
    "/latest/meta-data/",
    "/latest/meta-data/instance-life-cycle",
    "/latest/meta-data/events/recommendations/rebalance",
    "/latest/meta-data/events/maintenance/scheduled",
    "/latest/meta-data/autoscaling/target-lifecycle-state",
];

fn spotsim(lab: &Lab, args: &[&str]) -> Finished {
    run(Spotsim::command(lab, args), b"")
}

/// What a verb prints that must succeed.
fn said(lab: &Lab, args: &[&str]) -> String {
    spotsim(lab, args).expect(&args.join(" "))
}

/// Checks that a verb fails with exactly one line.
fn fails(lab: &Lab, args: &[&str], code: i32, line: &str) {
    let finished = spotsim(lab, args);
    let text = finished.text();
    let expected = format!("spotsim: error: {line}\n");
    let Finished { stderr, .. } = finished;
    assert_eq!((stderr, text.as_str()), (expected, ""), "{args:?}");
    assert_eq!(finished.code, code, "{args:?}");
}

/// What a target sees, without the times of the answers.
fn seen(lab: &Lab) -> Vec<(u16, String)> {
    let answers = PATHS.map(|path| lab.inside().get(path));
    let part = |answer: Response| (answer.status(), answer.text());
    answers.map(part).to_vec()
}

/// A lab with a held interception of this ID.
fn held(id: &str) -> Option<(Lab, Running, Running)> {
    let lab = Lab::new()?;
    let workload = lab.workload_process();
    let spotsim = Spotsim::hold(&lab, id, &[]);
    Some((lab, workload, spotsim))
}

/// The time in the line that `trigger` prints.
fn deadline(line: &str) -> &str {
    let (_, deadline) = line.trim_end().split_once("deadline ").expect(line);
    deadline
}

fn is_running(lab: &Lab, process: &mut Running, notice: &str) {
    assert!(!process.has_ended(), "{}", process.stderr());
    assert_eq!(lab.inside().get(ACTION).text(), notice);
}

#[test]
fn what_is_held_is_triggered_replaced_and_canceled() {
    let Some((lab, _workload, _spotsim)) = held("one") else {
        return;
    };
    let before = seen(&lab);
    assert_eq!((before[0].0, before[4].1.as_str()), (404, "spot"));

    let line = said(&lab, &["trigger", "--lead", "90s"]);
    let time = deadline(&line);
    assert!(line.starts_with("one: notice (terminate) at "), "{line}");
    let notice = format!(r#"{{"action": "terminate", "time": "{time}"}}"#);
    assert_eq!(lab.inside().get(ACTION).text(), notice);
    assert_eq!(lab.inside().get(TIME).text(), time);

    let replacing = [
        "trigger",
        "one",
        "--action",
        "stop",
        "--rebalance-after",
        "0s",
        "--life-cycle",
        "on-demand",
        "--scheduled",
        "system-reboot@1h",
        "--lifecycle-state",
        "Terminated",
    ];
    let line = said(&lab, &replacing);
    let notice = format!(r#"{{"action": "stop", "time": "{}"}}"#, deadline(&line));
    let now = seen(&lab);
    assert_eq!(now[0], (200, notice));
    assert_eq!(now[1].0, 404, "a stop has no termination-time");
    assert_eq!(now[2].1, "instance-action");
    assert_eq!(now[4].1, "on-demand");
    assert!(now[5..].iter().all(|answer| answer.0 == 200), "{now:?}");

    assert_eq!(said(&lab, &["cancel"]), "one: nothing announced\n");
    assert_eq!(seen(&lab), before, "nothing of it is left");
}

#[test]
fn a_plan_file_is_triggered() {
    let Some((lab, _workload, _spotsim)) = held("one") else {
        return;
    };
    let plan = lab.directory.join("plan.yaml");
    fs::write(&plan, "lifecycle-states:\n  - state: Standby\n").unwrap();
    said(&lab, &["trigger", "--plan", plan.to_str().unwrap()]);
    assert_eq!(lab.inside().get(PATHS[7]).text(), "Standby");
}

#[test]
fn from_its_return_on_every_request_sees_a_trigger() {
    let Some((lab, _workload, _spotsim)) = held("one") else {
        return;
    };
    let socket = lab.run_dir().join("one.sock");
    let mut took = Vec::new();
    for round in 0..100_u32 {
        let lead = format!(r#"{{"notice": {{"lead": "{}m"}}}}"#, round + 1);
        let began = Instant::now();
        let (status, answer) = ask(&socket, "POST", "/trigger", lead.as_bytes());
        took.push(began.elapsed());
        assert_eq!(status, 200, "{answer}");
        let deadline = answer["deadline"].as_str().unwrap();
        assert_eq!(lab.inside().get(TIME).text(), deadline, "round {round}");
    }
    took.sort();
    say(&format!(
        "a trigger's round trip: {:?}, the slowest of 100 {:?}",
        took[50], took[99]
    ));
}

/// A request to a control socket, and its answer.
fn ask(socket: &Path, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: spotsim\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // It may be refused before it is read.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).expect(body))
}

#[test]
fn a_detached_one_is_gone() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    let attached = Spotsim::attach(&lab, &["--id", "one"]);
    assert_eq!(lab.inside().get(ACTION).status(), 200);
    assert_eq!(said(&lab, &["detach"]), "one: detached\n");
    assert_eq!(lab.inside().get(ACTION), lab.outside().get(ACTION));
    let gone = format!("(looked in {})", lab.run_dir().display());
    let line = format!("no spotsim one is running, nor another {gone}");
    for verb in ["trigger", "cancel", "detach", "status", "watch"] {
        fails(&lab, &[verb, "one"], 1, &line);
        let line = format!("no spotsim is running {gone}");
        fails(&lab, &[verb], 1, &line);
    }
    assert_eq!(fs::read_dir(lab.run_dir()).unwrap().count(), 0);
    let finished = attached
        .into_process()
        .finish_within(Duration::from_secs(3));
    assert_eq!(finished.code, 0, "{}", finished.stderr);
}

#[test]
fn a_runs_command_goes_on_without_a_notice() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let script = r#"echo up; while read line; do
        curl -s -o /dev/null -w '%{http_code}\n' http://169.254.169.254/latest/meta-data/spot/instance-action
    done; exit 7"#;
    let options = ["run", "--id", "mine", "--upstream", "real", "--"];
    let args = [&options[..], &["sh", "-c", script]].concat();
    let mut running = Running::start(Spotsim::command(&lab, &args));
    running.stdout_line("up", 0);
    running.write(b"\n");
    running.stdout_line("200", 0);
    assert_eq!(said(&lab, &["detach"]), "mine: detached\n");
    assert!(!lab.run_dir().join("mine.sock").exists());
    running.write(b"\n");
    running.stdout_line("404", 0);
    assert_eq!(running.finish().code, 7);
}

#[test]
fn one_that_serves_is_controlled_too() {
    let Some(lab) = Lab::new() else { return };
    let args = ["serve", "--listen", "127.0.0.1:0", "--hold", "--id", "own"];
    let mut serving = Running::start(Spotsim::command(&lab, &args));
    let line = serving.stdout_line("serving: ", 0);
    let (_, url) = line.split_once("serving: ").unwrap();
    let url = url.split(';').next().unwrap();
    let get = || {
        let command = [
            "curl",
            "-s",
            "-w",
            " %{http_code}",
            &format!("{url}{ACTION}"),
        ];
        run(lab.daemon_place().command_line(command), b"").expect("curl")
    };
    assert!(get().ends_with(" 404"));
    said(&lab, &["trigger"]);
    assert!(get().ends_with("\"} 200"));
    let list = said(&lab, &["list"]);
    let row: Vec<_> = list.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[1], row[3]), ("own", "serve", url));
    assert_eq!(said(&lab, &["detach", "own"]), "own: detached\n");
    assert_eq!(serving.finish().code, 0);
}

#[test]
fn list_and_status_tell_what_is_announced() {
    let Some(lab) = Lab::new() else { return };
    let none = spotsim(&lab, &["list"]);
    assert_eq!((none.code, none.text().as_str()), (0, ""));
    let looked = format!(
        "no spotsim is running (looked in {})\n",
        lab.run_dir().display()
    );
    assert_eq!(none.stderr, looked);
    assert_eq!(said(&lab, &["list", "--json"]), "[]\n");

    let _workload = lab.workload_process();
    let one = Spotsim::hold(&lab, "one", &[]);
    let path = lab.beside.path();
    let path = path.to_str().unwrap();
    let options = [
        "attach",
        "--cgroup",
        path,
        "--id",
        "two",
        "--notice-after",
        "1h",
    ];
    let mut two = Running::start(Spotsim::command(&lab, &options));
    two.stdout_line("armed: ", 0);
    lab.inside().get(ACTION);
    said(&lab, &["trigger", "one", "--lead", "1h"]);
    lab.inside().get(ACTION);

    let list = said(&lab, &["list"]);
    let lines: Vec<Vec<_>> = list
        .lines()
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect()
        })
        .collect();
    assert_eq!(
        lines[0],
        ["ID", "VERB", "PID", "TARGETS", "UPSTREAM", "ANNOUNCED"]
    );
    let target = lab.target.path();
    let pid = one.pid().to_string();
    let expected = ["one", "attach", &pid, target.to_str().unwrap(), "synthetic"];
    assert_eq!(lines[1][..5], expected);
    let announced = "instance-action, termination-time; deadline in 1h";
    assert!(
        lines[1][5].starts_with(announced) || lines[1][5].contains("in 59m"),
        "{list}"
    );
    assert_eq!(lines[2][..2], ["two", "attach"]);
    assert!(lines[2][5].starts_with("nothing yet; next in "), "{list}");

    let json: Value = serde_json::from_str(&said(&lab, &["list", "--json"])).unwrap();
    let ids: Vec<_> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["id"])
        .collect();
    assert_eq!(ids, ["one", "two"]);
    let status: Value = serde_json::from_str(&said(&lab, &["status", "one", "--json"])).unwrap();
    assert_eq!(status, json[0]);
    assert_eq!(status["verb"], "attach");
    assert_eq!(status["pid"], one.pid());
    assert_eq!(status["own_clocks"], false);
    let of_target = serde_json::json!([{
        "name": format!("cgroup {}", target.display()), "kind": "cgroup", "cgroup": target,
        "timeline": status["timeline"], "notice": status["announced"][1]["since"],
        "deadline": status["deadline"], "next": null,
    }]);
    assert_eq!(status["targets"], of_target);
    assert_eq!(status["upstream"], "synthetic");
    assert_eq!(status["held"], false);
    assert_eq!(status["announced"][1]["path"], "spot/instance-action");
    let notice = lab.inside().get(ACTION).text();
    assert_eq!(status["announced"][1]["value"], notice.as_str());
    assert_eq!(status["deadline"], lab.inside().get(TIME).text().as_str());
    assert_eq!(status["next"], Value::Null);
    let counts = serde_json::json!({
        "requests": 2, "faked": 1, "passed": 1, "unanswered": 0, "missed_connects": 0
    });
    assert_eq!(status["counts"], counts);

    let text = said(&lab, &["status", "two"]);
    let step = text
        .lines()
        .find(|line| line.contains("spot/instance-action"));
    let step = step.unwrap_or_else(|| panic!("{text}"));
    assert!(
        step.starts_with("in 1h") || step.starts_with("in 59m"),
        "{text}"
    );
    assert!(text.contains("requests   0: "), "{text}");

    let line = "several spotsims are running, name one: one, two";
    fails(&lab, &["status"], 1, line);
    let looked = format!("(looked in {})", lab.run_dir().display());
    let line = format!("no spotsim three is running, but one, two {looked}");
    fails(&lab, &["trigger", "three"], 1, &line);
}

#[test]
fn an_id_is_one_ones_own() {
    let Some((lab, _workload, mut one)) = held("one") else {
        return;
    };
    said(&lab, &["trigger"]);
    let notice = lab.inside().get(ACTION).text();
    let pid = one.pid();
    let line = format!("the ID one is taken by a spotsim with pid {pid}: choose another with --id");
    let beside = lab.beside.directory();
    fails(&lab, &attach_args(beside, &["--id", "one"]), 1, &line);
    fails(&lab, &["run", "--id", "one", "--", "true"], 1, &line);
    let serve = ["serve", "--listen", "127.0.0.1:0", "--id", "one"];
    fails(&lab, &serve, 1, &line);
    assert_eq!(
        lab.daemon.children(),
        [""; 0],
        "nothing was made for the run"
    );
    is_running(&lab, &mut one, &notice);
    said(&lab, &["status", "one"]);
}

#[test]
fn bad_input_changes_nothing() {
    let Some((lab, _workload, mut one)) = held("one") else {
        return;
    };
    said(
        &lab,
        &["trigger", "--lead", "1h", "--scheduled", "system-reboot@1h"],
    );
    let before = seen(&lab);
    let notice = &before[0].1;

    let typo = lab.directory.join("typo.yaml");
    fs::write(&typo, "notice:\n  apears: 1s\n").unwrap();
    let typo = typo.to_str().unwrap();
    for (args, word) in [
        (["--action", "explode"], "--action"),
        (["--scheduled", "volcano@1h"], "--scheduled"),
        (["--lifecycle-state", "Asleep"], "--lifecycle-state"),
        (["--lead", "soon"], "--lead"),
        (["--id", "one"], "--id"),
    ] {
        let finished = spotsim(&lab, &[&["trigger", "one"], &args[..]].concat());
        let first = finished.stderr.lines().next().unwrap_or_default();
        assert!(first.contains(word), "{first}");
        assert_eq!(finished.code, 2, "{args:?}");
    }
    let overlapping = [
        "trigger",
        "--lifecycle-state",
        "Standby@5s",
        "--lifecycle-state",
        "InService@5s",
    ];
    for (args, word) in [
        (
            &["trigger", "--deadline", "2020-01-01T00:00:00Z"][..],
            "--deadline: ",
        ),
        (&overlapping, "--lifecycle-state: "),
        (
            &["trigger", "--plan", typo],
            "typo.yaml:2:3: unknown field `apears`",
        ),
    ] {
        let finished = spotsim(&lab, args);
        let Finished { code, stderr, .. } = &finished;
        assert!(stderr.starts_with("spotsim: error: "), "{stderr}");
        assert!(stderr.contains(word), "{word:?} is not in {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!([1, 2].contains(code), "{args:?}: {code}");
    }
    assert_eq!(seen(&lab), before);
    is_running(&lab, &mut one, notice);
}

#[test]
fn bad_requests_change_nothing() {
    let Some((lab, _workload, mut one)) = held("one") else {
        return;
    };
    said(&lab, &["trigger", "--lead", "1h"]);
    let before = seen(&lab);
    let socket = lab.run_dir().join("one.sock");
    let paths = "there is /status, /trigger, /cancel, /detach and /watch";
    let many = format!(
        r#"{{"scheduled": [{}]}}"#,
        vec![r#"{"code": "system-reboot"}"#; 101].join(",")
    );
    for (method, path, body, status, error) in [
        ("GET", "/", "", 404, paths),
        ("GET", "/status/", "", 404, paths),
        ("POST", "/status", "", 405, "use GET for /status"),
        ("GET", "/trigger", "", 405, "use POST for /trigger"),
        ("DELETE", "/detach", "", 405, "use POST for /detach"),
        (
            "POST",
            "/trigger",
            "{\n \"notise\": {}}",
            400,
            "the plan: 2:9: unknown field `notise`",
        ),
        (
            "POST",
            "/trigger",
            "{",
            400,
            "the plan: 1:1: EOF while parsing an object",
        ),
        (
            "POST",
            "/trigger",
            "[]",
            400,
            "the plan: 1:1: not an object",
        ),
        (
            "POST",
            "/trigger",
            r#"{"notice": {"action": "explode"}}"#,
            400,
            "the plan: 1:31: \"explode\": unknown action; use one of terminate, stop, hibernate",
        ),
        (
            "POST",
            "/trigger",
            r#"{"notice": {"appears": "2030-01-01T00:00:00Z", "deadline": "2029-01-01T00:00:00Z"}}"#,
            400,
            "the plan: notice.deadline: 2029-01-01T00:00:00Z is before the notice appears, \
             2030-01-01T00:00:00.000Z",
        ),
        (
            "POST",
            "/trigger",
            &many,
            400,
            "the plan: scheduled: 101 are more than 50",
        ),
    ] {
        let (got, answer) = ask(&socket, method, path, body.as_bytes());
        assert_eq!(got, status, "{method} {path} {body}: {answer}");
        let said = answer["error"].as_str().unwrap();
        assert!(said.starts_with(error), "{method} {path} {body}: {said}");
        assert!(!said.contains('\n'), "{said}");
        assert_eq!(answer.as_object().unwrap().len(), 1);
    }
    assert_eq!(seen(&lab), before);
    is_running(&lab, &mut one, &before[0].1);
}

#[test]
fn while_it_is_detached_nothing_is_triggered() {
    let Some(lab) = Lab::new() else { return };
    let args = ["serve", "--listen", "127.0.0.1:0", "--hold", "--id", "own"];
    let mut serving = Running::start(Spotsim::command(&lab, &args));
    let line = serving.stdout_line("serving: http://127.0.0.1:", 0);
    let (_, port) = line.split_once("127.0.0.1:").unwrap();
    let port = port.split(';').next().unwrap();
    // A request that has not come in full keeps it for a second: so much time has a trigger to
    // come too late.
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET /latest/' >&3; echo up; exec sleep 600"
    );
    let mut half = Running::start(lab.daemon_place().command_line(["bash", "-c", &script]));
    half.stdout_line("up", 0);
    let socket = lab.run_dir().join("own.sock");
    let mut detaching = UnixStream::connect(&socket).unwrap();
    detaching
        .write_all(b"POST /detach HTTP/1.1\r\nHost: spotsim\r\n\r\n")
        .unwrap();
    serving.stderr_line("asked to detach", 0);
    for path in ["/trigger", "/cancel", "/detach"] {
        let (status, answer) = ask(&socket, "POST", path, b"");
        let error = answer["error"].as_str();
        assert_eq!(
            (status, error),
            (409, Some("it is being detached")),
            "{path}"
        );
    }
    let mut answer = String::new();
    detaching.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(serving.finish().code, 0);
}

#[test]
fn the_sockets_are_for_their_owner_alone() {
    let Some(lab) = Lab::new() else { return };
    // Whatever the umask is.
    for (id, umask) in [("one", "000"), ("two", "077")] {
        let script = format!("umask {umask}; exec \"$@\"");
        let mut command = lab.daemon_place().command("sh");
        command
            .args(["-c", &script, "sh"])
            .arg(spotsim_binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--id", id, "--run-dir"])
            .arg(lab.run_dir());
        let mut serving = Running::start(command);
        serving.stdout_line("serving: ", 0);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&lab.run_dir()), 0o700);
        assert_eq!(mode(&lab.run_dir().join(format!("{id}.sock"))), 0o600);
        drop(serving);
        fs::remove_dir_all(lab.run_dir()).unwrap();
    }
}

#[test]
fn what_a_killed_one_left_is_removed_by_the_next_command() {
    let Some((lab, _workload, one)) = held("one") else {
        return;
    };
    let socket = lab.run_dir().join("one.sock");
    one.signal(Signal::SIGKILL);
    assert_eq!(one.finish().code, 128 + 9);
    assert!(socket.exists());
    assert_eq!(said(&lab, &["list", "--json"]), "[]\n");
    assert!(!socket.exists());

    let again = Spotsim::hold(&lab, "one", &[]);
    again.signal(Signal::SIGKILL);
    assert_eq!(again.finish().code, 128 + 9);
    let mut third = Spotsim::hold(&lab, "one", &[]);
    assert_eq!(said(&lab, &["cancel"]), "one: nothing announced\n");
    assert!(!third.has_ended());
    third.signal(Signal::SIGTERM);
    assert_eq!(third.finish().code, 0);
    assert!(!socket.exists(), "an orderly end leaves nothing");
}

#[test]
fn curl_can_do_it_all() {
    let Some((lab, _workload, mut one)) = held("one") else {
        return;
    };
    let socket = lab.run_dir().join("one.sock");
    let curl = |args: &[&str]| {
        let mut command = lab.daemon_place().command("curl");
        command.args(["-sS", "--fail-with-body", "--unix-socket"]);
        command.arg(&socket).args(args);
        run(command, b"")
    };
    let said =
        |args: &[&str]| -> Value { serde_json::from_str(&curl(args).expect("curl")).unwrap() };
    let status = said(&["http://spotsim/status"]);
    assert_eq!(
        (&status["id"], &status["held"]),
        (&"one".into(), &true.into())
    );
    said(&["-X", "POST", "http://spotsim/trigger"]);
    assert_eq!(lab.inside().get(ACTION).status(), 200);
    let plan = r#"{"notice": {"action": "hibernate", "lead": "30s"}}"#;
    let status = said(&["http://spotsim/trigger", "-d", plan]);
    assert_eq!(
        lab.inside().get(ACTION).text(),
        status["announced"][1]["value"].as_str().unwrap()
    );
    let refused = curl(&["http://spotsim/trigger", "-d", "nonsense"]);
    assert_eq!(refused.code, 22, "{}", refused.stderr);
    assert_eq!(
        refused.text(),
        "{\"error\":\"the plan: 1:1: not an object\"}\n"
    );
    assert_eq!(said(&["-X", "POST", "http://spotsim/cancel"])["held"], true);
    assert_eq!(lab.inside().get(ACTION).status(), 404);
    said(&["-X", "POST", "http://spotsim/detach"]);
    wait_until("its end", || one.has_ended().then_some(()));
}

#[test]
fn one_that_hangs_holds_nobody_up_for_long() {
    let Some((lab, _workload, _one)) = held("one") else {
        return;
    };
    let _hung = UnixListener::bind(lab.run_dir().join("hung.sock")).unwrap();
    let began = Instant::now();
    fails(&lab, &["status", "hung"], 1, "hung: no answer within 2s");
    let list = said(&lab, &["list"]);
    assert!(list.contains("\none "), "{list}");
    assert!(list.contains("hung: no answer within 2s"), "{list}");
    assert!(
        began.elapsed() < Duration::from_secs(12),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn hostile_control_clients_disturb_nobody() {
    let Some((lab, _workload, mut one)) = held("one") else {
        return;
    };
    said(&lab, &["trigger", "--lead", "1h"]);
    let notice = lab.inside().get(ACTION).text();
    let socket = lab.run_dir().join("one.sock");
    let connect = || UnixStream::connect(&socket).unwrap();

    let idle: Vec<UnixStream> = (0..200).map(|_| connect()).collect();
    let slow: Vec<UnixStream> = (0..50)
        .map(|_| {
            let mut slow = connect();
            // It may have been closed for the next.
            let _ =
                slow.write_all(b"POST /trigger HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{");
            slow
        })
        .collect();
    for garbage in [
        &b"\0\xff\x16\x03\x01 nonsense\r\n\r\n"[..],
        b"GET /status",
        b"POST /trigger HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        &[b'a'; 100_000],
    ] {
        let _ = connect().write_all(garbage);
    }
    let deep = ["{\"notice\":", &"[".repeat(100_000)].concat();
    assert_eq!(ask(&socket, "POST", "/trigger", deep.as_bytes()).0, 400);
    let (status, answer) = ask(&socket, "POST", "/trigger", &vec![b' '; 10_000_000]);
    let error = answer["error"].as_str();
    let too_long = "the body is longer than 1048576 bytes";
    assert_eq!((status, error), (413, Some(too_long)));
    let mut chunked = connect();
    let _ = chunked
        .write_all(b"POST /trigger HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 65_536], b"\r\n".to_vec()].concat();
    for _ in 0..160 {
        let _ = chunked.write_all(&chunk);
    }

    let began = Instant::now();
    for _ in 0..20 {
        is_running(&lab, &mut one, &notice);
    }
    // Whoever waited for one of those who hang would wait for nearly 10 s.
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    let line = said(&lab, &["trigger", "--lead", "2h"]);
    assert_eq!(lab.inside().get(TIME).text(), deadline(&line));
    drop((idle, slow));
    sleep(Duration::from_millis(100));
    said(&lab, &["status"]);
}

/// The plan with the longest status: as many events as there may be, each as long as it may be,
/// and none of their changes at the same time.
fn longest_plan() -> String {
    let event = |n: usize| {
        serde_json::json!({
            "code": "system-maintenance",
            "appears": format!("{}ms", 1_000 * n),
            "not-before": "1h",
            "not-after": "2h",
            "not-before-deadline": "90m",
            "completed": format!("{}s", 1_000 + n),
            "lingers": "1h",
            "event-id": format!("{n:064}"),
            "description": "\"".repeat(256),
        })
    };
    let state = |n: usize| {
        let state = ["Warmed:Hibernated", "Warmed:Terminated"][n % 2];
        serde_json::json!({"state": state, "appears": format!("{n}m")})
    };
    serde_json::json!({
        "notice": {"appears": "10s"},
        "rebalance": {"appears": "10s"},
        "after-deadline": "withdraw",
        "scheduled": (0..50).map(event).collect::<Vec<_>>(),
        "lifecycle-states": (0..50).map(state).collect::<Vec<_>>(),
    })
    .to_string()
}

#[test]
fn the_longest_status_disturbs_nobody() {
    let Some((lab, _workload, _one)) = held("one") else {
        return;
    };
    let socket = lab.run_dir().join("one.sock");
    let (status, answer) = ask(&socket, "POST", "/trigger", longest_plan().as_bytes());
    assert_eq!(status, 200, "{answer}");
    let length = answer.to_string().len();
    let began = Instant::now();
    ask(&socket, "GET", "/status", b"");
    say(&format!(
        "the longest status: {length} bytes, {:?}",
        began.elapsed()
    ));
    assert!(length < 1024 * 1024, "{length} bytes");

    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let asking = std::thread::spawn(move || {
        let mut asked = 0;
        while stopped.try_recv().is_err() {
            asked += usize::from(ask(&socket, "GET", "/status", b"").0 == 200);
        }
        asked
    });
    let mut command = lab.inside().command(tests::client());
    command.args(["poll", "v4", "/latest/meta-data/instance-id", "0"]);
    let poller = Running::start(command);
    wait_until("hundreds of requests", || {
        (poller.stdout().lines().count() > 500).then_some(())
    });
    let polls = poller.stop().text();
    stop.send(()).unwrap();
    assert!(asking.join().unwrap() > 1);
    let failed = polls.lines().filter(|poll| poll.contains("error")).count();
    assert_eq!(failed, 0, "{polls}");
}

#[test]
fn bad_ids_and_directories_are_refused() {
    let Some(lab) = Lab::new() else { return };
    for id in ["", ".x", "-x", "a/b", "a b", &"x".repeat(65)] {
        let option = format!("--id={id}");
        let finished = spotsim(&lab, &["serve", &option]);
        assert_eq!(finished.code, 2, "{id}: {}", finished.stderr);
        assert!(finished.stderr.contains("--id"), "{}", finished.stderr);
    }
    let long = lab.directory.join("x".repeat(90));
    let args = ["serve", "--run-dir", long.to_str().unwrap(), "--id", "one"];
    let path = long.join("one.sock");
    let line = format!(
        "the path {} has {} bytes, and a socket's can have 107: choose a shorter --run-dir or --id",
        path.display(),
        path.as_os_str().len()
    );
    fails(&lab, &args, 1, &line);
    assert!(!long.exists());
}

#[test]
fn misuse_is_told_to_those_too_who_may_not_attach() {
    let Some(lab) = Lab::new() else { return };
    let target = lab.target.directory();
    let attach = attach_args(target, &[]);
    for (verb, after) in [(&attach[..], &[][..]), (&["run"], &["--", "true"])] {
        for (options, code, word) in [
            (&["--upstream", "real", "--imds", "v2"][..], 2, "--imds"),
            (&["--deadline", "2020-01-01T00:00:00Z"], 2, "--deadline: "),
            (&["--instance", "missing.yaml"], 1, "missing.yaml"),
            (&["--plan", "missing.toml"], 1, "missing.toml"),
        ] {
            let mut command = lab.daemon_place().command("setpriv");
            command
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .arg(spotsim_binary())
                .args([verb, options, after].concat());
            let Finished {
                code: got, stderr, ..
            } = run(command, b"");
            assert_eq!(got, code, "{verb:?} {options:?}: {stderr}");
            assert!(stderr.contains(word), "{stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
        }
    }
}

#[test]
fn without_a_run_directory_it_is_done_without_or_refused() {
    let Some(lab) = Lab::new() else { return };
    // A user without $XDG_RUNTIME_DIR.
    let serve = |options: &[&str]| {
        let mut command = lab.daemon_place().command("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(spotsim_binary())
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(options);
        Running::start(command)
    };
    let mut without = serve(&[]);
    without.stdout_line("serving: ", 0);
    without.stderr_line(
        "there is no control socket: there is no $XDG_RUNTIME_DIR",
        0,
    );
    let finished = serve(&["--hold"]).finish();
    assert_eq!(finished.code, 1);
    let line =
        "spotsim: error: there is no $XDG_RUNTIME_DIR for a control socket: give --run-dir\n";
    assert_eq!(finished.stderr, line);
}

/// Of those that an interception has, where none is named.
#[test]
fn a_choice_among_all_its_targets() {
    let Some(lab) = Lab::new() else { return };
    let beside = lab.beside.path();
    let more = ["--cgroup", beside.to_str().unwrap()];
    let _spotsim = Spotsim::hold(&lab, "two", &more);
    let told = said(&lab, &["trigger", "--select", "count(1)"]);
    let places = [lab.inside(), lab.place(&lab.node, &lab.beside)];
    let sees = |place: &tests::Place| place.get(ACTION).status() == 200;
    assert_eq!(told.lines().count(), 1, "{told}");
    assert_eq!(places.iter().filter(|place| sees(place)).count(), 1);
    said(&lab, &["trigger", "--select", "percent(100)"]);
    assert!(places.iter().all(sees));
    let refused = "--namespace goes with --selector or --pod";
    fails(&lab, &["cancel", "--namespace", "shop"], 2, refused);
}
