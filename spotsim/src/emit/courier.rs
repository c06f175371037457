//! Who carries the events to the sinks.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use log::{info, warn};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    aws::Aws,
    exec,
    file::Lines,
    http::Http,
    sink::{Form, Sink},
    webhook::Webhook,
};
use crate::event::Event;

/// So many events may wait for one sink.
const MOST_WAITING: usize = 1_024;

/// How long one attempt may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// How long a command may take: it may drain something.
const EXEC_WITHIN: Duration = Duration::from_secs(60);

/// The pause after the first failure; each is twice the one before it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How it is with one sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// As it was given, but for what may be secret.
    pub sink: String,
    pub delivered: u64,
    pub failed: u64,
    /// Those that wait for their turn, or for another attempt.
    pub pending: u64,
    /// Why the last attempt that failed did, as long as none succeeded since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Delivers events to all sinks. Whoever sends never waits. To drop it gives up what waits.
pub struct Courier {
    queues: Vec<Arc<Queue>>,
    /// One for each sink.
    tasks: Mutex<JoinSet<()>>,
}

/// A sink that is ready.
enum Open {
    Lines(Lines),
    Exec(String),
    // It is far larger than the others.
    Webhook(Box<Webhook>),
    Aws(Aws),
}

/// What one sink has to do, and has done.
struct Queue {
    /// The sink's name.
    name: String,
    state: Mutex<State>,
    /// Something has come, or nothing will.
    news: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Letter>,
    /// The first of those that wait is being delivered.
    under_way: bool,
    /// Nothing comes any more.
    closed: bool,
    delivered: u64,
    failed: u64,
    error: Option<String>,
}

/// An event, which is of no use after `until`.
#[derive(Clone)]
struct Letter {
    event: Arc<Event>,
    until: Timestamp,
}

impl Courier {
    /// Opens what can be opened now, so that what cannot work is an error before anything is
    /// attached.
    pub async fn start(sinks: &[Sink], form: &Form) -> Result<Self> {
        let tls = sinks.iter().any(Sink::needs_tls);
        let mut http = None;
        let mut ready = Vec::new();
        for sink in sinks {
            let open = Open::new(sink, form, || shared(&mut http, tls)).await;
            ready.push(open.with_context(|| format!("cannot emit to {sink}"))?);
        }
        let mut tasks = JoinSet::new();
        let queues = sinks.iter().zip(ready).map(|(sink, open)| {
            let queue = Arc::new(Queue {
                name: sink.to_string(),
                state: Mutex::default(),
                news: Notify::new(),
            });
            tasks.spawn(work(open, Arc::clone(&queue)));
            queue
        });
        Ok(Self {
            queues: queues.collect(),
            tasks: Mutex::new(tasks),
        })
    }

    /// Takes an event, which is of no use any more after `until`: no attempt is made then.
    pub fn send(&self, event: Arc<Event>, until: Timestamp) {
        let Self { queues, .. } = self;
        for queue in queues {
            let event = Arc::clone(&event);
            queue.push(Letter { event, until });
        }
    }

    /// In the order in which the sinks were given.
    pub fn deliveries(&self) -> Vec<Delivery> {
        let Self { queues, .. } = self;
        queues.iter().map(|queue| queue.delivery()).collect()
    }

    /// Delivers what was taken, for so long. The rest has failed then.
    pub async fn finish(&self, within: Duration) {
        let Self { queues, tasks } = self;
        for queue in queues {
            queue.close();
        }
        let waiting: u64 = self.deliveries().iter().map(|sink| sink.pending).sum();
        if waiting > 0 {
            info!("for up to {within:?}, {waiting} events are still delivered");
        }
        let mut tasks = std::mem::take(&mut *tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(within, all).await.is_err() {
            tasks.shutdown().await;
        }
        for queue in queues {
            queue.give_up();
        }
    }
}

/// The one HTTP client there is, if there is any.
fn shared(http: &mut Option<Http>, tls: bool) -> Result<Http> {
    let made = match http.take() {
        Some(http) => http,
        None => Http::new(tls)?,
    };
    Ok(http.insert(made).clone())
}

impl Open {
    async fn new(sink: &Sink, form: &Form, http: impl FnOnce() -> Result<Http>) -> Result<Self> {
        let Form { template, source } = form;
        Ok(match sink {
            Sink::Stdout => Self::Lines(Lines::stdout()?),
            Sink::File(path) => Self::Lines(Lines::open(path)?),
            Sink::Exec(command) => Self::Exec(command.clone()),
            Sink::Webhook(url) => {
                let webhook = Webhook::new(http()?, url, template.clone())?;
                Self::Webhook(Box::new(webhook))
            }
            Sink::Sqs(_) | Sink::EventBridge(_) | Sink::Lambda(_) => {
                let source = source.clone().unwrap_or_default();
                Self::Aws(Aws::open(http()?, sink, source).await?)
            }
        })
    }

