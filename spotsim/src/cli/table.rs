//! Tables and times for people to read.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};

use crate::control::{self, Serves, Status, TargetStatus};

/// Text that a terminal shows as it is, one column a character: others than those of ASCII are
/// written as escapes.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ' '..='~' => plain.push(character),
            // What a list of events has between its members.
            '\n' | '\t' => plain.push(' '),
            other => plain.extend(other.escape_default()),
        }
    }
    plain
}

/// Columns under a heading, as wide as they must be. The last is not padded.
pub fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let mut table = String::new();
    let mut line = |cells: [&str; N]| {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(cells) {
            let _ = write!(line, "{cell:width$}  ");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    };
    line(heading);
    for row in rows {
        line(std::array::from_fn(|column| row[column].as_str()));
    }
    table
}

/// From now to a time: `in 1m 30s` or `1m 30s ago`. A second that has begun to run out counts.
pub fn countdown(to: Timestamp, now: Timestamp) -> String {
    let nanoseconds = to.duration_since(now).as_nanos();
    let seconds =
        nanoseconds.div_euclid(1_000_000_000) + i128::from(nanoseconds % 1_000_000_000 != 0);
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    match seconds {
        ..0 => format!("{} ago", length(seconds)),
        0 => "now".to_owned(),
        1.. => format!("in {}", length(seconds)),
    }
}

/// So many seconds, before or after: `1m 30s`.
pub fn length(seconds: i64) -> String {
    format!("{:#}", SignedDuration::from_secs(seconds).abs())
}

/// A time as IMDS shows it.
pub fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A value on one line, with its lists of events told briefly.
pub fn brief(value: &str) -> String {
    plain(&control::brief(value))
}

/// What one announces now, in few words.
pub fn announced(status: &Status, now: Timestamp) -> String {
    if status.held {
        return "nothing, held".to_owned();
    }
    if status.own_clocks
        && let Serves::Targets(targets) = &status.serves
    {
        let soonest = |time: fn(&TargetStatus) -> Option<Timestamp>| {
            let times = targets.iter().filter_map(time);
            times.filter(|time| *time > now).min()
        };
        let mut words = "to each its own".to_owned();
        if let Some(next) = soonest(|target| target.next) {
            let _ = write!(words, "; next {}", countdown(next, now));
        }
        if let Some(deadline) = soonest(|target| target.deadline) {
            let _ = write!(words, "; first deadline {}", countdown(deadline, now));
        }
        return words;
    }
    let next = status.to_come(now).next();
    let visible = status.visible(now);
    let names: Vec<_> = visible
        .iter()
        // With others it goes without saying.
        .filter(|item| item.path != "instance-life-cycle")
        .map(|item| item.path.rsplit('/').next().unwrap_or_default())
        .collect();
    let mut words = match (names.is_empty(), next) {
        (false, _) => names.join(", "),
        (true, Some(_)) => "nothing yet".to_owned(),
        (true, None) if visible.is_empty() => "nothing any more".to_owned(),
        (true, None) => "instance-life-cycle".to_owned(),
    };
    if let Some(next) = next {
        let _ = write!(words, "; next {}", countdown(next.at, now));
    }
    if let Some(deadline) = status.deadline {
        let _ = write!(words, "; deadline {}", countdown(deadline, now));
    }
    plain(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_does_nothing_to_a_terminal() {
        assert_eq!(plain("a\u{1b}[2J\u{9b}ä\nb"), "a\\u{1b}[2J\\u{9b}\\u{e4} b");
    }

    #[test]
    fn columns_are_aligned() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let table = table(["ID", "VERB"], &[row("long-one", "run"), row("1", "")]);
        assert_eq!(table, "ID        VERB\nlong-one  run\n1\n");
    }

    #[test]
    fn a_countdown_counts_whole_seconds() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (milliseconds, expected) in [
            (90_000, "in 1m 30s"),
            (89_001, "in 1m 30s"),
            (1, "in 1s"),
            (0, "now"),
            (-999, "now"),
            (-1_000, "1s ago"),
            (-90_000, "1m 30s ago"),
        ] {
            let to = now + SignedDuration::from_millis(milliseconds);
            assert_eq!(countdown(to, now), expected, "{milliseconds} ms");
        }
    }
}
