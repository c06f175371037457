//! A file that describes an instance.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use super::{
    Instance, PUBLIC_KEYS, USER_DATA, Value,
    facts::{self, Facts},
    is_in_paths, is_name, key_entry,
};
use crate::document;

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    /// What the file's own values are laid over.
    #[serde(default)]
    base: Base,
    /// The role for which credentials are made up.
    role: Option<String>,
    #[serde(default)]
    meta_data: Directory,
    #[serde(default)]
    dynamic: Directory,
    user_data: Option<String>,
    user_data_base64: Option<String>,
    /// Paths of the base that the instance does not have.
    #[serde(default)]
    absent: Vec<Name>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Base {
    #[default]
    Synthetic,
    None,
}

/// A map of the file. A name may have slashes: `placement/region`.
#[derive(Debug, Default)]
struct Directory(BTreeMap<String, Node>);

#[derive(Debug)]
enum Node {
    Leaf(String),
    Directory(Directory),
}

impl Instance {
    /// The instance that a file describes. What the file does not say of the launch, happened
    /// at `booted`.
    pub fn read(path: &Path, booted: Timestamp) -> Result<Self> {
        let file: File = document::read(path)?;
        file.instance(booted).with_context(|| document::shown(path))
    }
}

impl File {
    fn instance(self, booted: Timestamp) -> Result<Instance> {
        let Self {
            base,
            role,
            meta_data,
            dynamic,
            user_data,
            user_data_base64,
            absent,
        } = self;
        let mut given = BTreeMap::new();
        let mut key_names = BTreeMap::new();
        meta_data.flatten("meta-data", &mut given, &mut key_names)?;
        dynamic.flatten("dynamic", &mut given, &mut key_names)?;
        if let Some(role) = &role {
            ensure!(is_name(role), "role: {role:?} is not the name of a role");
        }
        let mut instance = match base {
            Base::Synthetic => Facts::of(&given, role.as_deref())?.instance(booted),
            Base::None => bare(role.as_deref(), booted),
        };
        let mut named = BTreeSet::new();
        for Name(path) in &absent {
            ensure!(named.insert(path), "absent: {path} is named twice");
            let is_given = |key: &str| is_at_or_below(key, path);
            ensure!(
                !given.keys().any(|key| is_given(key)),
                "absent: {path} is given as well"
            );
            ensure!(
                instance.keys().any(|key| is_at_or_below(key, path)),
                "absent: there is no {path}"
            );
        }
        for Name(path) in &absent {
            instance.remove(path);
        }
        for (key, value) in given {
            instance.set(key, Value::from(value))?;
        }
        instance.key_names.extend(key_names);
        match (user_data, user_data_base64) {
            (None, None) => {}
            (Some(_), Some(_)) => bail!("user-data and user-data-base64 are both given"),
            (Some(text), None) => instance.set(USER_DATA.to_owned(), Value::from(text))?,
            (None, Some(text)) => {
                let text: String = text.split_whitespace().collect();
                let data = STANDARD.decode(text).context("user-data-base64")?;
                instance.set(USER_DATA.to_owned(), Value::Fixed(data))?;
            }
        }
        Ok(instance)
    }
}

/// An instance of which nothing is known but its role.
fn bare(role: Option<&str>, booted: Timestamp) -> Instance {
    let credentials = role.map(|role| (facts::credentials_of(role), Value::Credentials));
    Instance {
        values: credentials.into_iter().collect(),
        key_names: BTreeMap::new(),
        booted,
    }
}

impl Instance {
    /// Sets a document. What is a directory cannot become one, nor the other way round.
    fn set(&mut self, key: String, value: Value) -> Result<()> {
        let Self { values, .. } = self;
        for (at, _) in key.match_indices('/') {
            let above = &key[..at];
            ensure!(
                !values.contains_key(above),
                "{key}: {above} is a value and cannot be a directory too"
            );
        }
        let below = format!("{key}/");
        let next = values.range(below.clone()..).next();
        ensure!(
            !next.is_some_and(|(other, _)| other.starts_with(&below)),
            "{key}: it is a directory and cannot be a value too"
        );
        values.insert(key, value);
        Ok(())
    }

