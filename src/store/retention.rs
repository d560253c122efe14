//! Deletes what retention no longer keeps, a bounded step at a time: expired keys, old records, whole segments.
//!
//! A record goes when it is older than the log retention and nothing of it is queued or to be kept longer.
//! Raw mail goes by whole segments, when all in one is past the raw retention: what is still needed there (a delivery
//! queued or dead, a later `keep_until`) is first copied to the current segment and its row follows, durably; only then
//! is the file unlinked. A segment with a damaged record that is still needed stays, and a Fault says so.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension, params};

use super::spool::{self, Place, Unreadable};
use super::writer::Writer;
use super::{StoreError, messages};
use crate::event::{Event, Kind};
use crate::mail::{MessageId, Timestamp};

/// Rows of each kind in one step.
const STEP: i64 = 500;
/// Octets copied in one step.
const STEP_BYTES: i64 = 16 << 20;

pub(super) const EXPIRED_KEYS: &str = "DELETE FROM kv WHERE (namespace, key) IN (SELECT namespace, key FROM kv \
     WHERE expires_at IS NOT NULL AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";
pub(super) const OLD_RECORDS: &str = "SELECT m.id, (m.keep_until IS NULL OR m.keep_until <= ?3) AND NOT EXISTS \
     (SELECT 1 FROM deliveries AS d WHERE d.message = m.id AND d.state = 0) \
     FROM messages AS m WHERE m.id > ?1 AND m.id < ?2 ORDER BY m.id LIMIT ?4";
pub(super) const DELETE_RECORD: [&str; 3] = [
    "DELETE FROM trace WHERE message = ?1",
    "DELETE FROM deliveries WHERE message = ?1",
    "DELETE FROM messages WHERE id = ?1",
];
pub(super) const OLD_LOG: &str = "DELETE FROM log WHERE id IN (SELECT id FROM log ORDER BY id LIMIT ?2) AND at < ?1";
pub(super) const NEWEST_OF_SEGMENT: &str = "SELECT max(id) FROM messages WHERE segment = ?1";
pub(super) const LAST_SEGMENT: &str = "SELECT max(segment) FROM messages WHERE segment IS NOT NULL";
pub(super) const NEEDED: &str = "SELECT m.id FROM messages AS m WHERE m.segment = ?1 AND m.id > ?2 AND \
     (m.keep_until > ?3 OR EXISTS (SELECT 1 FROM deliveries AS d WHERE d.message = m.id)) ORDER BY m.id LIMIT ?4";
pub(super) const MOVE: &str = "UPDATE messages SET segment = ?2, start = ?3 WHERE id = ?1";
pub(super) const LET_GO: &str = "UPDATE messages SET segment = NULL WHERE id IN \
     (SELECT id FROM messages WHERE segment = ?1 LIMIT ?2)";

/// Where the rounds have come to.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// Records up to here have been looked at in this round.
    records: [u8; 16],
    /// Segments that can't go: something needed in them is damaged.
    stuck: BTreeSet<i64>,
    /// Segments that no row names any more, to be unlinked when no backup reads them.
    pub doomed: BTreeSet<i64>,
}

#[derive(Debug, Default)]
struct Step {
    messages: u64,
    raw_bytes: u64,
    keys: u64,
    more: bool,
}

impl Writer {
    /// One step; true: more is left.
    pub(super) fn retain(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        let mut step = Step::default();
        self.retain_rows(now, &mut step)?;
        self.retain_raw(now, &mut step)?;
        self.unlink_doomed(&mut step)?;
        if step.messages + step.raw_bytes + step.keys > 0 {
            let Step { messages, raw_bytes, keys, .. } = step;
            self.shared.bus.publish(Event::new(now, Kind::Retention { messages, raw_bytes, keys }));
        }
        Ok(step.more)
    }

