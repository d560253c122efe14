//! A body taken apart into texts and attachments (RFC 2045, RFC 2046). Nothing is decoded before it is read.
//!
//! Works on ranges of the octets and with a stack of its own, so that neither nesting nor the number of parts can cost
//! more than the bounds below allow. A message inside a message is an attachment, not looked into.

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use super::{fields, headers_end, lines};
use fields::ContentType;

/// Multiparts inside multiparts; what is deeper is one attachment.
const MAX_DEPTH: usize = 32;
/// Parts in all; the rest of the body belongs to the last one.
const MAX_PARTS: usize = 1_000;

/// What is in a body.
#[derive(Debug, Default)]
pub struct Content {
    /// Plain texts that are shown, in order.
    texts: Vec<Part>,
    html: Option<Part>,
    pub attachments: Vec<Part>,
    /// The body had more parts, or deeper ones, than are looked at.
    pub cut: bool,
}

/// One part that holds no further ones.
#[derive(Debug, Clone, Default)]
pub struct Part {
    body: Range<usize>,
    encoding: Encoding,
    charset: Option<String>,
    /// As in `application/pdf`.
    pub content_type: String,
    /// As the sender named it: never a path to be trusted.
    pub filename: Option<String>,
    /// Without its angle brackets.
    pub content_id: Option<String>,
    /// Meant to be shown within the text.
    pub inline: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Encoding {
    #[default]
    Identity,
    Base64,
    QuotedPrintable,
}

impl Content {
    pub(super) fn text(&self, raw: &Bytes) -> Option<String> {
        let texts: Vec<String> = self.texts.iter().map(|part| part.text(raw)).collect();
        (!texts.is_empty()).then(|| texts.join("\n"))
    }

    pub(super) fn has_text(&self) -> bool {
        !self.texts.is_empty()
    }

    pub(super) fn html(&self, raw: &Bytes) -> Option<String> {
        self.html.as_ref().map(|part| part.text(raw))
    }
}

impl Part {
    /// The octets that the part stands for, its transfer encoding undone. What can't be decoded comes as it is.
    #[must_use]
    pub fn content(&self, raw: &Bytes) -> Bytes {
        let body = raw.get(self.body.clone()).map(|_| raw.slice(self.body.clone())).unwrap_or_default();
        let decoded = match self.encoding {
            Encoding::Identity => None,
            Encoding::Base64 => base64(&body),
            Encoding::QuotedPrintable => mail_parser::decoders::quoted_printable::quoted_printable_decode(&body),
        };
        decoded.map_or(body, Bytes::from)
    }

    /// The content as text, by its charset; without one, UTF-8 with what isn't replaced.
    #[must_use]
    pub fn text(&self, raw: &Bytes) -> String {
        self.decode(&self.content(raw))
    }

