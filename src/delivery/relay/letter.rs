//! What goes over the wire for one message: its commands and its content. Pure.
//!
//! Standards: RFC 5321 §4.1.1, §4.5.2 (transparency); RFC 1870 (SIZE); RFC 6152 (8BITMIME); RFC 6531 (SMTPUTF8);
//! RFC 3461 (DSN parameters, xtext).

use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;
use mail_builder::headers::Header as _;
use mail_builder::headers::text::Text;
use memchr::memmem;

use crate::mail::address::domain_key;
use crate::mail::{Address, BodyKind, Envelope, Notify, Ret};
use crate::store::Raw;

use super::reply::Offers;

/// One message for one next hop: everything but the connection.
#[derive(Debug, Clone)]
pub struct Letter {
    pub envelope: Envelope,
    pub recipients: Vec<Rcpt>,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rcpt {
    pub address: Address,
    pub notify: Notify,
    pub orcpt: Option<String>,
}

/// In the order of the wire: what the worker added, our trace fields, the octets as received.
#[derive(Debug, Clone)]
pub struct Content {
    pub added: Vec<u8>,
    pub head: Bytes,
    pub raw: Raw,
    /// Where in `raw` fields stand that the worker took out: from, and up to. In order.
    pub removed: Vec<(usize, usize)>,
}

/// A worker's fields, as they stand before the message: ASCII as it is, all else in encoded words (RFC 2047).
#[must_use]
pub fn added(fields: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        // No address is ever encoded (RFC 2047 §5): with SMTPUTF8 it stands as it is (RFC 6532 §3.2).
        if value.is_ascii() || name.eq_ignore_ascii_case("Delivered-To") {
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        } else {
            Text::new(value.as_str()).write_header(&mut out, name.len() + 2);
        }
    }
    out
}

impl Content {
    #[must_use]
    pub fn size(&self) -> usize {
        self.added.len() + self.head.len() + self.kept().map(|piece| piece.len()).sum::<usize>()
    }

    /// What of `raw` goes out.
    pub fn kept(&self) -> impl Iterator<Item = Range<usize>> {
        let length = self.raw.len();
        let starts = std::iter::once(0).chain(self.removed.iter().map(|(_, end)| *end));
        let ends = self.removed.iter().map(|(start, _)| *start).chain(std::iter::once(length));
        starts.zip(ends).map(move |(start, end)| start..end.min(length)).filter(|piece| !piece.is_empty())
    }

    fn is_ascii(&self) -> bool {
        self.added.is_ascii() && self.head.is_ascii() && self.raw.is_ascii()
    }

    /// Whether a header field holds octets beyond ASCII.
    fn has_utf8_header(&self) -> bool {
        !(self.added.is_ascii() && self.head.is_ascii() && self.raw.has_ascii_header())
    }
}

impl Letter {
    /// Whether the next hop must know SMTPUTF8 (RFC 6531 §3.1): a local part beyond ASCII, or a message that came in
    /// as internationalised and is. A domain alone is written in A-labels.
    #[must_use]
    pub fn needs_utf8(&self) -> bool {
        let mut addresses = self.envelope.sender.iter().chain(self.recipients.iter().map(|rcpt| &rcpt.address));
        addresses.any(|address| !address.local().is_ascii())
            || (self.envelope.smtputf8 && self.content.has_utf8_header())
    }

    /// `MAIL FROM`, with what the next hop offers to know; `utf8`: the message goes by SMTPUTF8.
    pub fn mail(&self, offers: &Offers, utf8: bool, out: &mut Vec<u8>) {
        let mut line = String::from("MAIL FROM:<");
        if let Some(sender) = &self.envelope.sender {
            line.push_str(&written(sender, utf8));
        }
        line.push('>');
        if offers.size.is_some() {
            let _ = write!(line, " SIZE={}", self.content.size());
        }
        if offers.eight_bit && (self.envelope.body == BodyKind::EightBit || !self.content.is_ascii()) {
            line.push_str(" BODY=8BITMIME");
        }
        if utf8 {
            line.push_str(" SMTPUTF8");
        }
        if offers.dsn {
            match self.envelope.ret {
                Some(Ret::Full) => line.push_str(" RET=FULL"),
                Some(Ret::Hdrs) => line.push_str(" RET=HDRS"),
                None => {}
            }
            if let Some(envid) = &self.envelope.envid {
                let _ = write!(line, " ENVID={}", xtext(envid));
            }
        }
        line.push_str("\r\n");
        out.extend_from_slice(line.as_bytes());
    }
}

