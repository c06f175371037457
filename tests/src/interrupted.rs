//! Chores that take long can be stopped, and tidy up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// Whether somebody wants this process to stop. The signals only set this, so that what was made
/// is removed on the way out.
#[derive(Clone, Debug)]
pub struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// From now on SIGINT and SIGTERM do not end this process.
    pub fn watch() -> Self {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&flag)).unwrap();
        }
        Self(flag)
    }

    /// Panics once one of them has come, which drops everything.
    pub fn check(&self) {
        assert!(!self.is_set(), "interrupted");
    }

    pub fn is_set(&self) -> bool {
        let Self(flag) = self;
        flag.load(Ordering::Relaxed)
    }

    /// Sleeps so long, or until one of them has come.
    pub fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_set() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}
