//! The body of a message: DATA and BDAT decoded into one buffer, however the octets are split on their way. What has been
//! decoded may be handed on while more comes, so that a large body needn't lie in memory.
//!
//! Only CRLF `.` CRLF ends DATA (RFC 5321 §4.1.1.4); dots are unstuffed on every line (§4.5.2), and nothing else is
//! changed. A bare CR, a bare LF and NUL end nothing: they make the message one to be refused at its true end, since
//! another reader could see a second message in it (SMTP smuggling). A body over its limit, or refused for another
//! reason, is read on and thrown away. Never allocates for a line. Input: slices. Output: [`Bytes`] or a [`Fault`].

use bytes::Bytes;
use memchr::memchr3;

use crate::mail::Reply;

/// The most that is set aside for a size that was only declared.
const TRUSTED_SIZE: u64 = 64 * 1024;
/// Up to here a body's memory doubles as it grows; beyond it grows by this or by an eighth, whichever is more.
const LARGEST_STEP: usize = 1024 * 1024;

/// A message's octets on their way in.
#[derive(Debug)]
pub struct Body {
    octets: Vec<u8>,
    /// Octets before these, which were handed on.
    handed_on: u64,
    limit: u64,
    repair: bool,
    /// DATA: a dot at a line's start means something.
    dots: bool,
    state: State,
    fault: Option<Fault>,
}

/// What the last octet was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// CRLF, or nothing yet.
    LineStart,
    /// A dot after CRLF, kept back.
    Dot,
    /// A dot and a CR after CRLF, both kept back.
    DotCr,
    /// A CR, kept back.
    Cr,
    /// A bare line end that was repaired: a dot may be stuffed here, but nothing that follows is an end.
    Repaired,
    /// A dot after it, kept back.
    RepairedDot,
    Text,
}

/// Why the message can't be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    TooLarge,
    BareLineEnd,
    Nul,
    /// The driver's reason.
    Refused(Reply),
}

impl Body {
    /// For DATA. `declared`: what SIZE= said (0: nothing).
    #[must_use]
    pub fn of_data(limit: u64, declared: u64, repair: bool) -> Self {
        let room = usize::try_from(declared.min(limit).min(TRUSTED_SIZE)).unwrap_or(0);
        let octets = Vec::with_capacity(room);
        Self { octets, handed_on: 0, limit, repair, dots: true, state: State::LineStart, fault: None }
    }

    /// For BDAT (RFC 3030): no dots, no end of its own.
    #[must_use]
    pub fn of_chunks(limit: u64, declared: u64, repair: bool) -> Self {
        Self { dots: false, state: State::Text, ..Self::of_data(limit, declared, repair) }
    }

    /// Takes octets of DATA: how many were used, and whether the message has ended.
    pub fn data(&mut self, input: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while let Some(&octet) = input.get(at) {
            match (self.state, octet) {
                (State::LineStart, b'.') => {
                    self.state = State::Dot;
                    at += 1;
                }
                (State::Dot, b'\r') => {
                    self.state = State::DotCr;
                    at += 1;
                }
                (State::DotCr, b'\n') => return (at + 1, true),
                (State::Cr, b'\n') => {
                    self.put(b"\r\n");
                    self.state = self.after_line();
                    at += 1;
                }
                (State::DotCr | State::Cr, _) => self.state = self.bare_line_end(),
                (State::Repaired, b'.') => {
                    self.state = State::RepairedDot;
                    at += 1;
                }
                // Alone on its line it is no stuffed one, and must not be an end: so it is text.
                (State::RepairedDot, b'\r' | b'\n') => {
                    self.put(b".");
                    self.state = State::Text;
                }
                // RFC 5321 §4.5.2: the line has more than its dot, which is taken away.
                (State::LineStart | State::Dot | State::Repaired | State::RepairedDot, _) => self.state = State::Text,
                (State::Text, _) => at = self.text(input, at),
            }
        }
        (at, false)
    }

    /// Takes octets of a chunk.
    pub fn chunk(&mut self, input: &[u8]) {
        let (_, ended) = self.data(input);
        debug_assert!(!ended, "without dots there is no end");
    }

