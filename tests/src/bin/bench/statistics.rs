//! Medians, percentiles and how far values lie apart.

use serde_json::{Value, json};

/// A median, and the least and the most of what it was taken of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self {
            median: percentile(&values, 0.5),
            least: values[0],
            most: values[values.len() - 1],
        }
    }

    pub fn json(self) -> Value {
        let Self {
            median,
            least,
            most,
        } = self;
        json!({"median": round(median), "least": round(least), "most": round(most)})
    }
}

/// The value below which this part of the sorted values lies: the nearest rank.
pub fn percentile<T: Copy>(sorted: &[T], part: f64) -> T {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

/// To four decimals: what lies behind them is noise.
pub fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Vec<u64> = (0..=1_000).collect();
        assert_eq!(percentile(&values, 0.5), 500);
        assert_eq!(percentile(&values, 0.99), 990);
        assert_eq!(percentile(&values, 1.0), 1_000);
        assert_eq!(percentile(&[7], 0.99), 7);
    }

    #[test]
    fn a_spread_does_not_depend_on_order() {
        let Spread {
            median,
            least,
            most,
        } = Spread::of([3.0, 1.0, 10.0]);
        assert_eq!((median, least, most), (3.0, 1.0, 10.0));
    }
}
