//! An experiment template of AWS FIS, as it is given to FIS: pure.
//!
//! The shapes and limits are those of the [FIS API][1] and of CloudFormation's
//! [`AWS::FIS::ExperimentTemplate`][2]; what they mean is in the [user guide][3].
//!
//! [1]: https://docs.aws.amazon.com/fis/latest/APIReference/API_CreateExperimentTemplate.html
//! [2]: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-fis-experimenttemplate.html
//! [3]: https://docs.aws.amazon.com/fis/latest/userguide/experiment-templates.html

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use jiff::SignedDuration;
use serde_json::Value;

mod action;
mod field;
mod order;
mod parameter;
mod scope;
mod source;
mod tree;

#[cfg(test)]
mod tests;

pub use action::{Action, Kind, interruption};
pub use field::Invalid;
pub use scope::{Filter, FilterPath, Scope, Wanted};

use crate::document::{self, Format, printable};
use field::{Field, Fields, check_name};
use parameter::Defaults;
use tree::Node;

/// The longest free text, in characters.
const LONGEST_TEXT: usize = 512;

/// The longest ARN.
const LONGEST_ARN: usize = 2_048;

/// What an experiment is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pub actions: BTreeMap<String, Action>,
    pub targets: BTreeMap<String, Scope>,
    /// What becomes of a target for which nothing is found.
    pub if_empty: IfEmpty,
    /// The paths of the stop conditions that are CloudWatch alarms, which nobody watches here.
    pub alarms: Vec<String>,
    /// What else means nothing here though it may be missed, or was taken as it may not be meant,
    /// each in a line.
    pub ignored: Vec<String>,
    /// As it was given, but as JSON.
    pub given: Value,
}

/// `emptyTargetResolutionMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfEmpty {
    /// The experiment fails.
    #[default]
    Fail,
    /// Its actions are skipped.
    Skip,
}

/// How a template is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading<'a> {
    /// The logical ID of the resource, of a CloudFormation template with several.
    pub resource: Option<&'a str>,
    /// Whether durations may be shorter than those that FIS takes.
    pub allow_short: bool,
}

impl Template {
    /// Reads a file of JSON or YAML. Errors are one line, with the file and the path in it.
    pub fn read(file: &Path, reading: Reading<'_>) -> Result<Self> {
        let text = document::text(file)?;
        let format = format_of(file, &text);
        let node = Node::parse(&text, format).map_err(|invalid| invalid.in_file(file))?;
        let template = Self::of(&node, reading);
        template.map_err(|invalid| anyhow::anyhow!("{}: {invalid}", document::shown(file)))
    }

    /// Reads a document.
    fn of(node: &Node, reading: Reading<'_>) -> Result<Self, Invalid> {
        let given = source::template(node, reading.resource)?;
        let mut defaults = BTreeMap::new();
        let filled = Defaults::of(node).fill(given.node, &mut defaults);
        let root = Field {
            node: &filled,
            ..given.clone()
        };
        let fields = root.fields(&source::known(root.style))?;
        fields.required("description")?.any_text(LONGEST_TEXT)?;
        fields.required("roleArn")?.any_text(LONGEST_ARN)?;
        let targets = targets(&fields)?;
        let actions = actions(&fields, &targets, reading.allow_short)?;
        check_tags(&fields)?;
        Ok(Self {
            actions,
            targets,
            if_empty: options(&fields)?,
            alarms: alarms(&fields)?,
            ignored: ignored(&fields)
                .into_iter()
                .chain(taken(&defaults))
                .collect(),
            given: given.node.to_json(),
        })
    }

    /// The targets that actions use, in the order of their names.
    pub fn used_targets(&self) -> BTreeMap<&str, &Scope> {
        let used = self
            .actions
            .values()
            .filter_map(|action| match &action.kind {
                Kind::Interrupt { target, .. } => self.targets.get_key_value(target),
                Kind::Wait(_) => None,
            });
        used.map(|(name, scope)| (name.as_str(), scope)).collect()
    }
}

/// The format of a file, of which templates have many names: by what it begins with, where its
/// name does not tell.
fn format_of(file: &Path, text: &str) -> Format {
    match Format::of(file) {
        Ok(format @ (Format::Json | Format::Yaml)) => format,
        _ if text
            .trim_start_matches('\u{feff}')
            .trim_start()
            .starts_with('{') =>
        {
            Format::Json
        }
        _ => Format::Yaml,
    }
}

fn targets(fields: &Fields<'_>) -> Result<BTreeMap<String, Scope>, Invalid> {
    let mut targets = BTreeMap::new();
    for (name, field) in fields.entries("targets")? {
        check_name(name, &field)?;
        targets.insert(name.to_owned(), Scope::read(&field)?);
    }
    Ok(targets)
}

