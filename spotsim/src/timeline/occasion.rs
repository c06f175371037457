//! What happens to an instance that AWS sends an event of.

use jiff::Timestamp;

use super::{Action, LifecycleState, Notice, ScheduledEvent, State, Timeline};

/// Something of which others than IMDS tell as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Occasion {
    /// A rebalance recommendation appears.
    Rebalance,
    /// The notice appears.
    Notice(Action),
    /// The time in the notice is there.
    Deadline(Action),
    /// A scheduled event is announced, or over.
    Scheduled(ScheduledEvent, State),
    /// The target lifecycle state becomes this.
    LifecycleState(LifecycleState),
}

impl Timeline {
    /// All of them, in the order of their times.
    pub fn occasions(&self) -> Vec<(Timestamp, Occasion)> {
        let Self {
            armed_at: _,
            notice,
            rebalance,
            withdrawn: _,
            life_cycle: _,
            scheduled,
            lifecycle_states,
        } = self;
        let mut occasions = Vec::new();
        occasions.extend(rebalance.map(|at| (at, Occasion::Rebalance)));
        if let Some(Notice {
            action,
            appears,
            deadline,
        }) = *notice
        {
            occasions.push((appears, Occasion::Notice(action)));
            occasions.push((deadline, Occasion::Deadline(action)));
        }
        for event in scheduled {
            let occasion = |state| Occasion::Scheduled(event.clone(), state);
            occasions.push((event.appears, occasion(State::Active)));
            occasions.extend(event.end.map(|(end, state)| (end, occasion(state))));
        }
        let states = lifecycle_states.iter();
        occasions.extend(states.map(|(at, state)| (*at, Occasion::LifecycleState(*state))));
        occasions.sort_by_key(|(at, _)| *at);
        occasions
    }
}
