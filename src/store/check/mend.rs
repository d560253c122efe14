//! The repair: carries out the remedies of a check, under the store's lock.
//!
//! What is taken away is durable in the quarantine before the transaction that takes it away; octets are durable in
//! their new segment before the rows that name them. A repair that is killed halfway is simply begun again.
//! A message that loses its octets keeps its record; where they lay is written down, should they turn up again.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use super::super::clearing::MOVE;
use super::super::orphans;
use super::super::raw::Gate;
use super::super::spool::{self, HEADER, Numbers, Place, Proved, Spool, Unreadable};
use super::super::{apply, migrate};
use super::Remedy;
use super::quarantine::Quarantine;
use super::rebuild;
use crate::event::{Event, Kind};
use crate::mail::{MessageId, Timestamp};
use crate::store::{StoreError, directory};

pub(in crate::store) const RECORDS: &str =
    "SELECT id, start, head_size, size FROM messages WHERE segment = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
pub(in crate::store) const LOSE: &str = "UPDATE messages SET segment = NULL WHERE id = ?1";

const KEEP_PLACE: &str = "SELECT * FROM messages WHERE id = ?1";

/// Rows that are changed in one transaction.
const ROWS: usize = 500;
/// Records that move in one transaction, and octets of theirs.
const STEP: i64 = 200;
const STEP_OCTETS: i64 = 16 << 20;
/// Grows past no size: what is salvaged lies in one segment.
const SEGMENT_SIZE: u64 = 64 << 20;

struct Mending<'a> {
    connection: Connection,
    spool: Spool,
    quarantine: &'a mut Quarantine,
    now: Timestamp,
}

/// Carries out every remedy.
pub(super) fn mend(
    data_dir: &Path,
    remedies: &[Remedy],
    quarantine: &mut Quarantine,
    now: Timestamp,
) -> Result<(), StoreError> {
    if remedies.contains(&Remedy::Rebuild) {
        // All else was found by what is about to be made anew.
        return rebuild::rebuild(data_dir, quarantine);
    }
    let connection = migrate::open_writer(&directory::database(data_dir))?;
    if remedies.contains(&Remedy::Reindex) {
        return match connection.execute_batch("REINDEX") {
            Err(error) if rebuild::is_damage(&error) => {
                drop(connection);
                rebuild::rebuild(data_dir, quarantine)
            }
            done => Ok(done?),
        };
    }
    let spool_dir = directory::spool(data_dir);
    let next = orphans::next_segment(&connection, data_dir)?;
    // Before any row forgets which segment it lay in; the table may be what is to be mended.
    let _best_effort = orphans::note_segment(&connection, next.saturating_sub(1));
    let spool = Spool::new(spool_dir, SEGMENT_SIZE, Numbers::new(next));
    let mut mending = Mending { connection, spool, quarantine, now };
    let mut salvaged = BTreeSet::new();
    let is_row = |remedy: &Remedy| matches!(remedy, Remedy::Row { .. });
    for alike in remedies.chunk_by(|one, next| is_row(one) && is_row(next)) {
        match alike.first() {
            Some(Remedy::Row { .. }) => alike.chunks(ROWS).try_for_each(|some| mending.rows(some))?,
            Some(Remedy::Schema { drop, create }) => mending.schema(drop.as_deref(), create)?,
            Some(Remedy::Salvage(segment)) if salvaged.insert(*segment) => mending.salvage(*segment)?,
            Some(Remedy::PutAside(segment)) => mending.quarantine.keep_segment(*segment)?,
            _ => {}
        }
    }
    mending.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}

