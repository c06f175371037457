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
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use log::{Level, info, log_enabled, warn};
use nix::time::{ClockId, clock_gettime};
use spotsim_common::record::{ConnectRecord, Verdict};
use tokio::{io::unix::AsyncFd, sync::Notify, time::sleep};

mod feed;

pub use feed::{By, Caller, Connect, Counts, Entry, Family, Feed, Request, Sent};

use crate::{
    intercept::Connects,
    netns::Owner,
    readiness::readable,
    responder::{Exchange, Visitor, Witness},
    sock_diag::SockDiag,
    target::{Cgroup, Target},
};

/// Connections that are remembered until their request is answered; of more than so many, the
/// latest.
const MOST_CALLERS: usize = 16_384;

/// Cgroups whose names are remembered; more are looked up anew.
const MOST_NAMES: usize = 4_096;

/// After a walk through the targets' directories, so many times as long as it took without
/// another: a workload can make cgroups and move its processes as fast as it connects.
const WALKS_ARE_RARE: u32 = 9;

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

/// The names of cgroups, and which targets they are in.
#[derive(Default)]
struct Names {
    cgroups: Mutex<Cgroups>,
    /// When the targets' directories may be walked through again. Held by whoever does it.
    next_walk: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Cgroups {
    targets: Arc<[Target]>,
    /// What these targets make of them.
    known: HashMap<u64, Arc<Known>>,
}

/// What is known of a cgroup.
struct Known {
    /// With control characters escaped.
    path: String,
    /// The innermost target that it is in: its id, and the user's words for it.
    target: Option<(u64, String)>,
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
    /// Reads `connects`. Must be called in a tokio runtime.
    pub fn new(connects: Connects, feed: Feed) -> io::Result<Self> {
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
            names: Names::default(),
        })
    }

    /// Callers are told by these targets from now on.
    pub fn know(&self, targets: Vec<Target>) {
        self.names.know(targets);
    }

    /// The target of one who connected, by its id.
    pub fn target_of(&self, record: &ConnectRecord) -> Option<u64> {
        let target = &self.names.of(record).target;
        target.as_ref().map(|(id, _)| *id)
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
                    ready?.clear_ready();
                    self.turn_after_wakeup().await;
                }
                // Whoever looked for a caller may have come first.
                () = news.notified() => {}
            }
        }
    }

    /// Reads what the kernel half woke us for. It may not be readable at once: records come in their
    /// order, and the one before may be by a processor that was stopped in the middle of it.
    async fn turn_after_wakeup(&self) {
        for turn in 0..4 {
            if self.with_pages(|pages| !pages.missed.is_empty()) {
                return;
            }
            sleep(Duration::from_millis(1 << turn)).await;
        }
    }

    /// The cookies of the namespaces in which somebody connected since this was last asked. Also
    /// says how many records were lost meanwhile, which takes a system call.
    pub fn active(&self) -> HashSet<u64> {
        self.with_pages(|pages| {
            pages.count_lost();
            std::mem::take(&mut pages.active)
        })
    }

    /// Who connected with the socket of this cookie; `None` if nobody did who was redirected.
    pub fn find(&self, cookie: u64) -> Option<ConnectRecord> {
        // The record was left before the connection was made: it can only be unread, or not
        // readable yet.
        self.with_pages(|pages| pages.callers.get(&cookie).copied())
    }

    /// The words for one who connected.
    pub fn caller(&self, record: &ConnectRecord) -> String {
        let Self { names, .. } = self;
        let caller = names.caller(record);
        let Caller {
            pid, command, uid, ..
        } = &caller;
        format!("{command}[{pid}] of user {uid} in {}", caller.place())
    }

    /// Turns to the latest page first. Every client waits for this lock when it comes, so it is
    /// held for moments only: nothing is looked up under it.
    fn with_pages<T>(&self, f: impl FnOnce(&mut Pages) -> T) -> T {
        let Self {
            pages, news, feed, ..
        } = self;
        let mut pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.turn(feed.is_watched());
        if !pages.missed.is_empty() || !pages.untold.is_empty() {
            news.notify_one();
        }
        f(&mut pages)
    }

    /// Tells the feed of the connects so far. To name one's cgroup may take a look at its process.
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
    /// Reads what the kernel half has left since the last time. Who was redirected is of interest
    /// to those who watch, if any do.
    fn turn(&mut self, watched: bool) {
        let Self {
            connects,
            callers,
            oldest,
            missed,
            untold,
            active,
            lost: _,
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
            if watched || verdict != Sent::Redirected {
                untold.push((verdict, record));
            }
        }
        while oldest.len() > MOST_CALLERS {
            if let Some(cookie) = oldest.pop_front() {
                callers.remove(&cookie);
            }
        }
    }

    fn count_lost(&mut self) {
        let Self { connects, lost, .. } = self;
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
    fn know(&self, targets: Vec<Target>) {
        *self.cgroups() = Cgroups::of(targets);
    }

    fn cgroups(&self) -> MutexGuard<'_, Cgroups> {
        let Self { cgroups, .. } = self;
        cgroups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn caller(&self, record: &ConnectRecord) -> Caller {
        let command = String::from_utf8_lossy(record.comm());
        let Known { path, target } = &*self.of(record);
        Caller {
            pid: record.pid,
            command: command.escape_debug().to_string(),
            uid: record.uid,
            cgroup: path.clone(),
            target: target.as_ref().map(|(_, name)| name.clone()),
            netns: record.netns_cookie,
            family: match i32::from(record.family) {
                libc::AF_INET6 => Family::Ipv6,
                _ => Family::Ipv4,
            },
            socket: record.socket_cookie,
        }
    }

    /// What is known of the cgroup of one who connected.
    fn of(&self, record: &ConnectRecord) -> Arc<Known> {
        let ConnectRecord { cgroup_id, tid, .. } = *record;
        self.look_up(cgroup_id, || Cgroup::path_with(cgroup_id, tid))
    }

    /// What is known of a cgroup. `path` asks the process; where that does not tell, all that is
    /// beneath the targets is walked through.
    fn look_up(&self, id: u64, path: impl Fn() -> Option<String>) -> Arc<Known> {
        let Self { next_walk, .. } = self;
        loop {
            let targets = match self.cgroups().find(id) {
                Ok(known) => return known,
                Err(targets) => targets,
            };
            // Those that are known need not wait for this.
            if let Some(path) = path() {
                let found = vec![(id, Known::at(&path, &targets))];
                if let Some(known) = self.cgroups().learn(&targets, found, id) {
                    return known;
                }
                continue;
            }
            let mut next_walk = next_walk.lock().unwrap_or_else(PoisonError::into_inner);
            // Somebody else's walk may have found it.
            if let Ok(known) = self.cgroups().find(id) {
                return known;
            }
            let began = Instant::now();
            if next_walk.is_some_and(|next| began < next) {
                return Arc::new(Known::nowhere(id));
            }
            let found = Cgroups::beneath(&targets);
            *next_walk = Some(Instant::now() + began.elapsed() * WALKS_ARE_RARE);
            if let Some(known) = self.cgroups().learn(&targets, found, id) {
                return known;
            }
        }
    }
}

