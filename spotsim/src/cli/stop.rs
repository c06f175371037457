//! The signals by which spotsim is asked to end.

use std::{fs, future::poll_fn, task::Poll};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask to end.
pub struct Stop(Vec<Signal>);

impl Stop {
    /// A signal that was ignored when spotsim started goes on being ignored, as `nohup` wants
    /// it.
    pub fn new() -> Result<Self> {
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

    pub async fn asked(&mut self) {
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
