//! The one program of the image that pods of a test run: no dependency, so that it can be built
//! static and is all that the image holds.
//!
//! - `pod pause`: waits for ever. As the first process of its pid namespace, with no handler, only
//!   SIGKILL ends it.
//! - `pod get [--v2] [--times N] [--each MILLISECONDS] [--timeout MILLISECONDS] URL…`: GETs as
//!   `curl` sends them, each on a new connection, and one JSON line each: `{"at_us": …, "status": 404, "body": "…"}` or
//!   `{"at_us": …, "error": "…"}`. The time is when it began. With `--v2` each comes with a token
//!   of its own. The URLs are asked for N times, or for ever if only `--each` is given.
//!
//! A URL is `http://HOST[:PORT]/PATH`, or a path at IMDS's IPv4 address.

use std::{
    io::{self, BufRead, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, SystemTime},
};

/// As long as a patient client waits for each thing.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What `get` was told.
struct Get<'a> {
    urls: Vec<&'a str>,
    with_token: bool,
    /// Rounds; none: for ever.
    times: Option<u32>,
    /// The pause between two rounds.
    each: Duration,
    /// As long as it waits for each thing.
    timeout: Duration,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["pause"] => loop {
            thread::park();
        },
        ["get", ref rest @ ..] => Get::parse(rest).run(),
        _ => panic!("unknown arguments {args:?}"),
    }
}

impl<'a> Get<'a> {
    fn parse(args: &[&'a str]) -> Self {
        let (mut urls, mut with_token, mut times, mut each) = (vec![], false, None, None);
        let mut timeout = TIMEOUT;
        let mut args = args.iter();
        let number = |text: Option<&&str>| -> u32 { text.expect("a number").parse().unwrap() };
        while let Some(&arg) = args.next() {
            match arg {
                "--v2" => with_token = true,
                "--times" => times = Some(number(args.next())),
                "--each" => each = Some(Duration::from_millis(number(args.next()).into())),
                "--timeout" => timeout = Duration::from_millis(number(args.next()).into()),
                url => urls.push(url),
            }
        }
        if each.is_none() {
            times = times.or(Some(1));
        }
        Self {
            urls,
            with_token,
            times,
            each: each.unwrap_or_default(),
            timeout,
        }
    }

    fn run(&self) {
        let mut round = 0;
        loop {
            for url in &self.urls {
                self.once(url);
            }
            round += 1;
            if Some(round) == self.times {
                return;
            }
            thread::sleep(self.each);
        }
    }

    fn once(&self, url: &str) {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let at = at.unwrap().as_micros();
        let mut line = format!(r#"{{"at_us": {at}, "#);
        match self.answer(url) {
            Ok((status, body)) => {
                let body = quoted(&String::from_utf8_lossy(&body));
                line += &format!(r#""status": {status}, "body": {body}}}"#);
            }
            Err(error) => line += &format!(r#""error": {}}}"#, quoted(&error.to_string())),
        }
        // At once, whatever stdout is.
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}")
            .and_then(|()| stdout.flush())
            .unwrap();
    }

    fn answer(&self, url: &str) -> io::Result<(u16, Vec<u8>)> {
        let (host, path) = match url.strip_prefix("http://") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("169.254.169.254", url),
        };
        if !self.with_token {
            return self.request(host, "GET", path, "");
        }
        let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n";
        let (status, token) = self.request(host, "PUT", "/latest/api/token", ttl)?;
        if status != 200 {
            return Ok((status, token));
        }
        let token = String::from_utf8_lossy(&token);
        let token = format!("X-aws-ec2-metadata-token: {token}\r\n");
        self.request(host, "GET", path, &token)
    }

    /// One request on a connection of its own; status and body of the answer.
    fn request(
        &self,
        host: &str,
        method: &str,
        path: &str,
        headers: &str,
    ) -> io::Result<(u16, Vec<u8>)> {
        let address = host.parse().or_else(|_| format!("{host}:80").parse());
        let address: SocketAddr = address.map_err(io::Error::other)?;
        let mut stream = TcpStream::connect_timeout(&address, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        stream.write_all(head.as_bytes())?;
        let mut stream = BufReader::new(stream);
        let (status, length) = read_head(&mut stream)?;
        let mut body = Vec::new();
        stream
            .take(length.unwrap_or(u64::MAX))
            .read_to_end(&mut body)?;
        Ok((status, body))
    }
}

/// The status and the body's length, if it is given.
fn read_head(stream: &mut impl BufRead) -> io::Result<(u16, Option<u64>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("no HTTP status"))?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    });
    Ok((status, length))
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            character if character.is_control() => {
                quoted += &format!("\\u{:04x}", u32::from(character));
            }
            character => quoted.push(character),
        }
    }
    quoted + "\""
}
