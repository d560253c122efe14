//! From a folder to an open store: its lock, its database, its segments, its writer, each as it has to be or a reason why not.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use tokio::sync::{Notify, Semaphore};

use super::writer::{Command, Shared, Writer};
use super::{
    Inner, Options, Reader, Store, StoreError, backup, directory, incoming, migrate, orphans, queue, readers, spool,
};
use crate::clock;
use crate::event::{Bus, Event, Kind};

/// Units that wait for the writer.
pub(super) const WAITING: usize = 4096;
/// Log events that wait for the writer.
const WAITING_LOG: usize = 4096;
/// Reads at once, those of workers apart.
pub(super) const READS: usize = 8;

impl Store {
    /// Opens or creates it, takes its lock, migrates it, starts its writer.
    ///
    /// # Errors
    /// `Locked`, `Unusable`, `Full`, `Failed`.
    pub fn open(options: Options, bus: Bus) -> Result<Self, StoreError> {
        directory::prepare_data(&options.data_dir)?;
        let lock = directory::Lock::wait(&options.data_dir, |held| {
            let what = "the store is waited for".to_owned();
            bus.publish(Event::new(clock::now(), Kind::Fault { what, detail: held.to_owned() }));
        })?;
        let (path, spool_dir) = (directory::database(&options.data_dir), directory::spool(&options.data_dir));
        let new = !path.exists();
        if new {
            backup::refuse_unfinished(&options.data_dir)?;
            directory::prepare_spool(&options.data_dir)?;
            refuse_lost(&spool_dir, &path)?;
            directory::create(&path).map_err(|e| StoreError::io(&format!("create {}", path.display()), &e))?;
        }
        let mut connection = migrate::open_writer(&path)?;
        let empty = migrate::is_empty(&connection)?;
        if empty && !new {
            directory::prepare_spool(&options.data_dir)?;
            refuse_lost(&spool_dir, &path)?;
        }
        migrate::migrate(&mut connection, &path)?;
        if !empty {
            directory::require_spool(&options.data_dir)?;
            directory::prepare_spool(&options.data_dir)?;
        }
        directory::sync(&options.data_dir)?;
        orphans::refuse_unmounted(&connection, &spool_dir)?;
        incoming::remove_unfinished(&spool_dir)?;
        let next = orphans::next_segment(&connection, &options.data_dir)?;
        orphans::Orphans { connection: &connection, data_dir: &options.data_dir, bus: &bus }.sort_out(clock::now())?;
        let numbers = spool::Numbers::new(next);
        let shared = Shared::new(Reader::beside(&options.data_dir, Some(bus.clone())), bus, Arc::clone(&numbers));
        shared.tally.count(&connection)?;
        shared.tally.spool_bytes.store(readers::spool_bytes(&spool_dir), Ordering::Relaxed);
        recall_unread(&shared, &connection);
        shared.claims.walked_to_start(queue::first_due(&connection)?);
        let spool = spool::Spool::new(spool_dir, options.segment_size, numbers);
        let writer = Writer::new(options, shared.clone(), connection, spool)?;
        let (commands, queue) = mpsc::channel();
        let (thread, wake) = start(writer, queue)?;
        let inner = Inner {
            shared,
            commands,
            writer: Mutex::new(thread),
            wake,
            places: Arc::new(Semaphore::new(WAITING)),
            log_places: Arc::new(Semaphore::new(WAITING_LOG)),
            reads: Arc::new(Semaphore::new(READS)),
            lock: Mutex::new(Some(lock)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// A writer's thread; or, where it is no thread, what wakes it.
type Started = (Option<JoinHandle<()>>, Option<Arc<Notify>>);

/// On a thread of its own; in a simulation, which has one alone, as a task.
fn start(writer: Writer, queue: mpsc::Receiver<Command>) -> Result<Started, StoreError> {
    if clock::is_held() {
        let wake = Arc::new(Notify::new());
        tokio::spawn(writer.run_as_task(queue, Arc::clone(&wake)));
        return Ok((None, Some(wake)));
    }
    let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || writer.run(&queue));
    thread.map(|thread| (Some(thread), None)).map_err(|e| StoreError::io("start the writer", &e))
}

/// A full disk or a row that can't be read there keeps no store shut: a resend is taken for a new message then.
fn recall_unread(shared: &Shared, connection: &rusqlite::Connection) {
    if let Err(error) = shared.unread.fill(connection, clock::now()) {
        if !connection.is_autocommit() {
            let _ended_already = connection.execute_batch("ROLLBACK");
        }
        let what = "it isn't known whose 250 may not have been read before the start".to_owned();
        shared.bus.publish(Event::new(clock::now(), Kind::Fault { what, detail: error.to_string() }));
    }
}

/// Segments beside a database that is new are mail whose database was lost, not what a crash left.
fn refuse_lost(spool_dir: &Path, database: &Path) -> Result<(), StoreError> {
    for segment in spool::segments(spool_dir)? {
        let path = spool_dir.join(spool::file_name(segment));
        if path.metadata().is_ok_and(|metadata| metadata.len() > 0) {
            return Err(StoreError::Unusable(format!(
                "{} holds mail, and its database {} is gone: restore both from a backup, or move the spool away to begin \
                 anew",
                path.display(),
                database.display()
            )));
        }
    }
    Ok(())
}
