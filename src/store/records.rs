//! The records of a segment one after another, as their headers tell; what is damaged is passed over to the next that is whole.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::spool::{HEADER, Header, MAGIC, MAGIC_BODY_FIRST};
use crate::mail::MessageId;

/// Octets looked through at once for the next header.
const PIECE: usize = 64 << 10;

/// One record, by its header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub id: MessageId,
    pub start: u64,
    pub head_size: u32,
    pub size: u32,
    /// The file goes on to its end.
    pub whole: bool,
}

/// Reads headers alone, never the octets of mail.
#[derive(Debug)]
pub(super) struct Records {
    file: File,
    at: u64,
    length: u64,
}

impl Records {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(std::io::Error::other("it is no file"));
        }
        Ok(Self { file, at: 0, length: metadata.len() })
    }

    /// `None` at the end.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Record>> {
        while self.at.saturating_add(HEADER as u64) <= self.length {
            let mut header = [0; HEADER];
            self.file.read_exact_at(&mut header, self.at)?;
            let start = self.at;
            if let Some(header) = Header::parse(&header) {
                let Header { id, head_size, size, .. } = header;
                self.at += HEADER as u64 + header.content();
                return Ok(Some(Record { id, start, head_size, size, whole: self.at <= self.length }));
            }
            self.at = self.magic(start + 1)?;
        }
        Ok(None)
    }

    /// Where the next header may begin.
    fn magic(&self, mut from: u64) -> std::io::Result<u64> {
        let mut piece = vec![0; PIECE];
        loop {
            let read = self.file.read_at(&mut piece, from)?;
            let octets = piece.get(..read).unwrap_or_default();
            let begins = |octets: &[u8]| octets == MAGIC || octets == MAGIC_BODY_FIRST;
            if let Some(found) = octets.windows(MAGIC.len()).position(begins) {
                return Ok(from + found as u64);
            }
            if read < MAGIC.len() {
                return Ok(self.length);
            }
            from += (read - MAGIC.len() + 1) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Timestamp;

    fn record(n: u128, content: &[u8]) -> Vec<u8> {
        let body_first = n.is_multiple_of(2);
        let id = MessageId::new(Timestamp::from_millis(1), n);
        let size = u32::try_from(content.len()).unwrap();
        let header = Header { body_first, id, head_size: 0, size, crc: crc32fast::hash(content) };
        [&header.octets()[..], content].concat()
    }

    fn starts(octets: &[u8]) -> Vec<(u64, bool)> {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("segment");
        std::fs::write(&path, octets).unwrap();
        let mut records = Records::open(&path).unwrap();
        let mut found = Vec::new();
        while let Some(record) = records.next().unwrap() {
            found.push((record.start, record.whole));
        }
        found
    }

    #[test]
    fn records_behind_damage_are_met_and_a_torn_one_is_told() {
        let (one, two) = (record(1, b"one"), record(2, b"MWR1 in its text"));
        assert_eq!(starts(b""), []);
        assert_eq!(starts(b"MWR1 torn"), []);
        assert_eq!(starts(&vec![0; 100_000]), []);
        assert_eq!(starts(&[&one[..], &two].concat()), [(0, true), (39, true)]);
        assert_eq!(starts(&[&one[..], &two[..50]].concat()), [(0, true), (39, false)]);
        let mut damaged = [&one[..], &two, &one].concat();
        damaged[20] ^= 1;
        assert_eq!(starts(&damaged), [(39, true), (91, true)]);
        let gap = [&vec![b'M'; 70_000][..], &one].concat();
        assert_eq!(starts(&gap), [(70_000, true)]);
    }
}
