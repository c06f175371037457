//! The name of a running spotsim.

use std::{fmt, str::FromStr};

/// The longest one.
const LONGEST: usize = 64;

/// The name of a running spotsim: up to 64 letters, digits, `.`, `_` and `-`, that begin with a
/// letter, a digit or `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// The name of one that was given none: its process id.
    pub fn of_this_process() -> Self {
        Self(std::process::id().to_string())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        let Self(id) = self;
        id
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if id.is_empty() || id.len() > LONGEST || !id.bytes().all(is_known) {
            return Err(format!(
                "use 1 to {LONGEST} letters, digits, '.', '_' and '-'"
            ));
        }
        if id.starts_with(['.', '-']) {
            return Err("begin it with a letter, a digit or '_'".to_owned());
        }
        Ok(Self(id.to_owned()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_plain_word() {
        for good in ["1", "4711", "drain-test", "a.b_c-D", "_", &"x".repeat(64)] {
            assert_eq!(good.parse::<Id>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            ".x",
            "-x",
            "a/b",
            "a b",
            "a\n",
            "ä",
            &"x".repeat(65),
        ] {
            assert!(bad.parse::<Id>().is_err(), "{bad:?}");
        }
        assert!(Id::of_this_process().as_str().parse::<Id>().is_ok());
    }
}