impl Known {
    fn at(path: &str, targets: &[Target]) -> Self {
        // The innermost is last.
        let mut outwards = targets.iter().rev();
        let target = outwards.find(|target| target.cgroup.contains(path));
        Self {
            path: path.escape_debug().to_string(),
            target: target.map(named),
        }
    }

    /// A process can have been moved out of the target since it made its socket, and be gone.
    fn nowhere(id: u64) -> Self {
        Self {
            path: format!("cgroup id {id}"),
            target: None,
        }
    }
}

fn named(target: &Target) -> (u64, String) {
    (target.id(), target.to_string().escape_debug().to_string())
}

impl Cgroups {
    /// Of these targets nothing is known yet.
    fn of(mut targets: Vec<Target>) -> Self {
        // The innermost is last: what it says stands.
        targets.sort_by_key(|target| target.cgroup.path().len());
        Self {
            targets: targets.into(),
            known: HashMap::new(),
        }
    }

    /// All that are there now.
    fn beneath(targets: &[Target]) -> Vec<(u64, Known)> {
        let found = targets.iter().flat_map(|target| {
            let named = named(target);
            let known = move |path: String| Known {
                path: path.escape_debug().to_string(),
                target: Some(named.clone()),
            };
            let ids = target.cgroup.ids().into_iter();
            ids.map(move |(id, path)| (id, known(path)))
        });
        found.collect()
    }

    /// What is known of one, or else the targets among which it is to be looked for.
    fn find(&self, id: u64) -> Result<Arc<Known>, Arc<[Target]>> {
        let Self { targets, known } = self;
        let known = known.get(&id).map(Arc::clone);
        known.ok_or_else(|| Arc::clone(targets))
    }

