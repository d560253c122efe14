//! Who hears how a delivery ends: the worker that decided on its mail, by the rules that did.
//!
//! Each delivery has it along: by then the message that routes may go by is gone, and a trial of other rules over. What came
//! without (queued before any worker listened, let out by an admin) is the worker's that RCPT would choose.

use std::sync::Arc;

use super::decide::Case;
use super::happened::NOWHERE;
use super::snapshot::Snapshot;
use crate::config::route::{AtRcpt, Facts, Whence};
use crate::mail::{Address, Origin, Recipient};
use crate::rules::{Happening, Release};
use crate::store::Decider;

impl Case {
    /// To be kept with what the worker of that name asks for; nothing, where no worker listens.
    pub(super) fn decider(&self, recipient: &Recipient, main: impl FnOnce() -> String) -> Option<Decider> {
        let rules = self.rules_for(recipient);
        decider(&self.snapshot, rules, main)
    }
}

pub(super) fn decider(snapshot: &Snapshot, rules: &Release, main: impl FnOnce() -> String) -> Option<Decider> {
    let listens = rules.hears(Happening::Delivered) || rules.hears(Happening::Failed);
    listens.then(|| Decider { main: main(), version: snapshot.canary().map(|_| rules.version().to_owned()) })
}

/// The rules that decided, as long as they are in force for some mail; else those that are for all.
pub(super) fn rules_of<'a>(snapshot: &'a Snapshot, by: Option<&Decider>) -> &'a Arc<Release> {
    let version = by.and_then(|by| by.version.as_deref());
    let canary = snapshot.canary().filter(|canary| version == Some(canary.release.version()));
    canary.map_or(&snapshot.release, |canary| &canary.release)
}

/// The worker that hears; `None`: mail to that address is none of ours any more.
pub(super) fn main_of(snapshot: &Snapshot, by: Option<&Decider>, recipient: &Address) -> Option<String> {
    let domain = snapshot.config.domain_for(recipient)?;
    if let Some(by) = by.filter(|by| rules_of(snapshot, Some(by)).knows(&by.main)) {
        return Some(by.main.clone());
    }
    let unknown = Origin::default();
    let client = Whence { ip: NOWHERE, origin: &unknown };
    let facts = Facts { recipient, sender: None, client, message: None, auth: None };
    let route = match snapshot.config.route_at_rcpt(&facts) {
        AtRcpt::Ask(route) => route,
        AtRcpt::Accept | AtRcpt::Refuse(_) => None,
    };
    Some(snapshot.config.main_for(Some(domain), route))
}
