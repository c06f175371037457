//! Asks an IMDS for everything that it says of its instance.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use hyper::{StatusCode, body::Bytes};
use log::debug;
use tokio::time::timeout;

use super::{
    PUBLIC_KEYS, ROLES,
    imds::{self, Imds, LONGEST},
    is_name, key_entry,
};
use crate::document;

/// For all requests together.
pub const WITHIN: Duration = Duration::from_secs(120);
/// The most requests. An instance with 15 interfaces has some 500 documents.
const MOST_REQUESTS: usize = 5_000;
/// The most bytes of all documents: no longer file can be read.
const MOST_BYTES: usize = document::LONGEST;
/// The most directories within each other; the real tree has six.
const DEEPEST: usize = 12;

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
        imds: Imds::meet(imds, None).await?,
        requests: 0,
        bytes: 0,
        crawled: Crawled::default(),
    };
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
    imds: Imds<'static>,
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
    /// What is in the directory without which there is nothing.
    async fn root(&mut self) -> Result<()> {
        let path = format!("/latest/{ROOT}/");
        let (status, body) = self.ask(&path).await?;
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
        let why = match self.ask(&format!("/latest/{path}")).await {
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

    async fn ask(&mut self, path: &str) -> Result<imds::Answer> {
        let Self { imds, requests, .. } = self;
        *requests += 1;
        ensure!(*requests <= MOST_REQUESTS, "there is no end of documents");
        imds.get(path).await
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
