//! A hostile client costs only its own connection.

use std::{
    fs,
    time::{Duration, Instant},
};

use tests::{
    Armed, Lab, Running, Sandbox, Spotsim, Upstream, Via, client, get, run, say, wait_until,
};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";

/// A good request is answered, and soon: the best of three, because other tests are running.
fn answers_within_100_ms(lab: &Lab, spotsim: &mut Spotsim, after: &str) {
    let armed = spotsim.armed.clone();
    answers_soon(lab, &armed, spotsim, after);
}

fn answers_soon(lab: &Lab, armed: &Armed, spotsim: &mut Running, after: &str) {
    const SOON: Duration = Duration::from_millis(100);
    let mut took = Vec::new();
    while took.len() < 3 && took.last().is_none_or(|&last| last >= SOON) {
        took.push(time_of_a_good_request(lab, armed, after));
    }
    let best = took.iter().min();
    assert!(best < Some(&SOON), "{took:?} after {after}");
    assert!(!spotsim.has_ended(), "{after}: {}", spotsim.stderr());
}

/// By curl's clock: from the start of its connect to the end of the answer.
fn time_of_a_good_request(lab: &Lab, armed: &Armed, after: &str) -> Duration {
    let url = format!("http://169.254.169.254{NOTICE}");
    let curl = [
        "curl",
        "-sS",
        "--max-time",
        "5",
        "-w",
        "\n%{time_total}",
        &url,
    ];
    let text = run(lab.inside().command_line(curl), b"").expect(after);
    let (body, seconds) = text.rsplit_once('\n').unwrap();
    assert_eq!(body, armed.instance_action(), "{after}");
    Duration::from_secs_f64(seconds.parse().unwrap())
}

fn lab() -> Option<(Lab, Upstream, Running, Spotsim)> {
    let lab = Lab::new()?;
    let upstream = Upstream::start(&lab, &[]);
    let workload = lab.workload_process();
    let spotsim = Spotsim::attach(&lab, &[]);
    Some((lab, upstream, workload, spotsim))
}

#[test]
fn ten_megabytes_of_headers() {
    let Some((lab, upstream, _workload, mut spotsim)) = lab() else {
        return;
    };
    let line = format!("X-Filler: {}\r\n", "x".repeat(1000));
    let many = line.repeat(10_000_000 / line.len() + 1);
    let one = format!("X-Filler: {}\r\n", "x".repeat(10_000_000));
    let nameless = "x".repeat(10_000_000);
    let path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(10_000_000));
    for headers in [many, one, nameless] {
        let request = format!("GET {NOTICE} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let finished = lab.inside().try_send(Via::V4, request.as_bytes());
        assert!(!finished.text().contains(" 200 "), "{}", finished.text());
        answers_within_100_ms(&lab, &mut spotsim, "10 MB of headers");
    }
    lab.inside().try_send(Via::V4, path.as_bytes());
    answers_within_100_ms(&lab, &mut spotsim, "a path of 10 MB");
    // The good requests, of a few lines; the rest went no further.
    let lengths: Vec<_> = upstream.seen().iter().map(|seen| seen.head.len()).collect();
    assert!(lengths.len() >= 4, "{lengths:?}");
    assert!(lengths.iter().all(|&length| length < 500), "{lengths:?}");
}

#[test]
fn truncated_requests_and_garbage() {
    let Some((lab, _upstream, _workload, mut spotsim)) = lab() else {
        return;
    };
    let whole = get(NOTICE);
    for length in [0, 1, 3, 20, whole.len() - 2, whole.len() - 1] {
        let mut command = lab.inside().raw_client(Via::V4);
        command.arg("--abort");
        run(command, &whole[..length]);
        answers_within_100_ms(&lab, &mut spotsim, "a truncated request");
    }
    let all: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
    let garbage: [&[u8]; 12] = [
        &all,
        &[0; 65_536],
        b"\r\n\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /latest HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"GET /latest HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"PUT /latest/api/token HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        b"GET http://example.invalid/latest HTTP/1.1\r\nna me: \x00\r\n\r\n",
    ];
    for bytes in garbage {
        let mut command = lab.inside().raw_client(Via::V4);
        command.arg("--abort");
        run(command, bytes);
        answers_within_100_ms(
            &lab,
            &mut spotsim,
            &bytes[..bytes.len().min(40)].escape_ascii().to_string(),
        );
    }
}

#[test]
fn a_proxy_request_goes_nowhere_else() {
    let Some((lab, _upstream, _workload, mut spotsim)) = lab() else {
        return;
    };
    // Were the request's own idea of its host followed, spotsim would be an open proxy.
    let elsewhere = Upstream::start_at(&lab, &lab.node, "elsewhere", &["127.0.0.1:8000"], &[]);
    for request in [
        "GET http://127.0.0.1:8000/latest/user-data HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n",
        "GET /latest/user-data HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n",
        "CONNECT 127.0.0.1:8000 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n",
    ] {
        lab.inside().try_send(Via::V4, request.as_bytes());
        answers_within_100_ms(&lab, &mut spotsim, request);
    }
    assert_eq!(elsewhere.seen(), []);
}

