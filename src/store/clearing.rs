//! Raw mail that is past its time goes by whole segments, some of one a step.
//!
//! Once all in a segment is past the raw retention it is surveyed: how much of it is still needed (a delivery queued or
//! dead, a later `keep_until`). Where that is more than half of the file, copying it would free little, and it stays; it
//! is looked at again after a day, or when the first of it needn't be kept longer. Otherwise what is needed is copied to a
//! segment for such mail and its row follows, durably; the other rows let go; the records prove that no row leads there;
//! only then, and when no backup reads, is the file unlinked.
//!
//! A segment in which something needed can't be read stays, a Fault says so, and the others are gone on with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::orphans::{self, NEWEST_OF_SEGMENT, Proof, Standing};
use super::retention::{Step, begin};
use super::spool::{self, HEADER, Place, Proved, Spool, Unreadable};
use super::writer::Writer;
use super::{StoreError, directory};
use crate::event::{Event, Kind};
use crate::mail::{MessageId, Timestamp};

/// Rows looked at between two looks at the time.
const PAGE: u32 = 100;
/// Octets copied in one step.
const STEP_BYTES: i64 = 2 << 20;
/// What had to stay is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_hours(24);

pub(super) const PAGE_OF_SEGMENT: &str = "SELECT m.id, m.start, m.head_size, m.size, \
     iif(typeof(m.keep_until) = 'integer', m.keep_until, NULL), coalesce(m.keep_until > ?3, FALSE) \
     OR EXISTS (SELECT 1 FROM deliveries AS d WHERE d.message = m.id) FROM messages AS m \
     WHERE m.segment = ?1 AND m.id > ?2 AND length(m.id) = 16 ORDER BY m.id LIMIT ?4";
pub(super) const MOVE: &str = "UPDATE messages SET segment = ?2, start = ?3 WHERE id = ?1";
pub(super) const LET_GO: &str = "UPDATE messages SET segment = NULL WHERE id IN \
     (SELECT m.id FROM messages AS m WHERE m.segment = ?1 AND coalesce(m.keep_until <= ?2, TRUE) \
     AND NOT EXISTS (SELECT 1 FROM deliveries AS d WHERE d.message = m.id) LIMIT ?3)";

/// Where the clearing has come to.
#[derive(Debug)]
pub(super) struct Clearing {
    /// Segments of the round under way that haven't been looked at.
    round: Option<VecDeque<i64>>,
    job: Option<Job>,
    /// Segments that had to stay, or are young: from when on they are looked at again.
    look_again: BTreeMap<i64, Timestamp>,
    /// Proved empty, to be unlinked when no backup reads them.
    leaving: BTreeSet<i64>,
    /// Segments of what has moved: it stays long, and mixed with new mail it would be moved with it again.
    moving: Option<Spool>,
    /// The first segment that this process has written.
    own: i64,
}

/// What is being done with a segment.
#[derive(Debug)]
enum Job {
    Survey { segment: i64, after: [u8; 16], needed: u64, again: Timestamp },
    Move { segment: i64, after: [u8; 16] },
    LetGo { segment: i64 },
    Prove(Proof),
}

/// A row of a segment.
struct Kept {
    id: [u8; 16],
    /// `None` where it holds no numbers.
    place: Option<Place>,
    keep_until: Option<Timestamp>,
    needed: bool,
}

impl Clearing {
    pub(super) fn new(own: i64) -> Self {
        let (look_again, leaving) = (BTreeMap::new(), BTreeSet::new());
        Self { round: None, job: None, look_again, leaving, moving: None, own }
    }

    /// What was reckoned by another clock is void.
    pub(super) fn look_at_all(&mut self) {
        self.look_again.clear();
    }

    /// After a failure nothing more is written to the segment of what has moved.
    pub(super) fn abandon(&mut self) {
        self.moving.iter_mut().for_each(Spool::abandon);
    }

    /// Nothing more is written to this one.
    pub(super) fn leave(&mut self, segment: i64) {
        self.moving.iter_mut().for_each(|moving| moving.leave(segment));
    }

