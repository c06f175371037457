//! The tests' own IMDS: what spotsim's upstream is in these tests.
//!
//! It writes every byte of an answer itself, so that a test can compare a whole answer, its
//! header names' case and the order of its lines included. It acts as the real service does
//! where that is known, and stays the same from one request to the next (its `Date` too).
//!
//! `upstream --log FILE --listen ADDRESS… [--hang] [--reset] [--garbage] [--delay-ms N]
//! [--piecemeal-ms N] [--hop-limit N] [--http10] [--show-peer] [--keep-alive] [--whole-requests]
//! [--require-v2] [--off] [--recording FILE]` prints `listening at ADDRESS…` once it does. `FILE`
//! gets one JSON line for each request, before it is answered: `{"peer": "IP:PORT", "connection":
//! 1, "head": "…"}`, where each byte of the head is the character of the same number. With
//! `--show-peer` each answer has a header `X-Peer: IP:PORT`: the client's own socket, if nobody
//! stands between. A recording is a tree of documents instead of the small one that it has by
//! itself.

mod answers;
mod recording;
mod tokens;

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::socket::{
    Backlog, listen, setsockopt,
    sockopt::{Ipv4Ttl, Ipv6Ttl, Linger, SndBuf},
};
use serde_json::json;

use crate::{
    answers::{Answer, Instance},
    recording::Recording,
    tokens::Tokens,
};

/// Bytes that no parser of HTTP takes.
const GARBAGE: &[u8] = b"\x00\xff\r\nHTP/9 what? \x16\x03\x01\r\n\r\n";

struct Upstream {
    log: Mutex<File>,
    tokens: Tokens,
    connections: AtomicU64,
    /// Read requests and never answer.
    hang: bool,
    /// Read requests and reset the connection.
    reset: bool,
    /// Answer with what is no HTTP.
    garbage: bool,
    show_peer: bool,
    delay: Duration,
    /// Between two pieces of an answer, of a byte each.
    piecemeal: Option<Duration>,
    /// In how many hops an answer must be at its client's.
    hop_limit: Option<u8>,
    http10: bool,
    keep_alive: bool,
    /// Read the body, too, before an answer.
    whole_requests: bool,
    instance: Instance,
}

/// Where there is a body of [`LARGE`], and of how many bytes.
const LARGE_AT: &str = "/latest/meta-data/tests/large";
const LARGE: usize = 1024 * 1024;

/// A request's first line and headers.
struct Request {
    method: String,
    path: String,
    version: String,
    headers: Vec<(String, String)>,
}

fn main() {
    let mut upstream = Upstream {
        log: Mutex::new(File::create("/dev/null").unwrap()),
        tokens: Tokens::default(),
        connections: AtomicU64::new(0),
        hang: false,
        reset: false,
        garbage: false,
        show_peer: false,
        delay: Duration::ZERO,
        piecemeal: None,
        hop_limit: None,
        http10: false,
        keep_alive: false,
        whole_requests: false,
        instance: Instance::default(),
    };
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(option) = args.next() {
        let mut value = || {
            args.next()
                .unwrap_or_else(|| panic!("{option} lacks its value"))
        };
        match option.as_str() {
            "--log" => upstream.log = Mutex::new(File::create(value()).unwrap()),
            "--listen" => {
                let address: SocketAddr = value().parse().unwrap();
                let listener = TcpListener::bind(address).unwrap();
                // So many clients may come at once; what overflows is reset.
                listen(&listener, Backlog::MAXCONN).unwrap();
                listeners.push(listener);
            }
            "--hang" => upstream.hang = true,
            "--reset" => upstream.reset = true,
            "--garbage" => upstream.garbage = true,
            "--show-peer" => upstream.show_peer = true,
            "--delay-ms" => upstream.delay = Duration::from_millis(value().parse().unwrap()),
            "--piecemeal-ms" => {
                upstream.piecemeal = Some(Duration::from_millis(value().parse().unwrap()));
            }
            "--hop-limit" => upstream.hop_limit = Some(value().parse().unwrap()),
            "--http10" => upstream.http10 = true,
            "--keep-alive" => upstream.keep_alive = true,
            "--whole-requests" => upstream.whole_requests = true,
            "--require-v2" => upstream.instance.require_v2 = true,
            "--off" => upstream.instance.off = true,
            "--recording" => upstream.instance.recording = Some(Recording::read(&value())),
            _ => panic!("unknown option {option}"),
        }
    }
    let at = listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().to_string());
    println!("listening at {}", at.collect::<Vec<_>>().join(" "));
    let upstream = Arc::new(upstream);
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let upstream = Arc::clone(&upstream);
            thread::spawn(move || accept(&upstream, &listener))
        })
        .collect();
    for thread in accepting {
        thread.join().unwrap();
    }
}

