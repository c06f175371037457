//! `spotsim doctor`: whether this host can do it.

use std::{
    env,
    io::{self, IsTerminal as _, Write},
};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{Exit, options::RuntimeOptions, runtime};
use crate::doctor::{self, Check, Outcome};

#[derive(Args)]
pub struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    runtime: RuntimeOptions,
}

impl Doctor {
    pub fn run(self) -> Result<Exit> {
        let Self {
            json,
            runtime: asked,
        } = self;
        let answer = runtime()?.block_on(asked.connect());
        let checks = doctor::checks(answer);
        let mut out = io::stdout().lock();
        let printed = if json {
            writeln!(out, "{}", as_json(&checks))
        } else {
            print(&mut out, &checks, Paint::of_stdout())
        };
        match printed {
            // Whoever read it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
        Ok(if failed(&checks) == 0 {
            Exit::Done
        } else {
            Exit::Host
        })
    }
}

fn failed(checks: &[Check]) -> usize {
    let failed = checks.iter().filter(|check| check.outcome == Outcome::Fail);
    failed.count()
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Warn => "warn",
        Outcome::Fail => "fail",
    }
}

/// `{"attach": bool, "checks": [{"name", "outcome", "detail", "remedy"}]}`; an outcome is
/// `ok`, `warn` or `fail`, a remedy may be null.
fn as_json(checks: &[Check]) -> serde_json::Value {
    let list = checks.iter().map(|check| {
        let Check {
            name,
            outcome,
            detail,
            remedy,
        } = check;
        json!({ "name": name, "outcome": word(*outcome), "detail": detail, "remedy": remedy })
    });
    json!({ "attach": failed(checks) == 0, "checks": list.collect::<Vec<_>>() })
}

/// One line a check, and what to do below those that are not fine.
fn print(out: &mut impl Write, checks: &[Check], paint: Paint) -> io::Result<()> {
    let width = checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or(0);
    for check in checks {
        let Check {
            name,
            outcome,
            detail,
            remedy,
        } = check;
        let (on, off) = paint.codes(*outcome);
        writeln!(
            out,
            "{on}{:<4}{off}  {name:<width$}  {detail}",
            word(*outcome)
        )?;
        if let Some(remedy) = remedy {
            writeln!(out, "{:6}{:width$}  -> {remedy}", "", "")?;
        }
    }
    match failed(checks) {
        0 => writeln!(out, "attach will work here"),
        1 => writeln!(out, "attach will not work here: 1 check failed"),
        count => writeln!(out, "attach will not work here: {count} checks failed"),
    }
}

/// Whether outcomes are coloured.
#[derive(Clone, Copy)]
enum Paint {
    Plain,
    Coloured,
}

impl Paint {
    /// Colours are for terminals whose user has not declined them ([NO_COLOR][1]).
    ///
    /// [1]: https://no-color.org
    fn of_stdout() -> Self {
        let declined = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
        if io::stdout().is_terminal() && !declined && !dumb {
            Self::Coloured
        } else {
            Self::Plain
        }
    }

    /// The sequences that switch the colour of an outcome on and off (ECMA-48, SGR).
    fn codes(self, outcome: Outcome) -> (&'static str, &'static str) {
        match (self, outcome) {
            (Self::Plain, _) => ("", ""),
            (Self::Coloured, Outcome::Ok) => ("\x1b[32m", "\x1b[0m"),
            (Self::Coloured, Outcome::Warn) => ("\x1b[33m", "\x1b[0m"),
            (Self::Coloured, Outcome::Fail) => ("\x1b[31m", "\x1b[0m"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &'static str, outcome: Outcome, remedy: Option<&str>) -> Check {
        Check {
            name,
            outcome,
            detail: format!("about {name}"),
            remedy: remedy.map(str::to_owned),
        }
    }

    fn printed(checks: &[Check], paint: Paint) -> String {
        let mut out = Vec::new();
        print(&mut out, checks, paint).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_table_is_aligned_and_ends_with_the_verdict() {
        let mut checks = vec![
            check("kernel", Outcome::Ok, None),
            check("cgroup v2", Outcome::Warn, Some("do this")),
        ];
        let expected = "\
            ok    kernel     about kernel\n\
            warn  cgroup v2  about cgroup v2\n\
            \x20                -> do this\n\
            attach will work here\n";
        assert_eq!(printed(&checks, Paint::Plain), expected);

        checks.push(check("helper", Outcome::Fail, None));
        let with_one = printed(&checks, Paint::Plain);
        assert!(
            with_one.ends_with("\nattach will not work here: 1 check failed\n"),
            "{with_one}"
        );
        checks.push(check("map", Outcome::Fail, None));
        let with_two = printed(&checks, Paint::Plain);
        assert!(with_two.ends_with(": 2 checks failed\n"), "{with_two}");
    }

    #[test]
    fn colour_surrounds_the_outcome_only() {
        let checks = [check("kernel", Outcome::Fail, None)];
        let coloured = printed(&checks, Paint::Coloured);
        assert!(
            coloured.starts_with("\x1b[31mfail\x1b[0m  kernel  about"),
            "{coloured:?}"
        );
    }

    #[test]
    fn json_has_the_verdict_and_every_check() {
        let checks = [
            check("kernel", Outcome::Ok, None),
            check("helper", Outcome::Fail, Some("do that")),
        ];
        let expected = json!({
            "attach": false,
            "checks": [
                { "name": "kernel", "outcome": "ok", "detail": "about kernel", "remedy": null },
                { "name": "helper", "outcome": "fail", "detail": "about helper", "remedy": "do that" },
            ],
        });
        assert_eq!(as_json(&checks), expected);
        assert_eq!(as_json(&checks[..1])["attach"], true);
    }
}