    /// Takes a document or a directory away.
    fn remove(&mut self, path: &str) {
        let Self { values, .. } = self;
        values.retain(|key, _| !is_at_or_below(key, path));
    }
}

fn is_at_or_below(key: &str, path: &str) -> bool {
    key.strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Directory {
    /// Collects the leaves below `path`, and the names of public keys.
    fn flatten(
        self,
        path: &str,
        given: &mut BTreeMap<String, String>,
        key_names: &mut BTreeMap<String, String>,
    ) -> Result<()> {
        let Self(children) = self;
        for (name, node) in children {
            let mut key = format!("{path}/{name}");
            if let Some((number, name, rest)) = public_key(&key) {
                let known = key_names.insert(number.to_owned(), name.to_owned());
                ensure!(
                    known.is_none_or(|known| known == name),
                    "{PUBLIC_KEYS}/{number}: it has two names"
                );
                key = format!("{PUBLIC_KEYS}/{number}{rest}");
            }
            ensure!(
                key.split('/').all(is_name),
                "{key:?} is not a path: only public keys have such names"
            );
            match node {
                Node::Directory(directory) => directory.flatten(&key, given, key_names)?,
                Node::Leaf(value) => {
                    let twice = given.insert(key.clone(), value).is_some();
                    ensure!(!twice, "{key} is given twice");
                }
            }
        }
        Ok(())
    }
}

/// The number and name of a public key and what is below it: `0=NAME` is how the listing calls
/// the directory `0`.
fn public_key(key: &str) -> Option<(&str, &str, &str)> {
    let below = key.strip_prefix(PUBLIC_KEYS)?.strip_prefix('/')?;
    let (entry, rest) = below.split_at(below.find('/').unwrap_or(below.len()));
    let (number, name) = key_entry(entry)?;
    Some((number, name, rest))
}

impl<'de> Deserialize<'de> for Directory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Directory;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of paths")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Directory, A::Error> {
                directory(map)
            }
        }

        deserializer.deserialize_map(Map)
    }
}

fn directory<'de, A: MapAccess<'de>>(mut map: A) -> Result<Directory, A::Error> {
    let mut children = BTreeMap::new();
    while let Some(Name(name)) = map.next_key()? {
        if children.contains_key(&name) {
            return Err(A::Error::custom(format!("{name} is given twice")));
        }
        children.insert(name, map.next_value()?);
    }
    Ok(Directory(children))
}

/// How the TOML crate shows a date or time to whoever takes anything: as a map with this.
const TOML_TIME: &str = "$__toml_private_datetime";

/// The name of an entry: a path below its directory.
#[derive(Debug)]
struct Name(String);

