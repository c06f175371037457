//! The asking end.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::HOST,
};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::{net::UnixStream, time::timeout};

use super::{Directory, Id, Status};
use crate::timeline::Plan;

/// One who does not tell how it is by then hangs.
const TELLS_WITHIN: Duration = Duration::from_secs(2);

/// One who does not do what it is asked by then may do it later.
const ACTS_WITHIN: Duration = Duration::from_secs(5);

/// The longest answer, in bytes: one who says more is no spotsim.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

/// Asks one that runs.
#[derive(Clone, Debug)]
pub struct Client {
    id: Id,
    path: PathBuf,
}

/// The lines of `GET /watch`.
pub struct Watching {
    id: Id,
    body: Incoming,
    read: Vec<u8>,
    /// So much of it was returned already.
    returned: usize,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl Client {
    /// The one of this ID; without one, the only one that runs.
    pub fn find(directory: &Directory, id: Option<Id>) -> Result<Self> {
        let ids = directory.ids()?;
        let looked = format!("(looked in {})", directory.path().display());
        let names = || ids.iter().map(Id::as_str).collect::<Vec<_>>().join(", ");
        let id = match (id, &ids[..]) {
            (Some(id), ids) if ids.contains(&id) => id,
            (None, [id]) => id.clone(),
            (Some(id), []) => bail!("no spotsim {id} is running, nor another {looked}"),
            (Some(id), _) => bail!("no spotsim {id} is running, but {} {looked}", names()),
            (None, []) => bail!("no spotsim is running {looked}"),
            (None, _) => bail!("several spotsims are running, name one: {}", names()),
        };
        Ok(Self::new(directory, id))
    }

    /// All that run.
    pub fn all(directory: &Directory) -> Result<Vec<Self>> {
        let ids = directory.ids()?.into_iter();
        Ok(ids.map(|id| Self::new(directory, id)).collect())
    }

    fn new(directory: &Directory, id: Id) -> Self {
        Self {
            path: directory.socket(&id),
            id,
        }
    }

    /// Whom it asks.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// How it is with it.
    pub async fn status(&self) -> Result<Status> {
        self.ask(Method::GET, "/status", Bytes::new()).await
    }

    /// Announces a plan instead of what is announced, to everybody or to the targets of these
    /// cgroups. Returns when every later request sees it.
    pub async fn trigger(&self, plan: &Plan, to: &[String]) -> Result<Status> {
        let plan = serde_json::to_vec(plan)?;
        self.ask(Method::POST, &for_some("/trigger", to), plan.into())
            .await
    }

    /// Withdraws everything announced, from everybody or from the targets of these cgroups.
    pub async fn cancel(&self, to: &[String]) -> Result<Status> {
        self.ask(Method::POST, &for_some("/cancel", to), Bytes::new())
            .await
    }

    /// Returns when nobody is intercepted any more.
    pub async fn detach(&self) -> Result<Status> {
        self.ask(Method::POST, "/detach", Bytes::new()).await
    }

    /// Everything that happens from now on.
    pub async fn watch(&self) -> Result<Watching> {
        let answer = self.send(&Method::GET, "/watch", Bytes::new());
        let answer = self.in_time(&Method::GET, answer).await?;
        if answer.status() != StatusCode::OK {
            bail!("{}: it cannot be watched: {}", self.id, answer.status());
        }
        Ok(Watching {
            id: self.id.clone(),
            body: answer.into_body(),
            read: Vec::new(),
            returned: 0,
        })
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Status> {
        let answer = async {
            let answer = self.send(&method, path, body).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LONGEST_ANSWER);
            let body = body.collect().await.map_err(|error| anyhow!(error));
            Ok((status, body.with_context(|| self.broken())?.to_bytes()))
        };
        let (status, body) = self.in_time(&method, answer).await?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body)
                .with_context(|| format!("{}: its answer cannot be read", self.id));
        }
        match serde_json::from_slice(&body) {
            Ok(Refused { error }) => Err(anyhow!("{}: {error}", self.id)),
            Err(_) => Err(anyhow!("{}: it answered {status}", self.id)),
        }
    }

    async fn in_time<T>(
        &self,
        method: &Method,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Self { id, .. } = self;
        let (within, later) = match *method {
            Method::GET => (TELLS_WITHIN, ""),
            _ => (ACTS_WITHIN, "; it may still do it, see `spotsim status`"),
        };
        let answer = timeout(within, answer).await;
        answer.map_err(|_| anyhow!("{id}: no answer within {within:?}{later}"))?
    }

    fn broken(&self) -> String {
        format!("{}: the connection to it broke", self.id)
    }

    async fn send(&self, method: &Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let Self { id, path: socket } = self;
        let stream = UnixStream::connect(socket)
            .await
            .with_context(|| format!("{id}: cannot connect to {}", socket.display()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .with_context(|| self.broken())?;
        // Its errors are those of the answer as well.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "spotsim")
            .body(Full::new(body))?;
        let answer = sender.send_request(request).await;
        answer.with_context(|| self.broken())
    }
}

/// A request's target with the cgroups that it is for.
fn for_some(path: &str, cgroups: &[String]) -> String {
    let mut target = path.to_owned();
    for (index, cgroup) in cgroups.iter().enumerate() {
        target.push(if index == 0 { '?' } else { '&' });
        target += "cgroup=";
        target.extend(utf8_percent_encode(cgroup, NON_ALPHANUMERIC));
    }
    target
}

impl Watching {
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The next line, with its end; `None` after the last.
    ///
    /// # Errors
    ///
    /// If the connection broke, because the process was killed, for example.
    pub async fn line(&mut self) -> Result<Option<Vec<u8>>> {
        let Self {
            id,
            body,
            read,
            returned,
        } = self;
        loop {
            let rest = &read[*returned..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest[..=end].to_vec();
                *returned += line.len();
                return Ok(Some(line));
            }
            read.drain(..std::mem::take(returned));
            let Some(frame) = body.frame().await else {
                return Ok(None);
            };
            let frame = frame
                .map_err(|_| anyhow!("{id}: the connection to it broke, as if it was killed"))?;
            if let Ok(data) = frame.into_data() {
                read.extend_from_slice(&data);
            }
        }
    }
}
