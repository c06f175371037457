//! The bodies, field by field against what AWS documents, and as those who consume them read them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::*;
use crate::instance::Network;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn identity() -> Identity {
    Identity {
        instance: "i-1234567890abcdef0".to_owned(),
        account: "123456789012".to_owned(),
        region: "us-east-2".to_owned(),
        partition: "aws".to_owned(),
        zone: "us-east-2a".to_owned(),
        instance_type: "m5.large".to_owned(),
        image: "ami-0123456789abcdef0".to_owned(),
        architecture: "x86_64".to_owned(),
        private_ip: "10.0.0.1".to_owned(),
        network: Network::default(),
        tags: BTreeMap::new(),
    }
}

fn scheduled(code: Code) -> ScheduledEvent {
    ScheduledEvent {
        code,
        appears: at("2026-03-01T12:00:00Z"),
        not_before: at("2026-03-07T09:00:43Z"),
        not_after: Some(at("2026-03-07T11:00:43Z")),
        not_before_deadline: None,
        end: None,
        leaves: None,
        id: "instance-event-0d59937288b749b32".to_owned(),
        description: "scheduled reboot".to_owned(),
    }
}

/// What is sent of an occasion, as JSON.
fn sent(occasion: Occasion) -> Value {
    sent_of(&Told::Occasion(occasion))
}

fn sent_of(told: &Told) -> Value {
    let at = at("2026-03-01T12:00:00.987654321Z");
    let event = Event::of(told, &identity(), at).expect("an event");
    // By its text, since that is what is sent.
    serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap()
}

/// How a field must look. Letters stand for themselves; `#` for a digit, `x` after `\` for one of
/// hexadecimal, `*` for anything but nothing.
fn matches(shape: &str, text: &str) -> bool {
    let mut letters = text.chars();
    let mut shape = shape.chars().peekable();
    while let Some(expected) = shape.next() {
        if expected == '*' {
            let rest: String = shape.collect();
            let text = letters.as_str();
            let mut ends = text
                .char_indices()
                .map(|(at, letter)| at + letter.len_utf8());
            return ends.any(|end| matches(&rest, &text[end..]));
        }
        let Some(letter) = letters.next() else {
            return false;
        };
        let fits = match expected {
            '#' => letter.is_ascii_digit(),
            '\\' => {
                shape.next();
                letter.is_ascii_digit() || ('a'..='f').contains(&letter)
            }
            expected => letter == expected,
        };
        if !fits {
            return false;
        }
    }
    letters.as_str().is_empty()
}

#[test]
fn shapes_match_what_they_should() {
    assert!(matches("#-\\x*", "1-fz"));
    assert!(matches("a*c", "abc"));
    for (shape, text) in [
        ("#", "a"),
        ("#", ""),
        ("#", "12"),
        ("\\x", "g"),
        ("a*", "a"),
        ("a*c", "ac"),
    ] {
        assert!(!matches(shape, text), "{shape} {text}");
    }
}

const UUID: &str = r"\x\x\x\x\x\x\x\x-\x\x\x\x-4\x\x\x-\x\x\x\x-\x\x\x\x\x\x\x\x\x\x\x\x";

/// One of the forms in which a field may be.
enum Form {
    /// A string of this shape.
    Text(&'static str),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A list of one such thing.
    List(&'static [(&'static str, Form)]),
    /// A list of one string of this shape.
    Texts(&'static str),
    Object(&'static [(&'static str, Form)]),
}
use Form::{List, Object, OneOf, Text, Texts};

const ARN: &str = "arn:aws:ec2:us-east-2:123456789012:instance/i-1234567890abcdef0";
const ID: Form = Text("i-1234567890abcdef0");
const DATE: Form = Text("***, ## *** #### ##:##:## GMT");

