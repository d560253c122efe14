//! Encoded words that belong together (RFC 2047 §5): joined before they are decoded.
//!
//! A sender may not split a character over two words, and many do; decoded one by one, both halves are lost. So words
//! of one charset and encoding with nothing but white space between them become one. Linear, and never fails: what is
//! no encoded word stays as it is.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;

/// `=?charset?encoding?text?=`
#[derive(Clone, Copy)]
struct Word<'a> {
    charset: &'a [u8],
    encoding: u8,
    text: &'a [u8],
    /// Its octets in all.
    length: usize,
}

pub(super) fn join(value: &[u8]) -> Cow<'_, [u8]> {
    if memmem::find_iter(value, b"=?").nth(1).is_none() {
        return Cow::Borrowed(value);
    }
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = memmem::find(rest, b"=?") {
        let (before, found) = rest.split_at(at);
        out.extend_from_slice(before);
        let Some(first) = word(found) else {
            out.extend_from_slice(b"=?");
            rest = found.get(2..).unwrap_or_default();
            continue;
        };
        let (words, length) = run(found, first);
        if words.len() == 1 {
            out.extend_from_slice(found.get(..length).unwrap_or_default());
        } else {
            write(&mut out, &words);
        }
        rest = found.get(length..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// The words that belong to the first one, and how many octets they take.
fn run<'a>(octets: &'a [u8], first: Word<'a>) -> (Vec<Word<'a>>, usize) {
    let mut words = vec![first];
    let mut length = first.length;
    loop {
        let rest = octets.get(length..).unwrap_or_default();
        let gap = rest.iter().take_while(|octet| octet.is_ascii_whitespace()).count();
        let next = rest.get(gap..).and_then(word).filter(|next| {
            next.encoding == first.encoding && next.charset.eq_ignore_ascii_case(first.charset) && joins(first.charset)
        });
        let Some(next) = next else { return (words, length) };
        length += gap + next.length;
        words.push(next);
    }
}

/// A word of ISO-2022 begins in a state of its own; it stands alone.
fn joins(charset: &[u8]) -> bool {
    !charset.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"iso-2022"))
}

/// The word that `octets` begin with.
fn word(octets: &[u8]) -> Option<Word<'_>> {
    let rest = octets.strip_prefix(b"=?")?;
    let mark = memchr::memchr(b'?', rest)?;
    let (charset, rest) = (rest.get(..mark)?, rest.get(mark + 1..)?);
    let (encoding, rest) = rest.split_first()?;
    let rest = rest.strip_prefix(b"?")?;
    let end = memchr::memchr(b'?', rest)?;
    let text = rest.get(..end)?;
    rest.get(end + 1).filter(|octet| **octet == b'=')?;
    let well_formed = !charset.is_empty() && !charset.contains(&b'\n') && !text.contains(&b'\n');
    let encoding = encoding.to_ascii_lowercase();
    let length = 2 + charset.len() + 3 + text.len() + 2;
    (well_formed && matches!(encoding, b'b' | b'q')).then_some(Word { charset, encoding, text, length })
}

fn write(out: &mut Vec<u8>, words: &[Word<'_>]) {
    let Some(first) = words.first() else { return };
    out.extend_from_slice(b"=?");
    out.extend_from_slice(first.charset);
    out.extend_from_slice(&[b'?', first.encoding, b'?']);
    if first.encoding == b'q' {
        for word in words {
            out.extend_from_slice(word.text);
        }
    } else {
        let decode = mail_parser::decoders::base64::base64_decode;
        let octets: Vec<u8> = words.iter().filter_map(|word| decode(word.text)).flatten().collect();
        out.extend_from_slice(STANDARD.encode(octets).as_bytes());
    }
    out.extend_from_slice(b"?=");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(value: &str) -> String {
        String::from_utf8(join(value.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn words_of_one_charset_and_encoding_become_one() {
        assert_eq!(joined("=?utf-8?b?4oI=?=\r\n =?UTF-8?B?rA==?= x"), "=?utf-8?b?4oKs?= x");
        assert_eq!(joined("a =?utf-8?q?=E2=82?= =?utf-8?Q?=AC?= b"), "a =?utf-8?q?=E2=82=AC?= b");
    }

    #[test]
    fn all_else_stays_as_it_is() {
        for value in [
            "",
            "=?",
            "=?=?=?",
            "=?utf-8?q?a?=",
            "=?utf-8?q?a?= and =?utf-8?q?b?=",
            "=?utf-8?q?a?= =?latin1?q?b?=",
            "=?utf-8?q?a?= =?utf-8?b?YQ==?=",
            "=?iso-2022-jp?b?GyRC?= =?iso-2022-jp?b?GyRC?=",
            "=?utf-8?x?a?= =?utf-8?x?b?=",
            "=?utf-8?q?a? =?utf-8?q?b?",
        ] {
            assert_eq!(joined(value), value);
        }
    }
}
