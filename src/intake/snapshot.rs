//! What is in force: configuration and rules, immutable, swapped as a whole. A session keeps the one it began with.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::canary::{Canary, Deployed, Handler};
use crate::config::Config;
use crate::mail::{Address, Reply};
use crate::rules::Release;

/// One state of the configuration and the workers compiled for it.
pub struct Snapshot {
    pub config: Arc<Config>,
    pub release: Arc<Release>,
    /// `None`: the rules are files.
    pub deployed: Option<Deployed>,
}

impl Snapshot {
    /// Of files.
    #[must_use]
    pub fn new(config: Arc<Config>, release: Arc<Release>) -> Self {
        Self { config, release, deployed: None }
    }

    /// The release on trial, if there is one.
    #[must_use]
    pub fn canary(&self) -> Option<&Canary> {
        self.deployed.as_ref()?.canary.as_ref()
    }

    /// Whether other releases were deployed since.
    pub(super) fn is_overtaken_by(&self, now: &Self) -> bool {
        let running = |snapshot: &Self| {
            let deployed = snapshot.deployed.as_ref()?;
            Some((deployed.active, deployed.canary.as_ref().map(|canary| canary.id)))
        };
        running(self) != running(now)
    }

    /// The rules that decide on mail of this sender for this recipient.
    pub(super) fn rules_for(&self, sender: Option<&Address>, recipient: &Address) -> &Arc<Release> {
        let canary = self.canary().filter(|canary| canary.takes(&self.config, sender, recipient));
        canary.map_or(&self.release, |canary| &canary.release)
    }

    /// A reply as logs, traces and lists show it: without the values of secrets. Who it is for reads it as it was written.
    pub(super) fn shown(&self, reply: &Reply) -> Reply {
        Reply { text: self.release.hide(reply.text.clone().into_owned()).into(), ..reply.clone() }
    }

    /// Counts a run of these rules, where that is of interest.
    pub(super) fn ran(&self, handler: Handler, rules: &Arc<Release>, failed: bool) {
        if let Some(canary) = self.canary() {
            canary.count(handler, Arc::ptr_eq(rules, &canary.release), failed);
        }
    }

    /// What a trace says of these rules: their version where they were deployed, and whether they are on trial.
    pub(super) fn told(&self, rules: &Arc<Release>) -> (Option<String>, bool) {
        let is_canary = self.canary().is_some_and(|canary| Arc::ptr_eq(rules, &canary.release));
        (self.deployed.as_ref().map(|_| rules.version().to_owned()), is_canary)
    }
}

/// The snapshot in force.
#[derive(Clone)]
pub struct Current(Arc<ArcSwap<Snapshot>>);

impl Current {
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(snapshot)))
    }

    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Another release counts from the next transaction on, whatever session it is in: a client may stay for hours.
    pub(super) fn take_deployed(&self, snapshot: &mut Arc<Snapshot>) {
        let now = self.0.load();
        if snapshot.is_overtaken_by(&now) {
            *snapshot = Arc::clone(&now);
        }
    }

    pub fn swap(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }
}
