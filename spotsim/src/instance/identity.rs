//! Which instance an IMDS describes, as others than its workloads know it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use anyhow::{Context as _, Result, bail};
use hyper::StatusCode;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::{Found, Instance, imds::Imds};
use crate::netns::Namespace;

const DOCUMENT: &str = "dynamic/instance-identity/document";
const PARTITION: &str = "meta-data/services/partition";
const TAGS: &str = "meta-data/tags/instance";
const MAC: &str = "meta-data/mac";
const INTERFACES: &str = "meta-data/network/interfaces/macs";

/// What is read of an interface.
const OF_INTERFACE: [&str; 3] = ["vpc-id", "subnet-id", "security-group-ids"];

/// AWS allows no more for an instance.
const MOST_TAGS: usize = 50;

/// No type of instance takes more ([AWS: network interfaces][1]).
///
/// [1]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/AvailableIpPerENI.html
const MOST_INTERFACES: usize = 60;

/// What a tag's key is allowed to have, and a path as well. Most keys of AWS's own have a colon.
const IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'=')
    .remove(b'+')
    .remove(b'@');

/// Who an instance is to AWS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Identity {
    /// As `i-0123456789abcdef0`.
    pub instance: String,
    /// 12 digits.
    pub account: String,
    pub region: String,
    /// `aws`, `aws-cn`, …: the first part of its ARN.
    pub partition: String,
    pub zone: String,
    pub instance_type: String,
    pub image: String,
    pub architecture: String,
    pub private_ip: String,
    pub network: Network,
    /// Those that its IMDS shows; none unless they are allowed there
    /// ([AWS: view tags using instance metadata][1]).
    ///
    /// [1]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/work-with-tags-in-IMDS.html
    pub tags: BTreeMap<String, String>,
}

/// Where an instance is in a VPC, as far as its IMDS tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Network {
    /// Those of its primary interface.
    pub vpc: Option<String>,
    pub subnet: Option<String>,
    /// The ids of those of all its interfaces.
    pub security_groups: BTreeSet<String>,
}

/// What is read of an identity document ([AWS: instance identity documents][1]). Those of some
/// instances lack the last ones.
///
/// [1]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-identity-documents.html
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    account_id: String,
    instance_id: String,
    region: String,
    #[serde(default)]
    availability_zone: String,
    #[serde(default)]
    instance_type: String,
    #[serde(default)]
    image_id: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    private_ip: String,
}

impl Identity {
    /// As `arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0`.
    pub fn arn(&self) -> String {
        let Self {
            instance,
            account,
            region,
            partition,
            ..
        } = self;
        format!("arn:{partition}:ec2:{region}:{account}:instance/{instance}")
    }

    /// That of an instance that is described here.
    pub fn of(instance: &Instance, now: Timestamp) -> Result<Self> {
        let text = |path: &str| match instance.get(path, now) {
            Some(Found::Document(document)) => String::from_utf8(document.body).ok(),
            _ => None,
        };
        let document = text(DOCUMENT).with_context(|| format!("the instance has no {DOCUMENT}"))?;
        let listing = |path: &str| match instance.get(path, now) {
            Some(Found::Listing(names)) => names,
            _ => Vec::new(),
        };
        let tag = |key: String| Some((text(&format!("{TAGS}/{key}"))?, key));
        let tags = listing(TAGS).into_iter().filter_map(tag);
        let tags = tags.map(|(value, key)| (key, value)).collect();
        let primary = text(MAC);
        let mut network = Network::default();
        for (mac, what) in of_interfaces(listing(INTERFACES).iter().map(String::as_str)) {
            if let Some(value) = text(&format!("{INTERFACES}/{mac}/{what}")) {
                network.learn(primary.as_deref() == Some(mac), what, &value);
            }
        }
        Self::new(&document, text(PARTITION), network, tags)
    }

