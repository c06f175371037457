//! Answers in the form in which the real service gives them: status, headers and their order,
//! and body, as captured from Nitro instances.

use std::time::SystemTime;

use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{
        ACCEPT_RANGES, ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap,
        HeaderName, HeaderValue, LAST_MODIFIED, SERVER,
    },
};
use jiff::Timestamp;

/// Carries a session token in a request.
pub static TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
/// In a request for a token: its life in seconds. In an answer: what is left of it.
pub static TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");

pub type Answer = Response<Full<Bytes>>;

pub const TEXT: &str = "text/plain";

/// The body of every 404 (339 bytes).
const NOT_FOUND: &str = concat!(
    "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n",
    "<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n",
    "\t\t \"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n",
    "<html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n",
    " <head>\n",
    "  <title>404 - Not Found</title>\n",
    " </head>\n",
    " <body>\n",
    "  <h1>404 - Not Found</h1>\n",
    " </body>\n",
    "</html>\n",
);

/// 200 with a value that is there since `since`. `ttl` is what is left of the token, in
/// seconds, where the request had one.
pub fn document(
    value: impl Into<Bytes>,
    content_type: &'static str,
    since: Timestamp,
    ttl: Option<HeaderValue>,
) -> Answer {
    let value = value.into();
    let since = httpdate::fmt_http_date(SystemTime::from(since));
    let mut answer = Response::new(Full::default());
    let headers = answer.headers_mut();
    if let Some(ttl) = ttl {
        headers.insert(&TOKEN_TTL, ttl);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
    if let Ok(since) = HeaderValue::try_from(since) {
        headers.insert(LAST_MODIFIED, since);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(value.len()));
    finish(answer, value)
}

/// Has a document be as new as what was put into it at `since`.
pub fn modified(headers: &mut HeaderMap, since: Timestamp) {
    let theirs = headers
        .get(LAST_MODIFIED)
        .and_then(|date| date.to_str().ok());
    let theirs = theirs.and_then(|date| httpdate::parse_http_date(date).ok());
    let since = SystemTime::from(since);
    if theirs.is_none_or(|theirs| theirs < since)
        && let Ok(since) = HeaderValue::try_from(httpdate::fmt_http_date(since))
    {
        headers.insert(LAST_MODIFIED, since);
    }
}

/// 200 with a new token that lives for `ttl` seconds.
pub fn token(token: String, ttl: u32) -> Answer {
    let mut answer = Response::new(Full::default());
    let headers = answer.headers_mut();
    headers.insert(&TOKEN_TTL, HeaderValue::from(ttl));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(token.len()));
    let mut answer = finish(answer, token.into());
    let text = HeaderValue::from_static(TEXT);
    answer.headers_mut().insert(CONTENT_TYPE, text);
    answer
}

/// 404, with what is left of the token where the request had one.
pub fn not_found(ttl: Option<HeaderValue>) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NOT_FOUND;
    let headers = answer.headers_mut();
    if let Some(ttl) = ttl {
        headers.insert(&TOKEN_TTL, ttl);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(NOT_FOUND.len()));
    finish(answer, Bytes::from_static(NOT_FOUND.as_bytes()))
}

/// A refusal. It has no body.
pub fn refusal(status: StatusCode) -> Answer {
    refuse(Response::new(Full::default()), status)
}

/// Makes an answer without a body of one that has some of its headers already.
fn refuse(mut answer: Answer, status: StatusCode) -> Answer {
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    let mut answer = finish(answer, Bytes::new());
    let text = HeaderValue::from_static(TEXT);
    answer.headers_mut().insert(CONTENT_TYPE, text);
    answer
}

/// 405; the service says "Not Allowed" for it and which methods it would take.
pub fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = allowing(methods, StatusCode::METHOD_NOT_ALLOWED);
    let reason = hyper::ext::ReasonPhrase::from_static(b"Not Allowed");
    answer.extensions_mut().insert(reason);
    answer
}

/// The answer to OPTIONS.
pub fn allowed(methods: &'static str) -> Answer {
    allowing(methods, StatusCode::OK)
}

fn allowing(methods: &'static str, status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    let methods = HeaderValue::from_static(methods);
    answer.headers_mut().insert(ALLOW, methods);
    refuse(answer, status)
}

/// The headers that end each answer, and its body.
fn finish(mut answer: Answer, body: Bytes) -> Answer {
    let headers = answer.headers_mut();
    if let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())) {
        headers.insert(DATE, now);
    }
    headers.insert(SERVER, HeaderValue::from_static("EC2ws"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    *answer.body_mut() = Full::new(body);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_404_is_the_real_one() {
        assert_eq!(NOT_FOUND.len(), 339);
    }

    #[test]
    fn a_documents_headers_come_in_the_real_order() {
        let since = "2024-06-27T22:17:40Z".parse().unwrap();
        let answer = document("us-east-1", TEXT, since, Some(HeaderValue::from(21_518)));
        let names: Vec<_> = answer.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(
            names,
            [
                "x-aws-ec2-metadata-token-ttl-seconds",
                "content-type",
                "accept-ranges",
                "last-modified",
                "content-length",
                "date",
                "server",
                "connection",
            ]
        );
        assert_eq!(
            answer.headers()[LAST_MODIFIED],
            "Thu, 27 Jun 2024 22:17:40 GMT"
        );
        assert_eq!(answer.headers()[CONTENT_LENGTH], "9");
    }
}
