//! The responder over plain sockets: no privileges, no kernel half.
//!
//! The upstream here says one thing, byte by byte, and keeps what it was asked.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener as StdListener, TcpStream},
    os::unix::process::ExitStatusExt as _,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use spotsim::{
    instance::Instance,
    netns::{Namespace, Owner},
    responder::{
        Exchange, Mode, Outcome, Place, Responder, Synthetic, Upstream, Visitor, Witness, serve,
    },
    timeline::{NoticePlan, Plan, Timeline},
};
use tokio::sync::oneshot;

const NOTICE: &str = "GET /latest/meta-data/spot/instance-action HTTP/1.1\r\nHost: imds\r\n\r\n";
const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nServer: EC2ws\r\n\r\n";
/// Far above what an answer takes, far below what a client that hangs would.
const PATIENCE: Duration = Duration::from_secs(5);

/// A responder with a notice that is visible, on a port of loopback.
struct Served {
    address: SocketAddr,
    responder: Arc<Responder>,
    told: Arc<Mutex<Vec<String>>>,
    /// Makes the witness panic over the next client.
    fault: Arc<AtomicBool>,
    /// For so many questions the witness does not know the next client.
    unknown: Arc<AtomicUsize>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Writes down what it is told.
struct Notes {
    told: Arc<Mutex<Vec<String>>>,
    fault: Arc<AtomicBool>,
    unknown: Arc<AtomicUsize>,
}

impl Witness for Notes {
    fn arrived(&self, _: SocketAddr, client: SocketAddr) -> Option<Visitor> {
        let fault = self.fault.swap(false, Ordering::Relaxed);
        assert!(!fault, "this panic is the test's");
        let still = |left: usize| left.checked_sub(1);
        let unknown = self
            .unknown
            .try_update(Ordering::Relaxed, Ordering::Relaxed, still);
        unknown.is_err().then(|| Visitor {
            cookie: client.port().into(),
            owner: Owner::current(),
            target: None,
        })
    }

    fn waits(&self, _: SocketAddr, _: SocketAddr) -> bool {
        true
    }

    fn answered(&self, visitor: Visitor, exchange: &Exchange<'_>) {
        assert!(visitor.cookie > 0);
        let outcome = match exchange.outcome {
            Outcome::Faked => "faked".to_owned(),
            Outcome::Passed(status) => status.as_u16().to_string(),
            Outcome::NoAnswer(_) => "no answer".to_owned(),
        };
        let Self { told, .. } = self;
        let Exchange { method, path, .. } = exchange;
        told.lock()
            .unwrap()
            .push(format!("{method} {path} {outcome}"));
    }
}

impl Served {
    fn with(upstream: Upstream) -> Self {
        Self::until(upstream, async |ended| _ = ended.await)
    }

    /// Serves until what is made of the wait for the end.
    fn until<E: Future<Output = ()>>(
        upstream: Upstream,
        end_of: impl FnOnce(oneshot::Receiver<()>) -> E + Send + 'static,
    ) -> Self {
        let plan = Plan {
            notice: Some(NoticePlan::default()),
            ..Plan::default()
        };
        let timeline = plan
            .arm("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap())
            .unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let fault = Arc::new(AtomicBool::new(false));
        let unknown = Arc::new(AtomicUsize::new(0));
        let notes = Notes {
            told: Arc::clone(&told),
            fault: Arc::clone(&fault),
            unknown: Arc::clone(&unknown),
        };
        let place = Arc::new(Place::new(Namespace::current().unwrap(), Box::new(notes)));
        let responder = Arc::new(Responder::new(timeline, upstream));
        let served = Arc::clone(&responder);
        let (end, ended) = oneshot::channel();
        let (bound, address) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
                    .await
                    .unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, place, served, end_of(ended)).await;
            });
        });
        Self {
            address: address.recv().unwrap(),
            responder,
            told,
            fault,
            unknown,
            end: Some(end),
            thread: Some(thread),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What a client that sends `request` gets, up to the end of the connection.
    fn ask(&self, request: &str) -> std::io::Result<String> {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    fn end(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.end.take());
    }
}

