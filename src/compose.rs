//! Writes the mail that workers send: from a [`Draft`] to the octets of a message. Pure: id and time are arguments.
//!
//! Says of each that a machine wrote it (`Auto-Submitted`), and how many wrote before it because of each other
//! ([`HOPS`]): so that neither people's responders nor workers write to each other without end.
//! Standards: RFC 5322 §3.6, RFC 2045 to 2047, RFC 2387 (related), RFC 3834 §5, RFC 6532 (addresses beyond ASCII).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_builder::MessageBuilder;
use mail_builder::headers::HeaderType;
use mail_builder::headers::address::Address as Mailbox;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text;
use mail_builder::mime::{BodyPart, MimePart};

use crate::mail::draft::{Enclosure, HOPS, Named, Purpose};
use crate::mail::field::is_structured;
use crate::mail::{Address, Draft, MessageId, Timestamp};

/// Octets of a line without its end (RFC 5322 §2.1.1).
const MAX_LINE: usize = 998;

/// The message's octets.
#[must_use]
pub fn write(draft: &Draft, id: MessageId, now: Timestamp, hostname: &str) -> Vec<u8> {
    let utf8 = is_utf8(draft);
    let list = |named: &[Named]| Mailbox::new_list(named.iter().map(|one| mailbox(one, utf8)).collect());
    let mut message = MessageBuilder::new().header("From", mailbox(&draft.from, utf8));
    for (name, named) in [("To", &draft.to), ("Cc", &draft.cc), ("Reply-To", &draft.reply_to)] {
        if !named.is_empty() {
            message = message.header(name, list(named));
        }
    }
    let submitted = match &draft.purpose {
        Purpose::New => "auto-generated",
        Purpose::Reply { .. } => "auto-replied",
    };
    message = message
        .header("Subject", unstructured(&draft.subject))
        .header("Date", Raw::new(now.to_rfc5322()))
        .header("Message-ID", Raw::new(format!("<{id}@{hostname}>")))
        .header("Auto-Submitted", Raw::new(submitted))
        .header(HOPS, Raw::new((draft.hops + 1).to_string()));
    if let Purpose::Reply { in_reply_to, references, .. } = &draft.purpose {
        if let Some(id) = in_reply_to {
            message = message.header("In-Reply-To", Raw::new(format!("<{id}>")));
        }
        if !references.is_empty() {
            let references: Vec<String> = references.iter().map(|id| format!("<{id}>")).collect();
            message = message.header("References", Raw::new(references.join(" ")));
        }
    }
    for (name, value) in &draft.headers {
        // Encoded words among addresses and ids are the script's own.
        let written = if is_structured(name) { Raw::new(value.clone()).into() } else { unstructured(value) };
        message = message.header(name.clone(), written);
    }
    let mut octets = Vec::new();
    message.header("MIME-Version", Raw::new("1.0")).body(Parts { id, next: 0 }.whole(draft)).serialize(&mut octets);
    octets
}

/// A text that is read as it was meant: what looks like an encoded word isn't one (RFC 2047 §7).
fn unstructured(text: &str) -> HeaderType<'static> {
    if text.contains("=?") {
        Raw::new(in_words(text)).into()
    } else if text.is_ascii() {
        Raw::new(text.to_owned()).into()
    } else {
        Text::new(text.to_owned()).into()
    }
}

/// All of it as encoded words: 64 characters each, so that a line of them is no longer than 76 (RFC 2047 §2).
fn in_words(text: &str) -> String {
    let (mut words, mut word): (Vec<String>, String) = (Vec::new(), String::new());
    let encoded = |word: &str| format!("=?utf-8?B?{}?=", STANDARD.encode(word));
    for letter in text.chars() {
        if word.len() + letter.len_utf8() > 39 {
            words.push(encoded(&word));
            word.clear();
        }
        word.push(letter);
    }
    words.push(encoded(&word));
    words.join(" ")
}

/// Whether it can't be written without UTF-8 in its header section (RFC 6532 §3.2): a domain alone has A-labels.
#[must_use]
pub fn is_utf8(draft: &Draft) -> bool {
    let named = [&draft.to, &draft.cc, &draft.bcc, &draft.reply_to].into_iter().flatten();
    std::iter::once(&draft.from).chain(named).any(|one| !one.address.local().is_ascii())
}

fn mailbox(named: &Named, utf8: bool) -> Mailbox<'static> {
    Mailbox::new_address(named.name.clone(), written(&named.address, utf8))
}

fn written(address: &Address, utf8: bool) -> String {
    if utf8 { address.to_string() } else { format!("{}@{}", address.local(), address.domain_key()) }
}

/// The body's parts, each container's boundary made of the message's id: mail-builder's own would be of the system's clock.
struct Parts {
    id: MessageId,
    next: u32,
}

