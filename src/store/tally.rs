//! What is counted in memory so that metrics and /readyz cost nothing: the queue, the bytes, the room left.
//!
//! Counted once at opening, then kept by the writer as it commits.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use rusqlite::Connection;

use super::StoreError;

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
    /// Seconds that the longest wait of a schedule lasts, as far as it was told.
    pub longest_wait: AtomicU64,
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
            // What has no state that is one is not handed out: it waits for a person, like the dead.
            let count = if row.get::<_, i64>(0) == Ok(0) { &self.queued } else { &self.dead };
            count.fetch_add(row.get(1)?, Ordering::Relaxed);
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
