//! Whom an action is for: which instances, and how many of them.

use std::collections::BTreeMap;

use super::field::{Field, Fields, Invalid};
use crate::{target::Select, timeline::written::words};

/// The only kind of resource that can be interrupted.
const SPOT: &str = "aws:ec2:spot-instance";

/// ARNs in a target, and tags ([AWS: `CreateExperimentTemplateTargetInput`][1]).
///
/// [1]: https://docs.aws.amazon.com/fis/latest/APIReference/API_CreateExperimentTemplateTargetInput.html
const MOST_ARNS: usize = 5;
const MOST_TAGS: usize = 50;

/// A target of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub wanted: Wanted,
    /// All of them must match.
    pub filters: Vec<Filter>,
    pub select: Select,
}

/// What names the instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Instances' ARNs.
    Arns(Vec<String>),
    /// Tags, all of which an instance must have.
    Tags(BTreeMap<String, String>),
}

/// An attribute of an instance, and the values of which it must have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub path: FilterPath,
    pub values: Vec<String>,
}

words! {
    /// An attribute in `ec2:DescribeInstances`, as far as IMDS tells it too.
    "filter path": pub enum FilterPath {
        Architecture = "Architecture",
        Image = "ImageId",
        Instance = "InstanceId",
        Type = "InstanceType",
        SecurityGroup = "NetworkInterfaces.Groups.GroupId",
        Zone = "Placement.AvailabilityZone",
        PrivateIp = "PrivateIpAddress",
        State = "State.Name",
        Subnet = "SubnetId",
        Vpc = "VpcId",
    }
}

impl Scope {
    pub(super) fn read(field: &Field<'_>) -> Result<Self, Invalid> {
        let fields = field.fields(&[
            "resourceType",
            "resourceArns",
            "resourceTags",
            "filters",
            "selectionMode",
            "parameters",
        ])?;
        let kind = fields.required("resourceType")?;
        if kind.word(128)? != SPOT {
            return Err(kind.fault(format!("only {SPOT} can be interrupted")));
        }
        if let Some((_, parameter)) = fields.entries("parameters")?.first() {
            return Err(parameter.fault(format!("{SPOT} has no parameters")));
        }
        Ok(Self {
            wanted: wanted(field, &fields)?,
            filters: filters(&fields)?,
            select: select(fields.required("selectionMode")?)?,
        })
    }
}

fn wanted(field: &Field<'_>, fields: &Fields<'_>) -> Result<Wanted, Invalid> {
    let arns = fields.items("resourceArns")?;
    let tags = fields.entries("resourceTags")?;
    let [of_arns, of_tags] = ["resourceArns", "resourceTags"].map(|name| field.style.spell(name));
    match (arns.is_empty(), tags.is_empty()) {
        (false, false) => Err(field.fault(format!("give {of_arns} or {of_tags}, not both"))),
        (true, true) => Err(field.fault(format!("give {of_arns} or {of_tags}"))),
        (false, true) if arns.len() > MOST_ARNS => {
            let count = arns.len();
            let problem = format!("{count} are more than the {MOST_ARNS} that FIS takes");
            Err(fields.required("resourceArns")?.fault(problem))
        }
        (false, true) => Ok(Wanted::Arns(
            arns.iter().map(arn).collect::<Result<_, _>>()?,
        )),
        (true, false) if tags.len() > MOST_TAGS => {
            let count = tags.len();
            let problem = format!("{count} are more than the {MOST_TAGS} that FIS takes");
            Err(fields.required("resourceTags")?.fault(problem))
        }
        (true, false) => {
            let tag =
                |(key, value): &(&str, Field<'_>)| Ok((tag_key(key, value)?, tag_value(value)?));
            Ok(Wanted::Tags(
                tags.iter().map(tag).collect::<Result<_, _>>()?,
            ))
        }
    }
}

/// Reads `arn:aws:ec2:REGION:ACCOUNT:instance/ID`.
fn arn(field: &Field<'_>) -> Result<String, Invalid> {
    let arn = field.word(super::LONGEST_ARN)?;
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    let is_instance = match parts[..] {
        ["arn", partition, "ec2", region, account, resource] => {
            let id = resource.strip_prefix("instance/");
            !partition.is_empty()
                && !region.is_empty()
                && !account.is_empty()
                && id.is_some_and(|id| id.starts_with("i-"))
        }
        _ => false,
    };
    match is_instance {
        true => Ok(arn),
        false => Err(field.fault(
            "is no instance's ARN, such as \
             arn:aws:ec2:eu-west-1:123456789012:instance/i-0123456789abcdef0",
        )),
    }
}

fn tag_key(key: &str, field: &Field<'_>) -> Result<String, Invalid> {
    const LONGEST: usize = 128;
    match key.chars().count() {
        1..=LONGEST => Ok(key.to_owned()),
        _ => Err(field.fault(format!("a tag's key has 1 to {LONGEST} characters"))),
    }
}

/// It may be empty.
fn tag_value(field: &Field<'_>) -> Result<String, Invalid> {
    match field.is_empty_text() {
        true => Ok(String::new()),
        false => field.text(256),
    }
}

fn filters(fields: &Fields<'_>) -> Result<Vec<Filter>, Invalid> {
    let mut filters = Vec::new();
    for filter in fields.items("filters")? {
        let fields = filter.fields(&["path", "values"])?;
        let path = fields.required("path")?;
        let values = fields.required("values")?;
        let given = values.items()?;
        if given.is_empty() {
            return Err(values.fault("there must be a value"));
        }
        let given = given.iter().map(|value| value.text(128));
        filters.push(Filter {
            path: path
                .word(256)?
                .parse()
                .map_err(|error: String| path.fault(error))?,
            values: given.collect::<Result<_, _>>()?,
        });
    }
    Ok(filters)
}

/// In capitals, as FIS has it.
fn select(field: &Field<'_>) -> Result<Select, Invalid> {
    let text = field.word(64)?;
    let problem = match text.split('(').next() {
        Some("COUNT") => "COUNT(n) takes 1 to 4294967295",
        Some("PERCENT") => "PERCENT(n) takes 1 to 100",
        Some("ALL") => "write ALL alone",
        _ => return Err(field.fault("write ALL, COUNT(n) or PERCENT(n)")),
    };
    text.parse().map_err(|_| field.fault(problem))
}