    /// Text from `start` on: what can be copied at once is. Returns where it stopped, with the state set.
    fn text(&mut self, input: &[u8], start: usize) -> usize {
        let mut run = start;
        let mut at = start;
        while let Some(found) = input.get(at..).and_then(|rest| memchr3(b'\r', b'\n', 0, rest)) {
            let here = at + found;
            match (input.get(here), input.get(here + 1), input.get(here + 2)) {
                (Some(b'\r'), Some(b'\n'), Some(b'.')) if self.dots => {
                    self.put_run(input, run, here + 2);
                    self.state = State::Dot;
                    return here + 3;
                }
                (Some(b'\r'), Some(b'\n'), None) => {
                    self.put_run(input, run, here + 2);
                    self.state = self.after_line();
                    return here + 2;
                }
                (Some(b'\r'), Some(b'\n'), Some(_)) => {
                    at = here + 2;
                    continue;
                }
                (Some(b'\r'), None, _) => {
                    self.put_run(input, run, here);
                    self.state = State::Cr;
                    return here + 1;
                }
                (Some(0), ..) => {
                    self.put_run(input, run, here);
                    self.spoil(Fault::Nul);
                }
                _ => {
                    self.put_run(input, run, here);
                    let next = self.bare_line_end();
                    if next != State::Text {
                        self.state = next;
                        return here + 1;
                    }
                }
            }
            run = here + 1;
            at = run;
        }
        self.put_run(input, run, input.len());
        input.len()
    }

    /// In a chunk a line's start is text like any other.
    fn after_line(&self) -> State {
        if self.dots { State::LineStart } else { State::Text }
    }

    /// A bare CR or LF, by what the peer is known for. What comes after it.
    fn bare_line_end(&mut self) -> State {
        if !self.repair {
            self.spoil(Fault::BareLineEnd);
            return State::Text;
        }
        self.put(b"\r\n");
        if self.dots { State::Repaired } else { State::Text }
    }

    fn put_run(&mut self, input: &[u8], from: usize, to: usize) {
        self.put(input.get(from..to).unwrap_or_default());
    }

    fn put(&mut self, octets: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        let length = self.octets.len() + octets.len();
        if length as u64 > self.room() {
            self.spoil(Fault::TooLarge);
            return;
        }
        if length > self.octets.capacity() {
            let wanted = self.grown(length);
            self.octets.reserve_exact(wanted - self.octets.len());
        }
        self.octets.extend_from_slice(octets);
    }

    /// How much memory is taken for a body of `length` octets that don't fit into what there is. In steps small enough
    /// that little is held beyond what came in, and large enough that a body is copied a few times, not for each read.
    fn grown(&self, length: usize) -> usize {
        let held = self.octets.len();
        let step = held.min(LARGEST_STEP).max(held / 8);
        let limit = usize::try_from(self.room()).unwrap_or(usize::MAX);
        length.max(held.saturating_add(step).min(limit))
    }

    /// What may lie in the buffer, and what was handed on, are within the limit together.
    fn room(&self) -> u64 {
        self.limit.saturating_sub(self.handed_on)
    }

    /// The message is lost; the first reason stands. From here on nothing of it is kept.
    pub fn spoil(&mut self, fault: Fault) {
        if self.fault.is_none() {
            self.fault = Some(fault);
            self.octets = Vec::new();
        }
    }

