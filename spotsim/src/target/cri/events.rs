//! What happens to pods and containers, told by the runtime as it happens.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use log::debug;
use prost::Message as _;
use tonic::{Code, Status, Streaming};

use super::{
    Runtime, RuntimeError, Shared,
    error::Unanswered,
    message::{Any, Empty, Envelope, SubscribeRequest, TaskExit, path},
};

/// The name that containerd gives to itself.
const CONTAINERD: &str = "containerd";

/// First processes of the containers and sandboxes that CRI made.
const TASKS: &str = r#"namespace=="k8s.io",topic~="^/tasks/(start|exit)$""#;

/// Events of a runtime from [`Runtime::events`]: that something happened, and not what. Whoever
/// needs to know looks.
///
/// They make a change known at once; they do not say that nothing changed. A runtime that has
/// nothing to tell does not even say that it will. So whoever needs to know looks by the clock
/// as well, if less often.
///
/// containerd is asked by its own API, on the same socket. Its CRI has events since 1.7, but up
/// to 2.0 it gives each to one listener only: whoever else listens, such as a kubelet with
/// `EventedPLEG`, misses it ([containerd#7318][1]). Its own events are given to all who listen,
/// and 1.6 has them too: a start or an end. Any other runtime is asked by `GetContainerEvents`.
///
/// What is told must be waited for, or the runtime keeps it in its memory.
///
/// [1]: https://github.com/containerd/containerd/issues/7318
pub struct Events {
    runtime: Runtime,
    state: State,
}

/// What came of waiting.
enum Step {
    Event,
    Other,
    End,
}

type Asking = Pin<Box<dyn Future<Output = Result<Stream, Status>> + Send>>;

enum State {
    Idle,
    /// A server answers with its first event.
    Asking(Asking),
    Told {
        stream: Box<Stream>,
        /// Whether there was an event.
        any: bool,
    },
}

enum Stream {
    Cri(Streaming<Empty>),
    Containerd(Streaming<Envelope>),
}

impl Events {
    pub(super) fn new(runtime: Runtime) -> Self {
        Self {
            runtime,
            state: State::Idle,
        }
    }

    /// Waits for the next event; `false` if this runtime tells none. No event is lost if this is
    /// cancelled. After an error, or `false`, the runtime is asked anew, and what happened in
    /// between is not told.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::Unavailable`] at once when the runtime ends.
    pub async fn next(&mut self) -> Result<bool, RuntimeError> {
        let end = loop {
            match self.advance().await {
                Ok(Step::Event) => return Ok(true),
                Ok(Step::Other) => {}
                Ok(Step::End) => break None,
                Err(status) => break Some(status),
            }
        };
        let state = std::mem::replace(&mut self.state, State::Idle);
        self.ended(&state, end)
    }

    /// Passes over the events that are there already.
    pub fn drain(&mut self) {
        // Whoever waits for the next one waits anew.
        let mut now = Context::from_waker(Waker::noop());
        // An end is told to whoever waits next.
        while let State::Told { any: true, .. } = self.state
            && let Poll::Ready(Ok(Step::Event | Step::Other)) = pin!(self.advance()).poll(&mut now)
        {
        }
    }

    async fn advance(&mut self) -> Result<Step, Status> {
        let Self { runtime, state } = self;
        match state {
            State::Idle => {
                *state = State::Asking(Box::pin(ask(runtime.clone())));
                Ok(Step::Other)
            }
            State::Asking(asking) => {
                let stream = Box::new(asking.await?);
                *state = State::Told { stream, any: false };
                Ok(Step::Other)
            }
            State::Told { stream, any } => {
                let step = match &mut **stream {
                    Stream::Cri(events) => match events.message().await? {
                        Some(Empty {}) => Step::Event,
                        None => Step::End,
                    },
                    Stream::Containerd(events) => match events.message().await? {
                        Some(event) if is_of_container(&event) => Step::Event,
                        Some(_) => Step::Other,
                        None => Step::End,
                    },
                };
                *any |= !matches!(step, Step::End);
                Ok(step)
            }
        }
    }

