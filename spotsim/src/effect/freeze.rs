//! Freezes a cgroup, and thaws it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use log::{info, warn};

use super::{
    files::Files,
    record::{Record, Records},
    vital,
};
use crate::target::Target;

/// A process that is in the midst of a system call needs a moment.
const FROZEN_WITHIN: Duration = Duration::from_secs(10);

/// A cgroup that we froze. To drop it thaws it.
#[derive(Debug)]
pub struct Frozen {
    files: Files,
    target: String,
    record: Option<Record>,
}

impl Frozen {
    /// Freezes it ([cgroup.freeze][1]) and waits until all its processes are; `None` if it is
    /// gone. Each cgroup beneath that somebody froze stays as it is, then and when it is thawed.
    ///
    /// # Errors
    ///
    /// If it is frozen already: what somebody else froze is theirs to thaw.
    ///
    /// [1]: https://docs.kernel.org/admin-guide/cgroup-v2.html
    pub async fn freeze(records: &Records, target: &Target) -> Result<Option<Self>> {
        let cannot = || format!("cannot freeze {target}");
        vital::check(target)?;
        let Some(files) = Files::open(&target.cgroup).with_context(cannot)? else {
            return Ok(None);
        };
        let before = files.read("cgroup.freeze").with_context(cannot)?;
        if before.is_some_and(|before| before.trim() == "1") {
            bail!("{target} was frozen before by somebody else, and is left as it is");
        }
        let record = records.write(&target.cgroup).with_context(cannot)?;
        // From here on to drop it thaws it.
        let frozen = Self {
            files,
            target: target.to_string(),
            record: Some(record),
        };
        let Self { files, .. } = &frozen;
        let written = files.write("cgroup.freeze", "1");
        written.with_context(|| format!("{}: cgroup.freeze", cannot()))?;
        let done = files.event_within("frozen 1", FROZEN_WITHIN).await;
        if !done.with_context(cannot)? {
            bail!("{target} is not frozen after 10s, and is thawed again");
        }
        Ok(Some(frozen))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let Self {
            files,
            target,
            record,
        } = self;
        match files.write("cgroup.freeze", "0") {
            Ok(there) => {
                if there {
                    info!("{target} is thawed");
                }
                if let Some(record) = record.take() {
                    record.remove();
                }
            }
            // Its record stays: the next command tries again.
            Err(error) => warn!("cannot thaw {target}: {error}"),
        }
    }
}
