//! The signals that `run` passes on to its command.

use std::io;

use log::debug;
use nix::{
    sys::{
        signal::{SigSet, SigmaskHow, Signal, kill, raise},
        signalfd::{SfdFlags, SignalFd, siginfo},
    },
    unistd::{Pid, getpgid, getpgrp},
};
use tokio::io::unix::AsyncFd;

use crate::readiness::readable;

/// The signals that are the command's, not ours.
pub struct Signals(AsyncFd<SignalFd>);

impl Signals {
    const PASSED_ON: [Signal; 7] = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGTSTP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ];

    /// Those of them by which a command is asked to end.
    const TO_END: [Signal; 4] = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ];

    fn set() -> SigSet {
        Self::PASSED_ON.into_iter().collect()
    }

    /// Keeps them from the calling thread and those that it will start, and returns what was
    /// blocked before.
    pub fn block() -> io::Result<SigSet> {
        Ok(Self::set().thread_swap_mask(SigmaskHow::SIG_BLOCK)?)
    }

    /// Takes them instead.
    pub fn take() -> io::Result<Self> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self(readable(SignalFd::with_flags(&Self::set(), flags)?)?))
    }

    /// A signal that came before there was a command, and asks to end.
    pub fn early(&self) -> io::Result<Option<Signal>> {
        let Self(signals) = self;
        while let Some(info) = signals.get_ref().read_signal()? {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(signal) if signal != Signal::SIGTSTP => return Ok(Some(signal)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Passes signals on to the command, and says so before if one asks it to end. Ends only with
    /// an error.
    pub async fn pass_on(&self, command: Option<Pid>, to_end: impl Fn()) -> io::Error {
        let Self(signals) = self;
        loop {
            let mut ready = match signals.readable().await {
                Ok(ready) => ready,
                Err(error) => return error,
            };
            match signals.get_ref().read_signal() {
                Ok(Some(info)) => {
                    if Self::TO_END
                        .map(|signal| signal as u32)
                        .contains(&info.ssi_signo)
                    {
                        to_end();
                    }
                    if let Err(error) = pass(&info, command) {
                        debug!("cannot pass signal {} on: {error}", info.ssi_signo);
                    }
                }
                Ok(None) => ready.clear_ready(),
                Err(error) => return error.into(),
            }
        }
    }
}

/// Passes one signal on, unless the command got it as well: what the terminal sends, it sends
/// to a whole process group.
fn pass(info: &siginfo, command: Option<Pid>) -> nix::Result<()> {
    let signal = Signal::try_from(info.ssi_signo as i32)?;
    let Some(command) = command else {
        return Ok(());
    };
    let by_a_process = info.ssi_code <= 0;
    let alone = by_a_process || getpgid(Some(command))? != getpgrp();
    if alone {
        debug!("passing {signal} on to the command");
        kill(command, signal)?;
    }
    if signal == Signal::SIGTSTP {
        // What waits for the command to stop, a shell, waits for us. Somebody continues us.
        raise(Signal::SIGSTOP)?;
        if alone {
            kill(command, Signal::SIGCONT)?;
        }
    }
    Ok(())
}
