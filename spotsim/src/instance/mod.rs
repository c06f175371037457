//! An instance as IMDS describes it: a tree of documents, made up, or read from a file, or
//! asked of a real one and written to a file. No HTTP server, and no clock of its own.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

mod crawl;
mod facts;
mod file;
mod identity;
mod imds;
mod save;

pub use identity::{Identity, Network};
pub use save::{Saved, save};

use facts::Facts;

/// The longest life of a role's credentials; the real service renews them before it is over.
const CREDENTIALS_LIVE: SignedDuration = SignedDuration::from_hours(6);

/// Where the public keys are. Their listing is not like any other: `0=NAME` stands for the
/// directory `0`.
const PUBLIC_KEYS: &str = "meta-data/public-keys";

const USER_DATA: &str = "user-data";

/// Below it are the roles, each with its credentials.
const ROLES: &str = "meta-data/iam/security-credentials";

/// Everything that IMDS says of an instance, by its place under the version: `user-data`,
/// `meta-data/placement/region`, `dynamic/instance-identity/document`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    values: BTreeMap<String, Value>,
    /// What the public keys are called, by their numbers.
    key_names: BTreeMap<String, String>,
    booted: Timestamp,
}

/// What a path says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    /// Always the same.
    Fixed(Vec<u8>),
    /// Made-up credentials, new at each request: they must expire in the future.
    Credentials,
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Fixed(text.into_bytes())
    }
}

/// What is at a place of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Document(Document),
    /// The names of what is directly below, in the order and form in which IMDS lists them:
    /// directories mostly have a slash at their end.
    Listing(Vec<String>),
}

/// A value, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub body: Vec<u8>,
    pub content_type: &'static str,
    /// Since when it has this value.
    pub since: Timestamp,
}

impl Instance {
    /// A Spot instance in a VPC that exists nowhere and was launched at `booted`.
    pub fn synthetic(booted: Timestamp) -> Self {
        Facts::default().instance(booted)
    }

    /// When it was launched.
    pub fn booted(&self) -> Timestamp {
        self.booted
    }

    /// What is at `key` at the time `now`. `key` has no slash at either end; that of the root
    /// is empty.
    pub fn get(&self, key: &str, now: Timestamp) -> Option<Found> {
        let Self { values, booted, .. } = self;
        let Some(value) = values.get(key) else {
            return self.listing(key).map(Found::Listing);
        };
        let (body, since) = match value {
            Value::Fixed(body) => (body.clone(), *booted),
            Value::Credentials => (credentials(now).into_bytes(), now),
        };
        let content_type = match key {
            USER_DATA => "application/octet-stream",
            _ => "text/plain",
        };
        Some(Found::Document(Document {
            body,
            content_type,
            since,
        }))
    }

    /// The places of all documents, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// What is directly below `directory`; `None` if nothing is.
    fn listing(&self, directory: &str) -> Option<Vec<String>> {
        let Self {
            values, key_names, ..
        } = self;
        let below = values.keys().filter_map(|key| match directory {
            "" => Some(key.as_str()),
            _ => key.strip_prefix(directory)?.strip_prefix('/'),
        });
        let entries: BTreeSet<_> = below
            .map(|below| match below.split_once('/') {
                None => below.to_owned(),
                // The root alone shows its directories bare.
                Some((child, _)) if directory.is_empty() => child.to_owned(),
                Some((child, _)) => match key_names.get(child) {
                    Some(name) if directory == PUBLIC_KEYS => format!("{child}={name}"),
                    _ => format!("{child}/"),
                },
            })
            .collect();
        (!entries.is_empty()).then(|| entries.into_iter().collect())
    }
}

/// Whether it can be one part of a request's path as it is: RFC 3986's `pchar` without
/// percent-encoding, by which one thing would have many names. Clients take `.` and `..` away.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.chars().all(is_in_paths)
}

fn is_in_paths(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(letter)
}

/// The number and name of a public key, which are `0=NAME` in their listing. The name is in no
/// request, and often has blanks.
fn key_entry(entry: &str) -> Option<(&str, &str)> {
    let (number, name) = entry.split_once('=')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let odd = |letter: char| letter == '/' || letter.is_control();
    (is_number && !name.is_empty() && !name.contains(odd)).then_some((number, name))
}

/// Credentials that look right and open nothing.
fn credentials(now: Timestamp) -> String {
    pretty(&json!({
        "Code": "Success",
        "LastUpdated": seconds(now),
        "Type": "AWS-HMAC",
        "AccessKeyId": "ASIASPOTSIMEXAMPLE00",
        "SecretAccessKey": "spotsim/made/up/this/secret/EXAMPLEKEY00",
        "Token": "spotsim-made-up-this-session-token-EXAMPLE==",
        "Expiration": seconds(now + CREDENTIALS_LIVE),
    }))
}

