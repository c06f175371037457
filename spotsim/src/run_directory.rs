//! The directory of what is known of running spotsims: their control sockets, and what they have
//! to undo.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

/// It is locked for moments only.
const LOCKED_WITHIN: Duration = Duration::from_secs(2);

/// A directory that is spotsim's own, which need not be there yet.
#[derive(Clone, Debug)]
pub struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// The one at this path.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// `/run/spotsim` for root, `$XDG_RUNTIME_DIR/spotsim` for others; `None` without one.
    pub fn default_for_user() -> Option<Self> {
        let base = if geteuid().is_root() {
            Some(PathBuf::from("/run"))
        } else {
            let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
            given.filter(|path| path.is_absolute())
        };
        base.map(|base| Self::new(base.join("spotsim")))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it if there is none, for its owner alone.
    pub fn make(&self) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .with_context(|| format!("cannot make the directory {}", self.path.display()))
    }

    /// Keeps other spotsims from making and removing anything in it.
    ///
    /// # Errors
    ///
    /// If it is not ours alone, or not there; then the error is an [`io::Error`].
    pub fn lock(&self) -> Result<File> {
        let name = self.path.display();
        let directory =
            File::open(&self.path).with_context(|| format!("cannot open the directory {name}"))?;
        self.is_private(&directory)?;
        let deadline = Instant::now() + LOCKED_WITHIN;
        loop {
            match directory.try_lock() {
                Ok(()) => return Ok(directory),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => {
                    return Err(io::Error::from(error))
                        .with_context(|| format!("cannot lock the directory {name}"));
                }
            }
        }
    }

    /// What is found in it is removed, believed and handed plans to: so it must be spotsim's own,
    /// and nobody else may make anything in it.
    fn is_private(&self, directory: &File) -> Result<()> {
        let name = self.path.display();
        let about = directory
            .metadata()
            .with_context(|| format!("cannot look at the directory {name}"))?;
        let (owner, user) = (about.uid(), geteuid().as_raw());
        let mode = about.mode() & 0o7777;
        if !about.is_dir() {
            bail!("{name} is not a directory: choose another --run-dir");
        }
        if owner != user {
            bail!(
                "the directory {name} belongs to user {owner} and not to us, user {user}: become \
                 that user, or choose another --run-dir"
            );
        }
        if mode & 0o077 != 0 {
            bail!(
                "the directory {name} is open to others (mode {mode:04o}): choose one that is \
                 spotsim's alone, or `chmod 700` it if it is"
            );
        }
        Ok(())
    }
}