    async fn deliver(&mut self, event: &Event) -> Result<()> {
        match self {
            Self::Lines(lines) => lines.write(event),
            Self::Exec(command) => exec::run(command, event).await,
            Self::Webhook(webhook) => webhook.post(event).await,
            Self::Aws(aws) => aws.send(event).await,
        }
    }

    fn limit(&self) -> Duration {
        match self {
            Self::Exec(_) => EXEC_WITHIN,
            _ => ANSWERED_WITHIN,
        }
    }
}

/// Delivers one after the other.
async fn work(mut open: Open, queue: Arc<Queue>) {
    while let Some(letter) = queue.next().await {
        let delivered = carry(&mut open, &queue, &letter).await;
        queue.done(&letter.event, delivered);
    }
}

/// Tries until it is delivered, or of no use.
async fn carry(open: &mut Open, queue: &Queue, letter: &Letter) -> bool {
    let Letter { event, until } = letter;
    let mut pause = FIRST_PAUSE;
    if left(*until).is_none() {
        queue.failed("its turn came when it was of no use any more");
    }
    while let Some(left) = left(*until) {
        let limit = open.limit().min(left);
        match timeout(limit, open.deliver(event)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => queue.failed(&one_line(&error)),
            Err(_) => queue.failed(&format!("no end within {limit:.1?}")),
        }
        // Many that failed together do not come again together.
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0).min(left)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    false
}

/// How long it is until then, if it is not over.
fn left(until: Timestamp) -> Option<Duration> {
    let left = until.duration_since(Timestamp::now());
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

/// An error and its causes, without what would be another line of a log.
fn one_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        let Self { state, .. } = self;
        state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of too many the oldest is dropped, but for the one that is being delivered.
    fn push(&self, letter: Letter) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        let dropped = if state.waiting.len() >= MOST_WAITING {
            let oldest = usize::from(state.under_way);
            state.failed += 1;
            state.waiting.remove(oldest)
        } else {
            None
        };
        state.waiting.push_back(letter);
        drop(state);
        if dropped.is_some() {
            self.failed(&format!(
                "more than {MOST_WAITING} events wait; the oldest is dropped"
            ));
        }
        self.news.notify_one();
    }

    /// Waits for the next; `None` if there is none and none will come.
    async fn next(&self) -> Option<Letter> {
        loop {
            // A permit is kept for whoever was not waiting yet.
            let news = self.news.notified();
            {
                let mut state = self.state();
                if let Some(letter) = state.waiting.front().cloned() {
                    state.under_way = true;
                    return Some(letter);
                }
                if state.closed {
                    return None;
                }
            }
            news.await;
        }
    }

    /// An attempt failed. It is said once, until one succeeds.
    fn failed(&self, why: &str) {
        let Self { name, .. } = self;
        let mut state = self.state();
        if state.error.is_none() {
            warn!("{name}: an event is not delivered: {why}");
        }
        state.error = Some(why.to_owned());
    }

    fn done(&self, event: &Event, delivered: bool) {
        let Self { name, .. } = self;
        let mut state = self.state();
        state.under_way = false;
        state.waiting.pop_front();
        if delivered {
            state.delivered += 1;
            state.error = None;
            info!("{name}: {} of {}", event.detail_type, event.instance());
        } else {
            state.failed += 1;
        }
    }

    fn close(&self) {
        self.state().closed = true;
        self.news.notify_one();
    }

    /// What waits still has failed.
    fn give_up(&self) {
        let Self { name, .. } = self;
        let mut state = self.state();
        let left = state.waiting.len();
        state.waiting.clear();
        state.under_way = false;
        state.failed += left as u64;
        if left > 0 {
            let why = state.error.as_deref().unwrap_or("there was no time");
            warn!("{name}: {left} events were not delivered: {why}");
        }
    }

    fn delivery(&self) -> Delivery {
        let Self { name, .. } = self;
        let state = self.state();
        Delivery {
            sink: name.clone(),
            delivered: state.delivered,
            failed: state.failed,
            pending: state.waiting.len() as u64,
            error: state.error.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
