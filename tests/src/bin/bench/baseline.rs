//! The ratios that are committed, and whether those of today are as good.
//!
//! Times depend on the machine, and ratios of things that were measured side by side much less.

use std::{fs, path::Path};

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

    /// What is worse than it was, in words. A ratio that the baseline lacks is worse too.
    pub fn regressions(&self, sections: &[Section]) -> Vec<String> {
        let Self(baseline) = self;
        let judge = |section: &Section, Ratio { name, spread }: &Ratio| {
            let now = spread.median;
            match baseline[section.name][*name].as_f64() {
                Some(before) if now <= before * TOLERANCE => None,
                Some(before) => Some(format!(
                    "{}, {name}: {}, and {} in the baseline",
                    section.name,
                    times(now),
                    times(before)
                )),
                None => Some(format!("{}, {name}: not in the baseline", section.name)),
            }
        };
        let all = sections.iter().flat_map(|section| {
            let ratios = section.ratios.iter();
            ratios.filter_map(move |ratio| judge(section, ratio))
        });
        all.collect()
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

    #[test]
    fn a_quarter_more_is_tolerated() {
        let baseline = Baseline(Baseline::of(&[section(2.0)]));
        assert_eq!(baseline.regressions(&[section(2.5)]), [""; 0]);
        assert_eq!(baseline.regressions(&[section(0.5)]), [""; 0]);
        assert_eq!(
            baseline.regressions(&[section(2.6)]),
            ["request, faked to direct: 2.60×, and 2.00× in the baseline"]
        );
    }

    #[test]
    fn what_is_not_in_the_baseline_is_no_success() {
        let baseline = Baseline(json!({}));
        assert_eq!(
            baseline.regressions(&[section(1.0)]),
            ["request, faked to direct: not in the baseline"]
        );
    }
}
