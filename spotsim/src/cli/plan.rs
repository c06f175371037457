//! `spotsim plan`: look at a plan file.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{
    Exit,
    options::read_plan,
    print,
    table::{brief, length, table, time},
};
use crate::timeline::{Span, Step, Timeline};

const FORMAT: &str = "\
A plan file (.toml, .yaml or .json) has any of these; every TIME is +90s after the arming, or \
2026-12-01T10:00:00Z:

  notice:
    action: terminate         # or stop, hibernate
    appears: +30s             # at once, if not given
    lead: 2m                  # or deadline: TIME
  rebalance:
    appears: +10s
  after-deadline: keep        # or withdraw
  life-cycle: spot            # or on-demand
  scheduled:
    - code: system-reboot
      appears: TIME
      not-before: +1h
      not-after: +2h          # it is completed then
      not-before-deadline: TIME
      canceled: +10m          # or completed: TIME
      lingers: 5m             # is still listed for so long when it is over
      event-id: instance-event-0123456789abcdef0
      description: scheduled reboot
  lifecycle-states:
    - state: InService
    - state: Terminated
      appears: +2m
  stagger: 30s                # each target is shown all of it so much later than the one before";

#[derive(Args)]
pub struct Plan {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print the timeline of a plan file, as if it were armed now
    Check(Check),
}

#[derive(Args)]
#[command(after_help = FORMAT)]
struct Check {
    /// The plan file
    file: PathBuf,
}

impl Plan {
    pub fn run(self) -> Result<Exit> {
        let Self {
            verb: Verb::Check(Check { file }),
        } = self;
        let plan = read_plan(&file)?;
        let timeline = plan.arm(Timestamp::now())?;
        print(text(&timeline, plan.stagger))?;
        Ok(Exit::Done)
    }
}

fn text(timeline: &Timeline, stagger: Option<Span>) -> String {
    let steps = timeline.steps();
    if steps.is_empty() {
        return "nothing is announced\n".to_owned();
    }
    let rows: Vec<_> = steps
        .iter()
        .map(|step| row(step, timeline.armed_at()))
        .collect();
    let first = table(["AFTER", "TIME", "PATH", "VALUE"], &rows);
    match stagger {
        Some(stagger) => {
            format!("{first}\nto each further target {stagger} later than to the one before\n")
        }
        None => first,
    }
}

fn row(step: &Step, armed_at: Timestamp) -> [String; 4] {
    let Step { at, path, value } = step;
    let after = at.duration_since(armed_at);
    let sign = if after.is_negative() { "-" } else { "+" };
    [
        format!("{sign}{}", length(after.as_secs())),
        time(*at),
        (*path).to_owned(),
        value.as_deref().map_or("(taken back)".to_owned(), brief),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{document, timeline};

    #[test]
    fn the_format_in_the_help_is_right() {
        let (_, example) = FORMAT.split_once("\n\n").unwrap();
        let example = example
            .replace("TIME", "2026-12-01T10:00:00Z")
            .replace(
                "      not-before: +1h",
                "      not-before: 2026-12-01T09:00:00Z",
            )
            .replace("not-after: +2h", "not-after: 2036-12-01T10:00:00Z")
            .replace("      appears: 2026-12-01T10:00:00Z", "      appears: 0s");
        let lines = example.lines().map(|line| line.strip_prefix("  ").unwrap());
        let lines: Vec<_> = lines.collect();
        let plan: timeline::Plan =
            document::parse(&lines.join("\n"), document::Format::Yaml).unwrap();
        let timeline = plan.arm("2026-12-01T09:00:00Z".parse().unwrap()).unwrap();
        assert!(timeline.steps().len() > 5);
        let last = "\n\nto each further target 30s later than to the one before\n";
        assert!(text(&timeline, plan.stagger).ends_with(last));
        assert!(!text(&timeline, None).contains("further"));
    }

    #[test]
    fn a_timeline_is_a_table() {
        let plan: timeline::Plan = document::parse(
            "notice: {appears: 90s}\nafter-deadline: withdraw\n\
             scheduled: [{code: system-reboot, not-after: 2m}]",
            document::Format::Yaml,
        )
        .unwrap();
        let timeline = plan.arm("2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
        let expected = "\
AFTER    TIME                  PATH                          VALUE
+0s      2026-01-01T00:00:00Z  events/maintenance/history    []
+0s      2026-01-01T00:00:00Z  events/maintenance/scheduled  system-reboot active
+0s      2026-01-01T00:00:00Z  instance-life-cycle           spot
+1m 30s  2026-01-01T00:01:30Z  spot/instance-action          {\"action\": \"terminate\", \"time\": \"2026-01-01T00:03:30Z\"}
+1m 30s  2026-01-01T00:01:30Z  spot/termination-time         2026-01-01T00:03:30Z
+2m      2026-01-01T00:02:00Z  events/maintenance/history    system-reboot completed
+2m      2026-01-01T00:02:00Z  events/maintenance/scheduled  []
+3m 30s  2026-01-01T00:03:30Z  spot/instance-action          (taken back)
+3m 30s  2026-01-01T00:03:30Z  spot/termination-time         (taken back)
";
        assert_eq!(text(&timeline, None), expected);
    }
}
