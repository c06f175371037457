//! How many of those that match: `all`, `count(n)` or `percent(n)`, as AWS FIS has it.

use std::{fmt, num::NonZeroU32, str::FromStr};

use fastrand::Rng;

/// How many of what matched are chosen, at random.
///
/// The words and the rounding are those of a target's [`selectionMode` in AWS FIS][1]: a
/// percentage is rounded down, and where that leaves nothing, nothing is done. What happens
/// when there are fewer than `COUNT(n)` is not documented there; here that is an error too,
/// since an experiment that was to hit five and hit three would be read wrongly.
///
/// [1]: https://docs.aws.amazon.com/fis/latest/userguide/targets.html#target-selection-mode
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Select {
    #[default]
    All,
    Count(NonZeroU32),
    Percent(Percent),
}

/// From 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(u8);

impl Percent {
    pub fn new(percent: u8) -> Option<Self> {
        (1..=100).contains(&percent).then_some(Self(percent))
    }
}

/// Fewer matched than can be chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// What was to be chosen.
    pub select: Select,
    /// How many there are to choose from.
    pub matched: usize,
}

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { select, matched } = self;
        match (select, matched) {
            (_, 0) => write!(f, "{select}: nothing matches"),
            (Select::Percent(_), 1) => write!(f, "{select}: less than one of the one that matches"),
            (Select::Percent(_), _) => {
                write!(f, "{select}: less than one of the {matched} that match")
            }
            (_, 1) => write!(f, "{select}: only one matches"),
            _ => write!(f, "{select}: only {matched} match"),
        }
    }
}

impl std::error::Error for TooFew {}

impl Select {
    /// Chooses. All stay in the order in which they came; of some the order is that of `key`, and
    /// with the same seed and the same keys they are the same, in whatever order they came.
    pub fn pick<T, K: Ord>(
        self,
        mut matched: Vec<T>,
        seed: u64,
        key: impl FnMut(&T) -> K,
    ) -> Result<Vec<T>, TooFew> {
        let Some(mut wanted) = self.number_of(matched.len())? else {
            return Ok(matched);
        };
        matched.sort_by_cached_key(key);
        let mut rng = Rng::with_seed(seed);
        // One after the other is taken with the chance that gives each set of that size the
        // same (Knuth, The Art of Computer Programming, volume 2, 3.4.2, algorithm S).
        let mut left = matched.len() as u64;
        matched.retain(|_| {
            let taken = rng.u64(..left) < wanted;
            left -= 1;
            wanted -= u64::from(taken);
            taken
        });
        Ok(matched)
    }

    /// `None` for all.
    fn number_of(self, matched: usize) -> Result<Option<u64>, TooFew> {
        let there = matched as u64;
        let wanted = match self {
            Self::All => return Ok(None),
            Self::Count(count) => u64::from(count.get()),
            Self::Percent(Percent(percent)) => there * u64::from(percent) / 100,
        };
        if (1..=there).contains(&wanted) {
            Ok(Some(wanted))
        } else {
            let select = self;
            Err(TooFew { select, matched })
        }
    }
}

