//! One row of the table: a request, and its answer byte for byte.
//!
//! Texts may hold `{date}` for any HTTP date, `{token}` for any token, `{left}` for what can be
//! left of a fresh token, and in a request's headers `{good}` and `{expired}` for tokens.

use regex::Regex;
use serde_json::Value;

/// The life of a `{good}` token, in seconds.
pub const GOOD_FOR: u64 = 300;

const TTL: &str = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds";

/// The body of a 404, as it was captured.
const NOT_FOUND: &str = r#"<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
		 "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>404 - Not Found</title>
 </head>
 <body>
  <h1>404 - Not Found</h1>
 </body>
</html>
"#;
const _: () = assert!(NOT_FOUND.len() == 339);

#[derive(Clone, Debug)]
pub struct Request {
    method: &'static str,
    path: String,
    version: &'static str,
    headers: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Answer {
    version: &'static str,
    status: &'static str,
    headers: Vec<String>,
    body: String,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub request: Request,
    pub answer: Answer,
}

/// What is announced, by what kind of service, and what is then asked.
pub struct Group {
    pub name: String,
    pub service: Service,
    /// Options that say what spotsim announces; none if the service alone is asked.
    pub announced: Vec<String>,
    /// What the instance says beyond the recording: `None` takes a path away.
    pub changes: Vec<(&'static str, Option<String>)>,
    pub cases: Vec<Case>,
}

/// As the instance's metadata options have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    V1V2,
    V2,
    Off,
}

pub fn ask(method: &'static str, path: &str) -> Request {
    Request {
        method,
        path: path.to_owned(),
        version: "1.1",
        headers: Vec::new(),
    }
}

pub fn get(path: &str) -> Request {
    ask("GET", path)
}

pub fn put(path: &str) -> Request {
    ask("PUT", path)
}

impl Request {
    /// With one more header.
    pub fn with(mut self, header: &str) -> Self {
        self.headers.push(header.to_owned());
        self
    }

    /// With the header of a token.
    pub fn token(self, token: &str) -> Self {
        self.with(&format!("X-aws-ec2-metadata-token: {token}"))
    }

    /// With the header that asks for a token's life.
    pub fn ttl(self, ttl: &str) -> Self {
        self.with(&format!("X-aws-ec2-metadata-token-ttl-seconds: {ttl}"))
    }

    /// Through a proxy.
    pub fn forwarded(self) -> Self {
        self.with("X-Forwarded-For: 10.0.0.1")
    }

    pub fn http10(mut self) -> Self {
        self.version = "1.0";
        self
    }

    pub fn is(self, answer: Answer) -> Case {
        let mut answer = answer;
        if self.method == "HEAD" {
            answer.body.clear();
        }
        answer.version = self.version;
        Case {
            request: self,
            answer,
        }
    }

    /// Its bytes, and how a message shows it.
    pub fn written(&self, good: &str, expired: &str) -> (Vec<u8>, String) {
        let Self {
            method,
            path,
            version,
            headers,
        } = self;
        let mut shown = format!("{method} {path} HTTP/{version}\r\nHost: 169.254.169.254\r\n");
        for header in headers {
            shown += &format!("{header}\r\n");
        }
        shown += "\r\n";
        let bytes = shown.replace("{good}", good).replace("{expired}", expired);
        (bytes.into_bytes(), shown.trim_end().replace("\r\n", "\n"))
    }

    pub fn names(&self, token: &str) -> bool {
        self.headers.iter().any(|header| header.contains(token))
    }
}

fn answer(status: &'static str, headers: &[&str], body: &str) -> Answer {
    let length = body.replace("{token}", &"x".repeat(56)).len().to_string();
    let headers = headers
        .iter()
        .map(|header| header.replace("{length}", &length));
    Answer {
        version: "1.1",
        status,
        headers: headers.collect(),
        body: body.to_owned(),
    }
}

/// 200 with a text.
pub fn text(body: &str) -> Answer {
    let headers = [
        "Content-Type: text/plain",
        "Accept-Ranges: none",
        "Last-Modified: {date}",
        "Content-Length: {length}",
        "Date: {date}",
        "Server: EC2ws",
        "Connection: close",
    ];
    answer("200 OK", &headers, body)
}

/// 200 with a token.
pub fn issued(ttl: u32) -> Answer {
    let ttl = format!("{TTL}: {ttl}");
    let headers = [
        &ttl,
        "Content-Length: {length}",
        "Date: {date}",
        "Server: EC2ws",
        "Connection: close",
        "Content-Type: text/plain",
    ];
    answer("200 OK", &headers, "{token}")
}

pub fn not_found() -> Answer {
    let headers = [
        "Content-Type: text/html",
        "Content-Length: {length}",
        "Date: {date}",
        "Server: EC2ws",
        "Connection: close",
    ];
    answer("404 Not Found", &headers, NOT_FOUND)
}

/// An answer without a body.
pub fn refused(status: &'static str) -> Answer {
    let headers = [
        "Content-Length: {length}",
        "Date: {date}",
        "Server: EC2ws",
        "Connection: close",
        "Content-Type: text/plain",
    ];
    answer(status, &headers, "")
}

pub fn unauthorized() -> Answer {
    refused("401 Unauthorized")
}

pub fn forbidden() -> Answer {
    refused("403 Forbidden")
}

/// An answer that says which methods there are.
pub fn allowing(status: &'static str, methods: &str) -> Answer {
    let mut answer = refused(status);
    answer.headers.insert(0, format!("Allow: {methods}"));
    answer
}

impl Answer {
    /// With what is left of a `{good}` token.
    pub fn left(mut self) -> Self {
        self.headers.insert(0, format!("{TTL}: {{left}}"));
        self
    }

