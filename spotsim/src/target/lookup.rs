//! From what the user named to targets, at first and again and again.

use std::{collections::HashSet, io};

use anyhow::{Context as _, Result, bail};

use super::{
    Cgroup, Choice, Named, Target, UnitError, cgroup2_mount,
    cri::{Pod, RuntimeError},
    pods::{Pods, Resolved},
    unit_path,
};

/// Who the targets are.
#[derive(Debug, Default)]
pub struct Found {
    pub targets: Vec<Target>,
    /// Pods that match and cannot be targets: why, each in a line.
    pub refused: Vec<String>,
}

impl Choice {
    /// Who is chosen now. Pods and containers must be given if there are any in the choice.
    ///
    /// # Errors
    ///
    /// If something that was named is not there, or cannot be a target, and if nothing is chosen.
    pub async fn find(&self, pods: Option<&mut Pods>) -> Result<Found> {
        let mut found = Found::default();
        let Found { targets, refused } = &mut found;
        for path in &self.cgroups {
            targets.push(Cgroup::find(path)?.into());
        }
        for pid in &self.processes {
            targets.push(of_process(*pid)?);
        }
        for unit in &self.units {
            match of_unit(unit) {
                Ok(target) => targets.push(target),
                Err(error) if self.wait && may_start(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(pods) = pods {
            for prefix in &self.containers {
                targets.push(pods.container(prefix).await?);
            }
            if self.may_grow() {
                self.find_pods(pods, targets, refused).await?;
            }
        }
        let mut seen = HashSet::new();
        targets.retain(|target| seen.insert(target.id()));
        if targets.is_empty() {
            if !self.wait {
                bail!("nothing is chosen: what was named has ended in this moment");
            }
            return Ok(found);
        }
        let key = |target: &Target| (target.to_string(), target.id());
        *targets = self.select.pick(std::mem::take(targets), self.seed, key)?;
        Ok(found)
    }

    /// A pod that is named and cannot be a target is an error; one that merely matches is not.
    async fn find_pods(
        &self,
        pods: &mut Pods,
        targets: &mut Vec<Target>,
        refused: &mut Vec<String>,
    ) -> Result<()> {
        let all = pods.list().await?;
        let mut chosen = Vec::new();
        for name in &self.pods {
            let named: Vec<_> = all.iter().filter(|pod| pod.full_name() == *name).collect();
            let running: Vec<_> = named.iter().filter(|pod| pod.ready).collect();
            if named.is_empty() && !self.wait {
                bail!(
                    "no such pod on this node: {name} (`spotsim pods` lists those that there are, \
                     --wait waits for it)"
                );
            }
            if running.is_empty() && !self.wait {
                bail!("pod {name} has ended: it has no running sandbox (--wait waits for one)");
            }
            chosen.extend(running);
        }
        for resolved in pods.resolve(&chosen).await? {
            match resolved {
                Resolved::Target(target) => targets.push(target),
                Resolved::Gone => {}
                Resolved::Refused(reason) => bail!(reason),
            }
        }
        let Some(selector) = &self.selector else {
            return Ok(());
        };
        let matching: Vec<_> = all.iter().filter(|pod| self.matches(pod)).collect();
        if matching.is_empty() && !self.wait {
            let space = match &self.namespace {
                Some(namespace) => format!("namespace {namespace}"),
                None => "any namespace".to_owned(),
            };
            bail!(
                "no pod of {space} that runs on this node matches {:?} (`spotsim pods` lists \
                 those that there are, --wait waits for one)",
                selector.to_string()
            );
        }
        for resolved in pods.resolve(&matching).await? {
            match resolved {
                Resolved::Target(target) => targets.push(target),
                Resolved::Gone => {}
                Resolved::Refused(reason) => refused.push(reason),
            }
        }
        if targets.is_empty()
            && !self.wait
            && let Some(reason) = refused.first()
        {
            bail!("none of the pods that match can be a target: {reason}");
        }
        Ok(())
    }

    /// Who is chosen now, where these were before: what is named by something that cannot come
    /// again stays for as long as it is there. The order is that in which they came.
    ///
    /// # Errors
    ///
    /// If the runtime does not tell.
    pub async fn find_again(
        &self,
        pods: Option<&mut Pods>,
        before: &[Target],
    ) -> Result<Found, RuntimeError> {
        let mut refused = Vec::new();
        let units = self.units.iter().filter_map(|unit| of_unit(unit).ok());
        let mut now: Vec<_> = units.collect();
        if let Some(pods) = pods.filter(|_| self.may_grow()) {
            let all = pods.list().await?;
            let running = all.iter().filter(|pod| pod.ready && self.has_pod(pod));
            let running: Vec<_> = running.collect();
            for resolved in pods.resolve(&running).await? {
                match resolved {
                    Resolved::Target(target) => now.push(target),
                    Resolved::Gone => {}
                    Resolved::Refused(reason) => refused.push(reason),
                }
            }
            let found: HashSet<_> = now.iter().map(Target::id).collect();
            let gone = before.iter().filter(|target| !found.contains(&target.id()));
            let waiting = gone.filter(|target| self.waits_for(target, &all));
            let waiting: Vec<_> = waiting.cloned().collect();
            pods.forget_others(&waiting);
            now.extend(
                waiting
                    .into_iter()
                    .filter(|target| pods.may_come_back(&target.cgroup)),
            );
        }
        let fixed = |target: &Target| match target.named {
            Named::Cgroup | Named::Process { .. } | Named::Container { .. } => {
                target.cgroup.exists()
            }
            Named::Unit { .. } | Named::Pod { .. } => false,
        };
        let stays = |target: &&Target| fixed(target) || now.contains(target);
        let mut targets: Vec<_> = before.iter().filter(stays).cloned().collect();
        let mut seen: HashSet<_> = targets.iter().map(Target::id).collect();
        targets.extend(now.into_iter().filter(|target| seen.insert(target.id())));
        Ok(Found { targets, refused })
    }

    /// Whether a pod runs that the selector has.
    fn matches(&self, pod: &Pod) -> bool {
        pod.ready && self.selects(&pod.namespace, &pod.labels)
    }

    fn has_pod(&self, pod: &Pod) -> bool {
        self.pods.contains(&pod.full_name()) || self.selects(&pod.namespace, &pod.labels)
    }

    /// Whether a target is a pod that may get another sandbox: unless it has one that is not
    /// chosen, as with other labels.
    fn waits_for(&self, target: &Target, all: &[Pod]) -> bool {
        let Named::Pod { uid, .. } = &target.named else {
            return false;
        };
        let sandboxes = all.iter().filter(|pod| pod.uid == *uid);
        let latest = sandboxes.max_by_key(|pod| pod.ready);
        latest.is_none_or(|pod| self.has_pod(pod))
    }
}

fn of_process(pid: u32) -> Result<Target> {
    let path = match Cgroup::path_of(pid) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("no such process: {pid}"),
        path => path.with_context(|| format!("cannot tell the cgroup of process {pid}"))?,
    };
    let cgroup = Cgroup::find(&path).with_context(|| format!("process {pid}"))?;
    Ok(Target {
        cgroup,
        named: Named::Process { pid },
    })
}

fn may_start(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(UnitError::NotRunning { .. }))
}

fn of_unit(unit: &str) -> Result<Target> {
    let mount = cgroup2_mount()?.context("no cgroup v2 hierarchy is mounted")?;
    let directory = unit_path(&mount, unit)?;
    let cgroup = Cgroup::find(&directory.to_string_lossy())?;
    Ok(Target {
        cgroup,
        named: Named::Unit {
            unit: unit.to_owned(),
        },
    })
}
