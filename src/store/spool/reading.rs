//! Reads a record and proves it whole: what is half there or has changed is never handed on.
//!
//! What is large is proved piece by piece, and stays in its segment; it is read again when it is needed, from the file
//! that was proved.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{HEADER, Header, Place, file_name};
use crate::mail::MessageId;
use crate::store::raw::{Gate, LARGE, Look, Raw, Stored};

/// Octets read at once of what is large.
const PIECE: usize = 256 * 1024;

/// Why a record can't be read.
#[derive(Debug)]
pub(in crate::store) enum Unreadable {
    /// Its segment isn't there.
    Missing,
    /// The octets aren't those that were written.
    Damaged(String),
    Io(std::io::Error),
}

/// Reads a record and proves it whole: head and body. `gate`: by which the body is loaded where it is large.
pub(in crate::store) fn read(
    file: &Arc<File>,
    id: MessageId,
    place: Place,
    gate: &Gate,
) -> Result<(Bytes, Raw), Unreadable> {
    if usize::try_from(place.size).is_ok_and(|size| size > LARGE) {
        return large(file, id, place, gate);
    }
    let (start, length) = extent(file, place)?;
    let mut record = BytesMut::zeroed(HEADER + length);
    file.read_exact_at(&mut record, start).map_err(Unreadable::Io)?;
    let mut content = record.freeze();
    let header = named(&content.split_to(HEADER), id, place)?;
    if header.crc != crc32fast::hash(&content) {
        return Err(damaged(place, "its checksum is wrong"));
    }
    let first = content.split_to(if header.body_first { header.size } else { header.head_size } as usize);
    let (head, body) = if header.body_first { (content, first) } else { (first, content) };
    Ok((head, body.into()))
}

fn large(file: &Arc<File>, id: MessageId, place: Place, gate: &Gate) -> Result<(Bytes, Raw), Unreadable> {
    let (mut head, mut look) = (BytesMut::new(), Look::default());
    let header = prove(file, id, place, &mut vec![0; PIECE], |part| match part {
        Part::Head(octets) => head.extend_from_slice(octets),
        Part::Body(octets) => look.at(octets),
    })?;
    let before = if header.body_first { 0 } else { u64::from(header.head_size) };
    let start = u64::try_from(place.start).unwrap_or_default() + HEADER as u64 + before;
    let stored =
        Stored::new(Arc::clone(file), (place.segment, start), header.size as usize, look.facts(), gate.clone());
    Ok((head.freeze(), Raw::Stored(stored)))
}

