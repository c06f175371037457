//! The options that say what is done at the deadline.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
};

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    cli::{Misuse, table::plain},
    effect::{self, AtDeadline, Effects},
    readiness::readable,
    target::Target,
    timeline::Span,
};

/// Nothing, unless it is asked for.
#[derive(Args)]
#[command(next_help_heading = "At the deadline")]
pub struct EffectOptions {
    /// What is done to the targets at the deadline
    #[arg(
        long,
        value_name = "none|term|kill|freeze|cut",
        default_value = "none",
        long_help = "What is done to the targets at the deadline:\n\
            none    nothing\n\
            term    SIGTERM to every process, and SIGKILL after --grace\n\
            kill    SIGKILL to every process\n\
            freeze  every process stops, until spotsim ends\n\
            cut     the network is cut in both directions, loopback too, until spotsim ends"
    )]
    at_deadline: AtDeadline,

    /// With `term`, from SIGTERM to SIGKILL [default: 30s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    grace: Option<Span>,
}

/// Who is asked before.
#[derive(Args)]
pub struct Consent {
    /// Do it without being asked
    #[arg(long)]
    yes: bool,
}

impl EffectOptions {
    /// As a kubelet has it.
    const GRACE: Span = Span::seconds(30);

    /// Whether anything is done.
    pub fn is_some(&self) -> bool {
        self.at_deadline != AtDeadline::None
    }

    /// Makes ready what is to be done, if anything is.
    pub fn prepare(&self) -> Result<Option<Effects>> {
        let Self { at_deadline, .. } = self;
        Effects::prepare(*at_deadline, self.grace()?)
    }

    /// How long after SIGTERM.
    fn grace(&self) -> Result<Span> {
        let Self { at_deadline, grace } = self;
        if grace.is_some() && *at_deadline != AtDeadline::Term {
            return Err(Misuse::error("--grace goes with --at-deadline term"));
        }
        Ok(grace.unwrap_or(Self::GRACE))
    }

    /// What is wrong with the options is wrong on every host.
    pub fn validate(&self) -> Result<()> {
        self.grace().map(drop)
    }

    /// What is done to each process, in a few words.
    fn words(&self) -> Result<String> {
        Ok(match self.at_deadline {
            AtDeadline::None => "nothing is done to".to_owned(),
            AtDeadline::Term => {
                format!("SIGTERM, and SIGKILL after {}, is sent to", self.grace()?)
            }
            AtDeadline::Kill => "SIGKILL is sent to".to_owned(),
            AtDeadline::Freeze => "these are frozen:".to_owned(),
            AtDeadline::Cut => "the network is cut of".to_owned(),
        })
    }
}

impl Consent {
    /// Whether somebody can be asked, or need not be. Before anything is looked for.
    pub fn validate(&self, effect: &EffectOptions) -> Result<()> {
        let asked = effect.is_some() && !self.yes;
        if asked && !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(Misuse::error(format!(
                "--at-deadline {} needs --yes where there is no terminal to ask on",
                effect.at_deadline
            )));
        }
        Ok(())
    }

    /// Refuses targets to which nothing may be done, and asks whether it may be to these. More
    /// may come `later`.
    pub async fn obtain(
        &self,
        effect: &EffectOptions,
        targets: &[Target],
        later: bool,
    ) -> Result<()> {
        if !effect.is_some() {
            return Ok(());
        }
        for target in targets {
            effect::check(target)?;
            effect.at_deadline.check(target)?;
        }
        if self.yes {
            return Ok(());
        }
        let mut question = format!("At the deadline {}\n", effect.words()?);
        for target in targets {
            let processes = match target.cgroup.processes().len() {
                1 => "1 process".to_owned(),
                count => format!("{count} processes"),
            };
            let _ = writeln!(question, "  {} ({processes})", plain(&target.to_string()));
        }
        if later {
            question += "  and whatever else matches by then\n";
        }
        question += "Go on? [y/N] ";
        let mut stderr = io::stderr().lock();
        stderr.write_all(question.as_bytes())?;
        stderr.flush()?;
        drop(stderr);
        // A terminal is readable once there is a line. Until then a signal can be heard.
        let stdin = readable(io::stdin())?;
        drop(stdin.readable().await?);
        drop(stdin);
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => bail!("the answer was no: nothing is attached"),
        }
    }
}