impl Mending<'_> {
    fn schema(&mut self, drop: Option<&str>, create: &str) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        if let Some(drop) = drop {
            transaction.execute_batch(drop)?;
        }
        transaction.execute_batch(create)?;
        Ok(transaction.commit()?)
    }

    /// As they were they are in the quarantine, durably, before any of them is changed.
    fn rows(&mut self, remedies: &[Remedy]) -> Result<(), StoreError> {
        for remedy in remedies {
            if let Remedy::Row { keep: Some(select), key, .. } = remedy {
                self.quarantine.note_rows(&self.connection, select, key)?;
            }
        }
        self.quarantine.keep_notes()?;
        let transaction = self.connection.transaction()?;
        for remedy in remedies {
            if let Remedy::Row { change, key, more, .. } = remedy {
                transaction.prepare_cached(change)?.execute(params_from_iter(key.iter().chain(more)))?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Empties a segment: what is whole moves on, what is damaged loses its octets, the file is put aside.
    fn salvage(&mut self, segment: i64) -> Result<(), StoreError> {
        let path = self.spool.directory().join(spool::file_name(segment));
        let file = match File::open(&path) {
            Ok(file) => Some(Arc::new(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(StoreError::io(&format!("read {}", path.display()), &error)),
        };
        let mut after = [0; 16];
        loop {
            let records = self.records(segment, after)?;
            let Some((last, _)) = records.last() else { break };
            after = last.to_bytes();
            self.move_on(file.as_ref(), &records)?;
        }
        if file.is_some() { self.quarantine.keep_segment(segment) } else { Ok(()) }
    }

    fn records(&self, segment: i64, after: [u8; 16]) -> Result<Vec<(MessageId, Place)>, StoreError> {
        let mut statement = self.connection.prepare_cached(RECORDS)?;
        let mut rows = statement.query(params![segment, after, STEP])?;
        let (mut records, mut octets) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let place = Place { segment, start: row.get(1)?, head_size: row.get(2)?, size: row.get(3)? };
            octets += place.head_size.saturating_add(place.size);
            records.push((MessageId::from_bytes(row.get(0)?), place));
            if octets >= STEP_OCTETS {
                break;
            }
        }
        Ok(records)
    }

    fn move_on(&mut self, file: Option<&Arc<File>>, records: &[(MessageId, Place)]) -> Result<(), StoreError> {
        let (mut whole, mut lost) = (Vec::new(), Vec::new());
        for (id, place) in records {
            let read = file.map_or(Err(Unreadable::Missing), |file| spool::read(file, *id, *place, &Gate::default()));
            match read {
                Ok((head, raw)) => whole.push(Proved { id: *id, place: *place, head, raw }),
                Err(Unreadable::Io(error)) => return Err(StoreError::io("read a segment", &error)),
                Err(Unreadable::Missing) => lost.push((*id, "its segment is missing".to_owned())),
                Err(Unreadable::Damaged(what)) => {
                    if let Some(file) = file {
                        self.quarantine.keep_octets(*id, &remains(file, *place))?;
                    }
                    lost.push((*id, what));
                }
            }
        }
        let moved = match file {
            Some(file) => self.spool.take_over(file, &whole)?.moved,
            None => Vec::new(),
        };
        for (id, _) in &lost {
            self.quarantine.note_rows(&self.connection, KEEP_PLACE, &[Value::Blob(id.to_bytes().to_vec())])?;
        }
        self.quarantine.keep_notes()?;
        let transaction = self.connection.transaction()?;
        for (id, place) in moved {
            transaction.prepare_cached(MOVE)?.execute(params![id.to_bytes(), place.segment, place.start])?;
        }
        for (id, detail) in lost {
            transaction.prepare_cached(LOSE)?.execute([id.to_bytes()])?;
            let what = "the octets of this message are lost".to_owned();
            apply::trace(&transaction, id, &[Event::new(self.now, Kind::Fault { what, detail }).of(id)])?;
        }
        Ok(transaction.commit()?)
    }
}

/// The octets behind the record's header, as far as the file goes.
fn remains(file: &File, place: Place) -> Vec<u8> {
    let Ok(start) = u64::try_from(place.start) else { return Vec::new() };
    let from = start.saturating_add(HEADER as u64);
    let there = file.metadata().map_or(0, |metadata| metadata.len()).saturating_sub(from);
    let content = u64::try_from(place.head_size.saturating_add(place.size)).unwrap_or(0).min(there);
    let mut octets = vec![0; usize::try_from(content).unwrap_or(0)];
    // What can't be read now stays in the segment, which is put aside whole.
    if file.read_exact_at(&mut octets, from).is_ok() { octets } else { Vec::new() }
}
