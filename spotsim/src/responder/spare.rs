//! Sockets to the upstream, made before they are needed.
//!
//! To make one in another namespace takes the way to another thread and back, which is a fifth of
//! what a passed request takes. So who asks often has several made at once.

use std::{
    io,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    net::TcpSocket,
    sync::{Semaphore, SemaphorePermit},
};

use crate::{
    descriptors,
    netns::{Namespace, Owner},
};

/// So many are made at once, at most.
const MOST_AT_ONCE: usize = 16;

/// For the spares of all namespaces: their descriptors are few beside those of connections.
static ROOM: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(descriptors::connections() / 8));

/// What sockets are alike: those of one owner and one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    owner: Owner,
    v6: bool,
}

/// Sockets in one namespace that nobody has connected yet, of the kind that was needed last.
#[derive(Debug, Default)]
pub struct Spares(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    kind: Option<Kind>,
    sockets: Vec<(TcpSocket, SemaphorePermit<'static>)>,
    /// So many were made at once the last time.
    made: usize,
    /// Whether one was needed since [`Spares::rest`].
    needed: bool,
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
        let count = match self.kept().take(kind) {
            Ok(socket) => return Ok(socket),
            Err(count) => count,
        };
        let made = namespace.run_as(owner, move || {
            let first = open(v6)?;
            // Nobody needs these yet.
            let more = (1..count).map_while(|_| open(v6).ok());
            io::Result::Ok((first, more.collect()))
        });
        let (first, more) = made.await??;
        self.kept().keep(kind, more);
        Ok(first)
    }

    /// Closes those that nobody needed since this was last called.
    pub fn rest(&self) {
        let mut kept = self.kept();
        if !std::mem::take(&mut kept.needed) {
            *kept = Kept::default();
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        let Self(kept) = self;
        kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// One of this kind, or how many to make: each time twice as many, and one for who comes alone.
    fn take(&mut self, kind: Kind) -> Result<TcpSocket, usize> {
        if self.kind != Some(kind) {
            *self = Self {
                kind: Some(kind),
                ..Self::default()
            };
        }
        self.needed = true;
        match self.sockets.pop() {
            Some((socket, _)) => Ok(socket),
            None => {
                self.made = (self.made * 2).clamp(1, MOST_AT_ONCE);
                Err(self.made)
            }
        }
    }

    /// Keeps as many as there is room for, if they are still of use.
    fn keep(&mut self, kind: Kind, sockets: Vec<TcpSocket>) {
        if self.kind == Some(kind) {
            let room = |socket| Some((socket, ROOM.try_acquire().ok()?));
            self.sockets.extend(sockets.into_iter().map_while(room));
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

    fn sockets(count: usize) -> Vec<TcpSocket> {
        (0..count).map(|_| open(false).unwrap()).collect()
    }

    /// Takes one, or makes as many as it is told; says how many that were.
    fn need(kept: &mut Kept, kind: Kind) -> usize {
        match kept.take(kind) {
            Ok(_) => 0,
            Err(count) => {
                kept.keep(kind, sockets(count - 1));
                count
            }
        }
    }

    #[tokio::test]
    async fn who_asks_often_has_more_made_at_once() {
        let mut kept = Kept::default();
        let made = |kept: &mut Kept| (0..40).map(|_| need(kept, kind(1, false))).collect();
        let made: Vec<_> = made(&mut kept);
        let made: Vec<_> = made.into_iter().filter(|made| *made > 0).collect();
        assert_eq!(made, [1, 2, 4, 8, 16, 16]);
    }

    #[tokio::test]
    async fn nobody_gets_what_is_anothers() {
        let mut kept = Kept::default();
        for _ in 0..3 {
            need(&mut kept, kind(1, false));
        }
        need(&mut kept, kind(1, false));
        assert!(!kept.sockets.is_empty());
        for other in [kind(2, false), kind(2, true), kind(1, true)] {
            assert_eq!(need(&mut kept, other), 1, "{other:?}");
            assert!(kept.sockets.is_empty());
        }
        // One who came meanwhile was of another kind.
        kept.keep(kind(1, false), sockets(2));
        assert!(kept.sockets.is_empty());
    }

    #[tokio::test]
    async fn those_that_nobody_needs_are_closed() {
        let spares = Spares::default();
        for _ in 0..6 {
            need(&mut spares.kept(), kind(1, false));
        }
        spares.rest();
        assert!(!spares.kept().sockets.is_empty(), "one was needed");
        spares.rest();
        assert!(spares.kept().sockets.is_empty());
        assert_eq!(need(&mut spares.kept(), kind(1, false)), 1);
    }
}
