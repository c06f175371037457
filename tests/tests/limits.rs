//! What the responder takes of its clients, up to the last byte and the last connection.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit};
use tests::{
    Finished, Held, Lab, Place, Running, Scratch, Spotsim, Upstream, Via, client, run, say,
    spotsim_binary, wait_until, with_descriptors,
};

const LONGEST_HEAD: usize = 65_536;
const MOST_HEADERS: usize = 100;
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// With so many descriptors there may be 16 connections at a listener and 32 at all.
const FEW: u32 = 256;

/// A request of so many bytes.
fn of_bytes(length: usize) -> Vec<u8> {
    let empty = of_filler(0).len();
    of_filler(length - empty)
}

fn of_filler(length: usize) -> Vec<u8> {
    let filler = "x".repeat(length);
    let path = "/latest/meta-data/instance-id";
    format!("GET {path} HTTP/1.1\r\nHost: imds\r\nX-Filler: {filler}\r\n\r\n").into_bytes()
}

/// A request with so many headers.
fn of_headers(count: usize) -> Vec<u8> {
    let headers: String = (1..count).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let path = "/latest/meta-data/instance-id";
    format!("GET {path} HTTP/1.1\r\nHost: imds\r\n{headers}\r\n").into_bytes()
}

/// What lies just within the limits is answered; what lies just outside is refused.
fn is_limited(place: &str, ask: impl Fn(&[u8]) -> Finished) {
    for (what, within, outside) in [
        ("bytes", of_bytes(LONGEST_HEAD), of_bytes(LONGEST_HEAD + 1)),
        (
            "headers",
            of_headers(MOST_HEADERS),
            of_headers(MOST_HEADERS + 1),
        ),
    ] {
        let answer = ask(&within).expect("a client");
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n"),
            "{place}, {what}: {answer}"
        );
        let answer = ask(&outside).expect("a client");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let (status, headers) = head.split_once("\r\n").unwrap();
        assert_eq!(
            status, "HTTP/1.1 431 Request Header Fields Too Large",
            "{place}, {what}"
        );
        assert!(headers.contains("Connection: close"), "{headers}");
        assert_eq!(body, "", "{place}, {what}");
    }
}

#[test]
fn heads_that_attach_takes() {
    let Some(lab) = Lab::new() else { return };
    let _workload = lab.workload_process();
    let _spotsim = Spotsim::attach_to(&lab, &lab.target, &["--upstream", "synthetic"]);
    for via in [Via::V4, Via::V6] {
        is_limited("attach", |request| lab.inside().try_send(via, request));
    }
}

#[test]
fn heads_that_run_takes() {
    let Some(lab) = Lab::new() else { return };
    is_limited("run", |request| {
        let mut command = Spotsim::command(&lab, &["run", "--upstream", "synthetic", "--"]);
        command.arg(client()).args(["raw", "v4"]);
        run(command, request)
    });
}

#[test]
fn heads_that_serve_takes() {
    let scratch = Scratch::new();
    let serve = scratch.serve(&[]);
    is_limited("serve", |request| {
        let mut command = scratch.command(client());
        command.args(["raw", &serve.address.to_string()]);
        run(command, request)
    });
}

#[test]
fn the_longest_heads_reach_the_upstream_as_they_are() {
    let Some(lab) = Lab::new() else { return };
    let upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    let _spotsim = Spotsim::attach(&lab, &[]);
    let requests = [of_bytes(LONGEST_HEAD), of_headers(MOST_HEADERS)];
    for request in &requests {
        assert_eq!(lab.inside().send(Via::V4, request).status(), 200);
    }
    lab.inside().try_send(Via::V4, &of_bytes(LONGEST_HEAD + 1));
    let seen = upstream.seen();
    let heads: Vec<_> = seen.iter().map(|seen| &seen.head).collect();
    assert_eq!(heads, requests.iter().collect::<Vec<_>>());
}

/// How a client sees that it took too long: when and how its connection ended.
fn waits_for_a_cut(mut stream: TcpStream) -> (Duration, ErrorKind) {
    let began = Instant::now();
    stream.set_read_timeout(Some(HEAD_WITHIN * 2)).unwrap();
    let cut = stream
        .read(&mut [0])
        .expect_err("neither an answer nor an end");
    (began.elapsed(), cut.kind())
}

