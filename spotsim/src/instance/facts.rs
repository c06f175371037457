//! What a made-up instance is, and everything that IMDS says because of it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::json;

use super::{Instance, PUBLIC_KEYS, ROLES, USER_DATA, Value, pretty, seconds};

/// What the leaves of the tree are derived from. No two of them can contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// 12 digits.
    account: String,
    region: String,
    zone: String,
    zone_id: String,
    partition: String,
    domain: String,
    instance: String,
    instance_type: String,
    image: String,
    kernel: String,
    ramdisk: String,
    product: String,
    reservation: String,
    mac: String,
    interface: String,
    private_ip: Ipv4Addr,
    private_name: String,
    public_ip: Ipv4Addr,
    public_name: String,
    subnet: String,
    vpc: String,
    security_groups: String,
    security_group_ids: String,
    /// Of its instance profile, which has the same name.
    role: String,
    monitoring: String,
}

/// IPv6 has facts of its own: these addresses are kept for documentation.
const IPV6: &str = "2001:db8:1234:1a00::123";
const IPV6_SUBNET: &str = "2001:db8:1234:1a00::/64";
const IPV6_VPC: &str = "2001:db8:1234:1a00::/56";

/// The name of the public key.
const KEY_NAME: &str = "spotsim-key";

/// Nobody acts on it, neither as a script nor as cloud-init's configuration.
const MADE_UP_USER_DATA: &str = "#cloud-config\n# spotsim made up this user data.\n";

const ACCELERATOR: &str = "eia-0123456789abcdef0123456789abcdef";
const ACCELERATOR_PATH: &str =
    "elastic-inference/associations/eia-0123456789abcdef0123456789abcdef";

impl Default for Facts {
    fn default() -> Self {
        Self::of(&BTreeMap::new(), None).expect("what is made up fits together")
    }
}

impl Facts {
    /// The facts of an instance for which some paths are `given`, and perhaps its role. What
    /// is not given follows from what is, or is made up.
    pub fn of(given: &BTreeMap<String, String>, role: Option<&str>) -> Result<Self> {
        let meta = |path: &str| given.get(&format!("meta-data/{path}")).cloned();
        let or = |path: &str, made_up: &str| meta(path).unwrap_or_else(|| made_up.to_owned());

        let mac = mac(or("mac", "02:00:5e:10:00:0a"))?;
        let of_interface = |path: &str| meta(&format!("network/interfaces/macs/{mac}/{path}"));
        let (region, zone) = place(
            meta("placement/region"),
            meta("placement/availability-zone"),
        )?;
        let (partition, domain) = match region.split('-').next() {
            Some("cn") => ("aws-cn", "amazonaws.com.cn"),
            Some("us") if region.starts_with("us-gov-") => ("aws-us-gov", "amazonaws.com"),
            _ => ("aws", "amazonaws.com"),
        };
        let domain = or("services/domain", domain);

        let private_ip = meta("local-ipv4").or_else(|| of_interface("local-ipv4s"));
        let private_ip = address("meta-data/local-ipv4", private_ip, [172, 31, 0, 10])?;
        let public_ip = meta("public-ipv4").or_else(|| of_interface("public-ipv4s"));
        let public_ip = address("meta-data/public-ipv4", public_ip, [203, 0, 113, 10])?;
        let private_name = meta("local-hostname")
            .or_else(|| meta("hostname"))
            .or_else(|| of_interface("local-hostname"))
            .unwrap_or_else(|| private_name(private_ip, &region));
        let public_name = meta("public-hostname")
            .or_else(|| of_interface("public-hostname"))
            .unwrap_or_else(|| public_name(public_ip, &region, &domain));

        let of_interface =
            |path: &str, made_up: &str| of_interface(path).unwrap_or_else(|| made_up.to_owned());
        Ok(Self {
            // AWS keeps this account number for its documentation.
            account: account(of_interface("owner-id", "123456789012"), &mac)?,
            zone_id: meta("placement/availability-zone-id")
                .unwrap_or_else(|| zone_id(&region, &zone)),
            partition: or("services/partition", partition),
            instance: or("instance-id", "i-0123456789abcdef0"),
            instance_type: or("instance-type", "m5.large"),
            image: or("ami-id", "ami-0123456789abcdef0"),
            kernel: or("kernel-id", "aki-0123456789abcdef0"),
            ramdisk: or("ramdisk-id", "ari-0123456789abcdef0"),
            product: or("product-codes", "3iplms73etrdhxdepv72l6ywj"),
            reservation: or("reservation-id", "r-0123456789abcdef0"),
            interface: of_interface("interface-id", "eni-0123456789abcdef0"),
            subnet: of_interface("subnet-id", "subnet-0123456789abcdef0"),
            vpc: of_interface("vpc-id", "vpc-0123456789abcdef0"),
            security_groups: meta("security-groups")
                .unwrap_or_else(|| of_interface("security-groups", "default")),
            security_group_ids: of_interface("security-group-ids", "sg-0123456789abcdef0"),
            role: the_role(given, role)?,
            monitoring: given
                .get("dynamic/fws/instance-monitoring")
                .map_or_else(|| "disabled".to_owned(), Clone::clone),
            region,
            zone,
            domain,
            mac,
            private_ip,
            private_name,
            public_ip,
            public_name,
        })
    }

