//! Who asked for what: the kernel half's connect records, joined with the requests.
//!
//! A record names the process and carries its socket's cookie. When the connection arrives,
//! sock_diag gives the cookie of the socket at its other end. Cookies are never used twice, so
//! two clients cannot be taken for each other, however fast ports are used again.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use log::{Level, info, log_enabled, warn};
use nix::time::{ClockId, clock_gettime};
use spotsim_common::record::{ConnectRecord, Verdict};
use tokio::{io::unix::AsyncFd, sync::Notify};

mod feed;

pub use feed::{By, Caller, Connect, Counts, Entry, Family, Feed, Request, Sent};

use crate::{
    intercept::Connects,
    netns::Owner,
    readiness::readable,
    responder::{Exchange, Visitor, Witness},
    sock_diag::SockDiag,
    target::Cgroup,
};

/// Connections that are remembered until their request is answered; of more than so many, the
/// latest.
const MOST_CALLERS: usize = 16_384;

/// Cgroups whose names are remembered; more are looked up anew.
const MOST_NAMES: usize = 4_096;

/// Reads the kernel half's records, and tells the log and the feed of requests with them.
pub struct Journal {
    /// Readable while there are records.
    ring: AsyncFd<OwnedFd>,
    pages: Mutex<Pages>,
    /// Told when there is something on the pages for [`Journal::missed`].
    news: Notify,
    /// Held by whoever tells the feed of connects, so that they are told in their order.
    telling: Mutex<()>,
    feed: Feed,
    names: Names,
}

/// The names of cgroups, with control characters escaped.
struct Names {
    /// What they are beneath.
    cgroups: Vec<Cgroup>,
    known: Mutex<HashMap<u64, String>>,
}

struct Pages {
    connects: Connects,
    callers: HashMap<u64, ConnectRecord>,
    oldest: VecDeque<u64>,
    missed: Vec<ConnectRecord>,
    /// The feed has not been told of these.
    untold: Vec<(Sent, ConnectRecord)>,
    /// Cookies of the namespaces in which somebody connected.
    active: HashSet<u64>,
    lost: u64,
}

impl Journal {
    /// Reads `connects`; cgroup ids beneath `cgroups` are told by their names. Must be called in
    /// a tokio runtime.
    pub fn new(connects: Connects, cgroups: Vec<Cgroup>, feed: Feed) -> io::Result<Self> {
        Ok(Self {
            ring: readable(connects.as_fd().try_clone_to_owned()?)?,
            pages: Mutex::new(Pages {
                connects,
                callers: HashMap::new(),
                oldest: VecDeque::new(),
                missed: Vec::new(),
                untold: Vec::new(),
                active: HashSet::new(),
                lost: 0,
            }),
            news: Notify::new(),
            telling: Mutex::default(),
            feed,
            names: Names {
                cgroups,
                known: Mutex::default(),
            },
        })
    }

    /// Waits until connections passed to the real IMDS, though they were a target's, and returns
    /// them.
    pub async fn missed(&self) -> io::Result<Vec<ConnectRecord>> {
        let Self { ring, news, .. } = self;
        loop {
            let found = self.with_pages(|pages| std::mem::take(&mut pages.missed));
            self.tell_connects();
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
                () = news.notified() => {}
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
        let Self { names, .. } = self;
        let Caller {
            pid,
            command,
            uid,
            cgroup,
            ..
        } = names.caller(record);
        format!("{command}[{pid}] of user {uid} in {cgroup}")
    }

    /// Turns to the latest page first. Every client waits for this lock when it comes, so it is
    /// held for moments only: nothing is looked up under it.
    fn with_pages<T>(&self, f: impl FnOnce(&mut Pages) -> T) -> T {
        let Self { pages, news, .. } = self;
        let mut pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.turn();
        if !pages.missed.is_empty() || !pages.untold.is_empty() {
            news.notify_one();
        }
        f(&mut pages)
    }

    /// Tells the feed of the connects so far. To name one's cgroup may take a walk through the
    /// target's.
    fn tell_connects(&self) {
        let Self {
            telling,
            feed,
            names,
            ..
        } = self;
        let _telling = telling.lock().unwrap_or_else(PoisonError::into_inner);
        for (verdict, record) in self.with_pages(|pages| std::mem::take(&mut pages.untold)) {
            feed.connected(verdict, || Connect {
                time: time_of(&record),
                caller: names.caller(&record),
                verdict,
            });
        }
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
            untold,
            active,
            lost,
        } = self;
        for record in connects.by_ref() {
            active.insert(record.netns_cookie);
            let verdict = match record.verdict() {
                Some(Verdict::Redirected) => Sent::Redirected,
                Some(Verdict::Missed) => Sent::Missed,
                Some(Verdict::Bound) => Sent::Bound,
                None => {
                    warn!("a connect record with verdict {}", record.verdict);
                    continue;
                }
            };
            if verdict == Sent::Redirected {
                callers.insert(record.socket_cookie, record);
                oldest.push_back(record.socket_cookie);
            } else {
                missed.push(record);
            }
            untold.push((verdict, record));
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

impl Names {
    fn caller(&self, record: &ConnectRecord) -> Caller {
        let command = String::from_utf8_lossy(record.comm());
        Caller {
            pid: record.pid,
            command: command.escape_debug().to_string(),
            uid: record.uid,
            cgroup: self.name(record.cgroup_id),
            netns: record.netns_cookie,
            family: match i32::from(record.family) {
                libc::AF_INET6 => Family::Ipv6,
                _ => Family::Ipv4,
            },
            socket: record.socket_cookie,
        }
    }

    fn name(&self, id: u64) -> String {
        let Self { cgroups, known } = self;
        let locked = || known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = locked().get(&id) {
            return name.clone();
        }
        // Those whose names are known need not wait for this.
        let found = cgroups.iter().flat_map(Cgroup::ids);
        let found: Vec<_> = found
            .map(|(id, name)| (id, name.escape_debug().to_string()))
            .collect();
        let mut known = locked();
        if known.len() >= MOST_NAMES {
            known.clear();
        }
        known.extend(found);
        // A process can have been moved out of the target since it made its socket.
        let name = known.entry(id).or_insert_with(|| format!("cgroup id {id}"));
        name.clone()
    }
}

/// When it happened: its own clock does not know the time of day.
fn time_of(record: &ConnectRecord) -> Timestamp {
    let now = Timestamp::now();
    let Ok(monotonic) = clock_gettime(ClockId::CLOCK_MONOTONIC) else {
        return now;
    };
    let since_boot = i128::from(monotonic.tv_sec()) * 1_000_000_000;
    let since_boot = since_boot + i128::from(monotonic.tv_nsec());
    let ago = since_boot - i128::from(record.time_ns);
    let ago = SignedDuration::from_nanos(i64::try_from(ago.max(0)).unwrap_or(0));
    now.checked_sub(ago).unwrap_or(now)
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
        // A connect is told before its request.
        journal.tell_connects();
        let Journal { feed, names, .. } = &**journal;
        feed.answered(exchange, || record.map(|record| names.caller(&record)));
        if log_enabled!(Level::Info) {
            let caller = match record {
                Some(record) => journal.caller(&record),
                None => "a client that waited long".to_owned(),
            };
            info!("{caller}: {exchange}");
        }
    }
}
