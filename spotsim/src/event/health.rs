//! What AWS Health tells of scheduled maintenance.

use jiff::Timestamp;
use serde::Serialize;

use super::{derived, unique};
use crate::{
    instance::Identity,
    timeline::{Code, ScheduledEvent, State},
};

/// With all fields that are required ([AWS: schema of AWS Health events][1]).
///
/// [1]: https://docs.aws.amazon.com/health/latest/ug/aws-health-events-eventbridge-schema.html
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// The same for all that is told of one scheduled event.
    pub event_arn: String,
    pub service: &'static str,
    pub event_type_code: &'static str,
    pub event_type_category: &'static str,
    pub event_scope_code: &'static str,
    /// Ends in the number of the page.
    pub communication_id: String,
    /// When it happens at the earliest, as the other times in the form `Sat, 05 Jun 2016 15:10:09
    /// GMT`.
    pub start_time: String,
    /// When it was over. There is none as long as that lies in the future.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    pub last_updated_time: String,
    /// `upcoming`, `open` or `closed`.
    pub status_code: &'static str,
    pub event_region: String,
    pub event_description: [Text; 1],
    pub affected_entities: [Entity; 1],
    pub page: &'static str,
    pub total_pages: &'static str,
    pub backup_event: &'static str,
    pub affected_account: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Text {
    pub language: &'static str,
    pub latest_description: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entity {
    /// The id of the instance, which is what consumers look up.
    pub entity_value: String,
    pub last_updated_time: String,
    /// `PENDING`, and in the end `RESOLVED` or `UNIMPAIRED`.
    pub status: &'static str,
}

impl Health {
    pub(super) fn of(
        event: &ScheduledEvent,
        state: State,
        identity: &Identity,
        at: Timestamp,
    ) -> Self {
        let Identity {
            instance,
            account,
            region,
            partition,
            ..
        } = identity;
        let ScheduledEvent {
            code,
            not_before,
            id,
            description,
            ..
        } = event;
        let code = type_code(*code);
        let number = derived(&[account, region, instance, id]);
        let (status_code, status, prefix) = match state {
            State::Active if at < *not_before => ("upcoming", "PENDING", ""),
            State::Active => ("open", "PENDING", ""),
            State::Completed => ("closed", "RESOLVED", "[Completed] "),
            State::Canceled => ("closed", "UNIMPAIRED", "[Canceled] "),
        };
        Self {
            event_arn: format!("arn:{partition}:health:{region}::event/EC2/{code}/{code}_{number}"),
            service: "EC2",
            event_type_code: code,
            event_type_category: "scheduledChange",
            event_scope_code: "ACCOUNT_SPECIFIC",
            communication_id: format!("{}-1", unique().simple()),
            start_time: rfc1123(*not_before),
            end_time: (state != State::Active).then(|| rfc1123(at)),
            last_updated_time: rfc1123(at),
            status_code,
            event_region: region.clone(),
            event_description: [Text {
                language: "en_US",
                latest_description: format!("{prefix}{description}"),
            }],
            affected_entities: [Entity {
                entity_value: instance.clone(),
                last_updated_time: rfc1123(at),
                status,
            }],
            page: "1",
            total_pages: "1",
            backup_event: "false",
            affected_account: account.clone(),
        }
    }
}

/// AWS documents no table of these. A retirement is that of an instance with an EBS root, as
/// nearly all have; maintenance of the system is about its network or its power.
fn type_code(code: Code) -> &'static str {
    match code {
        Code::InstanceStop => "AWS_EC2_INSTANCE_STOP_SCHEDULED",
        Code::InstanceRetirement => "AWS_EC2_PERSISTENT_INSTANCE_RETIREMENT_SCHEDULED",
        Code::InstanceReboot => "AWS_EC2_INSTANCE_REBOOT_MAINTENANCE_SCHEDULED",
        Code::SystemReboot => "AWS_EC2_SYSTEM_REBOOT_MAINTENANCE_SCHEDULED",
        Code::SystemMaintenance => "AWS_EC2_INSTANCE_NETWORK_MAINTENANCE_SCHEDULED",
    }
}

fn rfc1123(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