    /// So many octets are to come in one chunk: one that can't fit is thrown away from its start.
    pub fn expect(&mut self, chunk: u64) {
        if chunk > self.room().saturating_sub(self.octets.len() as u64) {
            self.spoil(Fault::TooLarge);
        }
    }

    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Octets of memory held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.octets.capacity()
    }

    /// The same once `count` more octets have come in.
    #[must_use]
    pub fn memory_after(&self, count: usize) -> usize {
        let length = self.octets.len().saturating_add(count);
        let length = length.min(usize::try_from(self.room()).unwrap_or(usize::MAX));
        match self.fault {
            Some(_) => 0,
            None if length <= self.octets.capacity() => self.octets.capacity(),
            None => self.grown(length),
        }
    }

    /// What has been decoded, to be kept by the caller; the rest follows. `again`: how much will come until the next time.
    pub fn hand_on(&mut self, again: usize) -> Vec<u8> {
        self.handed_on += self.octets.len() as u64;
        let room = usize::try_from(self.room()).unwrap_or(usize::MAX);
        std::mem::replace(&mut self.octets, Vec::with_capacity(again.min(room)))
    }

    /// Octets that have been decoded and not handed on.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.octets.len()
    }

    /// Octets that were handed on.
    #[must_use]
    pub fn handed_on(&self) -> u64 {
        self.handed_on
    }

    /// The message is whole: what wasn't handed on.
    ///
    /// # Errors
    /// Why it is to be refused.
    pub fn finish(mut self) -> Result<Bytes, Fault> {
        if self.state == State::Cr {
            self.state = self.bare_line_end();
        }
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(Bytes::from(self.octets)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The message, once it has ended.
    type Ended = Option<Result<Bytes, Fault>>;

    fn decode(pieces: &[&[u8]], repair: bool, limit: u64) -> (Ended, Vec<u8>) {
        let mut body = Body::of_data(limit, 0, repair);
        let mut ended = false;
        let mut rest = Vec::new();
        for piece in pieces {
            let mut used = 0;
            if !ended {
                (used, ended) = body.data(piece);
            }
            rest.extend_from_slice(&piece[used..]);
        }
        (ended.then(|| body.finish()), rest)
    }

    fn joined(chunks: &[&[u8]], repair: bool, limit: u64) -> Result<Bytes, Fault> {
        let mut body = Body::of_chunks(limit, 0, repair);
        for chunk in chunks {
            body.chunk(chunk);
        }
        body.finish()
    }

    fn whole(input: &[u8]) -> Ended {
        decode(&[input], false, u64::MAX).0
    }

    fn good(text: &'static str) -> Ended {
        Ended::from(Ok(Bytes::from_static(text.as_bytes())))
    }

    #[test]
    fn an_empty_message_ends_at_its_first_dot() {
        assert_eq!(whole(b".\r\n"), good(""));
    }

    #[test]
    fn dots_are_unstuffed_on_every_line_and_the_first() {
        assert_eq!(whole(b"..a\r\n...b\r\n..\r\n.c\r\n.\r\n"), good(".a\r\n..b\r\n.\r\nc\r\n"));
    }

    #[test]
    fn what_follows_the_end_is_left() {
        assert_eq!(decode(&[b"a\r\n.\r\nQUIT\r\n"], false, 99), (good("a\r\n"), b"QUIT\r\n".to_vec()));
    }

    #[test]
    fn only_crlf_dot_crlf_is_an_end() {
        for pretender in
            ["a\n.\n", "a\r.\r", "a\r\n.\n", "a\n.\r\n", "a\r\n.\r", "a\r\n.\r\r\n", "a\r\r\n.\r\r\n", "a\0\r\n.\0\r\n"]
        {
            assert_eq!(whole(pretender.as_bytes()), None, "{pretender:?}");
            let ended = whole(format!("{pretender}x\r\n.\r\n").as_bytes());
            assert!(matches!(ended, Some(Err(Fault::BareLineEnd | Fault::Nul))), "{pretender:?}: {ended:?}");
        }
    }

    #[test]
    fn a_peer_that_is_repaired_still_ends_only_at_the_true_end() {
        let (message, _) = decode(&[b"a\n.\nb\rc\r\n.\r\n"], true, 99);
        assert_eq!(message, good("a\r\n.\r\nb\r\nc\r\n"));
        let (message, _) = decode(&[b"a\n..b\r..\n...c\n.\r\n.\n.\r.d\n.\r\r\n.\r\n"], true, 99);
        assert_eq!(message, good("a\r\n.b\r\n.\r\n..c\r\n.\r\n\r\n.\r\nd\r\n.\r\n\r\n"));
        assert!(matches!(decode(&[b"a\0\r\n.\r\n"], true, 99).0, Some(Err(Fault::Nul))));
    }

    #[test]
    fn beyond_the_limit_nothing_is_kept_and_the_end_is_still_found() {
        let mut body = Body::of_data(3, 0, false);
        assert_eq!(body.data(b"abcd\r\n"), (6, false));
        assert_eq!((body.fault(), body.memory()), (Some(&Fault::TooLarge), 0));
        assert_eq!(body.data(b".\r\nNOOP"), (3, true));
    }

    #[test]
    fn little_more_memory_is_held_than_octets_came_and_few_steps_lead_there() {
        let (limit, block) = (25 << 20, vec![b'x'; 64 * 1024]);
        let mut body = Body::of_chunks(limit as u64, 0, false);
        let mut steps = 0;
        for blocks in 1..=limit / block.len() {
            let (before, foreseen) = (body.memory(), body.memory_after(block.len()));
            body.chunk(&block);
            let came = blocks * block.len();
            assert_eq!(body.memory(), foreseen);
            assert!(body.memory() <= limit && body.memory() - came <= LARGEST_STEP.max(came / 8), "{came}");
            steps += usize::from(body.memory() > before);
        }
        assert!(steps <= 25, "{steps}");
        assert_eq!(body.memory_after(9), limit, "what is too much will be thrown away");
    }

    #[test]
    fn what_was_handed_on_counts_against_the_limit_and_takes_no_memory() {
        let mut body = Body::of_chunks(10, 0, false);
        body.chunk(b"abcdef");
        assert_eq!((body.hand_on(1024), body.handed_on()), (b"abcdef".to_vec(), 6));
        assert!(body.memory() <= 4);
        body.expect(4);
        assert_eq!(body.fault(), None);
        body.chunk(b"ghij");
        assert_eq!(body.memory_after(1), 4);
        body.chunk(b"k");
        assert_eq!(body.fault(), Some(&Fault::TooLarge));
        assert_eq!(body.finish(), Err(Fault::TooLarge));
    }

    #[test]
    fn a_declared_size_sets_little_aside() {
        assert!(Body::of_data(u64::MAX, u64::MAX, false).memory() <= 64 * 1024);
    }

    #[test]
    fn a_chunk_may_hold_what_would_end_data() {
        let mut body = Body::of_chunks(99, 0, false);
        body.chunk(b".a\r\n.\r");
        body.chunk(b"\n..b");
        assert_eq!(body.finish(), Ok(Bytes::from_static(b".a\r\n.\r\n..b")));
    }

    #[test]
    fn a_cr_at_the_end_of_the_last_chunk_is_bare() {
        let mut body = Body::of_chunks(99, 0, false);
        body.chunk(b"a\r");
        assert_eq!(body.finish(), Err(Fault::BareLineEnd));
    }

    /// What a message's octets are made of where it matters.
    fn octets() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop_oneof![
                3 => Just(&b"\r\n"[..]), 3 => Just(&b"."[..]), 3 => Just(&b"ab"[..]), 2 => Just(&b"\r\n.\r\n"[..]),
                1 => Just(&b"\r"[..]), 1 => Just(&b"\n"[..]), 1 => Just(&b"\0"[..]), 1 => Just(&b"\xff"[..]),
            ],
            0..40,
        )
        .prop_map(|pieces| pieces.concat())
    }

    /// Places to split at.
    fn cuts() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(0usize..80, 0..8)
    }

    fn split(input: &[u8], cuts: Vec<usize>) -> Vec<&[u8]> {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect()
    }

    proptest! {
        #[test]
        fn however_it_is_split_the_message_is_the_same(
            input in octets(), cuts in cuts(), repair: bool, limit in 0u64..100,
        ) {
            let octet_by_octet: Vec<&[u8]> = input.chunks(1).collect();
            let expected = decode(&[&input], repair, limit);
            prop_assert_eq!(&decode(&split(&input, cuts), repair, limit), &expected);
            prop_assert_eq!(&decode(&octet_by_octet, repair, limit), &expected);
        }

        #[test]
        fn whatever_is_handed_on_meanwhile_the_message_is_the_same(
            input in octets(), size in 1usize..9, every in 1usize..6, repair: bool, limit in 0u64..100,
        ) {
            let (mut body, mut ended, mut kept) = (Body::of_data(limit, 0, repair), false, Vec::new());
            for (n, piece) in input.chunks(size).enumerate() {
                if !ended {
                    (_, ended) = body.data(piece);
                }
                if n % every == 0 {
                    kept.extend(body.hand_on(size));
                }
            }
            let whole = decode(&[&input], repair, limit).0;
            let message = ended.then(|| body.finish().map(|rest| Bytes::from([kept, rest.to_vec()].concat())));
            prop_assert_eq!(message, whole);
        }

        #[test]
        fn however_its_chunks_are_split_the_message_is_the_same(
            input in octets(), cuts in cuts(), repair: bool, limit in 0u64..100,
        ) {
            let octet_by_octet: Vec<&[u8]> = input.chunks(1).collect();
            let expected = joined(&[&input], repair, limit);
            prop_assert_eq!(&joined(&split(&input, cuts), repair, limit), &expected);
            prop_assert_eq!(&joined(&octet_by_octet, repair, limit), &expected);
        }

        #[test]
        fn a_chunk_is_taken_as_it_is_or_refused_for_a_bare_line_end_or_nul(input in octets(), cuts in cuts()) {
            let text = String::from_utf8_lossy(&input).replace("\r\n", "");
            let taken = joined(&split(&input, cuts), false, u64::MAX);
            prop_assert_eq!(taken.is_ok(), !text.contains(['\r', '\n', '\0']));
            prop_assert!(taken.is_err() || taken == Ok(Bytes::from(input)));
        }

        #[test]
        fn what_a_client_stuffs_comes_out_as_it_was(lines in prop::collection::vec("[.a-z\\xe9 ]{0,6}", 0..12)) {
            let text: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
            let dot = |line: &String| if line.starts_with('.') { "." } else { "" };
            let stuffed: String = lines.iter().flat_map(|line| [dot(line), line, "\r\n"]).collect();
            let (message, rest) = decode(&[stuffed.as_bytes(), b".\r\n"], false, u64::MAX);
            prop_assert_eq!(message, Some(Ok(Bytes::from(text))));
            prop_assert!(rest.is_empty());
        }
    }
}
