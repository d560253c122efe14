//! The one thread that writes: takes whatever waits, runs it as one transaction, syncs once, then answers (group commit).
//!
//! Order of a group: rows under BEGIN IMMEDIATE; the octets in one gathered write to the segment, fdatasync; COMMIT, which
//! syncs the WAL; only then the answers.
//! A segment that fails to write or sync is abandoned and the group rolled back; after a COMMIT that fails, after an I/O
//! error of the database's files and after a panic, the database is opened anew as well, for what its cache says of the
//! disk is no longer known.
//! The WAL is moved into the database after a group's answers, where enough has come together (`wal`).
//! A large message's octets were written before, in a segment of their own (`incoming`).
//! No caller is left waiting: whatever happens, each gets an answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::apply::{Effects, Refusal, Writing};
use super::backup::Backups;
use super::claims::{Claimed, Claims};
use super::limits::Limits;
use super::readers::Reader;
use super::retention::Retention;
use super::spool::{Numbers, Spool};
use super::tally::Tally;
use super::unread::Unread;
use super::{Accepted, DeliveryKey, Options, StoreError, directory, keys, log, migrate, orphans, queue};
use crate::clock;
use crate::event::{Bus, Event, Kind};
use crate::mail::Timestamp;

#[cfg(test)]
mod tests;
mod units;
mod wal;
mod work;

pub(super) use work::Work;

/// Units in one group.
const GROUP_UNITS: usize = 1024;
/// Octets of mail in one group.
const GROUP_BYTES: usize = 32 << 20;
/// How often the disk is looked at and the log written while nothing else happens.
const TICK: Duration = Duration::from_secs(1);
/// What a group takes in a simulation, mostly.
const SIMULATED_DISK: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) enum Done {
    Accepted(Accepted),
    /// How many, and after which of them the next batch begins.
    Batch(u64, Option<DeliveryKey>),
}

#[derive(Debug)]
pub(super) struct Unit {
    pub work: Work,
    pub answer: oneshot::Sender<Result<Done, StoreError>>,
    /// Its place in the bounded queue.
    #[allow(dead_code)]
    pub place: OwnedSemaphorePermit,
}

pub(super) enum Command {
    Unit(Unit),
    Log(Event, OwnedSemaphorePermit),
    Claim { now: Timestamp, limit: usize, answer: oneshot::Sender<Result<Claimed, StoreError>> },
    Retain { now: Timestamp, answer: oneshot::Sender<Result<bool, StoreError>> },
    Close { answer: oneshot::Sender<()> },
}

/// What the writer shares with the callers' side.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub claims: Arc<Claims>,
    pub tally: Arc<Tally>,
    pub unread: Arc<Unread>,
    pub backups: Arc<Backups>,
    pub numbers: Arc<Numbers>,
    pub limits: Arc<Limits>,
    /// Told of each change of what a server runs by.
    pub deployed: Arc<Notify>,
    pub reader: Reader,
    pub bus: Bus,
}

impl Shared {
    pub(super) fn new(reader: Reader, bus: Bus, numbers: Arc<Numbers>) -> Self {
        Self {
            claims: Arc::default(),
            tally: Arc::default(),
            unread: Arc::default(),
            backups: Arc::default(),
            numbers,
            limits: Arc::default(),
            deployed: Arc::default(),
            reader,
            bus,
        }
    }
}

pub(super) struct Writer {
    pub(super) options: Options,
    pub(super) shared: Shared,
    path: PathBuf,
    /// `None` after a failure, until it is opened anew.
    pub(super) connection: Option<Connection>,
    /// What the WAL holds may not be on the disk, though it can be read.
    doubtful: bool,
    /// A COMMIT is under way.
    committing: bool,
    wal: wal::Wal,
    pub(super) spool: Spool,
    pub(super) versions: keys::Versions,
    pub(super) log: log::Pending,
    pub(super) retention: Retention,
    /// New deliveries of the group under way.
    held: Vec<DeliveryKey>,
    looked_at_disk: Timestamp,
    flushed_log: Timestamp,
}

type Outcome = Result<(Done, Vec<Effects>), Refusal>;

