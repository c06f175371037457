//! What a request path names, whichever way it is written.

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

    /// The item's place under `meta-data/`, where it is there.
    pub fn item(&self) -> Option<&str> {
        let Self { key, .. } = self;
        key.strip_prefix("meta-data/")
            .filter(|_| self.has_version())
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
                Resource::parse(path).item(),
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
            "/latest/meta-data",
            "/latest/meta-data/",
            "/latest/meta-dataspot",
            "/latest/dynamic/instance-identity/document",
            "/newest/meta-data/spot/instance-action",
            "/2021-7-15/meta-data/spot/instance-action",
            "/2021-07-155/meta-data/spot/instance-action",
            "/meta-data/spot/instance-action",
        ] {
            assert_eq!(Resource::parse(path).item(), None, "{path}");
        }
    }

    #[test]
    fn the_root_has_no_version() {
        let root = Resource::parse("//");
        assert_eq!((root.version, root.key.as_str()), ("", ""));
        assert!(!root.has_version());
    }
}
