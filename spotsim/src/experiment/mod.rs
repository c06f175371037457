//! Experiments: templates of AWS FIS, run against workloads of this node.
//!
//! A [`Template`] is read and checked, its targets are [`resolve`](fn@resolve)d among the workloads that
//! there are, and [`Progress`] says what becomes of it: all of that is pure. [`Conduct`] has it
//! happen.

mod condition;
mod conduct;
mod progress;
mod record;
mod resolve;
mod state;
mod template;

pub use condition::Condition;
pub use conduct::{Conduct, Observer};
pub use progress::{Announcement, Change, Next, Progress, Surroundings, Transition, What};
pub use record::{Record, ResolvedTarget};
pub use resolve::{Candidate, resolve};
pub use state::State;
pub use template::{
    Action, Filter, FilterPath, IfEmpty, Invalid, Kind, Reading, Scope, Template, Wanted,
};
