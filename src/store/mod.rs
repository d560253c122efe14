//! What is kept: messages, deliveries, KV, the log. One process owns a store; 250 is promised by [`Store::accept`] alone.
//!
//! Callers speak in accept / claim / settle / kv / log, never in SQL, so that a second implementation can stand beside
//! SQLite. Bodies lie in append-only segment files (`spool`), all else in SQLite (WAL, `synchronous=FULL`).
//! One writer thread takes whatever waits, runs it as one transaction, syncs segment and
//! database once, and only then answers: group commit.
//!
//! **Invariant**: bytes are durable (fdatasync; for a new file its directory too) before the row that names them commits.
//! **Invariant**: a sync that failed is never retried as it is: the segment is abandoned, the WAL emptied or written again,
//! the database reopened.

mod acceptance;
mod apply;
mod backup;
mod check;
mod claims;
mod clearing;
mod directory;
mod error;
mod incoming;
mod journal;
mod keys;
mod limits;
mod listing;
mod log;
mod messages;
mod migrate;
mod opening;
mod orphans;
#[cfg(test)]
mod plans;
mod queue;
mod raw;
mod readers;
mod records;
pub mod releases;
mod retention;
mod secrets;
mod spool;
mod tally;
mod trouble;
mod unread;
mod wall;
mod writer;

pub use acceptance::{
    Acceptance, Accepted, Body, DecideTask, Decider, Delivery, DeliveryKey, Discharge, Keep, MessageOutcome,
    NewDelivery, NoticeTask, Redecision, RelayTask, Settled, Settlement, Task, TellTask, WebhookBody, WebhookTask,
};

pub use claims::{WARM_BYTES, Warm};
pub use directory::free_bytes;
pub use error::StoreError;
pub use incoming::Incoming;
pub use limits::Limits;
pub use listing::{
    CheckReport, Finding, Gauges, LogFilter, LogPage, Logged, MessageDetail, MessageFilter, MessageSummary, QueueEntry,
    QueueFilter, RepairReport,
};
pub use raw::{LARGE, Raw, Stored};
pub use readers::Reader;
pub use secrets::{Sealed, within};

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use tokio::sync::{Notify, Semaphore, oneshot};

use crate::aside;
use crate::clock;
use crate::event::Event;
use crate::kv;
use crate::mail::{MessageId, Timestamp};

use claims::Claimed;
use opening::{READS, WAITING};
use writer::{Command, Done, Shared, Unit, Work};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    pub data_dir: PathBuf,
    /// A segment is closed when it has grown past this many bytes.
    pub segment_size: u64,
    pub raw_retention: std::time::Duration,
    pub log_retention: std::time::Duration,
    /// Free space below which [`Store::has_room`] says no.
    pub free_space: u64,
}

/// An open store. Cheap to clone; the last clone's drop closes it.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Shared,
    commands: mpsc::Sender<Command>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Where the writer is no thread but a task: what wakes it.
    wake: Option<Arc<Notify>>,
    places: Arc<Semaphore>,
    log_places: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    lock: Mutex<Option<directory::Lock>>,
}
impl Store {
    /// One durable transaction. When this returns `Committed`, 250 may be said.
    ///
    /// # Errors
    /// `Full`, `Failed`, `Closed`: nothing was accepted.
    pub async fn accept(&self, acceptance: Acceptance) -> Result<Accepted, StoreError> {
        self.commit(Work::Accept(Box::new(acceptance))).await.map(accepted)
    }

    /// A place for a large message that is coming in: it lies on the disk before it is accepted.
    #[must_use]
    pub fn incoming(&self) -> Incoming {
        Incoming::new(&self.inner.shared)
    }

    /// The session of a message that was accepted has ended, and its client may not have read the 250 (RFC 1047).
    pub fn put_unread(&self, fingerprint: [u8; 16], id: MessageId) {
        self.inner.shared.unread.put(fingerprint, id, clock::now());
    }

    /// The message with this fingerprint whose 250 may not have been read. It is the caller's now: one that is like it is
    /// a new one, unless it is put back.
    #[must_use]
    pub fn take_unread(&self, fingerprint: &[u8; 16]) -> Option<MessageId> {
        self.inner.shared.unread.take(fingerprint, clock::now())
    }

