//! A message's octets: in memory, or in the segment where they lie. What is large is never in memory by itself.
//!
//! Whoever sends a stored one on reads it piece by piece. Whoever needs all of it at once (a worker's run, a webhook
//! made from the message) loads it under a gate that bounds how much is loaded at a time.
//! Never: hold one that is loaded and wait for another; two that do so with the last of the gate would wait for ever.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::MmapMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::spool::Place;
use super::{StoreError, spool};
use crate::aside;

/// A message longer than this lies in its segment; a shorter one is held in memory.
pub const LARGE: usize = 256 * 1024;
/// What may be loaded at once, in KiB.
const GATE_KIB: u32 = 64 * 1024;
/// Parsing decodes: a message that is loaded takes about twice its size.
const COST: usize = 2;
/// Octets read at once where all of them pass by.
const PIECE: usize = 256 * 1024;

/// A message's octets as received.
#[derive(Debug, Clone)]
pub enum Raw {
    Here(Bytes),
    Stored(Stored),
}

impl Raw {
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Here(octets) => octets.len(),
            Self::Stored(stored) => stored.length,
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The octets, where they are in memory.
    #[must_use]
    pub fn here(&self) -> Option<&Bytes> {
        match self {
            Self::Here(octets) => Some(octets),
            Self::Stored(_) => None,
        }
    }

    /// Octets of it that are in memory.
    pub(super) fn in_memory(&self) -> usize {
        self.here().map_or(0, Bytes::len)
    }

    /// All of it: at once where it is in memory, else when the gate has room. It is given back with the last clone.
    ///
    /// # Errors
    /// `Failed` where it can't be read now.
    pub async fn whole(&self) -> Result<Bytes, StoreError> {
        match self {
            Self::Here(octets) => Ok(octets.clone()),
            Self::Stored(stored) => stored.whole().await,
        }
    }

    /// All of it, by calls that block and by no gate: the caller bounds how many it holds at once.
    ///
    /// # Errors
    /// `Failed` where it can't be read now.
    pub fn load(&self) -> Result<Bytes, StoreError> {
        match self {
            Self::Here(octets) => Ok(octets.clone()),
            Self::Stored(stored) => Ok(Bytes::from_owner(stored.mapped()?)),
        }
    }

    /// All of it where it is in memory, else its first [`LARGE`] octets, which hold its header. Waits for no gate.
    ///
    /// # Errors
    /// `Failed` where it can't be read now.
    pub async fn beginning(&self) -> Result<Bytes, StoreError> {
        match self {
            Self::Here(octets) => Ok(octets.clone()),
            Self::Stored(stored) => {
                let stored = stored.clone();
                reading(move || Ok(stored.first(LARGE)?.into())).await
            }
        }
    }

    /// Writes all of it to `out`, piece by piece, by calls that block.
    ///
    /// # Errors
    /// Those of reading and of `out`.
    pub fn write_to(&self, out: &mut impl Write) -> std::io::Result<()> {
        let stored = match self {
            Self::Here(octets) => return out.write_all(octets),
            Self::Stored(stored) => stored,
        };
        let mut piece = vec![0; PIECE.min(stored.length)];
        let mut at = 0;
        while at < stored.length {
            let length = piece.len().min(stored.length - at);
            let Some(octets) = piece.get_mut(..length) else { break };
            stored.read_at(at, octets)?;
            out.write_all(octets)?;
            at += length;
        }
        Ok(())
    }

    #[must_use]
    pub fn is_ascii(&self) -> bool {
        match self {
            Self::Here(octets) => octets.is_ascii(),
            Self::Stored(stored) => stored.facts.ascii,
        }
    }

    /// Whether all octets before the first empty line are.
    #[must_use]
    pub fn has_ascii_header(&self) -> bool {
        match self {
            Self::Here(octets) => {
                let end = memchr::memmem::find(octets, b"\r\n\r\n").unwrap_or(octets.len());
                octets.get(..end).unwrap_or_default().is_ascii()
            }
            Self::Stored(stored) => stored.facts.ascii_header,
        }
    }
}

#[cfg(test)]
impl Raw {
    /// `octets` in a file that has lost the last `lost` of them since they were proved.
    pub(crate) fn in_file(octets: &[u8], lost: usize) -> Self {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&octets[..octets.len() - lost]).unwrap();
        let mut look = Look::default();
        look.at(octets);
        Self::Stored(Stored::new(Arc::new(file), (1, 0), octets.len(), look.facts(), Gate::default()))
    }
}

impl From<Bytes> for Raw {
    fn from(octets: Bytes) -> Self {
        Self::Here(octets)
    }
}

/// Octets that lie in a segment and have been proved whole. The file stays open for as long as they may be read, and so
/// they are there even when retention has taken its name.
#[derive(Debug, Clone)]
pub struct Stored {
    file: Arc<File>,
    segment: i64,
    /// Where in the file they begin.
    start: u64,
    length: usize,
    facts: Facts,
    gate: Gate,
    /// The record that it is, where it was sealed to be accepted.
    record: Option<Place>,
}

impl Stored {
    pub(super) fn new(file: Arc<File>, (segment, start): (i64, u64), length: usize, facts: Facts, gate: Gate) -> Self {
        Self { file, segment, start, length, facts, gate, record: None }
    }

    /// With the place of its record, which is durable; `None`: it isn't there yet.
    pub(super) fn sealed(self, record: Option<Place>) -> Self {
        Self { record, ..self }
    }

