//! The connections that listeners have.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use log::debug;
use tokio::{
    task::{AbortHandle, Id, JoinSet},
    time::{sleep, timeout},
};

/// For so many connections there is room, at one listener and at all that share it.
///
/// A client that takes too many loses its oldest, those first that never asked for anything; the
/// next good request is served all the same. Where there is no room at all, the listener that has
/// most gives way. So none loses a connection to one that has as many, and each is sure of its
/// share, whatever the others do. Of many that come at once none is lost before it could ask: the
/// others wait until it had the time.
#[derive(Clone)]
pub struct Room(Arc<Mutex<Taken>>);

struct Taken {
    most_at_all: usize,
    most_at_one: usize,
    /// Of each listener, oldest first; some may be over.
    admitted: HashMap<Listener, VecDeque<Admitted>>,
    /// The next listener's.
    next: Listener,
}

/// Tells listeners apart.
type Listener = u64;

struct Admitted {
    task: AbortHandle,
    since: Instant,
    asked: Arc<AtomicBool>,
}

/// A request may be on its way for so long.
const TIME_TO_ASK: Duration = Duration::from_millis(100);

/// The connections of one listener. Dropping it resets them.
pub struct Clients {
    tasks: JoinSet<()>,
    room: Room,
    listener: Listener,
}

impl Drop for Clients {
    fn drop(&mut self) {
        let Self { room, listener, .. } = self;
        room.taken().admitted.remove(listener);
    }
}

