//! Times as people write them: relative to the arming, or absolute.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp, TimestampRound, Unit};

use super::written::written;

/// The longest duration: more than anyone needs, and what a timer can wait without overflow.
const LONGEST: SignedDuration = SignedDuration::from_hours(100 * 365 * 24);

/// A length of time, not negative: `90s`, `2m`, `1h30m` or `PT2M`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(SignedDuration);

impl Span {
    /// Of so many seconds.
    pub const fn seconds(seconds: u32) -> Self {
        Self(SignedDuration::from_secs(seconds as i64))
    }

    pub fn duration(self) -> SignedDuration {
        self.0
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Else a sign would be taken, and `++90s` for a time.
        if text.starts_with('+') {
            return Err("write a duration without a sign".to_owned());
        }
        let duration: SignedDuration = text
            .parse()
            .map_err(|_| "not a duration; write it like 90s, 2m or 1h30m".to_owned())?;
        if duration.is_negative() {
            return Err("a duration cannot be negative".to_owned());
        }
        if duration > LONGEST {
            return Err("more than a hundred years".to_owned());
        }
        Ok(Self(duration))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(duration) = self;
        write!(f, "{duration:#}")
    }
}

written!(Span, "a duration in quotes, such as \"90s\" or \"1h30m\"");

/// A point in time: `90s` or `+90s` after the arming, or `2026-12-01T10:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So long after the arming.
    After(Span),
    /// At this time.
    At(Timestamp),
}

impl When {
    /// The time that is meant by one who arms at `armed_at`; `None` past the year 9999.
    pub fn resolve(self, armed_at: Timestamp) -> Option<Timestamp> {
        match self {
            Self::After(span) => armed_at.checked_add(span.duration()).ok(),
            Self::At(time) => Some(time),
        }
    }
}

impl Default for When {
    fn default() -> Self {
        Self::After(Span::default())
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let span = text.strip_prefix('+').unwrap_or(text);
        // Durations begin with a digit as well, but have no `T` after a date.
        let is_date = span.len() > 10 && span.as_bytes()[4] == b'-';
        if !is_date {
            return match span.parse() {
                Ok(span) => Ok(Self::After(span)),
                Err(error) if span.starts_with(|first: char| first.is_ascii_digit()) => Err(error),
                Err(_) => Err("write a time like 90s or 2026-12-01T10:00:00Z".to_owned()),
            };
        }
        text.parse()
            .map(Self::At)
            .map_err(|_| "not a time; write it like 2026-12-01T10:00:00Z".to_owned())
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(span) => write!(f, "+{span}"),
            Self::At(time) => write!(f, "{time}"),
        }
    }
}

written!(
    When,
    "a time in quotes, such as \"+90s\" or \"2026-12-01T10:00:00Z\""
);

/// The whole second at or after `time`. IMDS shows whole seconds; rounded up, nobody is left
/// with less time than was asked for.
pub fn whole_second_after(time: Timestamp) -> Option<Timestamp> {
    let up = TimestampRound::new()
        .smallest(Unit::Second)
        .mode(jiff::RoundMode::Ceil);
    time.round(up).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, milliseconds) in [
            ("90s", 90_000),
            ("2m", 120_000),
            ("0s", 0),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("PT2M", 120_000),
            ("250ms", 250),
        ] {
            let expected = Span(SignedDuration::from_millis(milliseconds));
            assert_eq!(text.parse(), Ok(expected), "{text}");
            assert_eq!(expected.to_string().parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn bad_durations_are_refused() {
        for text in [
            "",
            "2",
            "soon",
            "-2m",
            "2m ago",
            "2y",
            "9999999h",
            "++2m",
            "+",
            "2 lightyears",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_relative_or_absolute() {
        let armed_at: Timestamp = "2026-12-01T10:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("90s", "2026-12-01T10:01:30Z"),
            ("+90s", "2026-12-01T10:01:30Z"),
            ("PT1H", "2026-12-01T11:00:00Z"),
            ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("2027-01-01T02:00:00+02:00", "2027-01-01T00:00:00Z"),
        ] {
            let when: When = text.parse().unwrap();
            let expected: Timestamp = expected.parse().unwrap();
            assert_eq!(when.resolve(armed_at), Some(expected), "{text}");
            assert_eq!(when.to_string().parse(), Ok(when), "{text}");
        }
        for text in [
            "tomorrow",
            "2027-01-01",
            "2027-01-01T00:00:00",
            "2027-13-01T00:00:00Z",
        ] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }
}
