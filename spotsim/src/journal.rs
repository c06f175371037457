//! Who asked for what: the kernel half's connect records, joined with the requests.
//!
//! A record names the process and carries its socket's cookie. When the connection arrives,
//! sock_diag gives the cookie of the socket at its other end. Cookies are never used twice, so
//! two clients cannot be taken for each other, however fast ports are used again.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt, io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use log::{info, warn};
use spotsim_common::record::{ConnectRecord, Verdict};
use tokio::{io::unix::AsyncFd, sync::Notify};

use crate::{
    intercept::Connects,
    netns::Owner,
    readiness::readable,
    responder::{Exchange, Outcome, Visitor, Witness},
    sock_diag::SockDiag,
    target::Cgroup,
};

/// Connections that are remembered until their request is answered; of more than so many, the
/// latest.
const MOST_CALLERS: usize = 16_384;

/// Cgroups whose names are remembered; more are looked up anew.
const MOST_NAMES: usize = 4_096;

/// A path in the log is cut after so many characters.
const LONGEST_PATH: usize = 200;

/// Reads the kernel half's records and logs requests with them.
pub struct Journal {
    /// Readable while there are records.
    ring: AsyncFd<OwnedFd>,
    pages: Mutex<Pages>,
    /// Told when a page has missed connections on it.
    missed: Notify,
    cgroups: Vec<Cgroup>,
    names: Mutex<HashMap<u64, String>>,
}

struct Pages {
    connects: Connects,
    callers: HashMap<u64, ConnectRecord>,
    oldest: VecDeque<u64>,
    missed: Vec<ConnectRecord>,
    /// Cookies of the namespaces in which somebody connected.
    active: HashSet<u64>,
    lost: u64,
}

impl Journal {
    /// Reads `connects`; cgroup ids beneath `cgroups` are logged by their names. Must be called
    /// in a tokio runtime.
    pub fn new(connects: Connects, cgroups: Vec<Cgroup>) -> io::Result<Self> {
        Ok(Self {
            ring: readable(connects.as_fd().try_clone_to_owned()?)?,
            pages: Mutex::new(Pages {
                connects,
                callers: HashMap::new(),
                oldest: VecDeque::new(),
                missed: Vec::new(),
                active: HashSet::new(),
                lost: 0,
            }),
            missed: Notify::new(),
            cgroups,
            names: Mutex::default(),
        })
    }

    /// Waits until connections passed to the real IMDS, though they were a target's, and returns
    /// them.
    pub async fn missed(&self) -> io::Result<Vec<ConnectRecord>> {
        let Self { ring, missed, .. } = self;
        loop {
            let found = self.with_pages(|pages| std::mem::take(&mut pages.missed));
            if !found.is_empty() {
                return Ok(found);
            }
            tokio::select! {
                ready = ring.readable() => {
                    let mut ready = ready?;
                    self.with_pages(|_| {});
                    ready.clear_ready();
                }
                // Whoever looked for a caller may have come first.
                () = missed.notified() => {}
            }
        }
    }

    /// The cookies of the namespaces in which somebody connected since this was last asked.
    pub fn active(&self) -> HashSet<u64> {
        self.with_pages(|pages| std::mem::take(&mut pages.active))
    }

    /// Who connected with the socket of this cookie; `None` if nobody did who was redirected.
    pub fn find(&self, cookie: u64) -> Option<ConnectRecord> {
        // The record was left before the connection was made: it can only be unread.
        self.with_pages(|pages| pages.callers.get(&cookie).copied())
    }

    /// The words for one who connected.
    pub fn caller(&self, record: &ConnectRecord) -> String {
        let ConnectRecord { pid, uid, .. } = *record;
        let comm = String::from_utf8_lossy(record.comm())
            .escape_debug()
            .to_string();
        let cgroup = self.cgroup_name(record.cgroup_id);
        format!("{comm}[{pid}] of user {uid} in {cgroup}")
    }

    fn cgroup_name(&self, id: u64) -> String {
        let Self { cgroups, names, .. } = self;
        let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
        if !names.contains_key(&id) {
            if names.len() >= MOST_NAMES {
                names.clear();
            }
            names.extend(cgroups.iter().flat_map(Cgroup::ids));
            // A process can have been moved out of the target since it made its socket.
            names.entry(id).or_insert_with(|| format!("cgroup id {id}"));
        }
        names[&id].clone()
    }

