//! Delivers events: to files, programs, webhooks, and AWS.
//!
//! Each sink has a queue and a task of its own, so that one that is slow or not there holds up no
//! other, and nobody who sends. TLS and the AWS SDK are loaded only for a sink that needs them.

mod aws;
mod courier;
mod exec;
mod file;
mod http;
mod sink;
mod template;
mod webhook;

pub use courier::{Courier, Delivery};
pub use sink::{Form, Sink, Source};
pub use template::Template;
