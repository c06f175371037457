//! One request and what became of it.

use std::{fmt, time::Duration};

use hyper::{Method, StatusCode};

use super::NoAnswer;

/// A path is told up to so many characters.
const LONGEST_PATH: usize = 200;

/// So is a method, which could be as long as a whole head.
const LONGEST_METHOD: usize = 20;

/// From so many characters on, a part of a path that could be a token is taken for one.
const SHORTEST_TOKEN: usize = 40;

/// One request and what became of it.
#[derive(Debug)]
pub struct Exchange<'a> {
    pub method: &'a Method,
    /// The path as it was sent, without a query.
    pub path: &'a str,
    pub outcome: Outcome<'a>,
    /// From the request's head to the answer's.
    pub elapsed: Duration,
}

/// Who answered a request.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// We did, with something from the timeline.
    Faked,
    /// The upstream did.
    Passed(StatusCode),
    /// Nobody did.
    NoAnswer(&'a NoAnswer),
}

impl Exchange<'_> {
    /// The method, cut where it is none that anybody knows.
    pub fn shown_method(&self) -> &str {
        let method = self.method.as_str();
        // It is ASCII (RFC 9110, 9.1).
        method.get(..LONGEST_METHOD).unwrap_or(method)
    }

    /// The path as it can be shown to anybody: on one line, cut where it is long, and without
    /// what a confused client could have put there for a token.
    pub fn shown_path(&self) -> String {
        let Self { path, .. } = self;
        let parts = path
            .split('/')
            .map(|part| if holds_token(part) { "(token)" } else { part });
        let path = parts.collect::<Vec<_>>().join("/");
        let mut shown: String = path.chars().take(LONGEST_PATH).collect();
        if shown.len() < path.len() {
            shown.push_str("...");
        }
        shown.escape_debug().to_string()
    }
}

/// Whether there is a session token in a part of a path, percent-encoded or not.
fn holds_token(part: &str) -> bool {
    let mut decoded = Vec::new();
    let mut bytes = part.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        let hex = bytes.as_slice().get(..2).filter(|_| byte == b'%');
        let hex = hex.and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        if hex.is_some() {
            bytes.nth(1);
        }
        decoded.push(hex.unwrap_or(byte));
    }
    let begins = decoded.windows(4).any(|window| window == b"AQAE");
    begins && decoded.len() >= SHORTEST_TOKEN
}

/// In one line. Neither headers nor a query nor a body: they may hold secrets.
impl fmt::Display for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            outcome, elapsed, ..
        } = self;
        write!(f, "{} {}: ", self.shown_method(), self.shown_path())?;
        match outcome {
            Outcome::Faked => f.write_str("faked")?,
            Outcome::Passed(status) => write!(f, "passed, {}", status.as_u16())?,
            Outcome::NoAnswer(reason) => write!(f, "no answer, {reason}")?,
        }
        write!(f, " ({:.1} ms)", elapsed.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(path: &str, outcome: Outcome<'_>) -> String {
        Exchange {
            method: &Method::GET,
            path,
            outcome,
            elapsed: Duration::from_micros(1_540),
        }
        .to_string()
    }

    #[test]
    fn a_request_is_one_line() {
        assert_eq!(
            summary(
                "/latest/meta-data/",
                Outcome::Passed(StatusCode::UNAUTHORIZED)
            ),
            "GET /latest/meta-data/: passed, 401 (1.5 ms)"
        );
        let hostile = summary("/a\nb\u{1b}[2J", Outcome::Faked);
        assert_eq!(hostile, "GET /a\\nb\\u{1b}[2J: faked (1.5 ms)");
        assert!(summary(&"x".repeat(10_000), Outcome::Faked).len() < 300);
        let method = Method::from_bytes(&[b'X'; 10_000]).unwrap();
        let long = Exchange {
            method: &method,
            path: "/",
            outcome: Outcome::Faked,
            elapsed: Duration::ZERO,
        };
        assert_eq!(
            long.to_string(),
            format!("{} /: faked (0.0 ms)", "X".repeat(20))
        );
        for token in ["AQAE", "token=AQAE", "%41QAE", "%3fAQA%45"] {
            let token = format!("/latest/api/token/{token}{}==", "x".repeat(50));
            let summary = summary(&token, Outcome::Faked);
            assert_eq!(summary, "GET /latest/api/token/(token): faked (1.5 ms)");
        }
    }
}
