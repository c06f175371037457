//! Exit codes, all of them.

use std::{fmt, process::ExitCode};

use crate::{doctor::Refusal, interception::Unloadable};

/// How spotsim ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: what was asked for is done.
    Done,
    /// 1: it failed; the reason is on standard error.
    Failed,
    /// 2: the command line makes no sense.
    Usage,
    /// 3: this host cannot do it; `spotsim doctor` says why.
    Host,
    /// 124: the command of `run` was still there at the deadline, as `timeout` says it.
    Struck,
    /// 127: `run` could not execute its command, as a shell says it.
    NotExecuted,
    /// `run` returns what its command returned; 128+N if signal N ended it.
    Command(u8),
}

impl Exit {
    /// The exit code for an error that a verb ended with.
    pub fn of_error(error: &anyhow::Error) -> Self {
        if error.is::<Refusal>() || error.is::<Unloadable>() {
            Self::Host
        } else if error.is::<Misuse>() {
            Self::Usage
        } else {
            Self::Failed
        }
    }

    /// The exit code for what clap made of the command line.
    pub fn of_usage(error: &clap::Error) -> Self {
        if error.use_stderr() {
            Self::Usage
        } else {
            Self::Done
        }
    }
}

/// Options that make no sense together, which clap cannot tell.
#[derive(Debug)]
pub struct Misuse(String);

impl Misuse {
    pub fn error(why: impl Into<String>) -> anyhow::Error {
        Self(why.into()).into()
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Host => 3,
            Exit::Struck => 124,
            Exit::NotExecuted => 127,
            Exit::Command(code) => code,
        })
    }
}