    /// This content of the part's as text.
    #[must_use]
    pub fn decode(&self, content: &[u8]) -> String {
        let decode = self
            .charset
            .as_ref()
            .filter(|charset| !charset.eq_ignore_ascii_case("utf-8"))
            .and_then(|charset| mail_parser::decoders::charsets::map::charset_decoder(charset.as_bytes()));
        fields::without_nul(match decode {
            Some(decode) => decode(content),
            None => String::from_utf8_lossy(content).into_owned(),
        })
    }
}

/// Lines that hold anything else are passed over (RFC 2045 §6.8), as the footer that a list puts below; a body without
/// one line of base64 is none.
fn base64(body: &[u8]) -> Option<Vec<u8>> {
    let decode = mail_parser::decoders::base64::base64_decode;
    decode(body).or_else(|| {
        let belongs = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/' | b'=');
        let good = lines(body)
            .filter_map(|line| body.get(line).map(<[u8]>::trim_ascii))
            .filter(|line| line.iter().all(belongs))
            .fold(Vec::new(), |mut good, line| {
                good.extend_from_slice(line);
                good
            });
        decode(&good).filter(|decoded| !decoded.is_empty())
    })
}

/// A part found and not yet looked into.
struct Found {
    whole: Range<usize>,
    depth: usize,
    /// Its parent is a `multipart/digest`, whose parts are messages unless they say otherwise (RFC 2046 §5.1.5).
    in_digest: bool,
    /// Its parent is a `multipart/alternative` or `related`: a second text is another form of the first.
    siblings_are_forms: bool,
}

pub(super) fn read(raw: &Bytes) -> Content {
    let mut content = Content::default();
    let mut open = vec![Found { whole: 0..raw.len(), depth: 0, in_digest: false, siblings_are_forms: false }];
    let mut seen = 0;
    while let Some(found) = open.pop() {
        seen += 1;
        let octets = raw.get(found.whole.clone()).unwrap_or_default();
        let (part, kind) = head(octets, &found);
        let boundary = kind.attribute("boundary").filter(|boundary| is_boundary(boundary) && kind.kind == "multipart");
        let Some(boundary) = boundary.filter(|_| found.depth < MAX_DEPTH) else {
            content.cut |= kind.kind == "multipart" && found.depth >= MAX_DEPTH;
            content.place(part, &found);
            continue;
        };
        let room = MAX_PARTS.saturating_sub(seen + open.len());
        let (parts, cut) = split(raw, &part.body, boundary.as_bytes(), room);
        content.cut |= cut;
        if parts.is_empty() {
            // A multipart without parts (RFC 2046 §5.1.1 wants one): its text is all there is.
            content.place(Part { content_type: "text/plain".to_owned(), ..part }, &found);
            continue;
        }
        // The stack gives the last one back first.
        open.extend(parts.into_iter().rev().map(|whole| Found {
            whole,
            depth: found.depth + 1,
            in_digest: kind.subtype == "digest",
            siblings_are_forms: matches!(kind.subtype.as_str(), "alternative" | "related"),
        }));
    }
    content
}

impl Content {
    /// A text to be shown becomes the text or its HTML; all else is an attachment.
    fn place(&mut self, part: Part, found: &Found) {
        let shown = part.filename.is_none() && (part.inline || found.depth == 0);
        match part.content_type.as_str() {
            "text/plain" if shown && (self.texts.is_empty() || !found.siblings_are_forms) => self.texts.push(part),
            "text/html" if shown && self.html.is_none() => self.html = Some(part),
            _ => self.attachments.push(part),
        }
    }
}

/// What a part's own header fields say of it. Its body's range is that of the whole message.
fn head(octets: &[u8], found: &Found) -> (Part, ContentType) {
    let end = headers_end(octets);
    let fields = super::scan(octets.get(..end).unwrap_or(octets)).0;
    let field = |name: &str| {
        let is_named = |field: &&super::Field| {
            octets.get(field.name.clone()).is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
        };
        fields.iter().find(is_named).and_then(|field| octets.get(field.value.clone()))
    };
    let kind = field("Content-Type").map(fields::content_type).filter(|kind| !kind.subtype.is_empty());
    let kind = kind.unwrap_or_else(|| default_type(found));
    let disposition = field("Content-Disposition").map(fields::content_type);
    let filename = disposition
        .as_ref()
        .and_then(|disposition| disposition.attribute("filename"))
        .or_else(|| kind.attribute("name"))
        .filter(|name| !name.is_empty());
    let content_id = field("Content-ID").map(fields::ids).and_then(|ids| ids.into_iter().next());
    let part = Part {
        body: found.whole.start + end..found.whole.end,
        encoding: field("Content-Transfer-Encoding").map_or(Encoding::Identity, encoding),
        charset: kind.attribute("charset").map(str::to_owned),
        content_type: format!("{}/{}", kind.kind, kind.subtype),
        filename: filename.map(str::to_owned),
        inline: match &disposition {
            Some(disposition) => disposition.kind == "inline",
            None => content_id.is_some() || (kind.kind == "text" && filename.is_none()),
        },
        content_id,
    };
    (part, kind)
}

/// RFC 2045 §5.2, RFC 2046 §5.1.5.
fn default_type(found: &Found) -> ContentType {
    fields::content_type(if found.in_digest { b"message/rfc822" } else { b"text/plain; charset=us-ascii" })
}

fn encoding(value: &[u8]) -> Encoding {
    let value = fields::text(value);
    if value.eq_ignore_ascii_case("base64") {
        Encoding::Base64
    } else if value.eq_ignore_ascii_case("quoted-printable") {
        Encoding::QuotedPrintable
    } else {
        Encoding::Identity
    }
}

/// Something that can stand in a line; the 70 characters of RFC 2046 §5.1.1 are not insisted on.
fn is_boundary(text: &str) -> bool {
    !text.is_empty() && !text.contains(['\r', '\n'])
}

/// The parts between boundary lines (RFC 2046 §5.1.1), at most `room`; and whether there were more.
fn split(raw: &[u8], body: &Range<usize>, boundary: &[u8], room: usize) -> (Vec<Range<usize>>, bool) {
    let octets = raw.get(body.clone()).unwrap_or_default();
    let delimiter = [b"--", boundary].concat();
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut start: Option<usize> = None;
    // Nesting repeats this over the same octets: so the delimiter is looked for, not every line looked at.
    for at in memmem::find_iter(octets, &delimiter) {
        let before = octets.get(..at).unwrap_or_default();
        if !before.is_empty() && !before.ends_with(b"\n") {
            continue;
        }
        let rest = octets.get(at + delimiter.len()..).unwrap_or_default();
        let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        let line = at..at + delimiter.len() + length;
        let rest = rest.get(..length).unwrap_or_default().trim_ascii_end();
        if !rest.is_empty() && rest != b"--" {
            continue;
        }
        if let Some(start) = start.take() {
            // The line end before a boundary belongs to the boundary.
            let end = octets.get(start..line.start).unwrap_or_default();
            let end = end.strip_suffix(b"\n").map_or(end, |end| end.strip_suffix(b"\r").unwrap_or(end));
            parts.push(body.start + start..body.start + start + end.len());
        }
        if rest == b"--" {
            return (parts, false);
        }
        if parts.len() >= room {
            return (parts, true);
        }
        start = Some(line.end);
    }
    if let Some(start) = start {
        parts.push(body.start + start..body.end);
    }
    (parts, false)
}
