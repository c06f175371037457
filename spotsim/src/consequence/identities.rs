//! Which instances the targets are, as their IMDS has it.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use log::debug;

use crate::{
    instance::Identity,
    netns::{self, Namespace},
    responder::Responder,
    target::Target,
};

/// One that did not tell is not asked again for so long.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// What was asked is remembered for each network namespace: another IMDS may be in each.
#[derive(Default)]
pub struct Identities {
    known: HashMap<Option<netns::Id>, Known>,
    /// Where each target was last, by its id: nobody is left in one that was ended.
    places: HashMap<u64, netns::Id>,
}

enum Known {
    Identity(Box<Identity>),
    Silent { why: String, since: Instant },
}

impl Identities {
    /// Which instance a target is; without one, whoever comes.
    ///
    /// # Errors
    ///
    /// If its IMDS does not tell.
    pub async fn of(&mut self, target: Option<&Target>, responder: &Responder) -> Result<Identity> {
        let Self { known, places } = self;
        let namespace = target.and_then(namespace_of);
        let mut key = namespace.as_ref().map(Namespace::id);
        if let Some(target) = target.map(Target::id) {
            match key {
                Some(place) => _ = places.insert(target, place),
                None => key = places.get(&target).copied(),
            }
        }
        match known.get(&key) {
            Some(Known::Identity(identity)) => return Ok(Identity::clone(identity)),
            Some(Known::Silent { why, since }) if since.elapsed() < ASK_AGAIN => {
                return Err(anyhow!(why.clone()));
            }
            _ => {}
        }
        let identity = ask(responder, namespace.as_ref()).await;
        let learned = match &identity {
            Ok(identity) => Known::Identity(Box::new(identity.clone())),
            Err(error) => Known::Silent {
                why: format!("{error:#}"),
                since: Instant::now(),
            },
        };
        known.insert(key, learned);
        identity
    }
}

/// The IMDS as the target sees it. Where a target is kept from it, it is asked from where spotsim
/// is: the instance is the same.
async fn ask(responder: &Responder, namespace: Option<&Namespace>) -> Result<Identity> {
    if namespace.is_some() {
        match responder.identity(namespace).await {
            Ok(identity) => return Ok(identity),
            Err(error) => debug!("from a target's network namespace: {error:#}"),
        }
    }
    responder.identity(None).await
}

/// A network namespace that a process of the target is in.
fn namespace_of(target: &Target) -> Option<Namespace> {
    let Target { cgroup, .. } = target;
    let (_, namespaces) = cgroup.namespaces(&cgroup.directories(), &HashSet::new());
    namespaces.into_iter().next()
}
