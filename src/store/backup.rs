//! A copy of a running store, as of one moment, that opens by itself.
//!
//! The database is copied first, from one read transaction; then each segment up to the last octet that a row of the
//! copy names: rows never name octets that aren't there, since octets are durable before their rows.
//! Segments are immutable but for their growing end, and retention unlinks none while a backup runs.
//!
//! **Invariant**: the database bears its name only once all of the copy is durable. What fails leaves nothing behind;
//! what is killed leaves `mailworker.db.partial`, which nobody takes for a store.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

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

/// What the copy's database is called until it is whole.
fn partial(into: &Path) -> PathBuf {
    into.join("mailworker.db.partial")
}

/// # Errors
/// `Unusable` where a backup has begun in this directory and didn't come to its end.
pub(super) fn refuse_unfinished(data_dir: &Path) -> Result<(), StoreError> {
    if !partial(data_dir).exists() {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "{} is a backup that didn't come to its end: delete it, and restore one that did",
        data_dir.display()
    )))
}

/// One at a time.
pub(super) fn backup(reader: &Reader, backups: &Backups, into: &Path) -> Result<(), StoreError> {
    let _running = backups.begin();
    copy(reader, into).map_err(|error| match error {
        StoreError::Full(text) => StoreError::Unusable(format!("{} has no room for it: {text}", into.display())),
        other => other,
    })
}

fn copy(reader: &Reader, into: &Path) -> Result<(), StoreError> {
    refuse_filled(into)?;
    let mut target =
        Target { into: into.to_owned(), made: directory::prepare_one(into)?, files: Vec::new(), whole: false };
    let (unfinished, spool) = (partial(into), directory::spool(into));
    target.create(unfinished.clone())?;
    directory::prepare_one(&spool)?;
    for (segment, end) in copy_database(reader, &unfinished)? {
        target.copy_segment(reader.data_dir(), segment, end)?;
    }
    let failed = |e: std::io::Error| StoreError::io(&format!("sync {}", unfinished.display()), &e);
    File::open(&unfinished).and_then(|file| file.sync_all()).map_err(failed)?;
    directory::sync(&spool)?;
    directory::sync(into)?;
    std::fs::rename(&unfinished, directory::database(into)).map_err(failed)?;
    target.whole = true;
    directory::sync(into)
}

/// Before anything in it is touched.
fn refuse_filled(into: &Path) -> Result<(), StoreError> {
    let why = match std::fs::read_dir(into).map(|mut entries| entries.next().is_some()) {
        Ok(true) => "isn't empty",
        Err(error) if error.kind() == ErrorKind::NotADirectory => "is no directory",
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(StoreError::io(&format!("read {}", into.display()), &error));
        }
        _ => return Ok(()),
    };
    Err(StoreError::Unusable(format!("{} {why}: a backup goes into a new directory", into.display())))
}

/// What has been made of the copy; dropped before it is whole, all of that goes.
struct Target {
    into: PathBuf,
    made: bool,
    files: Vec<PathBuf>,
    whole: bool,
}

impl Target {
    fn create(&mut self, path: PathBuf) -> Result<File, StoreError> {
        let file = directory::create_alone(&path);
        let file = file.map_err(|e| StoreError::io(&format!("create {}", path.display()), &e))?;
        self.files.push(path);
        Ok(file)
    }

    fn copy_segment(&mut self, from: &Path, segment: i64, end: u64) -> Result<(), StoreError> {
        let name = spool::file_name(segment);
        let failed = |e: std::io::Error| StoreError::io(&format!("copy spool/{name}"), &e);
        let source = File::open(directory::spool(from).join(&name)).map_err(failed)?;
        let mut target = self.create(directory::spool(&self.into).join(&name))?;
        let copied = std::io::copy(&mut source.take(end), &mut target).map_err(failed)?;
        if copied < end {
            return Err(StoreError::Failed(format!(
                "spool/{name} ends after {copied} octets, and rows name {end}: look at it with `mailworker store check`"
            )));
        }
        target.sync_all().map_err(failed)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.whole {
            return;
        }
        // The database last: while something is left, it is told for what it is. What SQLite keeps beside it goes too.
        let beside = partial(&self.into).with_extension("partial-journal");
        for path in self.files.iter().rev().chain([&beside]) {
            let _best_effort = std::fs::remove_file(path);
        }
        let _best_effort = std::fs::remove_dir(directory::spool(&self.into));
        if self.made {
            let _best_effort = std::fs::remove_dir(&self.into);
        }
    }
}

/// Copies it as of one moment; each segment that a row of the copy names, and one past the last octet named.
fn copy_database(reader: &Reader, unfinished: &Path) -> Result<Vec<(i64, u64)>, StoreError> {
    // Nobody else knows of it, so it needs no locks, which the file system of a backup may not have.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut target = Connection::open_with_flags_and_vfs(unfinished, flags, c"unix-none")?;
    target.pragma_update(None, "locking_mode", "exclusive")?;
    reader.at_once(|source| {
        let copying = Backup::new(source, &mut target)?;
        match copying.step(-1)? {
            StepResult::Done => Ok(()),
            other => Err(StoreError::Failed(format!("the database can't be copied: {other:?}"))),
        }
    })?;
    // Without a WAL it can be read where nothing can be written.
    let mode: String = target.pragma_update_and_check(None, "journal_mode", "delete", |row| row.get(0))?;
    if mode != "delete" {
        return Err(StoreError::Failed(format!("the copy stays in journal mode {mode}")));
    }
    let named = named(&target)?;
    target.close().map_err(|(_, error)| error)?;
    Ok(named)
}

fn named(connection: &Connection) -> Result<Vec<(i64, u64)>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT segment, max(start + ?1 + head_size + size) FROM messages WHERE segment IS NOT NULL GROUP BY segment",
    )?;
    let header = i64::try_from(spool::HEADER).unwrap_or(i64::MAX);
    let rows = statement.query_map([header], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
