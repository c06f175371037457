use std::{
    env, fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use jiff::SignedDuration;
use nix::{sys::stat::Mode, unistd::mkfifo};

use super::*;
use crate::{
    event::Told,
    instance::{Identity, Network},
    timeline::{Action, Occasion},
};

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("spotsim-courier-{}-{count}", std::process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// The path of a file in it.
    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// The events that were written to a file.
    fn events(&self, name: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn event(number: usize) -> Arc<Event> {
    let identity = Identity {
        instance: format!("i-{number}"),
        account: "123456789012".to_owned(),
        region: "us-east-2".to_owned(),
        partition: "aws".to_owned(),
        zone: String::new(),
        instance_type: String::new(),
        image: String::new(),
        architecture: String::new(),
        private_ip: String::new(),
        network: Network::default(),
        tags: [].into(),
    };
    let told = Told::Occasion(Occasion::Notice(Action::Terminate));
    Arc::new(Event::of(&told, &identity, Timestamp::now()).unwrap())
}

fn in_seconds(seconds: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(seconds)
}

async fn courier(sinks: &[&str]) -> Courier {
    let sinks: Vec<Sink> = sinks.iter().map(|sink| sink.parse().unwrap()).collect();
    Courier::start(&sinks, &Form::default()).await.unwrap()
}

/// Waits for something about a sink.
async fn until(courier: &Courier, sink: usize, what: impl Fn(&Delivery) -> bool) -> Delivery {
    let start = Instant::now();
    loop {
        let delivery = courier.deliveries().swap_remove(sink);
        if what(&delivery) {
            return delivery;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{delivery:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn instances(events: &[serde_json::Value]) -> Vec<&str> {
    let ids = events
        .iter()
        .map(|event| event["detail"]["instance-id"].as_str().unwrap());
    ids.collect()
}

#[tokio::test]
async fn a_file_has_a_line_for_each_event_in_their_order() {
    let directory = Directory::new();
    fs::write(
        directory.path("events"),
        "{\"detail\":{\"instance-id\":\"before\"}}\n",
    )
    .unwrap();
    let courier = courier(&[&format!("file:{}", directory.path("events"))]).await;
    let sent: Vec<_> = (0..50).map(event).collect();
    for event in &sent {
        courier.send(Arc::clone(event), in_seconds(60));
    }
    courier.finish(Duration::from_secs(10)).await;
    let events = directory.events("events");
    assert_eq!(events.len(), 51, "what was there stays");
    for (sent, written) in sent.iter().zip(&events[1..]) {
        assert_eq!(&serde_json::to_value(&**sent).unwrap(), written);
    }
    let delivery = &courier.deliveries()[0];
    assert_eq!(
        (delivery.delivered, delivery.failed, delivery.pending),
        (50, 0, 0)
    );
}

#[tokio::test]
async fn what_cannot_be_opened_is_an_error_at_once() {
    let directory = Directory::new();
    mkfifo(directory.path("fifo").as_str(), Mode::S_IRWXU).unwrap();
    for (path, expected) in [
        (directory.path("missing/events"), "No such file"),
        (directory.path(""), "directory"),
        // Nobody reads, and nobody is waited for.
        (directory.path("fifo"), "No such device or address"),
    ] {
        let sink = format!("file:{path}").parse().unwrap();
        let started = Courier::start(&[sink], &Form::default()).await;
        let error = format!("{:#}", started.err().expect("an error"));
        assert!(error.contains("cannot emit to file:"), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_command_that_fails_is_tried_again_until_it_succeeds() {
    let directory = Directory::new();
    let (tries, done) = (directory.path("tries"), directory.path("done"));
    let script =
        format!("echo x >> {tries}; [ $(wc -l < {tries}) -ge 3 ] || exit 7; cat >> {done}");
    let courier = courier(&[&format!("exec:{script}")]).await;
    let start = Instant::now();
    courier.send(event(1), in_seconds(60));
    let failing = until(&courier, 0, |delivery| delivery.error.is_some()).await;
    assert_eq!((failing.pending, failing.failed), (1, 0));
    assert!(failing.error.unwrap().contains("exit status: 7"));
    let done = until(&courier, 0, |delivery| delivery.delivered == 1).await;
    assert_eq!((done.failed, done.pending, done.error), (0, 0, None));
    // Half of 0.2 s and of 0.4 s at least.
    assert!(
        start.elapsed() >= Duration::from_millis(300),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(instances(&directory.events("done")), ["i-1"]);
    assert_eq!(fs::read_to_string(tries).unwrap(), "x\nx\nx\n");
}

#[tokio::test]
async fn a_command_need_not_read() {
    let courier = courier(&["exec:exec true"]).await;
    for number in 0..10 {
        let mut event = Arc::unwrap_or_clone(event(number));
        // More than a pipe holds.
        event.region = "x".repeat(100_000);
        courier.send(Arc::new(event), in_seconds(60));
    }
    let done = until(&courier, 0, |delivery| delivery.pending == 0).await;
    assert_eq!((done.delivered, done.failed), (10, 0));
}

#[tokio::test]
async fn it_is_given_up_when_it_is_of_no_use() {
    let directory = Directory::new();
    let tries = directory.path("tries");
    let courier = courier(&[&format!("exec:echo x >> {tries}; exit 1")]).await;
    courier.send(event(1), in_seconds(0));
    let late = until(&courier, 0, |delivery| delivery.failed == 1).await;
    assert!(late.error.unwrap().contains("of no use any more"));
    assert!(fs::exists(&tries).is_ok_and(|tried| !tried));

    courier.send(event(2), in_seconds(1));
    let failed = until(&courier, 0, |delivery| delivery.failed == 2).await;
    assert_eq!((failed.delivered, failed.pending), (0, 0));
    assert!(
        failed.error.unwrap().contains("exit status: 1"),
        "the reason stays"
    );
    let tries = fs::read_to_string(tries).unwrap().lines().count();
    assert!((2..=5).contains(&tries), "{tries} within a second");
}

#[tokio::test]
async fn a_slow_sink_holds_up_nobody() {
    let directory = Directory::new();
    let file = format!("file:{}", directory.path("events"));
    let courier = courier(&["exec:exec sleep 600", &file]).await;
    let start = Instant::now();
    for number in 0..10 {
        courier.send(event(number), in_seconds(60));
    }
    until(&courier, 1, |delivery| delivery.delivered == 10).await;
    assert!(start.elapsed() < Duration::from_secs(5));
    let slow = &courier.deliveries()[0];
    assert_eq!((slow.delivered, slow.failed, slow.pending), (0, 0, 10));
}

#[tokio::test]
async fn the_end_is_bounded_and_ends_what_was_started() {
    let directory = Directory::new();
    let pids = directory.path("pids");
    let script = format!("sleep 600 & echo $! > {pids}.new; mv {pids}.new {pids}; wait");
    let courier = courier(&[&format!("exec:{script}")]).await;
    courier.send(event(1), in_seconds(60));
    courier.send(event(2), in_seconds(60));
    let start = Instant::now();
    while !fs::exists(&pids).unwrap() {
        assert!(start.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(5)).await;
    }
    let start = Instant::now();
    courier.finish(Duration::from_millis(100)).await;
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    let delivery = &courier.deliveries()[0];
    assert_eq!(
        (delivery.delivered, delivery.failed, delivery.pending),
        (0, 2, 0)
    );
    let pid = fs::read_to_string(&pids).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    // It may take a moment, and then to be waited for by whoever adopted it.
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(start.elapsed() < Duration::from_secs(10), "{stat}");
        sleep(Duration::from_millis(5)).await;
    }
    // Nothing is taken any more.
    courier.send(event(3), in_seconds(60));
    assert_eq!(courier.deliveries()[0].pending, 0);
}

#[tokio::test]
async fn what_was_taken_is_delivered_in_the_end() {
    let directory = Directory::new();
    let script = format!("sleep 0.2; cat >> {}", directory.path("events"));
    let courier = courier(&[&format!("exec:{script}")]).await;
    for number in 0..3 {
        courier.send(event(number), in_seconds(60));
    }
    courier.finish(Duration::from_secs(10)).await;
    assert_eq!(
        instances(&directory.events("events")),
        ["i-0", "i-1", "i-2"]
    );
}

#[test]
fn of_too_many_the_oldest_that_waits_is_dropped() {
    let queue = Queue {
        name: "test".to_owned(),
        state: Mutex::default(),
        news: Notify::new(),
    };
    let until = in_seconds(60);
    let letter = |number| Letter {
        event: event(number),
        until,
    };
    queue.push(letter(0));
    queue.state().under_way = true;
    for number in 1..MOST_WAITING + 3 {
        queue.push(letter(number));
    }
    let delivery = queue.delivery();
    assert_eq!(
        (delivery.pending, delivery.failed),
        (MOST_WAITING as u64, 3)
    );
    assert!(delivery.error.unwrap().contains("the oldest is dropped"));
    let state = queue.state();
    let left = state
        .waiting
        .iter()
        .map(|letter| letter.event.instance().to_owned());
    let left: Vec<_> = left.collect();
    assert_eq!(
        left[..2],
        ["i-0", "i-4"],
        "not the one that is being delivered"
    );
    assert_eq!(left.last().unwrap(), &format!("i-{}", MOST_WAITING + 2));
}

#[tokio::test]
async fn a_pipe_that_is_full_is_not_waited_for() {
    let directory = Directory::new();
    mkfifo(directory.path("fifo").as_str(), Mode::S_IRWXU).unwrap();
    // Opened for both, so that neither end waits for the other.
    let mut reader = fs::File::options();
    let reader = reader
        .read(true)
        .write(true)
        .open(directory.path("fifo"))
        .unwrap();
    let sinks = [
        format!("file:{}", directory.path("fifo")),
        format!("file:{}", directory.path("events")),
    ];
    let courier = courier(&sinks.each_ref().map(String::as_str)).await;
    // A pipe holds 64 KiB; each of these has more than 300 bytes.
    for number in 0..400 {
        courier.send(event(number), in_seconds(60));
    }
    until(&courier, 1, |delivery| delivery.delivered == 400).await;
    let full = until(&courier, 0, |delivery| delivery.error.is_some()).await;
    assert!(full.delivered > 0 && full.pending > 0, "{full:?}");
    // From then on somebody reads.
    let (tell, told) = std::sync::mpsc::channel();
    // A thread that nobody waits for: lines that do not come must not hang the test.
    std::thread::spawn(move || {
        use std::io::{BufRead as _, BufReader};
        let lines = BufReader::new(reader).lines().take(400);
        let _ = tell.send(lines.map(Result::unwrap).collect::<Vec<_>>());
    });
    until(&courier, 0, |delivery| delivery.delivered == 400).await;
    let lines = told.recv_timeout(Duration::from_secs(10));
    let lines = lines.expect("400 lines");
    let events: Vec<_> = lines
        .iter()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    let expected: Vec<_> = (0..400).map(|number| format!("i-{number}")).collect();
    assert_eq!(instances(&events), expected);
}
