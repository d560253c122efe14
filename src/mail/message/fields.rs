//! What a header field's value means: text, addresses, ids, dates, content types. Never fails: garbage reads as garbage.
//!
//! Bound: of one value at most [`MAX_VALUE`] octets are read.

use std::borrow::Cow;

use mail_parser::parsers::MessageStream;
use mail_parser::{Address, HeaderValue};
use serde::Serialize;

use crate::mail::Timestamp;

/// A longer value is cut here before it is read.
pub(super) const MAX_VALUE: usize = 64 * 1024;

/// One address of a header field. Either half may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Mailbox {
    pub name: Option<String>,
    pub address: Option<String>,
}

/// `type/subtype` in lower case, and the parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ContentType {
    pub kind: String,
    pub subtype: String,
    attributes: Vec<(String, String)>,
}

impl ContentType {
    pub(super) fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind == kind && self.subtype == subtype
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Unfolded, encoded words decoded, octets that are no UTF-8 replaced.
pub(super) fn text(value: &[u8]) -> String {
    if is_plain(value) {
        return one_line(utf8(value.trim_ascii()).into_owned());
    }
    let value = ended(value);
    let parsed = MessageStream::new(&value).parse_unstructured();
    parsed.into_text().map(|text| one_line(text.trim().to_owned())).unwrap_or_default()
}

/// What a field says is one line, unfolded (RFC 5322 §2.2.3). An encoded word can hide line breaks and other controls
/// (RFC 2047 §5 has none); what is made of the text (a header field, a subject, a line of a log) would be spoilt by them.
fn one_line(text: String) -> String {
    let text = without_nul(text);
    if text.chars().any(char::is_control) { text.replace("\r\n", " ").replace(char::is_control, " ") } else { text }
}

/// A text has no NUL (RFC 5322 §2.2), but what an encoding hides may, and a file that didn't come by SMTP: some databases
/// refuse a text that has one, others see its end there.
pub(super) fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// Neither folded nor encoded: what is there is what is meant.
fn is_plain(value: &[u8]) -> bool {
    value.len() <= MAX_VALUE && memchr::memchr2(b'\n', b'=', value).is_none()
}

pub(super) fn mailboxes(value: &[u8]) -> Vec<Mailbox> {
    let value = ended(value);
    let Some(address) = MessageStream::new(&value).parse_address().into_address() else { return Vec::new() };
    let mailbox = |found: &mail_parser::Addr<'_>| Mailbox {
        name: found.name.as_ref().map(|name| one_line(name.trim().to_owned())).filter(|name| !name.is_empty()),
        address: found.address.as_ref().map(|address| without_nul(address.trim().to_owned())),
    };
    match &address {
        Address::List(list) => list.iter().map(mailbox).collect(),
        Address::Group(groups) => groups.iter().flat_map(|group| &group.addresses).map(mailbox).collect(),
    }
}

pub(super) fn ids(value: &[u8]) -> Vec<String> {
    let value = ended(value);
    match MessageStream::new(&value).parse_id() {
        HeaderValue::Text(id) => vec![without_nul(id.into_owned())],
        HeaderValue::TextList(ids) => ids.into_iter().map(|id| without_nul(id.into_owned())).collect(),
        _ => Vec::new(),
    }
}

pub(super) fn date(value: &[u8]) -> Option<Timestamp> {
    let value = ended(value);
    let date = MessageStream::new(&value).parse_date().into_datetime().filter(mail_parser::DateTime::is_valid)?;
    Some(Timestamp::from_millis(date.to_timestamp().saturating_mul(1000)))
}

/// Content-Type and Content-Disposition (RFC 2045 §5.1, RFC 2183, RFC 2231).
pub(super) fn content_type(value: &[u8]) -> ContentType {
    let value = ended(value);
    let Some(parsed) = MessageStream::new(&value).parse_content_type().into_content_type() else {
        return ContentType::default();
    };
    ContentType {
        kind: without_nul(parsed.c_type.to_ascii_lowercase()),
        subtype: parsed.c_subtype.map(|subtype| without_nul(subtype.to_ascii_lowercase())).unwrap_or_default(),
        attributes: parsed
            .attributes
            .unwrap_or_default()
            .into_iter()
            .map(|attribute| (attribute.name.into_owned(), one_line(attribute.value.into_owned())))
            .collect(),
    }
}

pub(super) fn html_to_text(html: &str) -> String {
    without_nul(mail_parser::decoders::html::html_to_text(html))
}

/// The parsers of fields stop at a line end, and find nothing without one.
fn ended(value: &[u8]) -> Vec<u8> {
    let value = super::words::join(value.get(..MAX_VALUE).unwrap_or(value));
    let mut ended = utf8(&value).into_owned().into_bytes();
    ended.extend_from_slice(b"\r\n");
    ended
}

/// Octets beyond ASCII are UTF-8 (RFC 6532 §3.2) or, where they can't be, what old mailers send without a word.
fn utf8(value: &[u8]) -> Cow<'_, str> {
    let is_other = |error: std::str::Utf8Error| error.error_len().is_some();
    let old = mail_parser::decoders::charsets::map::charset_decoder(b"windows-1252");
    match old.filter(|_| std::str::from_utf8(value).is_err_and(is_other)) {
        Some(decode) => Cow::Owned(decode(value)),
        None => String::from_utf8_lossy(value),
    }
}
