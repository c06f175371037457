//! What can be asked for, read without doing it.

use std::borrow::Cow;

use hyper::StatusCode;
use percent_encoding::percent_decode_str;

use crate::{
    document::{self, Format},
    timeline::{NoticePlan, Plan},
};

/// The longest body of a request, in bytes.
pub const LONGEST_BODY: usize = 1024 * 1024;

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// How it is.
    Status,
    /// Announce this, and nothing of what is announced now.
    Trigger { plan: Box<Plan>, to: To },
    /// Announce nothing.
    Cancel { to: To },
    /// End.
    Detach,
    /// Tell of everything from now on.
    Watch,
}

/// To whom: the paths of targets' cgroups, or everybody if there are none.
pub type To = Vec<String>;

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    /// The method that would have been right.
    pub allow: Option<&'static str>,
    /// In a line.
    pub error: String,
}

impl Refusal {
    /// With a status of 400 or more, and the reason in a line.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            allow: None,
            error: error.into(),
        }
    }

    /// The request's body is longer than [`LONGEST_BODY`].
    pub fn too_long() -> Self {
        let error = format!("the body is longer than {LONGEST_BODY} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, error)
    }
}

impl Command {
    /// Reads a request. `cgroup=PATH` in the query, any number of times, is for whom it is; paths
    /// are percent-encoded. A plan that is not read here may still make no sense at the time when it
    /// is armed.
    pub fn parse(method: &str, target: &str, body: &[u8]) -> Result<Self, Refusal> {
        if body.len() > LONGEST_BODY {
            return Err(Refusal::too_long());
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let allow = match path {
            "/status" | "/watch" => "GET",
            "/trigger" | "/cancel" | "/detach" => "POST",
            _ => {
                let error = "there is /status, /trigger, /cancel, /detach and /watch";
                return Err(Refusal::new(StatusCode::NOT_FOUND, error));
            }
        };
        if method != allow {
            return Err(Refusal {
                status: StatusCode::METHOD_NOT_ALLOWED,
                allow: Some(allow),
                error: format!("use {allow} for {path}"),
            });
        }
        let to = match (path, query) {
            (_, None) => To::new(),
            ("/trigger" | "/cancel", Some(query)) => to(query)?,
            _ => {
                let error = format!("{path} takes no query");
                return Err(Refusal::new(StatusCode::BAD_REQUEST, error));
            }
        };
        Ok(match path {
            "/status" => Self::Status,
            "/watch" => Self::Watch,
            "/cancel" => Self::Cancel { to },
            "/detach" => Self::Detach,
            _ => Self::Trigger {
                plan: Box::new(plan(body)?),
                to,
            },
        })
    }
}

/// Reads `cgroup=PATH&cgroup=PATH`.
fn to(query: &str) -> Result<To, Refusal> {
    let path = |part: &str| {
        let path = part.strip_prefix("cgroup=")?;
        percent_decode_str(path)
            .decode_utf8()
            .ok()
            .map(Cow::into_owned)
    };
    let paths: Option<To> = query.split('&').map(path).collect();
    paths.ok_or_else(|| {
        let error = "the query is not cgroup=PATH&cgroup=PATH, percent-encoded UTF-8";
        Refusal::new(StatusCode::BAD_REQUEST, error)
    })
}

/// Reads the plan in a body. Of nothing it is a notice at once.
fn plan(body: &[u8]) -> Result<Plan, Refusal> {
    let bad = |error: String| Refusal::new(StatusCode::BAD_REQUEST, error);
    let text = str::from_utf8(body).map_err(|_| bad("the plan is not UTF-8".to_owned()))?;
    if text.trim().is_empty() {
        return Ok(Plan {
            notice: Some(NoticePlan::default()),
            ..Plan::default()
        });
    }
    // serde takes a list for a struct as well.
    if !text.trim_start().starts_with('{') {
        return Err(bad("the plan: 1:1: not an object".to_owned()));
    }
    document::parse(text, Format::Json).map_err(|invalid| bad(format!("the plan: {invalid}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::Action;

    fn refusal(method: &str, path: &str, body: &[u8]) -> (u16, Option<&'static str>, String) {
        let refusal = Command::parse(method, path, body).unwrap_err();
        (refusal.status.as_u16(), refusal.allow, refusal.error)
    }

    #[test]
    fn what_can_be_asked_for() {
        for (method, path, command) in [
            ("GET", "/status", Command::Status),
            ("GET", "/watch", Command::Watch),
            ("POST", "/cancel", Command::Cancel { to: To::new() }),
            (
                "POST",
                "/cancel?cgroup=/a%20b&cgroup=%2Fc",
                Command::Cancel {
                    to: vec!["/a b".to_owned(), "/c".to_owned()],
                },
            ),
            ("POST", "/detach", Command::Detach),
        ] {
            assert_eq!(Command::parse(method, path, b""), Ok(command));
        }
    }

    #[test]
    fn a_trigger_has_a_plan_or_none() {
        let plan = |body: &[u8]| match Command::parse("POST", "/trigger", body) {
            Ok(Command::Trigger { plan, .. }) => *plan,
            other => panic!("{other:?}"),
        };
        for empty in [&b""[..], b"\n"] {
            assert_eq!(plan(empty).notice, Some(NoticePlan::default()));
        }
        assert_eq!(plan(b"{}"), Plan::default());
        let stop = plan(br#"{"notice": {"action": "stop", "appears": "+5s"}}"#);
        assert_eq!(stop.notice.unwrap().action, Action::Stop);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let paths = "there is /status, /trigger, /cancel, /detach and /watch";
        for path in ["/", "", "/status/", "/Status", "//status"] {
            assert_eq!(refusal("GET", path, b""), (404, None, paths.to_owned()));
        }
        assert_eq!(
            refusal("GET", "/trigger", b""),
            (405, Some("POST"), "use POST for /trigger".to_owned())
        );
        assert_eq!(
            refusal("HEAD", "/status", b""),
            (405, Some("GET"), "use GET for /status".to_owned())
        );
        for (body, expected) in [
            (&b"{"[..], "the plan: 1:1: EOF while parsing"),
            (
                b"{\n\"notise\": {}}",
                "the plan: 2:8: unknown field `notise`",
            ),
            (
                br#"{"notice": {"action": "explode"}}"#,
                "the plan: 1:31: \"explode\": unknown action; use one of terminate",
            ),
            (b"\xff", "the plan is not UTF-8"),
            (b"[]", "the plan: 1:1: not an object"),
        ] {
            let (status, allow, error) = refusal("POST", "/trigger", body);
            assert_eq!((status, allow), (400, None), "{error}");
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        for target in [
            "/trigger?",
            "/trigger?cgroup",
            "/trigger?cgroups=/a",
            "/cancel?cgroup=/a&",
            "/cancel?cgroup=%ff",
        ] {
            let (status, _, error) = refusal("POST", target, b"");
            assert_eq!(status, 400, "{target}");
            assert!(error.starts_with("the query is not cgroup="), "{error}");
        }
        assert_eq!(
            refusal("GET", "/status?cgroup=/a", b""),
            (400, None, "/status takes no query".to_owned())
        );
        let long = vec![b' '; LONGEST_BODY + 1];
        assert_eq!(refusal("POST", "/trigger", &long).0, 413);
    }
}
