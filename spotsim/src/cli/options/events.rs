//! The options that say who is told of what is announced, besides IMDS.

use anyhow::Result;
use clap::Args;

use crate::{
    cli::exit::Misuse,
    emit::{Courier, Form, Sink, Source, Template},
};

/// Events as EventBridge delivers them, for those who do not ask IMDS.
#[derive(Args)]
#[command(next_help_heading = "Events")]
pub struct Events {
    /// Send the events that AWS would send, e.g. to file:events.jsonl; repeatable
    #[arg(
        long = "emit",
        value_name = "SINK",
        long_help = "Send the events that AWS would send, in EventBridge's envelope; repeatable:\n\
            stdout           standard output, one line of JSON each\n\
            file:PATH        a file, appended in such lines\n\
            exec:COMMAND     the standard input of `sh -c COMMAND`, once for each event\n\
            webhook:URL      a URL, by POST\n\
            sqs:QUEUE_URL    an SQS queue\n\
            eventbridge:BUS  an EventBridge bus, by its name or ARN\n\
            lambda:FUNCTION  a Lambda function, by its name or ARN\n\
            What fails is tried again until the deadline. The last three find region and credentials \
            as every SDK of AWS does."
    )]
    sinks: Vec<Sink>,

    /// What webhooks are sent instead of the event, as '{"text": "{detail-type} in {region}"}'
    #[arg(long, value_name = "TEMPLATE", requires = "sinks")]
    emit_template: Option<Template>,

    /// The source of the events for EventBridge, which keeps aws.* for AWS [default: spotsim]
    #[arg(long, value_name = "SOURCE", requires = "sinks")]
    emit_source: Option<Source>,
}

impl Events {
    /// Who delivers them, if they are to be sent.
    pub async fn courier(&self) -> Result<Option<Courier>> {
        let Self {
            sinks,
            emit_template,
            emit_source,
        } = self;
        if sinks.is_empty() {
            return Ok(None);
        }
        let form = Form {
            template: emit_template.clone(),
            source: emit_source.clone(),
        };
        form.check(sinks).map_err(Misuse::error)?;
        Courier::start(sinks, &form).await.map(Some)
    }
}