/// Checks that an object has these fields, and nothing else.
fn check(place: &str, object: &Map<String, Value>, fields: &[(&str, Form)]) {
    let names: BTreeSet<_> = fields.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<_> = object.keys().map(String::as_str).collect();
    assert_eq!(found, names, "{place}");
    for (name, form) in fields {
        let place = format!("{place}.{name}");
        let value = &object[*name];
        let one = || match value.as_array().map(Vec::as_slice) {
            Some([one]) => one,
            _ => panic!("{place}: {value}"),
        };
        let text = |value: &Value| value.as_str().expect(&place).to_owned();
        match form {
            Text(shape) => assert!(
                matches(shape, &text(value)),
                "{place}: {value}, not {shape}"
            ),
            OneOf(words) => assert!(words.contains(&text(value).as_str()), "{place}: {value}"),
            Texts(shape) => assert!(
                matches(shape, &text(one())),
                "{place}: {value}, not {shape}"
            ),
            List(fields) => check(&place, one().as_object().expect(&place), fields),
            Object(fields) => check(&place, value.as_object().expect(&place), fields),
        }
    }
}

/// The envelope of all, with a type, its source, the resource that it names, and its detail.
fn check_event(
    event: &Value,
    detail_type: &'static str,
    source: &'static str,
    resource: &'static str,
    detail: &'static [(&'static str, Form)],
) {
    let fields = [
        ("version", Text("0")),
        ("id", Text(UUID)),
        ("detail-type", Text(detail_type)),
        ("source", Text(source)),
        ("account", Text("############")),
        ("time", Text("2026-03-01T12:00:00Z")),
        ("region", Text("us-east-2")),
        ("resources", Texts(resource)),
        ("detail", Object(detail)),
    ];
    check("event", event.as_object().unwrap(), &fields);
    assert_eq!(event["account"], "123456789012");
}

#[test]
fn an_interruption_warning_is_as_documented() {
    for (action, word) in [
        (Action::Terminate, "terminate"),
        (Action::Stop, "stop"),
        (Action::Hibernate, "hibernate"),
    ] {
        let event = sent(Occasion::Notice(action));
        check_event(
            &event,
            "EC2 Spot Instance Interruption Warning",
            "aws.ec2",
            ARN,
            &[
                ("instance-id", ID),
                (
                    "instance-action",
                    OneOf(&["hibernate", "stop", "terminate"]),
                ),
            ],
        );
        assert_eq!(event["detail"]["instance-action"], word);
    }
}

#[test]
fn a_rebalance_recommendation_is_as_documented() {
    check_event(
        &sent(Occasion::Rebalance),
        "EC2 Instance Rebalance Recommendation",
        "aws.ec2",
        ARN,
        &[("instance-id", ID)],
    );
}

#[test]
fn a_state_change_is_as_documented() {
    for (action, begun, done) in [
        (Action::Terminate, "shutting-down", "terminated"),
        (Action::Stop, "stopping", "stopped"),
        (Action::Hibernate, "stopping", "stopped"),
    ] {
        for (told, state) in [
            (Told::Occasion(Occasion::Deadline(action)), begun),
            (Told::Down(action), done),
        ] {
            let event = sent_of(&told);
            check_event(
                &event,
                "EC2 Instance State-change Notification",
                "aws.ec2",
                ARN,
                &[
                    ("instance-id", ID),
                    (
                        "state",
                        OneOf(&["shutting-down", "terminated", "stopping", "stopped"]),
                    ),
                ],
            );
            assert_eq!(event["detail"]["state"], state);
        }
    }
}