fn actions(
    fields: &Fields<'_>,
    targets: &BTreeMap<String, Scope>,
    allow_short: bool,
) -> Result<BTreeMap<String, Action>, Invalid> {
    let all = fields.required("actions")?;
    let entries = all.entries()?;
    if entries.is_empty() {
        return Err(all.fault("there must be an action"));
    }
    let mut actions = BTreeMap::new();
    for (name, field) in &entries {
        check_name(name, field)?;
        let action = Action::read(field, targets, allow_short)?;
        actions.insert((*name).to_owned(), action);
    }
    order::check(&entries, &actions)?;
    Ok(actions)
}

fn check_tags(fields: &Fields<'_>) -> Result<(), Invalid> {
    const LONGEST_VALUE: usize = 256;
    let Some(tags) = fields.get("tags") else {
        return Ok(());
    };
    if tags.node.intrinsic().is_some() {
        return Ok(());
    }
    for (_, tag) in tags.entries()? {
        tag.free_text(LONGEST_VALUE)?;
    }
    Ok(())
}

fn options(fields: &Fields<'_>) -> Result<IfEmpty, Invalid> {
    let Some(options) = fields.get("experimentOptions") else {
        return Ok(IfEmpty::default());
    };
    // The last is one of an experiment, and no template has it.
    let options = options.fields(&[
        "accountTargeting",
        "emptyTargetResolutionMode",
        "actionsMode",
    ])?;
    if let Some(mode) = options.get("actionsMode") {
        return Err(mode.fault("is an option of an experiment, not of a template: --actions-mode"));
    }
    if let Some(accounts) = options.get("accountTargeting") {
        match accounts.word(64)?.as_str() {
            "single-account" => {}
            "multi-account" => {
                return Err(accounts.fault(
                    "workloads of other accounts cannot be found from here: run it with \
                     single-account",
                ));
            }
            _ => return Err(accounts.fault("use single-account or multi-account")),
        }
    }
    let Some(mode) = options.get("emptyTargetResolutionMode") else {
        return Ok(IfEmpty::default());
    };
    match mode.word(64)?.as_str() {
        "fail" => Ok(IfEmpty::Fail),
        "skip" => Ok(IfEmpty::Skip),
        _ => Err(mode.fault("use fail or skip")),
    }
}

/// The paths of the stop conditions that are alarms.
fn alarms(fields: &Fields<'_>) -> Result<Vec<String>, Invalid> {
    let conditions = fields.required("stopConditions")?;
    let mut alarms = Vec::new();
    for condition in conditions.items()? {
        let fields = condition.fields(&["source", "value"])?;
        let source = fields.required("source")?;
        match source.word(64)?.as_str() {
            "none" => {}
            "aws:cloudwatch:alarm" => {
                fields.required("value")?.any_text(LONGEST_ARN)?;
                alarms.push(condition.path);
            }
            _ => return Err(source.fault("use none or aws:cloudwatch:alarm")),
        }
    }
    Ok(alarms)
}

/// What means nothing here though its user may count on it.
fn ignored(fields: &Fields<'_>) -> Vec<String> {
    let of_none = [
        ("logConfiguration", "no log is delivered"),
        ("experimentReportConfiguration", "no report is made"),
    ];
    let given = of_none
        .into_iter()
        .filter_map(|(name, what)| Some((fields.get(name)?, what)));
    given
        .map(|(field, what)| format!("{}: {what} here; --record FILE keeps a record", field.path))
        .collect()
}

/// The defaults of parameters that were taken, which may not be what is deployed.
fn taken(defaults: &BTreeMap<String, String>) -> impl Iterator<Item = String> {
    defaults.iter().map(|(name, default)| {
        let [name, default] = [name, default].map(|text| printable(text));
        format!("Parameters.{name}: its default is taken: {default}")
    })
}

/// A duration of the template, in whole seconds.
fn duration(
    field: &Field<'_>,
    [shortest, longest]: [u32; 2],
    allow_short: bool,
) -> Result<SignedDuration, Invalid> {
    let text = field.word(64)?;
    let shown = |seconds: u32| format!("{:#}", SignedDuration::from_secs(seconds.into()));
    let written: Option<SignedDuration> =
        text.starts_with('P').then(|| text.parse().ok()).flatten();
    let Some(duration) = written else {
        return Err(field.fault("not a duration as ISO 8601 has it; write it like PT2M or PT150S"));
    };
    let whole = duration.subsec_nanos() == 0;
    match u32::try_from(duration.as_secs()) {
        Ok(1..) if !whole => Err(field.fault("write whole seconds")),
        Ok(seconds) if seconds > longest => Err(field.fault(format!(
            "is more than {}, and FIS takes no more",
            shown(longest)
        ))),
        Ok(0) if allow_short => Err(field.fault("must be a second or more")),
        Ok(seconds) if seconds < shortest && !allow_short => Err(field.fault(format!(
            "is less than {}, and FIS takes no less; --allow-short does",
            shown(shortest)
        ))),
        Ok(_) => Ok(duration),
        Err(_) => Err(field.fault(format!(
            "is more than {}, and FIS takes no more",
            shown(longest)
        ))),
    }
}