/// Opens so many connections from the target, each with the beginning of a request.
fn crowd(lab: &Lab, count: usize, beginning: &str) -> Running {
    let mut command = lab.inside().command(client());
    command.args(["idle", "v4", &count.to_string(), beginning]);
    let mut crowd = Running::start(command);
    let line = crowd.stdout_line("open", 0);
    assert_eq!(line, format!(r#"{{"open":{count}}}"#));
    crowd
}

#[test]
fn a_thousand_idle_connections() {
    let Some((lab, _upstream, _workload, mut spotsim)) = lab() else {
        return;
    };
    let started = Instant::now();
    let mut idle = crowd(&lab, 1000, "");
    say(&format!(
        "1000 idle connections opened in {:?}",
        started.elapsed()
    ));
    for _ in 0..3 {
        answers_within_100_ms(&lab, &mut spotsim, "1000 idle connections");
    }
    idle.close_stdin();
    idle.finish();
    answers_within_100_ms(&lab, &mut spotsim, "1000 idle connections have gone");
}

#[test]
fn a_thousand_connections_that_began_a_request() {
    let Some((lab, _upstream, _workload, mut spotsim)) = lab() else {
        return;
    };
    let mut idle = Vec::new();
    for via in [Via::V4, Via::V6] {
        let mut command = lab.inside().command(client());
        command.args([
            "idle",
            via.name(),
            "500",
            "GET /latest/meta-data/ HTTP/1.1\r\nHost: ",
        ]);
        idle.push(Running::start(command));
    }
    for idle in &mut idle {
        assert_eq!(idle.stdout_line("open", 0), r#"{"open":500}"#);
    }
    answers_within_100_ms(&lab, &mut spotsim, "1000 half requests");
}

/// More than a listener takes: the oldest of those that never asked must give way.
#[test]
fn more_unfinished_requests_than_connections_are_taken() {
    let Some((lab, _upstream, _workload, mut spotsim)) = lab() else {
        return;
    };
    let _crowd = crowd(&lab, 2100, "GET /latest/meta-data/ HTTP/1.1\r\nHost: ");
    answers_within_100_ms(&lab, &mut spotsim, "2100 half requests");
}

#[test]
fn pods_that_take_all_connections_leave_room_for_listeners() {
    let Some(lab) = Lab::bare() else { return };
    let hostile = lab.sandboxes(&lab.target, 6);
    let mut spotsim = Spotsim::limited(&lab, 256, &["--upstream", "synthetic"]);
    spotsim.stdout_line("armed: ", 0);
    let mut crowds = Vec::new();
    for (pod, via) in hostile.iter().flat_map(|pod| [(pod, "v4"), (pod, "v6")]) {
        let mut command = pod.place().command(client());
        command.args(["idle", via, "60"]);
        let mut crowd = Running::start(command);
        assert_eq!(crowd.stdout_line("open", 0), r#"{"open":60}"#);
        crowds.push(crowd);
    }
    let above = lab.target.child("late");
    let late = lab.sandboxes(&above, 4);
    for pod in hostile.iter().chain(&late) {
        for via in [Via::V4, Via::V6] {
            wait_until("an answer to every pod", || {
                let answer = pod.place().try_send(via, &get(NOTICE));
                answer.text().contains(" 200 OK").then_some(())
            });
        }
    }
    for pod in hostile.iter().chain(&late) {
        let listeners = listeners(&spotsim, pod);
        assert_eq!(listeners.len(), 2, "one for each family");
        assert!(listeners.iter().all(|fd| *fd < 128), "{listeners:?}");
    }
}

/// A process's descriptors of the sockets that listen in a sandbox.
fn listeners(process: &Running, sandbox: &Sandbox) -> Vec<u32> {
    const LISTEN: &str = "0A";
    let table = |name| fs::read_to_string(format!("/proc/{}/net/{name}", sandbox.pid())).unwrap();
    let tables = table("tcp") + &table("tcp6");
    let rows = tables.lines().map(|row| row.split_whitespace().collect());
    let listening = rows.filter(|row: &Vec<_>| row[3] == LISTEN);
    let sockets: Vec<_> = listening
        .map(|row| format!("socket:[{}]", row[9]))
        .collect();
    let held = fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap();
    let listens = |entry: &fs::DirEntry| {
        let socket = fs::read_link(entry.path()).unwrap_or_default();
        sockets.contains(&socket.to_string_lossy().into_owned())
    };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    held.flatten().filter(listens).filter_map(number).collect()
}

#[test]
fn more_listeners_than_descriptors_below_the_links() {
    let Some(lab) = Lab::bare() else { return };
    let _sandboxes = lab.sandboxes(&lab.target, 12);
    let spotsim = Spotsim::limited(&lab, 96, &["--upstream", "synthetic"]);
    let finished = spotsim.finish();
    assert_eq!(finished.code, 1, "{}", finished.stderr);
    let error = finished.stderr.lines().last().unwrap_or_default();
    assert!(
        error.contains("the 48 file descriptors for listeners"),
        "{error}"
    );
    assert!(error.contains("LimitNOFILE="), "{error}");
}

#[test]
fn more_connections_than_descriptors() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    let mut spotsim = Spotsim::limited(&lab, 256, &["--upstream", "real"]);
    let armed = Armed::parse(&spotsim.stdout_line("armed: ", 0));
    let _crowd = crowd(&lab, 400, "");
    answers_soon(&lab, &armed, &mut spotsim, "400 idle connections");
}