    /// What the end of the events means: of no error, or of one.
    fn ended(&self, state: &State, end: Option<Status>) -> Result<bool, RuntimeError> {
        let Shared { socket, .. } = &*self.runtime.shared;
        let told = matches!(state, State::Told { any: true, .. });
        let status = match end {
            // CRI-O with its events off ends them at once (cri-o#7164).
            None if !told => return Ok(false),
            None => Status::new(Code::Unavailable, "it tells no more events"),
            Some(status) => status,
        };
        let at = asked_at(&self.runtime);
        match RuntimeError::of(socket, at, Unanswered::Status(status)) {
            // Not every runtime without events says `Unimplemented`.
            error @ RuntimeError::Failed { .. } if !told => {
                debug!("no events: {error}");
                Ok(false)
            }
            error => Err(error),
        }
    }
}

fn asked_at(runtime: &Runtime) -> &'static str {
    match &*runtime.shared.runtime_name {
        CONTAINERD => path::CONTAINERD_EVENTS,
        _ => path::EVENTS,
    }
}

async fn ask(runtime: Runtime) -> Result<Stream, Status> {
    let at = asked_at(&runtime);
    if at == path::CONTAINERD_EVENTS {
        let filters = vec![TASKS.to_owned()];
        let events = runtime.stream(at, SubscribeRequest { filters }).await?;
        Ok(Stream::Containerd(events))
    } else {
        Ok(Stream::Cri(runtime.stream(at, Empty {}).await?))
    }
}