/// An upstream that answers each connection with `answer` and then closes it, and the heads of
/// the requests that it got.
fn saying(answer: &'static str) -> (Upstream, mpsc::Receiver<String>) {
    let listener = StdListener::bind(("127.0.0.1", 0)).unwrap();
    let upstream = Upstream::Server(listener.local_addr().unwrap());
    let (heads, asked) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let _ = heads.send(String::from_utf8(head).unwrap());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (upstream, asked)
}

/// An upstream that accepts connections and says nothing.
fn silent() -> (Upstream, StdListener) {
    let listener = StdListener::bind(("127.0.0.1", 0)).unwrap();
    (Upstream::Server(listener.local_addr().unwrap()), listener)
}

/// An upstream that refuses connections.
fn absent() -> Upstream {
    let (upstream, _) = silent();
    upstream
}

#[test]
fn what_is_not_faked_passes_as_it_is() {
    let (upstream, asked) = saying(
        "HTTP/1.1 299 So So\r\nX-Odd-CASE: 1\r\nx-dup: a\r\nContent-Length: 5\r\nX-Last:  2\r\n\
         Connection: close\r\n\r\nhello",
    );
    let served = Served::with(upstream);
    let request = "GET /latest/user-data HTTP/1.1\r\nhOST: imds\r\nX-Two: 1\r\nX-Two: 2\r\n\r\n";
    let answer = served.ask(request).unwrap();
    assert_eq!(
        answer,
        "HTTP/1.1 299 So So\r\nX-Odd-CASE: 1\r\nx-dup: a\r\nContent-Length: 5\r\nX-Last: 2\r\n\
         Connection: close\r\n\r\nhello"
    );
    assert_eq!(asked.recv().unwrap(), request);
    assert_eq!(served.told(), ["GET /latest/user-data 299"]);
}

#[test]
fn a_404_is_replaced_and_keeps_what_is_left_of_the_token() {
    let (upstream, asked) = saying(
        "HTTP/1.1 404 Not Found\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 77\r\n\
         Content-Length: 3\r\n\r\nno!",
    );
    let served = Served::with(upstream);
    let answer = served.ask(NOTICE).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 77\r\n"),
        "{head}"
    );
    assert_eq!(
        body,
        r#"{"action": "terminate", "time": "2026-01-01T00:02:00Z"}"#
    );
    assert_eq!(
        asked.recv().unwrap(),
        NOTICE,
        "the upstream judges the request as it came"
    );
    assert_eq!(
        served.told(),
        ["GET /latest/meta-data/spot/instance-action faked"]
    );
}

#[test]
fn the_upstreams_refusal_stands() {
    let (upstream, _asked) = saying("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    let served = Served::with(upstream);
    let answer = served.ask(NOTICE).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"),
        "{answer}"
    );
    assert!(!answer.contains("terminate"), "{answer}");
    assert_eq!(
        served.told(),
        ["GET /latest/meta-data/spot/instance-action 401"]
    );
}

#[test]
fn other_methods_are_not_faked() {
    let (upstream, _asked) = saying("HTTP/1.1 405 Not Allowed\r\nContent-Length: 0\r\n\r\n");
    let served = Served::with(upstream);
    let answer = served.ask(&NOTICE.replace("GET", "POST")).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 405 Not Allowed\r\n"),
        "{answer}"
    );
}

#[test]
fn without_a_verdict_in_time_a_fake_is_shown_all_the_same() {
    /// So long the strictest client waits for headers.
    const STRICTEST: Duration = Duration::from_millis(500);
    let (upstream, _listener) = silent();
    for upstream in [upstream, absent()] {
        let served = Served::with(upstream);
        // The best of three, because other tests are running.
        let mut took = Vec::new();
        while took.len() < 3 && took.last().is_none_or(|&last| last >= STRICTEST) {
            let began = Instant::now();
            let answer = served.ask(NOTICE).unwrap();
            took.push(began.elapsed());
            assert!(answer.contains("terminate"), "{answer}");
        }
        assert!(took.iter().min() < Some(&STRICTEST), "{took:?}");
    }
}

#[test]
fn an_upstream_that_is_not_there_resets_and_makes_nothing_up() {
    let served = Served::with(absent());
    let error = served
        .ask("GET /latest/user-data HTTP/1.1\r\nHost: imds\r\n\r\n")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(served.told(), ["GET /latest/user-data no answer"]);
}