/// The fields that the schema requires, and the lists of it; `endTime` apart.
macro_rules! health_fields {
    ($($more:tt)*) => {
        &[
            ("eventArn", Text("arn:aws:health:us-east-2::event/EC2/AWS_EC2_*_SCHEDULED/AWS_EC2_*_SCHEDULED_*")),
            ("service", Text("EC2")),
            ("eventTypeCode", Text("AWS_EC2_*_SCHEDULED")),
            ("eventTypeCategory", OneOf(&["issue", "accountNotification", "investigation", "scheduledChange"])),
            ("eventScopeCode", OneOf(&["ACCOUNT_SPECIFIC", "PUBLIC"])),
            ("communicationId", Text(r"*-1")),
            ("startTime", DATE),
            ("lastUpdatedTime", DATE),
            ("statusCode", OneOf(&["open", "closed", "upcoming"])),
            ("eventRegion", Text("us-east-2")),
            ("eventDescription", List(&[("language", Text("en_US")), ("latestDescription", Text("*"))])),
            ("affectedEntities", List(&[
                ("entityValue", ID),
                ("lastUpdatedTime", DATE),
                ("status", OneOf(&["IMPAIRED", "UNIMPAIRED", "PENDING", "RESOLVED", "UNKNOWN"])),
            ])),
            ("page", Text("1")),
            ("totalPages", Text("1")),
            ("backupEvent", OneOf(&["true", "false"])),
            ("affectedAccount", Text("############")),
            $($more)*
        ]
    };
}

#[test]
fn a_scheduled_event_is_told_by_aws_health_as_documented() {
    for code in Code::ALL {
        let announced = sent(Occasion::Scheduled(scheduled(*code), State::Active));
        let resource = "i-1234567890abcdef0";
        check_event(
            &announced,
            "AWS Health Event",
            "aws.health",
            resource,
            health_fields!(),
        );
        let detail = &announced["detail"];
        assert_eq!(detail["startTime"], "Sat, 07 Mar 2026 09:00:43 GMT");
        assert_eq!(detail["lastUpdatedTime"], "Sun, 01 Mar 2026 12:00:00 GMT");
        assert_eq!(detail["statusCode"], "upcoming");
        assert_eq!(detail["affectedEntities"][0]["status"], "PENDING");
        assert_eq!(
            detail["eventDescription"][0]["latestDescription"],
            "scheduled reboot"
        );
        let arn = detail["eventArn"].as_str().unwrap();
        let type_code = detail["eventTypeCode"].as_str().unwrap();
        let mut parts = arn.split('/').skip(2);
        assert_eq!(parts.next(), Some(type_code));
        assert!(parts.next().unwrap().starts_with(type_code), "{arn}");
    }
}

#[test]
fn each_code_has_the_type_code_that_consumers_know() {
    let codes = Code::ALL.iter().map(|code| {
        let event = sent(Occasion::Scheduled(scheduled(*code), State::Active));
        let type_code = event["detail"]["eventTypeCode"]
            .as_str()
            .unwrap()
            .to_owned();
        (code.as_str(), type_code)
    });
    let expected = [
        ("instance-stop", "AWS_EC2_INSTANCE_STOP_SCHEDULED"),
        (
            "instance-retirement",
            "AWS_EC2_PERSISTENT_INSTANCE_RETIREMENT_SCHEDULED",
        ),
        (
            "instance-reboot",
            "AWS_EC2_INSTANCE_REBOOT_MAINTENANCE_SCHEDULED",
        ),
        (
            "system-reboot",
            "AWS_EC2_SYSTEM_REBOOT_MAINTENANCE_SCHEDULED",
        ),
        (
            "system-maintenance",
            "AWS_EC2_INSTANCE_NETWORK_MAINTENANCE_SCHEDULED",
        ),
    ];
    let expected = expected.map(|(code, type_code)| (code, type_code.to_owned()));
    assert_eq!(codes.collect::<Vec<_>>(), expected);
}