    /// Due deliveries that nobody holds, oldest due first; they are the caller's until settled.
    /// What was just accepted comes warm, and without a query.
    ///
    /// # Errors
    /// `Failed`, `Closed`.
    pub async fn claim(&self, now: Timestamp, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        let claims = &self.inner.shared.claims;
        let (warm, wanted) = claims.take_warm(now, limit);
        let mut claimed = Claimed::new(warm, Arc::clone(claims));
        if wanted > 0 {
            let (answer, found) = oneshot::channel();
            self.inner.send(Command::Claim { now, limit: wanted, answer })?;
            match found.await.map_err(|_| StoreError::Closed)? {
                Ok(cold) => claimed.extend(cold.into_vec()),
                // What is warm goes out nevertheless; the walk is tried again next time.
                Err(error) if claimed.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        Ok(claimed.into_vec())
    }

    /// Octets that may yet be kept warm. What is warm counts until the last who holds it has let go of it.
    #[must_use]
    pub fn warm_room(&self) -> usize {
        self.inner.shared.claims.warm_room()
    }

    /// When the next delivery that nobody holds falls due.
    ///
    /// # Errors
    /// `Failed`, `Closed`.
    pub fn next_due(&self) -> impl Future<Output = Result<Option<Timestamp>, StoreError>> + use<> {
        std::future::ready(Ok(self.inner.shared.claims.next_due()))
    }

    /// Resolves when something may have become due: accepted, retried by an admin, queued by a settlement.
    pub async fn changed(&self) {
        self.inner.shared.claims.changed().await;
    }

    /// One durable transaction for all of them; releases their claims. `Overtaken` only where `kv_reads` were given.
    ///
    /// # Errors
    /// `Full`, `Failed`, `Closed`: the claims stand.
    pub async fn settle(&self, settlements: Vec<Settlement>) -> Result<Accepted, StoreError> {
        self.commit(Work::Settle(settlements)).await.map(accepted)
    }

    /// The message's octets and envelope.
    ///
    /// # Errors
    /// `NotFound` where retention took them or they are damaged (which is reported as a Fault); `Failed` where they can't
    /// be read now, as where the spool isn't mounted.
    pub async fn body(&self, id: MessageId) -> Result<Body, StoreError> {
        self.read(move |reader| reader.body(id)).await
    }

    /// Events that belong to no accepted message (refusals, faults); not waited for, dropped and counted when too many.
    pub fn log(&self, event: Event) {
        match Arc::clone(&self.inner.log_places).try_acquire_owned() {
            Ok(place) => {
                // A closed store keeps no log.
                let _closed = self.inner.send(Command::Log(event, place));
            }
            Err(_) => {
                self.inner.shared.tally.dropped_logs.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What workers read.
    #[must_use]
    pub fn kv(&self) -> Arc<dyn kv::View> {
        Arc::new(readers::Counting {
            reader: self.inner.shared.reader.clone(),
            limits: Arc::clone(&self.inner.shared.limits),
        })
    }

    /// An admin's writes.
    ///
    /// # Errors
    /// `Full`, `Failed`, `Closed`.
    pub async fn kv_write(&self, writes: Vec<kv::Write>, now: Timestamp) -> Result<(), StoreError> {
        self.commit(Work::Keys { writes, now }).await.map(drop)
    }

    /// Newest first.
    ///
    /// # Errors
    /// `Failed`, `Closed`.
    pub async fn messages(&self, filter: MessageFilter) -> Result<Vec<MessageSummary>, StoreError> {
        self.read(move |reader| reader.messages(&filter)).await
    }

    /// # Errors
    /// `NotFound`, `Failed`, `Closed`.
    pub async fn message(&self, id: MessageId) -> Result<MessageDetail, StoreError> {
        self.read(move |reader| reader.message(id)).await
    }

    /// # Errors
    /// `Failed`, `Closed`.
    pub async fn queue(&self, filter: QueueFilter) -> Result<Vec<QueueEntry>, StoreError> {
        self.read(move |reader| reader.queue(&filter)).await
    }

    /// Makes them due now; dead ones live again. How many.
    ///
    /// # Errors
    /// `Failed`, `Closed`.
    pub async fn queue_retry(&self, filter: QueueFilter, now: Timestamp) -> Result<u64, StoreError> {
        // Before the rows are due, so that whoever claims them knows it.
        self.inner.shared.tally.retries.fetch_add(1, Ordering::Relaxed);
        self.act(queue::Verb::Retry, filter, now).await
    }

    /// Changes when an admin wants something tried now: destinations that rest are to be tried then.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.inner.shared.tally.retries.load(Ordering::Relaxed)
    }

    /// Takes them off the queue for good, without a notice. How many.
    ///
    /// # Errors
    /// `Failed`, `Closed`.
    pub async fn queue_drop(&self, filter: QueueFilter, now: Timestamp) -> Result<u64, StoreError> {
        self.act(queue::Verb::Discard, filter, now).await
    }

    /// Lets a message out of its quarantine. How many deliveries were queued for it.
    ///
    /// # Errors
    /// `NotFound` where it isn't in one or its octets are gone; `Failed`, `Closed`.
    pub async fn release(&self, release: Discharge) -> Result<u64, StoreError> {
        match self.commit(Work::Discharge(release)).await? {
            Done::Batch(count, _) => Ok(count),
            Done::Accepted(_) => Ok(0),
        }
    }

    /// Keeps a secret, in the place of one of that name.
    ///
    /// # Errors
    /// `Conflict` where others are sealed with another key; `Full`, `Failed`, `Closed`.
    pub async fn put_secret(&self, sealed: Sealed) -> Result<(), StoreError> {
        self.commit(Work::Secret(secrets::Change::Put(sealed))).await.map(drop)
    }

    /// # Errors
    /// `NotFound`, `Full`, `Failed`, `Closed`.
    pub async fn delete_secret(&self, env: String, name: String, now: Timestamp) -> Result<(), StoreError> {
        self.commit(Work::Secret(secrets::Change::Delete { env, name, now })).await.map(drop)
    }

    /// Changes what runs, in one transaction. The release that it is about.
    ///
    /// # Errors
    /// `Conflict` where something else runs than who asks has seen; `NotFound`, `Full`, `Failed`, `Closed`.
    pub async fn change_release(&self, change: releases::Change) -> Result<i64, StoreError> {
        match self.commit(Work::Release(change)).await? {
            Done::Batch(id, _) => Ok(i64::try_from(id).unwrap_or_default()),
            Done::Accepted(_) => Ok(0),
        }
    }

    /// Resolves when an admin has changed what a server runs by: for one who waits, also for a change that came before.
    pub async fn deployed(&self) {
        self.inner.shared.deployed.notified().await;
    }

    /// Commits what was decided on a message that is there. `Overtaken`: a key that was read has changed.
    ///
    /// # Errors
    /// `NotFound` where its octets are gone, or it isn't as it was when it was decided on; `Full`, `Failed`, `Closed`.
    pub async fn redecide(&self, redecision: Redecision) -> Result<Accepted, StoreError> {
        self.commit(Work::Redecide(Box::new(redecision))).await.map(accepted)
    }

    /// Whether there is room for more mail on the disk (checked by a timer, not at each call).
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.inner.shared.tally.low.load(Ordering::Relaxed)
    }

    /// What doesn't work at present, in words; empty where all does.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        self.inner.shared.reader.troubles().current(clock::now())
    }

    /// Whether no write failed of late.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.inner.shared.reader.troubles().writes(clock::now())
    }

    /// How many reads are under way. Doesn't keep the store open.
    pub fn reads_open(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let reads = Arc::clone(&self.inner.reads);
        move || READS.saturating_sub(reads.available_permits())
    }

    /// How many units wait for the writer or are being written. Doesn't keep the store open.
    pub fn waiting(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let places = Arc::clone(&self.inner.places);
        move || WAITING.saturating_sub(places.available_permits())
    }

    /// # Errors
    /// `Failed`, `Closed`.
    pub async fn gauges(&self) -> Result<Gauges, StoreError> {
        let tally = Arc::clone(&self.inner.shared.tally);
        self.read(move |reader| {
            Ok(Gauges {
                queued: tally.queued.load(Ordering::Relaxed).max(0).unsigned_abs(),
                dead: tally.dead.load(Ordering::Relaxed).max(0).unsigned_abs(),
                oldest_queued: reader.with(queue::oldest_queued)?,
                store_bytes: tally.spool_bytes.load(Ordering::Relaxed) + reader.database_bytes(),
                unlogged: tally.dropped_logs.load(Ordering::Relaxed),
            })
        })
        .await
    }

    /// Deletes what retention no longer keeps: expired keys, old records, whole segments. Bounded work a call; true: more is left.
    ///
    /// # Errors
    /// `Failed`, `Closed`.
    pub async fn retain(&self, now: Timestamp) -> Result<bool, StoreError> {
        let (answer, done) = oneshot::channel();
        self.inner.send(Command::Retain { now, answer })?;
        done.await.map_err(|_| StoreError::Closed)?
    }

    /// No schedule waits longer than this: what is due later was put off by a clock that was ahead, and is tried now.
    pub fn expect_waits(&self, longest: std::time::Duration) {
        self.inner.shared.tally.longest_wait.fetch_max(longest.as_secs(), Ordering::Relaxed);
    }

    /// Copies the running store into `dir` (new or empty), consistent as of one moment. All of it, or nothing is left there.
    ///
    /// # Errors
    /// `Failed`; `Unusable` where `dir` isn't empty or has no room.
    pub async fn backup(&self, dir: &Path) -> Result<(), StoreError> {
        let (into, backups) = (dir.to_owned(), Arc::clone(&self.inner.shared.backups));
        self.read(move |reader| backup::backup(reader, &backups, &into)).await
    }

    /// Commits what waits, checkpoints, releases the lock.
    pub async fn close(&self) {
        let (answer, done) = oneshot::channel();
        if self.inner.send(Command::Close { answer }).is_ok() {
            let _gone = done.await;
        }
        self.inner.unlock();
    }

    /// A way to read the store in `data_dir`, whoever has it open: takes no lock, starts no writer.
    ///
    /// # Errors
    /// `Unusable` where there is none, or one of another version.
    pub fn open_readonly(data_dir: &Path) -> Result<Reader, StoreError> {
        Reader::open(data_dir)
    }

    /// Proves the store in `data_dir` sound, by calls that block. Takes its lock where no one has it; changes nothing.
    ///
    /// # Errors
    /// `Unusable` where there is no store, or one of another version; `Failed` where the disk can't be read.
    pub fn check(data_dir: &Path) -> Result<CheckReport, StoreError> {
        check::check(data_dir)
    }

    /// Mends what [`Store::check`] finds, by calls that block. What is damaged is put aside, never deleted.
    ///
    /// # Errors
    /// As `check`; `Locked` where a server has it open.
    pub fn repair(data_dir: &Path, now: Timestamp) -> Result<RepairReport, StoreError> {
        check::repair(data_dir, now)
    }

    /// Reads beside the writer, by calls that block.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.inner.shared.reader.clone()
    }

