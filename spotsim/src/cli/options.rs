//! The options that `attach` and `run` share.

use std::{str::FromStr, sync::Arc, time::Duration};

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use log::LevelFilter;

use crate::{
    ec2,
    responder::{Synthetic, Upstream},
    timeline::{Action, Plan},
};

/// What is announced, and what happens to everything else.
#[derive(Args)]
pub struct Options {
    /// What the notice says will happen at the deadline: terminate, stop or hibernate
    #[arg(long, default_value = "terminate")]
    action: Action,

    /// When the notice appears, from the arming on (e.g. 90s, 2m, 1h30m)
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    notice_after: SignedDuration,

    /// From the notice to the deadline [default: 2m; 0s to hibernate]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    lead: Option<SignedDuration>,

    /// Detach after this long
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    lasts: Option<SignedDuration>,

    /// Who answers what is not faked
    #[arg(
        long,
        value_name = "auto|real|synthetic|none|URL",
        default_value = "auto",
        long_help = "Who answers what is not faked:\n\
            auto       the real IMDS on EC2, a synthetic instance elsewhere\n\
            real       the real IMDS\n\
            synthetic  a small instance that exists nowhere\n\
            none       nobody: 404 for everything\n\
            URL        another server, as http://HOST[:PORT]\n\
            The upstream is dialled from inside the workload's network namespace."
    )]
    upstream: UpstreamChoice,

    /// Log more; repeat it for still more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Options {
    /// What is announced.
    pub fn plan(&self) -> Plan {
        let Self {
            action,
            notice_after,
            lead,
            ..
        } = self;
        Plan {
            action: *action,
            notice_after: *notice_after,
            lead: lead.unwrap_or_else(|| action.default_lead()),
        }
    }

    /// Who answers the rest. An isolated workload cannot reach the real one.
    pub fn upstream(&self, isolated: bool) -> Upstream {
        let synthetic = || Upstream::Synthetic(Arc::new(Synthetic::new(Timestamp::now())));
        match &self.upstream {
            UpstreamChoice::Auto if !isolated && ec2::is_ec2() => Upstream::Real,
            UpstreamChoice::Auto | UpstreamChoice::Synthetic => synthetic(),
            UpstreamChoice::Given(upstream) => upstream.clone(),
        }
    }

    /// What is to be logged, where `quiet` is without any `-v`.
    pub fn log_level(&self, quiet: LevelFilter) -> LevelFilter {
        let more = usize::from(self.verbose);
        let mut levels = LevelFilter::iter().filter(|level| *level >= quiet);
        levels.nth(more).unwrap_or(LevelFilter::Trace)
    }

    /// Waits until `--for` is over; for ever without it.
    pub async fn lasts(&self) {
        match self.lasts {
            Some(lasts) => tokio::time::sleep(lasts.unsigned_abs()).await,
            None => std::future::pending().await,
        }
    }
}

#[derive(Clone)]
enum UpstreamChoice {
    Auto,
    Synthetic,
    Given(Upstream),
}

impl FromStr for UpstreamChoice {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "auto" => Ok(Self::Auto),
            "synthetic" => Ok(Self::Synthetic),
            "real" => Ok(Self::Given(Upstream::Real)),
            "none" => Ok(Self::Given(Upstream::Nothing)),
            url if url.contains("://") => Upstream::parse_url(url).map(Self::Given),
            _ => Err("use auto, real, synthetic, none or http://HOST[:PORT]".to_owned()),
        }
    }
}

/// Reads `90s`, `2m`, `1h30m` or `PT2M`.
fn duration(text: &str) -> Result<SignedDuration, String> {
    let duration: SignedDuration = text
        .parse()
        .map_err(|_| "not a duration; write it like 90s, 2m or 1h30m".to_owned())?;
    if duration.is_negative() {
        return Err("a duration cannot be negative".to_owned());
    }
    // The longest that a timer can wait without overflow, and more than anyone needs.
    if duration.unsigned_abs() > Duration::from_secs(100 * 365 * 86_400) {
        return Err("more than a hundred years".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90s", 90),
            ("2m", 120),
            ("0s", 0),
            ("1h30m", 5_400),
            ("1h 30m", 5_400),
            ("PT2M", 120),
        ] {
            assert_eq!(
                duration(text),
                Ok(SignedDuration::from_secs(seconds)),
                "{text}"
            );
        }
        assert_eq!(duration("250ms"), Ok(SignedDuration::from_millis(250)));
    }

    #[test]
    fn bad_durations_are_refused() {
        for text in [
            "",
            "2",
            "soon",
            "-2m",
            "2m ago",
            "2y",
            "9999999h",
            "2 lightyears",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
