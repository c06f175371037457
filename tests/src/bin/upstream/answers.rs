//! What the service answers, as captures of the real one show it.

use crate::{Request, recording::Recording, tokens::Tokens};

/// What the instance's metadata options say, and what its tree is.
#[derive(Default)]
pub struct Instance {
    /// Instead of the tree that is written here.
    pub recording: Option<Recording>,
    /// `HttpTokens=required`
    pub require_v2: bool,
    /// `HttpEndpoint=disabled`
    pub off: bool,
}

pub struct Answer {
    /// Code and reason phrase.
    pub status: &'static str,
    /// In the order in which they are sent.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

const TTL: &str = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds";
/// Never moves, so that two answers can be compared byte by byte, and an answer's date can be
/// told from one that was made on the way.
const DATE: &str = "Wed, 30 Jul 2025 23:22:04 GMT";
const LAST_MODIFIED: &str = "Thu, 27 Jun 2024 22:17:40 GMT";

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
/// The length that captures of the real service show.
const _: () = assert!(NOT_FOUND.len() == 339);

const DOCUMENT: &str = r#"{
  "accountId" : "123456789012",
  "architecture" : "x86_64",
  "availabilityZone" : "eu-central-1b",
  "billingProducts" : null,
  "imageId" : "ami-0123456789abcdef0",
  "instanceId" : "i-0a1b2c3d4e5f60718",
  "instanceType" : "m7i.large",
  "pendingTime" : "2025-07-30T23:00:00Z",
  "privateIp" : "10.0.0.2",
  "region" : "eu-central-1",
  "version" : "2017-09-30"
}"#;

const CREDENTIALS: &str = r#"{
  "Code" : "Success",
  "LastUpdated" : "2025-07-30T22:30:00Z",
  "Type" : "AWS-HMAC",
  "AccessKeyId" : "ASIAUPSTREAMEXAMPLE0",
  "SecretAccessKey" : "upstream/secret+EXAMPLE",
  "Token" : "upstream//session+token==",
  "Expiration" : "2099-07-31T04:30:00Z"
}"#;

/// The one place where tokens are, written in no other way.
const TOKEN_PATH: &str = "/latest/api/token";

/// The answer to one request.
pub fn answer(request: &Request, tokens: &Tokens, instance: &Instance) -> Answer {
    if instance.off {
        return empty("403 Forbidden");
    }
    let methods = match request.path.as_str() {
        TOKEN_PATH => "OPTIONS, PUT",
        _ => "OPTIONS, GET, HEAD",
    };
    match request.method.as_str() {
        "PUT" => put(request, tokens),
        "OPTIONS" => allowing("200 OK", methods),
        "GET" | "HEAD" if request.path != TOKEN_PATH => get(request, tokens, instance),
        _ => allowing("405 Not Allowed", methods),
    }
}

/// Whether it came through a proxy, which the service never lets have a token.
fn is_forwarded(request: &Request) -> bool {
    request.header("x-forwarded-for").next().is_some()
}

fn put(request: &Request, tokens: &Tokens) -> Answer {
    const ASKED: &str = "x-aws-ec2-metadata-token-ttl-seconds";
    if request.path != TOKEN_PATH || is_forwarded(request) {
        return empty("403 Forbidden");
    }
    let ttl = request.header(ASKED).next().unwrap_or_default();
    let Some(token) = tokens.issue(ttl) else {
        return empty("400 Bad Request");
    };
    let mut answer = empty("200 OK");
    answer.headers[0].1 = token.len().to_string();
    answer.headers.insert(0, (TTL, ttl.to_owned()));
    Answer {
        body: token.into_bytes(),
        ..answer
    }
}

fn get(request: &Request, tokens: &Tokens, instance: &Instance) -> Answer {
    let mut given = request.header("x-aws-ec2-metadata-token").peekable();
    let v2 = given.peek().is_some();
    if v2 && is_forwarded(request) {
        return empty("403 Forbidden");
    }
    // Some clients add the fresh token to the stale one instead of replacing it.
    let remaining = given.filter_map(|token| tokens.remaining(token)).max();
    if remaining.is_none() && (v2 || instance.require_v2) {
        return empty("401 Unauthorized");
    }
    let found = match &instance.recording {
        Some(recording) => recording.find(&request.path),
        None => document(&request.path),
    };
    let mut answer = found.unwrap_or_else(not_found);
    if let Some(seconds) = remaining {
        answer.headers.insert(0, (TTL, seconds.to_string()));
    }
    answer
}

