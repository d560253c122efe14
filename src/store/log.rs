//! Events of no accepted message (refusals, faults), written with the next group or once a second; never waited for.
//!
//! A flood of refusals must not become a flood of writes: what comes faster than can be kept is left out, counted, and
//! told as one event a minute. Retention bounds the rows there are.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::StoreError;
use super::tally::Tally;
use crate::clock::{self, Instant};
use crate::event::{Event, Kind};

/// Most that wait for a group.
const PENDING: usize = 1000;
/// Events that are kept a second, on average.
const RATE: u64 = 50;
/// How many may come at once.
const BURST: u64 = 3000;
/// How often it is told what was left out.
const TELL: Duration = Duration::from_mins(1);

pub(super) const INSERT: &str = "INSERT INTO log (at, event) VALUES (?1, ?2)";
pub(super) const LATEST: &str = "SELECT event FROM log ORDER BY id DESC LIMIT ?1";

#[derive(Debug, Default)]
pub(super) struct Pending {
    events: Vec<Event>,
    rate: Rate,
    left_out: u64,
    told: Option<Instant>,
}

/// What a group has written.
pub(super) struct Inserted {
    events: usize,
    told: bool,
}

impl Pending {
    pub(super) fn push(&mut self, event: Event, tally: &Tally) {
        if self.events.len() < PENDING && self.rate.take(Instant::now()) {
            self.events.push(event);
        } else {
            self.left_out += 1;
            tally.dropped_logs.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && !self.is_to_tell()
    }

    fn is_to_tell(&self) -> bool {
        self.left_out > 0 && self.told.is_none_or(|told| told.elapsed() >= TELL)
    }

    /// In the transaction of a group; it is then [`Pending::written`].
    pub(super) fn insert(&self, connection: &Connection) -> Result<Inserted, StoreError> {
        let mut insert = connection.prepare_cached(INSERT)?;
        for event in &self.events {
            insert.execute(params![event.at.as_millis(), super::apply::json(event)?])?;
        }
        let told = self.is_to_tell();
        if told {
            let detail = format!("{} events came faster than they can be kept", self.left_out);
            let event = Event::new(clock::now(), Kind::Fault { what: "log".to_owned(), detail });
            insert.execute(params![event.at.as_millis(), super::apply::json(&event)?])?;
        }
        Ok(Inserted { events: self.events.len(), told })
    }

    pub(super) fn written(&mut self, inserted: &Inserted) {
        self.events.drain(..inserted.events.min(self.events.len()));
        if inserted.told {
            self.left_out = 0;
            self.told = Some(Instant::now());
        }
    }
}

/// So many a second, and a burst where none came for a while.
#[derive(Debug)]
struct Rate {
    room: u64,
    since: Option<Instant>,
}

impl Default for Rate {
    fn default() -> Self {
        Self { room: BURST, since: None }
    }
}

impl Rate {
    fn take(&mut self, now: Instant) -> bool {
        let each = Duration::from_millis(1000 / RATE);
        let since = *self.since.get_or_insert(now);
        let more = u64::try_from(now.saturating_duration_since(since).as_nanos() / each.as_nanos()).unwrap_or(BURST);
        if more > 0 {
            self.room = self.room.saturating_add(more).min(BURST);
            self.since = Some(now);
        }
        let room = self.room > 0;
        self.room = self.room.saturating_sub(1);
        room
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_kept_to_its_burst_and_then_to_its_rate() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let kept = |rate: &mut Rate, at: Instant| (0..10_000).filter(|_| rate.take(at)).count() as u64;
        assert_eq!(kept(&mut rate, start), BURST);
        assert_eq!(kept(&mut rate, start + Duration::from_secs(2)), 2 * RATE);
        assert_eq!(kept(&mut rate, start + Duration::from_secs(2)), 0);
        assert_eq!(kept(&mut rate, start + Duration::from_hours(1)), BURST);
    }
}
