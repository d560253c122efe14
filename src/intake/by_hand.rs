//! `scheduled` when somebody asks for it, beside what is planned: for real, with a trace, and without a mark of its time.

use super::errand::Errand;
use super::happened::NOWHERE;
use super::scheduled::Due;
use super::{Intake, MAX_RUNS};
use crate::clock;
use crate::event::{Event, Kind};
use crate::mail::{MessageId, Timestamp};
use crate::rules::Happening;
use crate::store::{Accepted, StoreError};

/// Octets of a cron that somebody names.
const MAX_CRON: usize = 100;

/// What a run came to, committed.
pub struct Ran {
    pub id: MessageId,
    /// Why the handler failed, if it did: then nothing but this was kept.
    pub failed: Option<String>,
    pub deliveries: usize,
    pub mails: usize,
    pub events: Vec<Event>,
}

impl Intake {
    /// Runs `scheduled` as for a time of `cron`, whatever is planned.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]: there is no such handler. [`StoreError::Conflict`]: that is no cron. Else it can't be run now.
    pub async fn trigger(&self, cron: &str, at: Timestamp) -> Result<Ran, StoreError> {
        if cron.len() > MAX_CRON || !cron.bytes().all(|octet| octet.is_ascii_graphic() || octet == b' ') {
            return Err(StoreError::Conflict("a cron is a line of at most 100 ASCII characters".to_owned()));
        }
        let snapshot = self.current.load();
        let (main, handler) = (snapshot.config.main_for(None, None), Happening::Scheduled.handler());
        if !snapshot.release.has(&main, handler) {
            return Err(StoreError::NotFound(format!("the worker {main} has no handler `{handler}`")));
        }
        let errand = Errand::new(&self.ways, &self.turns, &snapshot.config, NOWHERE);
        for _ in 0..MAX_RUNS {
            let subject = format!("Scheduled by hand: {cron}");
            let due = Due { cron, at, now: clock::now(), seed: clock::seed(), subject };
            let acceptance = self.run_scheduled(&snapshot, due, &errand).await.map_err(StoreError::Failed)?;
            let failed = acceptance.events.iter().find_map(|event| match &event.kind {
                Kind::ScriptFailed { error, .. } => Some(error.clone()),
                _ => None,
            });
            let (id, deliveries, mails) = (acceptance.id, acceptance.deliveries.len(), acceptance.authored.len());
            if let Some(events) = self.commit_scheduled(acceptance).await? {
                return Ok(Ran { id, failed, deliveries, mails, events });
            }
        }
        Err(StoreError::Failed(format!("a key that the worker reads was changed by others in each of {MAX_RUNS} runs")))
    }

    /// The events that it tells, once it is there; `None`: what it had read was changed meanwhile.
    pub(super) async fn commit_scheduled(
        &self,
        acceptance: crate::store::Acceptance,
    ) -> Result<Option<Vec<Event>>, StoreError> {
        // That it was accepted stands in its trace alone: nobody has handed it in.
        let of_worker = |event: &&Event| !matches!(event.kind, Kind::Accepted { .. });
        let events: Vec<Event> = acceptance.events.iter().filter(of_worker).cloned().collect();
        if self.store.accept(acceptance).await? != Accepted::Committed {
            return Ok(None);
        }
        for event in &events {
            self.bus.publish(event.clone());
        }
        Ok(Some(events))
    }
}
