//! `spotsim watch`: who asked for what, live.

use std::{
    collections::{HashMap, HashSet},
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{
    Lab, Place, Running, Spotsim, Via, client, in_run_dir, run, spotsim_binary, wait_until,
};

const ACTION: &str = "/latest/meta-data/spot/instance-action";

/// A lab with a held interception of the ID `one`.
fn held() -> Option<(Lab, Running, Running)> {
    let lab = Lab::new()?;
    let workload = lab.workload_process();
    let spotsim = Spotsim::hold(&lab, "one", &[]);
    Some((lab, workload, spotsim))
}

/// A running `watch` that has shown something.
fn watch(lab: &Lab, more: &[&str], first: &str) -> Running {
    let mut watch = Running::start(Spotsim::command(lab, &[&["watch"], more].concat()));
    watch.stdout_line(first, 0);
    watch
}

fn said(lab: &Lab, args: &[&str]) -> String {
    run(Spotsim::command(lab, args), b"").expect(&args.join(" "))
}

/// The objects of some lines.
fn objects(lines: &str) -> Vec<Value> {
    let whole = &lines[..lines.rfind('\n').map_or(0, |end| end + 1)];
    let object =
        |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    whole.lines().map(object).collect()
}

fn of_type<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["type"] == kind)
        .collect()
}

