//! The service of an instance that is described here: which requests it takes, and how it
//! answers them.

use std::{fmt, str::FromStr};

use hyper::{
    Method, Request, StatusCode,
    header::{HeaderMap, HeaderValue},
};
use jiff::Timestamp;

use super::{
    path::{Resource, VERSIONS},
    token::{TTL, Tokens},
    wire::{self, Answer, TEXT, TOKEN, TOKEN_TTL},
};
use crate::instance::{Document, Found, Instance};

/// Header of a proxied request. The service refuses those, lest a proxy that forwards blindly
/// hand the instance's credentials to strangers.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Where tokens are, written in this way only: the service refuses to PUT anywhere else, even
/// with a slash at the end or a version.
const TOKEN_PATH: &str = "/latest/api/token";

/// Which requests the service takes, as an instance's metadata options say
/// ([AWS: configure the instance metadata options][1]).
///
/// [1]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-options.html
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// With a token or without (`HttpTokens=optional`).
    #[default]
    V1V2,
    /// With a token only (`HttpTokens=required`).
    V2,
    /// None (`HttpEndpoint=disabled`).
    Off,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::V1V2, Self::V2, Self::Off];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1V2 => "v1v2",
            Self::V2 => "v2",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str() == word)
            .ok_or_else(|| "unknown mode: use v1v2, v2 or off".to_owned())
    }
}

/// The service: its token authority and the instance that it describes.
pub struct Synthetic {
    tokens: Tokens,
    instance: Instance,
    mode: Mode,
}

impl Synthetic {
    pub fn new(instance: Instance, mode: Mode) -> Self {
        Self {
            tokens: Tokens::new(),
            instance,
            mode,
        }
    }

    /// What it describes.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Answers a request as the service of a real instance would. To HEAD the answer is that to
    /// GET: no server sends its body.
    pub fn answer<B>(&self, request: &Request<B>) -> Answer {
        let Self { mode, .. } = self;
        if *mode == Mode::Off {
            return wire::refusal(StatusCode::FORBIDDEN);
        }
        let now = Timestamp::now();
        let path = request.uri().path();
        let methods = match path {
            TOKEN_PATH => "OPTIONS, PUT",
            _ => "OPTIONS, GET, HEAD",
        };
        match *request.method() {
            Method::PUT => self.token(request, now),
            Method::OPTIONS => wire::allowed(methods),
            Method::GET | Method::HEAD if path != TOKEN_PATH => {
                match self.authorize(request.headers(), now) {
                    Ok(ttl) => self.get(&Resource::parse(path), ttl, now),
                    Err(status) => wire::refusal(status),
                }
            }
            _ => wire::not_allowed(methods),
        }
    }

    /// `PUT /latest/api/token`, and what is not quite that.
    fn token<B>(&self, request: &Request<B>, now: Timestamp) -> Answer {
        let Self { tokens, .. } = self;
        let headers = request.headers();
        if request.uri().path() != TOKEN_PATH || headers.contains_key(FORWARDED_FOR) {
            return wire::refusal(StatusCode::FORBIDDEN);
        }
        match wanted_ttl(headers) {
            Some(ttl) => wire::token(tokens.issue(ttl, now), ttl),
            None => wire::refusal(StatusCode::BAD_REQUEST),
        }
    }

