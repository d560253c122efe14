//! Moves what is committed from the WAL into the database, and says so where that fails or somebody keeps it from being.
//!
//! SQLite does it by itself at a commit, and keeps an error to itself: the WAL would grow until the disk is full, and
//! nobody would know why. So it is done here, after the group's answers.

use std::cell::Cell;
use std::ffi::c_int;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::Writer;
use crate::clock;
use crate::event::{Event, Kind};
use crate::mail::Timestamp;

/// Pages of the WAL from which on it is moved (32 MiB), and how many more there are before it is tried again.
const PAGES: i64 = 4000;
const MORE: i64 = 1000;
/// A failure is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// Size of a page as every store has it.
const PAGE: i64 = 8192;
/// Pages from which on it is told that the WAL grows (256 MiB); and again whenever they have doubled.
const LONG: i64 = 32_768;

/// Where the index of the WAL, `mailworker.db-shm`, is locked by who reads in the WAL (SQLite's file format, §2.3.4):
/// while one of these is held, the WAL can't be begun again.
const READERS: std::ops::RangeInclusive<u64> = 124..=127;

thread_local! {
    /// What the writer's last commit has left in the WAL.
    static WAL_PAGES: Cell<c_int> = const { Cell::new(0) };
}

/// From now on the pages of the WAL are counted, and SQLite moves none by itself.
pub(super) fn count(connection: &Connection) -> Result<(), rusqlite::Error> {
    WAL_PAGES.set(0);
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.wal_hook(Some(|_, pages| {
        WAL_PAGES.set(pages);
        Ok(())
    }));
    Ok(())
}

/// How the last attempts ended.
#[derive(Debug)]
pub(super) struct Wal {
    /// Pages from which on it is moved.
    pub bound: i64,
    /// Pages from which on its growth is told.
    pub long: i64,
    tried: i64,
    failed: Option<Timestamp>,
}

impl Default for Wal {
    fn default() -> Self {
        Self { bound: PAGES, long: LONG, tried: 0, failed: None }
    }
}

impl Wal {
    fn is_due(&mut self, pages: i64, now: Timestamp) -> bool {
        if pages < self.tried {
            // It was begun again.
            (self.tried, self.long) = (0, self.long.min(LONG));
        }
        match self.failed {
            Some(failed) => now.since(failed) >= AGAIN || now < failed,
            None => pages >= self.bound && pages >= self.tried.saturating_add(if self.tried > 0 { MORE } else { 0 }),
        }
    }

    /// What is to be told of an attempt: an error once until all is well again, growth whenever it has doubled.
    fn tried(
        &mut self,
        pages: i64,
        error: Option<String>,
        now: Timestamp,
        reader: impl Fn() -> String,
    ) -> Option<Kind> {
        self.tried = pages;
        let size = format!("{} MiB wait in mailworker.db-wal", pages.saturating_mul(PAGE) >> 20);
        if let Some(error) = error {
            let news = self.failed.replace(now).is_none();
            let what = "the database can't take in what was committed".to_owned();
            return news.then(|| Kind::Fault { what, detail: format!("{error}; {size}") });
        }
        self.failed = None;
        if pages < self.long {
            return None;
        }
        self.long = pages.saturating_mul(2);
        let detail = format!("{size}: {} reads the database, and it can't be begun again before that ends", reader());
        Some(Kind::Fault { what: "the WAL of the database grows".to_owned(), detail })
    }
}

impl Writer {
    /// Where enough waits in the WAL.
    pub(super) fn checkpoint(&mut self) {
        let (now, pages) = (clock::now(), i64::from(WAL_PAGES.get()));
        let Some(connection) = &self.connection else { return };
        if !self.wal.is_due(pages, now) {
            return;
        }
        let moved = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        let error = moved.err().map(|error| error.to_string());
        let path = &self.path;
        if let Some(fault) = self.wal.tried(pages, error, now, || reader(path)) {
            self.shared.bus.publish(Event::new(now, fault));
        }
    }
}

/// Who reads in the WAL, as far as the system tells.
fn reader(database: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let Ok(index) = database.with_extension("db-shm").metadata() else { return "another process".to_owned() };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    match locks.lines().find_map(|line| holder(line, index.ino())) {
        Some(pid) if pid == std::process::id() => "this server itself (a backup, or a long query)".to_owned(),
        Some(pid) => {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({})", name.trim())
        }
        None => "another process".to_owned(),
    }
}

/// A line of `/proc/locks`: the process, where it holds a reader's lock on this file.
fn holder(line: &str, inode: u64) -> Option<u32> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "POSIX", _, "READ", pid, file, first, last] = fields.as_slice() else { return None };
    let named = file.rsplit(':').next()?.parse::<u64>().ok()?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (named == inode && first <= *READERS.end() && last >= *READERS.start()).then(|| pid.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_once_until_all_is_well_again_and_tried_every_second() {
        let (mut wal, now) = (Wal::default(), Timestamp::from_millis(1_000_000));
        assert!(!wal.is_due(PAGES - 1, now) && wal.is_due(PAGES, now));
        let fail = |wal: &mut Wal, now| wal.tried(PAGES, Some("disk I/O error".to_owned()), now, String::new);
        assert!(matches!(fail(&mut wal, now), Some(Kind::Fault { detail, .. }) if detail.contains("31 MiB")));
        assert!(!wal.is_due(PAGES, now) && wal.is_due(PAGES, now.plus(AGAIN)));
        assert_eq!(fail(&mut wal, now.plus(AGAIN)), None);
        assert_eq!(wal.tried(PAGES, None, now, String::new), None);
        assert!(!wal.is_due(PAGES + MORE - 1, now) && wal.is_due(PAGES + MORE, now));
        assert!(fail(&mut wal, now).is_some());
    }

    #[test]
    fn growth_is_told_whenever_it_has_doubled() {
        let (mut wal, now) = (Wal::default(), Timestamp::from_millis(1_000_000));
        let mut told = |pages| wal.tried(pages, None, now, || "process 7 (sqlite3)".to_owned());
        assert_eq!(told(LONG - 1), None);
        assert!(
            matches!(told(LONG), Some(Kind::Fault { detail, .. }) if detail.contains("256 MiB wait") && detail.contains("process 7"))
        );
        assert_eq!(told(LONG + MORE), None);
        assert!(told(2 * LONG).is_some());
        assert!(!wal.is_due(1, now));
        assert!(wal.tried(LONG, None, now, String::new).is_some(), "from the beginning when it was begun again");
    }

    #[test]
    fn a_reader_is_known_by_its_lock() {
        let line = |kind: &str, range: &str| format!("7: POSIX  ADVISORY  {kind} 4711 fe:00:99 {range}");
        assert_eq!(holder(&line("READ", "124 124"), 99), Some(4711));
        assert_eq!(holder(&line("READ", "123 125"), 99), Some(4711));
        for (kind, range, inode) in
            [("READ", "124 124", 98), ("WRITE", "124 124", 99), ("READ", "123 123", 99), ("READ", "128 128", 99)]
        {
            assert_eq!(holder(&line(kind, range), inode), None);
        }
        assert_eq!(holder("7: -> POSIX  ADVISORY  READ 1 fe:00:99 124 124", 99), None);
        assert_eq!(holder("8: FLOCK  ADVISORY  WRITE 1 fe:00:99 0 EOF", 99), None);
    }
}
