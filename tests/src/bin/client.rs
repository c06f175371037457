//! A plain socket client, for what no HTTP library lets a test see or send.
//!
//! - `client raw TO [--abort | --half-close]`: sends stdin, prints the answer's bytes. With
//!   `--abort` it closes at once, without reading; with `--half-close` it shuts down its own
//!   direction before it reads.
//! - `client poll TO PATH MILLISECONDS`: a GET on a new connection each time, for ever; one
//!   JSON line each: `{"at_us": …, "took_us": …, "status": 404}`, or with an `"error": "…"`
//!   instead of the status.
//! - `client session TO`: one kept-alive connection; for each path on stdin one JSON line:
//!   `{"status": 200, "body": "…", "reconnected": false}`.
//! - `client idle TO COUNT [TEXT]`: opens connections and sends the text on each, prints how
//!   many are open; for each line on stdin it prints which are gone since, `{"gone": [0, 1]}`,
//!   until stdin's end.
//! - `client trickle TO COUNT send|receive [TEXT]`: opens connections and sends the text on each;
//!   then each sends or receives one byte a second, and is made anew when it is over. Prints
//!   `{"open": …}`, and after each second how many were `reset`, `ended` and `answered` so far.
//!
//! `TO` is `v4`, `v6` or `mapped` (an IPv6 socket to `::ffff:169.254.169.254`), or an address
//! with a port. `raw` prints the peer's address, as `getpeername` gives it, to stderr as
//! `peer ADDRESS`.

use std::{
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

/// No test waits as long as this.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["raw", to] => raw(address(to), Then::Read),
        ["raw", to, "--abort"] => raw(address(to), Then::Abort),
        ["raw", to, "--half-close"] => raw(address(to), Then::HalfClose),
        ["poll", to, path, interval] => poll(
            address(to),
            path,
            Duration::from_millis(interval.parse().unwrap()),
        ),
        ["session", to] => session(address(to)),
        ["idle", to, count] => idle(address(to), count.parse().unwrap(), ""),
        ["idle", to, count, send] => idle(address(to), count.parse().unwrap(), send),
        ["trickle", to, count, way] => trickle(address(to), count.parse().unwrap(), way, ""),
        ["trickle", to, count, way, send] => {
            trickle(address(to), count.parse().unwrap(), way, send);
        }
        _ => panic!("unknown arguments {args:?}"),
    }
}

fn address(to: &str) -> SocketAddr {
    match to {
        "v4" => "169.254.169.254:80",
        "v6" => "[fd00:ec2::254]:80",
        "mapped" => "[::ffff:169.254.169.254]:80",
        other => other,
    }
    .parse()
    .unwrap_or_else(|error| panic!("{to}: {error}"))
}

/// What comes after the request was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Read,
    Abort,
    HalfClose,
}

fn raw(to: SocketAddr, then: Then) {
    let mut request = Vec::new();
    io::stdin().read_to_end(&mut request).unwrap();
    let mut stream = connect(to).unwrap_or_else(|error| fail("connect", &error));
    // There is none any more if the connection was reset at once.
    if let Ok(peer) = stream.peer_addr() {
        eprintln!("peer {peer}");
    }
    let sent = stream.write_all(&request);
    match then {
        Then::Read => {}
        Then::Abort => return,
        Then::HalfClose => stream
            .shutdown(Shutdown::Write)
            .unwrap_or_else(|error| fail("shutdown", &error)),
    }
    // A server may well answer and close before it has read an unreasonable request to its end.
    if let Err(error) = sent {
        eprintln!("send: {error}");
    }
    let mut answer = Vec::new();
    let received = stream.read_to_end(&mut answer);
    io::stdout().write_all(&answer).unwrap();
    if let Err(error) = received {
        fail("receive", &error);
    }
}

