//! DATA decoded: the same however it is split, and the same as a decoder that is slow and obvious.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailworker::smtp::data::Body;

const LIMIT: u64 = 4096;

/// Octets used, whether it ended, and what came of it: the text, or that it is refused.
type Seen = (usize, bool, Option<Vec<u8>>);

fn decode(input: &[u8], split: impl Fn(usize) -> usize) -> Seen {
    let mut body = Body::of_data(LIMIT, 0, false);
    let (mut used, mut piece) = (0, 0);
    while used < input.len() {
        let end = (used + split(piece).max(1)).min(input.len());
        let (taken, ended) = body.data(&input[used..end]);
        used += taken;
        if ended {
            return (used, true, body.finish().ok().map(|octets| octets.to_vec()));
        }
        assert_eq!(used, end, "without an end all is used");
        piece += 1;
    }
    (used, false, None)
}

/// RFC 5321 §4.1.1.4 and §4.5.2, letter by letter.
fn obvious(input: &[u8]) -> Seen {
    let end = if input.starts_with(b".\r\n") {
        Some(0)
    } else {
        input.windows(5).position(|window| window == b"\r\n.\r\n").map(|at| at + 2)
    };
    let Some(end) = end else { return (input.len(), false, None) };
    let mut text = Vec::new();
    let mut rest = &input[..end];
    while !rest.is_empty() {
        let line_end = rest.windows(2).position(|window| window == b"\r\n").map_or(rest.len(), |at| at + 2);
        let (line, after) = rest.split_at(line_end);
        text.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        rest = after;
    }
    let crlf = text.windows(2).filter(|window| window == b"\r\n").count();
    let count = |octet| text.iter().filter(|found| **found == octet).count();
    let clean = count(b'\r') == crlf && count(b'\n') == crlf && count(0) == 0 && text.len() as u64 <= LIMIT;
    (end + 3, true, clean.then_some(text))
}

fuzz_target!(|input: &[u8]| {
    let Some((&seed, input)) = input.split_first() else { return };
    let whole = decode(input, |_| usize::MAX / 2);
    assert_eq!(whole, obvious(input));
    assert_eq!(whole, decode(input, |_| 1));
    assert_eq!(whole, decode(input, |piece| usize::from(seed.wrapping_mul(31).wrapping_add(piece as u8) % 7)));
});
