//! The octets that rows name: each record read from its segment in pieces and held against its checksums.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use super::super::spool::{self, Place, Unreadable};
use crate::mail::MessageId;
use crate::store::StoreError;

/// Octets read at once.
const PIECE: usize = 256 << 10;
/// Segments kept open.
const OPEN: usize = 16;

/// What a record is found to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Whole,
    Missing,
    Damaged(String),
}

/// Reads records, and remembers which segments are missing and how many rows name them.
pub(super) struct Octets {
    directory: PathBuf,
    open: BTreeMap<i64, File>,
    piece: Vec<u8>,
    pub missing: BTreeMap<i64, u64>,
}

impl Octets {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, open: BTreeMap::new(), piece: vec![0; PIECE], missing: BTreeMap::new() }
    }

    /// # Errors
    /// `Failed` where the disk can't be read; a bad sector is an error of the disk, not a finding.
    pub(super) fn verify(&mut self, id: MessageId, place: Place) -> Result<Record, StoreError> {
        let path = self.directory.join(spool::file_name(place.segment));
        let failed = |error: std::io::Error| StoreError::io(&format!("read {}", path.display()), &error);
        if !self.open.contains_key(&place.segment) {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Record::Missing),
                Err(error) => return Err(failed(error)),
            };
            if self.open.len() >= OPEN {
                self.open.clear();
            }
            self.open.insert(place.segment, file);
        }
        let Some(file) = self.open.get(&place.segment) else { return Ok(Record::Missing) };
        match spool::prove(file, id, place, &mut self.piece, |_| ()) {
            Ok(_) => Ok(Record::Whole),
            Err(Unreadable::Missing) => Ok(Record::Missing),
            Err(Unreadable::Damaged(what)) => Ok(Record::Damaged(what)),
            Err(Unreadable::Io(error)) => Err(failed(error)),
        }
    }
}