    /// Whether a segment is still written to.
    fn is_open(&self, spool: &Spool, segment: i64) -> bool {
        spool.is_open(segment) || self.moving.as_ref().is_some_and(|moving| moving.is_open(segment))
    }
}

impl Writer {
    pub(super) fn clear_segments(&mut self, now: Timestamp, step: &mut Step) -> Result<(), StoreError> {
        if self.retention.clearing.round.is_none() {
            self.retention.clearing.round = Some(spool::segments(self.spool.directory())?.into());
        }
        loop {
            if let Some(job) = self.retention.clearing.job.take() {
                self.retention.clearing.job = self.go_on(job, now, step)?;
            } else {
                let next = self.retention.clearing.round.as_mut().and_then(VecDeque::pop_front);
                let Some(segment) = next else {
                    self.retention.clearing.round = None;
                    return Ok(());
                };
                self.retention.clearing.job = self.consider(segment, now)?;
            }
            if step.is_up() {
                return Ok(());
            }
        }
    }

    /// What is to be done with a segment, if anything.
    fn consider(&mut self, segment: i64, now: Timestamp) -> Result<Option<Job>, StoreError> {
        let clearing = &self.retention.clearing;
        let not_yet = clearing.look_again.get(&segment).is_some_and(|again| now < *again);
        if not_yet || clearing.leaving.contains(&segment) || clearing.is_open(&self.spool, segment) {
            return Ok(None);
        }
        let retention = self.options.raw_retention;
        let connection = self.connection()?;
        let newest: Option<[u8; 16]> =
            connection.prepare_cached(NEWEST_OF_SEGMENT)?.query_row([segment], |row| row.get(0))?;
        let Some(newest) = newest else {
            return if orphans::is_named(connection, segment)? {
                self.stays(segment, now, "a row whose id can't be read names it".to_owned(), None);
                Ok(None)
            } else {
                Ok(self.prove(segment, now))
            };
        };
        let newest = MessageId::from_bytes(newest);
        if newest < MessageId::floor(now.minus(retention)) {
            return Ok(Some(Job::Survey { segment, after: [0; 16], needed: 0, again: now.plus(LOOK_AGAIN) }));
        }
        self.retention.clearing.look_again.insert(segment, newest.timestamp().plus(retention));
        Ok(None)
    }

    fn go_on(&mut self, job: Job, now: Timestamp, step: &mut Step) -> Result<Option<Job>, StoreError> {
        match job {
            Job::Survey { segment, after, needed, again } => self.survey(segment, after, (needed, again), now),
            Job::Move { segment, after } => self.move_some(segment, after, now),
            Job::LetGo { segment } => self.let_go(segment, now, step),
            Job::Prove(proof) => self.prove_on(proof, now, step),
        }
    }

    /// Counts what is needed; at the end of it says whether to go on.
    fn survey(
        &mut self,
        segment: i64,
        after: [u8; 16],
        (mut needed, mut again): (u64, Timestamp),
        now: Timestamp,
    ) -> Result<Option<Job>, StoreError> {
        let rows = page(self.connection()?, segment, after, now)?;
        for row in rows.iter().filter(|row| row.needed) {
            needed = needed.saturating_add(row.place.map_or(0, octets));
            again = again.min(row.keep_until.filter(|until| *until > now).unwrap_or(again));
        }
        if let Some(last) = rows.last().filter(|_| rows.len() == PAGE as usize) {
            return Ok(Some(Job::Survey { segment, after: last.id, needed, again }));
        }
        let path = self.spool.directory().join(spool::file_name(segment));
        if needed.saturating_mul(2) <= path.metadata().map_or(0, |metadata| metadata.len()) {
            return Ok(Some(Job::Move { segment, after: [0; 16] }));
        }
        self.retention.clearing.look_again.insert(segment, again);
        Ok(None)
    }

