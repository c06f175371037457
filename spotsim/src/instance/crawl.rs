//! Asks an IMDS for everything that it says of its instance.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context as _, Error, Result, bail, ensure};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{HOST, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use log::debug;
use tokio::{net::TcpStream, time::timeout};

use super::{PUBLIC_KEYS, ROLES, is_name, key_entry};
use crate::document;

/// For all requests together.
pub const WITHIN: Duration = Duration::from_secs(120);
/// For one request. One that takes longer is not answered at all, most likely.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The longest document: user data, which is not asked for, may have 16 KiB.
const LONGEST: usize = 64 * 1024;
/// The most requests. An instance with 15 interfaces has some 500 documents.
const MOST_REQUESTS: usize = 5_000;
/// The most bytes of all documents: no longer file can be read.
const MOST_BYTES: usize = document::LONGEST;
/// The most directories within each other; the real tree has six.
const DEEPEST: usize = 12;

/// The longest life of a token, in seconds: nobody renews it.
const TOKEN_LIVES: &str = "21600";

static TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
static TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");

/// Every IMDS has it.
const ROOT: &str = "meta-data";

/// Where a real instance has what opens something or proves something: whoever has it can pass
/// for the instance. [`is_secret`] is the rule.
pub const SECRET: [&str; 5] = [
    ROLES,
    "meta-data/identity-credentials",
    "dynamic/instance-identity/pkcs7",
    "dynamic/instance-identity/rsa2048",
    "dynamic/instance-identity/signature",
];

/// What is there for a while only.
pub const PASSING: [&str; 3] = [
    "meta-data/autoscaling",
    "meta-data/events",
    "meta-data/spot",
];

/// What an IMDS said.
#[derive(Debug, Default)]
pub struct Crawled {
    /// Its documents. Public keys are by the names in their listing: `public-keys/0=NAME/…`.
    pub documents: BTreeMap<String, String>,
    /// The name of the instance's role.
    pub role: Option<String>,
    /// What cannot be kept, and why.
    pub odd: Vec<(String, String)>,
}

/// Whether a path holds or leads to something secret, whatever directory it is in and however it
/// is spelled.
fn is_secret(path: &str) -> bool {
    let is = |name: &str, other: &str| name.eq_ignore_ascii_case(other);
    let mut names = path.split('/');
    while let Some(name) = names.next() {
        let secret = ["security-credentials", "identity-credentials", "user-data"];
        if secret.iter().any(|secret| is(name, secret)) {
            return true;
        }
        if is(name, "instance-identity") {
            // Only the document proves nothing without its signatures.
            let below: Vec<_> = names.collect();
            return !matches!(below[..], [] | ["document"]);
        }
    }
    false
}

/// Asks the IMDS at `imds` for what its listings name below `meta-data/` and `dynamic/`, one
/// request after the other: the real service throttles. What is secret, and what is in
/// [`PASSING`], is not asked for.
///
/// A document that is odd is left out. It is an error if nothing is left, or if there is no end
/// `within` a time.
pub async fn crawl(imds: SocketAddr, within: Duration) -> Result<Crawled> {
    match timeout(within, crawl_all(imds)).await {
        Ok(crawled) => crawled,
        Err(_) => bail!("the IMDS has not told everything within {within:?}"),
    }
}

async fn crawl_all(imds: SocketAddr) -> Result<Crawled> {
    let mut crawl = Crawl {
        imds,
        token: None,
        requests: 0,
        bytes: 0,
        crawled: Crawled::default(),
    };
    crawl.token = crawl.token().await?;
    crawl.root().await?;
    for root in [ROOT, "dynamic"] {
        crawl.directory(root).await?;
    }
    let Crawl { crawled, .. } = crawl;
    ensure!(
        !crawled.documents.is_empty(),
        "the IMDS has no document that can be kept"
    );
    Ok(crawled)
}

/// What is at a path.
enum Found {
    Text(String),
    Nothing,
    /// Why it cannot be kept.
    Odd(String),
}

struct Crawl {
    imds: SocketAddr,
    /// None for an IMDS that knows version 1 only.
    token: Option<HeaderValue>,
    requests: usize,
    bytes: usize,
    crawled: Crawled,
}

/// A directory that is still to be listed.
struct Directory {
    /// As it is asked for.
    path: String,
    /// As it is written down.
    written: String,
    depth: usize,
}

