//! Reading, beside the writer and without its lock: a pool of connections that can't write.
//!
//! All calls block: the server calls them where blocking is allowed, the command line as it is.
//! Each takes a connection out of the pool for itself, so no lock is held during a query.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::raw::Gate;
use super::releases::{Deployed, Files, Release};
use super::spool::{self, Unreadable};
use super::trouble::Troubles;
use super::{
    Body, Gauges, LogFilter, LogPage, MessageDetail, MessageFilter, MessageSummary, QueueEntry, QueueFilter, Sealed,
    StoreError, backup, directory, journal, log, messages, migrate, queue, releases, secrets,
};
use crate::clock;
use crate::event::{Bus, Event, Kind};
use crate::kv::{Entry, Page, View, ViewError};
use crate::mail::{MessageId, Timestamp};

/// Connections that wait in the pool.
const IDLE: usize = 16;
/// Segment files kept open.
const OPEN_SEGMENTS: usize = 32;

/// Reads a store, whoever has it open; takes no lock. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    data_dir: PathBuf,
    idle: Mutex<Vec<Connection>>,
    segments: Mutex<HashMap<i64, Arc<File>>>,
    troubles: Troubles,
    /// By which large messages are loaded.
    gate: Gate,
    bus: Option<Bus>,
}

impl Reader {
    /// Opens a store for reading.
    ///
    /// # Errors
    /// `Unusable` where there is none, or one of another version.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let path = directory::database(data_dir);
        if !path.exists() {
            backup::refuse_unfinished(data_dir)?;
            return Err(StoreError::Unusable(format!("there is no store in {}", data_dir.display())));
        }
        let reader = Self::beside(data_dir, None);
        reader.with(|connection| {
            migrate::refuse_foreign(connection, &path)?;
            migrate::refuse_older(connection, &path)
        })?;
        Ok(reader)
    }

    /// The same, whatever version has made it; `None` where there is none yet.
    ///
    /// # Errors
    /// `Unusable` where it is no store, or a newer one.
    pub fn if_there(data_dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = directory::database(data_dir);
        if !path.exists() {
            return Ok(None);
        }
        let reader = Self::beside(data_dir, None);
        reader.with(|connection| migrate::refuse_foreign(connection, &path))?;
        Ok(Some(reader))
    }

    /// The secrets of an environment, by name.
    ///
    /// # Errors
    /// `Failed`.
    pub fn secrets(&self, env: &str) -> Result<Vec<Sealed>, StoreError> {
        self.with(|connection| secrets::list(connection, env))
    }

    /// What runs in an environment.
    ///
    /// # Errors
    /// `Failed`.
    pub fn deployed(&self, env: &str) -> Result<Deployed, StoreError> {
        self.with(|connection| releases::deployed(connection, env))
    }

    /// The releases of an environment, newest first.
    ///
    /// # Errors
    /// `Failed`.
    pub fn releases(&self, env: &str, limit: usize) -> Result<Vec<Release>, StoreError> {
        self.with(|connection| releases::list(connection, env, limit))
    }

    /// A release with its files.
    ///
    /// # Errors
    /// `NotFound`, `Failed`.
    pub fn release(&self, id: i64) -> Result<(Release, Files), StoreError> {
        self.at_once(|connection| Ok((releases::one(connection, id)?, releases::files(connection, id)?)))
    }

    /// The release that ran before this one.
    ///
    /// # Errors
    /// `Failed`.
    pub fn release_before(&self, env: &str, id: i64) -> Result<Option<Release>, StoreError> {
        self.with(|connection| releases::before(connection, env, id))
    }

    pub(super) fn beside(data_dir: &Path, bus: Option<Bus>) -> Self {
        let inner = Inner {
            data_dir: data_dir.to_owned(),
            idle: Mutex::default(),
            segments: Mutex::default(),
            troubles: Troubles::default(),
            gate: Gate::default(),
            bus,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Runs a query on a connection of its own.
    pub(super) fn with<T>(&self, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = lock(&self.inner.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => migrate::open_reader(&directory::database(&self.inner.data_dir))?,
        };
        let result = query(&connection);
        let mut pool = lock(&self.inner.idle);
        if pool.len() < IDLE && connection.is_autocommit() {
            pool.push(connection);
        }
        result
    }

    /// As of one moment.
    pub(super) fn at_once<T>(&self, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(|connection| {
            let transaction = connection.unchecked_transaction()?;
            query(&transaction)
        })
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.inner.data_dir
    }

    /// Newest first.
    ///
    /// # Errors
    /// `Failed`.
    pub fn messages(&self, filter: &MessageFilter) -> Result<Vec<MessageSummary>, StoreError> {
        self.with(|connection| messages::list(connection, filter))
    }

    /// When the oldest message came, of those since then; `None`: there is none.
    ///
    /// # Errors
    /// `Failed`.
    pub fn oldest_message(&self, since: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.at_once(|connection| messages::oldest(connection, since))
    }

    /// # Errors
    /// `NotFound`, `Failed`.
    pub fn message(&self, id: MessageId) -> Result<MessageDetail, StoreError> {
        self.at_once(|connection| messages::detail(connection, id))
    }

    /// What happened to a message, in order; nothing of one that isn't there.
    ///
    /// # Errors
    /// `Failed`.
    pub fn trace(&self, id: MessageId) -> Result<Vec<Event>, StoreError> {
        self.with(|connection| messages::trace(connection, id))
    }

    /// How many deliveries a message has ever had.
    ///
    /// # Errors
    /// `NotFound`, `Failed`.
    pub fn deliveries(&self, id: MessageId) -> Result<u32, StoreError> {
        self.with(|connection| messages::deliveries(connection, id))
    }

    /// Oldest first.
    ///
    /// # Errors
    /// `Failed`.
    pub fn queue(&self, filter: &QueueFilter) -> Result<Vec<QueueEntry>, StoreError> {
        self.with(|connection| queue::list(connection, filter, filter.after, queue::lines(filter)))
    }

    /// The newest events of no accepted message.
    ///
    /// # Errors
    /// `Failed`.
    pub fn log(&self, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.with(|connection| log::latest(connection, limit))
    }

    /// Events of no message, newest first, in bounded work.
    ///
    /// # Errors
    /// `Failed`.
    pub fn logged(&self, filter: &LogFilter) -> Result<LogPage, StoreError> {
        self.with(|connection| journal::list(connection, filter))
    }

    /// By which large messages are loaded.
    pub(super) fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    /// What doesn't work at present.
    pub(super) fn troubles(&self) -> &Troubles {
        &self.inner.troubles
    }

    /// The message's octets, proved whole; what is large of them stays in its segment.
    ///
    /// # Errors
    /// `NotFound` where retention took the octets or they are damaged; `Failed` where they can't be read now.
    pub fn body(&self, id: MessageId) -> Result<Body, StoreError> {
        // Retention moves what is still needed: the row then names another place.
        for _ in 0..3 {
            let kept = self.with(|connection| messages::kept(connection, id))?;
            let read =
                self.segment(kept.place.segment).and_then(|file| spool::read(&file, id, kept.place, &self.inner.gate));
            match read {
                Ok((head, raw)) => {
                    self.inner.troubles.can_read(kept.place.segment);
                    return Ok(Body { envelope: kept.envelope, client: kept.client, head, raw });
                }
                Err(Unreadable::Missing) => {}
                Err(Unreadable::Io(error)) => return Err(self.unreadable(kept.place.segment, &error)),
                Err(Unreadable::Damaged(what)) => return Err(self.damaged(id, what)),
            }
        }
        // It may come back: a spool that isn't mounted has none of them.
        Err(StoreError::Failed(format!("the segment that holds message {id} is missing")))
    }

    /// A disk or a right that fails: mail waits, so it is a fault, told once for all the messages of the segment.
    fn unreadable(&self, segment: i64, error: &std::io::Error) -> StoreError {
        let now = clock::now();
        let error = StoreError::io(&format!("read spool/{}", spool::file_name(segment)), error);
        let news = self.inner.troubles.cannot_read(segment, error.to_string(), now);
        if let Some(bus) = self.inner.bus.as_ref().filter(|_| news) {
            let what = "a segment can't be read".to_owned();
            bus.publish(Event::new(now, Kind::Fault { what, detail: error.to_string() }));
        }
        error
    }

    fn damaged(&self, id: MessageId, detail: String) -> StoreError {
        let error = StoreError::NotFound(format!("the octets of message {id} are damaged: {detail}"));
        if let Some(bus) = &self.inner.bus {
            let what = "the octets of a message are damaged".to_owned();
            bus.publish(Event::new(clock::now(), Kind::Fault { what, detail }).of(id));
        }
        error
    }

    fn segment(&self, number: i64) -> Result<Arc<File>, Unreadable> {
        if let Some(file) = lock(&self.inner.segments).get(&number) {
            return Ok(Arc::clone(file));
        }
        let path = directory::spool(&self.inner.data_dir).join(spool::file_name(number));
        let file = match File::open(path) {
            Ok(file) => Arc::new(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Unreadable::Missing),
            Err(error) => return Err(Unreadable::Io(error)),
        };
        let mut segments = lock(&self.inner.segments);
        if segments.len() >= OPEN_SEGMENTS {
            segments.clear();
        }
        segments.insert(number, Arc::clone(&file));
        Ok(file)
    }

    /// Its file is gone: the space comes back when nobody has it open.
    pub(super) fn close_segment(&self, number: i64) {
        lock(&self.inner.segments).remove(&number);
        self.inner.troubles.can_read(number);
    }

    /// # Errors
    /// `Failed`.
    pub fn gauges(&self) -> Result<Gauges, StoreError> {
        let mut gauges = self.with(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT state, count(*), min(queued_at) FROM deliveries GROUP BY state")?;
            let mut rows = statement.query([])?;
            let mut gauges = Gauges::default();
            while let Some(row) = rows.next()? {
                let count = row.get::<_, i64>(1)?.unsigned_abs();
                if row.get::<_, i64>(0)? == 0 {
                    gauges.queued = count;
                    gauges.oldest_queued = row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis);
                } else {
                    gauges.dead = count;
                }
            }
            Ok(gauges)
        })?;
        gauges.store_bytes = self.database_bytes() + spool_bytes(&directory::spool(&self.inner.data_dir));
        Ok(gauges)
    }

    pub(super) fn database_bytes(&self) -> u64 {
        let path = directory::database(&self.inner.data_dir);
        [path.clone(), path.with_extension("db-wal")]
            .iter()
            .filter_map(|path| path.metadata().ok())
            .map(|m| m.len())
            .sum()
    }
}

