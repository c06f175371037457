use super::*;
use crate::target::Select;

const ONE_OF_A_TAG: &str = include_str!("../../../../tests/templates/one-of-a-tag.json");
const HALF_OF_A_GROUP: &str = include_str!("../../../../tests/templates/half-of-a-group.json");
const TWO_IN_TURN: &str = include_str!("../../../../tests/templates/two-in-turn.yaml");
const CDK: &str = include_str!("../../../../tests/templates/Spot.template.json");

fn read(text: &str, reading: Reading<'_>) -> Result<Template, String> {
    let format = format_of(Path::new("-"), text);
    let node = Node::parse(text, format).map_err(|error| error.to_string())?;
    Template::of(&node, reading).map_err(|error| error.to_string())
}

fn template(text: &str) -> Template {
    read(text, Reading::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// What is wrong with a template that has this instead of that.
fn fault(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?}");
    let error = read(&text.replace(from, to), Reading::default()).unwrap_err();
    assert!(!error.contains('\n'), "{error:?}");
    error
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

fn interrupt(target: &str, before: i64, after: &[&str]) -> Action {
    Action {
        kind: Kind::Interrupt {
            target: target.to_owned(),
            before: seconds(before),
        },
        after: after.iter().map(|&name| name.to_owned()).collect(),
    }
}

fn tags(pairs: &[(&str, &str)]) -> Wanted {
    let pairs = pairs
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()));
    Wanted::Tags(pairs.collect())
}

fn filter(path: FilterPath, values: &[&str]) -> Filter {
    Filter {
        path,
        values: values.iter().map(|&value| value.to_owned()).collect(),
    }
}

#[test]
fn what_get_experiment_template_prints() {
    let template = template(ONE_OF_A_TAG);
    let expected = interrupt("oneSpotInstance", 120, &[]);
    assert_eq!(
        template.actions,
        [("interruptSpotInstance".to_owned(), expected)].into()
    );
    let scope = Scope {
        wanted: tags(&[("app", "web")]),
        filters: vec![filter(FilterPath::State, &["running"])],
        select: "COUNT(1)".parse().unwrap(),
    };
    assert_eq!(
        template.targets,
        [("oneSpotInstance".to_owned(), scope)].into()
    );
    assert_eq!(template.if_empty, IfEmpty::Fail);
    assert_eq!((template.alarms.len(), template.ignored.len()), (0, 0));
    assert_eq!(template.given["id"], "EXT6oWVA1WrLNy4XS");
}

#[test]
fn what_create_experiment_template_takes() {
    let template = template(HALF_OF_A_GROUP);
    let scope = &template.targets["SpotInstancesInASG"];
    assert_eq!(
        scope.wanted,
        tags(&[("aws:autoscaling:groupName", "EC2SpotWorkshopASG")])
    );
    assert_eq!(scope.select, "PERCENT(50)".parse().unwrap());
    assert_eq!(
        scope.filters[1],
        filter(FilterPath::Zone, &["eu-central-1a", "eu-central-1b"])
    );
}

#[test]
fn what_cloudformation_takes() {
    let template = template(TWO_IN_TURN);
    let wait = Action {
        kind: Kind::Wait(seconds(60)),
        after: vec!["interrupt-web".to_owned()],
    };
    let expected = [
        ("interrupt-batch", interrupt("batch-tier", 120, &["settle"])),
        ("interrupt-web", interrupt("web-tier", 180, &[])),
        ("settle", wait),
    ];
    let expected = expected.map(|(name, action)| (name.to_owned(), action));
    assert_eq!(template.actions, expected.into());
    assert_eq!(
        template.targets["web-tier"].wanted,
        tags(&[("fis-ready", "true"), ("tier", "web")])
    );
    assert_eq!(template.targets["batch-tier"].select, Select::All);
    assert_eq!(template.if_empty, IfEmpty::Skip);
    assert_eq!(
        template.alarms,
        ["Resources.SpotInterruptions.Properties.StopConditions[0]"]
    );
    assert_eq!(
        template.ignored,
        [
            "Resources.SpotInterruptions.Properties.LogConfiguration: no log is delivered here; \
          --record FILE keeps a record"
        ]
    );
    assert_eq!(template.given["RoleArn"]["Fn::GetAtt"], "FisRole.Arn");
}

