//! Events posted to a URL.

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT},
};
use percent_encoding::percent_decode_str;

use super::{
    http::{Body, Http},
    sink::Url,
    template::Template,
};
use crate::event::Event;

/// A URL, and what is posted to it.
pub struct Webhook {
    http: Http,
    /// Without user and password.
    uri: Uri,
    authorization: Option<HeaderValue>,
    template: Option<Template>,
}

impl Webhook {
    pub fn new(http: Http, url: &Url, template: Option<Template>) -> Result<Self> {
        let authorization = url.user_info().map(basic).transpose()?;
        let mut parts = url.uri().clone().into_parts();
        if let Some(authority) = parts.authority.take() {
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            parts.authority = Some(host.parse()?);
        }
        Ok(Self {
            http,
            uri: Uri::from_parts(parts)?,
            authorization,
            template,
        })
    }

    /// Any answer but 2xx is a failure, a redirection too.
    pub async fn post(&self, event: &Event) -> Result<()> {
        let Self {
            http,
            uri,
            authorization,
            template,
        } = self;
        let body = match template {
            Some(template) => template.fill(event),
            None => serde_json::to_string(event)?,
        };
        let body = Body::new(Full::from(body).map_err(|never| match never {}));
        let mut request = Request::post(uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("spotsim/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = http.send(request.body(body)?).await?;
        let status = response.status();
        if status.is_redirection() {
            bail!("it answered {status}, and redirections are not followed");
        }
        if !status.is_success() {
            bail!("it answered {status}");
        }
        Ok(())
    }
}

/// The header for user and password (RFC 7617).
fn basic(user_info: &str) -> Result<HeaderValue> {
    let decoded: Vec<u8> = percent_decode_str(user_info).collect();
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(decoded)))
        .context("user and password")?;
    value.set_sensitive(true);
    Ok(value)
}