    fn retain_rows(&mut self, now: Timestamp, step: &mut Step) -> Result<(), StoreError> {
        let oldest = now.minus(self.options.log_retention);
        let from = self.retention.records;
        let connection = self.connection()?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let keys = connection.prepare_cached(EXPIRED_KEYS)?.execute(params![now.as_millis(), STEP])?;
        let logged = connection.prepare_cached(OLD_LOG)?.execute(params![oldest.as_millis(), STEP])?;
        let mut records = Vec::new();
        let mut statement = connection.prepare_cached(OLD_RECORDS)?;
        let mut rows = statement.query(params![from, MessageId::floor(oldest).to_bytes(), now.as_millis(), STEP])?;
        while let Some(row) = rows.next()? {
            records.push((row.get::<_, [u8; 16]>(0)?, row.get::<_, bool>(1)?));
        }
        drop(rows);
        drop(statement);
        let mut dead = 0;
        for (id, _) in records.iter().filter(|(_, may_go)| *may_go) {
            for (n, statement) in DELETE_RECORD.iter().enumerate() {
                let deleted = connection.prepare_cached(statement)?.execute([id])?;
                dead += if n == 1 { i64::try_from(deleted).unwrap_or(0) } else { 0 };
            }
            step.messages += 1;
        }
        connection.execute_batch("COMMIT")?;
        let full = |count: usize| i64::try_from(count).unwrap_or(0) >= STEP;
        step.keys = keys as u64;
        step.more |= full(keys) || full(logged) || full(records.len());
        // The round ends where no more are old; the next one starts over, with those that had to stay.
        self.retention.records = records.last().filter(|_| full(records.len())).map_or([0; 16], |(id, _)| *id);
        self.shared.tally.add(0, -dead);
        Ok(())
    }