    /// Where its record lies, for the row that is to name it.
    pub(super) fn record(&self) -> Option<Place> {
        self.record
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Fills `octets` from the `at`th of the message on, by a call that blocks.
    ///
    /// # Errors
    /// Those of the disk; `UnexpectedEof` where there aren't as many.
    pub fn read_at(&self, at: usize, octets: &mut [u8]) -> std::io::Result<()> {
        if at.saturating_add(octets.len()) > self.length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(octets, self.start.saturating_add(at as u64))
    }

    /// What is said of a read that failed.
    #[must_use]
    pub fn unreadable(&self, error: &std::io::Error) -> StoreError {
        StoreError::io(&format!("read spool/{}", spool::file_name(self.segment)), error)
    }

    async fn whole(&self) -> Result<Bytes, StoreError> {
        let place = self.gate.enter(self.length).await?;
        let stored = self.clone();
        // The place goes along: whoever asked may have gone away while the disk is still at it.
        reading(move || Ok(Bytes::from_owner(Loaded { octets: stored.mapped()?, _place: place }))).await
    }

    /// All of it, in pages of its own: the allocator would keep them for a time for each thread that has loaded one.
    fn mapped(&self) -> Result<MmapMut, StoreError> {
        let mut pages = MmapMut::map_anon(self.length).map_err(|error| self.unreadable(&error))?;
        self.read_at(0, &mut pages).map_err(|error| self.unreadable(&error))?;
        Ok(pages)
    }

    fn first(&self, count: usize) -> Result<Vec<u8>, StoreError> {
        let mut octets = vec![0; count.min(self.length)];
        self.read_at(0, &mut octets).map_err(|error| self.unreadable(&error))?;
        Ok(octets)
    }
}

async fn reading(read: impl FnOnce() -> Result<Bytes, StoreError> + Send + 'static) -> Result<Bytes, StoreError> {
    aside::run(read).await.map_err(|error| StoreError::Failed(format!("reading met a fault of its own: {error}")))?
}

struct Loaded {
    octets: MmapMut,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Loaded {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

/// Bounds what is loaded at once. First come, first served, so that a large one isn't passed by for ever.
#[derive(Debug, Clone)]
pub(super) struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(GATE_KIB as usize)))
    }
}

impl Gate {
    /// One that costs more than there is goes alone.
    async fn enter(&self, length: usize) -> Result<OwnedSemaphorePermit, StoreError> {
        let kib = u32::try_from((length / 1024).saturating_mul(COST)).unwrap_or(GATE_KIB).clamp(1, GATE_KIB);
        Arc::clone(&self.0).acquire_many_owned(kib).await.map_err(|_| StoreError::Closed)
    }
}

/// What a next hop must know of a message before its octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub ascii: bool,
    pub ascii_header: bool,
}

/// Gathers the facts of a message that passes by in pieces.
#[derive(Debug)]
pub(super) struct Look {
    facts: Facts,
    /// Octets of the empty line (CRLF CRLF) that ends the header, so far; `None`: it is past.
    ending: Option<u8>,
}

impl Default for Look {
    fn default() -> Self {
        Self { facts: Facts { ascii: true, ascii_header: true }, ending: Some(0) }
    }
}

impl Look {
    /// The next octets of the message.
    pub(super) fn at(&mut self, octets: &[u8]) {
        self.facts.ascii &= octets.is_ascii();
        for octet in octets {
            let Some(ending) = self.ending else { return };
            self.facts.ascii_header &= octet.is_ascii();
            self.ending = match (octet, ending) {
                (b'\n', 3) => None,
                (b'\r', 2) => Some(3),
                (b'\n', 1) => Some(2),
                (b'\r', _) => Some(1),
                _ => Some(0),
            };
        }
    }

    pub(super) fn facts(&self) -> Facts {
        self.facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(content: &[u8], gate: &Gate) -> Stored {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before").unwrap();
        file.write_all(content).unwrap();
        let mut look = Look::default();
        look.at(content);
        Stored::new(Arc::new(file), (1, 6), content.len(), look.facts(), gate.clone())
    }

    #[test]
    fn the_facts_are_the_same_in_memory_and_however_it_is_split() {
        proptest::proptest!(|(text in "[\r\na:ä]{0,30}", cuts in proptest::collection::vec(0_usize..8, 0..12))| {
            let octets = Bytes::from(text.into_bytes());
            let mut look = Look::default();
            let mut rest: &[u8] = &octets;
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                look.at(piece);
                rest = more;
            }
            look.at(rest);
            let here = Raw::from(octets);
            let facts = Facts { ascii: here.is_ascii(), ascii_header: here.has_ascii_header() };
            proptest::prop_assert_eq!(look.facts(), facts);
        });
    }

    #[tokio::test]
    async fn what_is_stored_is_read_as_it_lies_whole_or_in_pieces() {
        let content: Vec<u8> = (0..PIECE + 1000).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let raw = Raw::Stored(stored(&content, &Gate::default()));
        assert_eq!(raw.whole().await.unwrap(), content);
        let mut out = Vec::new();
        raw.write_to(&mut out).unwrap();
        assert!(out == content && raw.len() == content.len() && raw.in_memory() == 0 && !raw.is_ascii());
        let Raw::Stored(stored) = raw else { panic!() };
        let mut piece = [0; 3];
        stored.read_at(5, &mut piece).unwrap();
        assert_eq!(piece, [5, 6, 7]);
        assert!(stored.read_at(content.len() - 2, &mut piece).is_err());
    }

    #[tokio::test]
    async fn what_is_loaded_keeps_its_place_until_the_last_clone_is_gone() {
        let gate = Gate::default();
        let (one, other) = (stored(&vec![b'x'; 40 << 20], &gate), stored(b"small", &gate));
        let loaded = one.whole().await.unwrap();
        let clone = loaded.slice(10..20);
        drop(loaded);
        let waiting = other.whole();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending(), "one of 40 MiB costs all there is");
        drop(clone);
        assert_eq!(waiting.await.unwrap(), "small");
    }
}
