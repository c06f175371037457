//! Who asks: a process of its own in a network namespace and a cgroup, told on its standard input
//! what to do. Its sockets block, since nothing else comes between it and the kernel.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, SocketAddrV4, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc::linger,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt::Linger,
    },
    time::{ClockId, clock_gettime},
};
use serde_json::{Value, json};
use tests::Place;

use crate::statistics::percentile;

/// Where IMDS is.
pub const IMDS: &str = "169.254.169.254:80";

/// The first argument of this program when it is to be a client.
pub const ARGUMENT: &str = "client";

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running client.
#[derive(Debug)]
pub struct Client {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    /// Starts one that asks IMDS for `path` and takes only 200 with `expected` in it for an answer.
    pub fn start(place: &Place, path: &str, expected: &str) -> Self {
        let this = env::current_exe().expect("this program has a file");
        let mut child = place
            .command(this)
            .args([ARGUMENT, path, expected])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a client starts");
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        Self {
            child,
            stdin,
            stdout,
        }
    }

    pub fn tell(&mut self, command: &str) {
        let Self { stdin, .. } = self;
        writeln!(stdin, "{command}").expect("the client listens");
    }

    /// The next thing it says.
    pub fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stdout
            .read_line(&mut line)
            .expect("the client can be heard");
        serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("the client has ended, see above: {line:?}"))
    }

    fn ask(&mut self, command: &str) -> Value {
        self.tell(command);
        self.hear()
    }

    /// One request after the other: how long each took, in nanoseconds.
    pub fn latencies(&mut self, count: usize) -> Vec<u64> {
        numbers(&self.ask(&format!("latencies {count}")))
    }

    /// Many clients at once for a time.
    pub fn load(&mut self, clients: usize, time: Duration) -> Load {
        let told = self.ask(&format!("load {clients} {}", time.as_millis()));
        let number = |name: &str| told[name].as_u64().expect("a number");
        Load {
            requests: number("requests"),
            failed: number("failed"),
            elapsed: Duration::from_nanos(number("elapsed_ns")),
            p50: number("p50_ns"),
            p99: number("p99_ns"),
            max: number("max_ns"),
        }
    }

    /// Whether the answer to one request has this text.
    pub fn sees(&mut self, text: &str) -> bool {
        self.ask(&format!("sees {text}")) == json!(true)
    }

    /// Sockets that are connected to an address and closed: nanoseconds for each, as the means
    /// of batches.
    pub fn connects(&mut self, kind: &str, address: SocketAddrV4, batches: usize) -> Vec<u64> {
        numbers(&self.ask(&format!("connects {kind} {address} {batches}")))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // An error means that it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What many clients at once saw.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub requests: u64,
    pub failed: u64,
    pub elapsed: Duration,
    /// Of those that were answered, in nanoseconds.
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

fn numbers(list: &Value) -> Vec<u64> {
    let list = list.as_array().expect("a list");
    list.iter()
        .map(|number| number.as_u64().expect("a number"))
        .collect()
}

/// Nanoseconds of a clock that all processes share.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("there is such a clock");
    now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
}

/// What a client does until its standard input ends.
pub fn main(path: &str, expected: &str) {
    let asker = Asker {
        imds: IMDS.parse().expect("an address"),
        request: format!("GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n").into_bytes(),
        expected: expected.to_owned(),
    };
    let mut line = String::new();
    // Not its `lines`, which would keep a command from reading on.
    while io::stdin().read_line(&mut line).expect("commands are text") > 0 {
        let words: Vec<_> = line.trim_end().split(' ').collect();
        let answer = match words[..] {
            ["sees", text] => asker.sees(text),
            ["latencies", count] => asker.latencies(number(count)),
            ["load", clients, milliseconds] => {
                asker.load(number(clients), Duration::from_millis(number(milliseconds)))
            }
            ["connects", kind, address, batches] => connects(kind, address, number(batches)),
            ["watch", clients, microseconds] => {
                asker.watch(number(clients), Duration::from_micros(number(microseconds)))
            }
            _ => panic!("unknown command {line:?}"),
        };
        println!("{answer}");
        line.clear();
    }
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    let Ok(number) = word.parse() else {
        panic!("not a number: {word}")
    };
    number
}

/// Asks the same thing again and again, over a new connection each time.
struct Asker {
    imds: SocketAddr,
    request: Vec<u8>,
    expected: String,
}

