//! `spotsim attach`: intercept what runs in cgroups.

use std::{fs, future::poll_fn, task::Poll};

use anyhow::{Context as _, Result};
use clap::Args;
use log::{Level, LevelFilter, info, log_enabled};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Exit, log as log_to, options::Options, runtime};
use crate::{
    doctor,
    interception::{Config, Ended, Interception},
    target::Cgroup,
};

#[derive(Args)]
pub struct Attach {
    /// A cgroup: a path as in /proc/PID/cgroup (`/kubepods/…`) or the full directory; repeatable
    #[arg(long = "cgroup", value_name = "PATH", required = true)]
    cgroups: Vec<String>,

    #[command(flatten)]
    options: Options,
}

impl Attach {
    pub fn run(self) -> Result<Exit> {
        log_to::start(self.options.log_level(LevelFilter::Info))?;
        doctor::preflight()?;
        runtime()?.block_on(self.intercept())
    }

    async fn intercept(self) -> Result<Exit> {
        let Self { cgroups, options } = self;
        let find = |path: &String| Cgroup::find(path);
        let targets = cgroups.iter().map(find).collect::<Result<_, _>>()?;
        let mut stop = Stop::new()?;
        // Suspended, it would leave its targets without an IMDS. A signal that is listened for
        // does not suspend.
        let _suspend = signal(SignalKind::from_raw(libc::SIGTSTP))?;
        let mut interception = Interception::arm(Config {
            targets,
            namespace: None,
            plan: options.plan(),
            upstream: options.upstream(false),
            kernel_log: log_enabled!(Level::Trace),
        })?;
        log_to::print(interception.armed().to_string());

        let until = async {
            tokio::select! {
                () = stop.asked() => {}
                () = options.lasts() => info!("the time given with --for is over"),
            }
        };
        let ended = interception.keep(until).await?;
        interception.detach().await;
        match ended {
            Ended::Asked => info!("detached"),
            Ended::TargetsGone => info!("detached: no target is left"),
        }
        Ok(Exit::Done)
    }
}

/// The signals that ask to end.
struct Stop(Vec<Signal>);

impl Stop {
    /// A signal that was ignored when spotsim started goes on being ignored, as `nohup` wants
    /// it.
    fn new() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status").context("cannot read /proc")?;
        let ignored = ignored_signals(&status);
        let asking = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let heard = asking
            .into_iter()
            .filter(|kind| ignored >> (kind.as_raw_value() - 1) & 1 == 0);
        Ok(Self(heard.map(signal).collect::<Result<_, _>>()?))
    }

    async fn asked(&mut self) {
        let Self(signals) = self;
        poll_fn(|cx| {
            let asked = signals
                .iter_mut()
                .any(|signal| signal.poll_recv(cx).is_ready());
            if asked {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// The ignored signals in a `/proc/PID/status`: bit N-1 is signal number N.
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_known() {
        let status = "SigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n";
        assert_eq!(
            ignored_signals(status),
            1 << (libc::SIGHUP - 1) | 1 << (libc::SIGPIPE - 1)
        );
        assert_eq!(ignored_signals(""), 0);
    }
}
