//! DATA and BDAT decoded: the same however they are split, and the same as decoders that are slow and obvious; within
//! the memory that was foreseen; and what our own client makes of it is decoded to the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mailworker::delivery::relay::letter::Stuffing;
use mailworker::smtp::data::{Body, Fault};

/// The first octet of the input.
#[derive(Clone, Copy)]
struct How {
    /// By BDAT.
    chunks: bool,
    repair: bool,
    limit: u64,
    /// How the pieces' lengths differ.
    seed: u8,
}

/// Octets used, and what came of it once it has ended.
type Seen = (usize, Option<Result<Bytes, Fault>>);

fn decode(input: &[u8], how: How, split: impl Fn(usize) -> usize) -> Seen {
    let new = if how.chunks { Body::of_chunks } else { Body::of_data };
    let mut body = new(how.limit, 0, how.repair);
    let (mut used, mut piece) = (0, 0);
    while used < input.len() {
        let end = used.saturating_add(split(piece).max(1)).min(input.len());
        let octets = &input[used..end];
        let (taken, ended) = if how.chunks {
            body.chunk(octets);
            (octets.len(), false)
        } else {
            body.data(octets)
        };
        used += taken;
        assert!(body.memory() as u64 <= how.limit, "{} of {}", body.memory(), how.limit);
        if ended {
            return (used, Some(body.finish()));
        }
        assert_eq!(used, end, "without an end all is used");
        piece += 1;
    }
    (used, how.chunks.then(|| body.finish()))
}

/// RFC 5321 §4.1.1.4 and §4.5.2, letter by letter: where it ends, and the text.
fn obvious(input: &[u8], how: How) -> (usize, Option<Option<Vec<u8>>>) {
    let end = if how.chunks {
        Some(input.len())
    } else if input.starts_with(b".\r\n") {
        Some(0)
    } else {
        input.windows(5).position(|window| window == b"\r\n.\r\n").map(|at| at + 2)
    };
    let Some(end) = end else { return (input.len(), None) };
    let text = lines(&input[..end], how);
    let crlf = text.windows(2).filter(|window| window == b"\r\n").count();
    let count = |octet| text.iter().filter(|found| **found == octet).count();
    let clean = count(b'\r') == crlf && count(b'\n') == crlf && count(0) == 0 && text.len() as u64 <= how.limit;
    (if how.chunks { end } else { end + 3 }, Some(clean.then_some(text)))
}

/// The lines without their stuffed dots. Of a peer that is repaired a bare CR or LF ends a line too; but a dot alone
/// behind one stays, since nothing there may look like an end.
fn lines(input: &[u8], how: How) -> Vec<u8> {
    let mut text = Vec::new();
    let (mut rest, mut after_bare) = (input, false);
    while !rest.is_empty() {
        let end = rest.windows(2).position(|window| window == b"\r\n");
        let bare =
            rest.iter().position(|octet| matches!(octet, b'\r' | b'\n')).filter(|at| how.repair && Some(*at) != end);
        let length = bare.map_or_else(|| end.map_or(rest.len(), |at| at + 2), |at| at + 1);
        let (line, after) = rest.split_at(length);
        let content = if bare.is_some() { &line[..length - 1] } else { line };
        let alone = after_bare && matches!(content, b"." | b".\r\n");
        let unstuffed = content.strip_prefix(b".").filter(|_| !how.chunks && !alone).unwrap_or(content);
        text.extend_from_slice(unstuffed);
        if bare.is_some() {
            text.extend_from_slice(b"\r\n");
        }
        (rest, after_bare) = (after, bare.is_some());
    }
    text
}

/// What was taken comes out of another server as it is, by way of our client.
fn sent_on(text: &Bytes) {
    let mut stuffing = Stuffing::default();
    let mut wire = stuffing.runs(text).collect::<Vec<_>>().concat();
    wire.extend_from_slice(stuffing.end());
    let how = How { chunks: false, repair: false, limit: u64::MAX, seed: 0 };
    let (used, taken) = decode(&wire, how, |_| usize::MAX);
    let ended = if text.is_empty() || text.ends_with(b"\r\n") { text.to_vec() } else { [text, &b"\r\n"[..]].concat() };
    assert_eq!((used, taken), (wire.len(), Some(Ok(Bytes::from(ended)))));
}

fuzz_target!(|input: &[u8]| {
    let Some((&seed, input)) = input.split_first() else { return };
    let limit = if seed & 4 == 0 { 4096 } else { 40 };
    let how = How { chunks: seed & 1 == 1, repair: seed & 2 == 2, limit, seed };
    let whole = decode(input, how, |_| usize::MAX);
    let (used, text) = obvious(input, how);
    let as_text = whole.1.as_ref().map(|taken| taken.as_ref().ok().map(|octets| octets.to_vec()));
    assert_eq!((whole.0, as_text), (used, text));
    assert_eq!(whole, decode(input, how, |_| 1));
    assert_eq!(whole, decode(input, how, |piece| usize::from(how.seed.wrapping_mul(31).wrapping_add(piece as u8) % 7)));
    if let Some(Ok(text)) = &whole.1 {
        sent_on(text);
    }
});
