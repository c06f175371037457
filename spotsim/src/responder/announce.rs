//! What the timeline adds to an answer: items that were not there, and their names in listings.

use std::{borrow::Borrow, collections::BTreeSet};

use hyper::Method;
use jiff::Timestamp;
use serde::de::IgnoredAny;

use super::path::Resource;
use crate::timeline::{Item, Theirs};

/// What is announced at the place that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Its value, instead of the upstream's.
    Item(Item),
    /// Something besides what the upstream has.
    Besides(Besides),
}

/// What is to be combined with the upstream's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Besides {
    /// Entries of a JSON list.
    Entries(Item),
    /// Names in a directory.
    Names {
        names: BTreeSet<String>,
        since: Timestamp,
        /// Whether it is `meta-data` itself, most of which is the upstream's.
        top: bool,
    },
}

impl Announced {
    /// Other methods than GET and HEAD are the upstream's to refuse. What is `visible` is asked
    /// for only where something can be announced.
    pub fn find(method: &Method, path: &str, visible: impl FnOnce() -> Vec<Item>) -> Option<Self> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let resource = Resource::parse(path);
        let place = resource.place()?;
        let visible = visible();
        if let Some(item) = visible.iter().find(|item| item.path == place) {
            let item = item.clone();
            return Some(match item.theirs {
                Theirs::Replaced | Theirs::Preferred => Self::Item(item),
                Theirs::Joined => Self::Besides(Besides::Entries(item)),
            });
        }
        let below = || {
            let below = |item: &Item| Some((name_in(place, item.path)?, item.since));
            visible.iter().filter_map(below)
        };
        let since = below().map(|(_, since)| since).max()?;
        Some(Self::Besides(Besides::Names {
            names: below().map(|(name, _)| name).collect(),
            since,
            top: place.is_empty(),
        }))
    }
}

impl Besides {
    /// Whether it is worth nothing without the upstream's.
    pub fn is_top(&self) -> bool {
        matches!(self, Self::Names { top: true, .. })
    }

    /// All there is if the upstream has nothing, and since when.
    pub fn document(&self) -> (String, Timestamp) {
        match self {
            Self::Entries(item) => (item.value.clone(), item.since),
            Self::Names { names, since, .. } => (lines(names), *since),
        }
    }

    /// Together with the upstream's, which is `None` if it is no text; `None` if that stays as
    /// it is.
    pub fn with(&self, theirs: Option<&str>) -> Option<String> {
        match self {
            Self::Entries(item) => Some(with_entries(theirs.unwrap_or_default(), &item.value)),
            Self::Names { names, .. } => with_names(theirs?, names),
        }
    }
}

/// The name by which `path` appears in the listing of `directory`; the empty one is the top.
fn name_in(directory: &str, path: &str) -> Option<String> {
    let below = match directory {
        "" => path,
        _ => path.strip_prefix(directory)?.strip_prefix('/')?,
    };
    Some(match below.split_once('/') {
        Some((name, _)) => format!("{name}/"),
        None => below.to_owned(),
    })
}

/// A listing with further names in it, in order; `None` if they are all there.
fn with_names(listing: &str, names: &BTreeSet<String>) -> Option<String> {
    let theirs: BTreeSet<_> = listing.lines().map(str::to_owned).collect();
    (!names.is_subset(&theirs)).then(|| lines(&theirs | names))
}

/// Names as the service lists them: one a line, without a newline at the end.
fn lines(names: impl IntoIterator<Item: Borrow<String>>) -> String {
    let mut listing = String::new();
    for name in names {
        if !listing.is_empty() {
            listing.push('\n');
        }
        listing.push_str(name.borrow());
    }
    listing
}

/// Two JSON lists in one, theirs first and as they wrote it. What is no list tells nobody
/// anything, and gives way.
fn with_entries(theirs: &str, ours: &str) -> String {
    let entries: Vec<IgnoredAny> = serde_json::from_str(theirs).unwrap_or_default();
    if entries.is_empty() {
        return ours.to_owned();
    }
    let (theirs, ours) = (inside(theirs), inside(ours));
    match ours {
        "" => format!("[ {theirs} ]"),
        ours => format!("[ {theirs}, {ours} ]"),
    }
}