#[test]
fn aws_health_tells_the_end_of_the_same_event() {
    let event = scheduled(Code::SystemReboot);
    let announced = sent(Occasion::Scheduled(event.clone(), State::Active));
    for (state, status, description) in [
        (State::Completed, "RESOLVED", "[Completed] scheduled reboot"),
        (State::Canceled, "UNIMPAIRED", "[Canceled] scheduled reboot"),
    ] {
        let over = sent(Occasion::Scheduled(event.clone(), state));
        let resource = "i-1234567890abcdef0";
        let fields = health_fields!(("endTime", DATE));
        check_event(&over, "AWS Health Event", "aws.health", resource, fields);
        let (before, after) = (&announced["detail"], &over["detail"]);
        assert_eq!(after["eventArn"], before["eventArn"]);
        assert_ne!(after["communicationId"], before["communicationId"]);
        assert_eq!(after["statusCode"], "closed");
        assert_eq!(after["endTime"], "Sun, 01 Mar 2026 12:00:00 GMT");
        assert_eq!(after["affectedEntities"][0]["status"], status);
        assert_eq!(
            after["eventDescription"][0]["latestDescription"],
            description
        );
    }
    let other = ScheduledEvent {
        id: "instance-event-1".to_owned(),
        ..event
    };
    let other = sent(Occasion::Scheduled(other, State::Active));
    assert_ne!(other["detail"]["eventArn"], announced["detail"]["eventArn"]);
}

#[test]
fn one_that_has_begun_is_open() {
    let mut event = scheduled(Code::SystemReboot);
    event.not_before = at("2026-03-01T12:00:00.987654321Z");
    let event = sent(Occasion::Scheduled(event, State::Active));
    assert_eq!(event["detail"]["statusCode"], "open");
}

const ACTION: &[(&str, Form)] = &[
    ("LifecycleActionToken", Text(UUID)),
    ("AutoScalingGroupName", Text("*")),
    ("LifecycleHookName", Text("*")),
    ("EC2InstanceId", ID),
    (
        "LifecycleTransition",
        Text("autoscaling:EC2_INSTANCE_TERMINATING"),
    ),
    ("NotificationMetadata", Text("*")),
    ("Origin", OneOf(&["EC2", "AutoScalingGroup", "WarmPool"])),
    (
        "Destination",
        OneOf(&["EC2", "AutoScalingGroup", "WarmPool"]),
    ),
];

#[test]
fn a_termination_by_auto_scaling_is_as_documented() {
    let terminated = Told::Occasion(Occasion::LifecycleState(LifecycleState::Terminated));
    let event = sent_of(&terminated);
    let resource = "arn:aws:autoscaling:us-east-2:123456789012:autoScalingGroup:\
                    \\x\\x\\x\\x\\x\\x\\x\\x-\\x\\x\\x\\x-4\\x\\x\\x-\\x\\x\\x\\x-\
                    \\x\\x\\x\\x\\x\\x\\x\\x\\x\\x\\x\\x:autoScalingGroupName/spotsim";
    let detail_type = "EC2 Instance-terminate Lifecycle Action";
    check_event(&event, detail_type, "aws.autoscaling", resource, ACTION);
    let detail = &event["detail"];
    assert_eq!(detail["AutoScalingGroupName"], "spotsim");
    assert_eq!(
        [&detail["Origin"], &detail["Destination"]],
        ["AutoScalingGroup", "EC2"]
    );

    let mut tagged = identity();
    let tag = ("aws:autoscaling:groupName".to_owned(), "my-asg".to_owned());
    tagged.tags.extend([tag]);
    let now = at("2026-03-01T12:00:00Z");
    let arns = [0; 2].map(|_| {
        let event = Event::of(&terminated, &tagged, now).unwrap();
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["detail"]["AutoScalingGroupName"], "my-asg");
        event.resources
    });
    assert!(
        arns[0][0].ends_with(":autoScalingGroupName/my-asg"),
        "{arns:?}"
    );
    assert_eq!(arns[0], arns[1], "a group has one ARN");
}