    /// Moves some of what is needed; lets go of the rest when all has moved.
    fn move_some(&mut self, segment: i64, after: [u8; 16], now: Timestamp) -> Result<Option<Job>, StoreError> {
        let rows = page(self.connection()?, segment, after, now)?;
        let (mut after, mut needed, mut copied, ended) = (after, Vec::new(), 0, rows.len() < PAGE as usize);
        let mut cut = false;
        for row in rows {
            if copied >= STEP_BYTES {
                cut = true;
                break;
            }
            after = row.id;
            if row.needed {
                copied += row.place.map_or(0, |place| place.size.saturating_add(place.head_size));
                needed.push((MessageId::from_bytes(row.id), row.place));
            }
        }
        match self.copy(segment, &needed)? {
            Ok(()) if ended && !cut => Ok(Some(Job::LetGo { segment })),
            Ok(()) => Ok(Some(Job::Move { segment, after })),
            Err((id, detail)) => {
                self.stays(segment, now, detail, id);
                Ok(None)
            }
        }
    }

    /// Copies records and has their rows follow; what can't be read is the inner error.
    fn copy(
        &mut self,
        segment: i64,
        needed: &[(MessageId, Option<Place>)],
    ) -> Result<Result<(), (Option<MessageId>, String)>, StoreError> {
        if needed.is_empty() {
            return Ok(Ok(()));
        }
        let file = match File::open(self.spool.directory().join(spool::file_name(segment))) {
            Ok(file) => Arc::new(file),
            Err(error) => return Ok(Err((None, error.to_string()))),
        };
        let mut records = Vec::with_capacity(needed.len());
        for (id, place) in needed {
            let Some(place) = place else {
                return Ok(Err((Some(*id), "its row holds no place".to_owned())));
            };
            match spool::read(&file, *id, *place, self.shared.reader.gate()) {
                Ok((head, raw)) => records.push(Proved { id: *id, place: *place, head, raw }),
                Err(Unreadable::Io(error)) => return Ok(Err((Some(*id), error.to_string()))),
                Err(Unreadable::Damaged(what)) => return Ok(Err((Some(*id), what))),
                Err(Unreadable::Missing) => return Ok(Err((Some(*id), "its segment is missing".to_owned()))),
            }
        }
        let spool = &self.spool;
        let moving = self.retention.clearing.moving.get_or_insert_with(|| spool.beside());
        // Durable before a row names it.
        let taken = moving.take_over(&file, &records)?;
        self.shared.tally.spool_bytes.fetch_add(taken.octets, Ordering::Relaxed);
        let transaction = begin(self.connection()?)?;
        for (id, place) in taken.moved {
            transaction.prepare_cached(MOVE)?.execute(params![id.to_bytes(), place.segment, place.start])?;
        }
        for segment in taken.begun {
            orphans::note_segment(&transaction, segment)?;
        }
        transaction.commit()?;
        Ok(Ok(()))
    }

    /// Lets go of what isn't needed, and notes the segment as emptied with the last of it.
    fn let_go(&mut self, segment: i64, now: Timestamp, step: &mut Step) -> Result<Option<Job>, StoreError> {
        let transaction = begin(self.connection()?)?;
        loop {
            let gone = transaction.prepare_cached(LET_GO)?.execute(params![segment, now.as_millis(), PAGE])?;
            if gone < PAGE as usize {
                break;
            }
            if step.is_up() {
                transaction.commit()?;
                return Ok(Some(Job::LetGo { segment }));
            }
        }
        let emptied = !orphans::is_named(&transaction, segment)?;
        if emptied {
            orphans::note_emptied(&transaction, segment)?;
        }
        transaction.commit()?;
        if emptied {
            return Ok(self.prove(segment, now));
        }
        // Something in it is needed since.
        self.retention.clearing.look_again.insert(segment, now.plus(LOOK_AGAIN));
        Ok(None)
    }

    fn prove(&mut self, segment: i64, now: Timestamp) -> Option<Job> {
        match Proof::begin(self.spool.directory(), segment) {
            Ok(proof) => Some(Job::Prove(proof)),
            Err(error) => {
                self.stays(segment, now, error.to_string(), None);
                None
            }
        }
    }