impl Room {
    pub fn new(most_at_all: usize, most_at_one: usize) -> Self {
        Self(Arc::new(Mutex::new(Taken {
            most_at_all,
            most_at_one,
            admitted: HashMap::new(),
            next: 0,
        })))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        let Self(taken) = self;
        taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    /// Those of a new listener.
    pub fn of(room: &Room) -> Self {
        let listener = room.taken().add_listener();
        Self {
            tasks: JoinSet::new(),
            room: room.clone(),
            listener,
        }
    }

    /// Waits until there is room for one more, or somebody who can give way. Does not reserve it.
    pub fn room(&self) -> impl Future<Output = ()> + use<> {
        let Self { room, listener, .. } = self;
        let (room, listener) = (room.clone(), *listener);
        async move {
            loop {
                let wait = room.taken().wait(listener);
                if wait.is_zero() {
                    return;
                }
                sleep(wait).await;
            }
        }
    }

    /// Starts a task for a new connection. It sets the flag when its client has asked.
    pub fn admit<F>(&mut self, converse: impl FnOnce(Arc<AtomicBool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self {
            tasks,
            room,
            listener,
        } = self;
        let mut taken = room.taken();
        taken.make_room(*listener);
        let asked = Arc::new(AtomicBool::new(false));
        let task = tasks.spawn(converse(Arc::clone(&asked)));
        let admitted = taken.admitted.entry(*listener).or_default();
        admitted.push_back(Admitted {
            task,
            since: Instant::now(),
            asked,
        });
    }

    /// Waits for one to be over; for ever if there is none.
    pub async fn one_over(&mut self) {
        let Self {
            tasks,
            room,
            listener,
        } = self;
        let Some(over) = tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let id = over.map_or_else(|error| error.id(), |(id, ())| id);
        room.taken().forget(*listener, id);
    }

    /// Waits for all of them, but only so long.
    pub async fn finish(mut self, within: Duration) {
        let Self { tasks, .. } = &mut self;
        let all_over = async { while tasks.join_next().await.is_some() {} };
        if timeout(within, all_over).await.is_err() {
            debug!("{} unanswered connections are reset", tasks.len());
        }
    }
}

impl Taken {
    fn add_listener(&mut self) -> Listener {
        let Self { admitted, next, .. } = self;
        let listener = *next;
        *next += 1;
        admitted.insert(listener, VecDeque::new());
        listener
    }

    /// The listener that loses one before this one can have one more, if there is no room.
    fn giving_way(&self, listener: Listener) -> Option<Listener> {
        let Self {
            most_at_all,
            most_at_one,
            admitted,
            ..
        } = self;
        let own = admitted.get(&listener).map_or(0, VecDeque::len);
        let all: usize = admitted.values().map(VecDeque::len).sum();
        if own >= *most_at_one {
            Some(listener)
        } else if all >= *most_at_all {
            // The newcomer's own among equals.
            let fullest = |(other, admitted): &(&Listener, &VecDeque<_>)| {
                (admitted.len(), **other == listener)
            };
            let fullest = admitted.iter().max_by_key(fullest);
            fullest.map(|(listener, _)| *listener)
        } else {
            None
        }
    }

    /// How long until one of the listener's own can give way to one more. Zero if there is room, or if
    /// another listener has to make it.
    fn wait(&self, listener: Listener) -> Duration {
        if self.giving_way(listener) != Some(listener) {
            return Duration::ZERO;
        }
        let Some(admitted) = self.admitted.get(&listener) else {
            return Duration::ZERO;
        };
        match first_to_go(admitted).map(|first| &admitted[first]) {
            Some(first) if first.is_silent() => TIME_TO_ASK.saturating_sub(first.since.elapsed()),
            _ => Duration::ZERO,
        }
    }

    /// Sees to it that a listener can have one more.
    fn make_room(&mut self, listener: Listener) {
        let Some(gives_way) = self.giving_way(listener) else {
            return;
        };
        let Some(admitted) = self.admitted.get_mut(&gives_way) else {
            return;
        };
        if let Some(client) = first_to_go(admitted).and_then(|first| admitted.remove(first)) {
            debug!("too many connections: the oldest is reset");
            client.task.abort();
        }
    }

    fn forget(&mut self, listener: Listener, task: Id) {
        let Self { admitted, .. } = self;
        if let Some(admitted) = admitted.get_mut(&listener)
            && let Some(over) = admitted.iter().position(|client| client.task.id() == task)
        {
            admitted.remove(over);
        }
    }
}

impl Admitted {
    /// Is there, and never asked.
    fn is_silent(&self) -> bool {
        !self.task.is_finished() && !self.asked.load(Ordering::Relaxed)
    }
}

/// The oldest, of those that never asked if there are any. One that is over costs nobody anything.
fn first_to_go(admitted: &VecDeque<Admitted>) -> Option<usize> {
    let worth = |client: &Admitted| match client.task.is_finished() {
        true => 0,
        false => 1 + u8::from(!client.is_silent()),
    };
    (0..admitted.len()).min_by_key(|&index| worth(&admitted[index]))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Has so many more clients come, who stay and never ask.
    fn crowd(clients: &mut Clients, count: usize) {
        for _ in 0..count {
            clients.admit(|_| std::future::pending());
        }
    }

    /// How many of these are still there.
    async fn left(clients: &mut Clients) -> usize {
        while timeout(Duration::from_millis(20), clients.one_over())
            .await
            .is_ok()
        {}
        clients.tasks.len()
    }

    #[tokio::test]
    async fn who_takes_too_much_loses_to_those_who_do_not() {
        let room = Room::new(8, 6);
        let [mut greedy, mut modest, mut late] = [(); 3].map(|()| Clients::of(&room));
        crowd(&mut modest, 2);
        crowd(&mut greedy, 50);
        assert_eq!(left(&mut greedy).await, 6, "no more than one may have");
        crowd(&mut late, 1);
        assert_eq!(left(&mut greedy).await, 5);
        // All have their share.
        crowd(&mut late, 40);
        crowd(&mut greedy, 40);
        let shares = [
            left(&mut greedy).await,
            left(&mut modest).await,
            left(&mut late).await,
        ];
        assert_eq!(shares, [3, 2, 3]);
        // A listener that ends makes room.
        drop(late);
        crowd(&mut greedy, 40);
        assert_eq!(left(&mut greedy).await, 6);
        assert_eq!(left(&mut modest).await, 2);
    }

    #[tokio::test]
    async fn of_a_crowd_none_is_lost_before_it_could_ask() {
        let mut clients = Clients::of(&Room::new(4, 4));
        let asking = Arc::new(AtomicUsize::new(0));
        for _ in 0..12 {
            clients.room().await;
            let asking = Arc::clone(&asking);
            clients.admit(async move |asked| {
                sleep(TIME_TO_ASK / 10).await;
                asked.store(true, Ordering::Relaxed);
                asking.fetch_add(1, Ordering::Relaxed);
                std::future::pending().await
            });
        }
        sleep(TIME_TO_ASK).await;
        assert_eq!(asking.load(Ordering::Relaxed), 12);
    }

    #[tokio::test]
    async fn who_had_the_time_and_did_not_ask_gives_way() {
        // On a busy machine the time may be over before it is looked at.
        for _ in 0..3 {
            let mut clients = Clients::of(&Room::new(4, 4));
            crowd(&mut clients, 4);
            let early = timeout(TIME_TO_ASK / 2, clients.room()).await.is_ok();
            assert!(timeout(TIME_TO_ASK, clients.room()).await.is_ok());
            if !early {
                return;
            }
        }
        panic!("they had no time to ask");
    }

    #[tokio::test]
    async fn those_that_are_over_leave_room() {
        let room = Room::new(4, 4);
        let mut clients = Clients::of(&room);
        for _ in 0..100 {
            clients.admit(async |_| {});
            clients.one_over().await;
        }
        assert_eq!(room.taken().admitted[&clients.listener].len(), 0);
    }
}
