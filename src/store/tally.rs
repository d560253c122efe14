//! What is counted in memory so that metrics and /readyz cost nothing: the queue, the bytes, the room left.
//!
//! Counted once at opening, then kept by the writer as it commits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::StoreError;
use crate::mail::{MessageId, Timestamp};

/// How long a message is remembered whose 250 may not have been read (RFC 1047).
pub(super) const RECENT: Duration = Duration::from_hours(1);
/// How many.
pub(super) const MAX_RECENT: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub queued: AtomicI64,
    pub dead: AtomicI64,
    /// Octets of all segments.
    pub spool_bytes: AtomicU64,
    /// The disk has less free than it should.
    pub low: AtomicBool,
    /// Syncs of segments and commits, for the benchmark.
    pub syncs: AtomicU64,
    /// An admin's «now».
    pub retries: AtomicU64,
    /// Log events that were too many.
    pub dropped_logs: AtomicU64,
}

impl Tally {
    pub(super) fn count(&self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare("SELECT state, count(*) FROM deliveries GROUP BY state")?;
        let mut rows = statement.query([])?;
        self.queued.store(0, Ordering::Relaxed);
        self.dead.store(0, Ordering::Relaxed);
        while let Some(row) = rows.next()? {
            let count = if row.get::<_, i64>(0)? == 0 { &self.queued } else { &self.dead };
            count.store(row.get(1)?, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What an abandoned segment holds was never counted.
    pub(super) fn forget_octets(&self, octets: u64) {
        self.spool_bytes.update(Ordering::Relaxed, Ordering::Relaxed, |counted| counted.saturating_sub(octets));
    }

    pub(super) fn add(&self, queued: i64, dead: i64) {
        self.queued.fetch_add(queued, Ordering::Relaxed);
        self.dead.fetch_add(dead, Ordering::Relaxed);
    }
}

/// Messages whose 250 may not have been read, by fingerprint.
#[derive(Debug, Default)]
pub(super) struct Recent {
    seen: Mutex<HashMap<[u8; 16], MessageId>>,
}

impl Recent {
    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 16], MessageId>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of the last hour before a restart.
    pub(super) fn fill(&self, connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
        let mut statement = connection.prepare(RECENT_MESSAGES)?;
        let from = MessageId::floor(now.minus(RECENT)).to_bytes();
        let limit = i64::try_from(MAX_RECENT).unwrap_or(i64::MAX);
        let mut rows = statement.query(rusqlite::params![from, limit])?;
        let mut seen = self.seen();
        while let Some(row) = rows.next()? {
            if let (Ok(id), Ok(fingerprint)) = (row.get(0), row.get(1)) {
                seen.entry(fingerprint).or_insert(MessageId::from_bytes(id));
            }
        }
        Ok(())
    }

    pub(super) fn insert(&self, fingerprint: [u8; 16], id: MessageId, now: Timestamp) {
        let mut seen = self.seen();
        if seen.len() >= MAX_RECENT {
            let oldest = now.minus(RECENT);
            seen.retain(|_, id| id.timestamp() >= oldest);
            if seen.len() >= MAX_RECENT {
                // All of this hour: a resend is told a little less often, and memory stays bounded.
                seen.clear();
            }
        }
        seen.insert(fingerprint, id);
    }

    pub(super) fn get(&self, fingerprint: &[u8; 16], now: Timestamp) -> Option<MessageId> {
        let found = self.seen().get(fingerprint).copied();
        found.filter(|id| id.timestamp() >= now.minus(RECENT))
    }

    pub(super) fn remove(&self, fingerprint: &[u8; 16]) {
        self.seen().remove(fingerprint);
    }
}

pub(super) const RECENT_MESSAGES: &str =
    "SELECT id, fingerprint FROM messages WHERE id >= ?1 AND outcome IN (0, 1, 2) ORDER BY id DESC LIMIT ?2";
