//! Events of no accepted message (refusals, faults), written with the next group or once a second; never waited for.
//!
//! A flood of refusals must not become a flood of writes: what is more than a second's worth is dropped and counted.

use std::sync::atomic::Ordering;

use rusqlite::{Connection, params};

use super::StoreError;
use super::tally::Tally;
use crate::event::{Event, Kind};

/// Most that wait for a group.
const PENDING: usize = 1000;

pub(super) const INSERT: &str = "INSERT INTO log (at, event) VALUES (?1, ?2)";
pub(super) const LATEST: &str = "SELECT event FROM log ORDER BY id DESC LIMIT ?1";

#[derive(Debug, Default)]
pub(super) struct Pending {
    events: Vec<Event>,
    dropped: u64,
}

impl Pending {
    pub(super) fn push(&mut self, event: Event, tally: &Tally) {
        if self.events.len() < PENDING {
            self.events.push(event);
        } else {
            self.dropped += 1;
            tally.dropped_logs.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// In the transaction of a group; how many are then [`Pending::written`].
    pub(super) fn insert(&self, connection: &Connection) -> Result<usize, StoreError> {
        let mut insert = connection.prepare_cached(INSERT)?;
        for event in &self.events {
            insert.execute(params![event.at.as_millis(), super::apply::json(event)?])?;
        }
        if let Some(last) = self.events.last().filter(|_| self.dropped > 0) {
            let detail = format!("{} events came faster than they can be kept", self.dropped);
            let event = Event::new(last.at, Kind::Fault { what: "log".to_owned(), detail });
            insert.execute(params![event.at.as_millis(), super::apply::json(&event)?])?;
        }
        Ok(self.events.len())
    }

    pub(super) fn written(&mut self, count: usize) {
        self.events.drain(..count.min(self.events.len()));
        self.dropped = 0;
    }
}

/// The newest first; what can't be read is left out.
pub(super) fn latest(connection: &Connection, limit: usize) -> Result<Vec<Event>, StoreError> {
    let mut statement = connection.prepare_cached(LATEST)?;
    let mut rows = statement.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.extend(serde_json::from_str::<Event>(row.get_ref(0)?.as_str().unwrap_or_default()).ok());
    }
    Ok(events)
}