impl FromStr for Select {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        if lower == "all" {
            return Ok(Self::All);
        }
        let number = |mode: &str| {
            let rest = lower.strip_prefix(mode)?.strip_prefix('(')?;
            let digits = rest.strip_suffix(')')?;
            // Else a sign would be taken.
            digits
                .bytes()
                .all(|digit| digit.is_ascii_digit())
                .then_some(digits)
        };
        if let Some(count) = number("count") {
            let count = count
                .parse()
                .map_err(|_| format!("count(n) takes 1 to {}", NonZeroU32::MAX))?;
            return Ok(Self::Count(count));
        }
        if let Some(percent) = number("percent") {
            let percent = percent.parse().ok().and_then(Percent::new);
            let percent = percent.ok_or("percent(n) takes 1 to 100")?;
            return Ok(Self::Percent(percent));
        }
        Err("write all, count(n) or percent(n), such as count(2) or percent(50)".to_owned())
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Count(count) => write!(f, "count({count})"),
            Self::Percent(Percent(percent)) => write!(f, "percent({percent})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn select(text: &str) -> Select {
        text.parse()
            .unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    fn pick(text: &str, matched: u32, seed: u64) -> Result<Vec<u32>, String> {
        let picked = select(text).pick((0..matched).collect(), seed, |number| *number);
        picked.map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_read() {
        for (text, written) in [
            ("all", "all"),
            ("ALL", "all"),
            ("COUNT(2)", "count(2)"),
            ("count(4294967295)", "count(4294967295)"),
            ("PERCENT(50)", "percent(50)"),
            ("Percent(100)", "percent(100)"),
            ("percent(01)", "percent(1)"),
        ] {
            assert_eq!(select(text).to_string(), written, "{text:?}");
        }
        for (text, fault) in [
            ("count(0)", "count(n) takes 1 to 4294967295"),
            ("count(4294967296)", "count(n) takes 1 to 4294967295"),
            ("count()", "count(n) takes 1 to 4294967295"),
            ("percent(0)", "percent(n) takes 1 to 100"),
            ("percent(101)", "percent(n) takes 1 to 100"),
            ("percent(257)", "percent(n) takes 1 to 100"),
        ] {
            assert_eq!(text.parse::<Select>(), Err(fault.to_owned()));
        }
        for text in [
            "",
            "some",
            "all()",
            "count",
            "count(2",
            "count2",
            "count(+2)",
            "count(-1)",
            "count(1.5)",
            "percent(50%)",
            "percent (5)",
            " all",
            "countries(1)",
        ] {
            let error = text.parse::<Select>().unwrap_err();
            assert!(error.starts_with("write all, "), "{text:?}: {error}");
        }
    }

    /// The examples of the FIS user guide, and the ends of the range.
    #[test]
    fn how_many_are_picked() {
        for (text, matched, picked) in [
            ("all", 5, 5),
            ("all", 0, 0),
            ("count(1)", 5, 1),
            ("count(5)", 5, 5),
            ("percent(50)", 5, 2),
            ("percent(25)", 4, 1),
            ("percent(100)", 3, 3),
            ("percent(99)", 3, 2),
            ("percent(1)", 100, 1),
        ] {
            assert_eq!(
                pick(text, matched, 7).unwrap().len(),
                picked,
                "{text} of {matched}"
            );
        }
    }

    #[test]
    fn too_few_are_an_error() {
        for (text, matched, error) in [
            ("count(5)", 3, "count(5): only 3 match"),
            ("count(2)", 1, "count(2): only one matches"),
            ("count(1)", 0, "count(1): nothing matches"),
            (
                "percent(5)",
                4,
                "percent(5): less than one of the 4 that match",
            ),
            (
                "percent(50)",
                1,
                "percent(50): less than one of the one that matches",
            ),
            ("percent(100)", 0, "percent(100): nothing matches"),
        ] {
            assert_eq!(pick(text, matched, 7), Err(error.to_owned()));
        }
    }

    #[test]
    fn all_stay_in_their_order() {
        let all = select("all").pick(vec![3, 1, 2], 7, |number| *number);
        assert_eq!(all, Ok(vec![3, 1, 2]));
    }

    /// A seed is given so that others get the same: what it chooses must not change by an
    /// update.
    #[test]
    fn a_seed_chooses_the_same_for_ever() {
        assert_eq!(pick("count(3)", 10, 42), Ok(vec![3, 7, 9]));
        assert_eq!(pick("percent(50)", 9, 0), Ok(vec![1, 2, 3, 4]));
    }

    /// Each pair of five is as likely as any other.
    #[test]
    fn the_choice_is_fair() {
        let mut seen = HashMap::<Vec<u32>, u32>::new();
        for seed in 0..10_000 {
            *seen.entry(pick("count(2)", 5, seed).unwrap()).or_default() += 1;
        }
        assert_eq!(seen.len(), 10);
        for (pair, times) in seen {
            assert!((850..=1_150).contains(&times), "{pair:?}: {times} times");
        }
    }

    proptest! {
        #[test]
        fn the_order_they_came_in_does_not_matter(
            shuffled in Just((0..20).collect::<Vec<u32>>()).prop_shuffle(),
            count in 1_u32..=20,
            seed: u64,
        ) {
            let text = format!("count({count})");
            let picked = select(&text).pick(shuffled, seed, |number| *number).unwrap();
            prop_assert!(picked.is_sorted());
            prop_assert_eq!(picked.len(), count as usize);
            prop_assert_eq!(Ok(picked), pick(&text, 20, seed));
        }
    }
}
