//! `spotsim experiment`: templates of AWS Fault Injection Service.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use log::LevelFilter;

mod run;
mod show;
mod validate;

use super::{Exit, Misuse, log as log_to};
use crate::{
    document,
    experiment::{Reading, Template},
};

const TEMPLATES: &str = "\
FILE is a template of AWS FIS, JSON or YAML, as it is: what `aws fis get-experiment-template` \
prints, what `aws fis create-experiment-template --cli-input-json` takes, or a template of \
CloudFormation or the CDK with an AWS::FIS::ExperimentTemplate, or that resource alone. Its actions \
are aws:ec2:send-spot-instance-interruptions and aws:fis:wait.

Each workload counts as an instance: resourceTags are a pod's labels, then the tags of the \
instance that it is on; filters are that one's attributes, and State.Name the workload's own.";

#[derive(Args)]
pub struct Experiment {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a template's actions
    Run(Box<run::Run>),
    /// Check a template, and show what it comes to
    Validate(validate::Validate),
}

impl Experiment {
    pub fn run(self) -> Result<Exit> {
        match self.verb {
            Verb::Run(run) => run.run(),
            Verb::Validate(validate) => validate.run(),
        }
    }
}

/// A template, and how it is read.
#[derive(Args)]
struct TemplateFile {
    /// The template
    file: PathBuf,

    /// Which resource of a CloudFormation template, if it has several experiments
    #[arg(long, value_name = "NAME")]
    resource: Option<String>,

    /// Take durations too that are shorter than those of FIS, down to a second
    #[arg(long)]
    allow_short: bool,
}

impl TemplateFile {
    /// Its name, in an error.
    fn shown(&self) -> String {
        document::shown(&self.file)
    }

    /// Reads it. Whatever is wrong with it is the user's to mend.
    fn read(&self) -> Result<Template> {
        let Self {
            file,
            resource,
            allow_short,
        } = self;
        let reading = Reading {
            resource: resource.as_deref(),
            allow_short: *allow_short,
        };
        let template = Template::read(file, reading);
        template.map_err(|error| Misuse::error(format!("{error:#}")))
    }
}

/// Names what a template has that means nothing here.
fn warn_of_ignored(template: &Template) {
    for path in &template.alarms {
        log::warn!(
            "{path}: the alarm is not watched here; --stop-if COMMAND is the stop condition"
        );
    }
    for ignored in &template.ignored {
        log::warn!("{ignored}");
    }
}

/// The log of a verb that says little.
fn start_log(level: LevelFilter) -> Result<()> {
    log_to::start(level)?;
    Ok(())
}
