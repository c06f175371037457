//! What one part of the benchmark found: a table, goals, and the ratios that are kept an eye on.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::statistics::{Spread, round};

/// A part of the benchmark.
#[derive(Debug)]
pub struct Section {
    /// Its name in the JSON and on the command line.
    pub name: &'static str,
    /// What was done, in a line.
    pub about: String,
    pub table: Table,
    pub goals: Vec<Goal>,
    pub ratios: Vec<Ratio>,
    /// Everything measured, with the units in the names.
    pub figures: Value,
}

/// Cells as they are shown; the first of each row is a name.
#[derive(Debug)]
pub struct Table {
    pub head: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

/// What is aimed at, and what came of it.
#[derive(Debug)]
pub struct Goal {
    pub what: &'static str,
    pub found: String,
    pub met: bool,
}

/// How much dearer one thing is than another that was measured beside it. Less is better.
#[derive(Debug)]
pub struct Ratio {
    pub name: &'static str,
    pub spread: Spread,
}

impl Goal {
    pub fn new(what: &'static str, found: impl Into<String>, met: bool) -> Self {
        Self {
            what,
            found: found.into(),
            met,
        }
    }
}

impl Section {
    /// The table and the goals, for a terminal.
    pub fn text(&self) -> String {
        let Self {
            about,
            table,
            goals,
            ..
        } = self;
        let mut text = format!("\n{about}\n{}", table.text());
        for Goal { what, found, met } in goals {
            let verdict = if *met { "met" } else { "MISSED" };
            writeln!(text, "  {verdict:6}  {what}: {found}").expect("a string takes it");
        }
        text
    }

    /// The table, as it stands in a README.
    pub fn markdown(&self) -> String {
        let Self { about, table, .. } = self;
        format!("{about}:\n\n{}", table.markdown())
    }

    pub fn json(&self) -> Value {
        let Self {
            about,
            goals,
            ratios,
            figures,
            ..
        } = self;
        let goals: Vec<_> = goals
            .iter()
            .map(|Goal { what, found, met }| json!({"goal": what, "found": found, "met": met}))
            .collect();
        let ratios: Map<_, _> = ratios
            .iter()
            .map(|Ratio { name, spread }| ((*name).to_owned(), spread.json()))
            .collect();
        json!({"about": about, "figures": figures, "ratios": ratios, "goals": goals})
    }
}

impl Table {
    fn text(&self) -> String {
        let Self { head, rows } = self;
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(head[column].chars().count())
        };
        let widths: Vec<_> = (0..head.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::from(" ");
            for (column, (cell, width)) in cells.zip(&widths).enumerate() {
                // Numbers are compared by their ends.
                let width = *width;
                let _ = match column {
                    0 => write!(line, " {cell:width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            line.trim_end().to_owned() + "\n"
        };
        let mut text = line(&mut head.iter().copied());
        for row in rows {
            text += &line(&mut row.iter().map(String::as_str));
        }
        text
    }

    fn markdown(&self) -> String {
        let Self { head, rows } = self;
        let rule = (0..head.len()).map(|column| if column == 0 { "---" } else { "---:" });
        let mut text = format!("| {} |\n", head.join(" | "));
        text += &format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
        for row in rows {
            text += &format!("| {} |\n", row.join(" | "));
        }
        text
    }
}

/// A ratio as it is shown.
pub fn times(value: f64) -> String {
    format!("{value:.2}×")
}

/// Nanoseconds as microseconds.
pub fn microseconds(nanoseconds: u64) -> f64 {
    round(nanoseconds as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let table = Table {
            head: vec!["way", "p50"],
            rows: vec![
                vec!["direct".into(), "160 µs".into()],
                vec!["x".into(), "7 µs".into()],
            ],
        };
        assert_eq!(
            table.text(),
            "  way        p50\n  direct  160 µs\n  x         7 µs\n"
        );
        assert_eq!(
            table.markdown(),
            "| way | p50 |\n|---|---:|\n| direct | 160 µs |\n| x | 7 µs |\n"
        );
    }

    #[test]
    fn a_goal_that_is_missed_is_seen() {
        let section = Section {
            name: "x",
            about: "x".into(),
            table: Table {
                head: vec![],
                rows: vec![],
            },
            goals: vec![
                Goal::new("under 2", "1", true),
                Goal::new("under 1", "1", false),
            ],
            ratios: vec![],
            figures: Value::Null,
        };
        let text = section.text();
        assert!(text.contains("  met     under 2: 1\n"), "{text}");
        assert!(text.contains("  MISSED  under 1: 1\n"), "{text}");
    }
}
