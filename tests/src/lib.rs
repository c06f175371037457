//! Harness for end-to-end tests: a real kernel, real clients, and a world of each test's own.
//!
//! A test starts with a [`Lab`]: network namespaces and cgroups made for it, so that tests run
//! side by side and nothing can reach an IMDS that is not the test's own. In it run
//! - the [`Upstream`]: the tests' own IMDS (`src/bin/upstream`), which logs what reaches it;
//! - [`Spotsim`]: the binary under test;
//! - clients, as child processes started at a [`Place`]: a network namespace and a cgroup.
//!
//! Tests with pods start with a [`Node`]: a lab whose node has a real container runtime.
//!
//! What needs none of that, `spotsim serve` above all, runs in a [`Scratch`] directory. Events go
//! to a [`Hook`] there, and to the services of AWS that [`Moto`] plays.
//!
//! What a test started ends with it, by a panic too. Every wait has a deadline and says what it
//! waited for. Nothing here returns an error: a test that cannot go on panics.
//!
//! Environment: `SPOTSIM_BIN` names the binary under test, `SPOTSIM_CLIENTS` the directory that
//! holds the Python and Node clients, moto, cloud-init and a containerd that streams events (`cargo
//! xtask test` installs them), `SPOTSIM_CONTAINERD` another containerd than that on the `PATH`,
//! `SPOTSIM_PATIENCE` how many times as long as usual things may take, and with
//! `SPOTSIM_REQUIRE_BPF=1` a test that lacks a privilege fails instead of being skipped.

mod cgroup;
mod configuration;
mod held;
mod hook;
mod http;
mod interrupted;
mod lab;
mod moto;
mod netns;
mod node;
mod privilege;
mod process;
mod programs;
mod sandbox;
mod serve;
mod spotsim;
mod traces;
mod upstream;

pub use cgroup::Cgroup;
pub use configuration::Configuration;
pub use held::{Held, address_space, data, processor_time, resident};
pub use hook::{Hook, Posted, Reply};
pub use http::{Response, Via, get};
pub use interrupted::Interrupted;
pub use lab::{Lab, Place};
pub use moto::{Moto, aws_environment};
pub use netns::NetNs;
pub use node::{Asked, Container, Node, Pod, PodBuilder, Qos, cri};
pub use privilege::{missing_privilege, must_not_be_skipped};
pub use process::{Finished, Running, is_running, patient, run, wait_until};
pub use programs::{
    client, cloud_init_crawl, helper, is_release, moto, node, python, python_script,
    spotsim_binary, workspace,
};
pub use sandbox::Sandbox;
pub use serve::{Scratch, Serve, get_from};
pub use spotsim::{Armed, Spotsim, attach_args, in_run_dir, with_descriptors};
pub use traces::{BpfObjects, all_bpf_objects, bpf_objects, entries, files};
pub use upstream::{Seen, Upstream};

use std::io::Write as _;

/// Prints a line to stderr that libtest does not capture: the log of a passing test shows it.
pub fn say(line: &str) {
    let mut stderr = std::io::stderr().lock();
    // A closed stderr is no reason to fail a test.
    let _ = writeln!(stderr, "{line}");
}
