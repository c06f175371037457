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
    responder::{BACKLOG, Place, Responder, serve},
    sock_diag::{Cut, QUIET, SockDiag, TICKS},
    target::{Follower, Target, VACANT, Watch},
};

mod sockets;

/// After a change beneath a target, its processes are looked at again after the shorter time,
/// then at growing intervals up to the longer one, which is also how often without a change.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// After a look, so many times as long as it took without another.
const LOOKS_ARE_RARE: u32 = 9;

/// For so long a connection to IMDS is cut only where nothing comes any more: one that is asked on
/// again and again would never be.
const MOST_PATIENT: Duration = Duration::from_secs(5);

/// Reported misses that are remembered, so that none is reported each time.
const MOST_REMEMBERED: usize = 4_096;

/// What is to be intercepted, and how.
pub struct Config {
    /// At least one, unless some may come later.
    pub targets: Vec<Target>,
    /// Whether to go on if some of them cannot be attached to, but not all.
    pub some_suffice: bool,
    /// Tells which targets there are later.
    pub follower: Option<Follower>,
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
    attached: Vec<Attached>,
    /// Those that are attached, or are to be as soon as that is possible.
    wanted: Vec<Target>,
    follower: Option<Follower>,
    /// Those that are attached.
    targets: watch::Sender<Vec<Target>>,
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
    /// Targets that could not be attached to, which has been reported.
    refused: HashSet<u64>,
}

struct Attached {
    _links: Links,
    target: Target,
}

/// The listeners in one namespace.
struct Serving {
    cookie: u64,
    place: Arc<Place>,
    ports: Ports,
    sock_diag: Arc<Mutex<SockDiag>>,
    /// Since when connections to the real IMDS may be open that are to be cut.
    uncut: Option<Instant>,
    /// Whether it stays when no process of a target is in it.
    kept: bool,
    /// The targets, by their ids, that had processes in it when it was last looked at.
    users: HashSet<u64>,
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

/// Waits for news of who the targets are.
async fn other_targets(follower: &mut Option<Follower>) -> Vec<Target> {
    match follower {
        Some(follower) => follower.changed().await,
        None => std::future::pending().await,
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
            targets,
            some_suffice,
            follower,
            namespace,
            responder,
            feed,
            kernel_log,
        } = config;
        let mut programs = Programs::load(kernel_log).context(Unloadable)?;
        let journal = Journal::new(programs.take_connects()?, feed)
            .context("cannot read the kernel half's reports")?;
        let mut interception = Self {
            attached: Vec::new(),
            wanted: Vec::new(),
            follower,
            targets: watch::Sender::default(),
            programs,
            places: HashMap::new(),
            responder,
            journal: Arc::new(journal),
            watch: Watch::new().context("cannot watch cgroups")?,
            own: Namespace::current().context("cannot open spotsim's network namespace")?,
            missed: HashSet::new(),
            closed: HashSet::new(),
            refused: HashSet::new(),
        };
        interception.want(targets);
        let expected = namespace.is_some();
        if let Some(namespace) = namespace {
            interception.listen(vec![namespace], true)?;
        }
        if let Err(error) = interception.welcome(expected) {
            if !some_suffice || interception.attached.is_empty() {
                return Err(error);
            }
            warn!("{error:#}");
        }
        interception.cut_old_connections();
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
            let Self {
                journal,
                watch,
                follower,
                ..
            } = self;
            tokio::select! {
                reason = &mut until => return Ok(Ended::Asked(reason)),
                targets = other_targets(follower) => {
                    self.want(targets);
                    (pause, next) = (soon, Instant::now());
                    continue;
                }
                missed = journal.missed() => {
                    for record in missed.context("cannot read the kernel half's reports")? {
                        self.catch_up(&record);
                    }
                    // A new target, which is not waited with, may be due before.
                    (pause, next) = (soon, next.min(earliest));
                    continue;
                }
                changed = watch.changed() => {
                    changed.context("cannot watch cgroups")?;
                    (pause, next) = (soon, next.min(earliest));
                    continue;
                }
                () = sleep_until(next.into()) => {}
            }
            let began = Instant::now();
            self.follow();
            if self.wanted.is_empty() && self.follower.is_none() {
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
            attached, places, ..
        } = self;
        drop(attached);
        let mut ending = JoinSet::new();
        for (_, serving) in places {
            ending.spawn(serving.end());
        }
        ending.join_all().await;
    }