fn fail(what: &str, error: &io::Error) -> ! {
    eprintln!("{what}: {error}");
    std::process::exit(1);
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn poll(to: SocketAddr, path: &str, interval: Duration) {
    loop {
        let at = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        let began = Instant::now();
        let mut line = match poll_once(to, path) {
            Ok(status) => json!({"status": status}),
            Err(error) => json!({"error": error.to_string()}),
        };
        line["took_us"] = json!(began.elapsed().as_micros() as u64);
        line["at_us"] = json!(at.as_micros() as u64);
        println!("{line}");
        sleep(interval);
    }
}

fn poll_once(to: SocketAddr, path: &str) -> io::Result<u16> {
    let mut stream = BufReader::new(connect(to)?);
    ask(stream.get_mut(), path, "close")?;
    Ok(answer(&mut stream)?.status)
}

fn session(to: SocketAddr) {
    let mut kept: Option<BufReader<TcpStream>> = None;
    for path in io::stdin().lines() {
        let path = path.unwrap();
        let mut reconnected = false;
        let line = loop {
            let fresh = kept.is_none();
            match exchange(&mut kept, to, &path) {
                Ok(answer) => {
                    break json!({
                        "status": answer.status,
                        "body": String::from_utf8_lossy(&answer.body),
                        "reconnected": reconnected,
                    });
                }
                Err(error) if fresh => break json!({"error": error.to_string()}),
                // As HTTP libraries do: a kept connection that turned out dead is replaced.
                Err(_) => reconnected = true,
            }
        };
        println!("{line}");
    }
}

fn exchange(
    kept: &mut Option<BufReader<TcpStream>>,
    to: SocketAddr,
    path: &str,
) -> io::Result<Answer> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => BufReader::new(connect(to)?),
    };
    ask(stream.get_mut(), path, "keep-alive")?;
    let answer = answer(&mut stream)?;
    if answer.keep_alive {
        *kept = Some(stream);
    }
    Ok(answer)
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    keep_alive: bool,
}

fn ask(stream: &mut TcpStream, path: &str, connection: &str) -> io::Result<()> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes())
}

fn answer(stream: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let mut line = String::new();
    let mut next = |line: &mut String| -> io::Result<()> {
        line.clear();
        if stream.read_line(line)? == 0 {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "closed without an answer",
            ));
        }
        Ok(())
    };
    next(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
    let (mut length, mut keep_alive) = (0, true);
    loop {
        next(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
            "connection" => keep_alive = !value.trim().eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Answer {
        status,
        body,
        keep_alive,
    })
}

fn idle(to: SocketAddr, count: usize, send: &str) {
    as_many_files_as_possible();
    let mut open: Vec<TcpStream> = (0..count)
        .map_while(|_| opened(to, send.as_bytes()).ok())
        .collect();
    let line: Value = json!({"open": open.len()});
    println!("{line}");
    for line in io::stdin().lines() {
        line.unwrap();
        let gone = open.iter_mut().enumerate();
        let gone = gone.filter_map(|(index, stream)| over(stream).map(|_| index));
        let gone: Vec<_> = gone.collect();
        println!("{}", json!({"gone": gone}));
    }
    for stream in open {
        // Some may have been closed from the other side meanwhile.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn as_many_files_as_possible() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// A connection that never blocks, on which this was sent.
fn opened(to: SocketAddr, send: &[u8]) -> io::Result<TcpStream> {
    let mut stream = connect(to)?;
    stream.write_all(send)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// How a connection is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Reset,
    Ended,
    Answered,
}

/// How a connection is over, if it is: that nothing came yet is no end. Takes a byte of what came.
fn over(stream: &mut TcpStream) -> Option<Over> {
    match stream.read(&mut [0]) {
        Ok(0) => Some(Over::Ended),
        Ok(_) => Some(Over::Answered),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(_) => Some(Over::Reset),
    }
}

/// Never bursts: each twentieth of a second it is the turn of a twentieth of them.
fn trickle(to: SocketAddr, count: usize, way: &str, send: &str) {
    const TURNS: usize = 20;
    const TURN: Duration = Duration::from_millis(1000 / TURNS as u64);
    as_many_files_as_possible();
    let open = |_| opened(to, send.as_bytes()).unwrap_or_else(|error| fail("connect", &error));
    let mut open: Vec<TcpStream> = (0..count).map(open).collect();
    println!("{}", json!({"open": open.len()}));
    let mut all = Vec::new();
    for turn in 0.. {
        let began = Instant::now();
        for stream in open.iter_mut().skip(turn % TURNS).step_by(TURNS) {
            let Some(over) = one_byte(stream, way) else {
                continue;
            };
            all.push(over);
            // A server that is full refuses nobody for long.
            if let Ok(again) = opened(to, send.as_bytes()) {
                *stream = again;
            }
        }
        if turn % TURNS == TURNS - 1 {
            let number = |of| all.iter().filter(|over| **over == of).count();
            let [reset, ended, answered] = [Over::Reset, Over::Ended, Over::Answered].map(number);
            println!(
                "{}",
                json!({"reset": reset, "ended": ended, "answered": answered})
            );
        }
        sleep(TURN.saturating_sub(began.elapsed()));
    }
}

/// Sends or receives a byte.
fn one_byte(stream: &mut TcpStream, way: &str) -> Option<Over> {
    let over = over(stream);
    match way {
        // That something comes is what it waits for.
        "receive" => over.filter(|over| *over != Over::Answered),
        "send" if over.is_none() => match stream.write(b"x") {
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(_) => Some(Over::Reset),
        },
        "send" => over,
        _ => panic!("unknown way {way}"),
    }
}
