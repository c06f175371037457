//! What one `attach` owns: the links on its targets, the listeners in their namespaces, and
//! the timeline that all of them show.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use log::{Level, debug, info, log, warn};
use spotsim_common::{
    decide::Ports,
    record::{ConnectRecord, Verdict},
};
use tokio::{net::TcpSocket, sync::watch, task::JoinSet, time::sleep_until};

use self::sockets::{Sockets, open_loopback6};
use crate::{
    intercept::{Links, Programs},
    journal::{Attendant, Feed, Journal},
    netns::{self, Namespace},
    responder::{Place, Responder, serve},
    sock_diag::{Cut, SockDiag},
    target::{Cgroup, Watch},
};

mod sockets;

/// Connections that may wait to be accepted. A crowd that connects at once must not have to
/// try again after a second, as the kernel would let it.
const BACKLOG: u32 = 4_096;

/// A namespace that no process of its targets is in any more may get the next one soon: for so
/// long it keeps its listener.
const VACANT: Duration = Duration::from_secs(10);

/// After a change beneath a target, its processes are looked at again after the shorter time,
/// then at growing intervals up to the longer one, which is also how often without a change.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// After a look, so many times as long as it took without another.
const LOOKS_ARE_RARE: u32 = 9;

/// Reported misses that are remembered, so that none is reported each time.
const MOST_REMEMBERED: usize = 4_096;

/// What is to be intercepted, and how.
pub struct Config {
    /// At least one.
    pub targets: Vec<Cgroup>,
    /// A namespace that the targets' processes will be in, though none is yet.
    pub namespace: Option<Namespace>,
    /// What they are shown.
    pub responder: Arc<Responder>,
    /// Is told of connects and requests.
    pub feed: Feed,
    /// Whether the kernel half logs what it does.
    pub kernel_log: bool,
}

/// A running interception. To drop it detaches everything; [`Interception::detach`] also lets
/// requests that are under way be answered.
pub struct Interception {
    // Dropped in this order: nobody may be redirected to a listener that is gone.
    targets: Vec<Target>,
    /// The paths of their cgroups.
    names: watch::Sender<Vec<String>>,
    programs: Programs,
    places: HashMap<netns::Id, Serving>,
    responder: Arc<Responder>,
    journal: Arc<Journal>,
    watch: Watch,
    /// spotsim's own.
    own: Namespace,
    /// Namespace cookies and families whose misses have been reported.
    missed: HashSet<(u64, u16)>,
    /// Namespaces in which listeners could not be opened, which has been reported.
    closed: HashSet<netns::Id>,
}

struct Target {
    _links: Links,
    cgroup: Cgroup,
}

/// The listeners in one namespace.
struct Serving {
    cookie: u64,
    place: Arc<Place>,
    ports: Ports,
    sock_diag: Arc<Mutex<SockDiag>>,
    /// Whether connections to the real IMDS may be open that are to be cut.
    uncut: bool,
    /// Whether it stays when no process of a target is in it.
    kept: bool,
    /// The targets (cgroup paths) that had processes in it when it was last looked at.
    users: HashSet<String>,
    vacant_since: Option<Instant>,
    /// Its end tells the listeners to end.
    stop: watch::Sender<()>,
    listeners: JoinSet<()>,
}

/// An error of loading the kernel half: this host cannot.
#[derive(Debug)]
pub struct Unloadable;

impl fmt::Display for Unloadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this host does not take the kernel half (see `spotsim doctor`)")
    }
}

/// Why an interception is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended<T> {
    /// It was asked to end, for this reason.
    Asked(T),
    /// None of its targets exists any more.
    TargetsGone,
}

