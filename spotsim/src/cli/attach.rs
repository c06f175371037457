//! `spotsim attach`: intercept what runs in cgroups.

use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use log::{Level, LevelFilter, info, log_enabled};
use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, log as log_to, options::Options, runtime, stop::Stop};
use crate::{
    control::{Reason, Served, Session, Verb},
    doctor,
    interception::{Config, Interception},
    journal::Feed,
    responder::{Responder, Upstream},
    target::Cgroup,
    timeline::{Plan, Timeline},
};

#[derive(Args)]
pub struct Attach {
    /// A cgroup: a path as in /proc/PID/cgroup (`/kubepods/…`) or the full directory; repeatable
    #[arg(long = "cgroup", value_name = "PATH", required = true)]
    cgroups: Vec<String>,

    #[command(flatten)]
    options: Options,
}

impl Attach {
    pub fn run(self) -> Result<Exit> {
        log_to::start(self.options.log_level(LevelFilter::Info))?;
        // What is wrong with the options is wrong on every host.
        let plan = self.options.plan()?;
        let upstream = self.options.upstream.upstream(false)?;
        doctor::preflight()?;
        runtime()?.block_on(self.intercept(plan, upstream))
    }

    async fn intercept(self, plan: Plan, upstream: Upstream) -> Result<Exit> {
        let Self { cgroups, options } = self;
        let find = |path: &String| Cgroup::find(path);
        let targets = cgroups.iter().map(find).collect::<Result<_, _>>()?;
        let claim = options.claim()?;
        let mut stop = Stop::new()?;
        // Suspended, it would leave its targets without an IMDS. A signal that is listened for
        // does not suspend.
        let _suspend = signal(SignalKind::from_raw(libc::SIGTSTP))?;
        let responder = Arc::new(Responder::new(
            Timeline::nothing(Timestamp::now()),
            upstream,
        ));
        let feed = Feed::default();
        let mut interception = Interception::arm(Config {
            targets,
            namespace: None,
            responder: Arc::clone(&responder),
            feed: feed.clone(),
            kernel_log: log_enabled!(Level::Trace),
        })?;
        // Its times count from when somebody can see it.
        responder.show(plan.arm(Timestamp::now())?);
        let served = Served::Targets(interception.targets());
        let session = Session::start(claim, Verb::Attach, served, responder, feed)?;
        log_to::print(interception.armed().to_string());

        let until = async {
            tokio::select! {
                () = stop.asked() => Reason::Stopped,
                () = options.lasts() => Reason::TimeOver,
                () = session.asked_to_detach() => Reason::Detached,
            }
        };
        let kept = interception.keep(until).await;
        let reason = Reason::of(&kept);
        interception.release();
        tokio::join!(session.end(reason), interception.detach());
        kept?;
        info!("detached: {reason}");
        Ok(Exit::Done)
    }
}
