//! What is frozen is written down before it is, so that it is not left frozen by a spotsim that
//! was killed.
//!
//! A record is a file `ID.frozen` in the run directory, where ID is the cgroup's. Whoever froze it
//! holds the file locked (`flock`) for as long as it lives; so a record that can be locked is of
//! one that is dead. A cgroup's id is never used again, so what has it is what was frozen. The
//! directory is locked while records are made and removed.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use log::debug;
use serde::{Deserialize, Serialize};

use super::files::Files;
use crate::{run_directory::RunDirectory, target::Cgroup};

/// What a record's name ends with.
const SUFFIX: &str = ".frozen";

/// Where every spotsim of this user looks, whatever it is told.
#[derive(Clone, Debug)]
pub struct Records(RunDirectory);

/// That a cgroup is being frozen by this process. To drop it leaves the file, unlocked, to be
/// found by the next command.
#[derive(Debug)]
pub struct Record {
    directory: RunDirectory,
    path: PathBuf,
    _locked: File,
}

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Frozen {
    /// As in `/proc/PID/cgroup`.
    cgroup: String,
    id: u64,
    /// Where it was found: a spotsim in another cgroup namespace finds it there, too.
    directory: PathBuf,
}

impl Records {
    /// Makes sure that records can be made.
    pub fn prepare() -> Result<Self> {
        let directory = RunDirectory::default_for_user().context(
            "there is no $XDG_RUNTIME_DIR for a record of what is frozen: set it, or become root",
        )?;
        directory.make()?;
        let lock = directory.lock()?;
        let probe = directory.path().join(format!("probe{SUFFIX}"));
        let written = create(&probe).and_then(|_| fs::remove_file(&probe));
        written.with_context(|| {
            format!(
                "cannot write to {}, where a record of what is frozen has to be",
                directory.path().display()
            )
        })?;
        drop(lock);
        Ok(Self(directory))
    }

    /// Writes down that a cgroup is going to be frozen.
    pub fn write(&self, cgroup: &Cgroup) -> Result<Record> {
        let Self(directory) = self;
        let path = directory.path().join(format!("{}{SUFFIX}", cgroup.id()));
        let _lock = directory.lock()?;
        let cannot = || format!("cannot write the record {}", path.display());
        let mut file = create(&path).with_context(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another spotsim has frozen it"),
            Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
        }
        let frozen = Frozen {
            cgroup: cgroup.path().to_owned(),
            id: cgroup.id(),
            directory: cgroup.directory().to_owned(),
        };
        let text = serde_json::to_vec(&frozen).with_context(cannot)?;
        file.set_len(0)
            .and_then(|()| file.write_all(&text))
            .with_context(cannot)?;
        Ok(Record {
            directory: directory.clone(),
            path,
            _locked: file,
        })
    }

    /// Thaws what spotsims left frozen that were killed, and removes their records. Those of
    /// living ones stay. Returns what is to be told of it, a line each.
    fn clear(&self) -> Vec<String> {
        let Self(directory) = self;
        let mut told = Vec::new();
        // All that it costs where there is nothing: without a lock, and whoever's it is.
        let records = records(directory.path());
        if records.is_empty() {
            return told;
        }
        // One that others may write to is not believed.
        let _lock = match directory.lock() {
            Ok(lock) => lock,
            Err(error) => return vec![format!("records of frozen cgroups are left: {error:#}")],
        };
        for path in records {
            match clear(&path) {
                Ok(Some(line)) => told.push(line),
                Ok(None) => {}
                Err(error) => told.push(format!("{}: {error:#}", path.display())),
            }
        }
        told
    }
}

impl Record {
    /// It is thawed, or was never frozen.
    pub fn remove(self) {
        let Self {
            directory,
            path,
            _locked,
        } = self;
        // Else another could lock the file that is removed here, and its own record would be gone.
        let removed = directory
            .lock()
            .and_then(|_lock| Ok(fs::remove_file(&path)?));
        if let Err(error) = removed {
            debug!("cannot remove {}: {error:#}", path.display());
        }
    }
}

/// Thaws what spotsims of this user left frozen that were killed. Returns what is to be told of
/// it, a line each.
pub fn thaw_what_was_left() -> Vec<String> {
    let directory = RunDirectory::default_for_user();
    directory.map_or_else(Vec::new, |directory| Records(directory).clear())
}

/// The records in a directory; none where there is no such directory.
fn records(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.to_string_lossy().ends_with(SUFFIX))
        .collect()
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Undoes what one record tells of, if nobody alive holds it.
fn clear(path: &Path) -> Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    // One that says nothing was cut short: then nothing was frozen yet.
    let frozen: Option<Frozen> = serde_json::from_reader(&file).ok();
    let told = match &frozen {
        Some(frozen) => frozen.thaw()?,
        None => None,
    };
    fs::remove_file(path).context("cannot remove it")?;
    Ok(told)
}

impl Frozen {
    fn thaw(&self) -> Result<Option<String>> {
        let Self {
            cgroup,
            id,
            directory,
        } = self;
        let cannot = || format!("cannot thaw the cgroup {cgroup}, which a killed spotsim froze");
        let files = match Files::at(directory, *id).with_context(cannot)? {
            Some(files) => Some(files),
            // It may be mounted elsewhere for us.
            None => match Cgroup::find_with_id(cgroup, *id).with_context(cannot)? {
                Some(found) => Files::open(&found).with_context(cannot)?,
                None => None,
            },
        };
        let Some(files) = files else {
            return Ok(None);
        };
        let frozen = files.read("cgroup.freeze").with_context(cannot)?;
        // It was killed before it froze it, or after it thawed it.
        if frozen.is_none_or(|frozen| frozen.trim() != "1") {
            return Ok(None);
        }
        files.write("cgroup.freeze", "0").with_context(cannot)?;
        Ok(Some(format!(
            "thawed the cgroup {cgroup}, which a spotsim that was killed had frozen"
        )))
    }
}

#[cfg(test)]
mod tests {
    use std::{env::temp_dir, thread, time::Duration};

    use super::*;

    #[test]
    fn a_record_is_not_removed_while_another_may_be_made() {
        let path = temp_dir().join(format!("spotsim-record-{}", std::process::id()));
        let directory = RunDirectory::new(path.clone());
        directory.make().unwrap();
        let cgroup = Cgroup::plain("/one", path.clone());
        let record = Records(directory.clone()).write(&cgroup).unwrap();
        let lock = directory.lock().unwrap();
        let removing = thread::spawn(move || record.remove());
        thread::sleep(Duration::from_millis(100));
        assert_eq!(records(&path).len(), 1);
        drop(lock);
        removing.join().unwrap();
        assert_eq!(records(&path).len(), 0);
        fs::remove_dir(&path).unwrap();
    }
}
