//! Requests byte by byte, through the plain socket client.

use std::process::Command;

use crate::{Finished, Place, client, run};

/// The kind of socket by which a client reaches IMDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    V4,
    V6,
    /// An IPv6 socket to `::ffff:169.254.169.254`.
    Mapped,
}

/// An answer, as the client's socket gave it.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// What `getpeername` showed.
    pub peer: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Via {
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];

    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
            Self::Mapped => "mapped",
        }
    }

    /// The address as `getpeername` must show it.
    pub fn peer(self) -> &'static str {
        match self {
            Self::V4 => "169.254.169.254:80",
            Self::V6 => "[fd00:ec2::254]:80",
            Self::Mapped => "[::ffff:169.254.169.254]:80",
        }
    }
}

/// A plain GET of a path, without a token.
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n").into_bytes()
}

impl Place {
    /// Sends bytes from here and returns the answer, whatever it is; panics if the client could
    /// not connect or its connection was reset.
    pub fn send(&self, via: Via, request: &[u8]) -> Response {
        Response::of(self.try_send(via, request))
    }

    /// As [`Place::send`], by a client that shuts down its own direction before it reads.
    pub fn send_and_half_close(&self, via: Via, request: &[u8]) -> Response {
        let mut command = self.raw_client(via);
        command.arg("--half-close");
        Response::of(run(command, request))
    }

    /// As [`Place::send`], with the client's own end: code 1 if it got no proper answer.
    pub fn try_send(&self, via: Via, request: &[u8]) -> Finished {
        run(self.raw_client(via), request)
    }

    /// The plain client's command, which sends its stdin.
    pub fn raw_client(&self, via: Via) -> Command {
        let mut command = self.command(client());
        command.args(["raw", via.name()]);
        command
    }

    /// A GET of a path from here, over IPv4.
    pub fn get(&self, path: &str) -> Response {
        self.send(Via::V4, &get(path))
    }

    /// A fresh token, over IPv4.
    pub fn token(&self) -> String {
        let request = "PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\n\
                       X-aws-ec2-metadata-token-ttl-seconds: 300\r\n\r\n";
        let response = self.send(Via::V4, request.as_bytes());
        assert_eq!(response.status(), 200, "{response:?}");
        response.text()
    }
}

impl Response {
    fn of(client: Finished) -> Self {
        client.expect("the plain client");
        let mut lines = client.stderr.lines();
        let peer = lines.find_map(|line| line.strip_prefix("peer "));
        Self {
            peer: peer.expect("a peer").to_owned(),
            bytes: client.stdout,
        }
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("not an HTTP answer: {self:?}"));
        (&self.bytes[..end], &self.bytes[end + 4..])
    }

    /// The status line.
    pub fn status_line(&self) -> String {
        self.head().lines().next().unwrap_or_default().to_owned()
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        let code = self
            .status_line()
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("no status code in {self:?}"))
    }

    /// Status line and headers, as text.
    pub fn head(&self) -> String {
        String::from_utf8_lossy(self.split().0).into_owned()
    }

    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.head();
        let mut lines = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        let line = lines.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        Some(line.1.to_owned())
    }

    pub fn body(&self) -> &[u8] {
        self.split().1
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.body()).into_owned()
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(
            formatter,
            "from {}: \"{}\"",
            self.peer,
            self.bytes.escape_ascii()
        )
    }
}
