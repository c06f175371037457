//! The options that say what is announced.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use jiff::Timestamp;

use crate::{
    cli::Misuse,
    document,
    timeline::{
        Action, AfterDeadline, Invalid, LifeCycle, LifecycleStatePlan, NoticePlan, Plan,
        RebalancePlan, ScheduledPlan, Span, When,
    },
};

/// A notice at once, if nothing is given. The notice is left out where only other events are.
#[derive(Args)]
#[group(id = "announced", multiple = true)]
#[command(next_help_heading = "Announced")]
pub struct Announced {
    /// What the notice says will happen at the deadline: terminate, stop or hibernate [default:
    /// terminate]
    #[arg(long, value_name = "ACTION")]
    action: Option<Action>,

    /// When the notice appears: 90s from the arming on, or 2026-12-01T10:00:00Z [default: 0s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    notice_after: Option<When>,

    /// From the notice to the deadline [default: 2m; 0s to hibernate]
    #[arg(
        long,
        value_name = "DURATION",
        conflicts_with = "deadline",
        allow_hyphen_values = true
    )]
    lead: Option<Span>,

    /// The deadline itself, instead of --lead
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    deadline: Option<When>,

    /// When a rebalance recommendation appears
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    rebalance_after: Option<When>,

    /// Take notice and recommendation back at the deadline, or keep them as EC2 does [default:
    /// keep]
    #[arg(long, value_name = "keep|withdraw")]
    after_deadline: Option<AfterDeadline>,

    /// A scheduled event, e.g. system-reboot@1h..2h; repeatable
    #[arg(
        long,
        value_name = "CODE[@NOT_BEFORE[..NOT_AFTER]]",
        long_help = "A scheduled event; repeatable.\n\
            CODE is instance-stop, instance-retirement, instance-reboot, system-reboot or \
            system-maintenance.\n\
            It is completed at NOT_AFTER. These can follow, each after a comma:\n\
            appears=TIME              when it is announced [default: at once]\n\
            canceled=TIME             when it is canceled\n\
            completed=TIME            when it is completed\n\
            lingers=DURATION          for how long it is still listed when it is over [default: 0s]\n\
            not-before-deadline=TIME  until when its beginning can be put off\n\
            event-id=ID, description=TEXT"
    )]
    scheduled: Vec<ScheduledPlan>,

    /// The Auto Scaling target lifecycle state, e.g. Terminated@30s; repeatable
    #[arg(long, value_name = "STATE[@TIME]")]
    lifecycle_state: Vec<LifecycleStatePlan>,

    /// What instance-life-cycle says [default: spot, with a notice or a recommendation]
    #[arg(long, value_name = "spot|on-demand")]
    life_cycle: Option<LifeCycle>,

    /// Show each target all of it so much later than the one before
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    stagger: Option<Span>,

    /// All of it from a file (TOML, YAML or JSON; see `spotsim plan check --help`)
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "action", "notice_after", "lead", "deadline", "rebalance_after", "after_deadline",
            "scheduled", "lifecycle_state", "life_cycle", "stagger",
        ]
    )]
    plan: Option<PathBuf>,
}

impl Announced {
    /// Refuses what is about several targets, for who has no more than one.
    pub fn for_one(&self, who: &str) -> Result<()> {
        match self.stagger {
            Some(_) => Err(Misuse::error(format!(
                "--stagger is between targets, and {who} has one alone"
            ))),
            None => Ok(()),
        }
    }

    /// What is to be announced. It can be armed now.
    pub fn plan(&self) -> Result<Plan> {
        let Self {
            action,
            notice_after,
            lead,
            deadline,
            rebalance_after,
            after_deadline,
            scheduled,
            lifecycle_state,
            life_cycle,
            stagger,
            plan,
        } = self;
        if let Some(file) = plan {
            return read(file);
        }
        let of_notice = action.is_some()
            || notice_after.is_some()
            || lead.is_some()
            || deadline.is_some()
            || after_deadline.is_some();
        let of_others = rebalance_after.is_some()
            || !scheduled.is_empty()
            || !lifecycle_state.is_empty()
            || life_cycle.is_some();
        let notice = NoticePlan {
            action: action.unwrap_or(Action::Terminate),
            appears: notice_after.unwrap_or_default(),
            lead: *lead,
            deadline: *deadline,
        };
        let plan = Plan {
            notice: (of_notice || !of_others).then_some(notice),
            rebalance: rebalance_after.map(|appears| RebalancePlan { appears }),
            after_deadline: *after_deadline,
            life_cycle: *life_cycle,
            scheduled: scheduled.clone(),
            lifecycle_states: lifecycle_state.clone(),
            stagger: *stagger,
        };
        plan.arm(Timestamp::now()).map_err(as_options)?;
        Ok(plan)
    }
}

/// What is wrong with a plan, in the words of the options that it was made of.
fn as_options(invalid: Invalid) -> anyhow::Error {
    let Invalid { field, problem } = invalid;
    let (group, key) = field.split_once('.').unwrap_or((&field, ""));
    let group = group.split('[').next().unwrap_or_default();
    let option = match (group, key) {
        ("notice", "appears") => "--notice-after".to_owned(),
        ("rebalance", _) => "--rebalance-after".to_owned(),
        ("notice", key) => format!("--{key}"),
        ("lifecycle-states", _) => "--lifecycle-state".to_owned(),
        (group, "") => format!("--{group}"),
        (group, key) => format!("--{group}: {key}"),
    };
    Misuse::error(format!("{option}: {problem}"))
}

/// Reads a plan file that can be armed now.
pub fn read(file: &Path) -> Result<Plan> {
    let plan: Plan = document::read(file)?;
    plan.arm(Timestamp::now())
        .with_context(|| file.display().to_string())?;
    Ok(plan)
}
