//! The options that say how a spotsim is found while it runs.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use log::{info, warn};

use crate::control::{Claim, Client, Directory, Id};

/// Where the sockets are.
#[derive(Args)]
pub struct RunDir {
    /// The directory of the control sockets [default: /run/spotsim for root, else $XDG_RUNTIME_DIR/spotsim]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
}

impl RunDir {
    pub fn directory(&self) -> Result<Directory> {
        self.find()
            .context("there is no $XDG_RUNTIME_DIR; say with --run-dir where the sockets are")
    }

    fn find(&self) -> Option<Directory> {
        let given = self.run_dir.clone().map(Directory::new);
        given.or_else(Directory::default_for_user)
    }
}

/// The name under which one can be controlled.
#[derive(Args)]
pub struct SessionOptions {
    /// The name for `spotsim trigger` and the other verbs [default: the process id]
    #[arg(long, value_name = "NAME")]
    id: Option<Id>,

    #[command(flatten)]
    run_dir: RunDir,
}

impl SessionOptions {
    /// Claims the ID, before anything is attached. One that nobody needs, and that cannot be
    /// had, is done without.
    pub fn claim(&self, needed: bool) -> Result<Option<Claim>> {
        let Self { id, run_dir } = self;
        let needed = needed || id.is_some() || run_dir.run_dir.is_some();
        let id = id.clone().unwrap_or_else(Id::of_this_process);
        match (run_dir.find(), needed) {
            (None, true) => {
                bail!("there is no $XDG_RUNTIME_DIR for a control socket: give --run-dir")
            }
            (None, false) => {
                info!("there is no control socket: there is no $XDG_RUNTIME_DIR");
                Ok(None)
            }
            (Some(directory), true) => directory.claim(id).map(Some),
            (Some(directory), false) => match directory.claim(id) {
                Ok(claim) => Ok(Some(claim)),
                Err(error) => {
                    warn!("there is no control socket: {error:#}");
                    Ok(None)
                }
            },
        }
    }
}

/// Which of those that run.
#[derive(Args)]
pub struct Which {
    /// The one to ask; may be left out when there is one (`spotsim list`)
    id: Option<Id>,

    #[command(flatten)]
    run_dir: RunDir,
}

impl Which {
    pub fn find(self) -> Result<Client> {
        let Self { id, run_dir } = self;
        Client::find(&run_dir.directory()?, id)
    }
}
