//! Messages whose 250 may not have been read: their session ended before the client had gone on speaking (RFC 1047).
//!
//! Bounded, in memory. A clean stop writes down the few there are, so that nothing that was read is among them
//! afterwards. An unclean one can't: then all that was promised in its last moments may be one of them, for a while.
//! Must never hold what was read: a message like it would be answered and lost. A duplicate is the lesser harm.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;
use crate::mail::{MessageId, Timestamp};

/// How long a message is remembered.
const RECENT: Duration = Duration::from_hours(1);
/// How many.
const MAX_UNREAD: usize = 100_000;
/// After an unclean end: what was promised so shortly before the last of all messages, and for how long.
const LAST_MOMENTS: Duration = Duration::from_secs(30);
const AFTER_A_CRASH: Duration = Duration::from_mins(10);

/// By fingerprint.
#[derive(Debug, Default)]
pub(super) struct Unread {
    promised: Mutex<HashMap<[u8; 16], Promised>>,
}

#[derive(Debug, Clone, Copy)]
struct Promised {
    id: MessageId,
    until: Timestamp,
}

impl Unread {
    fn promised(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 16], Promised>> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, fingerprint: [u8; 16], id: MessageId, now: Timestamp) {
        let until = id.timestamp().plus(RECENT);
        if until <= now {
            return;
        }
        let mut promised = self.promised();
        if promised.len() >= MAX_UNREAD {
            promised.retain(|_, known| known.until > now);
            if promised.len() >= MAX_UNREAD {
                // All of this hour: a resend is told a little less often, and memory stays bounded.
                promised.clear();
            }
        }
        promised.insert(fingerprint, Promised { id, until });
    }

    /// The message, which is none of them from here on.
    pub(super) fn take(&self, fingerprint: &[u8; 16], now: Timestamp) -> Option<MessageId> {
        self.promised().remove(fingerprint).filter(|known| known.until > now).map(|known| known.id)
    }

    /// Those from before the store was opened.
    pub(super) fn fill(&self, connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        // What stands in a note may be damaged, which keeps no store shut.
        let closed = connection.query_row(TAKE_CLOSED, [], |_| Ok(())).optional()?;
        let found = if closed.is_some() { written_down(connection)? } else { of_the_last_moments(connection, now)? };
        connection.execute(FORGET, [])?;
        if closed.is_some() {
            // Whatever the next end is like: what is older is known already.
            connection.execute(NOTE, params![OPENED, now.as_millis()])?;
        }
        connection.execute_batch("COMMIT")?;
        self.promised().extend(found);
        Ok(())
    }

    /// Writes them down at a clean end.
    pub(super) fn keep(&self, connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for known in self.promised().values().filter(|known| known.until > now) {
            connection.prepare_cached(NOTE)?.execute(params![note_of(known.id), known.until.as_millis()])?;
        }
        connection.execute(NOTE, params![CLOSED, now.as_millis()])?;
        connection.execute_batch("COMMIT")?;
        Ok(())
    }
}

/// By the notes of a clean end. A message that retention has taken meanwhile is past its hour.
fn written_down(connection: &Connection) -> Result<Vec<([u8; 16], Promised)>, StoreError> {
    let mut statement = connection.prepare(NOTES)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let Some(id) = name.strip_prefix(PREFIX).and_then(|id| id.parse::<MessageId>().ok()) else { continue };
        let Ok(until) = row.get(1).map(Timestamp::from_millis) else { continue };
        let fingerprint = connection.prepare_cached(FINGERPRINT)?.query_row([id.to_bytes()], |row| row.get(0));
        found.extend(fingerprint.optional()?.map(|fingerprint| (fingerprint, Promised { id, until })));
    }
    Ok(found)
}

fn of_the_last_moments(connection: &Connection, now: Timestamp) -> Result<Vec<([u8; 16], Promised)>, StoreError> {
    let newest: Option<[u8; 16]> = connection.query_row(NEWEST, [], |row| row.get(0))?;
    let Some(newest) = newest.map(MessageId::from_bytes) else { return Ok(Vec::new()) };
    let opened: Option<i64> = connection.query_row(NOTED, [OPENED], |row| Ok(row.get(0).ok())).optional()?.flatten();
    let from = newest.timestamp().minus(LAST_MOMENTS).max(Timestamp::from_millis(opened.unwrap_or(0)));
    let limit = i64::try_from(MAX_UNREAD).unwrap_or(i64::MAX);
    let mut statement = connection.prepare(PROMISED)?;
    let mut rows = statement.query(params![MessageId::floor(from).to_bytes(), limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let id = MessageId::from_bytes(row.get(0)?);
        let until = id.timestamp().plus(RECENT).min(now.plus(AFTER_A_CRASH));
        found.push((row.get(1)?, Promised { id, until }));
    }
    Ok(found)
}

fn note_of(id: MessageId) -> String {
    format!("{PREFIX}{id}")
}

/// The notes stand among the counters: this prefix and a message's id, with the time until which it counts.
const PREFIX: &str = "unread ";
/// Only after a clean end, until the next opening.
const CLOSED: &str = "closed";
/// When the store was last opened after a clean end.
const OPENED: &str = "opened";

const NOTE: &str =
    "INSERT INTO counters (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
const NOTED: &str = "SELECT value FROM counters WHERE name = ?1";
const NOTES: &str = "SELECT name, value FROM counters WHERE name >= 'unread ' AND name < 'unread!'";
const FORGET: &str = "DELETE FROM counters WHERE name >= 'unread ' AND name < 'unread!'";
const TAKE_CLOSED: &str = "DELETE FROM counters WHERE name = 'closed' RETURNING value";
const FINGERPRINT: &str = "SELECT fingerprint FROM messages WHERE id = ?1";
const NEWEST: &str = "SELECT max(id) FROM messages";
const PROMISED: &str =
    "SELECT id, fingerprint FROM messages WHERE id >= ?1 AND outcome IN (0, 1, 2, 6) ORDER BY id DESC LIMIT ?2";
