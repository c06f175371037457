//! Where in a file the template is: what FIS prints, what it takes, or CloudFormation's resource.

use super::{
    Invalid,
    field::{Field, Style},
    tree::Node,
};
use crate::document::printable;

const TYPE: &str = "AWS::FIS::ExperimentTemplate";

/// Fields of both styles.
const FIELDS: [&str; 9] = [
    "description",
    "targets",
    "actions",
    "stopConditions",
    "roleArn",
    "tags",
    "logConfiguration",
    "experimentOptions",
    "experimentReportConfiguration",
];

/// Fields of the API alone: what `create-experiment-template` takes besides, and what
/// `get-experiment-template` prints.
const OF_API: [&str; 6] = [
    "clientToken",
    "id",
    "arn",
    "creationTime",
    "lastUpdateTime",
    "targetAccountConfigurationsCount",
];

/// The fields that a template has.
pub fn known(style: Style) -> Vec<&'static str> {
    match style {
        Style::Api => [&FIELDS[..], &OF_API].concat(),
        Style::CloudFormation => FIELDS.to_vec(),
    }
}

/// Finds the template in a file, by the logical ID of its resource if there are several.
pub fn template<'a>(root: &'a Node, resource: Option<&str>) -> Result<Field<'a>, Invalid> {
    let whole = |style| Field {
        node: root,
        path: String::new(),
        style,
    };
    if let Some(resources) = root.get("Resources") {
        let all = whole(Style::CloudFormation).child("Resources", resources);
        return properties(&chosen(&all, resource)?);
    }
    if let Some(name) = resource {
        return Err(whole(Style::Api).fault(format!(
            "there are no Resources, and so no {:?} (--resource)",
            printable(name)
        )));
    }
    if root.get("Type").is_some() && root.get("Properties").is_some() {
        let alone = whole(Style::CloudFormation);
        if !is_template(root) {
            return Err(alone.child("Type", root).fault(format!("is not {TYPE}")));
        }
        return properties(&alone);
    }
    if let Some(inner) = root.get("experimentTemplate") {
        return Ok(whole(Style::Api).child("experimentTemplate", inner));
    }
    if root.get("experiment").is_some() {
        return Err(whole(Style::Api).fault(
            "this is an experiment: give its template, as `aws fis get-experiment-template` \
             prints it",
        ));
    }
    Ok(whole(Style::Api))
}

fn is_template(resource: &Node) -> bool {
    resource.get("Type") == Some(&Node::Text(TYPE.to_owned()))
}

fn properties<'a>(resource: &Field<'a>) -> Result<Field<'a>, Invalid> {
    match resource.node.get("Properties") {
        Some(properties) => Ok(resource.child("Properties", properties)),
        None => Err(resource
            .child("Properties", resource.node)
            .fault("is required")),
    }
}

/// The resource of that logical ID, or the only one that is a template.
fn chosen<'a>(resources: &Field<'a>, name: Option<&str>) -> Result<Field<'a>, Invalid> {
    let mut templates = resources.entries()?;
    templates.retain(|(_, resource)| is_template(resource.node));
    let names: Vec<_> = templates.iter().map(|(name, _)| printable(name)).collect();
    let names = names.join(", ");
    let mut wanted = templates
        .into_iter()
        .filter(|(of, _)| name.is_none_or(|name| name == *of));
    match (wanted.next(), wanted.next()) {
        (Some((_, one)), None) => Ok(one),
        (Some(_), Some(_)) => Err(resources.fault(format!(
            "several are {TYPE}: choose one of {names} with --resource"
        ))),
        (None, _) if names.is_empty() => Err(resources.fault(format!("none is {TYPE}"))),
        (None, _) => Err(resources.fault(format!(
            "{:?} is no {TYPE} (--resource); there are {names}",
            printable(name.unwrap_or_default())
        ))),
    }
}