impl Interception {
    /// Listens in every namespace of the targets, then attaches to them. If any of it fails,
    /// nothing stays.
    pub fn arm(config: Config) -> Result<Self> {
        let Config {
            mut targets,
            namespace,
            responder,
            feed,
            kernel_log,
        } = config;
        let mut seen = HashSet::new();
        targets.retain(|cgroup| seen.insert(cgroup.path().to_owned()));

        let mut programs = Programs::load(kernel_log).context(Unloadable)?;
        let journal = Journal::new(programs.take_connects()?, targets.clone(), feed)
            .context("cannot read the kernel half's reports")?;
        let mut interception = Self {
            targets: Vec::new(),
            names: watch::Sender::default(),
            programs,
            places: HashMap::new(),
            responder,
            journal: Arc::new(journal),
            watch: Watch::new().context("cannot watch cgroups")?,
            own: Namespace::current().context("cannot open spotsim's network namespace")?,
            missed: HashSet::new(),
            closed: HashSet::new(),
        };

        // Listen first, attach last: then no connection is ever refused.
        let expected = namespace.is_some();
        if let Some(namespace) = namespace {
            interception.listen(namespace, true)?;
        }
        interception.look(&targets)?;
        if !expected && targets.iter().any(|cgroup| !interception.has_users(cgroup)) {
            interception.keep_own_namespace()?;
        }
        for cgroup in targets {
            let directory = cgroup
                .open()
                .with_context(|| format!("cannot open the cgroup {}", cgroup.path()))?;
            let links = interception
                .programs
                .attach(&directory)
                .with_context(|| format!("cannot attach to the cgroup {}", cgroup.path()))?;
            interception.targets.push(Target {
                _links: links,
                cgroup,
            });
        }
        interception.follow()?;
        Ok(interception)
    }

    /// Keeps up with the targets until `until`, or until the last of them is gone.
    pub async fn keep<T>(&mut self, until: impl Future<Output = T>) -> Result<Ended<T>> {
        let mut until = pin!(until);
        let (soon, late) = LOOK_AGAIN;
        let mut pause = soon;
        let mut earliest = Instant::now();
        let mut next = earliest;
        loop {
            let Self { journal, watch, .. } = self;
            tokio::select! {
                reason = &mut until => return Ok(Ended::Asked(reason)),
                missed = journal.missed() => {
                    for record in missed.context("cannot read the kernel half's reports")? {
                        self.catch_up(&record);
                    }
                    (pause, next) = (soon, earliest);
                    continue;
                }
                changed = watch.changed() => {
                    changed.context("cannot watch cgroups")?;
                    (pause, next) = (soon, earliest);
                    continue;
                }
                () = sleep_until(next.into()) => {}
            }
            let began = Instant::now();
            if let Err(error) = self.follow() {
                warn!("{error:#}");
            }
            if self.targets.is_empty() {
                return Ok(Ended::TargetsGone);
            }
            // Where there is much to look at and much changes, it is not looked at all the time.
            earliest = Instant::now() + began.elapsed() * LOOKS_ARE_RARE;
            next = earliest.max(Instant::now() + pause);
            pause = (pause * 2).min(late);
        }
    }

    /// Detaches, and lets requests that are under way be answered.
    pub async fn detach(self) {
        let Self {
            targets, places, ..
        } = self;
        drop(targets);
        let mut ending = JoinSet::new();
        for (_, serving) in places {
            ending.spawn(serving.end());
        }
        ending.join_all().await;
    }

    /// Detaches, and serves on whoever is connected already.
    pub fn release(&mut self) {
        self.targets.clear();
    }

    /// The paths of the targets' cgroups, of those that are still there.
    pub fn targets(&self) -> watch::Receiver<Vec<String>> {
        self.names.subscribe()
    }

    fn name_targets(&self) {
        let Self { targets, names, .. } = self;
        let now: Vec<_> = targets
            .iter()
            .map(|target| target.cgroup.path().to_owned())
            .collect();
        names.send_if_modified(|names| {
            let changed = *names != now;
            *names = now;
            changed
        });
    }

    /// What is armed, in a line.
    pub fn armed(&self) -> impl fmt::Display {
        Armed(self)
    }

    /// Brings targets, namespaces and listeners up to date with what is there.
    fn follow(&mut self) -> Result<()> {
        self.targets.retain(|Target { cgroup, .. }| {
            let exists = cgroup.exists();
            if !exists {
                info!("the cgroup {} is gone", cgroup.path());
            }
            exists
        });
        self.name_targets();
        let cgroups: Vec<_> = self
            .targets
            .iter()
            .map(|target| target.cgroup.clone())
            .collect();
        let result = self.look(&cgroups);
        self.leave_vacant(&cgroups);
        self.cut_old_connections();
        result
    }

    /// Listens in spotsim's own namespace to the end: a process that starts in a cgroup that is
    /// empty now is most likely in that one.
    fn keep_own_namespace(&mut self) -> Result<()> {
        if self.places.contains_key(&self.own.id()) {
            return Ok(());
        }
        let own = self
            .own
            .try_clone()
            .context("cannot open spotsim's network namespace")?;
        self.listen(own, true)
    }

