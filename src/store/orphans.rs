//! Segments that no row names: proved so by their own records, then taken back, put aside or deleted.
//!
//! An index may be damaged, and a database may be older than the spool beside it (a backup that was restored, a snapshot).
//! So nothing is believed of a segment but what the rows of the messages in it say, each looked up by its id. One that
//! this store has emptied is noted as such in the transaction that lets the last of it go (`counters`), and so a later
//! start knows it for its own.
//!
//! **Invariant**: a file with a whole record in it is deleted only where this store has emptied it or has itself written
//! it in this run, and no row leads into it. All else goes to the quarantine, and the admin hears of it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::check::quarantine::{self, Quarantine};
use super::records::{Record, Records};
use super::spool::{self, MAX_SEGMENT};
use super::{StoreError, directory};
use crate::clock::Instant;
use crate::event::{Bus, Event, Kind};
use crate::mail::{MessageId, Timestamp};

pub(super) const NEWEST_OF_SEGMENT: &str = "SELECT max(id) FROM messages WHERE segment = ?1 AND length(id) = 16";
pub(super) const NAMED: &str = "SELECT EXISTS (SELECT 1 FROM messages WHERE segment = ?1)";
pub(super) const LAST_SEGMENT: &str = "SELECT segment FROM messages WHERE segment BETWEEN 0 AND ?1 \
     AND typeof(segment) = 'integer' ORDER BY segment DESC LIMIT 1";
pub(super) const HIGHEST_SEGMENT: &str =
    "SELECT value FROM counters WHERE name = 'segment' AND typeof(value) = 'integer' AND value BETWEEN 0 AND ?1";
pub(super) const NOTE_SEGMENT: &str = "INSERT INTO counters (name, value) VALUES ('segment', ?1) \
     ON CONFLICT (name) DO UPDATE SET value = iif(typeof(value) = 'integer', max(value, excluded.value), excluded.value)";
pub(super) const LEADS_THERE: &str =
    "SELECT segment = ?2, segment IS NULL AND head_size = ?3 AND size = ?4 FROM messages WHERE id = ?1";
pub(super) const TAKE_BACK: &str = "UPDATE messages SET segment = ?2, start = ?3 WHERE id = ?1 AND segment IS NULL";
pub(super) const NOTE_EMPTIED: &str = "INSERT OR IGNORE INTO counters (name, value) VALUES ('emptied ' || ?1, ?1)";
pub(super) const IS_EMPTIED: &str = "SELECT EXISTS (SELECT 1 FROM counters WHERE name = 'emptied ' || ?1)";
pub(super) const ALL_EMPTIED: &str = "SELECT value FROM counters WHERE name > 'emptied ' AND name < 'emptied!'";
pub(super) const FORGET_EMPTIED: &str = "DELETE FROM counters WHERE name = 'emptied ' || ?1";

/// Records that lost their place and are taken back in one transaction.
const STEP: usize = 500;

/// What the records of a segment come to.
#[derive(Debug)]
pub(super) enum Standing {
    /// No whole record is in it.
    Hollow,
    /// This message's row leads there, whatever the index says.
    Named(MessageId),
    /// Mail that no row leads to.
    Unnamed,
}

/// Looks up each record of a segment, some of them at a time.
#[derive(Debug)]
pub(super) struct Proof {
    pub segment: i64,
    records: Records,
    whole: bool,
    /// Records whose messages have lost their octets: these ones.
    lost: Vec<Record>,
}

impl Proof {
    pub(super) fn begin(directory: &Path, segment: i64) -> Result<Self, StoreError> {
        let path = directory.join(spool::file_name(segment));
        let records = Records::open(&path).map_err(|e| StoreError::io(&format!("read {}", path.display()), &e))?;
        Ok(Self { segment, records, whole: false, lost: Vec::new() })
    }

