//! Octets of mail in append-only segment files, `spool/<16 hex>.seg`: deleted whole, never changed.
//!
//! A group's records are planned first (so that rows can name them), then written in one gathered write and synced
//! before those rows commit. A record is a header (magic, message, lengths, CRC of the content, CRC of the header) and
//! the content: our trace fields, then the octets as received, or the other way round.
//!
//! Each opening of a store begins a new segment, and an error abandons one for good. Nothing is ever written or synced
//! again in a file whose dirty pages a failed sync may have dropped, and a tail torn by a crash needs no repair: no row
//! names it, so it goes with its segment. (Cutting it off would gain a few KiB and be one more write to a file that
//! holds accepted mail.)

use std::fs::File;
use std::io::{IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::{Bytes, BytesMut};

use super::{StoreError, directory};
use crate::mail::MessageId;

mod copying;
mod reading;

pub(super) use copying::Proved;
pub(super) use reading::{Unreadable, prove, read};

/// Its last octet is the format's version: the head before the body, or behind it.
pub(super) const MAGIC: [u8; 4] = *b"MWR1";
pub(super) const MAGIC_BODY_FIRST: [u8; 4] = *b"MWR2";
/// Magic, id, length of head, length of body, CRC of the content, CRC of all that.
pub(super) const HEADER: usize = 4 + 16 + 4 + 4 + 4 + 4;

/// Segments are numbered below this; a row or a file that says otherwise is damaged.
pub(super) const MAX_SEGMENT: i64 = 1 << 48;

/// Where a message's record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub segment: i64,
    pub start: i64,
    pub head_size: i64,
    pub size: i64,
}

/// The writer's side.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    segment_size: u64,
    open: Option<Segment>,
    /// What the next new file is called.
    next: Arc<AtomicI64>,
}

#[derive(Debug)]
struct Segment {
    number: i64,
    file: File,
    end: u64,
}

/// Records of one group, not yet written.
#[derive(Debug)]
pub(super) struct Plan {
    segment: i64,
    base: u64,
    planned: u64,
    chunks: Vec<Bytes>,
}

/// A point in a plan to go back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    planned: u64,
    chunks: usize,
}

impl Plan {
    /// Appends a record; its place is what the message's row names.
    pub(super) fn add(&mut self, id: MessageId, head: &Bytes, body: &Bytes) -> Result<Place, StoreError> {
        let too_long = |_| StoreError::Failed("a message of 4 GiB or more".to_owned());
        let (head_size, size) =
            (u32::try_from(head.len()).map_err(too_long)?, u32::try_from(body.len()).map_err(too_long)?);
        let start = self.base + self.planned;
        let mut crc = crc32fast::Hasher::new();
        crc.update(head);
        crc.update(body);
        self.chunks.push(Header { body_first: false, id, head_size, size, crc: crc.finalize() }.octets());
        self.chunks.extend([head, body].into_iter().filter(|part| !part.is_empty()).cloned());
        self.planned += HEADER as u64 + u64::from(head_size) + u64::from(size);
        Ok(Place {
            segment: self.segment,
            start: i64::try_from(start).unwrap_or(i64::MAX),
            head_size: head_size.into(),
            size: size.into(),
        })
    }

    /// The segment that it begins, if it does.
    pub(super) fn begins(&self) -> Option<i64> {
        (self.base == 0 && self.planned > 0).then_some(self.segment)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { planned: self.planned, chunks: self.chunks.len() }
    }

    pub(super) fn back_to(&mut self, mark: Mark) {
        self.planned = mark.planned;
        self.chunks.truncate(mark.chunks);
    }
}

/// What a record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The body lies before the head: it was written while it arrived, and the head is known only at its end.
    pub body_first: bool,
    pub id: MessageId,
    pub head_size: u32,
    pub size: u32,
    /// Of the content, in the order in which it lies.
    pub crc: u32,
}

impl Header {
    /// `None` where these octets are no header.
    pub(super) fn parse(octets: &[u8; HEADER]) -> Option<Self> {
        let (content, own) = octets.split_last_chunk::<4>()?;
        let (magic, rest) = content.split_first_chunk::<4>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (head_size, rest) = rest.split_first_chunk::<4>()?;
        let (size, crc) = rest.split_first_chunk::<4>()?;
        let crc = crc.first_chunk::<4>()?;
        let body_first = *magic == MAGIC_BODY_FIRST;
        if !(body_first || *magic == MAGIC) || crc32fast::hash(content) != u32::from_be_bytes(*own) {
            return None;
        }
        Some(Self {
            body_first,
            id: MessageId::from_bytes(*id),
            head_size: u32::from_be_bytes(*head_size),
            size: u32::from_be_bytes(*size),
            crc: u32::from_be_bytes(*crc),
        })
    }