    /// Listens in the namespaces of the cgroups' processes where we do not yet.
    fn look(&mut self, cgroups: &[Cgroup]) -> Result<()> {
        let mut users: HashMap<netns::Id, HashSet<String>> = HashMap::new();
        let mut result = Ok(());
        for cgroup in cgroups {
            for directory in cgroup.directories() {
                self.watch.add(&directory);
            }
            let known = self.places.keys().copied().collect();
            let (seen, new) = cgroup.namespaces(&known);
            for id in seen {
                users
                    .entry(id)
                    .or_default()
                    .insert(cgroup.path().to_owned());
            }
            for namespace in new {
                let id = namespace.id();
                match self.listen(namespace, false) {
                    Ok(()) => _ = self.closed.remove(&id),
                    // It is tried each time, and reported once.
                    Err(error) if self.closed.insert(id) => result = Err(error),
                    Err(_) => {}
                }
            }
        }
        let active = self.journal.active();
        for (id, serving) in &mut self.places {
            match users.remove(id) {
                Some(users) => (serving.users, serving.vacant_since) = (users, None),
                // A thread that is not in its process's namespace is seen only like that.
                None if active.contains(&serving.cookie) => serving.vacant_since = None,
                None => _ = serving.vacant_since.get_or_insert_with(Instant::now),
            }
        }
        result
    }