    /// Detaches, and serves on whoever is connected already.
    pub fn release(&mut self) {
        self.attached.clear();
    }

    /// The targets that are attached.
    pub fn targets(&self) -> watch::Receiver<Vec<Target>> {
        self.targets.subscribe()
    }

    /// What is armed, in a line.
    pub fn armed(&self) -> impl fmt::Display {
        Armed(self)
    }

    /// From now on these are the targets: whatever else is attached is released.
    fn want(&mut self, targets: Vec<Target>) {
        let mut seen = HashSet::new();
        let before = std::mem::replace(&mut self.wanted, targets);
        self.wanted.retain(|target| seen.insert(target.id()));
        for gone in before.iter().filter(|target| !seen.contains(&target.id())) {
            info!("{gone} has ended, and is released");
        }
        self.settle(&before);
    }

    /// Lets go of those that are not wanted any more, of those that were `before`.
    fn settle(&mut self, before: &[Target]) {
        let Self {
            attached,
            wanted,
            refused,
            responder,
            ..
        } = self;
        let ids: HashSet<_> = wanted.iter().map(Target::id).collect();
        attached.retain(|Attached { target, .. }| ids.contains(&target.id()));
        refused.retain(|id| ids.contains(id));
        for gone in before.iter().filter(|target| !ids.contains(&target.id())) {
            responder.leave(gone.id());
        }
        // Before they are attached: a first request is to see what is announced to its target.
        for target in wanted {
            responder.join(target.id());
        }
        self.tell_targets();
    }

    /// Tells everybody who the targets are.
    fn tell_targets(&self) {
        let Self {
            attached,
            wanted,
            refused,
            targets,
            journal,
            ..
        } = self;
        let now: Vec<_> = attached
            .iter()
            .map(|Attached { target, .. }| target.clone())
            .collect();
        targets.send_if_modified(|targets| {
            let changed = *targets != now;
            *targets = now;
            changed
        });
        let there = wanted
            .iter()
            .filter(|target| !refused.contains(&target.id()));
        journal.know(there.cloned().collect());
    }

    /// Those that are wanted and not attached yet, in their order.
    fn unattached(&self) -> Vec<Target> {
        let attached = self.attached.iter().map(|attached| attached.target.id());
        let attached: HashSet<_> = attached.collect();
        let new = |target: &&Target| !attached.contains(&target.id());
        self.wanted.iter().filter(new).cloned().collect()
    }

    /// Listens where those are that are not attached yet, then attaches to them: listen first,
    /// attach last, then no connection is ever refused. They do not wait until everybody has
    /// been looked at.
    fn welcome(&mut self, expected: bool) -> Result<()> {
        let new = self.unattached();
        if new.is_empty() {
            return Ok(());
        }
        let mut known: HashSet<_> = self.places.keys().copied().collect();
        let mut namespaces = Vec::new();
        let mut users = Vec::new();
        for target in &new {
            let directories = target.cgroup.directories();
            let (seen, unknown) = target.cgroup.namespaces(&directories, &known);
            known.extend(unknown.iter().map(Namespace::id));
            namespaces.extend(unknown);
            users.push((target.id(), seen));
        }
        let listening = self.listen(namespaces, false);
        let mut is_empty = false;
        for (target, seen) in users {
            is_empty |= seen.is_empty();
            for id in seen {
                if let Some(serving) = self.places.get_mut(&id) {
                    // Of a namespace that others are in, only theirs were cut.
                    serving.uncut = Some(Instant::now());
                    serving.users.insert(target);
                    serving.vacant_since = None;
                }
            }
        }
        let expecting = match is_empty && !expected {
            true => self.keep_own_namespace(),
            false => Ok(()),
        };
        let attaching = self.attach(new);
        let results = [listening, expecting, attaching].into_iter();
        let mut errors = results.filter_map(Result::err);
        let first = errors.next();
        for error in errors {
            warn!("{error:#}");
        }
        first.map_or(Ok(()), Err)
    }

