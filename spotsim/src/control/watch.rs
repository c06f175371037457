//! What one who watches is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame};
use jiff::Timestamp;
use serde::Serialize;
use tokio::{
    sync::{
        broadcast::error::{RecvError, TryRecvError},
        mpsc, watch,
    },
    time::{Instant, sleep, sleep_until},
};

use super::{
    Change, Message,
    session::{Phase, Subject},
};
use crate::{
    journal::{Counts, Feed},
    target::Target,
    timeline::{self, Item, Timeline, Waves},
};

/// Lines are sent together up to so many bytes.
const TOGETHER: usize = 64 * 1024;

/// So often is it told how much has happened, while that changes.
const COUNTS_EACH: Duration = Duration::from_secs(1);

/// A timer reaches no further than this; a later change is waited for in pieces.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// The body of `GET /watch`. Its sender waits while nobody reads, and nobody else does.
pub struct Lines(mpsc::Receiver<Bytes>);

impl Lines {
    /// Everything that happens to `subject` from now on.
    pub fn of(subject: &Arc<Subject>) -> Self {
        let (lines, body) = mpsc::channel(1);
        tokio::spawn(report(Arc::clone(subject), lines));
        Self(body)
    }
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Self(lines) = self.get_mut();
        lines
            .poll_recv(cx)
            .map(|next| next.map(|lines| Ok(Frame::data(lines))))
    }
}

/// A value as JSON on a line.
pub fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = Vec::new();
    add_line(&mut line, value);
    line
}

fn add_line(lines: &mut Vec<u8>, value: &impl Serialize) {
    // It cannot fail: there are no maps but with names for keys, and memory takes what is
    // written.
    let _ = serde_json::to_writer(&mut *lines, value);
    lines.push(b'\n');
}

