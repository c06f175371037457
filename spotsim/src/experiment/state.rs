//! How far an experiment is, and each of its actions.

use crate::timeline::written::words;

words! {
    /// As FIS has them ([experiments][1], [actions][2]). An experiment is never skipped, and
    /// cancelled only where FIS has a safety lever, which there is none of here.
    ///
    /// [1]: https://docs.aws.amazon.com/fis/latest/APIReference/API_ExperimentState.html
    /// [2]: https://docs.aws.amazon.com/fis/latest/APIReference/API_ExperimentActionState.html
    "state": pub enum State {
        Pending = "pending",
        Initiating = "initiating",
        Running = "running",
        Completed = "completed",
        Stopping = "stopping",
        Stopped = "stopped",
        Failed = "failed",
        /// An action that had not begun when the experiment ended.
        Cancelled = "cancelled",
        /// An action that was left out.
        Skipped = "skipped",
    }
}

impl State {
    /// Whether it stays like this.
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Initiating | Self::Running | Self::Stopping => false,
            Self::Completed | Self::Stopped | Self::Failed | Self::Cancelled | Self::Skipped => {
                true
            }
        }
    }

    /// Whether this can come after that.
    pub fn can_follow(self, before: Self) -> bool {
        match before {
            Self::Pending => matches!(
                self,
                Self::Initiating | Self::Stopping | Self::Failed | Self::Cancelled | Self::Skipped
            ),
            Self::Initiating => matches!(self, Self::Running | Self::Stopping | Self::Failed),
            Self::Running => matches!(self, Self::Completed | Self::Stopping | Self::Failed),
            Self::Stopping => matches!(self, Self::Stopped | Self::Failed),
            _ => false,
        }
    }
}
