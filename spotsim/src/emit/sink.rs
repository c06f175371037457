//! Where events go, as it is written on the command line.

use std::{fmt, path::PathBuf, str::FromStr};

use hyper::{Uri, http::uri::Scheme};

use super::template::Template;

/// Where events go: `--emit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Standard output: one line of JSON for each event.
    Stdout,
    /// A file, to which such lines are appended.
    File(PathBuf),
    /// A command for a shell, with the event on its standard input.
    Exec(String),
    /// A URL to which the event is posted.
    Webhook(Url),
    /// An SQS queue.
    Sqs(Url),
    /// An EventBridge bus: its name or ARN.
    EventBridge(String),
    /// A Lambda function: its name or ARN, perhaps with a version or alias.
    Lambda(String),
}

/// How events are written for some of the sinks.
#[derive(Clone, Debug, Default)]
pub struct Form {
    /// The body for webhooks: `--emit-template`.
    pub template: Option<Template>,
    /// The source for EventBridge: `--emit-source`.
    pub source: Option<Source>,
}

impl Form {
    /// Refuses what none of the sinks would use.
    pub fn check(&self, sinks: &[Sink]) -> Result<(), String> {
        let Self { template, source } = self;
        let webhook = |sink: &Sink| matches!(sink, Sink::Webhook(_));
        if template.is_some() && !sinks.iter().any(webhook) {
            return Err("a template is for webhooks: add --emit webhook:URL".to_owned());
        }
        let bus = |sink: &Sink| matches!(sink, Sink::EventBridge(_));
        if source.is_some() && !sinks.iter().any(bus) {
            return Err("a source is for EventBridge: add --emit eventbridge:BUS".to_owned());
        }
        Ok(())
    }
}

/// An absolute URL of HTTP. What follows its host may be secret and is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(Uri);

impl Url {
    pub fn uri(&self) -> &Uri {
        let Self(uri) = self;
        uri
    }

    pub fn is_https(&self) -> bool {
        self.uri().scheme() == Some(&Scheme::HTTPS)
    }

    pub fn host(&self) -> &str {
        self.uri().host().unwrap_or_default()
    }

    /// What stands before the `@`.
    pub fn user_info(&self) -> Option<&str> {
        let (info, _) = self.uri().authority()?.as_str().rsplit_once('@')?;
        Some(info)
    }

    /// `https://host:port`, without what may be secret.
    pub fn origin(&self) -> String {
        let uri = self.uri();
        let scheme = uri.scheme_str().unwrap_or_default();
        match uri.port() {
            Some(port) => format!("{scheme}://{}:{port}", self.host()),
            None => format!("{scheme}://{}", self.host()),
        }
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scheme = text.to_ascii_lowercase();
        if !["http://", "https://"]
            .iter()
            .any(|http| scheme.starts_with(http))
        {
            return Err("a URL begins with http:// or https://".to_owned());
        }
        // The text is not repeated: it may be secret.
        let uri: Uri = text.parse().map_err(|error| format!("no URL: {error}"))?;
        if uri.host().is_none_or(str::is_empty) {
            return Err("a URL needs a host".to_owned());
        }
        // What is no port would be taken for none, and another one dialled.
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit('@').next().unwrap_or_default();
        if uri.host() != Some(host) && uri.port_u16().is_none_or(|port| port == 0) {
            return Err("a port is 1 to 65535".to_owned());
        }
        Ok(Self(uri))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin())
    }
}

impl Sink {
    /// Whether it may be dialled over TLS.
    pub(super) fn needs_tls(&self) -> bool {
        match self {
            Self::Stdout | Self::File(_) | Self::Exec(_) => false,
            Self::Webhook(url) => url.is_https(),
            // Where the SDK finds its endpoint is its affair.
            Self::Sqs(_) | Self::EventBridge(_) | Self::Lambda(_) => true,
        }
    }
}

