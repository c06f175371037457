//! What the service answers, as captures of the real one show it.

use crate::{Request, tokens::Tokens};

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

/// The answer to one request.
pub fn answer(request: &Request, tokens: &Tokens, require_v2: bool) -> Answer {
    if request.header("x-forwarded-for").next().is_some() {
        return empty("403 Forbidden");
    }
    match request.method.as_str() {
        "PUT" => put(request, tokens),
        "GET" | "HEAD" => get(request, tokens, require_v2),
        _ => not_allowed("OPTIONS, GET, HEAD"),
    }
}

fn put(request: &Request, tokens: &Tokens) -> Answer {
    const ASKED: &str = "x-aws-ec2-metadata-token-ttl-seconds";
    if request.path != "/latest/api/token" {
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

fn get(request: &Request, tokens: &Tokens, require_v2: bool) -> Answer {
    if request.path == "/latest/api/token" {
        return not_allowed("OPTIONS, PUT");
    }
    let mut given = request.header("x-aws-ec2-metadata-token").peekable();
    let v2 = given.peek().is_some();
    // Some clients add the fresh token to the stale one instead of replacing it.
    let remaining = given.filter_map(|token| tokens.remaining(token)).max();
    if remaining.is_none() && (v2 || require_v2) {
        return empty("401 Unauthorized");
    }
    let Some(mut answer) = document(&request.path) else {
        return not_found();
    };
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
    let mut answer = text("");
    answer.headers[0].1 = "application/octet-stream".to_owned();
    answer.headers[3].1 = body.len().to_string();
    Answer { body, ..answer }
}

fn text(body: &str) -> Answer {
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

fn not_allowed(allow: &str) -> Answer {
    let mut answer = empty("405 Not Allowed");
    answer.headers.insert(0, ("Allow", allow.to_owned()));
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