/// Tells of everything that happens until it has ended, or nobody reads it any more.
async fn report(subject: Arc<Subject>, to: mpsc::Sender<Bytes>) {
    let mut entries = subject.feed().watch();
    let mut changes = subject.responder().changes();
    let mut targets = subject.targets();
    let mut phase = subject.phase();
    let waves = changes.borrow_and_update().clone();
    let mut shown = Shown::new(&waves, there(targets.as_ref()), Timestamp::now());
    let mut counted = Counted::new(subject.feed());
    let mut lines = line(&Message::Status(Box::new(subject.status())));
    loop {
        if to.send(std::mem::take(&mut lines).into()).await.is_err() {
            return;
        }
        let mut over = None;
        let mut another = false;
        let mut happened = Vec::new();
        tokio::select! {
            () = to.closed() => return,
            Ok(()) = changes.changed() => another = true,
            () = shown.outdated() => {}
            () = counted.outdated(subject.feed()) => {}
            () = Subject::targets_changed(&mut targets) => another = true,
            entry = entries.recv() => match entry {
                Ok(entry) => add_line(&mut happened, &*entry),
                Err(RecvError::Lagged(count)) => add_line(&mut happened, &Message::Lost { count }),
                Err(RecvError::Closed) => {}
            },
            Ok(Phase::Ended(reason)) = ended(&mut phase) => over = Some(reason),
        }
        while happened.len() < TOGETHER {
            match entries.try_recv() {
                Ok(entry) => add_line(&mut happened, &*entry),
                Err(TryRecvError::Lagged(count)) => {
                    add_line(&mut happened, &Message::Lost { count });
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        // What is announced is told before the requests that saw it: looked at after them.
        if another || changes.has_changed().unwrap_or(false) {
            let waves = changes.borrow_and_update().clone();
            shown.replace(&waves, there(targets.as_ref()), Timestamp::now());
            add_line(&mut lines, &Message::Status(Box::new(subject.status())));
        }
        for (target, change) in shown.update(Timestamp::now()) {
            let name = target.and_then(|target| subject.name_of(target));
            // One that has just left is not to be taken for everybody.
            if target.is_none() || name.is_some() {
                let target = name;
                add_line(&mut lines, &Message::Announced { target, change });
            }
        }
        lines.append(&mut happened);
        if let Some(counts) = counted.update(subject.feed()) {
            add_line(&mut lines, &Message::Counts(counts));
        }
        if let Some(reason) = over {
            add_line(&mut lines, &Message::End { reason });
            let _ = to.send(lines.into()).await;
            return;
        }
    }
}

async fn ended(phase: &mut watch::Receiver<Phase>) -> Result<Phase, watch::error::RecvError> {
    let ended = phase.wait_for(|phase| matches!(phase, Phase::Ended(_)));
    ended.await.map(|phase| *phase)
}

/// The ids of the targets that there are.
fn there(targets: Option<&watch::Receiver<Vec<Target>>>) -> BTreeSet<u64> {
    let ids =
        |targets: &watch::Receiver<Vec<Target>>| targets.borrow().iter().map(Target::id).collect();
    targets.map(ids).unwrap_or_default()
}

/// What one who watches was told of what is announced.
struct Shown {
    /// The targets that there were.
    there: BTreeSet<u64>,
    clocks: BTreeMap<Option<u64>, Clock>,
    /// What another timeline changed, of which nothing was told yet.
    untold: Vec<(Option<u64>, Change)>,
}

/// What was told of one clock: everybody's, or a target's own.
#[derive(Clone)]
struct Clock {
    timeline: Arc<Timeline>,
    /// Up to here.
    told: Timestamp,
    /// What was visible then.
    items: Vec<Item>,
}

impl Shown {
    fn new(waves: &Waves, there: BTreeSet<u64>, now: Timestamp) -> Self {
        let clocks = clocks(waves, &there);
        Self {
            clocks: clocks
                .map(|(target, timeline)| (target, Clock::new(timeline, now)))
                .collect(),
            there,
            untold: Vec::new(),
        }
    }

    /// Somebody triggered or canceled, or targets came or went.
    fn replace(&mut self, waves: &Waves, there: BTreeSet<u64>, now: Timestamp) {
        let before = std::mem::take(&mut self.clocks);
        let shared = before.get(&None);
        let was_there = |target: &u64| self.there.contains(target);
        for (target, timeline) in clocks(waves, &there) {
            // Who was shown what all are shown goes on from there.
            let shared = shared.filter(|_| target.as_ref().is_none_or(was_there));
            let mut clock = match before.get(&target).or(shared) {
                Some(clock) => clock.clone(),
                // Who is new was shown nothing.
                None if target.is_some() => Clock::new(Arc::new(Timeline::nothing(now)), now),
                // All are shown the same again, which each was told below.
                None => Clock::new(Arc::clone(&timeline), now),
            };
            let changes = clock.replace(timeline);
            self.untold.extend(changes.map(|change| (target, change)));
            self.clocks.insert(target, clock);
        }
        if self.clocks.contains_key(&None) {
            let own = before
                .into_iter()
                .filter_map(|(target, clock)| Some((target?, clock)));
            for (target, mut clock) in own.filter(|(target, _)| there.contains(target)) {
                let changes = clock.replace(Arc::clone(waves.first()));
                let changes = changes.map(|change| (Some(target), change));
                self.untold.extend(changes);
            }
        }
        self.there = there;
    }

    /// What has changed since the last time, for whom: at each instant that it changed at,
    /// however late that is told.
    fn update(&mut self, now: Timestamp) -> Vec<(Option<u64>, Change)> {
        let Self { clocks, untold, .. } = self;
        for (target, clock) in clocks {
            while let Some(at) = clock.next().filter(|at| *at <= now) {
                untold.extend(clock.look(at).map(|change| (*target, change)));
            }
        }
        let mut changes = std::mem::take(untold);
        changes.sort_by_key(|(_, change)| change.at);
        changes
    }

    /// Waits until something has changed of which nothing was told, or for long.
    async fn outdated(&self) {
        let Self { clocks, .. } = self;
        let Some(next) = clocks.values().filter_map(Clock::next).min() else {
            return std::future::pending().await;
        };
        let wait = Duration::try_from(next.duration_since(Timestamp::now())).unwrap_or_default();
        // A timer counts whole milliseconds.
        sleep((wait + Duration::from_millis(1)).min(LONGEST_WAIT)).await;
    }
}

/// The clocks of those targets that there are, or everybody's.
fn clocks(
    waves: &Waves,
    there: &BTreeSet<u64>,
) -> impl Iterator<Item = (Option<u64>, Arc<Timeline>)> {
    let clocks = waves.clocks().into_iter();
    clocks.filter(|(target, _)| target.is_none_or(|target| there.contains(&target)))
}

impl Clock {
    fn new(timeline: Arc<Timeline>, now: Timestamp) -> Self {
        Self {
            items: timeline.visible(now),
            timeline,
            told: now,
        }
    }

    /// When it changes next.
    fn next(&self) -> Option<Timestamp> {
        let Self { timeline, told, .. } = self;
        timeline.next_change(*told)
    }

    fn replace(&mut self, timeline: Arc<Timeline>) -> impl Iterator<Item = Change> + use<> {
        self.timeline = timeline;
        // What was told cannot be taken back.
        self.look(self.told.max(self.timeline.armed_at()))
    }

    fn look(&mut self, at: Timestamp) -> impl Iterator<Item = Change> + use<> {
        let Self {
            timeline,
            told,
            items,
        } = self;
        let visible = timeline.visible(at);
        let steps = timeline::diff(items, &visible, at);
        (*told, *items) = (at, visible);
        steps.into_iter().map(Change::from)
    }
}

/// What one who watches was told of how much has happened. They cannot count themselves: of
/// what they lost they do not know what it was.
struct Counted {
    counts: Counts,
    told: Instant,
}

impl Counted {
    fn new(feed: &Feed) -> Self {
        Self {
            counts: feed.counts(),
            told: Instant::now(),
        }
    }

    /// What is to be told now.
    fn update(&mut self, feed: &Feed) -> Option<Counts> {
        let counts = feed.counts();
        if counts == self.counts || self.told.elapsed() < COUNTS_EACH {
            return None;
        }
        *self = Self::new(feed);
        Some(self.counts)
    }

    /// Waits until something is to be told. What changes the counts wakes whoever watches by
    /// itself, and this is asked again.
    async fn outdated(&self, feed: &Feed) {
        let Self { counts, told } = self;
        if feed.counts() == *counts {
            return std::future::pending().await;
        }
        sleep_until(*told + COUNTS_EACH).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::{
        control::{Id, Served, Verb},
        journal::{Caller, Connect, Family, Sent},
        responder::{Responder, Upstream},
        timeline::Plan,
    };

    fn subject() -> Arc<Subject> {
        let timeline = Timeline::nothing(Timestamp::now());
        Arc::new(Subject::new(
            Id::of_this_process(),
            Verb::Serve,
            Served::Listen("127.0.0.1:1".to_owned()),
            None,
            Arc::new(Responder::new(timeline, Upstream::Nothing)),
            Feed::default(),
            Arc::default(),
        ))
    }

    fn plan(plan: serde_json::Value) -> Plan {
        serde_json::from_value(plan).unwrap()
    }

    /// The changes that are told until nothing is for a while.
    async fn drain(Lines(mut lines): Lines) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Ok(Some(part)) = timeout(Duration::from_millis(500), lines.recv()).await {
            for line in part
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
            {
                if let Message::Announced { change, .. } = serde_json::from_slice(line).unwrap() {
                    changes.push(change);
                }
            }
        }
        changes
    }

    #[tokio::test]
    async fn who_does_not_read_across_a_change_is_told_of_it() {
        let subject = subject();
        let lines = Lines::of(&subject);
        // The first line is there, and the next has no room.
        sleep(Duration::from_millis(20)).await;
        let soon = plan(serde_json::json!({"lifecycle-states": [
            {"state": "Standby", "appears": "100ms"},
            {"state": "InService", "appears": "200ms"},
        ]}));
        let armed = subject.trigger(&soon, &[]).unwrap();
        sleep(Duration::from_millis(400)).await;
        let told = drain(lines).await;
        assert_eq!(told, armed.steps, "each in its time");
    }

    #[tokio::test]
    async fn however_many_lines_are_lost_the_counts_are_right() {
        let subject = subject();
        let Lines(mut lines) = Lines::of(&subject);
        sleep(Duration::from_millis(20)).await;
        // Nobody reads: more than what waits for a reader is lost.
        for _ in 0..5_000 {
            subject.feed().connected(Sent::Missed, || Connect {
                time: Timestamp::now(),
                caller: Caller {
                    pid: 1,
                    command: String::new(),
                    uid: 0,
                    cgroup: String::new(),
                    target: None,
                    netns: 1,
                    family: Family::Ipv4,
                    socket: 1,
                },
                verdict: Sent::Missed,
            });
        }
        let mut messages: Vec<Message> = Vec::new();
        while let Ok(Some(part)) = timeout(Duration::from_millis(1_500), lines.recv()).await {
            let lines = part.split(|byte| *byte == b'\n');
            let lines = lines.filter(|line| !line.is_empty());
            messages.extend(lines.map(|line| serde_json::from_slice::<Message>(line).unwrap()));
        }
        let lost = |message: &Message| matches!(message, Message::Lost { .. });
        assert!(messages.iter().any(lost));
        let counts = |message: &Message| match message {
            Message::Counts(counts) => Some(counts.missed_connects),
            _ => None,
        };
        let counts: Vec<_> = messages.iter().filter_map(counts).collect();
        assert_eq!(counts, [5_000], "once while nothing changes");
    }

    #[test]
    fn each_is_told_of_as_what_it_is() {
        let armed_at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let seconds = |seconds| armed_at + jiff::SignedDuration::from_secs(seconds);
        let state = |stagger: &str| {
            plan(
                serde_json::json!({"lifecycle-states": [{"state": "Standby"}], "stagger": stagger}),
            )
        };
        let both = BTreeSet::from([1, 2]);
        let mut waves = Waves::arm(&state("10s"), armed_at, [1]).unwrap();
        let mut shown = Shown::new(&waves, BTreeSet::from([1]), armed_at);
        let told = |changes: Vec<(Option<u64>, Change)>| -> Vec<_> {
            let told = changes.into_iter();
            told.map(|(target, change)| (target, change.at, change.value.is_some()))
                .collect()
        };
        // One that joins is told of when it is there, with what it sees itself.
        waves.join(2, seconds(1));
        shown.replace(&waves, BTreeSet::from([1]), seconds(1));
        assert_eq!(told(shown.update(seconds(1))), []);
        shown.replace(&waves, both.clone(), seconds(1));
        assert_eq!(
            told(shown.update(seconds(11))),
            [(Some(2), seconds(10), true)]
        );
        // What all are shown again was taken back from each that is there.
        waves.leave(1);
        let nothing = Waves::from(Timeline::nothing(seconds(20)));
        shown.replace(&nothing, BTreeSet::from([2]), seconds(20));
        assert_eq!(
            told(shown.update(seconds(21))),
            [(Some(2), seconds(20), false)]
        );
        let all = Waves::arm(&state("0s"), seconds(30), [2]).unwrap();
        shown.replace(&all, BTreeSet::from([2]), seconds(30));
        assert_eq!(told(shown.update(seconds(31))), [(None, seconds(30), true)]);
    }

    #[test]
    fn what_another_timeline_changes_is_told_at_its_arming() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let armed_at = time("2026-01-01T00:00:00Z");
        let states = |armed_at| {
            let states = serde_json::json!({"lifecycle-states": [
                {"state": "Standby"}, {"state": "InService", "appears": "2s"},
            ]});
            Waves::from(plan(states).arm(armed_at).unwrap())
        };
        let mut shown = Shown::new(&states(armed_at), BTreeSet::new(), armed_at);
        let told = |changes: Vec<(Option<u64>, Change)>| -> Vec<_> {
            changes
                .into_iter()
                .map(|(_, change)| (change.at, change.value))
                .collect()
        };
        assert_eq!(told(shown.update(time("2026-01-01T00:00:01Z"))), []);
        let value = |value: &str| Some(value.to_owned());
        let second = time("2026-01-01T00:00:02Z");
        assert_eq!(
            told(shown.update(time("2026-01-01T00:00:05Z"))),
            [(second, value("InService"))]
        );
        let again = time("2026-01-01T00:00:07Z");
        shown.replace(&states(again), BTreeSet::new(), again);
        let nothing = time("2026-01-01T00:00:08Z");
        assert_eq!(told(shown.update(nothing)), [(again, value("Standby"))]);
        shown.replace(&Timeline::nothing(nothing).into(), BTreeSet::new(), nothing);
        assert_eq!(
            told(shown.update(time("2026-01-01T00:01:00Z"))),
            [(nothing, None)]
        );
    }
}
