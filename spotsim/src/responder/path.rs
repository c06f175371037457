//! What a request path names, whichever way it is written.

/// The versions that the service lists at `/`. All dates behave alike here, listed or not: AWS
/// documents some that a client may ask for and an instance need not list.
pub const VERSIONS: [&str; 29] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "2022-09-24",
    "2024-04-11",
    "latest",
];

/// `/{version}/{key}` without the freedom that clients take: doubled slashes (the AWS SDK for
/// JavaScript sends `//latest/…`) and one at the end of a leaf (botocore).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource<'a> {
    /// `latest`, `1.0` or a date; empty for `/`.
    pub version: &'a str,
    /// What is below the version, without slashes at either end: `meta-data/spot`.
    pub key: String,
}

impl<'a> Resource<'a> {
    /// Reads the path of a URI, as it was sent: IMDS paths need no percent-encoding.
    pub fn parse(path: &'a str) -> Self {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let version = segments.next().unwrap_or_default();
        let key = segments.collect::<Vec<_>>().join("/");
        Self { version, key }
    }

    /// Whether the version is one that IMDS could have: `latest`, `1.0`, or a date such as
    /// `2021-07-15`.
    pub fn has_version(&self) -> bool {
        let Self { version, .. } = self;
        let is_date = || {
            version.len() == 10
                && version.bytes().enumerate().all(|(at, byte)| match at {
                    4 | 7 => byte == b'-',
                    _ => byte.is_ascii_digit(),
                })
        };
        *version == "latest" || *version == "1.0" || is_date()
    }

    /// The place under `meta-data`, where it is there: an item's or a directory's. `meta-data`
    /// itself is the empty one.
    pub fn place(&self) -> Option<&str> {
        let Self { key, .. } = self;
        let below = key
            .strip_prefix("meta-data")
            .filter(|_| self.has_version())?;
        match below {
            "" => Some(""),
            _ => below.strip_prefix('/'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_names_the_same_item() {
        for path in [
            "/latest/meta-data/spot/instance-action",
            "//latest/meta-data/spot/instance-action",
            "/latest//meta-data///spot/instance-action",
            "/latest/meta-data/spot/instance-action/",
            "/2021-07-15/meta-data/spot/instance-action",
            "/1.0/meta-data/spot/instance-action",
        ] {
            assert_eq!(
                Resource::parse(path).place(),
                Some("spot/instance-action"),
                "{path}"
            );
        }
    }

    #[test]
    fn other_places_are_not_items() {
        for path in [
            "/",
            "",
            "/latest",
            "/latest/meta-dataspot",
            "/latest/dynamic/instance-identity/document",
            "/newest/meta-data/spot/instance-action",
            "/2021-7-15/meta-data/spot/instance-action",
            "/2021-07-155/meta-data/spot/instance-action",
            "/meta-data/spot/instance-action",
        ] {
            assert_eq!(Resource::parse(path).place(), None, "{path}");
        }
    }

    #[test]
    fn the_top_is_a_place_too() {
        for path in ["/latest/meta-data", "//latest/meta-data//"] {
            assert_eq!(Resource::parse(path).place(), Some(""), "{path}");
        }
    }

    #[test]
    fn the_root_has_no_version() {
        let root = Resource::parse("//");
        assert_eq!((root.version, root.key.as_str()), ("", ""));
        assert!(!root.has_version());
    }
}
