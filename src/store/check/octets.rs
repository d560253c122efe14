//! The octets that rows name: each record read from its segment in pieces and held against its checksums.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::super::spool::{self, HEADER, Place};
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
        verify(file, &mut self.piece, id, place).map_err(failed)
    }
}

fn verify(file: &File, piece: &mut [u8], id: MessageId, place: Place) -> std::io::Result<Record> {
    let damaged = |what: &str| {
        Ok(Record::Damaged(format!("spool/{} at {}: {what}", spool::file_name(place.segment), place.start)))
    };
    let (Ok(start), Ok(head_size), Ok(size)) =
        (u64::try_from(place.start), u32::try_from(place.head_size), u32::try_from(place.size))
    else {
        return damaged("its row holds numbers that can't be");
    };
    let (content, header_size) = (u64::from(head_size) + u64::from(size), HEADER as u64);
    if start.saturating_add(header_size + content) > file.metadata()?.len() {
        return damaged("the file ends before the record does");
    }
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, start)?;
    let mut crc = crc32fast::Hasher::new();
    let (mut at, mut left) = (start + header_size, content);
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        let Some(octets) = piece.get_mut(..length) else { break };
        file.read_exact_at(octets, at)?;
        crc.update(octets);
        at += length as u64;
        left -= length as u64;
    }
    if header == *spool::header(id, head_size, size, crc.finalize()) {
        return Ok(Record::Whole);
    }
    damaged(if spool::read_header(&header).is_some() { "its checksum is wrong" } else { "no record begins here" })
}