impl Rcpt {
    /// `RCPT TO`; `utf8` as with [`Letter::mail`].
    pub fn write(&self, offers: &Offers, utf8: bool, out: &mut Vec<u8>) {
        let mut line = format!("RCPT TO:<{}>", written(&self.address, utf8));
        if offers.dsn {
            if self.notify.explicit {
                let _ = write!(line, " NOTIFY={}", notify_words(self.notify));
            }
            // As the client wrote it, where it can't end the line early.
            if let Some(orcpt) = self.orcpt.as_ref().filter(|text| text.bytes().all(|b| b.is_ascii_graphic())) {
                let _ = write!(line, " ORCPT={orcpt}");
            }
        }
        line.push_str("\r\n");
        out.extend_from_slice(line.as_bytes());
    }
}

/// With A-labels where MAIL doesn't say SMTPUTF8: only there may an address be in UTF-8 (RFC 6531 §3.4, §3.3).
fn written(address: &Address, utf8: bool) -> String {
    if utf8 || address.is_ascii() {
        return address.as_str().to_owned();
    }
    format!("{}@{}", address.local(), domain_key(address.domain()))
}

fn notify_words(notify: Notify) -> String {
    let words = [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
    let said: Vec<&str> = words.into_iter().filter_map(|(is_set, word)| is_set.then_some(word)).collect();
    if said.is_empty() { "NEVER".to_owned() } else { said.join(",") }
}

/// RFC 3461 §4.
#[must_use]
pub fn xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'+' && byte != b'=' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "+{byte:02X}");
        }
    }
    out
}

/// Transparency (RFC 5321 §4.5.2) over a content that comes in pieces: a dot before each line that starts with one.
#[derive(Debug)]
pub struct Stuffing {
    /// The next octet begins a line.
    at_line_start: bool,
}

impl Default for Stuffing {
    fn default() -> Self {
        Self { at_line_start: true }
    }
}

impl Stuffing {
    /// The next piece as DATA carries it: slices of it, nothing is copied by line.
    pub fn runs<'a>(&'a mut self, piece: &'a [u8]) -> Runs<'a> {
        Runs { stuffing: self, rest: piece }
    }

    /// What stands behind the last piece.
    #[must_use]
    pub fn end(&self) -> &'static [u8] {
        // RFC 5321 §4.1.1.4: the dot stands on a line of its own, where the last line lacks its end, too.
        if self.at_line_start { b".\r\n" } else { b"\r\n.\r\n" }
    }
}

/// Slices of one piece.
#[derive(Debug)]
pub struct Runs<'a> {
    stuffing: &'a mut Stuffing,
    rest: &'a [u8],
}

