//! What of the original goes back with a notice: its header section, or all of it where RET=FULL asks and it fits. Pure.
//!
//! The octets are somebody else's: what can't stand in a message of ours (a line past 998 octets, a bare CR or LF, NUL,
//! octets beyond ASCII where nobody said SMTPUTF8) is cut or replaced in the header section, and rules out the whole.
//! Standards: RFC 3461 §4.3, RFC 6522 §4, RFC 6533 §4.

use memchr::memmem;

/// Octets of a whole original; of a larger one the header section goes back.
const MAX_WHOLE: usize = 256 * 1024;
/// Octets of a header section.
const MAX_HEADER: usize = 32 * 1024;
/// Octets of one line (RFC 5322 §2.1.1).
pub(super) const MAX_LINE: usize = 998;

/// A part of a notice.
pub(super) struct Returned {
    pub content_type: &'static str,
    /// `7bit` or `8bit`.
    pub encoding: &'static str,
    pub octets: Vec<u8>,
}

/// `whole`: RET=FULL, of a failure. `utf8`: the notice goes by SMTPUTF8.
pub(super) fn returned(raw: &[u8], whole: bool, utf8: bool) -> Returned {
    let header_end = memmem::find(raw, b"\r\n\r\n").map_or(raw.len(), |at| at + 2);
    let header = raw.get(..header_end).unwrap_or(raw);
    if whole && fits(raw, header, utf8) {
        return Returned {
            content_type: if utf8 && !header.is_ascii() { "message/global" } else { "message/rfc822" },
            encoding: encoding(raw),
            octets: raw.to_vec(),
        };
    }
    let octets = lines(header, utf8);
    Returned {
        content_type: if utf8 { "message/global-headers" } else { "text/rfc822-headers" },
        encoding: encoding(&octets),
        octets,
    }
}

fn encoding(octets: &[u8]) -> &'static str {
    if octets.is_ascii() { "7bit" } else { "8bit" }
}

/// Whether the whole can stand in a message as it is (RFC 2045 §2.7, §2.8).
fn fits(raw: &[u8], header: &[u8], utf8: bool) -> bool {
    let header_is_plain = header.is_ascii() || (utf8 && std::str::from_utf8(header).is_ok());
    raw.len() <= MAX_WHOLE && header_is_plain && raw.split(|octet| *octet == b'\n').all(is_line) && ends_well(raw)
}

/// What stands before a line feed: its CR last and nowhere else.
fn is_line(line: &[u8]) -> bool {
    let (text, ended) = line.strip_suffix(b"\r").map_or((line, false), |text| (text, true));
    text.len() <= MAX_LINE && !text.iter().any(|octet| matches!(octet, 0 | b'\r')) && (ended || line.is_empty())
}

fn ends_well(raw: &[u8]) -> bool {
    raw.is_empty() || raw.ends_with(b"\r\n")
}

/// Whole lines, each fit to stand in a message, as many as there is room for.
fn lines(header: &[u8], utf8: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.len().min(MAX_HEADER));
    for line in header.split(|octet| *octet == b'\n') {
        let text = String::from_utf8_lossy(line.get(..MAX_LINE).unwrap_or(line));
        let kept: String = text
            .chars()
            .filter(|c| !c.is_control() || *c == '\t')
            .map(|c| if c.is_ascii() || utf8 { c } else { '?' })
            .collect();
        let kept = kept.get(..kept.floor_char_boundary(MAX_LINE)).unwrap_or_default();
        // An empty line would end the section.
        if kept.trim().is_empty() {
            continue;
        }
        if out.len() + kept.len() + 2 > MAX_HEADER {
            break;
        }
        out.extend_from_slice(kept.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = b"Subject: x\r\nTo: y\r\n\r\nbody\r\n";

    #[test]
    fn only_the_header_section_goes_back_unless_all_is_asked_for() {
        let headers = returned(PLAIN, false, false);
        assert_eq!((headers.content_type, headers.encoding), ("text/rfc822-headers", "7bit"));
        assert_eq!(headers.octets, b"Subject: x\r\nTo: y\r\n");
        let whole = returned(PLAIN, true, false);
        assert_eq!((whole.content_type, whole.encoding, whole.octets.as_slice()), ("message/rfc822", "7bit", PLAIN));
    }

    #[test]
    fn what_cannot_stand_in_a_message_rules_out_the_whole() {
        let long_line = [PLAIN, &[b'x'; 999], b"\r\n"].concat();
        let large = [PLAIN, &b"0123456789\r\n".repeat(30_000)].concat();
        for raw in [long_line.as_slice(), &large, b"A: b\r\n\r\na\nb\r\n", b"A: b\r\n\r\na\0\r\n", b"A: \xff\r\n\r\n"] {
            assert_eq!(returned(raw, true, false).content_type, "text/rfc822-headers");
        }
        let eight_bit = returned(b"A: b\r\n\r\n\xff\r\n", true, false);
        assert_eq!((eight_bit.content_type, eight_bit.encoding), ("message/rfc822", "8bit"));
    }

    #[test]
    fn a_hostile_header_section_comes_back_tame() {
        let long = [b"A: ".as_slice(), &[b'x'; 5000], b"\r\nB: \xfc\x1b[31m\rC: d\nE: \xc3\xbc\r\n\r\n"].concat();
        let octets = returned(&long, false, false).octets;
        assert!(octets.is_ascii() && octets.split(|octet| *octet == b'\n').all(is_line));
        assert!(octets.ends_with(b"B: ?[31mC: d\r\nE: ?\r\n"), "{}", String::from_utf8_lossy(&octets));
        let endless = b"A: b\r\n".repeat(100_000);
        assert!(returned(&endless, false, false).octets.len() <= MAX_HEADER);
    }

    #[test]
    fn by_smtputf8_the_header_section_keeps_its_letters() {
        let headers = returned("Subject: ü\r\n\r\n".as_bytes(), false, true);
        assert_eq!((headers.content_type, headers.encoding), ("message/global-headers", "8bit"));
        assert_eq!(headers.octets, "Subject: ü\r\n".as_bytes());
        assert_eq!(returned("Subject: ü\r\n\r\n".as_bytes(), true, true).content_type, "message/global");
    }
}