impl Crawl {
    async fn token(&mut self) -> Result<Option<HeaderValue>> {
        let ttl = (&TOKEN_TTL, HeaderValue::from_static(TOKEN_LIVES));
        let (status, token) = self
            .ask(Method::PUT, "/latest/api/token", Some(ttl))
            .await?;
        match status {
            StatusCode::OK => {
                let token = token.context("the token has no end")?;
                let mut token = HeaderValue::from_maybe_shared(token).context("the token")?;
                token.set_sensitive(true);
                Ok(Some(token))
            }
            // As clients take it: this service has version 1 only.
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                Ok(None)
            }
            status => bail!("PUT /latest/api/token: {status}"),
        }
    }

    /// What is in the directory without which there is nothing.
    async fn root(&mut self) -> Result<()> {
        let path = format!("/latest/{ROOT}/");
        let (status, body) = self.ask_with_token(&path).await?;
        ensure!(status == StatusCode::OK, "GET {path}: {status}");
        match read(body) {
            Found::Odd(why) => bail!("GET {path}: {why}"),
            Found::Text(_) | Found::Nothing => Ok(()),
        }
    }

    /// Collects what is at and below a directory.
    async fn directory(&mut self, root: &str) -> Result<()> {
        let mut pending = vec![Directory {
            path: root.to_owned(),
            written: root.to_owned(),
            depth: 1,
        }];
        while let Some(directory) = pending.pop() {
            let Directory { path, written, .. } = &directory;
            if let Some(listing) = self.text(&format!("{path}/"), written).await? {
                self.entries(&directory, &listing, &mut pending).await?;
            }
        }
        Ok(())
    }

    /// Collects the documents of a directory, and puts off its directories.
    async fn entries(
        &mut self,
        directory: &Directory,
        listing: &str,
        pending: &mut Vec<Directory>,
    ) -> Result<()> {
        let Directory {
            path,
            written,
            depth,
        } = directory;
        let entries: BTreeSet<_> = listing.lines().filter(|line| !line.is_empty()).collect();
        for entry in &entries {
            let name = entry.strip_suffix('/').unwrap_or(entry);
            let key = key_entry(name).filter(|_| path == PUBLIC_KEYS);
            let asked = key.map_or(name, |(number, _)| number);
            let child = format!("{path}/{asked}");
            let written = format!("{written}/{name}");
            if !is_name(asked) {
                self.odd(written, "its name cannot be in a request's path");
            } else if is_secret(&child) {
                if child == ROLES {
                    self.role().await?;
                }
                // The others are what every instance has, and the file says so anyway.
                if !SECRET.contains(&&*child) {
                    self.odd(written, "by its name it is secret");
                }
            } else if PASSING.contains(&&*child) {
                debug!("{child} passes");
            } else if key.is_some() || name.len() < entry.len() {
                ensure!(
                    *depth < DEEPEST,
                    "{child}: too many directories within each other"
                );
                pending.push(Directory {
                    path: child,
                    written,
                    depth: depth + 1,
                });
            } else if entries.contains(format!("{name}/").as_str()) {
                self.odd(written, "it is a directory as well");
            } else if let Some(value) = self.text(&child, &written).await? {
                self.crawled.documents.insert(written, value);
            }
        }
        Ok(())
    }

    /// Notes the first role, which is the only one.
    async fn role(&mut self) -> Result<()> {
        let listing = self.text(&format!("{ROLES}/"), ROLES).await?;
        let listing = listing.unwrap_or_default();
        match listing.lines().find(|line| !line.is_empty()) {
            Some(role) if is_name(role) => self.crawled.role = Some(role.to_owned()),
            Some(role) => self.odd(
                format!("{ROLES}/{role}"),
                "its name cannot be in a request's path",
            ),
            None => {}
        }
        Ok(())
    }

    fn odd(&mut self, written: String, why: impl Into<String>) {
        self.crawled.odd.push((written, why.into()));
    }

    /// The text at a path, unless there is none that can be kept.
    async fn text(&mut self, path: &str, written: &str) -> Result<Option<String>> {
        match self.get(path).await? {
            Found::Text(text) => return Ok(Some(text)),
            Found::Nothing => debug!("{path} is not there"),
            Found::Odd(why) => self.odd(written.to_owned(), why),
        }
        Ok(None)
    }

    /// What is at a path. An error if the IMDS does not answer any more.
    async fn get(&mut self, path: &str) -> Result<Found> {
        let why = match self.ask_with_token(&format!("/latest/{path}")).await {
            Ok((StatusCode::OK, body)) => {
                self.bytes += body.as_ref().map_or(0, Bytes::len);
                ensure!(self.bytes <= MOST_BYTES, "there is no end of documents");
                return Ok(read(body));
            }
            Ok((StatusCode::NOT_FOUND, _)) => return Ok(Found::Nothing),
            Ok((status, _)) => format!("it was answered with {status}"),
            Err(error) => format!("{error:#}"),
        };
        // Only this path, or everything from now on, as with a token that is taken no more?
        self.root().await?;
        Ok(Found::Odd(why))
    }

    async fn ask_with_token(&mut self, path: &str) -> Result<(StatusCode, Option<Bytes>)> {
        let token = self.token.clone().map(|token| (&TOKEN, token));
        self.ask(Method::GET, path, token).await
    }

    /// The status and body of an answer; no body if it is too long.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        header: Option<(&'static HeaderName, HeaderValue)>,
    ) -> Result<(StatusCode, Option<Bytes>)> {
        let Self { imds, requests, .. } = self;
        *requests += 1;
        ensure!(*requests <= MOST_REQUESTS, "there is no end of documents");
        let what = format!("{method} {path} at {imds}");
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, imds.to_string())
            .body(Empty::<Bytes>::new())
            .with_context(|| what.clone())?;
        request.headers_mut().extend(
            header
                .into_iter()
                .map(|(name, value)| (name.clone(), value)),
        );
        match timeout(ANSWER_WITHIN, answer(*imds, request)).await {
            Ok(answer) => answer.with_context(|| what),
            Err(_) => bail!(
                "{what}: no answer within {} s (is the hop limit of the IMDS too low here?)",
                ANSWER_WITHIN.as_secs()
            ),
        }
    }
}

/// The text of a body; `None` is one that is too long.
fn read(body: Option<Bytes>) -> Found {
    let Some(body) = body else {
        return Found::Odd(format!("it is longer than {} KiB", LONGEST / 1024));
    };
    match String::from_utf8(body.into()) {
        Ok(text) => Found::Text(text),
        Err(_) => Found::Odd("it is not text".to_owned()),
    }
}

/// Sends a request over a connection of its own.
async fn answer(
    imds: SocketAddr,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Option<Bytes>)> {
    let stream = TcpStream::connect(imds).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!("connection to {imds}: {error}");
        }
    });
    let (head, body) = sender.send_request(request).await?.into_parts();
    match Limited::new(body, LONGEST).collect().await {
        Ok(body) => Ok((head.status, Some(body.to_bytes()))),
        Err(error) if error.is::<LengthLimitError>() => Ok((head.status, None)),
        Err(error) => Err(Error::from_boxed(error)),
    }
}