/// What is between the brackets of a list.
fn inside(list: &str) -> &str {
    let list = list.trim();
    let list = list.strip_prefix('[').unwrap_or(list);
    list.strip_suffix(']').unwrap_or(list).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &'static str) -> Item {
        Item {
            path,
            value: "[]".to_owned(),
            since: "2026-01-01T00:00:00Z".parse().unwrap(),
            theirs: match path.starts_with("events/maintenance") {
                true => Theirs::Joined,
                false => Theirs::Replaced,
            },
        }
    }

    fn find(path: &str) -> Option<Announced> {
        let visible = [
            "events/maintenance/scheduled",
            "events/recommendations/rebalance",
            "instance-life-cycle",
            "spot/instance-action",
            "spot/termination-time",
        ]
        .map(item);
        Announced::find(&Method::GET, path, || visible.to_vec())
    }

    fn names(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn items_are_found_where_they_are() {
        let notice = find("/latest/meta-data/spot/instance-action");
        assert_eq!(notice, Some(Announced::Item(item("spot/instance-action"))));
        let events = find("//2021-07-15/meta-data/events/maintenance/scheduled/");
        let expected = Besides::Entries(item("events/maintenance/scheduled"));
        assert_eq!(events, Some(Announced::Besides(expected)));
        for path in [
            "/",
            "/latest",
            "/latest/dynamic",
            "/latest/meta-data/spo",
            "/latest/meta-data/spot/instance",
            "/latest/meta-data/events/maintenance/history",
            "/latest/meta-data/spot/instance-action/x",
            "/newest/meta-data/spot/instance-action",
        ] {
            assert_eq!(find(path), None, "{path}");
        }
        let visible = [item("spot/instance-action")];
        let path = "/latest/meta-data/spot/instance-action";
        assert_eq!(
            Announced::find(&Method::PUT, path, || visible.to_vec()),
            None
        );
    }

    #[test]
    fn directories_list_what_is_there() {
        for (path, expected, top) in [
            (
                "/latest/meta-data",
                &["events/", "instance-life-cycle", "spot/"][..],
                true,
            ),
            (
                "/latest/meta-data/spot/",
                &["instance-action", "termination-time"],
                false,
            ),
            (
                "/1.0/meta-data/events",
                &["maintenance/", "recommendations/"],
                false,
            ),
        ] {
            let expected = Besides::Names {
                names: names(expected),
                since: "2026-01-01T00:00:00Z".parse().unwrap(),
                top,
            };
            let expected = Some(Announced::Besides(expected));
            assert_eq!(find(path), expected, "{path}");
        }
    }

    #[test]
    fn listings_are_merged_in_order() {
        let ours = names(&["autoscaling/", "spot/"]);
        let merged = with_names("ami-id\nservices/\ntags/", &ours);
        let expected = "ami-id\nautoscaling/\nservices/\nspot/\ntags/";
        assert_eq!(merged.as_deref(), Some(expected));
        assert_eq!(with_names(expected, &ours), None);
        assert_eq!(
            with_names("", &ours).as_deref(),
            Some("autoscaling/\nspot/")
        );
    }

    #[test]
    fn lists_are_joined() {
        let ours = r#"[ { "a" : 1 } ]"#;
        for (theirs, expected) in [
            ("[]", ours),
            (" [ ]\n", ours),
            ("[ {\"b\":2} ]\n", r#"[ {"b":2}, { "a" : 1 } ]"#),
            ("[[1],[2]]", r#"[ [1],[2], { "a" : 1 } ]"#),
            ("{}", ours),
            ("", ours),
            ("[ {\"b\":2}", ours),
        ] {
            assert_eq!(with_entries(theirs, ours), expected, "{theirs}");
        }
        assert_eq!(with_entries("[1]", "[]"), "[ 1 ]");
    }
}