    /// The instance that IMDS describes with these facts.
    pub fn instance(&self, booted: Timestamp) -> Instance {
        let Self { role, .. } = self;
        let mut values = BTreeMap::new();
        for (path, value) in self.meta_data() {
            values.insert(format!("meta-data/{path}"), Value::from(value));
        }
        for (path, value) in self.network() {
            let Self { mac, .. } = self;
            let key = format!("meta-data/network/interfaces/macs/{mac}/{path}");
            values.insert(key, Value::from(value));
        }
        let of_the_host = "meta-data/identity-credentials/ec2/security-credentials/ec2-instance";
        values.insert(of_the_host.to_owned(), Value::Credentials);
        values.insert(credentials_of(role), Value::Credentials);
        for (key, value) in [
            (
                "meta-data/identity-credentials/ec2/info",
                self.identity_credentials(booted),
            ),
            ("meta-data/iam/info", self.profile(booted)),
            ("dynamic/instance-identity/document", self.identity(booted)),
            (
                "dynamic/instance-identity/pkcs7",
                made_up_signature("a PKCS #7 signature", 900, 64),
            ),
            (
                "dynamic/instance-identity/rsa2048",
                made_up_signature("an RSA-2048 signature", 1100, 64),
            ),
            (
                "dynamic/instance-identity/signature",
                made_up_signature("a signature", 128, 76),
            ),
            ("dynamic/fws/instance-monitoring", self.monitoring.clone()),
            (USER_DATA, MADE_UP_USER_DATA.to_owned()),
        ] {
            values.insert(key.to_owned(), Value::from(value));
        }
        let key = format!("{PUBLIC_KEYS}/0/openssh-key");
        values.insert(key, Value::from(public_key()));
        Instance {
            values,
            key_names: [("0".to_owned(), KEY_NAME.to_owned())].into(),
            booted,
        }
    }