    pub(super) fn octets(&self) -> Bytes {
        let mut header = BytesMut::with_capacity(HEADER);
        header.extend_from_slice(if self.body_first { &MAGIC_BODY_FIRST } else { &MAGIC });
        header.extend_from_slice(&self.id.to_bytes());
        for number in [self.head_size, self.size, self.crc] {
            header.extend_from_slice(&number.to_be_bytes());
        }
        let own = crc32fast::hash(&header);
        header.extend_from_slice(&own.to_be_bytes());
        header.freeze()
    }

    /// How many octets lie behind it.
    pub(super) fn content(&self) -> u64 {
        u64::from(self.head_size) + u64::from(self.size)
    }
}

impl Spool {
    /// `next`: a number that no file and no row has used.
    pub(super) fn new(directory: PathBuf, segment_size: u64, next: i64) -> Self {
        Self { directory, segment_size, open: None, next: Arc::new(AtomicI64::new(next)) }
    }

    /// Another that writes segments of its own beside this one's.
    pub(super) fn beside(&self) -> Self {
        let (directory, next) = (self.directory.clone(), Arc::clone(&self.next));
        Self { directory, segment_size: self.segment_size, open: None, next }
    }

    /// What the next new file is called: all there are have lower numbers.
    pub(super) fn next(&self) -> i64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Where the next group's records go. The file may not be there yet.
    pub(super) fn plan(&mut self) -> Plan {
        if self.open.as_ref().is_some_and(|segment| segment.end >= self.segment_size) {
            self.abandon();
        }
        let (segment, base) = self.open.as_ref().map_or((self.next(), 0), |segment| (segment.number, segment.end));
        Plan { segment, base, planned: 0, chunks: Vec::new() }
    }

    /// Writes and syncs what was planned; when this returns, rows may name it. How many octets.
    ///
    /// # Errors
    /// `Full`, `Failed`: the segment is abandoned, and the rows of the plan must be rolled back.
    pub(super) fn write(&mut self, plan: &Plan) -> Result<u64, StoreError> {
        if plan.planned == 0 {
            return Ok(0);
        }
        let written = self.write_all(plan);
        if written.is_err() {
            self.discard();
        }
        written.map(|()| plan.planned)
    }

    /// After a failure the segment is never written to again.
    fn discard(&mut self) {
        if let Some(segment) = self.open.take()
            && segment.end == 0
        {
            // No row has ever named it: on a full disk it would only be in the way. Else retention takes it.
            let _best_effort = std::fs::remove_file(self.directory.join(file_name(segment.number)));
        }
    }

    fn write_all(&mut self, plan: &Plan) -> Result<(), StoreError> {
        if self.open.is_none() {
            self.open = Some(self.create()?);
        }
        let Some(segment) = &mut self.open else { return Err(StoreError::Failed("no segment is open".to_owned())) };
        if (segment.number, segment.end) != (plan.segment, plan.base) {
            return Err(StoreError::Failed("the segment has moved under its plan".to_owned()));
        }
        let mut slices: Vec<IoSlice> = plan.chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
        write_gathered(&mut segment.file, &mut slices)
            .and_then(|()| segment.file.sync_data())
            .map_err(|e| StoreError::io(&format!("write spool/{}", file_name(segment.number)), &e))?;
        segment.end += plan.planned;
        Ok(())
    }

    fn create(&mut self) -> Result<Segment, StoreError> {
        let number = self.next();
        let path = self.directory.join(file_name(number));
        let created = directory::create(&path);
        // Whatever became of it, this name isn't used again.
        self.next.store(number + 1, Ordering::Relaxed);
        let file = created.map_err(|e| StoreError::io(&format!("create {}", path.display()), &e))?;
        // The file's name must be durable before a row leads to it.
        directory::sync(&self.directory)?;
        Ok(Segment { number, file, end: 0 })
    }

    /// Goes on in `file`, for faults that only another kind of file has.
    #[cfg(test)]
    pub(super) fn open_as(&mut self, file: File) {
        self.open = Some(Segment { number: self.next.fetch_add(1, Ordering::Relaxed), file, end: 0 });
    }

    /// Never writes to or syncs the current segment again.
    pub(super) fn abandon(&mut self) {
        self.open = None;
    }

    /// Goes on in another segment, if it is in this one.
    pub(super) fn leave(&mut self, segment: i64) {
        self.open.take_if(|open| open.number == segment);
    }

    /// Whether it is being written, or isn't there yet.
    pub(super) fn is_open(&self, segment: i64) -> bool {
        segment >= self.next() || self.open.as_ref().is_some_and(|open| open.number == segment)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

fn write_gathered(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> std::io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) fn file_name(segment: i64) -> String {
    format!("{segment:016x}.seg")
}

/// The segments in a spool, in order.
pub(super) fn segments(directory: &Path) -> Result<Vec<i64>, StoreError> {
    let failed = |e: std::io::Error| StoreError::io(&format!("read {}", directory.display()), &e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg")).filter(|stem| stem.len() == 16);
        let number = number.and_then(|stem| i64::from_str_radix(stem, 16).ok());
        found.extend(number.filter(|number| (0..MAX_SEGMENT).contains(number)));
    }
    found.sort_unstable();
    Ok(found)
}