    /// Closes the listeners of namespaces that nobody is in: a listener keeps its namespace
    /// from going away.
    fn leave_vacant(&mut self, cgroups: &[Cgroup]) {
        let exists = |user: &String| cgroups.iter().any(|cgroup| cgroup.path() == user);
        let vacant: Vec<_> = self
            .places
            .iter()
            .filter(|(_, serving)| {
                let since = serving.vacant_since.map(|since| since.elapsed());
                let over = since.is_some_and(|elapsed| elapsed >= VACANT);
                let orphaned = since.is_some() && !serving.users.iter().any(exists);
                !serving.kept && (over || orphaned)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in vacant {
            if let Some(serving) = self.places.remove(&id) {
                debug!("left network namespace {}: nobody is in it", id.inode());
                self.programs.forget(serving.cookie);
                tokio::spawn(serving.end());
            }
        }
    }

    /// Opens listeners in a namespace and tells the kernel half of them.
    fn listen(&mut self, namespace: Namespace, kept: bool) -> Result<()> {
        let id = namespace.id();
        let sockets = Sockets::open(&namespace)
            .with_context(|| format!("cannot listen on lo in network namespace {}", id.inode()))?;
        let Sockets {
            cookie,
            v4,
            v6,
            sock_diag,
        } = sockets;
        let sock_diag = Arc::new(Mutex::new(sock_diag));
        let witness = Attendant {
            sock_diag: Arc::clone(&sock_diag),
            journal: Arc::clone(&self.journal),
        };
        let mut serving = Serving {
            cookie,
            place: Arc::new(Place {
                namespace,
                witness: Box::new(witness),
            }),
            ports: Ports { v4_be: 0, v6_be: 0 },
            sock_diag,
            uncut: true,
            // Our own namespace is there anyway, and where the next process will most likely be.
            kept: kept || id == self.own.id(),
            users: HashSet::new(),
            vacant_since: None,
            stop: watch::Sender::new(()),
            listeners: JoinSet::new(),
        };
        serving.ports.v4_be = serving.serve_on(v4, &self.responder)?;
        if let Some(v6) = v6 {
            serving.ports.v6_be = serving.serve_on(v6, &self.responder)?;
        }
        self.programs.listen(cookie, serving.ports)?;
        debug!(
            "listening in network namespace {} (cookie {cookie})",
            id.inode()
        );
        self.places.insert(id, serving);
        Ok(())
    }

    /// Destroys the targets' connections to the real IMDS that wait for nothing. Those that do
    /// are looked at again.
    fn cut_old_connections(&mut self) {
        // Before the programs are attached, a client that was cut would come back past us.
        if self.targets.is_empty() || !self.places.values().any(|serving| serving.uncut) {
            return;
        }
        let targets: HashSet<u64> = self
            .targets
            .iter()
            .flat_map(|target| target.cgroup.ids().into_keys())
            .collect();
        for (id, serving) in self.places.iter_mut().filter(|(_, serving)| serving.uncut) {
            let mut sock_diag = serving
                .sock_diag
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            serving.uncut = false;
            match sock_diag.destroy_imds_connections(|cgroup| targets.contains(&cgroup)) {
                Ok(Cut { destroyed, waiting }) => {
                    serving.uncut = waiting > 0;
                    if destroyed > 0 {
                        info!("cut {destroyed} connections to IMDS that were open before");
                    }
                }
                Err(error) => warn!("in network namespace {}: {error}", id.inode()),
            }
        }
    }

    fn has_users(&self, cgroup: &Cgroup) -> bool {
        self.places
            .values()
            .any(|serving| serving.users.contains(cgroup.path()))
    }

    /// Says who got past us, once for each namespace and family, and sees to it that the next
    /// one does not.
    fn catch_up(&mut self, record: &ConnectRecord) {
        let cookie = record.netns_cookie;
        let place = self
            .places
            .values()
            .find(|serving| serving.cookie == cookie);
        let v6 = i32::from(record.family) == libc::AF_INET6;
        let why = match (record.verdict(), place) {
            (Some(Verdict::Bound), _) => {
                "its socket is bound to a device, which only CAP_NET_RAW may change"
            }
            (_, Some(serving)) if v6 && serving.ports.v6_be == 0 => {
                "its network namespace had no ::1"
            }
            _ => "its network namespace had no listener yet",
        };
        if self.missed.len() >= MOST_REMEMBERED {
            self.missed.clear();
        }
        let first = self.missed.insert((cookie, record.family));
        let level = if first { Level::Warn } else { Level::Debug };
        let caller = self.journal.caller(record);
        log!(
            level,
            "missed: {caller} went past to the real IMDS: {why} (cookie {cookie})"
        );

        if record.verdict() == Some(Verdict::Missed)
            && let Err(error) = self.listen_for(record)
        {
            warn!("{error:#}");
        }
    }

    /// Opens the listener that a missed connection would have needed, and has the connection
    /// cut when it is idle. Its thread is looked at, because a thread can be in another namespace
    /// than its process.
    fn listen_for(&mut self, record: &ConnectRecord) -> Result<()> {
        let cookie = record.netns_cookie;
        if let Some(serving) = self
            .places
            .values_mut()
            .find(|serving| serving.cookie == cookie)
        {
            serving.uncut = true;
            if serving.ports.v6_be == 0
                && let Some(v6) = open_loopback6(&serving.place.namespace)?
            {
                serving.ports.v6_be = serving.serve_on(v6, &self.responder)?;
                self.programs.listen(cookie, serving.ports)?;
            }
            return Ok(());
        }
        let found = self.targets.iter().find_map(|Target { cgroup, .. }| {
            let namespace = cgroup.namespace_of(record.tid).ok()??;
            Some((cgroup.path().to_owned(), namespace))
        });
        let Some((user, namespace)) = found else {
            return Ok(());
        };
        let id = namespace.id();
        if self.places.contains_key(&id) || self.closed.contains(&id) {
            return Ok(());
        }
        self.listen(namespace, false)?;
        if let Some(serving) = self.places.get_mut(&id) {
            serving.users.insert(user);
        }
        Ok(())
    }
}

impl Serving {
    /// Serves on a socket, and returns its port in network byte order.
    fn serve_on(&mut self, socket: TcpSocket, responder: &Arc<Responder>) -> io::Result<u16> {
        let listener = socket.listen(BACKLOG)?;
        let port = listener.local_addr()?.port();
        let mut stopped = self.stop.subscribe();
        let end = async move { while stopped.changed().await.is_ok() {} };
        let (place, responder) = (Arc::clone(&self.place), Arc::clone(responder));
        self.listeners.spawn(serve(listener, place, responder, end));
        Ok(port.to_be())
    }

    /// Lets the last requests be answered.
    async fn end(self) {
        let Self {
            stop, listeners, ..
        } = self;
        drop(stop);
        listeners.join_all().await;
    }
}

struct Armed<'a>(&'a Interception);

impl fmt::Display for Armed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Interception {
            names,
            places,
            responder,
            ..
        }) = self;
        let names = names.borrow();
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        write!(
            f,
            "armed: cgroup{} {} in {} network namespace{}; upstream {}; {}",
            plural(names.len()),
            names.join(", "),
            places.len(),
            plural(places.len()),
            responder.upstream(),
            responder.timeline(),
        )
    }
}