#[test]
fn a_head_has_ten_seconds() {
    let scratch = Scratch::new();
    let serve = scratch.serve(&[]);
    let begun = || {
        let mut stream = TcpStream::connect(serve.address).unwrap();
        stream
            .write_all(b"GET /latest/meta-data/instance-id HT")
            .unwrap();
        stream
    };
    let [mut finished, unfinished] = [begun(), begun()];
    let silent = TcpStream::connect(serve.address).unwrap();
    let [unfinished, silent] =
        [unfinished, silent].map(|stream| std::thread::spawn(move || waits_for_a_cut(stream)));
    sleep(HEAD_WITHIN - Duration::from_secs(1));
    finished.write_all(b"TP/1.1\r\nHost: imds\r\n\r\n").unwrap();
    let mut answer = String::new();
    finished.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for cut in [unfinished, silent] {
        let (after, how) = cut.join().unwrap();
        assert_eq!(how, ErrorKind::ConnectionReset);
        let late = after.saturating_sub(HEAD_WITHIN);
        assert!(after > HEAD_WITHIN - Duration::from_secs(1), "{after:?}");
        assert!(late < Duration::from_secs(3), "{after:?}");
    }
}

/// Connections that stay open.
struct Crowd(Running);

impl Crowd {
    /// Opens so many with a client, whose command this is but for its arguments, and sends this
    /// text on each.
    fn of(mut command: Command, to: &str, count: usize, text: &str) -> Self {
        command.args(["idle", to, &count.to_string(), text]);
        let mut crowd = Running::start(command);
        assert_eq!(
            crowd.stdout_line("open", 0),
            format!(r#"{{"open":{count}}}"#)
        );
        Self(crowd)
    }

    fn at(place: &Place, to: &str, count: usize) -> Self {
        Self::of(place.command(client()), to, count, "")
    }

    /// Which of them are gone, by their number.
    fn gone(&mut self) -> Vec<usize> {
        let Self(crowd) = self;
        let before = crowd.stdout().len();
        crowd.write(b"\n");
        let line = crowd.stdout_line("gone", before);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        serde_json::from_value(line["gone"].clone()).unwrap()
    }

    /// Waits until these are gone and makes sure that no others follow them.
    fn loses(&mut self, these: &[usize]) {
        wait_until("connections that give way", || {
            (self.gone().len() >= these.len()).then_some(())
        });
        sleep(Duration::from_millis(200));
        assert_eq!(self.gone(), these);
    }
}

#[test]
fn the_oldest_connection_of_a_listener_gives_way() {
    let Some(lab) = Lab::new() else { return };
    let _workload = lab.workload_process();
    let _spotsim = armed(Spotsim::limited(&lab, FEW, &["--upstream", "synthetic"]));
    let place = lab.inside();
    let mut crowd = Crowd::at(&place, "v4", 16);
    crowd.loses(&[]);
    // Another listener has its own.
    let mut beside = Crowd::at(&place, "v6", 16);
    crowd.loses(&[]);
    assert_eq!(place.get("/latest/meta-data/instance-id").status(), 200);
    crowd.loses(&[0]);
    let _newer = Crowd::at(&place, "v4", 3);
    crowd.loses(&[0, 1, 2]);
    beside.loses(&[]);
}

#[test]
fn the_oldest_connection_of_run_and_of_serve_gives_way() {
    let Some(lab) = Lab::new() else { return };
    let scratch = Scratch::new();
    for (count, gone) in [(16, &[][..]), (17, &[0])] {
        let mut command = lab.daemon_place().command_line(with_descriptors(FEW));
        command
            .arg(spotsim_binary())
            .args(["run", "--upstream", "synthetic", "--run-dir"])
            .arg(lab.run_dir())
            .arg("--")
            .arg(client());
        Crowd::of(command, "v4", count, "").loses(gone);

        let [shell, words @ ..] = with_descriptors(FEW);
        let mut command = scratch.command(shell);
        command
            .args(words)
            .arg(spotsim_binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--run-dir"])
            .arg(scratch.directory().join("run"));
        let mut serve = Running::start(command);
        let line = serve.stdout_line("serving: http://", 0);
        let (_, address) = line.split_once("http://").unwrap();
        let (address, _) = address.split_once(';').unwrap();
        Crowd::of(scratch.command(client()), address, count, "").loses(gone);
    }
}

const ASKED: &str = "GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: imds\r\n\r\n";

#[test]
fn who_never_asked_gives_way_first() {
    let Some(lab) = Lab::new() else { return };
    // None is answered, so all stay.
    let upstream = Upstream::start(&lab, &["--hang"]);
    let _workload = lab.workload_process();
    let _spotsim = armed(Spotsim::limited(&lab, FEW, &["--upstream", "real"]));
    let place = lab.inside();
    let asking = |count| {
        let before = upstream.seen().len();
        let crowd = Crowd::of(place.command(client()), "v4", count, ASKED);
        wait_until("requests at the upstream", || {
            (upstream.seen().len() == before + count).then_some(())
        });
        crowd
    };
    let mut asked = asking(8);
    let mut silent = Crowd::at(&place, "v4", 8);
    silent.loses(&[]);
    // One by one: who has just come has not asked yet.
    let newer: Vec<_> = (0..8).map(|_| asking(1)).collect();
    silent.loses(&[0, 1, 2, 3, 4, 5, 6, 7]);
    asked.loses(&[]);
    let _newest = asking(1);
    asked.loses(&[0]);
    for mut crowd in newer {
        crowd.loses(&[]);
    }
}

fn armed(mut spotsim: Running) -> Running {
    spotsim.stdout_line("armed: ", 0);
    spotsim
}

#[test]
fn the_listener_that_has_most_gives_way() {
    let Some(lab) = Lab::bare() else { return };
    let pods = lab.sandboxes(&lab.target, 2);
    let _spotsim = armed(Spotsim::limited(&lab, FEW, &["--upstream", "synthetic"]));
    let [one, other] = [0, 1].map(|index: usize| pods[index].place());
    let mut most = Crowd::at(&one, "v4", 16);
    let mut less = Crowd::at(&one, "v6", 10);
    let mut least = Crowd::at(&other, "v4", 6);
    for crowd in [&mut most, &mut less, &mut least] {
        crowd.loses(&[]);
    }
    let mut newer = Crowd::at(&other, "v6", 1);
    most.loses(&[0]);
    let mut newest = Crowd::at(&other, "v6", 1);
    most.loses(&[0, 1]);
    for crowd in [&mut less, &mut least, &mut newer, &mut newest] {
        crowd.loses(&[]);
    }
}

/// As many as this machine lets it have: 2,048 where 65,536 files may be open.
#[test]
fn as_many_connections_as_a_listener_can_have() {
    let Some(lab) = Lab::new() else { return };
    let _workload = lab.workload_process();
    let _spotsim = Spotsim::attach_to(&lab, &lab.target, &["--upstream", "synthetic"]);
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let most = (files.min(65_536) / 16).clamp(16, 2_048) as usize;
    say(&format!("{most} connections at a listener"));
    let place = lab.inside();
    let mut crowd = Crowd::at(&place, "v4", most);
    crowd.loses(&[]);
    assert_eq!(place.get("/latest/meta-data/instance-id").status(), 200);
    crowd.loses(&[0]);
}

/// Who asks often from another namespace has sockets made before they are needed, but no more than a
/// few.
#[test]
fn spare_sockets_are_few_where_descriptors_are() {
    const CLIENTS: usize = 16;
    const SPARES: usize = 4;
    let Some(lab) = Lab::with_pod() else { return };
    let upstream = Upstream::start(&lab, &["--hang"]);
    let _workload = lab.workload_process();
    let spotsim = armed(Spotsim::limited(&lab, FEW, &["--upstream", "real"]));
    let sockets = || Held::by(spotsim.pid()).unwrap().sockets;
    let before = sockets();
    let next = |number| {
        let client = Crowd::of(lab.inside().command(client()), "v4", 1, ASKED);
        wait_until("its request at the upstream", || {
            (upstream.seen().len() == number).then_some(())
        });
        client
    };
    let _clients: Vec<_> = (1..=CLIENTS).map(next).collect();
    let taken = sockets() - before;
    let expected = 2 * CLIENTS..=2 * CLIENTS + SPARES;
    assert!(expected.contains(&taken), "{taken}");
}