    /// The plain values under `meta-data/` ([AWS: instance metadata categories][1]).
    ///
    /// [1]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html#instancedata-data-categories
    ///
    /// No new instance has `kernel-id` and `ramdisk-id` (paravirtual images),
    /// `placement/host-id` (Dedicated Hosts) and `elastic-inference` (which AWS has ended). They
    /// are here since amazon-ec2-metadata-mock has them, and what is tested against that may ask.
    fn meta_data(&self) -> Vec<(&'static str, String)> {
        let text = str::to_owned;
        vec![
            ("ami-id", self.image.clone()),
            ("ami-launch-index", text("0")),
            ("ami-manifest-path", text("(unknown)")),
            ("block-device-mapping/ami", text("/dev/xvda")),
            ("block-device-mapping/ebs0", text("sdb")),
            ("block-device-mapping/ephemeral0", text("sdc")),
            ("block-device-mapping/root", text("/dev/xvda")),
            ("block-device-mapping/swap", text("sdd")),
            (ACCELERATOR_PATH, accelerator()),
            ("events/maintenance/history", text("[]")),
            ("events/maintenance/scheduled", text("[]")),
            ("hostname", self.private_name.clone()),
            ("instance-action", text("none")),
            ("instance-id", self.instance.clone()),
            ("instance-life-cycle", text("spot")),
            ("instance-type", self.instance_type.clone()),
            ("ipv6", text(IPV6)),
            ("kernel-id", self.kernel.clone()),
            ("local-hostname", self.private_name.clone()),
            ("local-ipv4", self.private_ip.to_string()),
            ("mac", self.mac.clone()),
            (
                "metrics/vhostmd",
                text("<?xml version=\"1.0\" encoding=\"UTF-8\"?>"),
            ),
            ("placement/availability-zone", self.zone.clone()),
            ("placement/availability-zone-id", self.zone_id.clone()),
            ("placement/group-name", text("spotsim-group")),
            ("placement/host-id", text("h-0123456789abcdef0")),
            ("placement/partition-number", text("1")),
            ("placement/region", self.region.clone()),
            ("product-codes", self.product.clone()),
            ("profile", text("default-hvm")),
            ("ramdisk-id", self.ramdisk.clone()),
            ("public-hostname", self.public_name.clone()),
            ("public-ipv4", self.public_ip.to_string()),
            ("reservation-id", self.reservation.clone()),
            ("security-groups", self.security_groups.clone()),
            ("services/domain", self.domain.clone()),
            ("services/partition", self.partition.clone()),
            ("system", text("nitro")),
            ("tags/instance/Name", text("spotsim")),
            ("tags/instance/Test", text("test")),
        ]
    }

    /// The values of its one network interface.
    fn network(&self) -> Vec<(String, String)> {
        let text = str::to_owned;
        let subnet_block = block(self.private_ip, 20);
        let vpc_block = block(self.private_ip, 16);
        let mut values = vec![(
            format!("ipv4-associations/{}", self.public_ip),
            self.private_ip.to_string(),
        )];
        values.extend(
            [
                ("device-number", text("0")),
                ("interface-id", self.interface.clone()),
                ("ipv6s", text(IPV6)),
                ("local-hostname", self.private_name.clone()),
                ("local-ipv4s", self.private_ip.to_string()),
                ("mac", self.mac.clone()),
                ("network-card", text("0")),
                // What the first documents and other mocks call it.
                ("network-card-index", text("0")),
                ("owner-id", self.account.clone()),
                ("public-hostname", self.public_name.clone()),
                ("public-ipv4s", self.public_ip.to_string()),
                ("security-group-ids", self.security_group_ids.clone()),
                ("security-groups", self.security_groups.clone()),
                ("subnet-id", self.subnet.clone()),
                ("subnet-ipv4-cidr-block", subnet_block),
                ("subnet-ipv6-cidr-blocks", text(IPV6_SUBNET)),
                ("vpc-id", self.vpc.clone()),
                ("vpc-ipv4-cidr-block", vpc_block.clone()),
                ("vpc-ipv4-cidr-blocks", vpc_block),
                ("vpc-ipv6-cidr-blocks", text(IPV6_VPC)),
            ]
            .map(|(path, value)| (path.to_owned(), value)),
        );
        values
    }

    fn profile(&self, booted: Timestamp) -> String {
        let Self {
            partition,
            account,
            role,
            ..
        } = self;
        pretty(&json!({
            "Code": "Success",
            "LastUpdated": seconds(booted),
            "InstanceProfileArn": format!("arn:{partition}:iam::{account}:instance-profile/{role}"),
            "InstanceProfileId": "AIPASPOTSIMEXAMPLE000",
        }))
    }

    fn identity_credentials(&self, booted: Timestamp) -> String {
        pretty(&json!({
            "Code": "Success",
            "LastUpdated": seconds(booted),
            "AccountId": self.account,
        }))
    }

    fn identity(&self, booted: Timestamp) -> String {
        // Graviton's types have a `g` after their generation's digit.
        let family = self.instance_type.split('.').next().unwrap_or_default();
        let generation = family.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        let arm = family == "a1" || generation.contains('g');
        pretty(&json!({
            "accountId": self.account,
            "architecture": if arm { "arm64" } else { "x86_64" },
            "availabilityZone": self.zone,
            "billingProducts": null,
            "devpayProductCodes": null,
            "marketplaceProductCodes": self.product.lines().collect::<Vec<_>>(),
            "imageId": self.image,
            "instanceId": self.instance,
            "instanceType": self.instance_type,
            "kernelId": self.kernel,
            "pendingTime": seconds(booted),
            "privateIp": self.private_ip.to_string(),
            "ramdiskId": self.ramdisk,
            "region": self.region,
            "version": "2017-09-30",
        }))
    }
}