    /// A value that is there since an HTTP date.
    pub fn since(self, date: &str) -> Self {
        self.header("Last-Modified", date)
    }

    pub fn of_type(self, content_type: &str) -> Self {
        self.header("Content-Type", content_type)
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        let begin = format!("{name}: ");
        let mut headers = self.headers.iter_mut();
        let header = headers.find(|header| header.starts_with(&begin));
        *header.expect("it has that header") = format!("{begin}{value}");
        self
    }

    /// What is wrong with an answer's bytes.
    pub fn compare(&self, bytes: &[u8]) -> Result<(), String> {
        let Self {
            version,
            status,
            headers,
            body,
        } = self;
        let found = String::from_utf8_lossy(bytes);
        let (head, text) = found
            .split_once("\r\n\r\n")
            .ok_or_else(|| format!("not an answer: {found:?}"))?;
        let mut expected = format!("HTTP/{version} {status}");
        for header in headers {
            expected += &format!("\n{header}");
        }
        let head = head.replace("\r\n", "\n");
        let shape = |text: &str| {
            let date = r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT";
            let shape = regex::escape(text)
                .replace(r"\{date\}", date)
                .replace(r"\{left\}", r"(?<left>\d+)")
                .replace(r"\{token\}", r"AQAE[A-Za-z0-9_-]{50}==");
            Regex::new(&format!("^{shape}$")).unwrap()
        };
        let Some(parts) = shape(&expected).captures(&head) else {
            return Err(format!("expected the head\n{expected}\nfound\n{head}"));
        };
        if let Some(left) = parts.name("left") {
            let left: u64 = left.as_str().parse().unwrap();
            if !(GOOD_FOR - 60..=GOOD_FOR).contains(&left) {
                return Err(format!("{left} s are not left of {GOOD_FOR}"));
            }
        }
        if !shape(body).is_match(text) {
            return Err(format!("expected the body {body:?}\nfound {text:?}"));
        }
        Ok(())
    }
}

impl Group {
    pub fn new(name: &str, announced: &[&str], cases: Vec<Case>) -> Self {
        Self {
            name: name.to_owned(),
            service: Service::V1V2,
            announced: announced.iter().map(|&word| word.to_owned()).collect(),
            changes: Vec::new(),
            cases,
        }
    }

    pub fn of(self, service: Service) -> Self {
        Self { service, ..self }
    }

    pub fn change(mut self, path: &'static str, value: Option<&str>) -> Self {
        self.changes.push((path, value.map(str::to_owned)));
        self
    }

    /// What spotsim is told to announce.
    pub fn options(&self) -> Vec<&str> {
        match &self.announced[..] {
            [] => vec!["--hold"],
            announced => announced.iter().map(String::as_str).collect(),
        }
    }

    /// The instance, in the form of `--instance`.
    pub fn instance(&self) -> String {
        let recording = include_str!("../../recordings/instance.json");
        let mut tree: Value = serde_json::from_str(recording).unwrap();
        for (path, value) in &self.changes {
            let (above, name) = path.rsplit_once('/').unwrap();
            let directory = tree.pointer_mut(&format!("/{above}"));
            let directory = directory.and_then(Value::as_object_mut);
            let directory = directory.unwrap_or_else(|| panic!("the recording has no {above}"));
            match value {
                Some(value) => directory.insert(name.to_owned(), value.as_str().into()),
                None => directory.remove(name),
            };
        }
        tree.to_string()
    }
}
