//! A copy of a running store, as of one moment, that opens by itself.
//!
//! The database is copied first, from one read transaction; then each segment up to the last octet that a row of the
//! copy names: rows never name octets that aren't there, since octets are durable before their rows.
//! Segments are immutable but for their growing end, and retention unlinks none while a backup runs.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::readers::Reader;
use super::{StoreError, directory, spool};

/// Keeps retention from unlinking segments that a backup is copying.
#[derive(Debug, Default)]
pub(super) struct Backups {
    reading: Mutex<()>,
}

impl Backups {
    fn begin(&self) -> MutexGuard<'_, ()> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while a backup runs.
    pub(super) fn try_delete(&self) -> Option<MutexGuard<'_, ()>> {
        match self.reading.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// One at a time.
pub(super) fn backup(reader: &Reader, backups: &Backups, into: &Path) -> Result<(), StoreError> {
    let _running = backups.begin();
    directory::prepare(into)?;
    let left_over = std::fs::read_dir(into)
        .map_err(|e| StoreError::io(&format!("read {}", into.display()), &e))?
        .filter_map(Result::ok)
        .any(|entry| entry.file_name() != "spool");
    if left_over || !spool::segments(&directory::spool(into))?.is_empty() {
        return Err(StoreError::Unusable(format!(
            "{} isn't empty: a backup goes into a new directory",
            into.display()
        )));
    }
    let copy = directory::database(into);
    directory::create(&copy).map_err(|e| StoreError::io(&format!("create {}", copy.display()), &e))?;
    let mut target = Connection::open(&copy)?;
    reader.at_once(|source| copy_database(source, &mut target))?;
    for (segment, end) in named(&target)? {
        copy_segment(reader.data_dir(), into, segment, end)?;
    }
    target.close().map_err(|(_, error)| error)?;
    File::open(&copy)
        .and_then(|file| file.sync_all())
        .map_err(|e| StoreError::io(&format!("sync {}", copy.display()), &e))?;
    directory::sync(&directory::spool(into))?;
    directory::sync(into)
}

fn copy_database(source: &Connection, target: &mut Connection) -> Result<(), StoreError> {
    let copying = Backup::new(source, target)?;
    match copying.step(-1)? {
        StepResult::Done => Ok(()),
        other => Err(StoreError::Failed(format!("the database can't be copied: {other:?}"))),
    }
}

/// Each segment that a row names, and one past the last octet named.
fn named(connection: &Connection) -> Result<Vec<(i64, u64)>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT segment, max(start + ?1 + head_size + size) FROM messages WHERE segment IS NOT NULL GROUP BY segment",
    )?;
    let header = i64::try_from(spool::HEADER).unwrap_or(i64::MAX);
    let rows = statement.query_map([header], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn copy_segment(from: &Path, into: &Path, segment: i64, end: u64) -> Result<(), StoreError> {
    let name = spool::file_name(segment);
    let failed = |e: std::io::Error| StoreError::io(&format!("copy spool/{name}"), &e);
    let source = File::open(directory::spool(from).join(&name)).map_err(failed)?;
    let mut target = directory::create(&directory::spool(into).join(&name)).map_err(failed)?;
    let copied = std::io::copy(&mut source.take(end), &mut target).map_err(failed)?;
    if copied < end {
        return Err(StoreError::Failed(format!(
            "spool/{name} ends after {copied} octets, and rows name {end}: look at it with `mailworker store check`"
        )));
    }
    target.sync_all().map_err(failed)
}