    /// That of the instance whose IMDS is at this address, as seen from a namespace, or from
    /// spotsim's own.
    pub async fn ask(imds: SocketAddr, from: Option<&Namespace>) -> Result<Self> {
        let imds = Imds::meet(imds, from).await?;
        let document = text(&imds, DOCUMENT).await?;
        let document = document.with_context(|| format!("the IMDS has no {DOCUMENT}"))?;
        let keys = text(&imds, &format!("{TAGS}/")).await?.unwrap_or_default();
        let mut tags = BTreeMap::new();
        for key in keys.lines().take(MOST_TAGS) {
            let path = format!("{TAGS}/{}", utf8_percent_encode(key, IN_PATHS));
            if let Some(value) = text(&imds, &path).await? {
                tags.insert(key.to_owned(), value);
            }
        }
        let primary = text(&imds, MAC).await?;
        let macs = text(&imds, &format!("{INTERFACES}/")).await?;
        let mut network = Network::default();
        for (mac, what) in of_interfaces(macs.unwrap_or_default().lines().take(MOST_INTERFACES)) {
            if let Some(value) = text(&imds, &format!("{INTERFACES}/{mac}/{what}")).await? {
                network.learn(primary.as_deref() == Some(mac), what, &value);
            }
        }
        Self::new(&document, text(&imds, PARTITION).await?, network, tags)
    }

    fn new(
        document: &str,
        partition: Option<String>,
        network: Network,
        tags: BTreeMap<String, String>,
    ) -> Result<Self> {
        let document: Document =
            serde_json::from_str(document).with_context(|| format!("the IMDS's {DOCUMENT}"))?;
        let Document {
            account_id: account,
            instance_id: instance,
            region,
            availability_zone: zone,
            instance_type,
            image_id: image,
            architecture,
            private_ip,
        } = document;
        Ok(Self {
            instance,
            account,
            region,
            partition: partition.unwrap_or_else(|| "aws".to_owned()),
            zone,
            instance_type,
            image,
            architecture,
            private_ip,
            network,
            tags,
        })
    }
}

impl Network {
    /// One of [`OF_INTERFACE`].
    fn learn(&mut self, is_primary: bool, what: &str, value: &str) {
        let Self {
            vpc,
            subnet,
            security_groups,
        } = self;
        match what {
            "vpc-id" if is_primary => *vpc = Some(value.to_owned()),
            "subnet-id" if is_primary => *subnet = Some(value.to_owned()),
            "security-group-ids" => security_groups.extend(value.lines().map(str::to_owned)),
            _ => {}
        }
    }
}

/// All that is read of interfaces, by their names in a listing.
fn of_interfaces<'a>(
    macs: impl Iterator<Item = &'a str>,
) -> impl Iterator<Item = (&'a str, &'static str)> {
    let macs = macs.map(|mac| mac.trim_end_matches('/'));
    macs.flat_map(|mac| OF_INTERFACE.map(|what| (mac, what)))
}

/// The text of a document, if there is one.
async fn text(imds: &Imds<'_>, path: &str) -> Result<Option<String>> {
    match imds.get(&format!("/latest/{path}")).await? {
        (StatusCode::OK, Some(body)) => Ok(String::from_utf8(body.into()).ok()),
        (StatusCode::OK | StatusCode::NOT_FOUND, _) => Ok(None),
        (status, _) => bail!("the IMDS answers {status} for {path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_is_made_up_has_one() {
        let now = Timestamp::now();
        let identity = Identity::of(&Instance::synthetic(now), now).unwrap();
        assert_eq!(
            identity.arn(),
            "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"
        );
        assert_eq!(identity.zone, "us-east-1a");
        assert_eq!(identity.private_ip, "172.31.0.10");
        let Network {
            vpc,
            subnet,
            security_groups,
        } = identity.network;
        assert_eq!(vpc.as_deref(), Some("vpc-0123456789abcdef0"));
        assert_eq!(subnet.as_deref(), Some("subnet-0123456789abcdef0"));
        assert_eq!(security_groups, ["sg-0123456789abcdef0".to_owned()].into());
    }

    #[test]
    fn it_is_where_its_primary_interface_is_and_in_the_groups_of_all() {
        let mut network = Network::default();
        for (mac, what) in of_interfaces(["02:00/", "02:01/"].into_iter()) {
            let value = match what {
                "security-group-ids" => format!("sg-{mac}\nsg-all"),
                _ => format!("{what}-{mac}"),
            };
            network.learn(mac == "02:01", what, &value);
        }
        let groups = ["sg-02:00", "sg-02:01", "sg-all"].map(str::to_owned);
        let expected = Network {
            vpc: Some("vpc-id-02:01".to_owned()),
            subnet: Some("subnet-id-02:01".to_owned()),
            security_groups: groups.into(),
        };
        assert_eq!(network, expected);
    }

    #[test]
    fn a_document_without_what_is_needed_is_an_error() {
        let error = Identity::new("{}", None, Network::default(), BTreeMap::new()).unwrap_err();
        assert!(format!("{error:#}").contains("accountId"), "{error:#}");
    }
}
