//! Deletes what retention no longer keeps, a bounded step at a time: expired keys, the old log, old records, segments.
//!
//! A record goes when it is older than the log retention and nothing of it is queued or to be kept longer. The octets go
//! by whole segments (`clearing`). Each kind has a few milliseconds of a step, so that mail waits for none of them, and
//! each fails by itself: a row that can't be read holds up nothing but itself.
//! While the clock can't be believed (`wall`) nothing goes.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::clearing::Clearing;
use super::wall::{Look, Wall};
use super::writer::Writer;
use super::{StoreError, orphans};
use crate::clock::Instant;
use crate::event::{Event, Kind};
use crate::mail::{MessageId, Timestamp};

/// What each kind may take of the writer's time in one step.
const SLICE: Duration = Duration::from_millis(4);
/// Rows between two looks at the time.
const BATCH: u32 = 50;
/// Rows of the log; the oldest go first.
const LOG_ROWS: i64 = 1_000_000;
/// What is kept is looked over no more often than this, and no more rarely than that.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_hours(1), Duration::from_hours(24));
/// No schedule waits longer than this, but for one that says so ([`super::Store::expect_waits`]).
const LONGEST_WAIT: Duration = Duration::from_hours(36);

pub(super) const EXPIRED_KEYS: &str = "DELETE FROM kv WHERE (namespace, key) IN (SELECT namespace, key FROM kv \
     WHERE expires_at IS NOT NULL AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";
pub(super) const OLD_RECORDS: &str = "SELECT m.id, (m.keep_until IS NULL OR m.keep_until <= ?3) AND NOT EXISTS \
     (SELECT 1 FROM deliveries AS d WHERE d.message = m.id AND d.state = 0), \
     iif(typeof(m.keep_until) = 'integer', m.keep_until, NULL) \
     FROM messages AS m WHERE m.id > ?1 AND m.id < ?2 AND length(m.id) = 16 ORDER BY m.id LIMIT ?4";
pub(super) const DELETE_TRACE: &str = "DELETE FROM trace WHERE message = ?1";
pub(super) const DELETE_DELIVERIES: &str = "DELETE FROM deliveries WHERE message = ?1";
pub(super) const DELETE_MESSAGE: &str = "DELETE FROM messages WHERE id = ?1 RETURNING segment";
pub(super) const OLDEST_LOG: &str = "SELECT id, at FROM log WHERE id > ?1 ORDER BY id LIMIT ?2";
pub(super) const DELETE_LOG: &str = "DELETE FROM log WHERE id = ?1";
pub(super) const DATE_LOG: &str = "UPDATE log SET at = ?2 WHERE id = ?1";
pub(super) const NEWEST_LOG: &str = "SELECT max(id) FROM log";
pub(super) const EXCESS_LOG: &str =
    "DELETE FROM log WHERE id IN (SELECT id FROM log ORDER BY id LIMIT ?2) AND id <= ?1";
pub(super) const BRING_NEAR: &str = "UPDATE deliveries SET due = ?2 WHERE (message, n) IN (SELECT message, n \
     FROM deliveries WHERE state = 0 AND due > ?1 ORDER BY due DESC LIMIT ?3)";

/// Where the rounds have come to.
#[derive(Debug)]
pub(super) struct Retention {
    pub wall: Wall,
    pub clearing: Clearing,
    records: Walked,
    /// The log has been looked at up to here in this round.
    log: i64,
}

/// Old records up to here have gone or are kept; from when on those are looked over again.
#[derive(Debug, Default)]
struct Walked {
    after: [u8; 16],
    again: Option<Timestamp>,
}

/// What one step has done.
#[derive(Debug)]
pub(super) struct Step {
    messages: u64,
    pub raw_bytes: u64,
    keys: u64,
    pub more: bool,
    until: Instant,
}

type Part = fn(&mut Writer, Timestamp, &mut Step) -> Result<(), StoreError>;

impl Step {
    fn new() -> Self {
        Self { messages: 0, raw_bytes: 0, keys: 0, more: false, until: Instant::now() }
    }

    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// The time of the kind under way is up, and it isn't through.
    pub(super) fn is_up(&mut self) -> bool {
        let up = Instant::now() >= self.until;
        self.more |= up;
        up
    }
}

impl Retention {
    /// `own`: the first segment that this process writes.
    pub(super) fn new(connection: &Connection, own: i64) -> Result<Self, StoreError> {
        let (records, wall) = (Walked::default(), Wall::load(connection)?);
        Ok(Self { wall, clearing: Clearing::new(own), records, log: 0 })
    }
}

/// A transaction that is undone unless it is committed.
pub(super) fn begin(connection: &Connection) -> Result<Transaction<'_>, StoreError> {
    Ok(Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?)
}

