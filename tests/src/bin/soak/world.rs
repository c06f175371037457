//! What is tortured: a node with its IMDS, targets and outsiders on it, and a spotsim.

use std::{
    fs,
    io::{BufRead as _, BufReader, PipeReader, PipeWriter, pipe},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use ::tests::{Armed, Cgroup, Lab, NetNs, Place, Running, Upstream, Via, spotsim_binary};
use nix::sys::signal::Signal;

use crate::{
    client::{Kind, Outcome, QUIET, Record, now},
    judge::{Course, Life, Span, Standing},
    plan::Sickness,
};

/// So many targets there are.
pub const TARGETS: usize = 50;

/// Of these, the first are named to spotsim each by itself …
pub const NAMED: usize = 30;

/// … so many of them in the node's namespace, the others in one of their own …
const NAMED_ON_THE_NODE: usize = 20;

/// … and the rest is beneath one cgroup that is named: so many in the node's namespace, so many
/// in one of their own, and then islands.
const BENEATH: [usize; 2] = [10, 5];

/// Targets with a namespace of their own that has a way to the node.
const PODS: usize = NAMED - NAMED_ON_THE_NODE + BENEATH[1];

/// By which spotsim is asked.
pub const ID: &str = "soak";

// Dropped in this order: who runs, then where.
pub struct World {
    pub spotsim: Option<Running>,
    pub upstream: Option<Upstream>,
    pub members: Vec<Member>,
    outsiders: Vec<Client>,
    /// Everything that clients tell.
    records: Arc<Mutex<Vec<Record>>>,
    writer: PipeWriter,
    pods: Vec<NetNs>,
    /// When namespaces were left.
    left: Vec<u64>,
    /// Above the targets that are not named.
    parent: Cgroup,
    pub lab: Lab,
    pub course: Course,
}

/// A target.
pub struct Member {
    number: usize,
    /// How often it was made.
    generation: u32,
    client: Option<Client>,
    cgroup: Option<Cgroup>,
    /// Of an island.
    island: Option<NetNs>,
}

/// A process that polls.
struct Client {
    process: Child,
    name: String,
}

impl Drop for Client {
    fn drop(&mut self) {
        // An error means that it has ended and was waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where a target is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    Node,
    Pod(usize),
    /// A namespace of its own from which nothing leads anywhere.
    Island,
}

fn home(number: usize) -> Home {
    let beneath = number.checked_sub(NAMED);
    match beneath {
        None if number < NAMED_ON_THE_NODE => Home::Node,
        None => Home::Pod(number - NAMED_ON_THE_NODE),
        Some(beneath) if beneath < BENEATH[0] => Home::Node,
        Some(beneath) if beneath < BENEATH[0] + BENEATH[1] => {
            Home::Pod(NAMED - NAMED_ON_THE_NODE + beneath - BENEATH[0])
        }
        Some(_) => Home::Island,
    }
}

/// What is asked for there: where no IMDS is, there is nothing to be passed on.
fn kinds(home: Home) -> &'static [Kind] {
    match home {
        Home::Island => &[Kind::Faked],
        Home::Node | Home::Pod(_) => &Kind::ALL,
    }
}

impl World {
    /// A node with an upstream that is well, and nobody on it yet. `None`, with the reason
    /// printed, where this process may not make one.
    pub fn new() -> Option<Self> {
        let lab = Lab::new()?;
        let pods: Vec<_> = (0..PODS).map(|_| NetNs::new()).collect();
        lab.node.connect_pods(&pods);
        for net in pods.iter().chain([&lab.node]) {
            net.wait_until_settled();
        }
        let (reader, writer) = pipe().unwrap();
        let records = Arc::default();
        listen(reader, Arc::clone(&records));
        let mut world = Self {
            spotsim: None,
            upstream: None,
            members: Vec::new(),
            outsiders: Vec::new(),
            records,
            writer,
            pods,
            left: Vec::new(),
            parent: lab.root.child("parent"),
            lab,
            course: Course::default(),
        };
        world.upstream = Some(world.upstream_with(&[]));
        fs::write(world.log(), "").unwrap();
        Some(world)
    }

    fn upstream_with(&self, options: &[&str]) -> Upstream {
        // Nobody looks at the log, which would be large.
        let common = ["--log", "/dev/null", "--show-peer"];
        Upstream::start(&self.lab, &[&common, options].concat())
    }

    /// Makes the targets and the outsiders, who begin to poll.
    pub fn populate(&mut self) {
        for number in 0..TARGETS {
            self.members.push(Member {
                number,
                generation: 0,
                client: None,
                cgroup: None,
                island: None,
            });
            self.make(number);
        }
        let nets = [None, None, None, Some(0), Some(1), Some(PODS - 1)];
        for (number, pod) in nets.into_iter().enumerate() {
            let name = format!("outsider {number}");
            let net = pod.map_or(&self.lab.node, |pod: usize| &self.pods[pod]);
            let place = self.lab.place(net, &self.lab.beside);
            let via = Via::ALL[number % 3];
            self.course.clients.insert(name.clone(), Standing::Outsider);
            let client = self.start_client(&place, name, via, kinds(Home::Node));
            self.outsiders.push(client);
        }
    }

    /// Makes a target and what polls in it.
    pub fn make(&mut self, number: usize) {
        let name = format!("target{number}");
        let above = match number < NAMED {
            true => &self.lab.target,
            false => &self.parent,
        };
        let cgroup = above.child(&name);
        let made = now();
        let generation = self.members[number].generation + 1;
        let island = (home(number) == Home::Island).then(|| {
            let island = NetNs::new();
            // Whether it still exists shows on the node.
            let peer = island.path();
            self.lab.node.ip(&format!(
                "link add isle{number}g{generation} type veth peer name eth0 netns {}",
                peer.display()
            ));
            island
        });
        let net = match home(number) {
            Home::Node => &self.lab.node,
            Home::Pod(pod) => &self.pods[pod],
            Home::Island => island.as_ref().unwrap(),
        };
        let place = self.lab.place(net, &cgroup);
        let kinds = kinds(home(number));
        // A directory that is made anew under the same path is another target: one that is named
        // is not known until spotsim is started again. What is beneath one that is named belongs
        // to it, at once where spotsim listens already.
        let there = self.spotsim.is_some();
        let beneath = number >= NAMED;
        let standing = Standing::Target {
            made,
            possible: (there && beneath).then_some(made),
            covered: (there && beneath && home(number) == Home::Node).then_some(made),
            island: island.is_some(),
        };
        let client_name = format!("target {number}.{generation}");
        self.course.clients.insert(client_name.clone(), standing);
        let client = self.start_client(&place, client_name, Via::ALL[number % 3], kinds);
        let member = &mut self.members[number];
        member.generation = generation;
        member.client = Some(client);
        member.cgroup = Some(cgroup);
        member.island = island;
    }

    fn start_client(&self, place: &Place, name: String, via: Via, kinds: &[Kind]) -> Client {
        let mut command = place.command(std::env::current_exe().unwrap());
        command
            .args(["poll", &name, via.name()])
            .args(kinds.iter().map(|kind| kind.name()))
            .stdin(Stdio::null())
            .stdout(self.writer.try_clone().unwrap());
        let process = command.spawn().unwrap();
        Client { process, name }
    }

    /// Removes a target with all that runs in it.
    pub fn remove(&mut self, number: usize) {
        let member = &mut self.members[number];
        member.client = None;
        member.cgroup = None;
        member.island = None;
        if home(number) != Home::Node {
            self.left.push(now());
        }
    }

    /// How many network namespaces were left since then.
    pub fn left_since(&self, then: u64) -> usize {
        self.left.iter().filter(|left| **left > then).count()
    }

    fn is_named(number: usize) -> bool {
        number < NAMED
    }

    /// The cgroups that are there now.
    pub fn cgroups(&self) -> Vec<String> {
        let Self { lab, parent, .. } = self;
        let above = [&lab.root, &lab.target, &lab.beside, &lab.daemon, parent];
        let below = above.into_iter().flat_map(|above| {
            let names = above.children().into_iter();
            names.map(|name| above.path().join(name).display().to_string())
        });
        below.collect()
    }

    /// Every client that is there, and what it asks for.
    pub fn asking(&self) -> Vec<(String, Kind)> {
        let members = self.members.iter().filter_map(|member| {
            let client = member.client.as_ref()?;
            Some((client.name.clone(), kinds(home(member.number))))
        });
        let outsiders = self
            .outsiders
            .iter()
            .map(|client| (client.name.clone(), kinds(Home::Node)));
        let all = members.chain(outsiders);
        all.flat_map(|(name, kinds)| kinds.iter().map(move |kind| (name.clone(), *kind)))
            .collect()
    }

    /// Whether every target that spotsim can know has been seen to be covered.
    pub fn all_covered(&self) -> bool {
        self.members.iter().all(|member| {
            !matches!(
                self.standing(member),
                Some(Standing::Target {
                    possible: Some(_),
                    covered: None,
                    ..
                })
            )
        })
    }

    fn standing(&self, member: &Member) -> Option<&Standing> {
        let client = member.client.as_ref()?;
        self.course.clients.get(&client.name)
    }

    /// In how many network namespaces spotsim listens: the node's, and those of targets.
    pub fn namespaces(&self) -> usize {
        let covered = |member: &&Member| {
            let standing = self.standing(member);
            matches!(
                standing,
                Some(Standing::Target {
                    covered: Some(_),
                    ..
                })
            )
        };
        let away = self.members.iter().filter(|m| home(m.number) != Home::Node);
        1 + away.filter(covered).count()
    }

    /// To how many targets spotsim is attached: those that are named, and the one above the rest.
    pub fn attached(&self) -> usize {
        let known = |member: &&Member| {
            let standing = self.standing(member);
            matches!(
                standing,
                Some(Standing::Target {
                    possible: Some(_),
                    ..
                })
            )
        };
        let named = self.members.iter().filter(|m| Self::is_named(m.number));
        1 + named.filter(known).count()
    }

    /// Has nobody ask while this is done.
    pub fn quietly<T>(&self, work: impl FnOnce() -> T) -> T {
        let quiet = self.lab.directory.join(QUIET);
        fs::write(&quiet, "").unwrap();
        let result = work();
        fs::remove_file(&quiet).unwrap();
        result
    }

    /// Takes what clients told since the last time.
    pub fn take_records(&self) -> Vec<Record> {
        std::mem::take(&mut *self.records.lock().unwrap())
    }

    /// Notes of a target that it is covered once its client says so.
    pub fn note_covered(&mut self, records: &[Record]) {
        for record in records {
            let seen = matches!(&record.outcome, Outcome::Answered { status: 200, .. });
            let covered = seen && record.kind == Kind::Faked;
            if let Some(Standing::Target {
                covered: since @ None,
                ..
            }) = self.course.clients.get_mut(&record.client)
                && covered
            {
                *since = Some(record.ended);
            }
        }
    }

    /// Starts spotsim for all targets, with at most so many descriptors, and waits until it is
    /// armed.
    pub fn start_spotsim(&mut self, descriptors: Option<u64>) {
        assert!(self.spotsim.is_none(), "there is one");
        let mut command = self.spotsim_command(descriptors);
        let started = now();
        self.course.lives.push(Life {
            started,
            ..Life::default()
        });
        // It may see any that is there by now.
        for standing in self.course.clients.values_mut() {
            if let Standing::Target { possible, .. } = standing {
                possible.get_or_insert(started);
            }
        }
        command.args(["--lead", "1h"]);
        let mut process = Running::start(command);
        let line = process.stdout_line("armed: ", 0);
        self.spotsim = Some(process);
        let armed = now();
        for member in &self.members {
            let Some(client) = &member.client else {
                continue;
            };
            if let Some(Standing::Target { covered, .. }) =
                self.course.clients.get_mut(&client.name)
            {
                covered.get_or_insert(armed);
            }
        }
        let life = self.course.lives.last_mut().unwrap();
        life.armed = Some(armed);
        let document = Armed::parse(&line).instance_action();
        life.shown.push((Span::since(armed), document));
    }

    fn spotsim_command(&self, descriptors: Option<u64>) -> Command {
        let limit = descriptors.map(|most| format!("ulimit -Sn {most} && ulimit -Hn {most} && "));
        let limit = limit.unwrap_or_default();
        let log = self.log();
        let script = format!(r#"{limit}exec "$0" "$@" 2>{}"#, log.display());
        let mut command = self.lab.daemon_place().command_line(["sh", "-c", &script]);
        command
            .env("TMPDIR", &self.lab.directory)
            .arg(spotsim_binary())
            .args(["attach", "--id", ID, "--upstream", "real", "--run-dir"])
            .arg(self.lab.run_dir());
        let named = self.members.iter().filter(|m| Self::is_named(m.number));
        let cgroups = named.filter_map(|member| member.cgroup.as_ref());
        for cgroup in cgroups.chain([&self.parent]) {
            command.arg("--cgroup").arg(cgroup.path());
        }
        command
    }

    pub fn spotsim_pid(&self) -> u32 {
        self.spotsim.as_ref().expect("a spotsim").pid()
    }

    fn log(&self) -> PathBuf {
        self.lab.directory.join("spotsim.log")
    }

    /// What the latest spotsim said besides requests, the last of it.
    pub fn complaints(&self) -> Vec<String> {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines = log.lines().filter(|line| !line.contains(" of user "));
        let mut last: Vec<_> = lines.rev().take(8).map(str::to_owned).collect();
        last.reverse();
        last
    }

    pub fn life(&mut self) -> &mut Life {
        self.course.lives.last_mut().expect("a spotsim")
    }

    /// From now on it is not certain what is shown.
    pub fn unsure(&mut self) {
        let now = now();
        if let Some((shown, _)) = self.life().shown.last_mut() {
            shown.to.get_or_insert(now);
        }
    }

    /// From now on it is this.
    pub fn sure(&mut self, document: String) {
        let shown = Span::since(now());
        self.life().shown.push((shown, document));
    }

    /// Kills spotsim.
    pub fn kill_spotsim(&mut self) {
        self.unsure();
        let killed = now();
        self.life().killed = Some(killed);
        if let Some(mut spotsim) = self.spotsim.take() {
            spotsim.kill();
        }
        self.life().gone = Some(now());
    }

    /// Notes that spotsim has died since it was last seen; whether it has.
    pub fn note_death(&mut self, last_seen: u64) -> bool {
        let Some(spotsim) = &mut self.spotsim else {
            return true;
        };
        if !spotsim.has_ended() {
            return false;
        }
        let gone = now();
        let life = self.course.lives.last_mut().unwrap();
        if let Some((shown, _)) = life.shown.last_mut() {
            shown.to = Some(shown.to.unwrap_or(last_seen).min(last_seen));
        }
        life.killed = Some(last_seen);
        life.gone = Some(gone);
        self.spotsim = None;
        true
    }

    /// Waits for the end of one that is dying since then.
    pub fn await_death(&mut self, since: u64) -> bool {
        if let Some(spotsim) = &mut self.spotsim {
            // It makes no difference any more.
            spotsim.kill();
        }
        self.note_death(since)
    }

    /// Ends spotsim as it is meant to be ended. What it said if it did not do so well.
    pub fn stop_spotsim(&mut self) -> Result<(), String> {
        self.unsure();
        let spotsim = self.spotsim.take().expect("a spotsim");
        spotsim.signal(Signal::SIGTERM);
        let finished = spotsim.finish();
        self.life().gone = Some(now());
        match finished.code {
            0 => Ok(()),
            code => Err(format!("spotsim ended with {code}: {}", finished.stderr)),
        }
    }

    /// Makes the upstream sick.
    pub fn sicken(&mut self, sickness: Sickness) {
        self.course.sick.push(Span::since(now()));
        self.upstream = None;
        let options: &[&str] = match sickness {
            Sickness::Stopped => return,
            Sickness::Hangs => &["--hang"],
            Sickness::Slow => &["--delay-ms", "400"],
            Sickness::Resets => &["--reset"],
            Sickness::Garbage => &["--garbage"],
            Sickness::Http10 => &["--http10"],
        };
        self.upstream = Some(self.upstream_with(options));
        // Neither is a reason to fail.
        if matches!(sickness, Sickness::Slow | Sickness::Http10) {
            self.recovered();
        }
    }

    /// Makes the upstream well again.
    pub fn heal(&mut self) {
        let sick = self
            .course
            .sick
            .last()
            .is_some_and(|sick| sick.to.is_none());
        if !sick {
            self.course.sick.push(Span::since(now()));
        }
        self.upstream = None;
        self.upstream = Some(self.upstream_with(&[]));
        self.recovered();
    }

    fn recovered(&mut self) {
        let sick = self.course.sick.last_mut().expect("it was sick");
        sick.to = Some(now());
    }

    /// Ends all clients and removes all targets.
    pub fn depopulate(&mut self) {
        self.outsiders.clear();
        self.members.clear();
    }

    /// The namespaces of the node and of those who have a way to it.
    pub fn nets(&self) -> impl Iterator<Item = &NetNs> {
        [&self.lab.node].into_iter().chain(&self.pods)
    }

    /// The control socket of spotsim.
    pub fn socket(&self) -> PathBuf {
        self.lab.run_dir().join(format!("{ID}.sock"))
    }

    /// A place in the first target.
    pub fn hostile_place(&self, number: usize) -> Place {
        let cgroup = self.members[number].cgroup.as_ref().expect("a target");
        self.lab.place(&self.lab.node, cgroup)
    }
}

/// Collects what comes through the pipe, until its other ends are closed.
fn listen(reader: PipeReader, records: Arc<Mutex<Vec<Record>>>) {
    thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            let record = line.parse().unwrap_or_else(|error| panic!("{error}"));
            records.lock().unwrap().push(record);
        }
    });
}
