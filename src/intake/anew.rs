//! A message that is kept is decided on once more, for real, because an admin wants it: as if it had come again, by the
//! rules in force, and what they ask for is committed.
//!
//! Who is refused now is told of it by nobody: its sender has read 250. Two that ask at once don't send it twice: what was
//! decided counts only for the message as it was looked at.

use std::sync::Arc;

use super::decide::Fate;
use super::errand::Errand;
use super::foresee::{Foresight, Past, again};
use super::{Intake, MAX_RUNS, PATIENCE, combine, too_busy};
use crate::aside;
use crate::clock::{self, Instant};
use crate::event::{Event, Kind};
use crate::mail::{Message, MessageId};
use crate::store::{Accepted, Keep, Redecision, StoreError};

/// What came of it.
#[derive(Debug)]
pub struct Anew {
    pub deliveries: u64,
    /// Recipients for whom nothing was done: they are refused now.
    pub refused: u64,
    /// As they were added to the trace.
    pub events: Vec<Event>,
}

impl Intake {
    /// Decides and commits. `known`: how many deliveries the message had ever had when the admin looked at it.
    ///
    /// # Errors
    /// `NotFound` where the octets are gone, or it has got deliveries since; `Failed` where it can't be done now.
    pub async fn decide_anew(&self, id: MessageId, known: u32) -> Result<Anew, StoreError> {
        let body = self.store.body(id).await?;
        let client = body.client.ok_or_else(|| StoreError::NotFound(format!("message {id} is one of our own")))?;
        let address = client.ip;
        let message = Arc::new(Message::new(body.raw.whole().await?));
        let (envelope, seed) = (body.envelope, clock::seed());
        // What was answered outside counts for all its runs.
        let errand = Errand::new(&self.ways, &self.turns, &self.current.load().config, address);
        let past = Arc::new(Past { id, envelope, client, message, seed, reach: errand.lent() });
        for _ in 0..MAX_RUNS {
            let turn = self.turns.take(address, Instant::now() + PATIENCE).await;
            let turn = turn.ok_or_else(|| StoreError::Failed(too_busy().text.into_owned()))?;
            let (snapshot, kv, past, errand) =
                (self.current.load(), self.store.kv(), Arc::clone(&past), Arc::clone(&errand));
            let version = snapshot.release.version().to_owned();
            let task = aside::run(move || errand.within(turn, || again(&snapshot, &past, &kv)));
            let judged = task.await.map_err(|error| StoreError::Failed(error.to_string()))?;
            let (redecision, refused) = redecision(id, known, judged, &version);
            let (deliveries, events) = (redecision.deliveries.len() as u64, redecision.events.clone());
            if self.store.redecide(redecision).await? == Accepted::Committed {
                for event in &events {
                    self.bus.publish(event.clone());
                }
                return Ok(Anew { deliveries, refused, events });
            }
        }
        Err(StoreError::Failed(format!("a key that the worker reads was changed by others in each of {MAX_RUNS} runs")))
    }
}

/// The versions of the deployed rules that decided: one on trial may have on some recipients.
fn deciders(events: &[Event]) -> Option<String> {
    let mut versions: Vec<&str> = Vec::new();
    for event in events {
        if let Kind::Decided(decision) = &event.kind
            && let Some(version) = decision.version.as_deref().filter(|version| !versions.contains(version))
        {
            versions.push(version);
        }
    }
    (!versions.is_empty()).then(|| versions.join(" and "))
}

/// All recipients' fates as one commit, and how many are refused. `version`: of the rules that run for all.
fn redecision(id: MessageId, known: u32, seen: Vec<Foresight>, version: &str) -> (Redecision, u64) {
    let (mut events, mut judged, mut refused) = (Vec::new(), Vec::new(), 0);
    for one in seen {
        events.extend(one.events);
        match one.judged {
            Some(one) if !one.is_repeated => judged.push(one),
            Some(_) => {}
            None => refused += 1,
        }
    }
    let accepted = judged.iter().any(|one| one.fate == Fate::Accept);
    let outcome = accepted.then(|| combine::outcome(&judged, true, false));
    let now = clock::now();
    let (mut keep, mut deliveries, mut authored) = (Keep::default(), Vec::new(), Vec::new());
    let (mut kv_reads, mut kv_writes) = (Vec::new(), Vec::new());
    for one in judged {
        events.extend(one.events);
        kv_reads.extend(one.reads);
        refused += u64::from(one.fate != Fate::Accept);
        // A rejection's stand, as they do when it comes by SMTP.
        if !matches!(one.fate, Fate::Defer(_)) {
            kv_writes.extend(one.writes);
        }
        if one.fate == Fate::Accept {
            authored.extend(one.authored);
            deliveries.extend(one.deliveries);
            keep.until = keep.until.max(one.keep_until);
            keep.mailbox = keep.mailbox.take().or(one.mailbox);
        }
    }
    let by = deciders(&events).unwrap_or_else(|| version.to_owned());
    let detail = format!("by rules {by}: {} deliveries", deliveries.len());
    events.insert(0, Event::new(now, Kind::Admin { verb: "replay".to_owned(), detail }));
    for event in &mut events {
        event.message = Some(id);
    }
    let keep = Some(keep).filter(|keep| *keep != Keep::default());
    (Redecision { id, known, outcome, keep, deliveries, authored, kv_reads, kv_writes, events }, refused)
}