    /// Remembers what was found among these targets, and says what is known of one. `None` if
    /// there are others now: the innermost target may be new.
    fn learn(
        &mut self,
        among: &Arc<[Target]>,
        found: Vec<(u64, Known)>,
        id: u64,
    ) -> Option<Arc<Known>> {
        let Self { targets, known } = self;
        if !Arc::ptr_eq(targets, among) {
            return None;
        }
        if known.len() >= MOST_NAMES {
            known.clear();
        }
        known.extend(found.into_iter().map(|(id, known)| (id, Arc::new(known))));
        let nowhere = || Arc::new(Known::nowhere(id));
        Some(Arc::clone(known.entry(id).or_insert_with(nowhere)))
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
        let record = journal.find(cookie)?;
        let ConnectRecord { uid, gid, .. } = record;
        Some(Visitor {
            cookie,
            owner: Owner { uid, gid },
            target: journal.target_of(&record),
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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

    use super::*;

    /// Directories `/a`, `/a/b` and `/a/b/c`, and what is to be known of them.
    struct Tree {
        directory: PathBuf,
        names: Names,
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.directory).unwrap();
        }
    }

    impl Tree {
        fn new(name: &str, targets: &[&str]) -> Self {
            let name = format!("spotsim-{name}-{}", std::process::id());
            let tree = Self {
                directory: std::env::temp_dir().join(name),
                names: Names::default(),
            };
            fs::create_dir_all(tree.at("/a/b/c")).unwrap();
            tree.know(targets);
            tree
        }

        fn at(&self, path: &str) -> PathBuf {
            self.directory.join(path.trim_start_matches('/'))
        }

        fn id(&self, path: &str) -> u64 {
            fs::metadata(self.at(path)).unwrap().ino()
        }

        fn know(&self, targets: &[&str]) {
            let target = |path: &&str| Target::from(Cgroup::plain(path, self.at(path)));
            self.names.know(targets.iter().map(target).collect());
        }

        /// What a process there is told by: path and target. It tells its path, or does not.
        fn look_up(&self, path: &str, tells: bool) -> (String, Option<String>) {
            let says = || tells.then(|| path.to_owned());
            let known = self.names.look_up(self.id(path), says);
            let Known { path, target } = &*known;
            let id_and_name = target.as_ref();
            if let Some((id, name)) = id_and_name {
                assert_eq!(*id, self.id(name.trim_start_matches("cgroup ")));
            }
            (path.clone(), id_and_name.map(|(_, name)| name.clone()))
        }

        fn walked(&self) -> bool {
            self.names.next_walk.lock().unwrap().is_some()
        }
    }

    fn known(path: &str, target: &str) -> (String, Option<String>) {
        (path.to_owned(), Some(format!("cgroup {target}")))
    }

    #[test]
    fn a_process_tells_its_innermost_target_without_a_walk() {
        let tree = Tree::new("told", &["/a/b", "/a"]);
        assert_eq!(tree.look_up("/a/b/c", true), known("/a/b/c", "/a/b"));
        assert_eq!(tree.look_up("/a", true), known("/a", "/a"));
        // One that joins later, within the others.
        tree.know(&["/a/b", "/a", "/a/b/c"]);
        assert_eq!(tree.look_up("/a/b/c", true), known("/a/b/c", "/a/b/c"));
        // One that moved out of its target since it made its socket.
        tree.know(&["/a/b"]);
        assert_eq!(tree.look_up("/a", true), ("/a".to_owned(), None));
        assert!(!tree.walked());
    }

    #[test]
    fn one_that_does_not_tell_is_looked_for() {
        let tree = Tree::new("walked", &["/a/b", "/a"]);
        assert_eq!(tree.look_up("/a/b/c", false), known("/a/b/c", "/a/b"));
        assert_eq!(tree.look_up("/a", false), known("/a", "/a"));
    }

    #[test]
    fn walks_are_rare() {
        let tree = Tree::new("rare", &["/a"]);
        let next_walk = || tree.names.next_walk.lock().unwrap();
        // A busy machine may take long to tell the time.
        let rests = (0..10).any(|_| {
            tree.know(&["/a"]);
            *next_walk() = None;
            tree.look_up("/a", false);
            let next = *next_walk();
            next > Some(Instant::now())
        });
        assert!(rests, "the next may begin at once");

        // Meanwhile nothing is told, and nothing remembered that is not so.
        *next_walk() = Some(Instant::now() + Duration::from_secs(3600));
        let nowhere = (format!("cgroup id {}", tree.id("/a/b")), None);
        tree.know(&["/a"]);
        assert_eq!(tree.look_up("/a/b", false), nowhere);
        assert_eq!(tree.look_up("/a/b/c", true), known("/a/b/c", "/a"));
        *next_walk() = Some(Instant::now());
        assert_eq!(tree.look_up("/a/b", false), known("/a/b", "/a"));
    }
}
