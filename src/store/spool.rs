//! Octets of mail in append-only segment files, `spool/<16 hex>.seg`: deleted whole, never changed.
//!
//! A group's records are planned first (so that rows can name them), then written in one gathered write and synced
//! before those rows commit. A record is a header (magic, message, lengths, CRC of the content, CRC of the header) and
//! the content: our trace fields, then the octets as received, or the other way round. Behind the last record there may
//! be zeros.
//!
//! Each opening of a store begins a new segment, and an error abandons one for good. Nothing is ever written or synced
//! again in a file whose dirty pages a failed sync may have dropped, and a tail torn by a crash needs no repair: no row
//! names it, so it goes with its segment. (Cutting it off would gain a few KiB and be one more write to a file that
//! holds accepted mail.)

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// How far a segment is made ready ahead of its records.
const AHEAD: u64 = 1 << 20;

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
    numbers: Arc<Numbers>,
    /// What the next file of this spool is called, where that was settled already.
    reserved: Option<i64>,
}

/// The numbers of segments: each is given once.
#[derive(Debug)]
pub(super) struct Numbers {
    next: AtomicI64,
    /// Of segments that come in by themselves, and whose rows haven't been committed or refused.
    coming: Mutex<BTreeSet<i64>>,
}

impl Numbers {
    /// `next`: a number that no file and no row has used.
    pub(super) fn new(next: i64) -> Arc<Self> {
        Arc::new(Self { next: AtomicI64::new(next), coming: Mutex::default() })
    }

    fn take(&self) -> i64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// For a segment that comes in by itself, until [`Self::has_come`].
    pub(super) fn take_coming(&self) -> i64 {
        let mut coming = self.coming();
        let number = self.take();
        coming.insert(number);
        number
    }

    pub(super) fn has_come(&self, number: i64) {
        self.coming().remove(&number);
    }

    fn coming(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Segment {
    number: i64,
    file: File,
    end: u64,
    /// Up to here the disk has room for it, written with zeros.
    ready: u64,
}

/// Records of one group, not yet written.
#[derive(Debug)]
pub(super) struct Plan {
    segment: i64,
    base: u64,
    planned: u64,
    chunks: Vec<Bytes>,
    /// Segments of large messages that are written already, and their octets.
    apart: Vec<(i64, u64)>,
}

/// A point in a plan to go back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    planned: u64,
    chunks: usize,
    apart: usize,
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

    /// A record that is written and durable already, in a segment of its own.
    pub(super) fn add_apart(&mut self, place: Place) -> Place {
        let content = u64::try_from(place.head_size.saturating_add(place.size)).unwrap_or(0);
        self.apart.push((place.segment, content.saturating_add(HEADER as u64)));
        place
    }

    /// Octets of the records that were written before.
    pub(super) fn octets_apart(&self) -> u64 {
        self.apart.iter().map(|(_, octets)| octets).sum()
    }

    /// The highest of the segments that begin with it, if any do.
    pub(super) fn begins(&self) -> Option<i64> {
        let own = (self.base == 0 && self.planned > 0).then_some(self.segment);
        own.max(self.apart.iter().map(|(segment, _)| *segment).max())
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { planned: self.planned, chunks: self.chunks.len(), apart: self.apart.len() }
    }

    pub(super) fn back_to(&mut self, mark: Mark) {
        self.planned = mark.planned;
        self.chunks.truncate(mark.chunks);
        self.apart.truncate(mark.apart);
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
    pub(super) fn new(directory: PathBuf, segment_size: u64, numbers: Arc<Numbers>) -> Self {
        Self { directory, segment_size, open: None, numbers, reserved: None }
    }

    /// Another that writes segments of its own beside this one's.
    pub(super) fn beside(&self) -> Self {
        Self::new(self.directory.clone(), self.segment_size, Arc::clone(&self.numbers))
    }

    /// What the next new file is called: all there are have lower numbers.
    pub(super) fn next(&self) -> i64 {
        self.numbers.next.load(Ordering::Relaxed)
    }

    /// Where the next group's records go. The file may not be there yet.
    pub(super) fn plan(&mut self) -> Plan {
        if self.open.as_ref().is_some_and(|segment| segment.end >= self.segment_size) {
            self.abandon();
        }
        let (segment, base) = match &self.open {
            Some(open) => (open.number, open.end),
            None => (*self.reserved.get_or_insert_with(|| self.numbers.take()), 0),
        };
        Plan { segment, base, planned: 0, chunks: Vec::new(), apart: Vec::new() }
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
        segment.ready = segment.ready.max(segment.end);
        Ok(())
    }

    /// Writes zeros ahead of the records, some at a time: to sync what is written in their place costs half of what it
    /// costs to sync a file that grows. To be called while nobody waits.
    ///
    /// # Errors
    /// `Full`, `Failed`: the segment is abandoned.
    pub(super) fn make_ready(&mut self) -> Result<(), StoreError> {
        let Some(segment) = &mut self.open else { return Ok(()) };
        if segment.end + AHEAD / 2 < segment.ready || segment.ready >= self.segment_size {
            return Ok(());
        }
        let length = AHEAD.min(self.segment_size - segment.ready);
        let written = write_zeros(&segment.file, segment.ready, length).and_then(|()| segment.file.sync_data());
        if let Err(error) = written {
            let error = StoreError::io(&format!("write spool/{}", file_name(segment.number)), &error);
            self.abandon();
            return Err(error);
        }
        segment.ready += length;
        Ok(())
    }

    fn create(&mut self) -> Result<Segment, StoreError> {
        // Whatever becomes of it, this name isn't used again.
        let number = self.reserved.take().unwrap_or_else(|| self.numbers.take());
        let path = self.directory.join(file_name(number));
        let file = directory::create(&path).map_err(|e| StoreError::io(&format!("create {}", path.display()), &e))?;
        // The file's name must be durable before a row leads to it.
        directory::sync(&self.directory)?;
        Ok(Segment { number, file, end: 0, ready: 0 })
    }

    /// Goes on in `file`, for faults that only another kind of file has.
    #[cfg(test)]
    pub(super) fn open_as(&mut self, file: File) {
        self.open = Some(Segment { number: self.numbers.take(), file, end: 0, ready: 0 });
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
        segment >= self.next()
            || self.reserved == Some(segment)
            || self.open.as_ref().is_some_and(|open| open.number == segment)
            || self.numbers.coming().contains(&segment)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

fn write_zeros(file: &File, mut at: u64, length: u64) -> std::io::Result<()> {
    // The same ones over and over: memory for all of them would be new to the system each time.
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut left = usize::try_from(length).unwrap_or(usize::MAX);
    while let Some(some) = ZEROS.get(..left.min(ZEROS.len())).filter(|some| !some.is_empty()) {
        file.write_all_at(some, at)?;
        at += some.len() as u64;
        left -= some.len();
    }
    Ok(())
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