    /// Turns to the latest page first.
    fn with_pages<T>(&self, f: impl FnOnce(&mut Pages) -> T) -> T {
        let Self { pages, missed, .. } = self;
        let mut pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.turn();
        if !pages.missed.is_empty() {
            missed.notify_one();
        }
        f(&mut pages)
    }
}

impl Pages {
    /// Reads what the kernel half has left since the last time.
    fn turn(&mut self) {
        let Self {
            connects,
            callers,
            oldest,
            missed,
            active,
            lost,
        } = self;
        for record in connects.by_ref() {
            active.insert(record.netns_cookie);
            match record.verdict() {
                Some(Verdict::Redirected) => {
                    callers.insert(record.socket_cookie, record);
                    oldest.push_back(record.socket_cookie);
                }
                Some(Verdict::Missed | Verdict::Bound) => missed.push(record),
                None => warn!("a connect record with verdict {}", record.verdict),
            }
        }
        while oldest.len() > MOST_CALLERS {
            if let Some(cookie) = oldest.pop_front() {
                callers.remove(&cookie);
            }
        }
        let now_lost = connects.lost();
        if now_lost > *lost {
            warn!(
                "{} connections were not reported and could not be served: the ring buffer was \
                 full",
                now_lost - *lost
            );
            *lost = now_lost;
        }
    }
}

/// Watches over one namespace's listeners.
pub struct Attendant {
    /// Opened in that namespace.
    pub sock_diag: Arc<Mutex<SockDiag>>,
    pub journal: Arc<Journal>,
}

impl Attendant {
    fn ask<T>(&self, question: impl FnOnce(&mut SockDiag) -> io::Result<T>) -> Option<T> {
        let Self { sock_diag, .. } = self;
        let mut sock_diag = sock_diag.lock().unwrap_or_else(PoisonError::into_inner);
        question(&mut sock_diag)
            .inspect_err(|error| warn!("cannot look up a client's socket: {error}"))
            .ok()
    }
}

impl Witness for Attendant {
    fn arrived(&self, listener: SocketAddr, client: SocketAddr) -> Option<Visitor> {
        let Self { journal, .. } = self;
        let cookie = self.ask(|sock_diag| sock_diag.cookie_of(client, listener))??;
        let ConnectRecord { uid, gid, .. } = journal.find(cookie)?;
        Some(Visitor {
            cookie,
            owner: Owner { uid, gid },
        })
    }

    fn waits(&self, listener: SocketAddr, client: SocketAddr) -> bool {
        self.ask(|sock_diag| sock_diag.is_open(client, listener))
            .unwrap_or(true)
    }

    fn answered(&self, visitor: Visitor, exchange: &Exchange<'_>) {
        let Self { journal, .. } = self;
        let record = journal.with_pages(|pages| pages.callers.remove(&visitor.cookie));
        let caller = match record {
            Some(record) => journal.caller(&record),
            None => "a client that waited long".to_owned(),
        };
        info!("{caller}: {}", Summary(exchange));
    }
}

/// A request in one line. Neither headers nor a query nor a body: they may hold secrets.
struct Summary<'a>(&'a Exchange<'a>);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Exchange {
            method,
            path,
            outcome,
            elapsed,
        }) = self;
        let path: String = path.chars().take(LONGEST_PATH).collect();
        write!(f, "{method} {}: ", path.escape_debug())?;
        match outcome {
            Outcome::Faked => f.write_str("faked")?,
            Outcome::Passed(status) => write!(f, "passed, {}", status.as_u16())?,
            Outcome::NoAnswer(reason) => write!(f, "no answer, {reason}")?,
        }
        write!(f, " ({:.1} ms)", elapsed.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::{Method, StatusCode};

    use super::*;

    fn summary(path: &str, outcome: Outcome<'_>) -> String {
        Summary(&Exchange {
            method: &Method::GET,
            path,
            outcome,
            elapsed: Duration::from_micros(1_540),
        })
        .to_string()
    }

    #[test]
    fn a_request_is_one_line() {
        assert_eq!(
            summary(
                "/latest/meta-data/",
                Outcome::Passed(StatusCode::UNAUTHORIZED)
            ),
            "GET /latest/meta-data/: passed, 401 (1.5 ms)"
        );
        let hostile = summary("/a\nb\u{1b}[2J", Outcome::Faked);
        assert_eq!(hostile, "GET /a\\nb\\u{1b}[2J: faked (1.5 ms)");
        assert!(summary(&"x".repeat(10_000), Outcome::Faked).len() < 300);
    }
}