/// Some octets of a record's content.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum Part<'a> {
    Head(&'a [u8]),
    Body(&'a [u8]),
}

/// Proves a record whole, by as many octets at once as `piece` holds. Each is shown to `look`, in the order in which they
/// lie; what was seen is to be believed only when all of it is proved.
pub(in crate::store) fn prove(
    file: &File,
    id: MessageId,
    place: Place,
    piece: &mut [u8],
    mut look: impl FnMut(Part<'_>),
) -> Result<Header, Unreadable> {
    let (start, _) = extent(file, place)?;
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, start).map_err(Unreadable::Io)?;
    let header = named(&header, id, place)?;
    let mut crc = crc32fast::Hasher::new();
    let mut at = start + HEADER as u64;
    for is_body in [header.body_first, !header.body_first] {
        let mut left = if is_body { header.size } else { header.head_size } as usize;
        while left > 0 {
            let length = left.min(piece.len());
            let Some(octets) = piece.get_mut(..length).filter(|octets| !octets.is_empty()) else { break };
            file.read_exact_at(octets, at).map_err(Unreadable::Io)?;
            crc.update(octets);
            look(if is_body { Part::Body(octets) } else { Part::Head(octets) });
            at += length as u64;
            left -= length;
        }
    }
    if header.crc == crc.finalize() { Ok(header) } else { Err(damaged(place, "its checksum is wrong")) }
}

/// Where a record begins, and how many octets lie behind its header. The file is as long: a damaged row must not ask for
/// more memory than there is.
fn extent(file: &File, place: Place) -> Result<(u64, usize), Unreadable> {
    let (Ok(start), Ok(head_size), Ok(size)) =
        (u64::try_from(place.start), u32::try_from(place.head_size), u32::try_from(place.size))
    else {
        return Err(damaged(place, "its row holds numbers that can't be"));
    };
    let content = u64::from(head_size) + u64::from(size);
    let there = file.metadata().map_err(Unreadable::Io)?.len();
    if start.saturating_add(HEADER as u64 + content) > there {
        return Err(damaged(place, "the file ends before the record does"));
    }
    Ok((start, usize::try_from(content).unwrap_or(usize::MAX)))
}

/// The header, if it is that of the message that its row names.
fn named(octets: &[u8], id: MessageId, place: Place) -> Result<Header, Unreadable> {
    let header = octets.first_chunk().and_then(Header::parse);
    let header = header.ok_or_else(|| damaged(place, "no record begins here"))?;
    let named = (header.id, i64::from(header.head_size), i64::from(header.size)) == (id, place.head_size, place.size);
    if named { Ok(header) } else { Err(damaged(place, "another record than its row's begins here")) }
}

fn damaged(place: Place, what: &str) -> Unreadable {
    Unreadable::Damaged(format!("spool/{} at {}: {what}", file_name(place.segment), place.start))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::mail::Timestamp;

    const HEAD: &[u8] = b"Received: by us\r\n";

    fn id() -> MessageId {
        MessageId::new(Timestamp::from_millis(1), 1)
    }

    /// A file in which a record begins at 10, and its place.
    fn written(body: &[u8], body_first: bool, damage: Option<usize>) -> (Arc<File>, Place) {
        let content = if body_first { [body, HEAD].concat() } else { [HEAD, body].concat() };
        let (head_size, size) = (u32::try_from(HEAD.len()).unwrap(), u32::try_from(body.len()).unwrap());
        let header = Header { body_first, id: id(), head_size, size, crc: crc32fast::hash(&content) };
        let mut octets = [&[b'-'; 10], &header.octets()[..], &content[..]].concat();
        if let Some(at) = damage {
            octets[10 + at] ^= 1;
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&octets).unwrap();
        let place = Place { segment: 1, start: 10, head_size: head_size.into(), size: size.into() };
        (Arc::new(file), place)
    }

    fn body(length: usize) -> Vec<u8> {
        (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_record_is_read_in_both_orders_small_and_large() {
        for length in [0, 1, 1000, LARGE, LARGE + 1, 3 * PIECE] {
            for body_first in [false, true] {
                let body = body(length);
                let (file, place) = written(&body, body_first, None);
                let (head, raw) = read(&file, id(), place, &Gate::default()).unwrap();
                assert_eq!((&head[..], raw.len()), (HEAD, length), "{body_first}");
                assert!(raw.whole().await.unwrap() == body, "{length} {body_first}");
                assert_eq!(raw.here().is_some(), length <= LARGE);
                assert_eq!(raw.is_ascii(), body.is_ascii());
            }
        }
    }

    #[test]
    fn one_octet_that_has_changed_is_seen_wherever_it_is() {
        for length in [1000, LARGE + 1000] {
            let all = HEADER + HEAD.len() + length;
            for at in [0, 3, 5, 21, HEADER - 1, HEADER, HEADER + HEAD.len(), all / 2, all - 1] {
                for body_first in [false, true] {
                    let (file, place) = written(&body(length), body_first, Some(at));
                    let read = read(&file, id(), place, &Gate::default());
                    assert!(matches!(read, Err(Unreadable::Damaged(_))), "{length} {at} {body_first}: {read:?}");
                }
            }
        }
    }

    #[test]
    fn another_messages_record_and_a_row_beyond_the_file_are_damage() {
        let (file, place) = written(&body(LARGE + 1), true, None);
        let other = MessageId::new(Timestamp::from_millis(1), 2);
        assert!(matches!(read(&file, other, place, &Gate::default()), Err(Unreadable::Damaged(_))));
        for wrong in [
            Place { size: place.size + 1, ..place },
            Place { head_size: -1, ..place },
            Place { size: i64::from(u32::MAX), ..place },
            Place { size: place.size - 1, head_size: place.head_size + 1, ..place },
        ] {
            assert!(matches!(read(&file, id(), wrong, &Gate::default()), Err(Unreadable::Damaged(_))), "{wrong:?}");
        }
    }
}