fn accept(upstream: &Arc<Upstream>, listener: &TcpListener) {
    for stream in listener.incoming() {
        let upstream = Arc::clone(upstream);
        let stream = stream.unwrap();
        // A client that goes away mid-way is no concern of the others.
        thread::spawn(move || upstream.serve(stream));
    }
}

impl Upstream {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        let peer = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        while let Some(head) = read_head(&mut stream)? {
            if let Some(hops) = self.hop_limit {
                limit_hops(&stream, hops)?;
            }
            let line = json!({
                "peer": peer.to_string(),
                "connection": connection,
                "head": latin1(&head),
            });
            writeln!(self.log.lock().unwrap(), "{line}")?;
            let request = Request::parse(&latin1(&head));
            if self.hang {
                // Until the client gives up.
                io::copy(&mut stream, &mut io::sink())?;
                return Ok(());
            }
            if self.reset {
                let at_once = libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                setsockopt(&stream, Linger, &at_once)?;
                return Ok(());
            }
            if self.whole_requests {
                let length = request.header("content-length").next();
                let length = length.map_or(0, |length| length.parse().unwrap());
                io::copy(&mut (&stream).take(length), &mut io::sink())?;
            }
            thread::sleep(self.delay);
            if self.garbage {
                return stream.write_all(&GARBAGE.repeat(64));
            }
            if request.path == LARGE_AT {
                return send_large(&mut stream);
            }
            let mut answer = answers::answer(&request, &self.tokens, &self.instance);
            if self.show_peer {
                answer.headers.push(("X-Peer", peer.to_string()));
            }
            self.send(&mut stream, &request, &answer)?;
            if !self.keep_alive {
                break;
            }
        }
        Ok(())
    }

    fn send(&self, stream: &mut TcpStream, request: &Request, answer: &Answer) -> io::Result<()> {
        let http10 = self.http10 || request.version == "HTTP/1.0";
        let version = if http10 { "1.0" } else { "1.1" };
        let connection = if self.keep_alive {
            "keep-alive"
        } else {
            "close"
        };
        let mut bytes = format!("HTTP/{version} {}\r\n", answer.status).into_bytes();
        for (name, value) in &answer.headers {
            let value = if *name == "Connection" {
                connection
            } else {
                value
            };
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        if request.method != "HEAD" {
            bytes.extend_from_slice(&answer.body);
        }
        let Some(pause) = self.piecemeal else {
            return stream.write_all(&bytes);
        };
        bytes.chunks(1).try_for_each(|piece| {
            thread::sleep(pause);
            stream.write_all(piece)
        })
    }
}

impl Request {
    fn parse(head: &str) -> Self {
        let mut lines = head.split("\r\n");
        let mut first = lines
            .next()
            .unwrap_or_default()
            .split(' ')
            .map(str::to_owned);
        let method = first.next().unwrap_or_default();
        let target = first.next().unwrap_or_default();
        Self {
            method,
            path: target.split('?').next().unwrap_or_default().to_owned(),
            version: first.next().unwrap_or_default(),
            headers: lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect(),
        }
    }

    fn header(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.headers.iter().filter(move |(other, _)| other == name);
        named.map(|(_, value)| value.as_str())
    }
}

/// Piece by piece, and with little in the kernel: a thousand clients would take all its memory.
fn send_large(stream: &mut TcpStream) -> io::Result<()> {
    let piece = [b'x'; 64 * 1024];
    setsockopt(stream, SndBuf, &piece.len())?;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    (0..LARGE / piece.len()).try_for_each(|_| stream.write_all(&piece))
}

/// What is sent from now on is dropped by the router that is this far away. The client is
/// connected already, as with the real service.
fn limit_hops(stream: &TcpStream, hops: u8) -> io::Result<()> {
    match stream.local_addr()? {
        SocketAddr::V4(_) => setsockopt(stream, Ipv4Ttl, &hops.into())?,
        SocketAddr::V6(_) => setsockopt(stream, Ipv6Ttl, &hops.into())?,
    }
    Ok(())
}

/// The bytes up to and with the empty line; none at the end of the connection.
fn read_head(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    Ok(Some(head))
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}
