//! Events on the standard input of a command.

use std::{io, os::fd::AsFd as _, process::Stdio};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::event::Event;

/// Runs a command by `sh -c`, once for an event. To drop the future ends all that it started.
pub async fn run(command: &str, event: &Event) -> Result<()> {
    let mut json = serde_json::to_vec(event)?;
    json.push(b'\n');
    // What it says is not the result of spotsim.
    let said = io::stderr().as_fd().try_clone_to_owned()?;
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(said)
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .context("cannot run sh")?;
    // Until it is waited for, its id is no other's.
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let mut group = Group(pid.map(Pid::from_raw));
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(&json).await
        // It may know without reading what to do.
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(error).context("cannot hand over the event");
    }
    let status = child.wait().await?;
    group.0 = None;
    if !status.success() {
        bail!("it ended with {status}");
    }
    Ok(())
}

/// A process group that is killed when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        let Self(group) = self;
        if let Some(group) = group {
            // Nothing is left of one that is gone.
            let _ = killpg(*group, Signal::SIGKILL);
        }
    }
}
