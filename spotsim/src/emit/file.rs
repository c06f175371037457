//! Events as lines of JSON.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::event::Event;

/// What lines are written to. It never waits: there are few threads, and others need them.
pub struct Lines {
    file: File,
    /// A line was written in part.
    torn: bool,
}

impl Lines {
    /// Opens a file to append to. A named pipe must have a reader.
    pub fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o644);
        // Without it, a pipe would be waited for.
        options.custom_flags(OFlag::O_NONBLOCK.bits());
        let file = options
            .open(path)
            .with_context(|| format!("cannot open {} to append events", path.display()))?;
        if file.metadata()?.file_type().is_block_device() {
            bail!("{} is a disk, not a file for events", path.display());
        }
        Ok(Self { file, torn: false })
    }

    pub fn stdout() -> Result<Self> {
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        let file = stdout.context("cannot write to standard output")?.into();
        Ok(Self { file, torn: false })
    }

    pub fn write(&mut self, event: &Event) -> Result<()> {
        let Self { file, torn } = self;
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        if *torn {
            line.insert(0, b'\n');
        }
        // Standard output is shared with others, so it cannot be made not to wait.
        let mut ready = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut ready, PollTimeout::ZERO)? == 0 {
            bail!("nobody reads");
        }
        let written = file.write(&line)?;
        *torn = written < line.len();
        if *torn {
            bail!("only a part of the line could be written");
        }
        Ok(())
    }
}
