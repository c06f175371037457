//! Clients that take a second for each byte cost nobody else anything: a good request has its
//! answer within 50 ms.
//!
//! On a machine that does other things too, that is not true of each single request, whatever
//! spotsim does. So it is the median that must keep to it, and no request may fail; the worst is
//! printed.

use std::{fs, path::PathBuf, process::Command, thread::sleep, time::Duration};

use serde_json::Value;
use tests::{Lab, Place, Running, Scratch, Spotsim, Upstream, client, say};

const SLOW_CLIENTS: usize = 1_000;
const SOON: Duration = Duration::from_millis(50);

const FAKED: &str = "/latest/meta-data/spot/instance-action";
const PASSED: &str = "/latest/meta-data/instance-id";

/// Half a request; each byte that follows is one of its header's.
const HEAD: &str = "GET /latest/meta-data/ HTTP/1.1\r\nHost: ";
/// A request but for its body.
const BODY: &str = "PUT /latest/api/token HTTP/1.1\r\nHost: imds\r\n\
    X-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Length: 100000\r\n\r\n";
/// A request for what does not fit into the buffers of sockets.
const LARGE: &str = "GET /latest/meta-data/tests/large HTTP/1.1\r\nHost: imds\r\n\r\n";

/// Where clients run and what they call IMDS.
struct Clients<'a> {
    command: &'a dyn Fn() -> Command,
    to: &'a str,
}

/// What has become of slow clients' connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Over {
    reset: u64,
    ended: u64,
    answered: u64,
}

impl Clients<'_> {
    fn start(&self, verb: &str, args: &[&str]) -> Running {
        let Self { command, to } = self;
        let mut command = command();
        command.args([verb, to]).args(args);
        Running::start(command)
    }

    /// Has so many slow clients go on for so long, and good ones meanwhile. Returns what became of
    /// the slow ones, second by second, and how many sockets spotsim had at the end.
    fn endure(
        &self,
        count: usize,
        way: &str,
        text: &str,
        seconds: usize,
        spotsim: u32,
    ) -> (Vec<Over>, usize) {
        let mut slow = self.start("trickle", &[&count.to_string(), way, text]);
        assert_eq!(
            slow.stdout_line("open", 0),
            format!(r#"{{"open":{count}}}"#)
        );
        // To let a thousand in at once is work; that they are slow is none.
        sleep(Duration::from_secs(1));
        let mut good = [FAKED, PASSED].map(|path| (path, self.start("poll", &[path, "20"])));
        sleep(Duration::from_secs(seconds as u64));
        let (memory, held) = (peak_memory(spotsim), sockets_of(spotsim));
        for (path, good) in &mut good {
            assert!(!good.has_ended(), "{}", good.stderr());
            good.kill();
            let times = times_of_answers(&good.stdout());
            let part = |hundredths| times[(times.len() - 1) * hundredths / 100];
            say(&format!(
                "{count} slow clients ({way}): {} of {path}: median {:?}, p99 {:?}, worst {:?}; {memory}",
                times.len(),
                part(50),
                part(99),
                part(100)
            ));
            assert!(part(50) < SOON, "{path}: {times:?}");
        }
        assert!(!slow.has_ended(), "{}", slow.stderr());
        let lines = slow.stdout();
        let over = lines.lines().skip(1).map(Over::parse).collect();
        (over, held)
    }
}

impl Over {
    fn parse(line: &str) -> Self {
        let line: Value = serde_json::from_str(line).unwrap();
        let [reset, ended, answered] =
            ["reset", "ended", "answered"].map(|name| line[name].as_u64().unwrap());
        Self {
            reset,
            ended,
            answered,
        }
    }
}

/// How long each request took that `client poll` made, the longest last. All must be answered.
fn times_of_answers(lines: &str) -> Vec<Duration> {
    let whole = &lines[..lines.rfind('\n').map_or(0, |end| end + 1)];
    let took = whole.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["status"], 200, "{line}");
        Duration::from_micros(value["took_us"].as_u64().unwrap())
    });
    let mut took: Vec<_> = took.collect();
    assert!(took.len() > 20, "{} requests", took.len());
    took.sort();
    took
}

/// The most memory that a process had.
fn peak_memory(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:"));
    peak.unwrap()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// How many sockets a process has.
fn sockets_of(pid: u32) -> usize {
    let held = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let link = |entry: fs::DirEntry| fs::read_link(entry.path()).unwrap_or_default();
    let is_socket = |link: &PathBuf| link.to_string_lossy().starts_with("socket:");
    held.flatten().map(link).filter(is_socket).count()
}

/// A target with spotsim attached, and the place of its clients.
fn lab() -> Option<(Lab, Place, [Running; 1], Upstream, Spotsim)> {
    let lab = Lab::new()?;
    // It says nothing to a request that is not whole, as a server may.
    let upstream = Upstream::start(&lab, &["--whole-requests"]);
    let workload = lab.workload_process();
    let spotsim = Spotsim::attach(&lab, &[]);
    let place = lab.inside();
    Some((lab, place, [workload], upstream, spotsim))
}

/// For longer than a head may take, so that each is cut off and comes again.
#[test]
fn a_thousand_clients_that_are_slow_in_the_head() {
    let Some((_lab, place, _workload, _upstream, spotsim)) = lab() else {
        return;
    };
    let clients = Clients {
        command: &|| place.command(client()),
        to: "v4",
    };
    let (over, _) = clients.endure(SLOW_CLIENTS, "send", HEAD, 14, spotsim.pid());
    assert_eq!(over[4], Over::default(), "cut off too early: {over:?}");
    let last = over.last().unwrap();
    assert!(last.reset >= SLOW_CLIENTS as u64, "not cut off: {over:?}");
    assert_eq!((last.ended, last.answered), (0, 0), "{over:?}");
}

/// From the first byte of the request on.
#[test]
fn a_thousand_clients_that_are_slow_in_the_head_of_serve() {
    let scratch = Scratch::new();
    let serve = scratch.serve(&[]);
    let to = serve.address.to_string();
    let clients = Clients {
        command: &|| scratch.command(client()),
        to: &to,
    };
    let (over, _) = clients.endure(SLOW_CLIENTS, "send", "", 14, serve.pid());
    assert_eq!(over[4], Over::default(), "cut off too early: {over:?}");
    let last = over.last().unwrap();
    assert!(last.reset >= SLOW_CLIENTS as u64, "not cut off: {over:?}");
    assert_eq!((last.ended, last.answered), (0, 0), "{over:?}");
}

/// Nobody but the upstream knows how long a body may take: they are not cut off.
#[test]
fn a_thousand_clients_that_are_slow_in_the_body() {
    let Some((_lab, place, _workload, _upstream, spotsim)) = lab() else {
        return;
    };
    let clients = Clients {
        command: &|| place.command(client()),
        to: "v4",
    };
    let (over, _) = clients.endure(SLOW_CLIENTS, "send", BODY, 6, spotsim.pid());
    assert_eq!(over.last(), Some(&Over::default()), "{over:?}");
}

/// What they do not read stays with the upstream.
#[test]
fn a_thousand_clients_that_are_slow_readers() {
    let Some((_lab, place, _workload, _upstream, spotsim)) = lab() else {
        return;
    };
    let clients = Clients {
        command: &|| place.command(client()),
        to: "v4",
    };
    let (over, held) = clients.endure(SLOW_CLIENTS, "receive", LARGE, 6, spotsim.pid());
    assert_eq!(over.last(), Some(&Over::default()), "{over:?}");
    // Theirs and those to the upstream.
    assert!(held >= 2 * SLOW_CLIENTS, "{held} sockets");
}
