//! Takes records over into segments of this spool: small ones in one write, large ones piece by piece, so that none is in
//! memory as a whole.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::{HEADER, Place, Spool, file_name};
use crate::mail::MessageId;
use crate::store::StoreError;
use crate::store::raw::Raw;

/// Octets copied at once.
const PIECE: usize = 256 * 1024;

/// A record that has been read and proved whole.
#[derive(Debug)]
pub(in crate::store) struct Proved {
    pub id: MessageId,
    pub place: Place,
    pub head: Bytes,
    pub raw: Raw,
}

/// What was taken over.
#[derive(Debug, Default)]
pub(in crate::store) struct Taken {
    /// Where each lies now.
    pub moved: Vec<(MessageId, Place)>,
    /// Segments that were begun by it.
    pub begun: Vec<i64>,
    pub octets: u64,
}

impl Spool {
    /// Copies `records` of the segment `from`. All of them are durable when this returns, and rows may name them.
    ///
    /// # Errors
    /// `Full`, `Failed`: the segment written to is abandoned, and no row may name what was to go there.
    pub(in crate::store) fn take_over(&mut self, from: &File, records: &[Proved]) -> Result<Taken, StoreError> {
        let mut taken = Taken::default();
        for record in records.iter().filter(|record| record.raw.here().is_none()) {
            let copied = self.copy(from, record.place);
            if copied.is_err() {
                self.discard();
            }
            let (place, octets) = copied?;
            taken.octets += octets;
            taken.begun.extend((place.start == 0).then_some(place.segment));
            taken.moved.push((record.id, place));
        }
        let mut plan = self.plan();
        for record in records {
            if let Some(body) = record.raw.here() {
                taken.moved.push((record.id, plan.add(record.id, &record.head, body)?));
            }
        }
        taken.octets += self.write(&plan)?;
        taken.begun.extend(plan.begins());
        Ok(taken)
    }

    /// Appends a record as it lies and syncs it.
    fn copy(&mut self, from: &File, place: Place) -> Result<(Place, u64), StoreError> {
        if self.open.as_ref().is_some_and(|segment| segment.end >= self.segment_size) {
            self.abandon();
        }
        if self.open.is_none() {
            self.open = Some(self.create()?);
        }
        let Some(segment) = &mut self.open else { return Err(StoreError::Failed("no segment is open".to_owned())) };
        let (number, start) = (segment.number, segment.end);
        let failed = |doing: &str, segment: i64, error: &std::io::Error| {
            StoreError::io(&format!("{doing} spool/{}", file_name(segment)), error)
        };
        let content = u64::try_from(place.head_size.saturating_add(place.size)).unwrap_or_default();
        let octets = HEADER as u64 + content;
        let (mut piece, mut left) = (vec![0; PIECE], usize::try_from(octets).unwrap_or(usize::MAX));
        let mut at = u64::try_from(place.start).unwrap_or_default();
        while left > 0 {
            let Some(some) = piece.get_mut(..left.min(PIECE)) else { break };
            from.read_exact_at(some, at).map_err(|e| failed("read", place.segment, &e))?;
            segment.file.write_all(some).map_err(|e| failed("write", number, &e))?;
            at += some.len() as u64;
            left -= some.len();
        }
        segment.file.sync_data().map_err(|e| failed("write", number, &e))?;
        segment.end += octets;
        segment.ready = segment.ready.max(segment.end);
        Ok((Place { segment: number, start: i64::try_from(start).unwrap_or(i64::MAX), ..place }, octets))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mail::Timestamp;
    use crate::store::raw::{Gate, LARGE};
    use crate::store::spool::{self, Header, Numbers};

    #[tokio::test]
    async fn large_records_in_either_order_and_small_ones_are_taken_over_whole() {
        let dir = tempfile::TempDir::new().unwrap();
        let (head, gate) = (b"Received: by us\r\n", Gate::default());
        let mut file = tempfile::tempfile().unwrap();
        let (mut written, mut start) = (Vec::new(), 0);
        for (n, length) in [10, LARGE + 10, 20, 2 * PIECE, 30].into_iter().enumerate() {
            let id = MessageId::new(Timestamp::from_millis(1), n as u128);
            let body = vec![b'a' + u8::try_from(n).unwrap(); length];
            let body_first = n == 3;
            let content = if body_first { [&body[..], head].concat() } else { [head, &body[..]].concat() };
            let (head_size, size) = (u32::try_from(head.len()).unwrap(), u32::try_from(length).unwrap());
            let header = Header { body_first, id, head_size, size, crc: crc32fast::hash(&content) };
            file.write_all(&header.octets()).unwrap();
            file.write_all(&content).unwrap();
            written.push((id, Place { segment: 1, start, head_size: head_size.into(), size: size.into() }, body));
            start += i64::try_from(HEADER + content.len()).unwrap();
        }
        let file = Arc::new(file);
        let proved = |(id, place, _): &(MessageId, Place, Vec<u8>)| {
            let (head, raw) = spool::read(&file, *id, *place, &gate).unwrap();
            Proved { id: *id, place: *place, head, raw }
        };
        let records: Vec<Proved> = written.iter().map(proved).collect();
        let mut spool = Spool::new(dir.path().to_owned(), LARGE as u64, Numbers::new(7));
        let taken = spool.take_over(&file, &records).unwrap();
        assert_eq!((taken.begun, taken.octets), (vec![7, 8, 9], u64::try_from(start).unwrap()));
        assert_eq!(taken.moved.len(), written.len());
        for (id, place) in taken.moved {
            let name = dir.path().join(file_name(place.segment));
            let (found, raw) = spool::read(&Arc::new(File::open(name).unwrap()), id, place, &gate).unwrap();
            let (_, _, body) = written.iter().find(|(other, ..)| *other == id).unwrap();
            assert!(found == head[..] && raw.whole().await.unwrap() == *body, "{id}");
        }
    }
}