impl Writer {
    pub(super) fn new(
        options: Options,
        shared: Shared,
        connection: Connection,
        spool: Spool,
    ) -> Result<Self, StoreError> {
        let mut versions = keys::Versions::default();
        match versions.reserve(&connection) {
            // A full disk shuts no store: what is there can go out. They are reserved before the next group.
            Err(StoreError::Full(_)) => {}
            reserved => reserved?,
        }
        wal::count(&connection)?;
        let retention = Retention::new(&connection, spool.next())?;
        Ok(Self {
            path: directory::database(&options.data_dir),
            options,
            shared,
            connection: Some(connection),
            doubtful: false,
            committing: false,
            wal: wal::Wal::default(),
            spool,
            versions,
            log: log::Pending::default(),
            retention,
            held: Vec::new(),
            looked_at_disk: Timestamp::default(),
            flushed_log: Timestamp::default(),
        })
    }

    /// Serves until it is told to close, or nobody is left to ask.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        self.look_at_disk();
        let closed = loop {
            match commands.recv_timeout(TICK) {
                Ok(first) => {
                    if let Some(answer) = self.serve(first, commands) {
                        break Some(answer);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        self.end(closed);
    }

    /// The same where there is no thread for it; `wake` is notified of each command.
    pub(super) async fn run_as_task(mut self, commands: Receiver<Command>, wake: Arc<Notify>) {
        self.look_at_disk();
        let closed = loop {
            match commands.try_recv() {
                Ok(first) => {
                    // A disk takes its time, now and then a long one, and more comes together meanwhile.
                    let longest = if fastrand::u8(..8) == 0 { TICK } else { SIMULATED_DISK };
                    tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
                    if let Some(answer) = self.serve(first, &commands) {
                        break Some(answer);
                    }
                }
                Err(TryRecvError::Empty) => {
                    if tokio::time::timeout(TICK, wake.notified()).await.is_err() {
                        self.tick();
                    }
                }
                Err(TryRecvError::Disconnected) => break None,
            }
        };
        self.end(closed);
    }

    fn end(mut self, closed: Option<oneshot::Sender<()>>) {
        self.flush_log();
        if let Some(connection) = self.connection.take() {
            // What fails here makes it an unclean end, for which the next opening is prepared.
            let _best_effort = self.shared.unread.keep(&connection, clock::now());
            // A clean end leaves no WAL behind, unless somebody reads: that isn't waited for. The next opening reads the WAL.
            let _without_it_only_slower = connection.busy_timeout(Duration::ZERO);
            let _best_effort: Result<(), _> = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        }
        if let Some(answer) = closed {
            let _nobody_waits = answer.send(());
        }
    }

    /// Commits what waits as one group, then does the rest. Told to close: whom to tell when that is done.
    fn serve(&mut self, first: Command, commands: &Receiver<Command>) -> Option<oneshot::Sender<()>> {
        let (mut units, mut rest, mut octets) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Unit(unit) => {
                    octets += unit.work.octets();
                    units.push(unit);
                }
                Command::Log(event, _place) => self.log.push(event, &self.shared.tally),
                other => rest.push(other),
            }
            if units.len() >= GROUP_UNITS || octets >= GROUP_BYTES {
                break;
            }
            next = commands.try_recv().ok();
        }
        if !units.is_empty() {
            self.commit(units);
        } else if self.log_is_due(clock::now()) {
            self.flush_log();
        }
        let mut closing = None;
        for command in rest {
            match command {
                Command::Claim { now, limit, answer } => {
                    let claimed = self.claim(now, limit);
                    // Not received: dropped, and so released.
                    let _gone = answer.send(claimed);
                }
                Command::Retain { now, answer } => {
                    let _gone = answer.send(self.retain(now));
                }
                Command::Close { answer } => closing = Some(answer),
                Command::Unit(_) | Command::Log(..) => {}
            }
        }
        self.look_at_disk();
        self.make_ready();
        self.checkpoint();
        closing
    }

    fn tick(&mut self) {
        self.flush_log();
        self.checkpoint();
        self.look_at_disk();
    }

    /// Once a second, also by a clock that was set back.
    fn log_is_due(&self, now: Timestamp) -> bool {
        now.since(self.flushed_log) >= TICK || now < self.flushed_log
    }

    fn flush_log(&mut self) {
        self.flushed_log = clock::now();
        if !self.log.is_empty() {
            self.commit(Vec::new());
        }
    }

    fn commit(&mut self, units: Vec<Unit>) {
        let now = clock::now();
        match self.guarded(|writer| writer.group(&units, now)) {
            Ok(outcomes) => {
                self.shared.reader.troubles().can_write();
                for (unit, outcome) in units.into_iter().zip(outcomes) {
                    self.conclude(unit, outcome);
                }
                self.shared.claims.notify();
            }
            Err(error) => {
                if matches!(error, StoreError::Full(_)) {
                    self.set_low(true);
                }
                for unit in units {
                    let _gone = unit.answer.send(Err(error.clone()));
                }
            }
        }
        self.held.clear();
    }

    /// Runs what may fail halfway; whatever goes wrong, nothing stays open and nobody's claim is lost.
    pub(super) fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let result = catch_unwind(AssertUnwindSafe(|| work(self)));
        let (error, panicked) = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => (error, false),
            Err(_panic) => (StoreError::Failed("the writer met a fault of its own".to_owned()), true),
        };
        if std::mem::take(&mut self.committing) || matches!(error, StoreError::Broken(_)) || panicked {
            // Closing rolls back what is open. What a failed commit or sync has left in the cache is no longer trusted.
            self.connection = None;
            self.doubtful = true;
            self.spool.abandon();
        } else {
            self.roll_back();
        }
        self.shared.claims.forget(&std::mem::take(&mut self.held));
        // A commit that failed may yet be found whole in the WAL: so the rows are asked again.
        self.shared.claims.start_over();
        error.publish(&self.shared.bus);
        self.shared.reader.troubles().cannot_write(error.to_string(), clock::now());
        if self.doubtful {
            // At once, and before the answers: what is refused now isn't to be found in the WAL after a kill. Where it
            // can't be opened, that is tried again with the next group.
            let _not_yet = self.connection().is_ok();
        }
        Err(error)
    }

    /// Ends the transaction that an error has left open.
    fn roll_back(&mut self) {
        let open = self.connection.as_ref().filter(|connection| !connection.is_autocommit());
        if open.is_some_and(|connection| connection.execute_batch("ROLLBACK").is_err()) {
            self.connection = None;
        }
    }

    /// The connection, opened anew where a failure has closed it.
    pub(super) fn connection(&mut self) -> Result<&Connection, StoreError> {
        if self.connection.is_none() {
            let connection = migrate::open_writer(&self.path)?;
            if self.doubtful {
                migrate::begin_wal_anew(&connection)?;
                self.doubtful = false;
            }
            wal::count(&connection)?;
            self.shared.tally.count(&connection)?;
            self.connection = Some(connection);
        }
        self.connection.as_ref().ok_or(StoreError::Closed)
    }

    fn group(&mut self, units: &[Unit], now: Timestamp) -> Result<Vec<Outcome>, StoreError> {
        self.connection()?;
        let Some(connection) = &self.connection else { return Err(StoreError::Closed) };
        self.versions.reserve(connection)?;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut plan = self.spool.plan();
        let mut writing = Writing { connection, plan: &mut plan, versions: &mut self.versions, now };
        let outcomes = units::apply(units, &mut writing)?;
        if let Some(segment) = plan.begins() {
            orphans::note_segment(connection, segment)?;
        }
        let logged = self.log.insert(connection)?;
        let effects = || outcomes.iter().flatten().flat_map(|(_, effects)| effects);
        self.held = effects().flat_map(|effects| effects.ready.iter().map(|delivery| delivery.key)).collect();
        self.shared.claims.hold(&self.held);
        let written = self.spool.write(&plan)?;
        self.committing = true;
        connection.prepare_cached("COMMIT")?.execute([])?;
        self.committing = false;
        self.log.written(&logged);
        self.shared.tally.spool_bytes.fetch_add(written + plan.octets_apart(), Ordering::Relaxed);
        self.shared.tally.syncs.fetch_add(1 + u64::from(written > 0), Ordering::Relaxed);
        Ok(outcomes)
    }

    /// What follows a commit in memory, then the answer.
    fn conclude(&mut self, unit: Unit, outcome: Outcome) {
        let (done, effects) = match outcome {
            Ok(done) => done,
            Err(Refusal::Overtaken) => {
                let _gone = unit.answer.send(Ok(Done::Accepted(Accepted::Overtaken)));
                return;
            }
            Err(Refusal::Error(error)) => {
                let _gone = unit.answer.send(Err(error));
                return;
            }
        };
        if unit.work.is_deployed() {
            self.shared.deployed.notify_one();
        }
        let mut bodies = unit.work.into_bodies();
        for effects in effects {
            self.shared.tally.add(effects.queued, effects.dead);
            for (key, due) in effects.released {
                self.shared.claims.release(key, due);
            }
            if !effects.dropped.is_empty() {
                self.shared.claims.dropped(&effects.dropped);
            }
            for position in effects.cold {
                self.shared.claims.cold(position);
            }
            let body = effects.ready.first().and_then(|first| {
                bodies.iter_mut().find(|(id, _)| *id == first.key.message).and_then(|(_, body)| body.take())
            });
            self.shared.claims.offer(effects.ready, body);
        }
        let _gone = unit.answer.send(Ok(done));
    }

    /// Walks the index of due times for deliveries that nobody holds.
    fn claim(&mut self, now: Timestamp, limit: usize) -> Result<Claimed, StoreError> {
        let claims = Arc::clone(&self.shared.claims);
        let mut found = Claimed::new(Vec::new(), Arc::clone(&claims));
        self.guarded(|writer| {
            let unreadable = queue::walk(writer.connection()?, &claims, now, limit, &mut found)?;
            writer.park(&unreadable, now)
        })?;
        self.retention.wall.make_younger(&mut found, now);
        Ok(found)
    }

    /// A delivery that can't be read is shown among the dead: not lost, and no stumbling block.
    fn park(&mut self, unreadable: &[queue::Unreadable], now: Timestamp) -> Result<(), StoreError> {
        if unreadable.is_empty() {
            return Ok(());
        }
        let connection = self.connection()?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut parked = 0;
        for row in unreadable {
            parked += queue::park(connection, row, now)?;
        }
        connection.execute_batch("COMMIT")?;
        self.shared.tally.add(-parked, parked);
        for row in unreadable {
            let what = "a delivery can't be read and is parked".to_owned();
            let event = Event::new(now, Kind::Fault { what, detail: row.why.clone() });
            self.shared.bus.publish(row.id().map_or(event.clone(), |id| event.of(id)));
        }
        Ok(())
    }

    /// Looks at the free space, at most ten times a second.
    fn look_at_disk(&mut self) {
        let now = clock::now();
        if now.since(self.looked_at_disk) < Duration::from_millis(100) && now >= self.looked_at_disk {
            return;
        }
        self.looked_at_disk = now;
        if let Ok(free) = directory::free_bytes(&self.options.data_dir) {
            let low = free < self.options.free_space;
            if self.set_low(low) && low {
                let wanted_bytes = self.options.free_space;
                self.shared.bus.publish(Event::new(now, Kind::StorageLow { free_bytes: free, wanted_bytes }));
            }
        }
    }

    /// For the next groups' octets. What fails here has failed for nobody: they go to another segment.
    fn make_ready(&mut self) {
        if self.shared.tally.low.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.spool.make_ready() {
            error.publish(&self.shared.bus);
        }
    }

    /// Whether that is news.
    fn set_low(&self, low: bool) -> bool {
        self.shared.tally.low.swap(low, Ordering::Relaxed) != low
    }
}

impl StoreError {
    /// Tells the admin of a fault of ours; the caller hears of it by its answer.
    fn publish(&self, bus: &Bus) {
        let fault = Kind::Fault { what: "the store can't write".to_owned(), detail: self.to_string() };
        bus.publish(Event::new(clock::now(), fault));
    }
}
