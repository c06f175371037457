//! A client of IMDS, for what spotsim itself wants to know of an instance.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Error, Result, bail};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{HOST, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use log::debug;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::netns::Namespace;

/// For one request. One that takes longer is not answered at all, most likely.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The longest document: user data, which is not asked for, may have 16 KiB.
pub const LONGEST: usize = 64 * 1024;

/// The longest life of a token, in seconds: nobody renews it.
const TOKEN_LIVES: &str = "21600";

static TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
static TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");

/// An IMDS that answers.
pub struct Imds<'a> {
    address: SocketAddr,
    /// Whence it is asked; `None` for spotsim's own namespace.
    from: Option<&'a Namespace>,
    /// None for one that knows version 1 only.
    token: Option<HeaderValue>,
}

/// The status and the body of an answer; no body if it is longer than [`LONGEST`].
pub type Answer = (StatusCode, Option<Bytes>);

impl<'a> Imds<'a> {
    /// Asks for a token, with which everything else is asked.
    pub async fn meet(address: SocketAddr, from: Option<&'a Namespace>) -> Result<Self> {
        let mut imds = Self {
            address,
            from,
            token: None,
        };
        let ttl = (&TOKEN_TTL, HeaderValue::from_static(TOKEN_LIVES));
        let (status, token) = imds
            .ask(Method::PUT, "/latest/api/token", Some(ttl))
            .await?;
        imds.token = match status {
            StatusCode::OK => {
                let token = token.context("the token has no end")?;
                let mut token = HeaderValue::from_maybe_shared(token).context("the token")?;
                token.set_sensitive(true);
                Some(token)
            }
            // As clients take it: this service has version 1 only.
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => None,
            status => bail!("PUT /latest/api/token: {status}"),
        };
        Ok(imds)
    }

    /// What it has at a path, which begins with a slash.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        let token = self.token.clone().map(|token| (&TOKEN, token));
        self.ask(Method::GET, path, token).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        header: Option<(&'static HeaderName, HeaderValue)>,
    ) -> Result<Answer> {
        let Self { address, .. } = self;
        let what = format!("{method} {path} at {address}");
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, address.to_string())
            .body(Empty::<Bytes>::new())
            .with_context(|| what.clone())?;
        request.headers_mut().extend(
            header
                .into_iter()
                .map(|(name, value)| (name.clone(), value)),
        );
        match timeout(ANSWER_WITHIN, self.answer(request)).await {
            Ok(answer) => answer.with_context(|| what),
            Err(_) => bail!(
                "{what}: no answer within {} s (is the hop limit of the IMDS too low here?)",
                ANSWER_WITHIN.as_secs()
            ),
        }
    }

    /// Sends a request over a connection of its own.
    async fn answer(&self, request: Request<Empty<Bytes>>) -> Result<Answer> {
        let address = self.address;
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!("connection to {address}: {error}");
            }
        });
        let (head, body) = sender.send_request(request).await?.into_parts();
        match Limited::new(body, LONGEST).collect().await {
            Ok(body) => Ok((head.status, Some(body.to_bytes()))),
            Err(error) if error.is::<LengthLimitError>() => Ok((head.status, None)),
            Err(error) => Err(Error::from_boxed(error)),
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let Self { address, from, .. } = self;
        let socket = || match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let socket = match from {
            Some(namespace) => namespace.run(socket)??,
            None => socket()?,
        };
        socket.connect(*address).await
    }
}