#[test]
fn a_broken_answer_resets() {
    let (upstream, _asked) = saying("this is not HTTP\r\n\r\n");
    let served = Served::with(upstream);
    let error = served
        .ask("GET /latest/user-data HTTP/1.1\r\nHost: imds\r\n\r\n")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_fault_over_one_client_costs_that_one_its_connection() {
    let served = Served::with(Upstream::Nothing);
    for _ in 0..3 {
        served.fault.store(true, Ordering::Relaxed);
        let error = served.ask(NOTICE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(served.ask(NOTICE).unwrap().contains("terminate"));
    }
}

/// No listener may be gone while connections are sent to it.
#[test]
fn a_fault_that_would_end_a_listener_ends_the_process() {
    const NAME: &str = "a_fault_that_would_end_a_listener_ends_the_process";
    // In a process of its own, which is this test again.
    if std::env::var_os(NAME).is_some() {
        let end = async { panic!("this panic is the test's") };
        let mut served = Served::until(Upstream::Nothing, |_| end);
        served.end();
        return;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", NAME]).env(NAME, "");
    let output = again.output().unwrap();
    let aborted = Some(libc::SIGABRT);
    assert_eq!(output.status.signal(), aborted, "{output:?}");
}

/// The kernel half's word on a client can come after him.
#[test]
fn who_is_known_late_is_served_and_who_never_is_reset() {
    let served = Served::with(Upstream::Nothing);
    served.unknown.store(5, Ordering::Relaxed);
    let answer = served.ask(NOTICE).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(served.unknown.load(Ordering::Relaxed), 0);

    served.unknown.store(usize::MAX, Ordering::Relaxed);
    let error = served.ask(NOTICE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn each_connection_has_one_request() {
    let (upstream, _asked) = saying(NOT_FOUND);
    let served = Served::with(upstream);
    let answer = served.ask(&NOTICE.repeat(3)).unwrap();
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
}

#[test]
fn a_request_under_way_is_answered_after_the_end() {
    let (upstream, listener) = silent();
    let mut served = Served::with(upstream);
    let mut client = served.connect();
    client
        .write_all(b"GET /latest/user-data HTTP/1.1\r\nHost: imds\r\n\r\n")
        .unwrap();
    let (mut upstream, _) = listener.accept().unwrap();
    let late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        upstream.write_all(NOT_FOUND.as_bytes()).unwrap();
        upstream.shutdown(Shutdown::Write).unwrap();
        upstream
    });
    served.end();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    TcpStream::connect(served.address).unwrap_err();
    drop(late.join().unwrap());
}

#[test]
fn no_upstream_is_404_for_everything_but_the_fake() {
    let served = Served::with(Upstream::Nothing);
    let answer = served
        .ask("PUT /latest/api/token HTTP/1.1\r\nHost: imds\r\n\r\n")
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(served.ask(NOTICE).unwrap().contains("terminate"));
}

#[test]
fn a_real_interruption_is_never_hidden() {
    let real = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nreal";
    let (upstream, _asked) = saying(real);
    let served = Served::with(upstream);
    assert!(served.ask(NOTICE).unwrap().ends_with("\r\n\r\nreal"));
    // Nor is anything of ours beside it: here the upstream has the same for everything.
    let time = NOTICE.replace("instance-action", "termination-time");
    assert!(served.ask(&time).unwrap().ends_with("\r\n\r\nreal"));
    let listing = NOTICE.replace("instance-action", "");
    assert!(served.ask(&listing).unwrap().ends_with("\r\n\r\nreal"));
    assert_eq!(
        served.told(),
        [
            "GET /latest/meta-data/spot/instance-action 200",
            "GET /latest/meta-data/spot/termination-time 200",
            "GET /latest/meta-data/spot/ 200",
        ]
    );
}

#[test]
fn conditions_do_not_hide_what_is_announced() {
    for path in ["spot/instance-action", "", "spot/"] {
        let (upstream, asked) = saying(NOT_FOUND);
        let served = Served::with(upstream);
        let request = format!(
            "GET /latest/meta-data/{path} HTTP/1.1\r\nHost: imds\r\n\
             If-Modified-Since: Thu, 27 Jun 2024 22:17:40 GMT\r\nIf-None-Match: \"a\"\r\n\
             Range: bytes=0-1\r\nAccept-Encoding: gzip\r\nAccept: */*\r\n\r\n"
        );
        let answer = served.ask(&request).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(
            asked.recv().unwrap(),
            format!("GET /latest/meta-data/{path} HTTP/1.1\r\nHost: imds\r\nAccept: */*\r\n\r\n")
        );
    }
}

#[test]
fn a_listing_with_more_in_it_is_a_document_of_its_own() {
    let (upstream, _asked) = saying(
        "HTTP/1.1 200 OK\r\nX-Odd-CASE: 1\r\nETag: \"a\"\r\n\
         Last-Modified: Thu, 27 Jun 2024 22:17:40 GMT\r\nTransfer-Encoding: chunked\r\n\r\n\
         6\r\nami-id\r\n7\r\n\ntags/\n\r\n0\r\n\r\n",
    );
    let served = Served::with(upstream);
    let answer = served
        .ask("GET /latest/meta-data/ HTTP/1.1\r\nHost: imds\r\n\r\n")
        .unwrap();
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\nX-Odd-CASE: 1\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         Content-Length: 38\r\nConnection: close\r\n\r\nami-id\ninstance-life-cycle\nspot/\ntags/"
    );
}

#[test]
fn the_top_is_listed_by_us_where_the_upstream_has_none() {
    let (upstream, _asked) = saying(NOT_FOUND);
    let served = Served::with(upstream);
    let answer = served
        .ask("GET /latest/meta-data HTTP/1.1\r\nHost: imds\r\n\r\n")
        .unwrap();
    assert!(
        answer.ends_with("\r\n\r\ninstance-life-cycle\nspot/"),
        "{answer}"
    );
}

/// Every place at which something can be announced, and every directory above one.
const PLACES: [&str; 14] = [
    "",
    "spot",
    "spot/instance-action",
    "spot/termination-time",
    "events",
    "events/maintenance",
    "events/maintenance/history",
    "events/maintenance/scheduled",
    "events/recommendations",
    "events/recommendations/rebalance",
    "autoscaling",
    "autoscaling/target-lifecycle-state",
    "instance-life-cycle",
    "instance-id",
];

/// What is at each place, but for the dates.
fn everything(served: &Served) -> Vec<String> {
    let read = |place: &&str| {
        let request = format!("GET /latest/meta-data/{place} HTTP/1.1\r\nHost: imds\r\n\r\n");
        let answer = served.ask(&request).unwrap();
        let lines = answer.split("\r\n");
        let lines = lines.filter(|line| !line.starts_with("Date: "));
        lines.collect::<Vec<_>>().join("\n")
    };
    PLACES.iter().map(read).collect()
}

#[test]
fn what_is_canceled_is_nowhere() {
    let armed_at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let instance = Synthetic::new(Instance::synthetic(armed_at), Mode::V1V2);
    let served = Served::with(Upstream::Synthetic(Arc::new(instance)));
    let nothing = Timeline::nothing(armed_at);
    served.responder.show(nothing.clone());
    let before = everything(&served);
    // What each announces, and in how many places at least that shows.
    for (plan, shows) in [
        (r#"{"notice": {"action": "stop"}}"#, 3),
        (r#"{"notice": {}}"#, 4),
        (r#"{"rebalance": {}}"#, 3),
        (r#"{"lifecycle-states": [{"state": "Standby"}]}"#, 3),
        (r#"{"life-cycle": "on-demand"}"#, 1),
        (r#"{"scheduled": [{"code": "system-reboot"}]}"#, 1),
        (
            r#"{"scheduled": [{"code": "system-reboot", "canceled": "0s"}]}"#,
            1,
        ),
        (
            r#"{"notice": {}, "rebalance": {}, "lifecycle-states": [{"state": "Standby"}],
                "life-cycle": "on-demand", "scheduled": [{"code": "system-reboot"}]}"#,
            11,
        ),
    ] {
        let armed: Plan = serde_json::from_str(plan).unwrap();
        served.responder.show(armed.arm(armed_at).unwrap());
        let during = everything(&served);
        let changed = during.iter().zip(&before).filter(|(now, then)| now != then);
        assert!(changed.count() >= shows, "{plan}: {during:?}");
        served.responder.show(nothing.clone());
        assert_eq!(everything(&served), before, "after {plan}");
    }
}