impl FromStr for Sink {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let needs = |example: &str| {
            if rest.is_empty() {
                return Err(format!("{kind} needs more: write {example}"));
            }
            Ok(rest.to_owned())
        };
        match kind {
            "stdout" if text == kind => Ok(Self::Stdout),
            "stdout" => Err("stdout takes nothing after it".to_owned()),
            "file" => Ok(Self::File(needs("file:/var/log/events.jsonl")?.into())),
            "exec" => Ok(Self::Exec(needs("exec:'python3 handler.py'")?)),
            "webhook" => Ok(Self::Webhook(
                needs("webhook:https://hooks.example.com/path")?.parse()?,
            )),
            "sqs" => queue(&needs(
                "sqs:https://sqs.us-east-1.amazonaws.com/123456789012/queue",
            )?),
            "eventbridge" => bus(needs("eventbridge:default")?),
            "lambda" => function(needs("lambda:my-function")?),
            // What was meant as a URL may be secret.
            "http" | "https" => Err("write webhook:URL to have events posted".to_owned()),
            "arn" => Err("write eventbridge:ARN or lambda:ARN".to_owned()),
            _ => Err(
                "unknown sink; use stdout, file:PATH, exec:COMMAND, webhook:URL, sqs:QUEUE_URL, \
                 eventbridge:BUS or lambda:FUNCTION"
                    .to_owned(),
            ),
        }
    }
}

/// A queue's URL ends in its account and its name.
fn queue(text: &str) -> Result<Sink, String> {
    if text.starts_with("arn:") {
        return Err("SQS takes a queue's URL, not its ARN: see `aws sqs get-queue-url`".to_owned());
    }
    let url: Url = text.parse()?;
    let mut parts = url.uri().path().trim_start_matches('/').rsplit('/');
    let name = parts.next().unwrap_or_default();
    if name.is_empty() || parts.next().is_none_or(str::is_empty) {
        return Err("a queue's URL ends in /ACCOUNT/NAME: see `aws sqs get-queue-url`".to_owned());
    }
    Ok(Sink::Sqs(url))
}

fn bus(name: String) -> Result<Sink, String> {
    // The rules are those of the API's EventBusName.
    let is_known = |letter: char| letter.is_ascii_alphanumeric() || "/._-:".contains(letter);
    if !name.chars().all(is_known) {
        return Err("a bus is a name or an ARN, as eventbridge:default".to_owned());
    }
    Ok(Sink::EventBridge(name))
}

fn function(name: String) -> Result<Sink, String> {
    // As for the bus: the API's FunctionName.
    let is_known = |letter: char| letter.is_ascii_alphanumeric() || "-_:$.".contains(letter);
    if !name.chars().all(is_known) {
        return Err("a function is a name or an ARN, as lambda:my-function".to_owned());
    }
    Ok(Sink::Lambda(name))
}

/// As it was given, but for what may be secret.
impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            // Arguments may hold tokens, and so may a variable that is set before the program.
            Self::Exec(command) => {
                let first = command.split_whitespace().next().unwrap_or_default();
                let is_plain =
                    |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
                match first {
                    program if !program.chars().all(is_plain) => f.write_str("exec:…"),
                    program if program == command.trim() => write!(f, "exec:{program}"),
                    program => write!(f, "exec:{program} …"),
                }
            }
            Self::Webhook(url) => write!(f, "webhook:{}", url.origin()),
            Self::Sqs(url) => write!(f, "sqs:{}{}", url.origin(), url.uri().path()),
            Self::EventBridge(bus) => write!(f, "eventbridge:{bus}"),
            Self::Lambda(function) => write!(f, "lambda:{function}"),
        }
    }
}

/// What EventBridge is told that events come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source(String);

impl Source {
    pub fn as_str(&self) -> &str {
        let Self(source) = self;
        source
    }
}