/// Where a role's credentials are.
pub fn credentials_of(role: &str) -> String {
    format!("{ROLES}/{role}")
}

/// The name of the role, which the files of `given` may tell as well.
fn the_role(given: &BTreeMap<String, String>, role: Option<&str>) -> Result<String> {
    let below = format!("{ROLES}/");
    let mut roles: Vec<_> = given
        .keys()
        .filter_map(|key| key.strip_prefix(&below))
        .chain(role)
        .collect();
    roles.dedup();
    match *roles {
        [] => Ok("spotsim-role".to_owned()),
        [role] => Ok(role.to_owned()),
        _ => bail!(
            "{ROLES}: an instance has one role, not {}",
            roles.join(" and ")
        ),
    }
}

fn account(account: String, mac: &str) -> Result<String> {
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    ensure!(
        is_account,
        "meta-data/network/interfaces/macs/{mac}/owner-id: {account:?} is not an account of 12 digits"
    );
    Ok(account)
}

fn mac(mac: String) -> Result<String> {
    let is_octet = |octet: &str| {
        octet.len() == 2
            && octet
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    ensure!(
        mac.split(':').count() == 6 && mac.split(':').all(is_octet),
        "meta-data/mac: {mac:?} is not a MAC address such as 02:00:5e:10:00:0a"
    );
    Ok(mac)
}

/// The first of some addresses, one a line.
fn address(path: &str, given: Option<String>, made_up: [u8; 4]) -> Result<Ipv4Addr> {
    let Some(given) = given else {
        return Ok(made_up.into());
    };
    let first = given.lines().next().unwrap_or_default();
    first
        .parse()
        .with_context(|| format!("{path}: {given:?} is not an IPv4 address"))
}

/// Region and availability zone, of which one tells the other.
fn place(region: Option<String>, zone: Option<String>) -> Result<(String, String)> {
    const ZONE: &str = "meta-data/placement/availability-zone";
    match (region, zone) {
        (None, None) => Ok(("us-east-1".to_owned(), "us-east-1a".to_owned())),
        (Some(region), None) => {
            let zone = format!("{region}a");
            Ok((region, zone))
        }
        (None, Some(zone)) => {
            let region = region_of(&zone)
                .with_context(|| format!("{ZONE}: {zone:?} is not a zone such as us-east-1a"))?;
            Ok((region.to_owned(), zone))
        }
        (Some(region), Some(zone)) => {
            ensure!(
                region_of(&zone) == Some(&region),
                "{ZONE}: {zone:?} is not in the region {region:?}"
            );
            Ok((region, zone))
        }
    }
}

/// The region of a zone: `us-west-2` of `us-west-2b`, and of the local zone `us-west-2-lax-1a`.
fn region_of(zone: &str) -> Option<&str> {
    let digit = zone.find(|letter: char| letter.is_ascii_digit())?;
    let digits = zone[digit..]
        .find(|letter: char| !letter.is_ascii_digit())
        .filter(|_| zone[..digit].ends_with('-'))?;
    Some(&zone[..digit + digits])
}

/// The ID of a zone in the form that the region's have: `use1-az1`, `apse2-az3`, and of a local
/// zone `usw2-lax1-az1`. Which zone has which number differs from account to account.
fn zone_id(region: &str, zone: &str) -> String {
    let mut words = region.split('-');
    let mut id = words.next().unwrap_or_default().to_owned();
    for word in words {
        // `southeast` is `se`; the number stays.
        let (first, second) = ["north", "south"]
            .iter()
            .find_map(|first| Some((first, word.strip_prefix(first)?)))
            .map_or((word, ""), |(first, second)| (*first, second));
        id.extend(first.chars().next());
        id.extend(second.chars().next());
    }
    let within = zone.strip_prefix(region).unwrap_or_default();
    let letter = within.chars().last().unwrap_or('a');
    let group = within.trim_end_matches(letter).replace('-', "");
    let number = u32::from(letter).saturating_sub(u32::from('a')) + 1;
    match group.as_str() {
        "" => format!("{id}-az{number}"),
        group => format!("{id}-{group}-az{number}"),
    }
}

/// What is said of the one Elastic Inference accelerator.
fn accelerator() -> String {
    pretty(&json!({
        "version_2018_04_12": {
            "elastic-inference-accelerator-id": ACCELERATOR,
            "elastic-inference-accelerator-type": "eia1.medium",
        },
    }))
}

fn dashed(ip: Ipv4Addr) -> String {
    ip.to_string().replace('.', "-")
}

fn private_name(ip: Ipv4Addr, region: &str) -> String {
    match region {
        "us-east-1" => format!("ip-{}.ec2.internal", dashed(ip)),
        _ => format!("ip-{}.{region}.compute.internal", dashed(ip)),
    }
}

fn public_name(ip: Ipv4Addr, region: &str, domain: &str) -> String {
    match region {
        "us-east-1" => format!("ec2-{}.compute-1.{domain}", dashed(ip)),
        _ => format!("ec2-{}.{region}.compute.{domain}", dashed(ip)),
    }
}

/// The block of addresses with a prefix of so many bits that an address is in.
fn block(ip: Ipv4Addr, bits: u32) -> String {
    let mask = u32::MAX << (32 - bits);
    format!("{}/{bits}", Ipv4Addr::from_bits(ip.to_bits() & mask))
}

/// Base64 in lines, as signatures have it. Whoever decodes it reads that it is none.
fn made_up_signature(what: &str, length: usize, width: usize) -> String {
    let sentence = format!("This is not {what}: spotsim made it up, and it proves nothing. ");
    let bytes: Vec<u8> = sentence.bytes().cycle().take(length).collect();
    let text = STANDARD.encode(bytes);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(width)
        .map(String::from_utf8_lossy)
        .collect();
    lines.join("\n")
}

/// An Ed25519 key to which there is no other half.
fn public_key() -> String {
    let mut key = Vec::new();
    for part in [&b"ssh-ed25519"[..], b"spotsim made up this public key."] {
        key.extend((part.len() as u32).to_be_bytes());
        key.extend(part);
    }
    format!("ssh-ed25519 {} {KEY_NAME}\n", STANDARD.encode(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_tells_its_region() {
        for (zone, region, id) in [
            ("us-east-1a", "us-east-1", "use1-az1"),
            ("eu-central-1c", "eu-central-1", "euc1-az3"),
            ("ap-southeast-2b", "ap-southeast-2", "apse2-az2"),
            ("ap-northeast-1d", "ap-northeast-1", "apne1-az4"),
            ("us-gov-west-1a", "us-gov-west-1", "usgw1-az1"),
            ("cn-northwest-1a", "cn-northwest-1", "cnnw1-az1"),
            ("us-west-2-lax-1a", "us-west-2", "usw2-lax1-az1"),
        ] {
            assert_eq!(region_of(zone), Some(region), "{zone}");
            assert_eq!(zone_id(region, zone), id);
        }
        for zone in ["", "a", "1a", "us-east", "us-east-1", "us-east-a1"] {
            assert_eq!(region_of(zone), None, "{zone}");
        }
    }

    #[test]
    fn a_signature_says_that_it_is_none() {
        let signature = made_up_signature("a signature", 128, 76);
        let lines: Vec<_> = signature.lines().collect();
        assert_eq!(
            lines.iter().map(|line| line.len()).collect::<Vec<_>>(),
            [76, 76, 20]
        );
        let text = STANDARD.decode(lines.concat()).unwrap();
        assert_eq!(text.len(), 128);
        assert!(text.starts_with(b"This is not a signature: spotsim made it up"));
    }

    #[test]
    fn a_public_key_has_the_form_of_one() {
        let key = public_key();
        let [kind, key, name] = key.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{key}");
        };
        assert_eq!((kind, name), ("ssh-ed25519", KEY_NAME));
        let key = STANDARD.decode(key).unwrap();
        // Two parts, each after its length: 11 and 32 bytes.
        assert_eq!(key.len(), 4 + 11 + 4 + 32);
        assert_eq!(key[15..19], [0, 0, 0, 32]);
    }
}