    fn prove_on(&mut self, mut proof: Proof, now: Timestamp, step: &Step) -> Result<Option<Job>, StoreError> {
        let segment = proof.segment;
        let own = segment >= self.retention.clearing.own;
        let connection = self.connection()?;
        let standing = match proof.go_on(connection, Some(step.until())) {
            Ok(standing) => standing,
            Err(error) => {
                self.stays(segment, now, error.to_string(), None);
                return Ok(None);
            }
        };
        match standing {
            None => return Ok(Some(Job::Prove(proof))),
            Some(Standing::Named(id)) => {
                orphans::misled(&self.shared.bus, segment, id, now);
                self.retention.clearing.look_again.insert(segment, now.plus(LOOK_AGAIN));
            }
            Some(Standing::Unnamed) if !own && !orphans::is_emptied(connection, segment)? => {
                self.put_aside(segment, now);
            }
            Some(Standing::Unnamed | Standing::Hollow) => {
                self.retention.clearing.leaving.insert(segment);
            }
        }
        Ok(None)
    }

    fn put_aside(&mut self, segment: i64, now: Timestamp) {
        let size = self.size(segment);
        match orphans::put_aside(&self.options.data_dir, &self.shared.bus, segment, now) {
            Ok(()) => {
                self.shared.reader.close_segment(segment);
                self.shared.tally.forget_octets(size);
            }
            Err(error) => self.stays(segment, now, error.to_string(), None),
        }
    }

    fn size(&self, segment: i64) -> u64 {
        let path = directory::spool(&self.options.data_dir).join(spool::file_name(segment));
        path.metadata().map_or(0, |metadata| metadata.len())
    }

    /// A segment that can't go, and why; it is tried again tomorrow.
    fn stays(&mut self, segment: i64, now: Timestamp, detail: String, message: Option<MessageId>) {
        self.retention.clearing.look_again.insert(segment, now.plus(LOOK_AGAIN));
        let name = spool::file_name(segment);
        let what = match message {
            Some(_) => format!("spool/{name} can't go: a message in it is needed and damaged"),
            None => format!("spool/{name} can't go"),
        };
        let event = Event::new(now, Kind::Fault { what, detail });
        self.shared.bus.publish(match message {
            Some(id) => event.of(id),
            None => event,
        });
    }

    /// Unlinks what no row names, unless a backup is reading.
    pub(super) fn unlink_leaving(&mut self, now: Timestamp, step: &mut Step) -> Result<(), StoreError> {
        let backups = Arc::clone(&self.shared.backups);
        let Some(_no_backup) = backups.try_delete() else { return Ok(()) };
        while let Some(segment) = self.retention.clearing.leaving.pop_first() {
            let size = self.size(segment);
            if let Err(error) = orphans::remove(self.spool.directory(), segment) {
                self.stays(segment, now, error.to_string(), None);
                continue;
            }
            self.shared.reader.close_segment(segment);
            self.shared.tally.forget_octets(size);
            self.retention.clearing.look_again.remove(&segment);
            step.raw_bytes += size;
            orphans::forget_emptied(self.connection()?, segment)?;
        }
        Ok(())
    }
}

fn octets(place: Place) -> u64 {
    let content = u64::try_from(place.head_size.saturating_add(place.size)).unwrap_or(0);
    content.saturating_add(HEADER as u64)
}

fn page(connection: &Connection, segment: i64, after: [u8; 16], now: Timestamp) -> Result<Vec<Kept>, StoreError> {
    let mut statement = connection.prepare_cached(PAGE_OF_SEGMENT)?;
    let rows = statement.query_map(params![segment, after, now.as_millis(), PAGE], |row| {
        Ok(Kept {
            id: row.get(0)?,
            place: place(row, segment).ok(),
            keep_until: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
            needed: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn place(row: &Row<'_>, segment: i64) -> rusqlite::Result<Place> {
    Ok(Place { segment, start: row.get(1)?, head_size: row.get(2)?, size: row.get(3)? })
}