/// Why something is not a path, if it is none. Whether the name of a public key is in its place
/// is not known yet.
fn flaw(path: &str) -> Option<String> {
    let odd = |name: &&str| !is_name(name) && key_entry(name).is_none();
    let name = path.split('/').find(odd)?;
    Some(match name {
        _ if path.is_empty() => "it is empty".to_owned(),
        "" => "it has a slash at an end, or two in a row".to_owned(),
        "." | ".." => "clients take . and .. out of it".to_owned(),
        _ => {
            let letter = name.chars().find(|letter| !is_in_paths(*letter));
            format!("no request can have {:?} in it", letter.unwrap_or_default())
        }
    })
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match flaw(&name) {
            Some(why) => Err(D::Error::custom(format!("{name:?} is not a path: {why}"))),
            None => Ok(Self(name)),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a whole number, a boolean or a map of paths")
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Leaf(value.to_owned()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Leaf(value.to_string()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Leaf(value.to_string()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Leaf(value.to_string()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
                // Nobody knows any more whether it was 1.10 or 1.1.
                Err(E::custom(format!(
                    "write the number {value} in quotes: one with a fraction may be spelt in many ways"
                )))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Node, A::Error> {
                let Directory(children) = directory(map)?;
                match children.first_key_value() {
                    None => Err(A::Error::custom(
                        "an empty map: IMDS has no directory with nothing in it",
                    )),
                    Some((name, Node::Leaf(time))) if name == TOML_TIME => Err(A::Error::custom(
                        format!("write {time} in quotes: a time may be spelt in many ways"),
                    )),
                    Some(_) => Ok(Node::Directory(Directory(children))),
                }
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{document::Format, instance::Found};

    fn booted() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn yaml(text: &str) -> Instance {
        let file: File = document::parse(text, Format::Yaml).unwrap();
        file.instance(booted()).unwrap()
    }

    /// Where and why a file is refused.
    fn refused(format: Format, text: &str) -> String {
        match document::parse::<File>(text, format) {
            Err(invalid) => invalid.to_string(),
            Ok(file) => format!("{:#}", file.instance(booted()).unwrap_err()),
        }
    }

    fn text(instance: &Instance, key: &str) -> String {
        match instance.get(key, booted()) {
            Some(Found::Document(document)) => String::from_utf8(document.body).unwrap(),
            other => panic!("{key}: {other:?}"),
        }
    }

    fn listing(instance: &Instance, key: &str) -> Vec<String> {
        match instance.get(key, booted()) {
            Some(Found::Listing(names)) => names,
            other => panic!("{key}: {other:?}"),
        }
    }

    fn json(instance: &Instance, key: &str) -> serde_json::Value {
        serde_json::from_str(&text(instance, key)).unwrap()
    }

    #[test]
    fn nothing_given_is_the_synthetic_instance() {
        assert_eq!(yaml("{}"), Instance::synthetic(booted()));
        assert_eq!(yaml("base: synthetic"), Instance::synthetic(booted()));
    }

    #[test]
    fn maps_and_slashes_say_the_same_in_every_format() {
        let expected = yaml("meta-data: {placement/region: eu-west-3, tags/instance/Count: '7'}");
        assert_eq!(text(&expected, "meta-data/tags/instance/Count"), "7");
        assert_eq!(text(&expected, "meta-data/tags/instance/Name"), "spotsim");
        for (format, text) in [
            (
                Format::Yaml,
                "meta-data:\n  placement:\n    region: eu-west-3\n  tags: {instance/Count: 7}\n",
            ),
            (
                Format::Toml,
                "[meta-data.placement]\nregion = 'eu-west-3'\n[meta-data.tags]\n'instance/Count' = 7\n",
            ),
            (
                Format::Json,
                r#"{"meta-data": {"placement": {"region": "eu-west-3"}, "tags/instance": {"Count": 7}}}"#,
            ),
        ] {
            let file: File = document::parse(text, format).unwrap();
            assert_eq!(file.instance(booted()).unwrap(), expected, "{format:?}");
        }
    }

    #[test]
    fn any_path_can_be_added() {
        let instance = yaml(
            "meta-data: {spot/instance-action: '{}', made/up: true, n: -3}\n\
             dynamic: {other/thing: 012345678901}",
        );
        assert_eq!(text(&instance, "meta-data/spot/instance-action"), "{}");
        assert_eq!(text(&instance, "meta-data/made/up"), "true");
        assert_eq!(text(&instance, "meta-data/n"), "-3");
        assert_eq!(text(&instance, "dynamic/other/thing"), "012345678901");
        assert!(listing(&instance, "meta-data").contains(&"spot/".to_owned()));
    }

    #[test]
    fn what_follows_from_a_value_follows_it() {
        let instance = yaml(
            "role: my-role\n\
             meta-data:\n  \
               ami-id: ami-1\n  \
               instance-id: i-1\n  \
               instance-type: c7g.xlarge\n  \
               kernel-id: aki-1\n  \
               local-ipv4: 10.1.18.7\n  \
               public-ipv4: 198.51.100.4\n  \
               mac: 0a:00:00:00:00:01\n  \
               placement/availability-zone: eu-west-1b\n  \
               security-groups: web\n  \
               network/interfaces/macs/0a:00:00:00:00:01/owner-id: 000000000042\n",
        );
        let identity = json(&instance, "dynamic/instance-identity/document");
        for (member, expected) in [
            ("accountId", "000000000042"),
            ("architecture", "arm64"),
            ("availabilityZone", "eu-west-1b"),
            ("imageId", "ami-1"),
            ("instanceId", "i-1"),
            ("instanceType", "c7g.xlarge"),
            ("kernelId", "aki-1"),
            ("privateIp", "10.1.18.7"),
            ("region", "eu-west-1"),
        ] {
            assert_eq!(identity[member], expected, "{member}");
        }
        let macs = "meta-data/network/interfaces/macs";
        assert_eq!(listing(&instance, macs), ["0a:00:00:00:00:01/"]);
        let interface = format!("{macs}/0a:00:00:00:00:01");
        let private = "ip-10-1-18-7.eu-west-1.compute.internal";
        let public = "ec2-198-51-100-4.eu-west-1.compute.amazonaws.com";
        for (key, expected) in [
            ("meta-data/hostname", private),
            ("meta-data/local-hostname", private),
            ("meta-data/public-hostname", public),
            ("meta-data/placement/region", "eu-west-1"),
            ("meta-data/placement/availability-zone-id", "euw1-az2"),
            (&format!("{interface}/mac"), "0a:00:00:00:00:01"),
            (&format!("{interface}/local-ipv4s"), "10.1.18.7"),
            (
                &format!("{interface}/subnet-ipv4-cidr-block"),
                "10.1.16.0/20",
            ),
            (&format!("{interface}/vpc-ipv4-cidr-block"), "10.1.0.0/16"),
            (
                &format!("{interface}/ipv4-associations/198.51.100.4"),
                "10.1.18.7",
            ),
            (&format!("{interface}/security-groups"), "web"),
            (&format!("{interface}/public-hostname"), public),
        ] {
            assert_eq!(text(&instance, key), expected, "{key}");
        }
        let roles = "meta-data/iam/security-credentials";
        assert_eq!(listing(&instance, roles), ["my-role"]);
        assert_eq!(
            json(&instance, "meta-data/iam/info")["InstanceProfileArn"],
            "arn:aws:iam::000000000042:instance-profile/my-role"
        );
        let of_the_host = json(&instance, "meta-data/identity-credentials/ec2/info");
        assert_eq!(of_the_host["AccountId"], "000000000042");
    }

    #[test]
    fn a_region_tells_its_partition() {
        for (region, partition, domain) in [
            ("cn-north-1", "aws-cn", "amazonaws.com.cn"),
            ("us-gov-west-1", "aws-us-gov", "amazonaws.com"),
            ("us-west-2", "aws", "amazonaws.com"),
        ] {
            let instance = yaml(&format!("meta-data: {{placement/region: {region}}}"));
            assert_eq!(text(&instance, "meta-data/services/partition"), partition);
            assert_eq!(text(&instance, "meta-data/services/domain"), domain);
            let zone = text(&instance, "meta-data/placement/availability-zone");
            assert_eq!(zone, format!("{region}a"));
            let arn = json(&instance, "meta-data/iam/info")["InstanceProfileArn"].clone();
            assert!(
                arn.as_str()
                    .unwrap()
                    .starts_with(&format!("arn:{partition}:")),
                "{arn}"
            );
        }
    }

    #[test]
    fn what_is_given_itself_stays() {
        let instance = yaml(
            "meta-data: {instance-id: i-1, hostname: mine, local-hostname: yours}\n\
             dynamic: {instance-identity/document: '{}'}",
        );
        assert_eq!(text(&instance, "dynamic/instance-identity/document"), "{}");
        assert_eq!(text(&instance, "meta-data/hostname"), "mine");
        assert_eq!(text(&instance, "meta-data/local-hostname"), "yours");
        let instance = yaml("meta-data: {iam/security-credentials/theirs: secret}");
        let roles = "meta-data/iam/security-credentials";
        assert_eq!(listing(&instance, roles), ["theirs"]);
        assert_eq!(text(&instance, &format!("{roles}/theirs")), "secret");
        let arn = json(&instance, "meta-data/iam/info")["InstanceProfileArn"].clone();
        assert!(arn.as_str().unwrap().ends_with("/theirs"), "{arn}");
    }

    #[test]
    fn without_a_base_there_is_only_what_is_given() {
        let instance = yaml("base: none\nrole: r\nmeta-data: {instance-id: i-1}");
        let keys: Vec<_> = instance.keys().collect();
        assert_eq!(
            keys,
            [
                "meta-data/iam/security-credentials/r",
                "meta-data/instance-id"
            ]
        );
        assert_eq!(listing(&instance, ""), ["meta-data"]);
        let key = "meta-data/iam/security-credentials/r";
        assert_eq!(json(&instance, key)["Code"], "Success");
        assert_eq!(yaml("base: none").keys().count(), 0);
    }

    #[test]
    fn absent_paths_are_taken_away() {
        let instance = yaml("absent: [meta-data/tags, meta-data/public-ipv4, user-data]");
        for key in [
            "meta-data/tags",
            "meta-data/tags/instance/Name",
            "meta-data/public-ipv4",
        ] {
            assert_eq!(instance.get(key, booted()), None, "{key}");
        }
        assert_eq!(listing(&instance, ""), ["dynamic", "meta-data"]);
        // Only whole names count.
        assert!(text(&instance, "meta-data/public-hostname").ends_with(".com"));
        assert_eq!(
            refused(Format::Yaml, "absent: [meta-data/tag]"),
            "absent: there is no meta-data/tag"
        );
        assert_eq!(
            refused(
                Format::Yaml,
                "absent: [meta-data/tags]\nmeta-data: {tags/instance/Name: x}"
            ),
            "absent: meta-data/tags is given as well"
        );
    }

    #[test]
    fn an_absent_path_is_named_once() {
        for (absent, expected) in [
            (
                "meta-data/tags, meta-data/tags",
                "absent: meta-data/tags is named twice",
            ),
            ("''", "1:10: \"\" is not a path: it is empty"),
            (
                "meta-data/tags/",
                "1:10: \"meta-data/tags/\" is not a path: it has a slash at an end",
            ),
        ] {
            let error = refused(Format::Yaml, &format!("absent: [{absent}]"));
            assert!(error.starts_with(expected), "{error}");
        }
        // One within another is no contradiction, in either order.
        for absent in [
            "meta-data/tags, meta-data/tags/instance",
            "meta-data/tags/instance, meta-data/tags",
        ] {
            let instance = yaml(&format!("absent: [{absent}]"));
            assert_eq!(instance.get("meta-data/tags", booted()), None);
        }
    }

    #[test]
    fn a_name_that_no_request_can_have_is_refused_with_the_reason() {
        for (name, why) in [
            ("a b", "no request can have ' ' in it"),
            ("bell\\a", "no request can have '\\u{7}' in it"),
            ("ü", "no request can have 'ü' in it"),
            ("per%63ent", "no request can have '%' in it"),
            ("x/../y", "clients take . and .. out of it"),
            (".", "clients take . and .. out of it"),
            ("", "it is empty"),
            ("x//y", "it has a slash at an end, or two in a row"),
        ] {
            let error = refused(Format::Yaml, &format!("meta-data:\n  \"{name}\": x\n"));
            assert!(error.starts_with("2:3: "), "{error}");
            assert!(
                error.ends_with(&format!(" is not a path: {why}")),
                "{error}"
            );
        }
        assert_eq!(
            refused(Format::Yaml, "meta-data: {tags: {0=my key: x}}"),
            "\"meta-data/tags/0=my key\" is not a path: only public keys have such names"
        );
    }

    #[test]
    fn numbers_and_booleans_keep_their_spelling_or_are_refused() {
        use Format::{Json, Toml, Yaml};
        for (format, text) in [
            (
                Yaml,
                "meta-data: {a: 0, b: -17, c: 1_000, d: 007, e: true, f: 1:30}",
            ),
            (
                Toml,
                "meta-data = {a = 0, b = -17, c = '1_000', d = '007', e = true, f = '1:30'}",
            ),
            (
                Json,
                r#"{"meta-data": {"a": 0, "b": -17, "c": "1_000", "d": "007", "e": true, "f": "1:30"}}"#,
            ),
        ] {
            let file: File = document::parse(text, format).unwrap();
            let instance = file.instance(booted()).unwrap();
            for (key, value) in [
                ("a", "0"),
                ("b", "-17"),
                ("c", "1_000"),
                ("d", "007"),
                ("e", "true"),
                ("f", "1:30"),
            ] {
                let key = format!("meta-data/{key}");
                assert_eq!(self::text(&instance, &key), value, "{format:?}: {key}");
            }
        }
        for (format, spellings) in [
            (Yaml, &["0x1F", "0o17", "-0", "+5", "TRUE", "False"][..]),
            (Toml, &["0x1F", "0o17", "0b11", "1_000", "-0", "+5"][..]),
        ] {
            for spelling in spellings {
                let (text, column) = match format {
                    Toml => (format!("[meta-data]\n\"ä\".x = 1\na = {spelling}"), 5),
                    _ => (format!("# ä\nmeta-data:\n  a: {spelling}\n"), 6),
                };
                let text = text.replace("\"ä\".x = 1", "b = 'ä'");
                assert_eq!(
                    refused(format, &text),
                    format!(
                        "3:{column}: write {spelling} in quotes, or plainly: its spelling would be lost"
                    )
                );
            }
        }
        for spelling in ["-0", "1e3", "1.0"] {
            let error = refused(Json, &format!("{{\"meta-data\": {{\"a\": {spelling}}}}}"));
            assert!(error.contains("in quotes"), "{error}");
        }
    }

    #[test]
    fn a_directory_has_something_in_it() {
        for (format, text, place) in [
            (Format::Yaml, "meta-data:\n  x: {}\n", "2:"),
            (Format::Toml, "[meta-data.x]\n", "1:"),
            (Format::Json, "{\"meta-data\": {\"x\": {}}}", "1:"),
        ] {
            let error = refused(format, text);
            assert!(error.starts_with(place), "{error}");
            assert!(error.contains("an empty map: "), "{error}");
        }
    }

    #[test]
    fn a_large_file_is_read_in_no_time() {
        let names = (0..30_000).map(|number| format!("\"x{number}\": \"y\""));
        let names = names.collect::<Vec<_>>().join(", ");
        let text = format!("{{\"base\": \"none\", \"meta-data\": {{{names}}}}}");
        let start = std::time::Instant::now();
        let file: File = document::parse(&text, Format::Json).unwrap();
        let instance = file.instance(booted()).unwrap();
        // With a look at all others for each name it takes half a minute.
        assert!(start.elapsed().as_secs() < 3, "{:?}", start.elapsed());
        assert_eq!(instance.keys().count(), 30_000);
    }

    #[test]
    fn a_value_may_replace_a_directory_that_is_absent() {
        let instance = yaml("absent: [meta-data/tags]\nmeta-data: {spot: x}");
        assert_eq!(text(&instance, "meta-data/spot"), "x");
    }

    #[test]
    fn user_data_is_text_or_bytes() {
        assert_eq!(
            text(&yaml("user-data: '#!/bin/sh'"), USER_DATA),
            "#!/bin/sh"
        );
        assert_eq!(
            text(&yaml("user-data-base64: |\n  c3Bv\n  dA==\n"), USER_DATA),
            "spot"
        );
        let binary = yaml("user-data-base64: /wA=").get(USER_DATA, booted());
        let Some(Found::Document(document)) = binary else {
            panic!("{binary:?}");
        };
        assert_eq!(document.body, [0xff, 0]);
        assert_eq!(
            refused(Format::Yaml, "user-data: a\nuser-data-base64: YQ=="),
            "user-data and user-data-base64 are both given"
        );
        let error = refused(Format::Yaml, "user-data-base64: '!'");
        assert!(error.starts_with("user-data-base64: "), "{error}");
    }

    #[test]
    fn public_keys_have_names() {
        let instance = yaml(
            "meta-data:\n  public-keys:\n    0=mine: {openssh-key: ssh-rsa A}\n    \
             1=other/openssh-key: ssh-rsa B\n",
        );
        let keys = "meta-data/public-keys";
        assert_eq!(listing(&instance, keys), ["0=mine", "1=other"]);
        assert_eq!(
            text(&instance, &format!("{keys}/0/openssh-key")),
            "ssh-rsa A"
        );
        assert_eq!(
            text(&instance, &format!("{keys}/1/openssh-key")),
            "ssh-rsa B"
        );
        assert_eq!(
            refused(
                Format::Yaml,
                "meta-data: {public-keys/0=a/openssh-key: x, public-keys/0=b/other: y}"
            ),
            "meta-data/public-keys/0: it has two names"
        );
    }

    #[test]
    fn what_has_not_the_files_form_is_refused_with_its_place() {
        use Format::{Json, Toml, Yaml};
        for (format, text, expected) in [
            (Yaml, "metadata: {}\n", "1:1: unknown field `metadata`"),
            (Yaml, "base: nothing\n", "1:7: unknown"),
            (
                Yaml,
                "base: none\nmeta-data:\n  a: [1]\n",
                "3:3: invalid type: sequence",
            ),
            (
                Yaml,
                "meta-data:\n  a: 1.10\n",
                "2:6: write the number 1.1 in quotes",
            ),
            (Yaml, "meta-data:\n  a:\n", "2:3: invalid type: unit"),
            (Yaml, "meta-data:\n  a: 1\n  a: 2\n", "3:3: duplicate"),
            (
                Yaml,
                "meta-data:\n  a//b: 1\n",
                "2:3: \"a//b\" is not a path",
            ),
            (Yaml, "meta-data:\n  /a: 1\n", "2:3: \"/a\" is not a path"),
            (Yaml, "meta-data:\n  a?b: 1\n", "2:3: \"a?b\" is not a path"),
            (Yaml, "meta-data: all\n", "1:12: "),
            (Toml, "meta-date = {}\n", "1:1: unknown field `meta-date`"),
            (
                Toml,
                "[meta-data]\na = 1979-05-27\n",
                "2:5: write 1979-05-27 in quotes",
            ),
            (
                Toml,
                "[meta-data]\na = [1]\n",
                "2:5: invalid type: sequence",
            ),
            (Toml, "[meta-data]\na = 1.5\n", "2:5: write the number"),
            (
                Json,
                "{\n\"meta-data\": {\"a\": null}}",
                "2:23: invalid type: null",
            ),
            (
                Json,
                "{\n\"meta-data\": {\"a\": 1, \"a\": 2}}",
                "2:25: a is given twice",
            ),
        ] {
            let error = refused(format, text);
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_its_path() {
        for (text, expected) in [
            (
                "meta-data: {placement/region: eu-west-1, placement/availability-zone: us-east-1a}",
                "meta-data/placement/availability-zone: \"us-east-1a\" is not in the region \"eu-west-1\"",
            ),
            (
                "meta-data: {placement/region: us-east-1, placement/availability-zone: us-east-11a}",
                "meta-data/placement/availability-zone: \"us-east-11a\" is not in the region \"us-east-1\"",
            ),
            (
                "meta-data: {placement/availability-zone: home}",
                "meta-data/placement/availability-zone: \"home\" is not a zone such as us-east-1a",
            ),
            (
                "meta-data: {placement: x}",
                "meta-data/placement: it is a directory and cannot be a value too",
            ),
            (
                "meta-data: {ami-id/sub: x}",
                "meta-data/ami-id/sub: meta-data/ami-id is a value and cannot be a directory too",
            ),
            (
                "base: none\nmeta-data: {a: x, a/b: y}",
                "meta-data/a/b: meta-data/a is a value and cannot be a directory too",
            ),
            (
                "meta-data: {a: {b: x}, a/b: y}",
                "meta-data/a/b is given twice",
            ),
            (
                "meta-data: {mac: home}",
                "meta-data/mac: \"home\" is not a MAC address",
            ),
            (
                "meta-data: {local-ipv4: 1.2.3}",
                "meta-data/local-ipv4: \"1.2.3\" is not an IPv4 address",
            ),
            (
                "meta-data: {network/interfaces/macs/02:00:5e:10:00:0a/owner-id: 42}",
                "meta-data/network/interfaces/macs/02:00:5e:10:00:0a/owner-id: \"42\" is not an account",
            ),
            ("role: a/b", "role: \"a/b\" is not the name of a role"),
            (
                "role: a\nmeta-data: {iam/security-credentials/b: x}",
                "meta-data/iam/security-credentials: an instance has one role, not b and a",
            ),
        ] {
            let error = refused(Format::Yaml, text);
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn an_error_names_the_file() {
        let name = format!("spotsim-instance-{}.yaml", std::process::id());
        let path = std::env::temp_dir().join(name);
        for (text, expected) in [("meta-data: [1]", ":1:12: "), ("role: a/b", ": role: ")] {
            std::fs::write(&path, text).unwrap();
            let error = format!("{:#}", Instance::read(&path, booted()).unwrap_err());
            let expected = format!("{}{expected}", path.display());
            assert!(error.starts_with(&expected), "{error}");
        }
        std::fs::remove_file(path).unwrap();
    }
}