/// A time as the service writes it, without a fraction.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn now() -> Timestamp {
        "2026-03-01T12:00:00.25Z".parse().unwrap()
    }

    fn synthetic() -> Instance {
        Instance::synthetic("2026-01-01T00:00:00.5Z".parse().unwrap())
    }

    fn listing(instance: &Instance, key: &str) -> Vec<String> {
        match instance.get(key, now()) {
            Some(Found::Listing(names)) => names,
            other => panic!("{key}: {other:?}"),
        }
    }

    /// Every document that the listings lead to.
    fn walk(instance: &Instance, directory: &str, found: &mut BTreeMap<String, String>) {
        for name in listing(instance, directory) {
            let child = name.split('=').next().unwrap();
            let key = format!("{directory}/{}", child.trim_end_matches('/'));
            let key = key.trim_start_matches('/');
            match instance.get(key, now()) {
                Some(Found::Document(document)) => {
                    assert!(!name.ends_with('/'), "{key} is no directory");
                    let text = String::from_utf8(document.body).unwrap();
                    assert!(!text.is_empty(), "{key} says something");
                    found.insert(key.to_owned(), text);
                }
                Some(Found::Listing(_)) => walk(instance, key, found),
                None => panic!("{key} is listed and not there"),
            }
        }
    }

    #[test]
    fn the_listings_lead_to_every_document() {
        let instance = synthetic();
        let mut found = BTreeMap::new();
        walk(&instance, "", &mut found);
        assert!(instance.keys().eq(found.keys().map(String::as_str)));
        assert!(found.len() > 60, "{}", found.len());
    }

    #[test]
    fn it_has_what_a_spot_instance_in_a_vpc_has() {
        let instance = synthetic();
        assert_eq!(
            listing(&instance, "meta-data"),
            [
                "ami-id",
                "ami-launch-index",
                "ami-manifest-path",
                "block-device-mapping/",
                "elastic-inference/",
                "events/",
                "hostname",
                "iam/",
                "identity-credentials/",
                "instance-action",
                "instance-id",
                "instance-life-cycle",
                "instance-type",
                "ipv6",
                "kernel-id",
                "local-hostname",
                "local-ipv4",
                "mac",
                "metrics/",
                "network/",
                "placement/",
                "product-codes",
                "profile",
                "public-hostname",
                "public-ipv4",
                "public-keys/",
                "ramdisk-id",
                "reservation-id",
                "security-groups",
                "services/",
                "system",
                "tags/",
            ]
        );
        assert_eq!(
            listing(&instance, ""),
            ["dynamic", "meta-data", "user-data"]
        );
        let key = "meta-data/public-keys";
        assert_eq!(listing(&instance, key), ["0=spotsim-key"]);
        assert_eq!(listing(&instance, &format!("{key}/0")), ["openssh-key"]);
        for key in [
            "meta-data/spot",
            "meta-data/events/recommendations",
            "meta-data/autoscaling",
        ] {
            assert_eq!(instance.get(key, now()), None, "{key}");
        }
    }

    /// What amazon-ec2-metadata-mock 1.13 serves.
    #[test]
    fn it_has_what_the_other_mock_has() {
        let instance = synthetic();
        let interface = "network/interfaces/macs/02:00:5e:10:00:0a";
        let of_meta_data = "ami-id ami-launch-index ami-manifest-path block-device-mapping/ami \
            block-device-mapping/ebs0 block-device-mapping/ephemeral0 block-device-mapping/root \
            block-device-mapping/swap elastic-inference/associations events/maintenance/scheduled hostname iam/info \
            iam/security-credentials instance-action instance-id instance-life-cycle \
            instance-type kernel-id local-hostname local-ipv4 mac placement/availability-zone \
            placement/availability-zone-id placement/group-name placement/host-id \
            placement/partition-number \
            placement/region product-codes public-hostname public-ipv4 public-keys \
            public-keys/0/openssh-key ramdisk-id reservation-id security-groups services/domain \
            services/partition tags/instance/Name tags/instance/Test";
        let of_interface = "device-number interface-id ipv4-associations/203.0.113.10 ipv6s \
            local-hostname local-ipv4s mac network-card-index owner-id public-hostname \
            public-ipv4s security-group-ids security-groups subnet-id subnet-ipv4-cidr-block \
            subnet-ipv6-cidr-blocks vpc-id vpc-ipv4-cidr-block vpc-ipv4-cidr-blocks \
            vpc-ipv6-cidr-blocks";
        let others = "dynamic/fws/instance-monitoring dynamic/instance-identity/document \
            dynamic/instance-identity/pkcs7 dynamic/instance-identity/signature user-data";
        let keys = of_meta_data
            .split(' ')
            .map(|path| format!("meta-data/{path}"))
            .chain(
                of_interface
                    .split(' ')
                    .map(|path| format!("meta-data/{interface}/{path}")),
            )
            .chain(others.split(' ').map(str::to_owned));
        for key in keys {
            assert!(instance.get(&key, now()).is_some(), "{key}");
        }
    }

    #[test]
    fn it_agrees_with_itself() {
        let mut found = BTreeMap::new();
        walk(&synthetic(), "", &mut found);
        let text = |key: &str| found[key].as_str();
        let json = |key: &str| -> serde_json::Value { serde_json::from_str(text(key)).unwrap() };

        let document = json("dynamic/instance-identity/document");
        let mac = text("meta-data/mac");
        let interface = format!("meta-data/network/interfaces/macs/{mac}");
        let account = text(&format!("{interface}/owner-id"));
        assert!(account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()));
        for (member, expected) in [
            ("accountId", account),
            (
                "availabilityZone",
                text("meta-data/placement/availability-zone"),
            ),
            ("imageId", text("meta-data/ami-id")),
            ("instanceId", text("meta-data/instance-id")),
            ("instanceType", text("meta-data/instance-type")),
            ("privateIp", text("meta-data/local-ipv4")),
            ("region", text("meta-data/placement/region")),
            ("kernelId", text("meta-data/kernel-id")),
            ("ramdiskId", text("meta-data/ramdisk-id")),
            ("pendingTime", "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(document[member], expected, "{member}");
        }
        assert_eq!(
            document["marketplaceProductCodes"][0],
            text("meta-data/product-codes")
        );

        let associations = "meta-data/elastic-inference/associations";
        let [accelerator] = &listing(&synthetic(), associations)[..] else {
            panic!("one accelerator");
        };
        let of_accelerator = json(&format!("{associations}/{accelerator}"));
        assert_eq!(
            of_accelerator["version_2018_04_12"],
            serde_json::json!({
                "elastic-inference-accelerator-id": accelerator,
                "elastic-inference-accelerator-type": "eia1.medium",
            })
        );

        let (region, zone) = (
            text("meta-data/placement/region"),
            text("meta-data/placement/availability-zone"),
        );
        assert!(zone.starts_with(region));
        let role = listing(&synthetic(), "meta-data/iam/security-credentials");
        let arn = format!("arn:aws:iam::{account}:instance-profile/{}", role[0]);
        assert_eq!(json("meta-data/iam/info")["InstanceProfileArn"], *arn);
        let of_the_host = json("meta-data/identity-credentials/ec2/info");
        assert_eq!(of_the_host["AccountId"], account);

        for (of_interface, of_instance) in [
            ("mac", "mac"),
            ("local-ipv4s", "local-ipv4"),
            ("public-ipv4s", "public-ipv4"),
            ("local-hostname", "local-hostname"),
            ("local-hostname", "hostname"),
            ("public-hostname", "public-hostname"),
            ("security-groups", "security-groups"),
            ("ipv6s", "ipv6"),
        ] {
            assert_eq!(
                text(&format!("{interface}/{of_interface}")),
                text(&format!("meta-data/{of_instance}")),
                "{of_interface}"
            );
        }
        let association = format!(
            "{interface}/ipv4-associations/{}",
            text("meta-data/public-ipv4")
        );
        assert_eq!(text(&association), text("meta-data/local-ipv4"));
        assert_eq!(
            listing(&synthetic(), "meta-data/network/interfaces/macs").len(),
            1
        );
    }

    #[test]
    fn its_credentials_are_fake_and_have_not_expired() {
        for key in [
            "meta-data/iam/security-credentials/spotsim-role",
            "meta-data/identity-credentials/ec2/security-credentials/ec2-instance",
        ] {
            let Some(Found::Document(document)) = synthetic().get(key, now()) else {
                panic!("{key}");
            };
            assert_eq!(document.since, now());
            let credentials: serde_json::Value = serde_json::from_slice(&document.body).unwrap();
            assert_eq!(credentials["LastUpdated"], "2026-03-01T12:00:00Z");
            assert_eq!(credentials["Expiration"], "2026-03-01T18:00:00Z");
            for member in ["AccessKeyId", "SecretAccessKey", "Token"] {
                let value = credentials[member].as_str().unwrap();
                assert!(
                    value.to_lowercase().contains("spotsim"),
                    "{member}: {value}"
                );
            }
        }
    }
}
