//! The ratios that are committed, and whether those of today are as good.
//!
//! Times depend on the machine, and ratios of things that were measured side by side much less.

use std::{fmt, fs, path::Path};

use serde_json::{Map, Value, json};

use crate::{
    section::{Ratio, Section, times},
    statistics::round,
};

/// How much more than the baseline's a ratio may be: a quarter.
const TOLERANCE: f64 = 1.25;

/// The committed ratios, by the names of their section and their own.
pub struct Baseline(Value);

impl Baseline {
    /// # Panics
    ///
    /// If the file cannot be read, with the reason.
    pub fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let ratios = serde_json::from_str(&text);
        Self(ratios.unwrap_or_else(|error| panic!("{}: {error}", file.display())))
    }

    /// What these sections found, to be committed.
    pub fn of(sections: &[Section]) -> Value {
        let mut all = Map::new();
        for Section { name, ratios, .. } in sections {
            let ratios = ratios
                .iter()
                .map(|Ratio { name, spread }| ((*name).to_owned(), json!(round(spread.median))));
            all.insert((*name).to_owned(), Value::Object(ratios.collect()));
        }
        all.into()
    }

    /// What is worse than it was. A ratio that the baseline lacks is worse too.
    pub fn regressions(&self, sections: &[Section]) -> Vec<Regression> {
        let Self(baseline) = self;
        let judge = |section: &Section, Ratio { name, spread }: &Ratio| {
            let before = baseline[section.name][*name].as_f64();
            let good = before.is_some_and(|before| spread.median <= before * TOLERANCE);
            (!good).then_some(Regression {
                section: section.name,
                ratio: name,
                before,
                now: spread.median,
            })
        };
        let all = sections.iter().flat_map(|section| {
            let ratios = section.ratios.iter();
            ratios.filter_map(move |ratio| judge(section, ratio))
        });
        all.collect()
    }
}

/// A ratio that has become worse.
#[derive(Clone, Copy, Debug)]
pub struct Regression {
    pub section: &'static str,
    pub ratio: &'static str,
    before: Option<f64>,
    now: f64,
}

impl Regression {
    /// Whether both are of the same ratio.
    pub fn is_of(&self, other: &Self) -> bool {
        (self.section, self.ratio) == (other.section, other.ratio)
    }
}

impl fmt::Display for Regression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            section,
            ratio,
            before,
            now,
        } = self;
        write!(f, "{section}, {ratio}: ")?;
        match before {
            Some(before) => write!(f, "{}, and {} in the baseline", times(*now), times(*before)),
            None => f.write_str("not in the baseline"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{section::Table, statistics::Spread};

    fn section(ratio: f64) -> Section {
        Section {
            name: "request",
            about: String::new(),
            table: Table {
                head: vec![],
                rows: vec![],
            },
            goals: vec![],
            ratios: vec![Ratio {
                name: "faked to direct",
                spread: Spread::of([ratio]),
            }],
            figures: Value::Null,
        }
    }

    fn told(baseline: &Baseline, ratio: f64) -> Vec<String> {
        let regressions = baseline.regressions(&[section(ratio)]);
        regressions.iter().map(Regression::to_string).collect()
    }

    #[test]
    fn a_quarter_more_is_tolerated() {
        let baseline = Baseline(Baseline::of(&[section(2.0)]));
        assert_eq!(told(&baseline, 2.5), [""; 0]);
        assert_eq!(told(&baseline, 0.5), [""; 0]);
        assert_eq!(
            told(&baseline, 2.6),
            ["request, faked to direct: 2.60×, and 2.00× in the baseline"]
        );
    }

    #[test]
    fn what_is_not_in_the_baseline_is_no_success() {
        let baseline = Baseline(json!({}));
        assert_eq!(
            told(&baseline, 1.0),
            ["request, faked to direct: not in the baseline"]
        );
    }
}