    /// What is left of the request's token, or why it is refused. One without a token is of
    /// version 1. A client that renews its token may send the old one as well.
    fn authorize(
        &self,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Option<HeaderValue>, StatusCode> {
        let Self { tokens, mode, .. } = self;
        let mut given = headers.get_all(&TOKEN).iter().peekable();
        if given.peek().is_none() {
            return match mode {
                Mode::V1V2 => Ok(None),
                Mode::V2 => Err(StatusCode::UNAUTHORIZED),
                Mode::Off => Err(StatusCode::FORBIDDEN),
            };
        }
        if headers.contains_key(FORWARDED_FOR) {
            return Err(StatusCode::FORBIDDEN);
        }
        let left = given.filter_map(|token| tokens.remaining(token.as_bytes(), now));
        let longest = left.max().ok_or(StatusCode::UNAUTHORIZED)?;
        Ok(Some(HeaderValue::from(longest)))
    }

    fn get(&self, resource: &Resource<'_>, ttl: Option<HeaderValue>, now: Timestamp) -> Answer {
        let Self { instance, .. } = self;
        let booted = instance.booted();
        if resource.version.is_empty() {
            return wire::document(VERSIONS.join("\n"), TEXT, booted, ttl);
        }
        if !resource.has_version() {
            return wire::not_found(ttl);
        }
        match instance.get(&resource.key, now) {
            Some(Found::Document(document)) => {
                let Document {
                    body,
                    content_type,
                    since,
                } = document;
                wire::document(body, content_type, since, ttl)
            }
            Some(Found::Listing(names)) => wire::document(names.join("\n"), TEXT, booted, ttl),
            None => wire::not_found(ttl),
        }
    }
}

/// The life that a request wants for its token, in seconds; `None` unless it says so once, in
/// digits, and within the bounds.
fn wanted_ttl(headers: &HeaderMap) -> Option<u32> {
    let mut given = headers.get_all(&TOKEN_TTL).iter();
    let (Some(ttl), None) = (given.next(), given.next()) else {
        return None;
    };
    let digits = ttl.to_str().ok()?;
    // Rust would read `+5` as well.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|ttl| TTL.contains(ttl))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use http_body_util::BodyExt as _;
    use hyper::{body::Bytes, header::HeaderName, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::instance;

    const TTL_60: (&str, &str) = ("X-aws-ec2-metadata-token-ttl-seconds", "60");
    const FORWARDED: (&str, &str) = ("X-Forwarded-For", "10.0.0.1");

    fn service(mode: Mode) -> Synthetic {
        let booted = "2026-01-01T00:00:00.5Z".parse().unwrap();
        Synthetic::new(Instance::synthetic(booted), mode)
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn body(answer: Answer) -> String {
        let body = answer.into_body().collect();
        let mut body = std::pin::pin!(body);
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        let std::task::Poll::Ready(Ok(body)) = body.as_mut().poll(&mut context) else {
            panic!("a full body is ready");
        };
        let bytes: Bytes = body.to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn token(service: &Synthetic) -> String {
        let answer = service.answer(&request("PUT", "/latest/api/token", &[TTL_60]));
        assert_eq!(answer.status(), 200);
        body(answer)
    }

    fn get(path: &str) -> (u16, String) {
        let answer = service(Mode::V1V2).answer(&request("GET", path, &[]));
        (answer.status().as_u16(), body(answer))
    }

    fn names(answer: &Answer) -> Vec<&str> {
        answer.headers().keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn a_token_is_issued_within_the_bounds_only() {
        let service = service(Mode::V1V2);
        for (ttls, status) in [
            (&["1"][..], 200),
            (&["21600"], 200),
            (&["0060"], 200),
            (&["0"], 400),
            (&["21601"], 400),
            (&["99999999999999999999"], 400),
            (&["-1"], 400),
            (&["+5"], 400),
            (&[" 5"], 400),
            (&["5 "], 400),
            (&["5.0"], 400),
            (&["0x5"], 400),
            (&["ten"], 400),
            (&[""], 400),
            (&["60", "60"], 400),
            (&[], 400),
        ] {
            let headers: Vec<_> = ttls.iter().map(|ttl| (TTL_60.0, *ttl)).collect();
            let answer = service.answer(&request("PUT", "/latest/api/token", &headers));
            assert_eq!(answer.status(), status, "{ttls:?}");
            if status == 200 {
                let ttl: u32 = ttls[0].parse().unwrap();
                assert_eq!(answer.headers()[&TOKEN_TTL], ttl.to_string());
                assert_eq!(body(answer).len(), 56);
            } else {
                assert_eq!(body(answer), "", "{ttls:?}");
            }
        }
    }

    #[test]
    fn a_token_comes_from_one_place_and_one_method_only() {
        let service = service(Mode::V1V2);
        for (method, path, headers, status) in [
            ("PUT", "/2021-03-23/api/token", &[TTL_60][..], 403),
            ("PUT", "/1.0/api/token", &[TTL_60], 403),
            ("PUT", "/latest/api/token", &[TTL_60, FORWARDED], 403),
            ("PUT", "/latest/api/token", &[FORWARDED], 403),
            ("PUT", "/latest/api/token/", &[TTL_60], 403),
            ("PUT", "//latest/api/token", &[TTL_60], 403),
            ("OPTIONS", "/latest/api/token", &[], 200),
            ("OPTIONS", "/latest/meta-data/instance-id", &[], 200),
            ("GET", "/latest/api/token", &[], 405),
            ("HEAD", "/latest/api/token", &[], 405),
            ("POST", "/latest/api/token", &[TTL_60], 405),
            ("DELETE", "/latest/api/token", &[], 405),
            ("GET", "/latest/api", &[], 404),
            ("GET", "/api/token", &[], 404),
            ("PUT", "/latest/meta-data/instance-id", &[TTL_60], 403),
            ("POST", "/latest/meta-data/instance-id", &[], 405),
            ("DELETE", "/latest/meta-data/instance-id", &[], 405),
        ] {
            let answer = service.answer(&request(method, path, headers));
            assert_eq!(answer.status(), status, "{method} {path} {headers:?}");
            if status == 405 || method == "OPTIONS" {
                let methods = match path {
                    "/latest/api/token" => "OPTIONS, PUT",
                    _ => "OPTIONS, GET, HEAD",
                };
                assert_eq!(answer.headers()["allow"], methods);
            }
            if status == 403 || status == 405 {
                assert_eq!(body(answer), "", "{method} {path}");
            }
        }
    }

    #[test]
    fn tokens_are_judged_as_the_service_does() {
        let service = service(Mode::V1V2);
        let token = token(&service);
        let (fresh, stale) = ((TOKEN.as_str(), token.as_str()), (TOKEN.as_str(), "stale"));
        for (headers, status) in [
            (&[][..], 200),
            (&[fresh], 200),
            (&[stale, fresh], 200),
            (&[fresh, stale], 200),
            (&[stale], 401),
            (&[(TOKEN.as_str(), "")], 401),
            (&[FORWARDED], 200),
            (&[fresh, FORWARDED], 403),
            (&[stale, FORWARDED], 403),
        ] {
            for (method, path, here) in [
                ("GET", "/latest/meta-data/instance-id", true),
                ("HEAD", "/latest/meta-data/instance-id", true),
                ("GET", "/latest/meta-data/nothing", false),
            ] {
                let expected = if status == 200 && !here { 404 } else { status };
                let answer = service.answer(&request(method, path, headers));
                assert_eq!(answer.status(), expected, "{method} {path}");
                // What is left of a good token, whether there is such an item or not.
                let ttl = answer.headers().get(&TOKEN_TTL);
                let ttl = ttl.map(|ttl| ttl.to_str().unwrap().to_owned());
                let good = status == 200 && headers.contains(&fresh);
                assert!(
                    ttl.as_deref()
                        .map_or(!good, |ttl| good && ["59", "60"].contains(&ttl)),
                    "{method} {path}: {ttl:?}"
                );
                if status != 200 {
                    assert_eq!(body(answer), "");
                }
            }
        }
    }

    #[test]
    fn without_version_1_a_token_is_needed_for_everything() {
        let service = service(Mode::V2);
        let token = token(&service);
        for path in ["/", "/latest", "/latest/meta-data/instance-id", "/nothing"] {
            let answer = service.answer(&request("GET", path, &[]));
            assert_eq!(answer.status(), 401, "{path}");
            assert_eq!(
                names(&answer),
                [
                    "content-length",
                    "date",
                    "server",
                    "connection",
                    "content-type"
                ]
            );
            assert_eq!(body(answer), "");
            let answer = service.answer(&request("GET", path, &[(TOKEN.as_str(), &token)]));
            assert_ne!(answer.status(), 401, "{path}");
        }
    }

    #[test]
    fn a_service_that_is_off_refuses_everything() {
        let service = service(Mode::Off);
        for (method, path) in [
            ("PUT", "/latest/api/token"),
            ("GET", "/latest/api/token"),
            ("GET", "/latest/meta-data/instance-id"),
            ("GET", "/nothing"),
            ("DELETE", "/"),
        ] {
            let answer = service.answer(&request(method, path, &[TTL_60]));
            assert_eq!(answer.status(), 403, "{method} {path}");
            assert_eq!(body(answer), "");
        }
    }

    #[test]
    fn modes_are_read_as_they_are_written() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert_eq!(Mode::default(), Mode::V1V2);
        let error = "v3".parse::<Mode>().unwrap_err();
        assert_eq!(error, "unknown mode: use v1v2, v2 or off");
    }

    #[test]
    fn a_method_that_is_not_allowed_is_refused_in_the_real_form() {
        let answer = service(Mode::V1V2).answer(&request("GET", "/latest/api/token", &[]));
        assert_eq!(
            names(&answer),
            [
                "allow",
                "content-length",
                "date",
                "server",
                "connection",
                "content-type"
            ]
        );
        let reason = answer.extensions().get::<hyper::ext::ReasonPhrase>();
        assert_eq!(reason.unwrap().as_bytes(), b"Not Allowed");
    }

    #[test]
    fn the_versions_are_listed_and_behave_alike() {
        let (status, versions) = get("/");
        assert_eq!(status, 200);
        assert!(versions.starts_with("1.0\n2007-01-19\n") && versions.ends_with("\nlatest"));
        for version in versions.lines().chain(["2016-11-15", "2020-08-24"]) {
            for path in [
                "/",
                "/meta-data/",
                "/meta-data/placement/region",
                "/user-data",
            ] {
                let answer = get(&format!("/{version}{path}"));
                assert_eq!(answer, get(&format!("/latest{path}")), "{version} {path}");
                assert_eq!(answer.0, 200, "{version} {path}");
            }
        }
        for version in ["newest", "2021-7-16", "2.0", "LATEST", "meta-data"] {
            assert_eq!(
                get(&format!("/{version}/meta-data/ami-id")).0,
                404,
                "{version}"
            );
            assert_eq!(get(&format!("/{version}")).0, 404, "{version}");
        }
    }

    #[test]
    fn every_place_is_found_however_it_is_written() {
        assert_eq!(
            get("/latest"),
            (200, "dynamic\nmeta-data\nuser-data".to_owned())
        );
        let region = (200, "us-east-1".to_owned());
        for path in [
            "/latest/meta-data/placement/region",
            "/latest/meta-data/placement/region/",
            "//latest//meta-data/placement///region",
            "/latest/meta-data/placement/region?query",
        ] {
            assert_eq!(get(path), region, "{path}");
        }
        for path in [
            "/latest/meta-data/spot",
            "/latest/meta-data/instance",
            "/latest/meta-data/placement/region/more",
            "/latest/meta-data/Placement",
            "/latest/meta-dataplacement",
        ] {
            let (status, body) = get(path);
            assert_eq!((status, body.len()), (404, 339), "{path}");
        }
    }

    #[test]
    fn only_user_data_is_not_text() {
        let service = service(Mode::V1V2);
        for (path, content_type) in [
            ("/latest/user-data", "application/octet-stream"),
            ("/latest/meta-data/", "text/plain"),
            ("/latest/meta-data/iam/info", "text/plain"),
            ("/latest/dynamic/instance-identity/document", "text/plain"),
            ("/latest/meta-data/nothing", "text/html"),
        ] {
            let answer = service.answer(&request("GET", path, &[]));
            assert_eq!(answer.headers()["content-type"], content_type, "{path}");
        }
    }

    /// The service behind a socket.
    async fn serve(service: Synthetic) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = service_fn(async |request| {
                    Ok::<_, std::convert::Infallible>(service.answer(&request))
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                connection.await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn an_instance_that_was_saved_is_the_same() {
        let name = format!("spotsim-synthetic-{}", std::process::id());
        let now = Timestamp::now();
        for (mode, extension) in [(Mode::V1V2, "yaml"), (Mode::V2, "toml")] {
            let path = std::env::temp_dir().join(format!("{name}.{extension}"));
            let saved = instance::save(serve(service(mode)).await, &path, now)
                .await
                .unwrap();
            assert_eq!(saved.left_out, [""; 0]);
            let replayed = Instance::read(&path, service(mode).instance.booted()).unwrap();
            std::fs::remove_file(path).unwrap();

            let original = &service(mode).instance;
            let secret = |key: &&str| {
                ["user-data", "meta-data/identity-credentials/"]
                    .iter()
                    .any(|secret| key.starts_with(secret))
                    || ["pkcs7", "rsa2048", "signature"]
                        .iter()
                        .any(|secret| key.ends_with(secret))
            };
            let kept: Vec<_> = original.keys().filter(|key| !secret(key)).collect();
            assert_eq!(replayed.keys().collect::<Vec<_>>(), kept);
            for key in kept {
                assert_eq!(replayed.get(key, now), original.get(key, now), "{key}");
                let directory = key.rsplit_once('/').unwrap().0;
                if !directory.ends_with("identity") {
                    let listing = |instance: &Instance| match instance.get(directory, now) {
                        Some(Found::Listing(mut names)) => {
                            names.retain(|name| name != "identity-credentials/");
                            names
                        }
                        other => panic!("{directory}: {other:?}"),
                    };
                    assert_eq!(listing(&replayed), listing(original));
                }
            }
        }
    }

    #[tokio::test]
    async fn an_instance_whose_service_is_off_cannot_be_saved() {
        let path = std::env::temp_dir().join(format!("spotsim-off-{}.yaml", std::process::id()));
        let address = serve(service(Mode::Off)).await;
        let error = instance::save(address, &path, Timestamp::now()).await;
        let error = format!("{:#}", error.unwrap_err());
        assert!(
            error.ends_with("GET /latest/meta-data/: 403 Forbidden"),
            "{error}"
        );
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn head_is_get_without_a_body() {
        let address = serve(service(Mode::V1V2)).await;
        for path in [
            "/latest/meta-data/instance-id",
            "/latest/meta-data/",
            "/latest/nothing",
        ] {
            let mut heads = Vec::new();
            for method in ["GET", "HEAD"] {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = format!("{method} {path} HTTP/1.1\r\nHost: imds\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                assert_eq!(body.is_empty(), method == "HEAD", "{method} {path}: {body}");
                let lines = head.lines().filter(|line| !line.starts_with("date: "));
                heads.push(lines.map(str::to_owned).collect::<Vec<_>>());
            }
            assert_eq!(heads[0], heads[1], "{path}");
        }
    }
}