/// Whether it is a start, or the end of a first process: not that of a probe, or of another
/// command that was run in the container.
fn is_of_container(Envelope { topic, event }: &Envelope) -> bool {
    let exit = |event: &Any| TaskExit::decode(event.value.as_slice());
    match (&**topic, event) {
        ("/tasks/start", _) => true,
        ("/tasks/exit", Some(event)) => exit(event).is_ok_and(|exit| exit.id == exit.container_id),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use tokio::time::timeout;

    use super::{
        super::{
            LIMITS,
            fake::{Fake, Place, Reply, Teller},
            message::{Any, VersionResponse},
        },
        *,
    };

    const SOON: Duration = Duration::from_secs(10);

    /// One of this name, which answers to its events as told.
    fn runtime_of(
        place: &Place,
        name: &'static str,
        events: impl Fn(&str, &[u8]) -> Reply + Send + Sync + 'static,
    ) -> Fake {
        Fake::start(place, move |at, question| match at {
            path::VERSION => Reply::message(&VersionResponse {
                runtime_name: name.to_owned(),
                ..Default::default()
            }),
            at => events(at, question),
        })
    }

    async fn connect(place: &Place) -> Runtime {
        Runtime::at(place.socket.clone(), LIMITS).await.unwrap()
    }

    /// One that tells events: CRI's.
    fn telling(place: &Place) -> (Fake, Teller) {
        let (teller, reply) = Reply::stream();
        let reply = Mutex::new(Some(reply));
        let fake = runtime_of(place, "cri-o", move |at, _| {
            assert_eq!(at, path::EVENTS);
            let reply = reply.lock().unwrap().take();
            reply.unwrap_or_else(|| Reply::status(12, "asked again"))
        });
        (fake, teller)
    }

    /// An event with something in it: that of a container.
    fn event(container: &str) -> TaskExit {
        TaskExit {
            container_id: container.to_owned(),
            ..Default::default()
        }
    }

    fn envelope(topic: &str, event: &TaskExit) -> Envelope {
        Envelope {
            topic: topic.to_owned(),
            event: Some(Any {
                value: event.encode_to_vec(),
            }),
        }
    }

    fn start() -> Envelope {
        envelope("/tasks/start", &TaskExit::default())
    }

    fn exit(container: &str, process: &str) -> Envelope {
        let exit = TaskExit {
            container_id: container.to_owned(),
            id: process.to_owned(),
        };
        envelope("/tasks/exit", &exit)
    }

    #[tokio::test]
    async fn they_are_told_as_they_happen() {
        let place = Place::new();
        let (_fake, teller) = telling(&place);
        let mut events = connect(&place).await.events();
        // Nothing has happened; to stop waiting loses nothing.
        let early = timeout(Duration::from_millis(100), events.next()).await;
        assert!(early.is_err(), "{early:?}");
        for id in ["a", "b"] {
            teller.tell(&event(id));
        }
        for _ in 0..2 {
            assert!(timeout(SOON, events.next()).await.unwrap().unwrap());
        }
        let more = timeout(Duration::from_millis(100), events.next()).await;
        assert!(more.is_err(), "{more:?}");
    }

    #[tokio::test]
    async fn those_that_are_there_can_be_passed_over() {
        let place = Place::new();
        let (_fake, teller) = telling(&place);
        let mut events = connect(&place).await.events();
        for id in ["a", "b", "c"] {
            teller.tell(&event(id));
        }
        assert!(timeout(SOON, events.next()).await.unwrap().unwrap());
        // Until they have come.
        tokio::time::sleep(Duration::from_millis(200)).await;
        events.drain();
        let more = timeout(Duration::from_millis(100), events.next()).await;
        assert!(more.is_err(), "{more:?}");
        teller.tell(&event("d"));
        assert!(timeout(SOON, events.next()).await.unwrap().unwrap());
        teller.end(14, "");
        tokio::time::sleep(Duration::from_millis(200)).await;
        events.drain();
        assert!(timeout(SOON, events.next()).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn containerd_is_asked_by_its_own_api() {
        let place = Place::new();
        let (teller, reply) = Reply::stream();
        let reply = Mutex::new(Some(reply));
        let _fake = runtime_of(&place, "containerd", move |at, question| {
            assert_eq!(at, path::CONTAINERD_EVENTS);
            let SubscribeRequest { filters } = SubscribeRequest::decode(question).unwrap();
            assert_eq!(filters, [TASKS]);
            reply.lock().unwrap().take().unwrap()
        });
        let mut events = connect(&place).await.events();
        for (event, is_one) in [
            (start(), true),
            (exit("a", "probe"), false),
            (Envelope::default(), false),
            (exit("a", "a"), true),
        ] {
            teller.tell(&event);
            let limit = if is_one {
                SOON
            } else {
                Duration::from_millis(200)
            };
            let told = timeout(limit, events.next()).await;
            assert_eq!(told.is_ok_and(|told| told.unwrap()), is_one, "{event:?}");
        }
    }

    #[tokio::test]
    async fn a_runtime_without_events_says_so() {
        for code in [0, 2, 12] {
            for name in ["containerd", "cri-o", "docker"] {
                let place = Place::new();
                let _fake = runtime_of(&place, name, move |_, _| Reply::status(code, "no events"));
                let mut events = connect(&place).await.events();
                for _ in 0..2 {
                    let none = timeout(SOON, events.next()).await.unwrap();
                    assert!(!none.unwrap(), "{name}: {code}");
                }
            }
        }
    }

    #[tokio::test]
    async fn the_end_of_the_runtime_is_noticed_at_once() {
        // Before it told anything, and after.
        for told in [false, true] {
            let place = Place::new();
            let (fake, teller) = telling(&place);
            let mut events = connect(&place).await.events();
            if told {
                teller.tell(&event("a"));
                assert!(events.next().await.unwrap());
            }
            let (end, ()) = tokio::join!(timeout(SOON, events.next()), async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                fake.stop().await;
            });
            let error = end.unwrap().unwrap_err();
            assert!(
                matches!(error, RuntimeError::Unavailable { .. }),
                "{error:?}"
            );

            // It is asked again when it is back.
            let (_fake, teller) = telling(&place);
            teller.tell(&event("b"));
            assert!(timeout(SOON, events.next()).await.unwrap().unwrap());
        }
    }

    #[tokio::test]
    async fn events_that_end_are_an_error() {
        for code in [0, 2, 14] {
            let place = Place::new();
            let (_fake, teller) = telling(&place);
            let mut events = connect(&place).await.events();
            teller.tell(&event("a"));
            assert!(events.next().await.unwrap());
            teller.end(code, "");
            let error = timeout(SOON, events.next()).await.unwrap().unwrap_err();
            assert!(
                matches!(
                    error,
                    RuntimeError::Unavailable { .. } | RuntimeError::Failed { .. }
                ),
                "{error:?}"
            );
        }
    }
}
