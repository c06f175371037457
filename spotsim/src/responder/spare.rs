//! Sockets to the upstream, made before they are needed.
//!
//! To make one in another namespace takes the way to another thread and back, which is an eighth of
//! what a passed request takes. So who asks often has several made at once.

use std::{
    io,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    net::TcpSocket,
    sync::{Semaphore, SemaphorePermit},
};

use crate::{
    descriptors,
    netns::{Namespace, Owner},
};

/// So many are made at once, at most: one that is needed, and the others to be kept.
const MOST_AT_ONCE: usize = 16;

/// Those that were not needed for so long will not be soon.
const KEPT_FOR: Duration = Duration::from_millis(500);

/// For the spares of all namespaces.
static ROOM: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(descriptors::spares()));

/// What sockets are alike: those of one owner and one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    owner: Owner,
    v6: bool,
}

/// Sockets in one namespace that nobody has connected yet, of the kind that was needed last.
#[derive(Debug, Default)]
pub struct Spares {
    kept: Mutex<Kept<'static>>,
    /// Held while some are made. Who needs one meanwhile has it made alone, so that there are never
    /// more than of one making.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept<'a> {
    kind: Option<Kind>,
    sockets: Vec<(TcpSocket, SemaphorePermit<'a>)>,
    /// So many were made at once the last time.
    made: usize,
    /// When one was needed last.
    needed: Option<Instant>,
}

impl Spares {
    /// A socket in this namespace that is this owner's.
    ///
    /// # Errors
    ///
    /// As [`Namespace::run_as`]; `EMFILE` and the like.
    pub async fn socket(
        &self,
        namespace: &Namespace,
        owner: Owner,
        v6: bool,
    ) -> io::Result<TcpSocket> {
        if namespace.is_home(owner) {
            return open(v6);
        }
        let kind = Kind { owner, v6 };
        if let Some(socket) = self.kept().take(kind) {
            return Ok(socket);
        }
        let making = self.making.try_lock();
        let wanted = making.as_ref().map_or(0, |_| self.kept().wanted());
        // Before they are made: these descriptors are nobody else's.
        let room = ROOM.try_acquire_many(wanted).ok();
        let wanted = room.as_ref().map_or(0, |_| wanted);
        let made = namespace.run_as(owner, move || {
            let first = open(v6)?;
            let more = (0..wanted).map_while(|_| open(v6).ok());
            io::Result::Ok((first, more.collect()))
        });
        let (first, more) = made.await??;
        if let (Ok(_), Some(room)) = (&making, room) {
            self.kept().keep(kind, more, room);
        }
        Ok(first)
    }

    /// Closes those that nobody needed for a moment.
    pub fn rest(&self) {
        let mut kept = self.kept();
        if kept.needed.is_some_and(|at| at.elapsed() > KEPT_FOR) {
            *kept = Kept::default();
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept<'static>> {
        let Self { kept, .. } = self;
        kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Kept<'a> {
    /// One of this kind. Those of another are closed.
    fn take(&mut self, kind: Kind) -> Option<TcpSocket> {
        if self.kind != Some(kind) {
            *self = Self {
                kind: Some(kind),
                ..Self::default()
            };
        }
        self.needed = Some(Instant::now());
        let (socket, _) = self.sockets.pop()?;
        Some(socket)
    }

    /// How many to make besides the one that is needed: none for who comes alone, then each time
    /// twice as many in all.
    fn wanted(&self) -> u32 {
        (self.made * 2).clamp(1, MOST_AT_ONCE) as u32 - 1
    }

    /// Keeps those that were made besides, if they are still of use.
    fn keep(&mut self, kind: Kind, sockets: Vec<TcpSocket>, mut room: SemaphorePermit<'a>) {
        if self.kind == Some(kind) {
            self.made = sockets.len() + 1;
            let with_room = |socket| Some((socket, room.split(1)?));
            self.sockets
                .extend(sockets.into_iter().map_while(with_room));
        }
    }
}

fn open(v6: bool) -> io::Result<TcpSocket> {
    match v6 {
        false => TcpSocket::new_v4(),
        true => TcpSocket::new_v6(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(uid: u32, v6: bool) -> Kind {
        Kind {
            owner: Owner { uid, gid: 0 },
            v6,
        }
    }

    /// Has as many made as are wanted.
    fn make<'a>(kept: &mut Kept<'a>, kind: Kind, room: &'a Semaphore) -> usize {
        let wanted = kept.wanted();
        let sockets = (0..wanted).map(|_| open(false).unwrap()).collect();
        kept.keep(kind, sockets, room.try_acquire_many(wanted).unwrap());
        wanted as usize + 1
    }

    /// Takes one, or has them made; says how many that were.
    fn need<'a>(kept: &mut Kept<'a>, kind: Kind, room: &'a Semaphore) -> usize {
        match kept.take(kind) {
            Some(_) => 0,
            None => make(kept, kind, room),
        }
    }

    #[tokio::test]
    async fn who_asks_often_has_more_made_at_once() {
        let room = Semaphore::new(MOST_AT_ONCE);
        let mut kept = Kept::default();
        let made: Vec<_> = (0..40)
            .map(|_| need(&mut kept, kind(1, false), &room))
            .filter(|made| *made > 0)
            .collect();
        assert_eq!(made, [1, 2, 4, 8, 16, 16]);
        assert_eq!(room.available_permits(), MOST_AT_ONCE - kept.sockets.len());
    }

    #[tokio::test]
    async fn nobody_gets_what_is_anothers() {
        let room = Semaphore::new(MOST_AT_ONCE);
        let mut kept = Kept::default();
        for _ in 0..4 {
            need(&mut kept, kind(1, false), &room);
        }
        assert!(!kept.sockets.is_empty());
        for other in [kind(2, false), kind(2, true), kind(1, true)] {
            assert_eq!(need(&mut kept, other, &room), 1, "{other:?}");
            assert!(kept.sockets.is_empty());
        }
        // Somebody else came while they were made.
        kept.keep(
            kind(1, false),
            vec![open(false).unwrap()],
            room.try_acquire().unwrap(),
        );
        assert!(kept.sockets.is_empty());
        assert_eq!(room.available_permits(), MOST_AT_ONCE);
    }

    #[tokio::test]
    async fn those_that_nobody_needs_are_closed() {
        static ROOM: Semaphore = Semaphore::const_new(MOST_AT_ONCE);
        let spares = Spares::default();
        for _ in 0..6 {
            need(&mut spares.kept(), kind(1, false), &ROOM);
        }
        spares.rest();
        assert!(!spares.kept().sockets.is_empty(), "one was needed just now");
        tokio::time::sleep(KEPT_FOR * 2).await;
        spares.rest();
        assert!(spares.kept().sockets.is_empty());
        assert_eq!(need(&mut spares.kept(), kind(1, false), &ROOM), 1);
    }
}
