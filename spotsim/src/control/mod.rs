//! What is asked of a spotsim while it runs: HTTP with JSON on a unix socket, `ID.sock` in the
//! run directory.
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | a [`Status`] |
//! | `POST /trigger` | takes a [plan](crate::timeline::Plan), or nothing for a notice at once; the new [`Status`] when every later request sees it |
//! | `POST /cancel` | everything announced is withdrawn; the new [`Status`] |
//! | `POST /detach` | the last [`Status`], when nobody is intercepted any more |
//! | `GET /watch` | a line for each [`Message`], as they come |
//!
//! What is wrong is said as `{"error": "…"}` with a status of 400 or more.
//!
//! - [`Id`], [`Directory`]: who is where. An [`Id`] is claimed before anything is attached.
//! - [`Command`]: what can be asked for, read without doing it.
//! - [`Session`]: the serving end; [`Client`]: the asking one.

mod client;
mod command;
mod directory;
mod id;
mod message;
mod server;
mod session;
mod watch;

pub use client::{Client, Watching};
pub use command::{Command, LONGEST_BODY, Refusal};
pub use directory::{Claim, Directory};
pub use id::Id;
pub use message::{Change, Item, Message, Reason, Serves, Status, TargetStatus, Verb, brief};
pub use session::{Served, Session};
