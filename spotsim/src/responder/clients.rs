//! The connections of one listener.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use log::debug;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::timeout,
};

/// As many connections as one listener may have. A client that takes too many loses its oldest,
/// those first that never asked for anything; the next good request is served all the same.
pub struct Clients {
    tasks: JoinSet<()>,
    /// Oldest first; some may be over.
    admitted: VecDeque<Admitted>,
    most: usize,
}

struct Admitted {
    task: AbortHandle,
    asked: Arc<AtomicBool>,
}

impl Clients {
    pub fn new(most: usize) -> Self {
        Self {
            tasks: JoinSet::new(),
            admitted: VecDeque::new(),
            most,
        }
    }

    /// Starts a task for a new connection. It sets the flag when its client has asked.
    pub fn admit<F>(&mut self, converse: impl FnOnce(Arc<AtomicBool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.make_room();
        let Self {
            tasks, admitted, ..
        } = self;
        let asked = Arc::new(AtomicBool::new(false));
        let task = tasks.spawn(converse(Arc::clone(&asked)));
        admitted.push_back(Admitted { task, asked });
    }

    fn make_room(&mut self) {
        let Self { admitted, most, .. } = self;
        if admitted.len() < *most {
            return;
        }
        admitted.retain(|client| !client.task.is_finished());
        if admitted.len() < *most {
            return;
        }
        let idle = |client: &Admitted| !client.asked.load(Ordering::Relaxed);
        let oldest = admitted.iter().position(idle).unwrap_or(0);
        if let Some(client) = admitted.remove(oldest) {
            debug!("more than {most} connections: the oldest is reset");
            client.task.abort();
        }
    }

    /// Waits for one to be over; for ever if there is none.
    pub async fn one_over(&mut self) {
        let Self { tasks, .. } = self;
        if tasks.join_next().await.is_none() {
            std::future::pending().await
        }
    }

    /// Waits for all of them, but only so long.
    pub async fn finish(self, within: Duration) {
        let Self { mut tasks, .. } = self;
        let all_over = async { while tasks.join_next().await.is_some() {} };
        if timeout(within, all_over).await.is_err() {
            debug!("{} unanswered connections are reset", tasks.len());
        }
    }
}
