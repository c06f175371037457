//! What Auto Scaling tells where a lifecycle hook waits for the termination.

use serde::Serialize;

use super::{Detail, derived, unique};
use crate::instance::Identity;

/// Auto Scaling gives each of its instances this tag.
const GROUP_TAG: &str = "aws:autoscaling:groupName";

/// The group of an instance that has no such tag, and the hook of all.
const GROUP: &str = "spotsim";
const HOOK: &str = "spotsim-terminate";

/// ([AWS: lifecycle actions][1])
///
/// [1]: https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-event-reference.html
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LifecycleAction {
    /// A UUID. AWS knows nothing of it: to complete the action there fails.
    pub lifecycle_action_token: String,
    pub auto_scaling_group_name: String,
    pub lifecycle_hook_name: &'static str,
    #[serde(rename = "EC2InstanceId")]
    pub ec2_instance_id: String,
    pub lifecycle_transition: &'static str,
    pub notification_metadata: &'static str,
    pub origin: &'static str,
    pub destination: &'static str,
}

impl LifecycleAction {
    /// With the ARN of the group.
    pub(super) fn of(identity: &Identity) -> (Detail, String) {
        let Identity {
            instance,
            account,
            region,
            partition,
            tags,
            ..
        } = identity;
        let group = tags.get(GROUP_TAG).map_or(GROUP, String::as_str);
        let id = derived(&[account, region, group]);
        let arn = format!(
            "arn:{partition}:autoscaling:{region}:{account}:autoScalingGroup:{id}:autoScalingGroupName/{group}"
        );
        let detail = Detail::LifecycleAction(Self {
            lifecycle_action_token: unique().to_string(),
            auto_scaling_group_name: group.to_owned(),
            lifecycle_hook_name: HOOK,
            ec2_instance_id: instance.clone(),
            lifecycle_transition: "autoscaling:EC2_INSTANCE_TERMINATING",
            notification_metadata: "spotsim",
            origin: "AutoScalingGroup",
            destination: "EC2",
        });
        (detail, arn)
    }
}
