//! Connects and requests as they happen, for whoever watches.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::responder::{Exchange, Outcome};

/// Entries that a slow watcher may be behind; it loses older ones.
const BEHIND: usize = 1_024;

/// Who connected. Words of it come from workloads; control characters in them are escaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// The thread's name.
    pub command: String,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// The path as in `/proc/PID/cgroup`.
    pub cgroup: String,
    /// The target that it belongs to, as `pod default/web-0`; `None` if it has left it since it
    /// made its socket.
    pub target: Option<String>,
    /// The network namespace's cookie.
    pub netns: u64,
    pub family: Family,
    /// The socket's cookie: a connect and its request have the same, and nobody else has it.
    pub socket: u64,
}

impl Caller {
    /// Where it is, in the user's words for its target.
    pub fn place(&self) -> &str {
        let Self { cgroup, target, .. } = self;
        match target {
            // Its path says more.
            Some(target) if !target.starts_with("cgroup ") => target,
            _ => cgroup,
        }
    }
}

/// The family of a socket, not of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// What became of a connect to IMDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sent {
    /// To the responder.
    Redirected,
    /// To the real IMDS: there was no listener in the caller's network namespace.
    Missed,
    /// To the real IMDS: the socket is bound to a device.
    Bound,
}

/// A connect to IMDS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    pub time: Timestamp,
    pub caller: Caller,
    pub verdict: Sent,
}

/// Who answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// With something that is announced.
    Spotsim,
    Upstream,
    Nobody,
}

/// A request and what became of it. It has neither headers nor a query nor a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// When it was answered, or given up.
    pub time: Timestamp,
    /// `None` where nobody is intercepted, and for one who waited very long.
    pub caller: Option<Caller>,
    pub method: String,
    /// As [`Exchange::shown_path`] has it.
    pub path: String,
    /// `None` if nobody answered.
    pub status: Option<u16>,
    pub by: By,
    /// From the request's head to the answer's, in microseconds.
    pub latency_us: u64,
}

impl Request {
    /// A request that is over now.
    pub fn new(caller: Option<Caller>, exchange: &Exchange<'_>) -> Self {
        let (status, by) = match exchange.outcome {
            // A fake is always a 200.
            Outcome::Faked => (Some(200), By::Spotsim),
            Outcome::Passed(status) => (Some(status.as_u16()), By::Upstream),
            Outcome::NoAnswer(_) => (None, By::Nobody),
        };
        Self {
            time: Timestamp::now(),
            caller,
            method: exchange.shown_method().escape_debug().to_string(),
            path: exchange.shown_path(),
            status,
            by,
            latency_us: exchange.elapsed.as_micros().try_into().unwrap_or(u64::MAX),
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Entry {
    Connect(Connect),
    Request(Request),
}

/// How much has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub requests: u64,
    /// Those answered with something that is announced.
    pub faked: u64,
    /// Those that the upstream answered.
    pub passed: u64,
    pub unanswered: u64,
    /// Connections that went past spotsim.
    pub missed_connects: u64,
}

/// Counts everything, and tells whoever watches. Clones are the same feed.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    entries: broadcast::Sender<Arc<Entry>>,
    faked: AtomicU64,
    passed: AtomicU64,
    unanswered: AtomicU64,
    missed: AtomicU64,
}

impl Default for Feed {
    fn default() -> Self {
        Self(Arc::new(Inner {
            entries: broadcast::Sender::new(BEHIND),
            faked: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        }))
    }
}

impl Feed {
    /// Everything from now on.
    pub fn watch(&self) -> broadcast::Receiver<Arc<Entry>> {
        let Self(inner) = self;
        inner.entries.subscribe()
    }

    /// Counts a request that is over. `caller` is called if somebody watches.
    pub fn answered(&self, exchange: &Exchange<'_>, caller: impl FnOnce() -> Option<Caller>) {
        let Self(inner) = self;
        let count = match exchange.outcome {
            Outcome::Faked => &inner.faked,
            Outcome::Passed(_) => &inner.passed,
            Outcome::NoAnswer(_) => &inner.unanswered,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.tell(|| Entry::Request(Request::new(caller(), exchange)));
    }

    /// Counts a connect. `connect` is called if somebody watches.
    pub fn connected(&self, verdict: Sent, connect: impl FnOnce() -> Connect) {
        let Self(inner) = self;
        if verdict != Sent::Redirected {
            inner.missed.fetch_add(1, Ordering::Relaxed);
        }
        self.tell(|| Entry::Connect(connect()));
    }

    /// Whether somebody watches.
    pub fn is_watched(&self) -> bool {
        let Self(inner) = self;
        inner.entries.receiver_count() > 0
    }

    fn tell(&self, entry: impl FnOnce() -> Entry) {
        let Self(inner) = self;
        if self.is_watched() {
            // The last watcher may have left meanwhile.
            let _ = inner.entries.send(Arc::new(entry()));
        }
    }

    /// How much has happened so far, whoever watched.
    pub fn counts(&self) -> Counts {
        let Self(inner) = self;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (faked, passed) = (read(&inner.faked), read(&inner.passed));
        let unanswered = read(&inner.unanswered);
        Counts {
            requests: faked + passed + unanswered,
            faked,
            passed,
            unanswered,
            missed_connects: read(&inner.missed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::Method;

    use super::*;

    fn exchange() -> Exchange<'static> {
        Exchange {
            method: &Method::GET,
            path: "/latest/x",
            outcome: Outcome::Faked,
            elapsed: Duration::from_micros(1_500),
        }
    }

    #[test]
    fn nothing_is_made_while_nobody_watches() {
        let feed = Feed::default();
        feed.answered(&exchange(), || panic!("nobody watches"));
        drop(feed.watch());
        feed.answered(&exchange(), || panic!("nobody watches any more"));
        feed.connected(Sent::Missed, || panic!("nobody watches"));
        let counts = feed.counts();
        assert_eq!((counts.requests, counts.faked), (2, 2));
        assert_eq!((counts.passed, counts.missed_connects), (0, 1));
    }

    #[test]
    fn a_watcher_is_told() {
        let feed = Feed::default();
        let mut watcher = feed.watch();
        feed.answered(&exchange(), || None);
        let entry = watcher.try_recv().unwrap();
        let mut entry = serde_json::to_value(&*entry).unwrap();
        assert!(entry["time"].take().is_string());
        let expected = serde_json::json!({
            "type": "request", "time": null, "caller": null, "method": "GET",
            "path": "/latest/x", "status": 200, "by": "spotsim", "latency_us": 1_500,
        });
        assert_eq!(entry, expected);
    }
}