impl Asker {
    fn ask(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let Self {
            imds,
            request,
            expected,
        } = self;
        let mut stream = TcpStream::connect_timeout(imds, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request)?;
        buffer.clear();
        stream.read_to_end(buffer)?;
        let answer = String::from_utf8_lossy(buffer);
        match answer.starts_with("HTTP/1.1 200 ") && answer.contains(expected.as_str()) {
            true => Ok(()),
            false => Err(io::Error::other(format!("not the answer: {answer}"))),
        }
    }

    fn sees(&self, text: &str) -> Value {
        let mut buffer = Vec::new();
        self.ask(&mut buffer).expect("an answer");
        json!(String::from_utf8_lossy(&buffer).contains(text))
    }

    fn latencies(&self, count: usize) -> Value {
        let mut buffer = Vec::new();
        let one = || {
            let started = Instant::now();
            self.ask(&mut buffer).expect("an answer");
            started.elapsed().as_nanos() as u64
        };
        json!(std::iter::repeat_with(one).take(count).collect::<Vec<_>>())
    }

    fn load(&self, clients: usize, time: Duration) -> Value {
        let started = Instant::now();
        let one = || {
            let (mut buffer, mut took, mut failed) = (Vec::new(), Vec::new(), 0);
            while started.elapsed() < time {
                let began = Instant::now();
                match self.ask(&mut buffer) {
                    Ok(()) => took.push(began.elapsed().as_nanos() as u64),
                    Err(_) => failed += 1,
                }
            }
            (took, failed)
        };
        let (mut took, mut failed) = (Vec::new(), 0);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..clients).map(|_| scope.spawn(one)).collect();
            for thread in threads {
                let (more, failures) = thread.join().expect("a client does not panic");
                took.extend(more);
                failed += failures;
            }
        });
        let elapsed = started.elapsed().as_nanos() as u64;
        took.sort_unstable();
        let at = |part| match took.is_empty() {
            true => 0,
            false => percentile(&took, part),
        };
        json!({
            "requests": took.len(), "failed": failed, "elapsed_ns": elapsed,
            "p50_ns": at(0.5), "p99_ns": at(0.99), "max_ns": at(1.0),
        })
    }

    /// Some poll, one of them without a pause, until another line comes. Prints when a document
    /// was seen for the first time, and which.
    fn watch(&self, clients: usize, pause: Duration) -> Value {
        let over = AtomicBool::new(false);
        let seen = Mutex::new(String::new());
        let poll = |pause: Duration| {
            let mut buffer = Vec::new();
            while !over.load(Ordering::Relaxed) {
                self.ask(&mut buffer).expect("an answer");
                let at = now();
                let answer = String::from_utf8_lossy(&buffer);
                let body = answer
                    .split_once("\r\n\r\n")
                    .map_or("", |(_, body)| body)
                    .trim();
                let mut seen = seen.lock().expect("no poller panics");
                // Deadlines only grow here, so an answer on its way shows no news.
                if seen.as_str() < body {
                    body.clone_into(&mut seen);
                    println!("{}", json!({"at": at, "body": body}));
                }
                drop(seen);
                thread::sleep(pause);
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| poll(Duration::ZERO));
            for _ in 1..clients {
                scope.spawn(|| poll(pause));
            }
            // Whoever wants it to end says so.
            let _ = io::stdin().read_line(&mut String::new());
            over.store(true, Ordering::Relaxed);
        });
        json!("over")
    }
}

fn connects(kind: &str, address: &str, batches: usize) -> Value {
    const BATCH: u32 = 200;
    /// In which a responder that was connected to is done with all of them.
    const PAUSE: Duration = Duration::from_millis(15);
    let address: SocketAddrV4 = address.parse().expect("an address");
    let address = SockaddrIn::from(address);
    let batch = || {
        let started = Instant::now();
        for _ in 0..BATCH {
            connect_and_close(kind, &address);
        }
        let took = started.elapsed() / BATCH;
        if kind == "tcp" {
            thread::sleep(PAUSE);
        }
        took.as_nanos() as u64
    };
    json!(
        std::iter::repeat_with(batch)
            .take(batches)
            .collect::<Vec<_>>()
    )
}

fn connect_and_close(kind: &str, address: &SockaddrIn) {
    let stream = kind == "tcp";
    let kind = match stream {
        true => SockType::Stream,
        false => SockType::Datagram,
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(AddressFamily::Inet, kind, flags, None).expect("a socket");
    if stream {
        // Closed at once and forgotten, so that no port is kept from the next one.
        let at_once = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&socket, Linger, &at_once).expect("it can linger");
    }
    match connect(socket.as_raw_fd(), address) {
        // Reset is only what was connected: the other side was quick to see that nothing is asked.
        Ok(()) | Err(Errno::ECONNRESET) => {}
        Err(error) => panic!("it does not connect: {error}"),
    }
}
