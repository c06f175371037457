//! What runs in the targets and beside them: a process that asks its IMDS again and again, each
//! time on a connection of its own, and tells how each request went.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use ::tests::Via;
use nix::time::{ClockId, clock_gettime};

/// No request waits longer. The upstream that is slow is not that slow.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two requests of a kind.
const PAUSE: Duration = Duration::from_millis(120);

/// While a file of this name is in the lab's directory, where clients run, nobody asks.
pub const QUIET: &str = "quiet";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A path that spotsim answers: the notice.
    Faked,
    /// A path that it passes on: the instance's id.
    Passed,
    /// A token, and the instance's id with it: two requests.
    Token,
}

/// How a request went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered {
        status: u16,
        /// Whether the upstream saw the client's own socket.
        direct: bool,
        body: String,
    },
    Failed(Failure, String),
}

/// Where a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens there.
    Refused,
    /// The connection was destroyed in the kernel (`ECONNABORTED`).
    Aborted,
    /// There is no way to it.
    Unreachable,
    /// It took too long.
    TimedOut,
    /// It was reset, broke off, or was no HTTP.
    Broken,
}

/// One request. Times are microseconds of the kernel's monotonic clock, which is one for all
/// processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub client: String,
    pub kind: Kind,
    pub began: u64,
    pub ended: u64,
    pub outcome: Outcome,
}

/// Now, by the clock of the records.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1_000
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Faked, Self::Passed, Self::Token];

    pub fn name(self) -> &'static str {
        match self {
            Self::Faked => "faked",
            Self::Passed => "passed",
            Self::Token => "token",
        }
    }
}

impl Failure {
    const ALL: [(&str, Self); 5] = [
        ("refused", Self::Refused),
        ("aborted", Self::Aborted),
        ("unreachable", Self::Unreachable),
        ("timed-out", Self::TimedOut),
        ("broken", Self::Broken),
    ];

    pub fn of(error: &io::Error) -> Self {
        use io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionAborted => Self::Aborted,
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => Self::Unreachable,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::TimedOut,
            _ => Self::Broken,
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        let named = Self::ALL.iter().find(|(other, _)| *other == name);
        named.map(|(_, failure)| *failure)
    }

    pub fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(_, failure)| *failure == self);
        named.unwrap().0
    }
}

/// A line, with fields between tabs.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client,
            kind,
            began,
            ended,
            outcome,
        } = self;
        write!(f, "{client}\t{}\t{began}\t{ended}\t", kind.name())?;
        match outcome {
            Outcome::Answered {
                status,
                direct,
                body,
            } => write!(f, "{status}\t{direct}\t{}", body.escape_default()),
            Outcome::Failed(failure, why) => {
                write!(f, "{}\tfalse\t{}", failure.name(), why.escape_default())
            }
        }
    }
}

impl FromStr for Record {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let read = || {
            let mut fields = line.split('\t');
            let client = fields.next()?.to_owned();
            let kind = fields.next()?;
            let kind = Kind::ALL.into_iter().find(|other| other.name() == kind)?;
            let (began, ended) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let (how, direct) = (fields.next()?, fields.next()?.parse().ok()?);
            let text = unescaped(fields.next()?);
            let outcome = match Failure::named(how) {
                Some(failure) => Outcome::Failed(failure, text),
                None => Outcome::Answered {
                    status: how.parse().ok()?,
                    direct,
                    body: text,
                },
            };
            Some(Self {
                client,
                kind,
                began,
                ended,
                outcome,
            })
        };
        read().ok_or_else(|| format!("not a record: {line:?}"))
    }
}

/// Of what `escape_default` makes of answers, the quotes are all that matters.
fn unescaped(text: &str) -> String {
    text.replace("\\\"", "\"")
}

/// `soak poll NAME VIA KIND…`: asks for these until it is killed.
pub fn poll(name: &str, via: &str, kinds: &[&str]) {
    let via = Via::ALL.into_iter().find(|other| other.name() == via);
    let to: SocketAddr = via.expect("a way").peer().parse().unwrap();
    let asked = |kind: &Kind| kinds.contains(&kind.name());
    let kinds: Vec<_> = Kind::ALL.into_iter().filter(asked).collect();
    assert!(!kinds.is_empty(), "{kinds:?}");
    thread::scope(|scope| {
        for kind in kinds {
            scope.spawn(move || {
                let mut rng = fastrand::Rng::new();
                loop {
                    thread::sleep(PAUSE.mul_f64(rng.f64() + 0.5));
                    if Path::new(QUIET).exists() {
                        continue;
                    }
                    tell(&ask(name, to, kind));
                }
            });
        }
    });
}