/// As the EC2 Spot workshops have it: how many, and how long, are parameters.
#[test]
fn the_defaults_of_parameters_are_taken() {
    let parameters = "\
        Parameters:\n  Minutes: {Type: Number, Default: 3}\n  Tier: {Type: String}\n";
    let text = TWO_IN_TURN
        .replace("Parameters:\n", parameters)
        .replace("PT3M", "!Join ['', [PT, !Ref Minutes, M]]");
    let filled = template(&text);
    assert_eq!(filled.actions, template(TWO_IN_TURN).actions);
    assert!(
        filled
            .ignored
            .contains(&"Parameters.Minutes: its default is taken: 3".to_owned())
    );
    // The record has what was given.
    assert!(filled.given.to_string().contains("Fn::Join"));
    assert_eq!(
        fault(&text, "tier: web", "tier: !Ref Tier"),
        "Resources.SpotInterruptions.Properties.Targets.web-tier.ResourceTags.tier: Ref is only \
         known to CloudFormation: give the deployed template, as `aws fis \
         get-experiment-template` prints it"
    );
}

#[test]
fn of_several_resources_one_is_chosen() {
    let of = |resource| {
        read(
            CDK,
            Reading {
                resource,
                ..Reading::default()
            },
        )
    };
    assert_eq!(
        of(None).unwrap_err(),
        "Resources: several are AWS::FIS::ExperimentTemplate: choose one of OneSpot3F21, \
         Other77C0 with --resource"
    );
    assert_eq!(
        of(Some("FisRole9A1B")).unwrap_err(),
        "Resources: \"FisRole9A1B\" is no AWS::FIS::ExperimentTemplate (--resource); there are \
         OneSpot3F21, Other77C0"
    );
    let one = of(Some("OneSpot3F21")).unwrap();
    let arn = "arn:aws:ec2:eu-central-1:123456789012:instance/i-0123456789abcdef0";
    assert_eq!(
        one.targets["one"].wanted,
        Wanted::Arns(vec![arn.to_owned()])
    );
    assert_eq!(
        of(Some("Other77C0")).unwrap_err(),
        "Resources.Other77C0.Properties.Actions.interrupt.Parameters.durationBeforeInterruption: \
         Ref is only known to CloudFormation: give the deployed template, as \
         `aws fis get-experiment-template` prints it"
    );
    assert!(
        fault(HALF_OF_A_GROUP, "\"stopConditions\"", "\"stopCondition\"")
            .starts_with("stopCondition: unknown field; there are description, ")
    );
    let resource = Some("x");
    let error = read(
        HALF_OF_A_GROUP,
        Reading {
            resource,
            ..Reading::default()
        },
    );
    assert!(error.unwrap_err().contains("there are no Resources"));
    assert_eq!(
        read("Resources: {A: {Type: AWS::EC2::VPC}}", Reading::default()).unwrap_err(),
        "Resources: none is AWS::FIS::ExperimentTemplate"
    );
}

#[test]
fn a_resource_alone_is_read() {
    let node = Node::parse(TWO_IN_TURN, Format::Yaml).unwrap();
    let resource = node
        .get("Resources")
        .unwrap()
        .get("SpotInterruptions")
        .unwrap();
    let text = resource.to_json().to_string();
    assert_eq!(template(&text).actions, template(TWO_IN_TURN).actions);
    let error = read(&text.replace("PT3M", "PT1M"), Reading::default()).unwrap_err();
    assert!(
        error.starts_with(
            "Properties.Actions.interrupt-web.Parameters.durationBeforeInterruption: is less"
        ),
        "{error}"
    );
}