#[test]
fn other_lifecycle_states_send_nothing() {
    for state in LifecycleState::ALL {
        let told = Told::Occasion(Occasion::LifecycleState(*state));
        let event = Event::of(&told, &identity(), at("2026-03-01T12:00:00Z"));
        assert_eq!(
            event.is_some(),
            *state == LifecycleState::Terminated,
            "{state}"
        );
    }
}

#[test]
fn fields_are_in_the_documented_order() {
    let now = at("2026-03-01T12:00:00Z");
    let told = Told::Occasion(Occasion::Notice(Action::Terminate));
    let mut event = Event::of(&told, &identity(), now).unwrap();
    event.id = "1e5527d7-bb36-4607-3370-4164db56a40e".to_owned();
    let expected = r#"{"version":"0","id":"1e5527d7-bb36-4607-3370-4164db56a40e","detail-type":"EC2 Spot Instance Interruption Warning","source":"aws.ec2","account":"123456789012","time":"2026-03-01T12:00:00Z","region":"us-east-2","resources":["arn:aws:ec2:us-east-2:123456789012:instance/i-1234567890abcdef0"],"detail":{"instance-id":"i-1234567890abcdef0","instance-action":"terminate"}}"#;
    assert_eq!(serde_json::to_string(&event).unwrap(), expected);
}

#[test]
fn each_event_has_an_id_of_its_own_and_tells_its_instance() {
    let told = every();
    let now = at("2026-03-01T12:00:00Z");
    let events = told.iter().chain(&told);
    let events = events.map(|told| Event::of(told, &identity(), now).unwrap());
    let events: Vec<_> = events.collect();
    let ids: BTreeSet<_> = events.iter().map(|event| &event.id).collect();
    assert_eq!(ids.len(), 2 * told.len());
    for event in &events {
        assert_eq!(event.instance(), "i-1234567890abcdef0");
    }
}

#[test]
fn arns_have_the_partition_of_the_region() {
    let mut identity = identity();
    "aws-cn".clone_into(&mut identity.partition);
    "cn-north-1".clone_into(&mut identity.region);
    for told in every() {
        let event = Event::of(&told, &identity, at("2026-03-01T12:00:00Z")).unwrap();
        let json = serde_json::to_string(&event).unwrap();
        let arns: Vec<_> = json
            .match_indices("\"arn:")
            .map(|(at, _)| &json[at + 1..])
            .collect();
        assert_eq!(arns.len(), 1, "{json}");
        assert!(arns[0].starts_with("arn:aws-cn:"), "{json}");
        assert!(arns[0].contains(":cn-north-1:"), "{json}");
        assert_eq!(event.region, "cn-north-1");
    }
}

#[test]
fn all_fields_have_names() {
    let fields = Event::fields();
    for name in [
        "version",
        "id",
        "detail-type",
        "source",
        "account",
        "time",
        "region",
        "resources",
        "resources.0",
        "detail",
        "detail.instance-id",
        "detail.instance-action",
        "detail.state",
        "detail.eventTypeCode",
        "detail.endTime",
        "detail.eventDescription.0.latestDescription",
        "detail.affectedEntities.0.entityValue",
        "detail.AutoScalingGroupName",
        "detail.EC2InstanceId",
    ] {
        assert!(fields.contains(name), "{name}: {fields:?}");
    }
    assert!(!fields.contains(""));
}

/// One of each type of which an event is sent.
fn every() -> Vec<Told> {
    let occasions = [
        Occasion::Rebalance,
        Occasion::Notice(Action::Terminate),
        Occasion::Deadline(Action::Stop),
        Occasion::Scheduled(scheduled(Code::InstanceStop), State::Active),
        Occasion::LifecycleState(LifecycleState::Terminated),
    ];
    let occasions = occasions.into_iter().map(Told::Occasion);
    occasions.chain([Told::Down(Action::Terminate)]).collect()
}

