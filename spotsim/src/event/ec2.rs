//! What EC2 tells: a Spot interruption, a rebalance recommendation, a change of state.

use serde::Serialize;

use crate::{instance::Identity, timeline::Action};

/// ([AWS: Spot interruption notices][1]). The time of the interruption is not in it.
///
/// [1]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Interruption {
    pub instance_id: String,
    pub instance_action: Action,
}

impl Interruption {
    pub(super) fn of(action: Action, identity: &Identity) -> Self {
        Self {
            instance_id: identity.instance.clone(),
            instance_action: action,
        }
    }
}

/// ([AWS: rebalance recommendations][1])
///
/// [1]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rebalance {
    pub instance_id: String,
}

impl Rebalance {
    pub(super) fn of(identity: &Identity) -> Self {
        let instance_id = identity.instance.clone();
        Self { instance_id }
    }
}

/// ([AWS: state change events][1])
///
/// [1]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-instance-state-changes.html
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StateChange {
    pub instance_id: String,
    /// `shutting-down`, `stopping`, `terminated` or `stopped`.
    pub state: &'static str,
}

impl StateChange {
    /// The instance is on its way down.
    pub(super) fn begun(action: Action, identity: &Identity) -> Self {
        let state = match action {
            Action::Terminate => "shutting-down",
            Action::Stop | Action::Hibernate => "stopping",
        };
        Self::to(state, identity)
    }

    /// The instance is down.
    pub(super) fn done(action: Action, identity: &Identity) -> Self {
        let state = match action {
            Action::Terminate => "terminated",
            Action::Stop | Action::Hibernate => "stopped",
        };
        Self::to(state, identity)
    }

    fn to(state: &'static str, identity: &Identity) -> Self {
        let instance_id = identity.instance.clone();
        Self { instance_id, state }
    }
}