    /// Syncs of the disk since the start: two for a group that brings octets, one for others.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.inner.shared.tally.syncs.load(Ordering::Relaxed)
    }

    /// Hands a unit to the writer and waits until it is committed or refused. Goes on when the caller goes away.
    async fn commit(&self, work: Work) -> Result<Done, StoreError> {
        let place = Arc::clone(&self.inner.places).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (answer, done) = oneshot::channel();
        self.inner.send(Command::Unit(Unit { work, answer, place }))?;
        done.await.map_err(|_| StoreError::Closed)?
    }

    async fn act(&self, verb: queue::Verb, mut filter: QueueFilter, now: Timestamp) -> Result<u64, StoreError> {
        let (mut count, mut after) = (0, None);
        loop {
            let work = Work::Queue { verb, filter: Box::new(filter.clone()), after, now };
            let Done::Batch(done, next) = self.commit(work).await? else { return Ok(count) };
            count += done;
            filter.limit = filter.limit.map(|limit| limit.saturating_sub(usize::try_from(done).unwrap_or(limit)));
            after = next;
            if after.is_none() || filter.limit == Some(0) {
                return Ok(count);
            }
        }
    }

    /// Runs what blocks where it may.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _turn = self.inner.reads.acquire().await.map_err(|_| StoreError::Closed)?;
        let reader = self.reader();
        aside::run(move || query(&reader))
            .await
            .map_err(|error| StoreError::Failed(format!("a query met a fault of its own: {error}")))?
    }
}

fn accepted(done: Done) -> Accepted {
    match done {
        Done::Accepted(accepted) => accepted,
        Done::Batch(..) => Accepted::Committed,
    }
}

impl Inner {
    fn send(&self, command: Command) -> Result<(), StoreError> {
        self.commands.send(command).map_err(|_| StoreError::Closed)?;
        if let Some(wake) = &self.wake {
            wake.notify_one();
        }
        Ok(())
    }

    /// Waits for the writer's end, then lets go of the lock.
    fn unlock(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _panicked = writer.join();
        }
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let (answer, _nobody_waits) = oneshot::channel();
        let _closed = self.send(Command::Close { answer });
        self.unlock();
    }
}