/// All that FIS refuses, and what is refused here alone.
#[test]
fn an_error_names_the_path_as_it_is_written() {
    for (from, to, expected) in [
        (
            "\"SpotInstances\": \"SpotInstancesInASG\"",
            "\"SpotInstances\": \"other\"",
            "actions.interruptSpotInstances.targets.SpotInstances: there is no target \"other\"; \
             there is SpotInstancesInASG",
        ),
        (
            "aws:ec2:send-spot-instance-interruptions",
            "aws:ec2:stop-instances",
            "actions.interruptSpotInstances.actionId: aws:ec2:stop-instances cannot be run here; \
             what can is aws:ec2:send-spot-instance-interruptions and aws:fis:wait",
        ),
        (
            "PERCENT(50)",
            "COUNT(0)",
            "targets.SpotInstancesInASG.selectionMode: COUNT(n) takes 1 to 4294967295",
        ),
        (
            "PERCENT(50)",
            "PERCENT(0)",
            "targets.SpotInstancesInASG.selectionMode: PERCENT(n) takes 1 to 100",
        ),
        (
            "PERCENT(50)",
            "PERCENT(101)",
            "targets.SpotInstancesInASG.selectionMode: PERCENT(n) takes 1 to 100",
        ),
        (
            "PERCENT(50)",
            "count(1)",
            "targets.SpotInstancesInASG.selectionMode: write ALL, COUNT(n) or PERCENT(n)",
        ),
        (
            "\"PT2M\"",
            "\"PT1M\"",
            "actions.interruptSpotInstances.parameters.durationBeforeInterruption: is less than \
             2m, and FIS takes no less; --allow-short does",
        ),
        (
            "\"PT2M\"",
            "\"PT16M\"",
            "actions.interruptSpotInstances.parameters.durationBeforeInterruption: is more than \
             15m, and FIS takes no more",
        ),
        (
            "\"PT2M\"",
            "\"20m\"",
            "actions.interruptSpotInstances.parameters.durationBeforeInterruption: not a duration \
             as ISO 8601 has it; write it like PT2M or PT150S",
        ),
        (
            "\"PT2M\"",
            "120",
            "actions.interruptSpotInstances.parameters.durationBeforeInterruption: must be a \
             string, not a number: write it in quotes",
        ),
        (
            "durationBeforeInterruption",
            "DurationBeforeInterruption",
            "actions.interruptSpotInstances.parameters.DurationBeforeInterruption: unknown \
             parameter; there is durationBeforeInterruption",
        ),
        (
            "\"durationBeforeInterruption\": \"PT2M\"",
            "",
            "actions.interruptSpotInstances.parameters.durationBeforeInterruption: is required",
        ),
        (
            "\"SpotInstances\":",
            "\"Instances\":",
            "actions.interruptSpotInstances.targets.Instances: unknown target; \
             aws:ec2:send-spot-instance-interruptions has SpotInstances",
        ),
        (
            "\"resourceType\": \"aws:ec2:spot-instance\"",
            "\"resourceType\": \"aws:ec2:instance\"",
            "targets.SpotInstancesInASG.resourceType: only aws:ec2:spot-instance can be \
             interrupted",
        ),
        (
            "\"resourceType\": \"aws:ec2:spot-instance\",",
            "",
            "targets.SpotInstancesInASG.resourceType: is required",
        ),
        (
            "\"selectionMode\":",
            "\"resourceArns\": [\"arn:aws:ec2:r:1:instance/i-1\"], \"selectionMode\":",
            "targets.SpotInstancesInASG: give resourceArns or resourceTags, not both",
        ),
        (
            "\"aws:autoscaling:groupName\": \"EC2SpotWorkshopASG\"",
            "",
            "targets.SpotInstancesInASG: give resourceArns or resourceTags",
        ),
        (
            "State.Name",
            "Placement.Tenancy",
            "targets.SpotInstancesInASG.filters[0].path: unknown filter path; use one of \
             Architecture, ImageId, InstanceId, InstanceType, NetworkInterfaces.Groups.GroupId, Placement.AvailabilityZone, \
             PrivateIpAddress, State.Name, SubnetId, VpcId",
        ),
        (
            "[\"running\"]",
            "\"running\"",
            "targets.SpotInstancesInASG.filters[0].values: must be a list, not a string",
        ),
        (
            "[\"running\"]",
            "[]",
            "targets.SpotInstancesInASG.filters[0].values: there must be a value",
        ),
        (
            "{\n            \"source\": \"none\"",
            "{\n            \"source\": \"aws:cloudwatch:alarms\"",
            "stopConditions[0].source: use none or aws:cloudwatch:alarm",
        ),
        (
            "\"source\": \"none\"",
            "\"source\": \"aws:cloudwatch:alarm\"",
            "stopConditions[0].value: is required",
        ),
        (
            "\"tags\": {}",
            "\"tags\": {}, \"experimentOptions\": {\"accountTargeting\": \"multi-account\"}",
            "experimentOptions.accountTargeting: workloads of other accounts cannot be found from \
             here: run it with single-account",
        ),
        (
            "\"tags\": {}",
            "\"tags\": {}, \"experimentOptions\": {\"emptyTargetResolutionMode\": \"ignore\"}",
            "experimentOptions.emptyTargetResolutionMode: use fail or skip",
        ),
        (
            "\"tags\": {}",
            "\"tags\": {\"a\": \"1\", \"a\": \"2\"}",
            "tags.a: is there twice",
        ),
        (
            "\"tags\": {}",
            "\"tags\": {\"example.com/a b\": 1}",
            "tags[\"example.com/a b\"]: must be a string, not a number: write it in quotes",
        ),
        (
            "\"roleArn\": \"arn:aws:iam::123456789012:role/AllowFISActions\",",
            "",
            "roleArn: is required",
        ),
        (
            "\"description\": \"Test Spot Instance interruptions\",",
            "",
            "description: is required",
        ),
        (
            "\"interruptSpotInstances\": {",
            "\"interrupt Spot\": {",
            "actions[\"interrupt Spot\"]: FIS takes no spaces in a name",
        ),
    ] {
        assert_eq!(fault(HALF_OF_A_GROUP, from, to), expected);
    }
}

