//! The one domain that a field From can be read as, for one that can be read in more than one way.
//!
//! However a field is read, its author's domain follows an `@` of it: in a name, a comment, quotes or an encoded word, too.
//! Where the same name follows each, it is the domain that every reader sees. Where one is followed by something that could make
//! another of it (a comment, white space and more), or a word may be decoded otherwise elsewhere, nobody knows.
//! Standards: RFC 5322 §3.4.1 (addresses), RFC 2047 §2 (encoded words), RFC 1035 §2.3.4.

use super::{ASKED, MAX_WORD, is_name, plain};
use crate::mail::Message;

/// Charsets in which every octet of ASCII is what it is in ASCII, so that none hides an `@` or has one that isn't.
const CHARSETS: [&str; 6] = ["utf-8", "us-ascii", "iso-8859-", "windows-125", "koi8-r", "koi8-u"];

/// `None`: there is none, there are several, or one isn't sure.
pub(super) fn domain<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut only: Option<String> = None;
    for field in fields {
        for text in readings(field)? {
            for (at, _) in text.match_indices('@') {
                let found = named(text.get(at + 1..)?)?;
                if only.as_ref().is_some_and(|only| *only != found) {
                    return None;
                }
                only = Some(found);
            }
        }
    }
    only
}

/// The field as it is, its encoded words each by itself, and all of it decoded.
fn readings(field: &[u8]) -> Option<Vec<String>> {
    let raw = String::from_utf8_lossy(field).into_owned();
    let mut decoded = Vec::new();
    let mut rest = raw.as_str();
    while let Some(at) = rest.find("=?") {
        let found = rest.get(at..)?;
        let (word, after) = found.split_at_checked(word(found)?)?;
        decoded.push(Message::decode(word.as_bytes()));
        rest = after;
    }
    if !decoded.is_empty() {
        decoded.push(Message::decode(field));
    }
    let is_left = decoded.iter().any(|text| text.contains("=?"));
    decoded.push(raw);
    let hides = |character: char| {
        // The wide and the small one are an `@` to whoever normalizes (Unicode's NFKC).
        matches!(character, '\u{ff20}' | '\u{fe6b}') || (character.is_control() && !"\t\r\n".contains(character))
    };
    (!is_left && !decoded.iter().any(|text| text.contains(hides))).then_some(decoded)
}

/// Octets of the encoded word that the text begins with; `None` where not everybody decodes it alike.
fn word(text: &str) -> Option<usize> {
    let near = text.get(..text.floor_char_boundary(MAX_WORD))?;
    let (charset, rest) = near.strip_prefix("=?")?.split_once('?')?;
    let (encoding, rest) = rest.split_once('?')?;
    let (content, rest) = rest.split_once("?=")?;
    let charset = charset.to_ascii_lowercase();
    let is_charset = CHARSETS.into_iter().any(|known| charset.starts_with(known));
    let is_encoded = match encoding {
        "q" | "Q" => is_quoted(content),
        "b" | "B" => is_base64(content),
        _ => false,
    };
    (is_charset && is_encoded).then_some(near.len() - rest.len())
}

fn is_quoted(content: &str) -> bool {
    let is_hex = |escape: &str| escape.get(..2).is_some_and(|digits| digits.bytes().all(|it| it.is_ascii_hexdigit()));
    let is_plain = content.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'?');
    is_plain && content.split('=').skip(1).all(is_hex)
}

fn is_base64(content: &str) -> bool {
    let inner = content.strip_suffix("==").or_else(|| content.strip_suffix('=')).unwrap_or(content);
    content.len().is_multiple_of(4)
        && inner.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/'))
}

/// The domain that the text begins with, where it ends for every reader.
fn named(text: &str) -> Option<String> {
    let is_letter = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    let (domain, rest) = text.split_at_checked(text.find(|other: char| !is_letter(other)).unwrap_or(text.len()))?;
    let closes = |character: char| character.is_ascii_whitespace() || matches!(character, '"' | ')' | '>');
    let rest = rest.trim_start_matches(closes);
    let ends = rest.is_empty() || rest.starts_with([',', ';', '<']);
    (ends && is_name(&format!("{ASKED}{domain}"))).then(|| plain(domain))
}