    /// Attaches to these.
    fn attach(&mut self, new: Vec<Target>) -> Result<()> {
        let mut result = Ok(());
        for target in new {
            let id = target.id();
            match self.attach_to(&target) {
                Ok(attached) => {
                    self.refused.remove(&id);
                    self.attached.push(attached);
                }
                // One that is gone will be noticed.
                Err(_) if !target.cgroup.exists() => {}
                // It is tried each time, and reported once, one each time.
                Err(error) if result.is_ok() && self.refused.insert(id) => result = Err(error),
                Err(_) => {}
            }
        }
        self.tell_targets();
        result
    }

    fn attach_to(&mut self, target: &Target) -> Result<Attached> {
        let directory = target
            .cgroup
            .open()
            .with_context(|| format!("cannot open the cgroup of {target}"))?;
        let links = self
            .programs
            .attach(&directory)
            .with_context(|| format!("cannot attach to {target}"))?;
        if let Some(follower) = &self.follower {
            follower.attached(target);
        }
        Ok(Attached {
            _links: links,
            target: target.clone(),
        })
    }

    /// Brings targets, namespaces and listeners up to date with what is there.
    fn follow(&mut self) {
        if !self.wanted.iter().all(|target| target.cgroup.exists()) {
            let before = self.wanted.clone();
            self.wanted.retain(|target| target.cgroup.exists());
            let is_gone = |target: &&Target| !self.wanted.contains(target);
            for gone in before.iter().filter(is_gone) {
                info!("{gone} is gone");
            }
            self.settle(&before);
        }
        for result in [self.welcome(false), self.look()] {
            if let Err(error) = result {
                warn!("{error:#}");
            }
        }
        self.leave_vacant();
        self.cut_old_connections();
        for Serving { place, .. } in self.places.values() {
            place.rest();
        }
    }

    /// Listens in spotsim's own namespace to the end: a process that starts in a target that is
    /// empty is most likely in that one.
    fn keep_own_namespace(&mut self) -> Result<()> {
        if self.places.contains_key(&self.own.id()) {
            return Ok(());
        }
        let own = self
            .own
            .try_clone()
            .context("cannot open spotsim's network namespace")?;
        self.listen(vec![own], true)
    }

