//! A stop condition: a command that succeeds when the experiment is to stop.

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    process::Command,
    time::{MissedTickBehavior, interval, timeout},
};

/// From one check to the next.
const EACH: Duration = Duration::from_secs(5);

/// A check that takes longer is ended, and says no.
const WITHIN: Duration = Duration::from_secs(5);

/// What a shell returns for a command that it cannot execute, or does not find.
const NOT_EXECUTED: [i32; 2] = [126, 127];

/// A command line for `sh`.
#[derive(Clone, Debug)]
pub struct Condition(String);

impl Condition {
    pub fn new(command: String) -> Self {
        Self(command)
    }

    /// Whether it holds before anything has begun. One that cannot be checked is an error: nobody
    /// is to count on it.
    pub async fn holds_already(&self) -> Result<bool> {
        let status = self.check().await?;
        match status.and_then(|status| status.code()) {
            Some(code) if NOT_EXECUTED.contains(&code) => {
                bail!("--stop-if: the shell cannot execute it, and returned {code}")
            }
            code => Ok(code == Some(0)),
        }
    }

    /// Waits until it holds.
    pub async fn holds(&self) {
        let mut checks = interval(EACH);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // That was checked before.
        checks.tick().await;
        loop {
            checks.tick().await;
            match self.check().await {
                Ok(Some(status)) if status.success() => return,
                Ok(_) => {}
                Err(error) => log::warn!("{error:#}"),
            }
        }
    }

    /// How the command ended; `None` if it had to be ended.
    async fn check(&self) -> Result<Option<ExitStatus>> {
        let Self(command) = self;
        let mut child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("--stop-if: cannot start sh")?;
        let mut group = Group(child.id());
        match timeout(WITHIN, child.wait()).await {
            Ok(status) => {
                group.reaped();
                Ok(Some(status.context("--stop-if: cannot wait for it")?))
            }
            Err(_) => {
                log::warn!("--stop-if: the command took more than 5s and was ended, which is a no");
                Ok(None)
            }
        }
    }
}

/// The process group of a check that is not over, by its leader. It does not outlive whoever
/// waits for it.
struct Group(Option<u32>);

impl Group {
    /// From now on its number may be somebody else's.
    fn reaped(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Self(leader) = self;
        if let Some(leader) = leader.and_then(|leader| i32::try_from(leader).ok()) {
            // If nobody is left in it, all is well.
            let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn condition(command: &str) -> Condition {
        Condition::new(command.to_owned())
    }

    #[tokio::test]
    async fn success_is_a_yes() {
        assert!(condition("exit 0").holds_already().await.unwrap());
        assert!(!condition("exit 1").holds_already().await.unwrap());
        assert!(!condition("kill -9 $$").holds_already().await.unwrap());
    }

    #[tokio::test]
    async fn one_that_cannot_run_is_an_error() {
        let error = condition("/nowhere/check").holds_already().await;
        let error = error.unwrap_err().to_string();
        assert_eq!(
            error,
            "--stop-if: the shell cannot execute it, and returned 127"
        );
    }

    #[tokio::test]
    async fn what_hangs_is_ended_with_all_that_it_started() {
        let file = std::env::temp_dir().join(format!("spotsim-condition-{}", std::process::id()));
        let command = format!("sleep 600 & echo $! > {}; wait", file.display());
        let began = Instant::now();
        assert!(!condition(&command).holds_already().await.unwrap());
        assert!((WITHIN..WITHIN * 2).contains(&began.elapsed()));
        let pid = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let state = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()));
            status.is_ok_and(|status| !status.contains("State:\tZ"))
        };
        let gone = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            !state()
        });
        assert!(gone, "process {pid} is still there");
    }
}