/// What aws-node-termination-handler would drain, by its kind, as its SQS monitor reads a message
/// (`pkg/monitor/sqsevent`): by source, then detail-type, then what it requires of the detail.
fn node_termination_handler(message: &str) -> Result<(&'static str, Vec<String>), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct EventBridgeEvent {
        id: String,
        detail_type: String,
        source: String,
        time: String,
        detail: Value,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct LifecycleDetail {
        lifecycle_action_token: String,
        auto_scaling_group_name: String,
        lifecycle_hook_name: String,
        #[serde(rename = "EC2InstanceId")]
        ec2_instance_id: String,
        lifecycle_transition: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Ec2Detail {
        instance_id: String,
        #[serde(default)]
        state: Option<String>,
        #[serde(default)]
        instance_action: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ScheduledChangeDetail {
        event_type_category: String,
        service: String,
        affected_entities: Vec<AffectedEntity>,
    }

    let event: EventBridgeEvent = serde_json::from_str(message).map_err(|e| e.to_string())?;
    assert!(!event.id.is_empty());
    // Its time is parsed as RFC 3339, and is 0001-01-01 if that fails.
    event.time.parse::<Timestamp>().map_err(|e| e.to_string())?;
    let detail = event.detail;
    match (event.source.as_str(), event.detail_type.as_str()) {
        ("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action") => {
            let detail: LifecycleDetail =
                serde_json::from_value(detail).map_err(|e| e.to_string())?;
            if detail.lifecycle_transition == "autoscaling:TEST_NOTIFICATION" {
                return Err("message is an ASG test notification".to_owned());
            }
            // It completes the action with these.
            for field in [
                detail.lifecycle_action_token,
                detail.auto_scaling_group_name,
                detail.lifecycle_hook_name,
            ] {
                assert!(!field.is_empty());
            }
            Ok(("ASG_LIFECYCLE", vec![detail.ec2_instance_id]))
        }
        ("aws.ec2", detail_type) => {
            let detail: Ec2Detail = serde_json::from_value(detail).map_err(|e| e.to_string())?;
            let kind = match detail_type {
                "EC2 Instance State-change Notification" => {
                    let state = detail.state.ok_or("no state")?;
                    let drained = "stopping,stopped,shutting-down,terminated";
                    if !drained.contains(&state.to_lowercase()) {
                        return Err(format!("{state} is not drained"));
                    }
                    "STATE_CHANGE"
                }
                "EC2 Spot Instance Interruption Warning" => {
                    detail.instance_action.ok_or("no action")?;
                    "SPOT_ITN"
                }
                "EC2 Instance Rebalance Recommendation" => "REBALANCE_RECOMMENDATION",
                other => return Err(format!("{other} is not supported")),
            };
            Ok((kind, vec![detail.instance_id]))
        }
        ("aws.health", "AWS Health Event") => {
            let detail: ScheduledChangeDetail =
                serde_json::from_value(detail).map_err(|e| e.to_string())?;
            if detail.service != "EC2" || detail.event_type_category != "scheduledChange" {
                return Err(format!("{} is not supported", detail.service));
            }
            let entities = detail.affected_entities.into_iter();
            let ids = entities.map(|entity| entity.entity_value).collect();
            Ok(("SCHEDULED_EVENT", ids))
        }
        (source, _) => Err(format!("event source ({source}) is not supported")),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AffectedEntity {
    entity_value: String,
}

/// What Karpenter makes of a message, as its interruption controller reads it
/// (`pkg/controllers/interruption`): a parser is chosen by version, source and detail-type; what
/// has none, or is of no interest, is a no-op.
fn karpenter(message: &str) -> Option<(&'static str, Vec<String>)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Metadata {
        // Go's decoder would leave them empty; here they must be there.
        #[expect(dead_code, reason = "what is read must be there")]
        account: String,
        detail_type: String,
        #[expect(dead_code, reason = "what is read must be there")]
        id: String,
        #[expect(dead_code, reason = "what is read must be there")]
        region: String,
        #[expect(dead_code, reason = "what is read must be there")]
        resources: Vec<String>,
        source: String,
        // Go's time.Time: RFC 3339, or the whole message is an error.
        #[expect(dead_code, reason = "what is read must be there")]
        time: Timestamp,
        version: String,
        detail: Value,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ScheduledChange {
        #[serde(rename = "eventArn")]
        _event_arn: String,
        #[serde(rename = "eventTypeCode")]
        _event_type_code: String,
        service: String,
        #[serde(rename = "eventDescription")]
        _event_description: Vec<Description>,
        #[serde(rename = "startTime")]
        _start_time: String,
        event_type_category: String,
        affected_entities: Vec<AffectedEntity>,
    }
    #[derive(Deserialize)]
    struct Description {
        #[serde(rename = "latestDescription")]
        _latest_description: String,
        #[serde(rename = "language")]
        _language: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Instance {
        instance_id: String,
        #[serde(default)]
        state: String,
    }

    let metadata: Metadata = serde_json::from_str(message).unwrap();
    if metadata.version != "0" {
        return None;
    }
    let detail = metadata.detail;
    match (metadata.source.as_str(), metadata.detail_type.as_str()) {
        ("aws.health", "AWS Health Event") => {
            let detail: ScheduledChange = serde_json::from_value(detail).unwrap();
            let accepted =
                detail.service == "EC2" && detail.event_type_category == "scheduledChange";
            let entities = detail.affected_entities.into_iter();
            accepted.then(|| {
                let ids = entities.map(|entity| entity.entity_value).collect();
                ("ScheduledChangeKind", ids)
            })
        }
        ("aws.ec2", detail_type) => {
            let detail: Instance = serde_json::from_value(detail).unwrap();
            let kind = match detail_type {
                "EC2 Spot Instance Interruption Warning" => "SpotInterruptionKind",
                "EC2 Instance Rebalance Recommendation" => "RebalanceRecommendationKind",
                "EC2 Instance State-change Notification" => match detail.state.as_str() {
                    "stopping" | "shutting-down" => "StateChangeKind (going)",
                    "stopped" | "terminated" => "StateChangeKind (gone)",
                    _ => return None,
                },
                _ => return None,
            };
            Some((kind, vec![detail.instance_id]))
        }
        _ => None,
    }
}

#[test]
fn node_termination_handler_and_karpenter_act_on_them() {
    let kinds: Vec<_> = every()
        .iter()
        .map(|told| {
            let message = sent_of(told).to_string();
            let (nth, instances) = node_termination_handler(&message).expect(&message);
            assert_eq!(instances, ["i-1234567890abcdef0"]);
            let karpenter = karpenter(&message).map(|(kind, instances)| {
                assert_eq!(instances, ["i-1234567890abcdef0"]);
                kind
            });
            (nth, karpenter)
        })
        .collect();
    let expected = [
        (
            "REBALANCE_RECOMMENDATION",
            Some("RebalanceRecommendationKind"),
        ),
        ("SPOT_ITN", Some("SpotInterruptionKind")),
        ("STATE_CHANGE", Some("StateChangeKind (going)")),
        ("SCHEDULED_EVENT", Some("ScheduledChangeKind")),
        // Karpenter has no parser for Auto Scaling.
        ("ASG_LIFECYCLE", None),
        ("STATE_CHANGE", Some("StateChangeKind (gone)")),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn their_parsers_refuse_what_they_refuse() {
    let mut event = sent(Occasion::Notice(Action::Stop));
    event["source"] = json!("spotsim");
    assert!(node_termination_handler(&event.to_string()).is_err());
    assert_eq!(karpenter(&event.to_string()), None);
    let mut event = sent(Occasion::Deadline(Action::Stop));
    event["detail"]["state"] = json!("running");
    assert!(node_termination_handler(&event.to_string()).is_err());
    assert_eq!(karpenter(&event.to_string()), None);
}
