//! An HTTP client, over TLS where it is asked for: the only one of its kind, for webhooks and AWS.

use std::error::Error;

use anyhow::{Context as _, Result};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore};

/// A body to be sent.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// Sends requests, each on a connection of its own: events are rare, and one that was kept may be
/// dead by the next.
#[derive(Clone, Debug)]
pub struct Http(Client<HttpsConnector<HttpConnector>, Body>);

impl Http {
    /// `tls` loads this host's certificates of authorities; without, no server is trusted.
    pub fn new(tls: bool) -> Result<Self> {
        let config = ClientConfig::builder();
        let config = if tls {
            config.with_native_roots().context(
                "cannot load the certificates of this host's authorities (install \
                 ca-certificates, or set SSL_CERT_FILE)",
            )?
        } else {
            config.with_root_certificates(RootCertStore::empty())
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .retry_canceled_requests(false)
            .build(connector);
        Ok(Self(client))
    }

    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, legacy::Error> {
        let Self(client) = self;
        client.request(request).await
    }
}