impl<'a> Iterator for Runs<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let first = self.rest.first()?;
        if self.stuffing.at_line_start && *first == b'.' {
            self.stuffing.at_line_start = false;
            return Some(b".");
        }
        // Up to and with the line end that stands before the next dot; a dot at a slice's start is seen above.
        let end = memmem::find(self.rest, b"\n.").map_or(self.rest.len(), |at| at + 1);
        let (run, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        self.stuffing.at_line_start = run.last() == Some(&b'\n');
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it goes over the wire in these pieces.
    fn wire(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut stuffing, mut wire) = (Stuffing::default(), Vec::new());
        for piece in pieces {
            wire.extend(stuffing.runs(piece).flatten());
        }
        wire.extend_from_slice(stuffing.end());
        wire
    }

    fn stuffed(raw: &str) -> String {
        String::from_utf8(wire(&[raw.as_bytes()])).unwrap()
    }

    #[test]
    fn dots_are_stuffed_everywhere_and_on_the_first_line() {
        assert_eq!(stuffed(".a\r\nb\r\n..c\r\n.\r\n"), "..a\r\nb\r\n...c\r\n..\r\n.\r\n");
    }

    #[test]
    fn a_missing_last_line_end_is_added_and_an_empty_message_is_a_dot() {
        assert_eq!(stuffed("a"), "a\r\n.\r\n");
        assert_eq!(stuffed(""), ".\r\n");
    }

    #[test]
    fn pieces_join_without_a_seam() {
        assert_eq!(wire(&[b"X-A: 1\r\n", b"", b"Received: x\r\n", b".\r\n"]), b"X-A: 1\r\nReceived: x\r\n..\r\n.\r\n");
        proptest::proptest!(|(raw in "[.\r\na]{0,40}", cuts in proptest::collection::vec(0_usize..9, 0..12))| {
            let (mut pieces, mut rest) = (Vec::new(), raw.as_bytes());
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            pieces.push(rest);
            proptest::prop_assert_eq!(wire(&pieces), wire(&[raw.as_bytes()]));
        });
    }

    #[test]
    fn stuffing_then_unstuffing_gives_the_octets_back() {
        proptest::proptest!(|(raw in "[.\r\na]{0,40}")| {
            let wire = stuffed(&raw);
            let body = wire.strip_suffix(".\r\n").unwrap();
            let plain: String = body.split_inclusive('\n').map(|line| line.strip_prefix('.').unwrap_or(line)).collect();
            let ended = format!("{raw}\r\n");
            proptest::prop_assert!(plain == raw || plain == ended);
        });
    }

    #[test]
    fn a_workers_fields_stand_as_they_are_or_in_encoded_words() {
        let fields = [("X-Team".to_owned(), "sales".to_owned()), ("X-Name".to_owned(), "Bücher".to_owned())];
        let out = String::from_utf8(added(&fields)).unwrap();
        assert!(out.starts_with("X-Team: sales\r\nX-Name: =?utf-8?"), "{out}");
        assert!(out.ends_with("?=\r\n") && out.is_ascii(), "{out}");
    }

    #[test]
    fn what_was_taken_out_is_neither_sent_nor_counted() {
        let raw = Bytes::from_static(b"A: 1\r\nB: 2\r\nC: 3\r\n\r\nx\r\n");
        let kept = |removed: Vec<(usize, usize)>| {
            let content = Content { added: Vec::new(), head: Bytes::new(), raw: raw.clone().into(), removed };
            let text =
                content.kept().map(|piece| String::from_utf8_lossy(&raw[piece]).into_owned()).collect::<String>();
            assert_eq!(text.len(), content.size());
            text
        };
        assert_eq!(kept(vec![]), "A: 1\r\nB: 2\r\nC: 3\r\n\r\nx\r\n");
        assert_eq!(kept(vec![(0, 6), (12, 18)]), "B: 2\r\n\r\nx\r\n");
        assert_eq!(kept(vec![(0, 18)]), "\r\nx\r\n");
        assert_eq!(kept(vec![(0, raw.len())]), "");
    }

    fn letter(sender: &str, recipient: &str) -> Letter {
        let envelope = Envelope { sender: Address::parse(sender).ok(), ..Envelope::default() };
        let address = Address::parse(recipient).unwrap();
        let recipients = vec![Rcpt { address, notify: Notify::default(), orcpt: None }];
        let content = Content {
            added: Vec::new(),
            head: Bytes::new(),
            raw: Bytes::from_static(b"A: b\r\n\r\nc\r\n").into(),
            removed: vec![],
        };
        Letter { envelope, recipients, content }
    }

    #[test]
    fn parameters_are_passed_on_where_the_next_hop_knows_them() {
        let mut letter = letter("a@example.com", "b@example.net");
        letter.envelope.ret = Some(Ret::Hdrs);
        letter.envelope.envid = Some("a+b c".to_owned());
        letter.envelope.body = BodyKind::EightBit;
        let all = Offers { pipelining: true, size: Some(0), eight_bit: true, utf8: true, dsn: true, starttls: false };
        let (mut full, mut bare) = (Vec::new(), Vec::new());
        letter.mail(&all, false, &mut full);
        letter.mail(&Offers::default(), false, &mut bare);
        let full = String::from_utf8(full).unwrap();
        assert_eq!(full, "MAIL FROM:<a@example.com> SIZE=11 BODY=8BITMIME RET=HDRS ENVID=a+2Bb+20c\r\n");
        assert_eq!(bare, b"MAIL FROM:<a@example.com>\r\n");
    }

    #[test]
    fn a_domain_beyond_ascii_goes_in_a_labels_and_a_local_part_needs_smtputf8() {
        let domain_only = letter("a@bücher.example", "b@bücher.example");
        assert!(!domain_only.needs_utf8());
        let mut out = Vec::new();
        // Whether the next hop would take UTF-8 or not: MAIL doesn't announce it.
        let offers = Offers { utf8: true, ..Offers::default() };
        domain_only.mail(&offers, false, &mut out);
        domain_only.recipients[0].write(&offers, false, &mut out);
        assert_eq!(out, b"MAIL FROM:<a@xn--bcher-kva.example>\r\nRCPT TO:<b@xn--bcher-kva.example>\r\n");
        out.clear();
        domain_only.mail(&offers, true, &mut out);
        assert_eq!(out, "MAIL FROM:<a@bücher.example> SMTPUTF8\r\n".as_bytes());
        assert!(letter("a@example.com", "bücher@example.net").needs_utf8());
    }

    #[test]
    fn an_orcpt_that_would_break_the_line_is_left_out() {
        let rcpt = Rcpt {
            address: Address::parse("b@example.net").unwrap(),
            notify: Notify { explicit: true, failure: false, ..Notify::default() },
            orcpt: Some("rfc822;x\r\nRSET".to_owned()),
        };
        let mut out = Vec::new();
        rcpt.write(&Offers { dsn: true, ..Offers::default() }, false, &mut out);
        assert_eq!(out, b"RCPT TO:<b@example.net> NOTIFY=NEVER\r\n");
    }
}
