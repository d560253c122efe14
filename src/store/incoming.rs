//! A large message on its way to the disk: a segment of its own, written while the message arrives.
//!
//! So it never lies in memory, and the writer, which others wait for, has nothing to do with its octets. They are written
//! and synced a few MiB at a time, on threads that may block. The record's header is written last, when the message has
//! been decided, and the file then bears a segment's name; before that it is called `<16 hex>.part`, holds nothing that was
//! promised, and is deleted by whoever meets it: its owner's end, or the next start.
//!
//! **Invariant**: it is durable as a whole, its name too, before the row that names it commits. After a write or a sync that
//! failed it is given up, never written or synced again.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::raw::{Gate, Look, Raw, Stored};
use super::spool::{self, HEADER, Header, Numbers, Place};
use super::tally::Tally;
use super::writer::Shared;
use super::{StoreError, directory};
use crate::aside;
use crate::mail::MessageId;

/// So much is written before it is synced, so that the last sync is a short one.
const SYNC_EVERY: u64 = 4 << 20;

/// What a file is called until it is a segment.
const UNFINISHED: &str = "part";

/// One large message; dropped before it is sealed, it is gone.
#[derive(Debug)]
pub struct Incoming {
    spool: PathBuf,
    numbers: Arc<Numbers>,
    tally: Arc<Tally>,
    gate: Gate,
    /// `None` before the first octet, and after a failure.
    part: Option<Part>,
    failed: bool,
}

/// The file and what is known of it. Deletes it when dropped, unless it has become a segment.
#[derive(Debug)]
struct Part {
    file: Arc<File>,
    path: PathBuf,
    number: i64,
    numbers: Arc<Numbers>,
    crc: crc32fast::Hasher,
    size: u64,
    unsynced: u64,
    look: Look,
    sealed: Option<Place>,
}

impl Incoming {
    pub(super) fn new(shared: &Shared) -> Self {
        let (numbers, tally) = (Arc::clone(&shared.numbers), Arc::clone(&shared.tally));
        Self {
            spool: directory::spool(shared.reader.data_dir()),
            numbers,
            tally,
            gate: shared.reader.gate().clone(),
            part: None,
            failed: false,
        }
    }

    /// Octets that have come.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.part.as_ref().map_or(0, |part| part.size)
    }

    /// Writes the next octets.
    ///
    /// # Errors
    /// `Full`, `Failed`: what had come is gone.
    pub async fn push(&mut self, octets: impl AsRef<[u8]> + Send + 'static) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Failed("a part of the message couldn't be written before".to_owned()));
        }
        self.failed = true;
        if self.tally.low.load(Ordering::Relaxed) {
            self.part = None;
            return Err(StoreError::Full("the reserve of free space isn't for new mail".to_owned()));
        }
        let (part, spool, numbers) = (self.part.take(), self.spool.clone(), Arc::clone(&self.numbers));
        let written = blocking(move || {
            let mut part = part.map_or_else(|| Part::create(&spool, numbers), Ok)?;
            part.write(octets.as_ref())?;
            Ok(part)
        });
        self.part = Some(written.await?);
        self.failed = false;
        Ok(())
    }

    /// The octets as they lie there now.
    ///
    /// # Errors
    /// `Failed`: there are none.
    pub fn raw(&self) -> Result<Raw, StoreError> {
        let part = self.part.as_ref().ok_or_else(nothing_there)?;
        Ok(Raw::Stored(part.stored(self.gate.clone())))
    }

    /// The message is decided: makes it a segment that holds this one record, durably. When this returns, a row may name
    /// it. A second time does nothing.
    ///
    /// # Errors
    /// `Full`, `Failed`: it is gone.
    pub async fn seal(&mut self, id: MessageId, head: Bytes) -> Result<(), StoreError> {
        let mut part = self.part.take().ok_or_else(nothing_there)?;
        let spool = self.spool.clone();
        self.part = Some(blocking(move || part.seal(&spool, id, &head).map(|()| part)).await?);
        Ok(())
    }
}

fn nothing_there() -> StoreError {
    StoreError::Failed("nothing of the message was written".to_owned())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    aside::run(work)
        .await
        .map_err(|error| StoreError::Failed(format!("writing a message met a fault of its own: {error}")))?
}

impl Part {
    fn create(spool: &Path, numbers: Arc<Numbers>) -> Result<Self, StoreError> {
        let number = numbers.take_coming();
        let path = spool.join(spool::file_name(number)).with_extension(UNFINISHED);
        let created = directory::create(&path);
        let file = created.map_err(|e| {
            numbers.has_come(number);
            StoreError::io(&format!("create {}", path.display()), &e)
        })?;
        Ok(Self {
            file: Arc::new(file),
            path,
            number,
            numbers,
            crc: crc32fast::Hasher::new(),
            size: 0,
            unsynced: 0,
            look: Look::default(),
            sealed: None,
        })
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), StoreError> {
        let failed = |e: std::io::Error, path: &Path| StoreError::io(&format!("write {}", path.display()), &e);
        self.file.write_all_at(octets, HEADER as u64 + self.size).map_err(|e| failed(e, &self.path))?;
        self.crc.update(octets);
        self.look.at(octets);
        self.size += octets.len() as u64;
        self.unsynced += octets.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.file.sync_data().map_err(|e| failed(e, &self.path))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    fn seal(&mut self, spool: &Path, id: MessageId, head: &[u8]) -> Result<(), StoreError> {
        if self.sealed.is_some() {
            return Ok(());
        }
        let too_long = |_| StoreError::Failed("a message of 4 GiB or more".to_owned());
        let size = u32::try_from(self.size).map_err(too_long)?;
        let head_size = u32::try_from(head.len()).map_err(too_long)?;
        let mut crc = self.crc.clone();
        crc.update(head);
        let header = Header { body_first: true, id, head_size, size, crc: crc.finalize() };
        let path = spool.join(spool::file_name(self.number));
        let failed = |e: std::io::Error| StoreError::io(&format!("write {}", path.display()), &e);
        self.file.write_all_at(head, HEADER as u64 + self.size).map_err(failed)?;
        self.file.write_all_at(&header.octets(), 0).map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        std::fs::rename(&self.path, &path).map_err(failed)?;
        // From here on it isn't deleted any more by whoever drops this: a commit whose end isn't known may name it.
        self.sealed = Some(Place { segment: self.number, start: 0, head_size: head_size.into(), size: size.into() });
        directory::sync(spool)
    }

    fn stored(&self, gate: Gate) -> Stored {
        let length = usize::try_from(self.size).unwrap_or(usize::MAX);
        let at = (self.number, HEADER as u64);
        Stored::new(Arc::clone(&self.file), at, length, self.look.facts(), gate).sealed(self.sealed)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.sealed.is_none() {
            // What stays there goes at the next start.
            let _best_effort = std::fs::remove_file(&self.path);
        }
        self.numbers.has_come(self.number);
    }
}

/// Deletes what was under way when the store was open the last time.
pub(super) fn remove_unfinished(spool: &Path) -> Result<(), StoreError> {
    let failed = |e: std::io::Error| StoreError::io(&format!("read {}", spool.display()), &e);
    for entry in std::fs::read_dir(spool).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let named = path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.len() == 16);
        if named && path.extension().is_some_and(|extension| extension == UNFINISHED) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(StoreError::io(&format!("delete {}", path.display()), &error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