pub(super) fn spool_bytes(spool: &Path) -> u64 {
    let entries = std::fs::read_dir(spool).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The keys with the counters of this process beside them: what workers read.
pub(super) struct Counting {
    pub reader: Reader,
    pub limits: Arc<super::Limits>,
}

impl View for Counting {
    fn get(&self, namespace: &str, key: &str, now: Timestamp) -> Result<Option<Entry>, ViewError> {
        self.reader.get(namespace, key, now)
    }

    fn list(
        &self,
        namespace: &str,
        prefix: &str,
        cursor: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page, ViewError> {
        self.reader.list(namespace, prefix, cursor, limit, now)
    }

    fn count(&self, limit: &crate::kv::Limit<'_>) -> crate::kv::Counted {
        self.limits.count(limit)
    }
}

impl View for Reader {
    fn get(&self, namespace: &str, key: &str, now: Timestamp) -> Result<Option<Entry>, ViewError> {
        self.with(|connection| super::keys::get(connection, namespace, key, now)).map_err(|e| ViewError(e.to_string()))
    }

    fn list(
        &self,
        namespace: &str,
        prefix: &str,
        cursor: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page, ViewError> {
        self.with(|connection| super::keys::list(connection, namespace, prefix, cursor, limit, now))
            .map_err(|e| ViewError(e.to_string()))
    }
}