    /// Works on the oldest segment that is past its time.
    fn retain_raw(&mut self, now: Timestamp, step: &mut Step) -> Result<(), StoreError> {
        let oldest = MessageId::floor(now.minus(self.options.raw_retention));
        for segment in spool::segments(self.spool.directory())? {
            let skipped = segment >= self.spool.current()
                || self.retention.stuck.contains(&segment)
                || self.retention.doomed.contains(&segment);
            if skipped {
                continue;
            }
            let connection = self.connection()?;
            let newest: Option<[u8; 16]> =
                connection.prepare_cached(NEWEST_OF_SEGMENT)?.query_row([segment], |row| row.get(0))?;
            match newest {
                None => {
                    self.retention.doomed.insert(segment);
                }
                Some(newest) if MessageId::from_bytes(newest) < oldest => {
                    self.empty_segment(segment, now)?;
                    step.more = true;
                    return Ok(());
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Moves what is needed, some of it a step; when nothing is left, lets go of the rest.
    fn empty_segment(&mut self, segment: i64, now: Timestamp) -> Result<(), StoreError> {
        let needed = self.needed(segment, now)?;
        if !needed.is_empty() {
            return match self.move_records(segment, &needed) {
                Ok(()) => Ok(()),
                Err(Stuck::Damaged(id, detail)) => {
                    self.retention.stuck.insert(segment);
                    let what =
                        format!("spool/{} can't go: a message in it is needed and damaged", spool::file_name(segment));
                    self.shared.bus.publish(Event::new(now, Kind::Fault { what, detail }).of(id));
                    Ok(())
                }
                Err(Stuck::Failed(error)) => Err(error),
            };
        }
        let connection = self.connection()?;
        connection.prepare_cached(LET_GO)?.execute(params![segment, STEP * 10])?;
        let left: Option<[u8; 16]> =
            connection.prepare_cached(NEWEST_OF_SEGMENT)?.query_row([segment], |row| row.get(0))?;
        if left.is_none() {
            self.retention.doomed.insert(segment);
        }
        Ok(())
    }

    fn needed(&mut self, segment: i64, now: Timestamp) -> Result<Vec<(MessageId, Place)>, StoreError> {
        let connection = self.connection()?;
        let mut statement = connection.prepare_cached(NEEDED)?;
        let mut rows = statement.query(params![segment, [0_u8; 16], now.as_millis(), STEP])?;
        let (mut found, mut octets) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let id = MessageId::from_bytes(row.get(0)?);
            let place = place(connection, id)?;
            octets += place.size + place.head_size;
            found.push((id, place));
            if octets >= STEP_BYTES {
                break;
            }
        }
        Ok(found)
    }

    fn move_records(&mut self, segment: i64, needed: &[(MessageId, Place)]) -> Result<(), Stuck> {
        let path = self.spool.directory().join(spool::file_name(segment));
        let file = File::open(&path).map_err(|e| Stuck::Failed(StoreError::io(&path.display().to_string(), &e)))?;
        let mut plan = self.spool.plan();
        let mut moved = Vec::with_capacity(needed.len());
        for (id, place) in needed {
            let (head, body) = spool::read(&file, *id, *place).map_err(|why| match why {
                Unreadable::Io(error) => Stuck::Failed(StoreError::io(&path.display().to_string(), &error)),
                Unreadable::Damaged(what) => Stuck::Damaged(*id, what),
                Unreadable::Missing => Stuck::Damaged(*id, "its segment is missing".to_owned()),
            })?;
            moved.push((id.to_bytes(), plan.add(*id, &head, &body)?));
        }
        // Durable before a row names it.
        let written = self.spool.write(&plan)?;
        self.shared.tally.spool_bytes.fetch_add(written, Ordering::Relaxed);
        let connection = self.connection()?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for (id, place) in moved {
            connection.prepare_cached(MOVE)?.execute(params![id, place.segment, place.start])?;
        }
        connection.execute_batch("COMMIT")?;
        Ok(())
    }

    /// Unlinks what no row names, unless a backup is reading.
    fn unlink_doomed(&mut self, step: &mut Step) -> Result<(), StoreError> {
        let Some(_no_backup) = self.shared.backups.try_delete() else { return Ok(()) };
        while let Some(segment) = self.retention.doomed.pop_first() {
            let path = self.spool.directory().join(spool::file_name(segment));
            let size = path.metadata().map_or(0, |metadata| metadata.len());
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StoreError::io(&format!("delete {}", path.display()), &error));
                }
                _ => {}
            }
            self.shared.reader.close_segment(segment);
            self.shared.tally.forget_octets(size);
            step.raw_bytes += size;
        }
        Ok(())
    }
}

fn place(connection: &Connection, id: MessageId) -> Result<Place, StoreError> {
    let place = connection.prepare_cached(messages::PLACE)?.query_row([id.to_bytes()], |row| {
        Ok(Place { segment: row.get(0)?, start: row.get(1)?, head_size: row.get(2)?, size: row.get(3)? })
    });
    place.optional()?.ok_or_else(|| messages::not_found(id))
}

enum Stuck {
    Damaged(MessageId, String),
    Failed(StoreError),
}

impl From<StoreError> for Stuck {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<rusqlite::Error> for Stuck {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Segments that no row names, left by a crash; called before the writer makes new ones.
pub(super) fn remove_orphans(connection: &Connection, directory: &std::path::Path) -> Result<(), StoreError> {
    for segment in spool::segments(directory)? {
        let newest: Option<[u8; 16]> = connection.query_row(NEWEST_OF_SEGMENT, [segment], |row| row.get(0))?;
        if newest.is_none() {
            let path = directory.join(spool::file_name(segment));
            std::fs::remove_file(&path).map_err(|e| StoreError::io(&format!("delete {}", path.display()), &e))?;
        }
    }
    Ok(())
}

/// A number that no segment has borne, going by files and rows.
pub(super) fn next_segment(connection: &Connection, directory: &std::path::Path) -> Result<i64, StoreError> {
    let named: Option<i64> = connection.query_row(LAST_SEGMENT, [], |row| row.get(0))?;
    let there = spool::segments(directory)?.last().copied();
    Ok(named.max(there).unwrap_or(0) + 1)
}