impl Parts {
    fn whole(&mut self, draft: &Draft) -> MimePart<'static> {
        let (inline, others): (Vec<_>, Vec<_>) =
            draft.attachments.iter().partition(|one| one.inline && one.content_id.is_some() && draft.html.is_some());
        let text = draft.text.as_ref().map(|text| MimePart::new("text/plain", with_crlf(text)));
        let html = draft.html.as_ref().map(|html| {
            let html = MimePart::new("text/html", with_crlf(html));
            let shown = inline.into_iter().map(enclosed);
            self.container("multipart/related", std::iter::once(html).chain(shown).collect())
        });
        let read = self.container("multipart/alternative", text.into_iter().chain(html).collect());
        let beside = others.into_iter().map(enclosed);
        self.container("multipart/mixed", std::iter::once(read).chain(beside).collect())
    }

    /// One part needs no container.
    fn container(&mut self, kind: &'static str, mut parts: Vec<MimePart<'static>>) -> MimePart<'static> {
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return only;
        }
        self.next += 1;
        let boundary = format!("_{}_{}", self.id, self.next);
        let kind = ContentType::new(kind).attribute("boundary", boundary);
        let mut headers: Vec<(_, HeaderType<'static>)> = vec![("Content-Type".into(), kind.into())];
        if parts.iter().any(is_eight_bit) {
            // RFC 2045 §6.4: what holds such a part says so, too.
            headers.push((ENCODING.into(), Raw::new(EIGHT_BIT).into()));
        }
        MimePart { headers, contents: BodyPart::Multipart(parts) }
    }
}

const ENCODING: &str = "Content-Transfer-Encoding";
const EIGHT_BIT: &str = "8bit";

fn is_eight_bit(part: &MimePart<'static>) -> bool {
    let is = |value: &HeaderType<'_>| matches!(value, HeaderType::Raw(raw) if raw.raw == EIGHT_BIT);
    part.headers.iter().any(|(name, value)| name == ENCODING && is(value))
}

fn enclosed(one: &Enclosure) -> MimePart<'static> {
    let (kind, encoding, content) = match as_it_is(one) {
        AsItIs::Of(octets) if octets.is_ascii() => (one.content_type.as_str(), "7bit", octets),
        AsItIs::Of(octets) => (one.content_type.as_str(), EIGHT_BIT, octets),
        AsItIs::Not => (one.content_type.as_str(), "base64", in_lines(&one.content)),
        // Octets alone, then: a part of that kind can't be encoded.
        AsItIs::CannotBe => ("application/octet-stream", "base64", in_lines(&one.content)),
    };
    // A text would be encoded as one, its line ends with it; what goes along stays as it is.
    let disposition = ContentType::new(if one.inline { "inline" } else { "attachment" });
    let disposition = match &one.filename {
        Some(filename) => disposition.attribute("filename", filename.clone()),
        None => disposition,
    };
    let mut headers: Vec<(_, HeaderType<'static>)> = vec![
        ("Content-Type".into(), ContentType::new(kind.to_owned()).into()),
        ("Content-Disposition".into(), disposition.into()),
    ];
    if let Some(id) = &one.content_id {
        headers.push(("Content-ID".into(), Raw::new(format!("<{id}>")).into()));
    }
    headers.push((ENCODING.into(), Raw::new(encoding).into()));
    MimePart { headers, contents: BodyPart::Binary(content.into()) }
}

/// What is made of parts may not be encoded as a whole (RFC 2045 §6.4, RFC 2046 §5.2.1).
enum AsItIs {
    /// Lines of mail.
    Of(Vec<u8>),
    /// It is of another kind.
    Not,
    /// It would have to be, and isn't lines of mail, or has no boundary.
    CannotBe,
}

fn as_it_is(one: &Enclosure) -> AsItIs {
    let (kind, parameters) = one.content_type.split_once(';').unwrap_or((&one.content_type, ""));
    let kind = kind.trim().to_ascii_lowercase();
    let is_multipart = kind.starts_with("multipart/");
    // Those of RFC 6532 §3.7 may.
    if !is_multipart && (!kind.starts_with("message/") || kind.starts_with("message/global")) {
        return AsItIs::Not;
    }
    let octets = lines(&one.content);
    let has_room = octets.split(|octet| *octet == b'\n').all(|line| line.len() <= MAX_LINE + 1);
    let is_whole = !is_multipart || parameters.to_ascii_lowercase().contains("boundary=");
    // RFC 2046 §5.2.2 and others: of messages the whole ones alone may have eight bits.
    let has_bits = octets.is_ascii() || is_multipart || kind == "message/rfc822";
    if has_room && is_whole && has_bits && !octets.contains(&0) { AsItIs::Of(octets) } else { AsItIs::CannotBe }
}

/// With CRLF at the end of each line.
fn lines(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 32);
    for (at, octet) in octets.iter().enumerate() {
        match octet {
            b'\r' if octets.get(at + 1) == Some(&b'\n') => {}
            b'\r' | b'\n' => out.extend_from_slice(b"\r\n"),
            other => out.push(*other),
        }
    }
    out
}

/// Base64 in lines of 76 (RFC 2045 §6.8).
fn in_lines(octets: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(octets.len() / 57 * 78 + 80);
    for piece in octets.chunks(57) {
        lines.extend_from_slice(STANDARD.encode(piece).as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

/// A script's lines end with LF, those of mail with CRLF (RFC 5322 §2.3).
fn with_crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n")
}

#[cfg(test)]
mod tests;
