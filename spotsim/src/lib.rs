//! spotsim shows a fake EC2 Spot interruption to chosen cgroups, and to nobody else.
//!
//! # Layout
//!
//! Each line may use the ones below it, never one above.
//!
//! - [`cli`]: one file a verb; exit codes in one place.
//! - [`control`]: what is asked of a spotsim while it runs, over HTTP on a unix socket.
//! - [`consequence`]: what follows besides what IMDS shows: events, and something done at the deadline.
//! - [`experiment`]: AWS FIS's experiment templates, and the states that an experiment goes through.
//! - [`interception`]: what one `attach` owns: links, listeners, timeline.
//! - [`journal`]: who asked for what.
//! - [`doctor`]: whether this host can do it, and what to change where it cannot.
//! - [`emit`]: delivers events; [`event`]: what AWS sends besides what IMDS shows.
//! - [`effect`]: what is done to a target at its deadline.
//! - [`target`]: what the user named, as cgroup directories and network namespaces.
//! - [`intercept`]: loads and attaches the kernel half; the only place that names aya.
//! - [`effect`]: what is done to a target at its deadline.
//! - [`responder`]: HTTP: fakes, tokens, upstream; the only place, with `control`, that names hyper's server.
//! - [`timeline`]: what is announced when; pure.
//! - [`instance`]: what IMDS says of an instance: made up, from a file, or saved from a real one.
//! - [`document`]: files that a user writes: TOML, YAML, JSON.
//! - `run_directory`: the directory of what is known of running ones.
//! - `descriptors`, `readiness`: file descriptors; [`sock_diag`]: finds and destroys sockets; [`ec2`]: is this machine an instance?
//! - [`netns`]: sockets inside a namespace; the only place that calls `setns`.

pub mod cli;
pub mod consequence;
pub mod control;
mod descriptors;
pub mod doctor;
pub mod document;
pub mod ec2;
pub mod effect;
pub mod emit;
pub mod event;
pub mod experiment;
pub mod instance;
pub mod intercept;
pub mod interception;
pub mod journal;
pub mod netns;
mod readiness;
pub mod responder;
mod run_directory;
pub mod sock_diag;
pub mod target;
pub mod timeline;