/// The document at a path, under `latest` or a version; doubled slashes count as one.
fn document(path: &str) -> Option<Answer> {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    parts.next()?;
    let path = parts.collect::<Vec<_>>().join("/");
    Some(match path.as_str() {
        "dynamic/instance-identity/document" => text(DOCUMENT),
        "user-data" => user_data(),
        "meta-data" => text("iam/\ninstance-id\ninstance-life-cycle\nplacement/"),
        "meta-data/instance-id" => text("i-0a1b2c3d4e5f60718"),
        "meta-data/instance-life-cycle" => text("spot"),
        "meta-data/placement" => text("availability-zone\nregion"),
        "meta-data/placement/availability-zone" => text("eu-central-1b"),
        "meta-data/placement/region" => text("eu-central-1"),
        "meta-data/iam" => text("security-credentials/"),
        "meta-data/iam/security-credentials" => text("upstream-role"),
        "meta-data/iam/security-credentials/upstream-role" => text(CREDENTIALS),
        "meta-data/tests/duplicates" => with(&[
            ("X-Dup", "one"),
            ("X-Dup", "two"),
            ("Set-Cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-lower-case", "kept"),
            ("X-ODD-cAsE", "kept, \"too\""),
            ("X-Empty", ""),
        ]),
        "meta-data/tests/interleaved" => {
            with(&[("X-Dup", "one"), ("X-Between", "1"), ("X-Dup", "two")])
        }
        "meta-data/tests/reason" => Answer {
            status: "200 Quite All Right",
            ..text("a reason phrase of its own")
        },
        _ => return None,
    })
}

/// 16 KB, the most the service takes; every byte value, and what could pass for a head's end.
fn user_data() -> Answer {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let mut body = b"#!/bin/sh\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".to_vec();
    body.extend(all.iter().cycle().take(16 * 1024 - body.len()));
    octets(body)
}

/// As the service sends user data.
pub fn octets(body: Vec<u8>) -> Answer {
    let mut answer = text("");
    answer.headers[0].1 = "application/octet-stream".to_owned();
    answer.headers[3].1 = body.len().to_string();
    Answer { body, ..answer }
}

/// As the service sends everything else.
pub fn text(body: &str) -> Answer {
    Answer {
        status: "200 OK",
        headers: vec![
            ("Content-Type", "text/plain".to_owned()),
            ("Accept-Ranges", "none".to_owned()),
            ("Last-Modified", LAST_MODIFIED.to_owned()),
            ("Content-Length", body.len().to_string()),
            ("Date", DATE.to_owned()),
            ("Server", "EC2ws".to_owned()),
            ("Connection", "close".to_owned()),
        ],
        body: body.as_bytes().to_vec(),
    }
}

fn with(headers: &[(&'static str, &str)]) -> Answer {
    let mut answer = text("see the headers");
    let added = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    answer.headers.extend(added);
    answer
}

fn empty(status: &'static str) -> Answer {
    Answer {
        status,
        headers: vec![
            ("Content-Length", "0".to_owned()),
            ("Date", DATE.to_owned()),
            ("Server", "EC2ws".to_owned()),
            ("Connection", "close".to_owned()),
            ("Content-Type", "text/plain".to_owned()),
        ],
        body: Vec::new(),
    }
}

fn allowing(status: &'static str, methods: &str) -> Answer {
    let mut answer = empty(status);
    answer.headers.insert(0, ("Allow", methods.to_owned()));
    answer
}

fn not_found() -> Answer {
    Answer {
        status: "404 Not Found",
        headers: vec![
            ("Content-Type", "text/html".to_owned()),
            ("Content-Length", NOT_FOUND.len().to_string()),
            ("Date", DATE.to_owned()),
            ("Server", "EC2ws".to_owned()),
            ("Connection", "close".to_owned()),
        ],
        body: NOT_FOUND.as_bytes().to_vec(),
    }
}
