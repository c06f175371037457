//! Events sent to AWS by its SDK: with its chain of credentials, its regions and its endpoints.

use std::{env, error::Error, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
use aws_sdk_eventbridge::{
    primitives::DateTime,
    types::{PutEventsRequestEntry, PutEventsResultEntry},
};
use aws_sdk_lambda::{primitives::Blob, types::InvocationType};
use aws_sdk_sqs::{
    config::{ProvideCredentials as _, StalledStreamProtectionConfig},
    error::{ProvideErrorMetadata, SdkError},
};
use jiff::Timestamp;
use tokio::time::timeout;

use super::{
    http::Http,
    sink::{Sink, Source, Url},
};
use crate::event::Event;

mod connector;

/// Region and credentials are found within this, or there are none. The chains of both end at
/// IMDS, which does not answer everywhere.
const FOUND_WITHIN: Duration = Duration::from_secs(5);

/// A service of AWS that takes events, and where in it.
pub enum Aws {
    Sqs {
        client: aws_sdk_sqs::Client,
        queue: String,
    },
    EventBridge {
        client: aws_sdk_eventbridge::Client,
        bus: String,
        source: Source,
    },
    Lambda {
        client: aws_sdk_lambda::Client,
        function: String,
    },
}

impl Aws {
    /// Finds region and credentials. `None` of a sink that is not AWS's.
    pub async fn open(http: Http, sink: &Sink, source: Source) -> Result<Self> {
        Ok(match sink {
            Sink::Sqs(url) => {
                let config = config(http, region_of_host(url.host())).await?;
                Self::Sqs {
                    client: sqs(&config, url),
                    queue: url.uri().to_string(),
                }
            }
            Sink::EventBridge(bus) => {
                let config = config(http, region_of_arn(bus)).await?;
                Self::EventBridge {
                    client: aws_sdk_eventbridge::Client::new(&config),
                    bus: bus.clone(),
                    source,
                }
            }
            Sink::Lambda(function) => {
                let config = config(http, region_of_arn(function)).await?;
                Self::Lambda {
                    client: aws_sdk_lambda::Client::new(&config),
                    function: function.clone(),
                }
            }
            sink => bail!("{sink} is not in AWS"),
        })
    }

    pub async fn send(&self, event: &Event) -> Result<()> {
        match self {
            Self::Sqs { client, queue } => send_message(client, queue, event).await,
            Self::EventBridge {
                client,
                bus,
                source,
            } => put_event(client, bus, source, event).await,
            Self::Lambda { client, function } => invoke(client, function, event).await,
        }
    }
}

/// What the environment and the files of AWS say.
async fn config(http: Http, region: Option<&str>) -> Result<SdkConfig> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(connector::Connector::new(http))
        // The courier tries again, as long as it makes sense.
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    let found = timeout(FOUND_WITHIN, async {
        let config = loader.load().await;
        if config.region().is_none() {
            return Err(None);
        }
        let credentials = config.credentials_provider().ok_or(None)?;
        let credentials = credentials.provide_credentials().await;
        credentials.map(|_| config).map_err(Some)
    });
    match found.await {
        Ok(Ok(config)) => Ok(config),
        Ok(Err(None)) => bail!("no AWS region is known; set AWS_REGION"),
        Ok(Err(Some(error))) => Err(error).context(
            "no AWS credentials are found; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY",
        ),
        Err(_) => bail!(
            "no AWS region and credentials were found within {FOUND_WITHIN:?}; set AWS_REGION, \
             and AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ),
    }
}

/// The region in an ARN.
fn region_of_arn(text: &str) -> Option<&str> {
    let mut parts = text.split(':');
    let region = parts.nth(3).filter(|region| !region.is_empty());
    region.filter(|_| text.starts_with("arn:"))
}

/// The region in the host of a queue's URL, in all forms that there were.
fn region_of_host(host: &str) -> Option<&str> {
    let labels: Vec<_> = host.split('.').collect();
    match labels[..] {
        ["sqs" | "sqs-fips", region, "amazonaws" | "api", ..]
        | [region, "queue", "amazonaws", ..]
        | [_, "sqs", region, "vpce", "amazonaws", ..] => Some(region),
        ["queue", "amazonaws", "com"] => Some("us-east-1"),
        _ => None,
    }
}

/// A client for the queue. Where the endpoint is not configured, and the queue's URL is not that
/// of AWS's public one, the queue is where its URL says.
fn sqs(config: &SdkConfig, queue: &Url) -> aws_sdk_sqs::Client {
    let labels: Vec<_> = queue.host().split('.').collect();
    let public = matches!(
        labels[..],
        ["sqs", _, "amazonaws", ..] | [_, "queue", "amazonaws", ..] | ["queue", "amazonaws", ..]
    );
    let configured =
        config.endpoint_url().is_some() || env::var_os("AWS_ENDPOINT_URL_SQS").is_some();
    let mut builder = aws_sdk_sqs::config::Builder::from(config);
    if !public && !configured {
        builder = builder.endpoint_url(queue.origin());
    }
    aws_sdk_sqs::Client::from_conf(builder.build())
}

async fn send_message(client: &aws_sdk_sqs::Client, queue: &str, event: &Event) -> Result<()> {
    let mut message = client
        .send_message()
        .queue_url(queue)
        .message_body(serde_json::to_string(event)?);
    // Such a queue keeps the order within a group, and drops what has the same id.
    if queue.ends_with(".fifo") {
        message = message
            .message_group_id(event.instance())
            .message_deduplication_id(&event.id);
    }
    message.send().await.map_err(reason)?;
    Ok(())
}

/// EventBridge makes the envelope again: with an id, an account and a region of its own.
async fn put_event(
    client: &aws_sdk_eventbridge::Client,
    bus: &str,
    source: &Source,
    event: &Event,
) -> Result<()> {
    let time: Timestamp = event.time.parse()?;
    let entry = PutEventsRequestEntry::builder()
        .event_bus_name(bus)
        .source(source.as_str())
        .detail_type(event.detail_type)
        .detail(serde_json::to_string(&event.detail)?)
        .set_resources(Some(event.resources.clone()))
        .time(DateTime::from_secs(time.as_second()))
        .build();
    let put = client.put_events().entries(entry).send();
    let put = put.await.map_err(reason)?;
    // An entry that is refused is told in an answer that looks like success.
    if put.failed_entry_count() > 0 {
        let entry = put.entries().first();
        let code = entry.and_then(PutEventsResultEntry::error_code);
        let message = entry.and_then(PutEventsResultEntry::error_message);
        bail!(
            "{}: {}",
            code.unwrap_or("refused"),
            message.unwrap_or("no reason was given")
        );
    }
    Ok(())
}

async fn invoke(client: &aws_sdk_lambda::Client, function: &str, event: &Event) -> Result<()> {
    let invoked = client
        .invoke()
        .function_name(function)
        // As EventBridge does it: what becomes of it is not waited for.
        .invocation_type(InvocationType::Event)
        .payload(Blob::new(serde_json::to_vec(event)?))
        .send();
    invoked.await.map_err(reason)?;
    Ok(())
}

/// What a service said, or why it could not be asked.
fn reason<E, R>(error: SdkError<E, R>) -> anyhow::Error
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => anyhow!("{code}: {message}"),
        (Some(code), None) => anyhow!("{code}"),
        _ => anyhow!(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_region() {
        for (arn, region) in [
            (
                "arn:aws:lambda:eu-west-1:123456789012:function:f:live",
                Some("eu-west-1"),
            ),
            (
                "arn:aws-cn:events:cn-north-1:123456789012:event-bus/b",
                Some("cn-north-1"),
            ),
            ("arn:aws:events::123456789012:event-bus/b", None),
            ("123456789012:function:f:live", None),
            ("default", None),
        ] {
            assert_eq!(region_of_arn(arn), region, "{arn}");
        }
        for (host, region) in [
            ("sqs.us-east-2.amazonaws.com", Some("us-east-2")),
            ("sqs.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("sqs-fips.us-east-1.amazonaws.com", Some("us-east-1")),
            ("sqs.eu-west-1.api.aws", Some("eu-west-1")),
            ("eu-west-1.queue.amazonaws.com", Some("eu-west-1")),
            ("queue.amazonaws.com", Some("us-east-1")),
            (
                "vpce-0a1b-2c3d.sqs.us-east-2.vpce.amazonaws.com",
                Some("us-east-2"),
            ),
            ("localhost", None),
            ("127.0.0.1", None),
            ("sqs.us-east-2.example.com", None),
        ] {
            assert_eq!(region_of_host(host), region, "{host}");
        }
    }
}