impl Writer {
    /// One step; true: more is left.
    pub(super) fn retain(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        let by_age: &[Part] = match self.retention.wall.look(now) {
            Look::Held(told) => {
                if let Some(event) = told {
                    self.shared.bus.publish(event);
                }
                &[]
            }
            look => {
                if look == Look::SetBack {
                    self.retention.records = Walked::default();
                    self.retention.clearing.look_at_all();
                }
                &[Self::retain_keys, Self::retain_log, Self::retain_records, Self::clear_segments, Self::unlink_leaving]
            }
        };
        let mut step = Step::new();
        let mut failed = None;
        for part in by_age.iter().chain(&[Self::bring_near as Part]) {
            step.until = Instant::now() + SLICE;
            if let Err(error) = self.guarded(|writer| part(writer, now, &mut step)) {
                self.retention.clearing.abandon();
                failed = Some(error);
            }
        }
        if step.messages + step.raw_bytes + step.keys > 0 {
            let Step { messages, raw_bytes, keys, .. } = step;
            self.shared.bus.publish(Event::new(now, Kind::Retention { messages, raw_bytes, keys }));
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if !step.more {
            self.guarded(|writer| {
                writer.connection()?;
                let Some(connection) = &writer.connection else { return Ok(()) };
                writer.retention.wall.keep(connection)
            })?;
        }
        Ok(step.more)
    }

    fn retain_keys(&mut self, now: Timestamp, step: &mut Step) -> Result<(), StoreError> {
        let transaction = begin(self.connection()?)?;
        loop {
            let gone = transaction.prepare_cached(EXPIRED_KEYS)?.execute(params![now.as_millis(), BATCH])?;
            step.keys += gone as u64;
            if gone < BATCH as usize || step.is_up() {
                return Ok(transaction.commit()?);
            }
        }
    }

    /// By its age, then by its length. What a clock that was ahead has written would never grow old: it begins now.
    fn retain_log(&mut self, now: Timestamp, step: &mut Step) -> Result<(), StoreError> {
        let oldest = now.minus(self.options.log_retention).as_millis();
        let ahead = now.plus(LOOK_AGAIN.0).as_millis();
        let mut after = self.retention.log;
        self.connection()?;
        let Some(connection) = &self.connection else { return Err(StoreError::Closed) };
        let transaction = begin(connection)?;
        loop {
            let rows = log_after(&transaction, after)?;
            let mut changed = 0;
            for (id, at) in &rows {
                changed += match at {
                    Some(at) if *at < oldest => transaction.prepare_cached(DELETE_LOG)?.execute([id])?,
                    Some(at) if *at <= ahead => 0,
                    _ => transaction.prepare_cached(DATE_LOG)?.execute(params![id, now.as_millis()])?,
                };
            }
            after = rows.last().filter(|_| rows.len() == BATCH as usize && changed > 0).map_or(0, |(id, _)| *id);
            if after == 0 || step.is_up() {
                break;
            }
        }
        let newest: Option<i64> = transaction.prepare_cached(NEWEST_LOG)?.query_row([], |row| row.get(0))?;
        let last = newest.unwrap_or(0).saturating_sub(LOG_ROWS);
        while transaction.prepare_cached(EXCESS_LOG)?.execute(params![last, BATCH])? == BATCH as usize && !step.is_up()
        {
        }
        transaction.commit()?;
        self.retention.log = after;
        Ok(())
    }

    fn retain_records(&mut self, now: Timestamp, step: &mut Step) -> Result<(), StoreError> {
        let oldest = MessageId::floor(now.minus(self.options.log_retention)).to_bytes();
        let Walked { mut after, mut again } = std::mem::take(&mut self.retention.records);
        if again.is_some_and(|again| now >= again) {
            (after, again) = ([0; 16], None);
        }
        let (mut dead, mut touched) = (0, BTreeSet::new());
        self.connection()?;
        let Some(connection) = &self.connection else { return Err(StoreError::Closed) };
        let transaction = begin(connection)?;
        loop {
            let records = old_records(&transaction, after, oldest, now)?;
            for (id, may_go, keep_until) in &records {
                if *may_go {
                    transaction.prepare_cached(DELETE_TRACE)?.execute([id])?;
                    dead += transaction.prepare_cached(DELETE_DELIVERIES)?.execute([id])?;
                    let mut delete = transaction.prepare_cached(DELETE_MESSAGE)?;
                    touched.extend(delete.query_row([id], |row| Ok(row.get::<_, i64>(0).ok()))?);
                    step.messages += 1;
                } else {
                    let (soonest, latest) = (now.plus(LOOK_AGAIN.0), now.plus(LOOK_AGAIN.1));
                    let due = keep_until.unwrap_or(latest).clamp(soonest, latest);
                    again = Some(again.map_or(due, |again| again.min(due)));
                }
                after = *id;
            }
            if records.len() < BATCH as usize || step.is_up() {
                break;
            }
        }
        for segment in touched {
            if !orphans::is_named(&transaction, segment)? {
                orphans::note_emptied(&transaction, segment)?;
                self.spool.leave(segment);
                self.retention.clearing.leave(segment);
            }
        }
        transaction.commit()?;
        self.retention.records = Walked { after, again };
        self.shared.tally.add(0, -i64::try_from(dead).unwrap_or(0));
        Ok(())
    }

    /// A delivery that was put off by a clock that was ahead doesn't wait until that time comes.
    fn bring_near(&mut self, now: Timestamp, step: &mut Step) -> Result<(), StoreError> {
        let longest = LONGEST_WAIT.max(Duration::from_secs(self.shared.tally.longest_wait.load(Ordering::Relaxed)));
        let furthest = now.plus(longest).as_millis();
        let connection = self.connection()?;
        let mut moved = 0;
        loop {
            let count = connection.prepare_cached(BRING_NEAR)?.execute(params![furthest, now.as_millis(), BATCH])?;
            moved += count;
            if count < BATCH as usize || step.is_up() {
                break;
            }
        }
        if moved > 0 {
            self.shared.claims.start_over();
        }
        Ok(())
    }
}

fn log_after(connection: &Connection, after: i64) -> Result<Vec<(i64, Option<i64>)>, StoreError> {
    let mut statement = connection.prepare_cached(OLDEST_LOG)?;
    let rows = statement.query_map(params![after, BATCH], |row| Ok((row.get(0)?, row.get(1).ok())))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

type OldRecord = ([u8; 16], bool, Option<Timestamp>);

fn old_records(
    connection: &Connection,
    after: [u8; 16],
    before: [u8; 16],
    now: Timestamp,
) -> Result<Vec<OldRecord>, StoreError> {
    let mut statement = connection.prepare_cached(OLD_RECORDS)?;
    let rows = statement.query_map(params![after, before, now.as_millis(), BATCH], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