    /// `None` when `until` has come before the end. At least one record is looked up.
    pub(super) fn go_on(
        &mut self,
        connection: &Connection,
        until: Option<Instant>,
    ) -> Result<Option<Standing>, StoreError> {
        let failed = |e: std::io::Error| StoreError::io(&format!("read spool/{}", spool::file_name(self.segment)), &e);
        let mut statement = connection.prepare_cached(LEADS_THERE)?;
        while let Some(record) = self.records.next().map_err(failed)? {
            let key = params![record.id.to_bytes(), self.segment, record.head_size, record.size];
            let row =
                statement.query_row(key, |row| Ok((row.get::<_, Option<bool>>(0)?, row.get::<_, Option<bool>>(1)?)));
            let (named, lost) = row.optional()?.unwrap_or_default();
            if named == Some(true) {
                return Ok(Some(Standing::Named(record.id)));
            }
            if record.whole && lost == Some(true) {
                self.lost.push(record);
            }
            self.whole |= record.whole;
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(None);
            }
        }
        Ok(Some(if self.whole { Standing::Unnamed } else { Standing::Hollow }))
    }
}

/// Whether a row names it, by the index.
pub(super) fn is_named(connection: &Connection, segment: i64) -> Result<bool, StoreError> {
    Ok(connection.prepare_cached(NAMED)?.query_row([segment], |row| row.get(0))?)
}

/// Whether this store has noted that it let all of it go.
pub(super) fn is_emptied(connection: &Connection, segment: i64) -> Result<bool, StoreError> {
    Ok(connection.prepare_cached(IS_EMPTIED)?.query_row([segment], |row| row.get(0))?)
}

/// Notes it, in the transaction that lets the last of it go.
pub(super) fn note_emptied(connection: &Connection, segment: i64) -> Result<(), StoreError> {
    connection.prepare_cached(NOTE_EMPTIED)?.execute([segment])?;
    Ok(())
}

/// Its file is gone for good.
pub(super) fn forget_emptied(connection: &Connection, segment: i64) -> Result<(), StoreError> {
    connection.prepare_cached(FORGET_EMPTIED)?.execute([segment])?;
    Ok(())
}

/// A number that no segment has borne: not one that a row names or has named, nor one that is in the spool, nor one that
/// was put aside and may come back.
pub(super) fn next_segment(connection: &Connection, data_dir: &Path) -> Result<i64, StoreError> {
    let named: Option<i64> = connection.query_row(LAST_SEGMENT, [MAX_SEGMENT], |row| row.get(0)).optional()?;
    // Where the table is missing, a repair is under way that makes it anew.
    let noted = connection.query_row(HIGHEST_SEGMENT, [MAX_SEGMENT], |row| row.get::<_, i64>(0)).ok();
    let mut highest = named.max(noted).max(spool::segments(&directory::spool(data_dir))?.last().copied());
    for aside in quarantine::directories(data_dir)? {
        highest = highest.max(spool::segments(&aside)?.last().copied());
    }
    Ok(highest.unwrap_or(0).saturating_add(1))
}

/// Notes that a segment of this number is begun, in the transaction whose rows are the first to name it: while its file
/// is away, and after a repair has taken it from the rows, no other is to bear it.
pub(super) fn note_segment(connection: &Connection, segment: i64) -> Result<(), StoreError> {
    connection.prepare_cached(NOTE_SEGMENT)?.execute([segment])?;
    Ok(())
}

/// Rows that name segments of which none is there: the spool's file system isn't mounted.
pub(super) fn refuse_unmounted(connection: &Connection, directory: &Path) -> Result<(), StoreError> {
    let named: Option<i64> = connection.query_row(LAST_SEGMENT, [MAX_SEGMENT], |row| row.get(0)).optional()?;
    let Some(named) = named else { return Ok(()) };
    for segment in spool::segments(directory)? {
        if is_named(connection, segment)? {
            return Ok(());
        }
    }
    Err(StoreError::Unusable(format!(
        "{} holds none of the segments that its database names (such as {}): mount its file system or restore it from a \
         backup. To go on without that mail, run `mailworker store check --repair`.",
        directory.display(),
        spool::file_name(named)
    )))
}

/// What a start does with the segments that no row names, before the writer makes new ones.
pub(super) struct Orphans<'a> {
    pub connection: &'a Connection,
    pub data_dir: &'a Path,
    pub bus: &'a Bus,
}

