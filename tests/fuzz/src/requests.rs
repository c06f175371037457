//! Requests: a line `METHOD PATH`, then headers, one a line. `{token}` in a header's value is a
//! token that is good.

use std::{cell::RefCell, sync::LazyLock};

use hyper::{
    HeaderMap, Method, Request, Response, Uri,
    body::Bytes,
    header::{CONTENT_LENGTH, HeaderName, HeaderValue, SERVER},
};
use jiff::Timestamp;
use spotsim::{
    document::{self, Format},
    instance::Instance,
    responder::{Mode, Responder, Synthetic, Upstream},
    timeline::{Plan, Timeline},
};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(Builder::new_current_thread().enable_time().build().unwrap());
}

/// A service in each of its modes, and a token of its.
static SERVICES: LazyLock<[(Synthetic, String); 3]> = LazyLock::new(|| {
    Mode::ALL.map(|mode| {
        let booted = "2026-01-01T00:00:00Z".parse().unwrap();
        let service = Synthetic::new(Instance::synthetic(booted), mode);
        let request = Request::put("/latest/api/token")
            .header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
            .body(());
        let issued = answer(&RESPONDERS[0], &service, request.unwrap());
        let token = String::from_utf8(issued.body().to_vec()).unwrap();
        (service, token)
    })
});

/// One that announces nothing, and one that announces everything.
static RESPONDERS: LazyLock<[Responder; 2]> = LazyLock::new(|| {
    let plan: Plan = document::parse(
        r#"{"notice": {}, "rebalance": {}, "lifecycle-states": [{"state": "Standby"}],
            "scheduled": [{"code": "system-reboot"}]}"#,
        Format::Json,
    )
    .unwrap();
    let now = Timestamp::now();
    let everything = plan.arm(now).unwrap();
    assert_eq!(everything.visible(now).len(), 7);
    [Timeline::nothing(now), everything].map(|timeline| Responder::new(timeline, Upstream::Nothing))
});

pub fn check(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let line = lines.next().unwrap_or_default();
    let at = line
        .iter()
        .position(|byte| *byte == b' ')
        .unwrap_or(line.len());
    let (method, path) = line.split_at(at);
    let path = path.strip_prefix(b" ").unwrap_or_default();
    // hyper refuses what is none of HTTP's before we see it.
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(path)) else {
        return;
    };
    let lines: Vec<_> = lines.collect();
    for (service, token) in &*SERVICES {
        let headers = headers(&lines, token);
        for responder in &*RESPONDERS {
            let asked = Asked {
                responder,
                service,
                headers: &headers,
            };
            asked.check(&method, &uri, token);
        }
    }
}

fn headers(lines: &[&[u8]], token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.iter().take(100) {
        let at = line.iter().position(|byte| *byte == b':');
        let Some((name, value)) = at.map(|at| (&line[..at], &line[at + 1..])) else {
            continue;
        };
        let value = match value.trim_ascii() {
            b"{token}" => token.as_bytes(),
            value => value,
        };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    headers
}

fn answer(responder: &Responder, service: &Synthetic, request: Request<()>) -> Response<Bytes> {
    RUNTIME.with_borrow(|runtime| {
        let answer = runtime.block_on(responder.rehearse(service, request));
        answer.expect("the synthetic instance answers always")
    })
}

/// Whom requests are sent to, and with what.
#[derive(Clone, Copy)]
struct Asked<'a> {
    responder: &'a Responder,
    service: &'a Synthetic,
    headers: &'a HeaderMap,
}

impl Asked<'_> {
    fn ask(self, method: &Method, uri: &Uri) -> Response<Bytes> {
        let mut request = Request::new(());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.headers.clone();
        answer(self.responder, self.service, request)
    }

    /// A listing's or leaf's text, if it is there.
    fn read(self, path: &str) -> Option<String> {
        let answer = self.ask(&Method::GET, &Uri::try_from(path).ok()?);
        let text = || String::from_utf8(answer.body().to_vec()).unwrap();
        (answer.status() == 200).then(text)
    }

    fn check(self, method: &Method, uri: &Uri, token: &str) {
        let answer = self.ask(method, uri);
        let status = answer.status().as_u16();
        assert!([200, 400, 401, 403, 404, 405].contains(&status), "{status}");
        let header = |name| answer.headers()[name].to_str().unwrap();
        assert_eq!(header(SERVER), "EC2ws");
        assert_eq!(header(CONTENT_LENGTH), answer.body().len().to_string());
        if !token.is_empty() {
            let holds = |bytes: &[u8]| {
                let mut parts = bytes.windows(token.len());
                parts.any(|part| part == token.as_bytes())
            };
            assert!(!holds(answer.body()), "the token in the body");
            let mut values = answer.headers().values();
            assert!(!values.any(|value| holds(value.as_bytes())), "in a header");
        }
        if status == 200 && matches!(*method, Method::GET | Method::HEAD) {
            self.is_where_it_is_listed(uri.path());
        }
    }

    /// What is there is listed in its directory, and what is listed there is there.
    fn is_where_it_is_listed(self, path: &str) {
        let segments: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        // Versions are not directories of their own.
        let Some((name, above)) = segments.split_last().filter(|(_, above)| !above.is_empty())
        else {
            return;
        };
        let parent = format!("/{}", above.join("/"));
        let listing = self.read(&parent);
        let listing = listing.unwrap_or_else(|| panic!("{path} is there, but not {parent}"));
        let listed = listing.lines().find(|line| {
            let line = line.strip_suffix('/').unwrap_or(line);
            line.split_once('=').map_or(line, |(number, _)| number) == *name
        });
        let listed = listed.unwrap_or_else(|| panic!("{name} is not in {parent}: {listing:?}"));
        if listed.ends_with('/') {
            let directory = format!("{parent}/{name}");
            for child in self.read(&directory).expect("it was there").lines() {
                let child = child.trim_end_matches('/').split('=').next().unwrap();
                let child = format!("{directory}/{child}");
                assert!(
                    self.read(&child).is_some(),
                    "{child} is listed, but not there"
                );
            }
        }
    }
}
