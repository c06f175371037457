//! spotsim shows a fake EC2 Spot interruption to chosen cgroups, and to nobody else.
//!
//! # Layout
//!
//! Each line may use the ones below it, never one above.
//!
//! - [`cli`]: one file a verb; exit codes in one place.
//! - [`control`]: what is asked of a spotsim while it runs, over HTTP on a unix socket.
//! - [`interception`]: what one `attach` owns: links, listeners, timeline.
//! - [`journal`]: who asked for what.
//! - [`doctor`]: whether this host can do it, and what to change where it cannot.
//! - [`target`]: what the user named, as cgroup directories and network namespaces.
//! - [`intercept`]: loads and attaches the kernel half; the only place that names aya.
//! - [`responder`]: HTTP: fakes, tokens, upstream; the only place, with `control`, that names hyper's server.
//! - [`timeline`]: what is announced when; pure.
//! - [`instance`]: what IMDS says of an instance: made up, from a file, or saved from a real one.
//! - [`document`]: files that a user writes: TOML, YAML, JSON.
//! - `descriptors`, `readiness`: file descriptors; [`sock_diag`]: finds and destroys sockets; [`ec2`]: is this machine an instance?
//! - [`netns`]: sockets inside a namespace; the only place that calls `setns`.

pub mod cli;
pub mod control;
mod descriptors;
pub mod doctor;
pub mod document;
pub mod ec2;
pub mod instance;
pub mod intercept;
pub mod interception;
pub mod journal;
pub mod netns;
mod readiness;
pub mod responder;
pub mod sock_diag;
pub mod target;
pub mod timeline;