impl Orphans<'_> {
    /// # Errors
    /// `Failed` where the database or the directory can't be read at all. A segment that can't be dealt with stays.
    pub(super) fn sort_out(&self, now: Timestamp) -> Result<(), StoreError> {
        let spool = directory::spool(self.data_dir);
        let segments = spool::segments(&spool)?;
        for segment in &segments {
            if !is_named(self.connection, *segment)?
                && let Err(error) = self.look_at(&spool, *segment, now)
            {
                self.tell(now, format!("spool/{} can't be looked at", spool::file_name(*segment)), error.to_string());
            }
        }
        let mut noted = self.connection.prepare(ALL_EMPTIED)?;
        let noted: Vec<i64> = noted.query_map([], |row| row.get(0))?.filter_map(Result::ok).collect();
        for gone in noted.iter().filter(|segment| !segments.contains(segment)) {
            // On a full disk at a later start.
            let _best_effort = forget_emptied(self.connection, *gone);
        }
        Ok(())
    }

    fn look_at(&self, spool: &Path, segment: i64, now: Timestamp) -> Result<(), StoreError> {
        let mut proof = Proof::begin(spool, segment)?;
        match proof.go_on(self.connection, None)? {
            None => Ok(()),
            Some(Standing::Named(id)) => {
                misled(self.bus, segment, id, now);
                Ok(())
            }
            Some(Standing::Hollow) => remove(spool, segment),
            Some(Standing::Unnamed) if is_emptied(self.connection, segment)? => remove(spool, segment),
            Some(Standing::Unnamed) if !proof.lost.is_empty() => self.take_back(segment, &proof.lost, now),
            Some(Standing::Unnamed) => put_aside(self.data_dir, self.bus, segment, now),
        }
    }

    /// Octets that were missing when the store was repaired are there again.
    fn take_back(&self, segment: i64, lost: &[Record], now: Timestamp) -> Result<(), StoreError> {
        let mut count = 0;
        for some in lost.chunks(STEP) {
            let transaction = Transaction::new_unchecked(self.connection, TransactionBehavior::Immediate)?;
            for record in some {
                let start = i64::try_from(record.start).unwrap_or(i64::MAX);
                count +=
                    transaction.prepare_cached(TAKE_BACK)?.execute(params![record.id.to_bytes(), segment, start])?;
            }
            transaction.commit()?;
        }
        let what = format!("{count} messages have their octets again, in spool/{}", spool::file_name(segment));
        let detail = "what of them was parked as dead is sent after `mailworker queue retry`".to_owned();
        self.tell(now, what, detail);
        Ok(())
    }

    fn tell(&self, now: Timestamp, what: String, detail: String) {
        self.bus.publish(Event::new(now, Kind::Fault { what, detail }));
    }
}

/// The index doesn't know of a row that is there.
pub(super) fn misled(bus: &Bus, segment: i64, id: MessageId, now: Timestamp) {
    let what = format!("an index doesn't lead to the rows that name spool/{}", spool::file_name(segment));
    let detail = "nothing of it is deleted; stop the server and run `mailworker store check --repair`".to_owned();
    bus.publish(Event::new(now, Kind::Fault { what, detail }).of(id));
}

/// Mail that the database knows nothing of goes to the quarantine.
pub(super) fn put_aside(data_dir: &Path, bus: &Bus, segment: i64, now: Timestamp) -> Result<(), StoreError> {
    let mut quarantine = Quarantine::new(data_dir, now);
    quarantine.keep_segment(segment)?;
    let what = format!("spool/{} holds mail that the database knows nothing of", spool::file_name(segment));
    let detail = format!(
        "it is in {} now. If a crash came between the mail and its row, its sender was told no 250. If the database is \
         older than the spool (a restored backup), that mail comes back when the server is stopped, the newer database put \
         back, and this file put back into spool/",
        quarantine.made().unwrap_or_default().display()
    );
    bus.publish(Event::new(now, Kind::Fault { what, detail }));
    Ok(())
}

/// Deletes a segment's file, durably, so that it isn't met again once it is forgotten.
pub(super) fn remove(spool: &Path, segment: i64) -> Result<(), StoreError> {
    let path = spool.join(spool::file_name(segment));
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io(&format!("delete {}", path.display()), &error))
        }
        _ => directory::sync(spool),
    }
}