impl Default for Source {
    fn default() -> Self {
        Self("spotsim".to_owned())
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(source: &str) -> Result<Self, String> {
        if source.starts_with("aws.") {
            return Err(
                "EventBridge keeps sources that begin with aws. for AWS itself; use one of your \
                 own, as spotsim, and have your rule match it"
                    .to_owned(),
            );
        }
        if source.is_empty() || source.len() > 256 {
            return Err("a source has 1 to 256 characters".to_owned());
        }
        Ok(Self(source.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(text: &str) -> Sink {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn sinks_are_read_and_shown_without_what_may_be_secret() {
        for (text, shown) in [
            ("stdout", "stdout"),
            ("file:events.jsonl", "file:events.jsonl"),
            ("file:/var/log/a:b", "file:/var/log/a:b"),
            ("exec:cat", "exec:cat"),
            ("exec:notify --token secret", "exec:notify …"),
            ("exec:TOKEN=secret notify", "exec:…"),
            ("exec:/opt/notify;TOKEN='secret' x", "exec:…"),
            (
                "webhook:https://hooks.slack.com/services/T0/B0/secret",
                "webhook:https://hooks.slack.com",
            ),
            (
                "webhook:http://user:secret@[::1]:8080/?token=secret",
                "webhook:http://[::1]:8080",
            ),
            (
                "sqs:https://sqs.us-east-1.amazonaws.com/123456789012/queue.fifo",
                "sqs:https://sqs.us-east-1.amazonaws.com/123456789012/queue.fifo",
            ),
            (
                "sqs:http://user:secret@127.0.0.1:5000/123456789012/queue",
                "sqs:http://127.0.0.1:5000/123456789012/queue",
            ),
            ("eventbridge:default", "eventbridge:default"),
            (
                "eventbridge:arn:aws:events:us-east-1:123456789012:event-bus/mine",
                "eventbridge:arn:aws:events:us-east-1:123456789012:event-bus/mine",
            ),
            ("lambda:drain:live", "lambda:drain:live"),
            (
                "lambda:arn:aws:lambda:us-east-1:123456789012:function:drain",
                "lambda:arn:aws:lambda:us-east-1:123456789012:function:drain",
            ),
        ] {
            let sink = sink(text);
            assert_eq!(sink.to_string(), shown);
            if let Sink::Webhook(_) | Sink::Sqs(_) = &sink {
                assert!(!format!("{sink:?}").contains("secret"), "{sink:?}");
            }
        }
    }

    #[test]
    fn a_bad_sink_says_what_to_write() {
        for (text, expected) in [
            ("", "use stdout, file:PATH"),
            ("slack", "use stdout, file:PATH"),
            ("stdout:", "stdout takes nothing"),
            ("file", "write file:/var"),
            ("file:", "write file:/var"),
            ("exec:", "write exec:"),
            ("webhook:", "write webhook:https://"),
            (
                "webhook:hooks.slack.com/x",
                "begins with http:// or https://",
            ),
            (
                "webhook:ftp://host/secret",
                "begins with http:// or https://",
            ),
            ("webhook:https:///secret", "no URL"),
            ("webhook:http://host:99999/secret", "1 to 65535"),
            ("webhook:http://u:p@[::1]:x/secret", "1 to 65535"),
            ("webhook:http://ho st/secret", "no URL"),
            ("https://hooks.slack.com/secret", "write webhook:URL"),
            ("sqs:queue", "begins with http:// or https://"),
            (
                "sqs:https://sqs.us-east-1.amazonaws.com/queue",
                "ends in /ACCOUNT/NAME",
            ),
            (
                "sqs:https://sqs.us-east-1.amazonaws.com/1/",
                "ends in /ACCOUNT/NAME",
            ),
            (
                "sqs:arn:aws:sqs:us-east-1:123456789012:queue",
                "not its ARN",
            ),
            ("eventbridge:", "write eventbridge:default"),
            ("eventbridge:my bus", "a name or an ARN"),
            ("lambda:", "write lambda:my-function"),
            ("lambda:a/b", "a name or an ARN"),
            (
                "arn:aws:lambda:us-east-1:123456789012:function:f",
                "lambda:ARN",
            ),
        ] {
            let error = text.parse::<Sink>().unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains("secret"), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn sources_of_aws_are_refused_with_the_reason() {
        for source in ["aws.ec2", "aws."] {
            let error = source.parse::<Source>().unwrap_err();
            assert!(error.contains("for AWS itself"), "{error}");
        }
        for source in ["", &"x".repeat(257)] {
            assert!(source.parse::<Source>().is_err());
        }
        assert_eq!(Source::default().as_str(), "spotsim");
        assert_eq!("awsome".parse::<Source>().unwrap().as_str(), "awsome");
    }

    #[test]
    fn what_no_sink_would_use_is_refused() {
        let template = Form {
            template: Some("{}".parse().unwrap()),
            source: None,
        };
        let source = Form {
            template: None,
            source: Some(Source::default()),
        };
        let (webhook, bus) = (sink("webhook:http://host"), sink("eventbridge:default"));
        assert_eq!(template.check(&[Sink::Stdout, webhook.clone()]), Ok(()));
        assert!(
            template
                .check(std::slice::from_ref(&bus))
                .unwrap_err()
                .contains("webhook:URL")
        );
        assert_eq!(source.check(&[bus]), Ok(()));
        assert!(
            source
                .check(&[webhook])
                .unwrap_err()
                .contains("eventbridge:BUS")
        );
        assert_eq!(Form::default().check(&[Sink::Stdout]), Ok(()));
    }
}