#[test]
fn long_names_and_many_arns_are_refused() {
    let long = "x".repeat(65);
    let error = fault(
        HALF_OF_A_GROUP,
        "\"interruptSpotInstances\"",
        &format!("{long:?}"),
    );
    assert!(
        error.ends_with("has 65 characters, of which FIS takes no more than 64"),
        "{error}"
    );
    let arn = "\"arn:aws:ec2:eu-central-1:123456789012:instance/i-0123456789abcdef0\"";
    let several = [arn; 6].join(", ");
    let of = |to: &str| {
        let resource = Some("OneSpot3F21");
        read(
            &CDK.replace(arn, to),
            Reading {
                resource,
                ..Reading::default()
            },
        )
        .unwrap_err()
    };
    let place = "Resources.OneSpot3F21.Properties.Targets.one.ResourceArns";
    assert_eq!(
        of(&several),
        format!("{place}: 6 are more than the 5 that FIS takes")
    );
    for bad in [
        "i-0123456789abcdef0",
        "arn:aws:ec2:eu-central-1:123456789012:volume/vol-1",
        "arn:aws:ec2:*:*:instance/*",
    ] {
        let error = of(&format!("{bad:?}"));
        assert!(
            error.starts_with(&format!("{place}[0]: is no instance's ARN")),
            "{error}"
        );
    }
}

#[test]
fn what_comes_after_what_is_checked() {
    let actions = "Resources.SpotInterruptions.Properties.Actions";
    assert_eq!(
        fault(TWO_IN_TURN, "StartAfter: [settle]", "StartAfter: [settled]"),
        format!(
            "{actions}.interrupt-batch.StartAfter: there is no action \"settled\"; there are \
             interrupt-batch, interrupt-web, settle"
        )
    );
    assert_eq!(
        fault(
            TWO_IN_TURN,
            "StartAfter: [interrupt-web]",
            "StartAfter: [interrupt-batch]"
        ),
        format!(
            "{actions}.settle.StartAfter: each waits for the next, for ever: settle -> \
             interrupt-batch -> settle"
        )
    );
    assert_eq!(
        fault(
            TWO_IN_TURN,
            "StartAfter: [settle]",
            "StartAfter: [interrupt-web, interrupt-batch]"
        ),
        format!(
            "{actions}.interrupt-batch.StartAfter: each waits for the next, for ever: \
             interrupt-batch -> interrupt-batch"
        )
    );
}

#[test]
fn shorter_ones_are_allowed_on_demand() {
    let of = |duration: &str| {
        let text = HALF_OF_A_GROUP.replace("PT2M", duration);
        let allow_short = true;
        read(
            &text,
            Reading {
                allow_short,
                ..Reading::default()
            },
        )
    };
    let is = |duration: &str, before| {
        let actions = of(duration).unwrap().actions;
        assert_eq!(
            actions["interruptSpotInstances"],
            interrupt("SpotInstancesInASG", before, &[])
        );
    };
    is("PT1S", 1);
    is("PT1M30S", 90);
    is("PT15M", 900);
    for (duration, problem) in [
        ("PT0S", "must be a second or more"),
        ("PT1.5S", "write whole seconds"),
        ("PT15M1S", "is more than 15m, and FIS takes no more"),
        ("-PT2M", "not a duration"),
        ("P1D", "not a duration"),
        ("PT", "not a duration"),
    ] {
        let error = of(duration).unwrap_err();
        assert!(error.contains(problem), "{duration}: {error}");
    }
}

#[test]
fn the_two_minutes_of_a_notice_are_kept() {
    let armed_at: jiff::Timestamp = "2026-12-01T10:00:00.25Z".parse().unwrap();
    for (before, appears, deadline) in [
        (300, "2026-12-01T10:03:00.25Z", "2026-12-01T10:05:01Z"),
        (120, "2026-12-01T10:00:00.25Z", "2026-12-01T10:02:01Z"),
        (5, "2026-12-01T10:00:00.25Z", "2026-12-01T10:00:06Z"),
    ] {
        let plan = interruption(seconds(before));
        let timeline = plan.arm(armed_at).unwrap();
        let notice = timeline.notice().unwrap();
        assert_eq!(notice.appears, appears.parse().unwrap());
        assert_eq!(notice.deadline, deadline.parse().unwrap());
        let (first, occasion) = &timeline.occasions()[0];
        assert_eq!(*first, armed_at);
        assert_eq!(*occasion, crate::timeline::Occasion::Rebalance);
    }
}