/// Writes the line in one piece: many write to the same pipe.
fn tell(record: &Record) {
    let line = format!("{record}\n");
    if io::stdout().lock().write_all(line.as_bytes()).is_err() {
        // Nobody listens any more.
        std::process::exit(0);
    }
}

fn ask(client: &str, to: SocketAddr, kind: Kind) -> Record {
    let began = now();
    let outcome = match kind {
        Kind::Faked => get(to, "spot/instance-action", None),
        Kind::Passed => get(to, "instance-id", None),
        Kind::Token => token(to).and_then(|answer| match answer.status {
            200 => get(to, "instance-id", Some(&answer.body)),
            _ => Ok(answer),
        }),
    };
    let outcome = match outcome {
        Ok(Answer {
            status,
            peer,
            own,
            body,
        }) => Outcome::Answered {
            status,
            direct: peer == Some(own),
            // Of a page that says 404, the beginning is enough.
            body: body.chars().take(200).collect(),
        },
        Err(error) => Outcome::Failed(Failure::of(&error), error.to_string()),
    };
    Record {
        client: client.to_owned(),
        kind,
        began,
        ended: now(),
        outcome,
    }
}

struct Answer {
    status: u16,
    /// Whose request the upstream says that it was.
    peer: Option<SocketAddr>,
    /// Where it was sent from.
    own: SocketAddr,
    body: String,
}

fn token(to: SocketAddr) -> io::Result<Answer> {
    exchange(
        to,
        "PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\n\
         X-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n",
    )
}

fn get(to: SocketAddr, path: &str, token: Option<&str>) -> io::Result<Answer> {
    let token = token.map(|token| format!("X-aws-ec2-metadata-token: {token}\r\n"));
    let token = token.unwrap_or_default();
    exchange(
        to,
        &format!("GET /latest/meta-data/{path} HTTP/1.1\r\nHost: 169.254.169.254\r\n{token}\r\n"),
    )
}

fn exchange(to: SocketAddr, request: &str) -> io::Result<Answer> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    let own = canonical(stream.local_addr()?);
    stream.set_nodelay(true)?;
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => break,
            length => bytes.extend_from_slice(&chunk[..length]),
        }
    }
    parse(&bytes, own).ok_or_else(|| io::Error::other("not an answer"))
}

/// An answer that ends with its connection, of the length that it says.
fn parse(bytes: &[u8], own: SocketAddr) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = str::from_utf8(&bytes[..end]).ok()?;
    let body = &bytes[end + 4..];
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    first
        .next()
        .filter(|version| version.starts_with("HTTP/1."))?;
    let status = first.next()?.parse().ok()?;
    let header = |name: &str| {
        let mut named = head.lines().filter_map(|line| line.split_once(": "));
        let named = named.find(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value)
    };
    let length: Option<usize> = header("content-length")?.parse().ok();
    let peer = header("x-peer").and_then(|peer| peer.parse().ok());
    (length == Some(body.len())).then(|| Answer {
        status,
        peer: peer.map(canonical),
        own,
        body: String::from_utf8_lossy(body).into_owned(),
    })
}

/// An IPv4 address as such, whatever the socket is.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let answered = Outcome::Answered {
            status: 200,
            direct: true,
            body: r#"{"action": "terminate"}"#.to_owned(),
        };
        let failed = Outcome::Failed(Failure::Refused, "refused (os error 111)".to_owned());
        for outcome in [answered, failed] {
            let record = Record {
                client: "target 7".to_owned(),
                kind: Kind::Token,
                began: 1,
                ended: 20,
                outcome,
            };
            assert_eq!(record.to_string().parse(), Ok(record));
        }
        assert!(Record::from_str("target 7\tfaked\t1").is_err());
    }

    #[test]
    fn an_answer_that_broke_off_is_none() {
        let own = "127.0.0.1:9".parse().unwrap();
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Peer: 127.0.0.1:9\r\n\r\nbody";
        let answer = parse(whole, own).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "body"));
        assert_eq!(answer.peer, Some(own));
        for end in 0..whole.len() {
            assert!(parse(&whole[..end], own).is_none(), "{end}");
        }
        assert!(parse(b"HTP/9 what?\r\n\r\n", own).is_none());
    }
}