    /// Listens in the namespaces of the targets' processes where we do not yet.
    fn look(&mut self) -> Result<()> {
        let mut users: HashMap<netns::Id, HashSet<u64>> = HashMap::new();
        let mut known: HashSet<_> = self.places.keys().copied().collect();
        let mut new = Vec::new();
        let beneath = self.wanted.iter().map(|target| target.cgroup.directories());
        let beneath: Vec<_> = beneath.collect();
        // Before they are looked at: what changes meanwhile is told.
        self.watch.watch(beneath.iter().flatten());
        for (Target { cgroup, .. }, directories) in self.wanted.iter().zip(&beneath) {
            let (seen, unknown) = cgroup.namespaces(directories, &known);
            for id in seen {
                users.entry(id).or_default().insert(cgroup.id());
            }
            known.extend(unknown.iter().map(Namespace::id));
            new.extend(unknown);
        }
        let result = self.listen(new, false);
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
    fn leave_vacant(&mut self) {
        let wanted: HashSet<_> = self.wanted.iter().map(Target::id).collect();
        let vacant: Vec<_> = self
            .places
            .iter()
            .filter(|(_, serving)| {
                let since = serving.vacant_since.map(|since| since.elapsed());
                let over = since.is_some_and(|elapsed| elapsed >= VACANT);
                let orphaned = since.is_some() && serving.users.is_disjoint(&wanted);
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

    /// Opens listeners in these namespaces. What fails is tried each time, and reported once, one
    /// each time.
    fn listen(&mut self, namespaces: Vec<Namespace>, kept: bool) -> Result<()> {
        if namespaces.is_empty() {
            return Ok(());
        }
        let mut result = Ok(());
        let opened = Sockets::open(&namespaces).context("cannot enter network namespaces")?;
        for (namespace, sockets) in namespaces.into_iter().zip(opened) {
            let id = namespace.id();
            let listening = sockets
                .map_err(anyhow::Error::from)
                .and_then(|sockets| self.serve_in(namespace, sockets, kept))
                .with_context(|| {
                    format!("cannot listen on lo in network namespace {}", id.inode())
                });
            match listening {
                Ok(()) => _ = self.closed.remove(&id),
                Err(error) if result.is_ok() && self.closed.insert(id) => result = Err(error),
                Err(_) => {}
            }
        }
        result
    }

    /// Serves in a namespace, and tells the kernel half so.
    fn serve_in(&mut self, namespace: Namespace, sockets: Sockets, kept: bool) -> Result<()> {
        let id = namespace.id();
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
            place: Arc::new(Place::new(namespace, Box::new(witness))),
            ports: Ports { v4_be: 0, v6_be: 0 },
            sock_diag,
            uncut: Some(Instant::now()),
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
        if self.attached.is_empty() || !self.places.values().any(|serving| serving.uncut.is_some())
        {
            return;
        }
        let targets: HashSet<u64> = self
            .attached
            .iter()
            .flat_map(|attached| attached.target.cgroup.ids().into_keys())
            .collect();
        for (id, serving) in &mut self.places {
            let Some(since) = serving.uncut.take() else {
                continue;
            };
            let quiet = match since.elapsed() < MOST_PATIENT {
                true => QUIET,
                false => TICKS,
            };
            let mut sock_diag = serving
                .sock_diag
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match sock_diag.destroy_imds_connections(|cgroup| targets.contains(&cgroup), quiet) {
                Ok(Cut { destroyed, waiting }) => {
                    serving.uncut = (waiting > 0).then_some(since);
                    if destroyed > 0 {
                        info!("cut {destroyed} connections to IMDS that were open before");
                    }
                }
                Err(error) => warn!("in network namespace {}: {error}", id.inode()),
            }
        }
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
            serving.uncut = Some(Instant::now());
            if serving.ports.v6_be == 0
                && let Some(v6) = open_loopback6(&serving.place.namespace)?
            {
                serving.ports.v6_be = serving.serve_on(v6, &self.responder)?;
                self.programs.listen(cookie, serving.ports)?;
            }
            return Ok(());
        }
        let found = self.attached.iter().find_map(|Attached { target, .. }| {
            let namespace = target.cgroup.namespace_of(record.tid).ok()??;
            Some((target.id(), namespace))
        });
        let Some((user, namespace)) = found else {
            return Ok(());
        };
        let id = namespace.id();
        if self.places.contains_key(&id) || self.closed.contains(&id) {
            return Ok(());
        }
        self.listen(vec![namespace], false)?;
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
            targets,
            places,
            responder,
            ..
        }) = self;
        let targets = targets.borrow();
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let waves = responder.waves();
        write!(
            f,
            "armed: {} in {} network namespace{}; upstream {}; {}{}",
            Listed(&targets),
            places.len(),
            plural(places.len()),
            responder.upstream(),
            if waves.differ() { "to the first: " } else { "" },
            waves.first(),
        )
    }
}

/// Targets in a line, of many the first.
struct Listed<'a>(&'a [Target]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 8;
        let Self(targets) = self;
        if targets.is_empty() {
            return f.write_str("no target yet,");
        }
        let mut before = None;
        for target in targets.iter().take(MOST) {
            let name = target.to_string();
            // `cgroup /a, /b`: the kind is said once.
            let (kind, rest) = name.split_once(' ').unwrap_or(("", &name));
            match &before {
                None => write!(f, "{name}")?,
                Some(before) if *before == kind => write!(f, ", {rest}")?,
                Some(_) => write!(f, ", {name}")?,
            }
            before = Some(kind.to_owned());
        }
        match targets.len().saturating_sub(MOST) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
