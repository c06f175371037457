//! The options that say who is behind us: who answers what is not faked.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, sync::Arc};

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;

use crate::{
    cli::Misuse,
    ec2,
    instance::Instance,
    responder::{Mode, Synthetic, Upstream},
};

#[derive(Args)]
#[command(next_help_heading = "Behind it")]
pub struct Behind {
    /// Who answers what is not faked
    #[arg(
        long,
        value_name = "auto|real|synthetic|none|URL",
        default_value = "auto",
        long_help = "Who answers what is not faked:\n\
            auto       the real IMDS on EC2, a synthetic instance elsewhere; with --instance or\n           \
            --imds, with `serve` and with --isolate always a synthetic one\n\
            real       the real IMDS\n\
            synthetic  a Spot instance that exists nowhere\n\
            none       nobody: 404 for everything\n\
            URL        another server, as http://HOST[:PORT]\n\
            The upstream is dialled from inside the workload's network namespace."
    )]
    upstream: Choice,

    /// Which requests the synthetic instance takes: with a token or without, with one only, or none [default: v1v2]
    #[arg(long, value_name = "v1v2|v2|off")]
    imds: Option<Mode>,

    /// A file (TOML, YAML or JSON) that describes the synthetic instance
    #[arg(
        long,
        value_name = "FILE",
        long_help = "A file (TOML, YAML or JSON) that describes the synthetic instance. It sets or adds any path:\n\
            meta-data:                    # likewise: dynamic\n  \
              instance-id: i-0123456789abcdef1\n  \
              placement:\n    \
                availability-zone: eu-west-1b\n  \
              tags/instance/Name: web\n\
            user-data: |                  # or user-data-base64\n  \
              #!/bin/sh\n\
            role: web-role                # whose made-up credentials there are\n\
            absent: [meta-data/tags]      # what it does not have\n\
            base: synthetic               # or none: nothing but what is in the file\n\
            What follows from a value (the region, the identity document, …) follows it."
    )]
    instance: Option<PathBuf>,
}

impl Behind {
    /// Who answers the rest. An isolated workload cannot reach the real one.
    pub fn upstream(&self, isolated: bool) -> Result<Upstream> {
        let Self {
            upstream,
            imds,
            instance,
        } = self;
        let described = imds.is_some() || instance.is_some();
        match upstream {
            Choice::Given(given) if described => Err(Misuse::error(format!(
                "--instance and --imds are for the synthetic instance; the upstream is {given}"
            ))),
            Choice::Given(given) => Ok(given.clone()),
            Choice::Auto if !isolated && !described && ec2::is_ec2() => Ok(Upstream::Real),
            Choice::Auto | Choice::Synthetic => {
                let now = Timestamp::now();
                let instance = match instance {
                    Some(file) => Instance::read(file, now)?,
                    None => Instance::synthetic(now),
                };
                let synthetic = Synthetic::new(instance, imds.unwrap_or_default());
                Ok(Upstream::Synthetic(Arc::new(synthetic)))
            }
        }
    }

    /// The address of an IMDS whose instance can be saved.
    pub fn imds(&self) -> Result<SocketAddr> {
        let address = match &self.upstream {
            Choice::Auto if ec2::is_ec2() => Upstream::Real.address(),
            Choice::Auto | Choice::Synthetic => None,
            Choice::Given(upstream) => upstream.address(),
        };
        address.ok_or_else(|| {
            Misuse::error(
                "there is no IMDS to ask: name one with --upstream real or --upstream URL",
            )
        })
    }
}

#[derive(Clone)]
enum Choice {
    Auto,
    Synthetic,
    Given(Upstream),
}

impl FromStr for Choice {
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