#[test]
fn two_clients_are_never_taken_for_each_other() {
    let Some((lab, _workload, _spotsim)) = held() else {
        return;
    };
    let watch = watch(&lab, &["--json"], r#""type":"status""#);
    let nested = lab.target.child("nested");
    let places = [lab.inside(), lab.place(&lab.node, &nested)];
    let paths = ["instance-id", "ami-id"].map(|item| format!("/latest/meta-data/{item}"));
    let cgroups = [lab.target.path(), nested.path()];
    let poll = |place: &Place, path: &str| {
        let mut command = place.command(client());
        command.args(["poll", "v4", path, "0"]);
        Running::start(command)
    };
    let pollers = [0, 1].map(|n| poll(&places[n], &paths[n]));
    let count = |poller: &Running| poller.stdout().lines().count();
    wait_until("hundreds of requests of each", || {
        pollers
            .iter()
            .all(|poller| count(poller) > 400)
            .then_some(())
    });
    let pids = pollers.map(|poller| {
        let pid = poller.pid();
        poller.stop();
        pid
    });
    said(&lab, &["detach"]);
    let lines = watch.finish().expect("watch");
    let objects = objects(&lines);

    let mut connects = HashMap::new();
    let mut seen = [0, 0];
    for object in &objects {
        let caller = &object["caller"];
        let socket = caller["socket"].as_u64();
        match object["type"].as_str().unwrap() {
            "connect" => {
                assert_eq!(object["verdict"], "redirected");
                let before = connects.insert(socket, caller);
                assert_eq!(before, None, "a socket connects once");
            }
            "request" => {
                let n = paths
                    .iter()
                    .position(|path| object["path"] == path.as_str());
                let n = n.unwrap_or_else(|| panic!("{object}"));
                assert_eq!(caller["pid"], pids[n], "{object}");
                assert_eq!(caller["command"], "client", "{object}");
                assert_eq!(caller["cgroup"], cgroups[n].to_str().unwrap(), "{object}");
                assert_eq!(caller["uid"], 0, "{object}");
                assert_eq!(caller["family"], "ipv4", "{object}");
                assert_eq!(
                    (&object["method"], &object["by"]),
                    (&"GET".into(), &"upstream".into())
                );
                // The last ones were killed.
                assert!(
                    object["status"] == 200 || object["status"].is_null(),
                    "{object}"
                );
                assert_eq!(
                    connects.get(&socket),
                    Some(&caller),
                    "its connect came first"
                );
                seen[n] += 1;
            }
            _ => {}
        }
    }
    assert!(seen.iter().all(|seen| *seen > 400), "{seen:?}");
    let lost = of_type(&objects, "lost");
    assert_eq!(lost, [&Value::Null; 0], "it was read in time");
}

#[test]
fn nothing_secret_is_shown() {
    let Some((lab, _workload, _spotsim)) = held() else {
        return;
    };
    said(&lab, &["trigger"]);
    let json = watch(&lab, &["--json"], r#""type":"status""#);
    let text = watch(&lab, &["one"], "attach one: ");
    let place = lab.inside();
    let token = place.token();
    let ask = |request: String| place.send(Via::V4, request.as_bytes()).text();
    let with = |path: &str| {
        ask(format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token: {token}\r\n\r\n"
        ))
    };
    let roles = "/latest/meta-data/iam/security-credentials/";
    let role = with(roles);
    let credentials = with(&format!("{roles}{role}"));
    let credentials: Value = serde_json::from_str(&credentials).unwrap();
    let secrets = ["AccessKeyId", "SecretAccessKey", "Token"];
    let mut secrets = secrets
        .map(|name| credentials[name].as_str().unwrap())
        .to_vec();
    with("/latest/meta-data/instance-id?word=confidential");
    with(&format!("/latest/meta-data/{token}"));
    ask("GET /latest/meta-data/ HTTP/1.1\r\nHost: x\r\nX-Word: confidential\r\n\r\n".to_owned());
    ask(
        "PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nconfidential"
            .to_owned(),
    );
    said(&lab, &["detach"]);
    secrets.extend([token.as_str(), "confidential"]);
    for watch in [json, text] {
        let shown = watch.finish().expect("watch");
        for path in [roles, "/latest/api/token", "/latest/meta-data/(token)"] {
            assert!(shown.contains(path), "{path}: {shown}");
        }
        for secret in &secrets {
            assert!(secret.len() > 10);
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
    }
}

#[test]
fn what_is_announced_is_told_as_it_comes() {
    let Some((lab, _workload, _spotsim)) = held() else {
        return;
    };
    let mut watch = watch(&lab, &["--json"], r#""held":true"#);
    said(
        &lab,
        &["trigger", "--notice-after", "1s", "--rebalance-after", "0s"],
    );
    watch.stdout_line(r#""path":"events/recommendations/rebalance","value":"{"#, 0);
    let early = objects(&watch.stdout());
    let is_notice =
        |object: &Value| object["type"] == "announced" && object["path"] == "spot/instance-action";
    assert!(!early.iter().any(is_notice), "not yet");
    let line = watch.stdout_line(r#"{"type":"announced","at""#, early.len());
    assert!(!line.is_empty());
    let notice = wait_until("the notice", || {
        objects(&watch.stdout()).into_iter().find(is_notice)
    });
    assert_eq!(notice["value"], lab.inside().get(ACTION).text().as_str());
    said(&lab, &["cancel"]);
    said(&lab, &["detach"]);
    let finished = watch.finish();
    assert_eq!(finished.stderr, "one has ended: it was told to detach\n");
    let objects = objects(&finished.expect("watch"));
    let gone: HashSet<_> = of_type(&objects, "announced")
        .into_iter()
        .filter(|object| object["value"].is_null())
        .map(|object| object["path"].as_str().unwrap())
        .collect();
    let all = [
        "events/recommendations/rebalance",
        "instance-life-cycle",
        "spot/instance-action",
        "spot/termination-time",
    ];
    assert_eq!(gone, HashSet::from(all));
    let last = objects.last().unwrap();
    assert_eq!(
        *last,
        serde_json::json!({"type": "end", "reason": "detached"})
    );
}

#[test]
fn what_is_announced_is_told_before_the_requests_that_saw_it() {
    let Some((lab, _workload, _spotsim)) = held() else {
        return;
    };
    let mut poller = lab.inside().command(client());
    poller.args(["poll", "v4", ACTION, "0"]);
    let _poller = Running::start(poller);
    for _ in 0..5 {
        let watch = watch(&lab, &["--json"], r#""type":"status""#);
        said(&lab, &["trigger", "--notice-after", "50ms"]);
        let saw = |object: &Value| object["type"] == "request" && object["by"] == "spotsim";
        let told = wait_until("a request saw it", || {
            let told = objects(&watch.stdout());
            told.iter().any(saw).then_some(told)
        });
        let first = told.iter().position(saw).unwrap();
        let path = ACTION.strip_prefix("/latest/meta-data/").unwrap();
        let announced = of_type(&told[..first], "announced");
        assert!(
            announced.iter().any(|change| change["path"] == path),
            "{told:?}"
        );
        said(&lab, &["cancel"]);
        // Its last request that saw it is over before somebody watches again.
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn it_ends_with_its_reader_though_nothing_happens() {
    let Some((lab, _workload, _spotsim)) = held() else {
        return;
    };
    let command = format!(
        "{} watch --json --run-dir {} | head -1",
        spotsim_binary().display(),
        lab.run_dir().display()
    );
    let line = lab.daemon_place().command_line(["sh", "-c", &command]);
    let shown = Running::start(line).finish_within(Duration::from_secs(3));
    assert!(shown.text().starts_with(r#"{"type":"status""#));
}

#[test]
fn into_a_pipe_it_is_a_line_of_text_for_each() {
    let Some((lab, _workload, spotsim)) = held() else {
        return;
    };
    let mut watch = watch(&lab, &[], "attach one: ");
    said(&lab, &["trigger"]);
    let answer = lab.inside().get(ACTION);
    let line = watch.stdout_line("200 by spotsim", 0);
    let target = lab.target.path();
    let target = target.display();
    let words = format!("of user 0 in {target}: GET {ACTION}: 200 by spotsim (");
    assert!(line.contains("Z client["), "{line}");
    assert!(line.contains(&words), "{line}");
    assert!(
        watch
            .stdout()
            .contains(&format!("of user 0 in {target}: connect\n"))
    );
    let announced = format!("Z spot/instance-action is {}\n", answer.text());
    assert!(watch.stdout().contains(&announced), "{}", watch.stdout());
    spotsim.signal(Signal::SIGKILL);
    let finished = watch.finish();
    let line = "spotsim: error: one: the connection to it broke, as if it was killed\n";
    assert_eq!((finished.code, finished.stderr.as_str()), (1, line));
}

#[test]
fn whoever_reads_slowly_loses_lines_and_holds_up_nobody() {
    let Some((lab, _workload, _spotsim)) = held() else {
        return;
    };
    let mut slow = UnixStream::connect(lab.run_dir().join("one.sock")).unwrap();
    slow.write_all(b"GET /watch HTTP/1.0\r\n\r\n").unwrap();
    let mut first = [0; 1];
    slow.read_exact(&mut first).unwrap();
    let mut command = lab.inside().command(client());
    command.args(["poll", "v4", "/latest/meta-data/instance-id", "0"]);
    let poller = Running::start(command);
    // On a busy machine they take longer than anything else that is waited for.
    let until = Instant::now() + Duration::from_secs(60);
    while poller.stdout().lines().count() <= 4_000 {
        assert!(Instant::now() < until, "too few requests within a minute");
        sleep(Duration::from_millis(20));
    }
    let polls = poller.stop().text();
    let failed = polls.lines().filter(|poll| poll.contains("error")).count();
    assert_eq!(failed, 0, "nobody was held up");
    slow.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    said(&lab, &["cancel"]);
    let mut answer = String::from_utf8(first.to_vec()).unwrap();
    let mut chunk = [0; 65_536];
    while !answer.contains(r#"{"type":"lost","count":"#) {
        let length = slow.read(&mut chunk).unwrap();
        assert!(length > 0, "it ended before it said what was lost");
        answer.push_str(&String::from_utf8_lossy(&chunk[..length]));
    }
}

/// What a terminal shows.
struct Shown {
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// Modes that are set by `CSI ? … h`.
    modes: HashSet<String>,
}

impl Shown {
    /// Understands what `watch` may send, and nothing else.
    fn of(output: &str) -> Self {
        let mut shown = Self {
            rows: Vec::new(),
            row: 0,
            column: 0,
            modes: HashSet::new(),
        };
        let mut rest = output.chars();
        while let Some(character) = rest.next() {
            if character != '\u{1b}' {
                shown.put(character);
                continue;
            }
            assert_eq!(rest.next(), Some('['), "{output:?}");
            let sequence: String = rest
                .by_ref()
                .take_while(|c| !c.is_ascii_alphabetic())
                .collect();
            // `take_while` has taken the letter: it is found again in what it left.
            let left = rest.as_str().len();
            let letter = output[..output.len() - left].chars().next_back().unwrap();
            shown.obey(&sequence, letter);
        }
        shown
    }

    fn put(&mut self, character: char) {
        let Self {
            rows, row, column, ..
        } = self;
        assert!(
            !character.is_control() || "\r\n".contains(character),
            "{character:?}"
        );
        if character.is_control() {
            return;
        }
        while rows.len() <= *row {
            rows.push(Vec::new());
        }
        let cells = &mut rows[*row];
        while cells.len() <= *column {
            cells.push(' ');
        }
        cells[*column] = character;
        *column += 1;
    }

    fn obey(&mut self, sequence: &str, letter: char) {
        let Self {
            rows,
            row,
            column,
            modes,
        } = self;
        match letter {
            'H' => {
                let (line, cell) = sequence.split_once(';').unwrap();
                (*row, *column) = (
                    line.parse::<usize>().unwrap() - 1,
                    cell.parse::<usize>().unwrap() - 1,
                );
            }
            'K' => {
                if let Some(cells) = rows.get_mut(*row) {
                    cells.truncate(*column);
                }
            }
            'J' => rows.truncate(*row),
            'm' => {}
            'h' => _ = modes.insert(sequence.to_owned()),
            'l' => _ = modes.remove(sequence),
            _ => panic!("CSI {sequence}{letter}"),
        }
    }

    fn lines(&self) -> Vec<String> {
        self.rows.iter().map(|row| row.iter().collect()).collect()
    }

    fn line(&self, beginning: &str) -> Option<String> {
        self.lines()
            .into_iter()
            .find(|line| line.starts_with(beginning))
    }
}

const ALTERNATE_SCREEN: &str = "?1049";
const CURSOR: &str = "?25";

/// `watch` in a terminal of 100 by 30, whose settings are printed before and after it.
fn terminal(lab: &Lab) -> Running {
    let words = in_run_dir(lab, &["watch"]).join("' '");
    let script = format!(
        "stty cols 100 rows 30; tty; stty -g; '{}' '{words}'; echo \"ended with $?\"; stty -g",
        spotsim_binary().display()
    );
    let line = ["script", "-q", "-e", "-c", &script, "/dev/null"];
    Running::start(lab.daemon_place().command_line(line))
}

/// What is on its screen, when that has something.
fn screen<T>(terminal: &Running, awaited: &str, find: impl Fn(&Shown) -> Option<T>) -> T {
    wait_until(awaited, || {
        let output = terminal.stdout();
        let (_, drawn) = output.split_once("\u{1b}[?1049h")?;
        // The last drawing may be in the middle.
        let (whole, _) = drawn.rsplit_once("\u{1b}[?2026l")?;
        find(&Shown::of(&format!("{whole}\u{1b}[?2026l")))
    })
}

/// Checks that the terminal is as it was, and returns what was said at the end.
fn restored(mut terminal: Running) -> String {
    terminal.stdout_line("ended with", 0);
    let output = terminal.finish().text();
    let (before, rest) = output.split_once("\u{1b}[?1049h").unwrap();
    let settings = before.lines().last().unwrap().trim();
    let (drawn, after) = rest.rsplit_once("\u{1b}[?1049l").unwrap();
    let modes = Shown::of(&drawn.replace("\u{1b}[?1049l", "")).modes;
    assert!(
        modes.contains(CURSOR),
        "the cursor is shown again: {modes:?}"
    );
    assert!(!modes.contains(ALTERNATE_SCREEN));
    assert_eq!(after.lines().last().unwrap().trim(), settings, "as before");
    after.replace('\r', "")
}

#[test]
fn on_a_terminal_it_is_drawn_anew() {
    let Some((lab, _workload, spotsim)) = held() else {
        return;
    };
    let mut terminal = terminal(&lab);
    let line = screen(&terminal, "that it is held", |shown| {
        shown.line("announced ")
    });
    assert_eq!(line, "announced  nothing: held until `spotsim trigger`");
    said(&lab, &["trigger", "--lead", "10m"]);
    let notice = lab.inside().get(ACTION).text();
    let lines = screen(&terminal, "a request", |shown| {
        shown
            .line("announced ")?
            .contains("life-cycle")
            .then_some(())?;
        let found = shown.lines().iter().any(|line| line.contains(" 200 "));
        found.then(|| shown.lines())
    });
    let pid = spotsim.pid();
    assert_eq!(
        lines[0],
        format!("spotsim    one: attach, pid {pid}, upstream synthetic")
    );
    assert_eq!(
        lines[1],
        format!("serves     {}", lab.target.path().display())
    );
    let action = format!("           spot/instance-action  {notice}");
    assert!(lines.contains(&action), "{lines:?}");
    let heading = lines
        .iter()
        .position(|line| line.starts_with("TIME "))
        .unwrap();
    let request = lines
        .iter()
        .rposition(|line| line.contains(" 200 "))
        .unwrap();
    assert!(heading < request);
    let cells: Vec<_> = lines[request].split_whitespace().collect();
    assert_eq!(cells[2], "client");
    assert_eq!(
        (cells[3], cells[5], cells[6], cells[8]),
        ("GET", "200", "spotsim", "ms")
    );
    assert!(cells[4].ends_with("spot/instance-action"), "{cells:?}");

    let left = |shown: &Shown| shown.line("deadline ");
    let first = screen(&terminal, "a countdown", left);
    assert!(
        first.starts_with("deadline   in 9m 5") || first.starts_with("deadline   in 10m"),
        "{first}"
    );
    screen(&terminal, "that it ticks", |shown| {
        left(shown).filter(|line| *line != first)
    });

    let tty = terminal.stdout_line("/dev/", 0);
    let smaller = ["stty", "-F", tty.trim(), "cols", "60", "rows", "12"];
    run(lab.daemon_place().command_line(smaller), b"").expect("stty");
    screen(&terminal, "that it is smaller", |shown| {
        let lines = shown.lines();
        let fits = lines.len() <= 12 && lines.iter().all(|line| line.chars().count() <= 60);
        fits.then_some(())
    });
    terminal.write(b"q");
    assert!(restored(terminal).contains("ended with 0\n"));
}

#[test]
fn however_it_ends_the_terminal_is_as_it_was() {
    let Some((lab, _workload, spotsim)) = held() else {
        return;
    };
    let drawn = |terminal: &Running| screen(terminal, "it is drawn", |shown| shown.line("TIME "));
    let mut stopped = terminal(&lab);
    drawn(&stopped);
    stopped.write(b"\x03");
    assert!(restored(stopped).contains("ended with 0\n"));

    let terminated = terminal(&lab);
    drawn(&terminated);
    let watching = lab.daemon.processes().into_iter().find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.next().is_some_and(|word| word.ends_with(b"spotsim"))
            && words.next() == Some(b"watch")
    });
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(watching.expect("a watch")),
        Signal::SIGTERM,
    )
    .unwrap();
    assert!(restored(terminated).contains("ended with 0\n"));

    let ended = terminal(&lab);
    drawn(&ended);
    said(&lab, &["detach"]);
    let after = restored(ended);
    assert!(
        after.contains("one has ended: it was told to detach\n"),
        "{after}"
    );
    assert!(after.contains("ended with 0\n"), "{after}");
    assert_eq!(spotsim.finish().code, 0);

    let killed = Spotsim::hold(&lab, "one", &[]);
    let broken = terminal(&lab);
    drawn(&broken);
    killed.signal(Signal::SIGKILL);
    let after = restored(broken);
    assert!(
        after.contains("error: one: the connection to it broke"),
        "{after}"
    );
    assert!(after.contains("ended with 1\n"), "{after}");
}
