//! A message: its octets as received, and views of them that are made when first asked for.
//!
//! The octets are never changed. What intake asks of every message (trace fields, subject, author) costs one scan of
//! the header section; MIME is taken apart only for a worker that looks inside, and an attachment is decoded only when
//! its content is read. mail-parser is known to this module alone.
//! Bounds: every scan is linear; fields, parts and nesting are counted, and what is beyond the bounds is left unread.
//! Standards: RFC 5322, RFC 2045 to 2047, RFC 2231, RFC 3834 (automatic mail), RFC 2919 and 2369 (lists), RFC 3464.

pub mod calendar;
mod fields;
mod mime;
pub mod quoted;
pub mod report;
mod signatures;
pub mod spam;
mod words;

use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;

pub use fields::Mailbox;
pub use mime::{Content, Part};

use super::{Address, Timestamp, results};

/// Header fields that are looked at: a message with more isn't taken.
pub const MAX_FIELDS: usize = 10_000;

/// The octets of one message, and what a parser makes of them.
#[derive(Debug)]
pub struct Message {
    raw: Bytes,
    /// Our own name, in which nobody else may say who the sender is.
    authserv_id: Option<Box<str>>,
    fields: OnceLock<Fields>,
    content: OnceLock<Content>,
}

#[derive(Debug, Default)]
struct Fields {
    seen: Vec<Field>,
    /// Where those stand, each with its line end, that claim to be ours (RFC 8601 §5).
    forged: Vec<Range<usize>>,
    /// There are more than are looked at.
    more: bool,
}

/// Where a header field stands: its name, and what follows the colon up to (not including) its last line end.
#[derive(Debug)]
struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

impl Message {
    #[must_use]
    pub fn new(raw: Bytes) -> Self {
        Self { raw, authserv_id: None, fields: OnceLock::new(), content: OnceLock::new() }
    }

    /// One that comes in here, where a field `Authentication-Results` that bears our name is forged: it isn't seen, and
    /// [`Message::forged`] says where it stands.
    #[must_use]
    pub fn received_by(authserv_id: &str, raw: Bytes) -> Self {
        Self { authserv_id: Some(authserv_id.into()), ..Self::new(raw) }
    }

    /// Where the fields stand that pretend to be ours; those that follow each other are one.
    #[must_use]
    pub fn forged(&self) -> &[Range<usize>] {
        &self.scanned().forged
    }

    /// As received: after dot-unstuffing, without what we add.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Where the body starts: after the first empty line; the length where there is none (RFC 5322 §2.1).
    #[must_use]
    pub fn headers_end(&self) -> usize {
        headers_end(&self.raw)
    }

    /// The header fields in order, as received: name, and value with its folding.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields().iter().map(|field| (self.name(field), self.slice(&field.value)))
    }

    /// The header fields in order: name, value unfolded and decoded (RFC 2047), value as received.
    pub fn decoded_headers(&self) -> impl Iterator<Item = (&str, String, &[u8])> {
        self.headers().map(|(name, value)| (name, fields::text(value), value))
    }

    /// The field at that place of the order, as received; `None` beyond the last.
    #[must_use]
    pub fn field(&self, at: usize) -> Option<(&str, &[u8])> {
        self.fields().get(at).map(|field| (self.name(field), self.slice(&field.value)))
    }

    /// A value as it is meant: unfolded, encoded words decoded (RFC 2047).
    #[must_use]
    pub fn decode(value: &[u8]) -> String {
        fields::text(value)
    }

    /// Where the fields of these names stand, each with its line end, in order; those that follow each other are one.
    /// `None`: there are more fields than are looked at.
    #[must_use]
    pub fn places(&self, names: &[String]) -> Option<Vec<Range<usize>>> {
        self.places_of(|found| names.iter().any(|name| name.eq_ignore_ascii_case(found)))
    }

    /// The same of those whose name is one.
    #[must_use]
    pub fn places_of(&self, is_one: impl Fn(&str) -> bool) -> Option<Vec<Range<usize>>> {
        if self.has_unseen_fields() {
            return None;
        }
        let mut places: Vec<Range<usize>> = Vec::new();
        for field in self.fields() {
            if !is_one(self.name(field)) {
                continue;
            }
            add_place(&mut places, self.place(field));
        }
        Some(places)
    }

    /// The domains whose DKIM signatures hold this field (RFC 6376 §3.5), each once; one that isn't there may be held, too.
    #[must_use]
    pub fn signers(&self, name: &str) -> Vec<String> {
        signatures::signers(self.header_values("DKIM-Signature"), name)
    }

    /// The values of every field of that name, as received; names are compared without case.
    pub fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// How often a field of that name stands there.
    #[must_use]
    pub fn count_header(&self, name: &str) -> usize {
        self.header_values(name).count()
    }

    #[must_use]
    pub fn has_header(&self, name: &str) -> bool {
        self.header_values(name).next().is_some()
    }

    /// The first field of that name: unfolded, encoded words decoded (RFC 2047).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.header_values(name).next().map(fields::text)
    }

    /// The addresses of the first field of that name, groups taken apart (RFC 5322 §3.4).
    #[must_use]
    pub fn addresses(&self, name: &str) -> Vec<Mailbox> {
        self.header_values(name).next().map(fields::mailboxes).unwrap_or_default()
    }

    #[must_use]
    pub fn subject(&self) -> Option<String> {
        self.header("Subject")
    }

    /// The first author's address (RFC 5322 §3.6.2), as the field has it.
    #[must_use]
    pub fn header_from(&self) -> Option<String> {
        self.addresses("From").into_iter().find_map(|mailbox| mailbox.address)
    }

    /// Whom all the fields From name (RFC 5322 §3.6.2); `None` where one is too long to be read to its end.
    #[must_use]
    pub fn authors(&self) -> Option<Vec<Mailbox>> {
        let read = |value: &[u8]| (value.len() <= fields::MAX_VALUE).then(|| fields::mailboxes(value));
        self.header_values("From").map(read).collect::<Option<Vec<_>>>().map(|all| all.concat())
    }

    /// The one author is this mailbox, to the letter: another one of a domain that signs for all its users is another
    /// person's.
    #[must_use]
    pub fn is_by(&self, sender: &Address) -> bool {
        let authors = self.authors().unwrap_or_default();
        let ([author], 1) = (authors.as_slice(), self.count_header("From")) else { return false };
        let author = author.address.as_deref().and_then(|address| Address::parse(address).ok());
        author.is_some_and(|author| {
            author.unquoted_local() == sender.unquoted_local() && author.domain_key() == sender.domain_key()
        })
    }

    /// There are more fields than are looked at: what they say, nobody here knows.
    #[must_use]
    pub fn has_unseen_fields(&self) -> bool {
        self.scanned().more
    }

    /// When it was written, by its own account.
    #[must_use]
    pub fn date(&self) -> Option<Timestamp> {
        self.header_values("Date").next().and_then(fields::date)
    }

    /// Without the angle brackets.
    #[must_use]
    pub fn message_id(&self) -> Option<String> {
        self.ids("Message-ID").into_iter().next()
    }

    /// The message ids in the first field of that name (`In-Reply-To`, `References`), without their angle brackets.
    #[must_use]
    pub fn ids(&self, name: &str) -> Vec<String> {
        self.header_values(name).next().map(fields::ids).unwrap_or_default()
    }

    /// Whom it was delivered to before: a recipient of ours among them means a loop.
    #[must_use]
    pub fn delivered_to(&self) -> Vec<String> {
        self.header_values("Delivered-To").map(fields::text).collect()
    }

    /// Made by a machine: answers to it would be answers to nobody (RFC 3834 §2, §3.1.7 and common practice).
    #[must_use]
    pub fn is_auto(&self) -> bool {
        self.header("Auto-Submitted").is_some_and(|value| first_word(&value) != "no")
            || self
                .header("Precedence")
                .is_some_and(|value| matches!(first_word(&value).as_str(), "bulk" | "junk" | "list" | "auto_reply"))
            || self.header("X-Auto-Response-Suppress").is_some_and(|value| first_word(&value) != "none")
            || self.has_header("X-Autoreply")
            || self.has_header("X-Autorespond")
            || self.is_bounce()
            || self.is_list()
    }

    /// A delivery status notification by its form (RFC 3464 §2). The null sender is the envelope's to tell.
    #[must_use]
    pub fn is_bounce(&self) -> bool {
        self.header_values("Content-Type").next().is_some_and(|value| {
            let kind = fields::content_type(value);
            kind.is("multipart", "report")
                && kind.attribute("report-type").is_some_and(|kind| kind.eq_ignore_ascii_case("delivery-status"))
        })
    }

    /// Sent through a mailing list (RFC 2919, RFC 2369).
    #[must_use]
    pub fn is_list(&self) -> bool {
        ["List-Id", "List-Post", "List-Unsubscribe"].iter().any(|name| self.has_header(name))
            || self.header("Precedence").is_some_and(|value| first_word(&value) == "list")
    }

    /// The body taken apart: texts and attachments.
    pub fn content(&self) -> &Content {
        self.content.get_or_init(|| mime::read(&self.raw))
    }

    /// The plain text; where there is only HTML, that as text.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let content = self.content();
        content.text(&self.raw).or_else(|| content.html(&self.raw).map(|html| fields::html_to_text(&html)))
    }

    /// Whether there is a plain text, so that [`Message::text`] isn't made from the HTML.
    #[must_use]
    pub fn has_plain_text(&self) -> bool {
        self.content().has_text()
    }

    #[must_use]
    pub fn html(&self) -> Option<String> {
        self.content().html(&self.raw)
    }

    /// The parts that are neither the text nor its HTML, in order.
    #[must_use]
    pub fn attachments(&self) -> &[Part] {
        &self.content().attachments
    }

    fn fields(&self) -> &[Field] {
        &self.scanned().seen
    }

    fn scanned(&self) -> &Fields {
        self.fields.get_or_init(|| {
            let (seen, more) = scan(&self.raw);
            let mut found = Fields { seen, forged: Vec::new(), more };
            if let Some(own) = &self.authserv_id {
                let is_forged = |field: &mut Field| {
                    self.name(field).eq_ignore_ascii_case(results::FIELD)
                        && results::bears(self.slice(&field.value), own)
                };
                for field in found.seen.extract_if(.., is_forged) {
                    add_place(&mut found.forged, self.place(&field));
                }
            }
            found
        })
    }

    /// All of a field, its line end included.
    fn place(&self, field: &Field) -> Range<usize> {
        let rest = self.raw.get(field.value.end..).unwrap_or_default();
        let line_end = if rest.starts_with(b"\r\n") { 2 } else { usize::from(!rest.is_empty()) };
        field.name.start..field.value.end + line_end
    }

    fn name(&self, field: &Field) -> &str {
        std::str::from_utf8(self.slice(&field.name)).unwrap_or_default()
    }

    fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.raw.get(range.clone()).unwrap_or_default()
    }
}

/// Places in order; what follows the last one directly is part of it.
fn add_place(places: &mut Vec<Range<usize>>, place: Range<usize>) {
    match places.last_mut().filter(|last| last.end == place.start) {
        Some(last) => last.end = place.end,
        None => places.push(place),
    }
}

/// What a keyword field says, without parameters: `auto-replied (vacation)` is `auto-replied`.
fn first_word(value: &str) -> String {
    value.split([';', ' ', '\t', '(', ',']).next().unwrap_or_default().to_ascii_lowercase()
}

/// Lines with where they start and end, their line end excluded; LF alone is taken too, for files written by hand.
fn lines(octets: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = octets.get(start..).filter(|rest| !rest.is_empty())?;
        let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let line = rest.get(..length).unwrap_or(rest);
        let text = line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line));
        let range = start..start + text.len();
        start += length;
        Some(range)
    })
}

fn headers_end(octets: &[u8]) -> usize {
    let empty = lines(octets).find(Range::is_empty);
    empty.map_or(octets.len(), |line| {
        let rest = octets.get(line.start..).unwrap_or_default();
        line.start + if rest.starts_with(b"\r\n") { 2 } else { 1 }
    })
}

/// The header section's fields, and whether there are more than are looked at. A line that is no field (RFC 5322 §2.2) is
/// passed over.
fn scan(octets: &[u8]) -> (Vec<Field>, bool) {
    let mut fields: Vec<Field> = Vec::new();
    let mut open = false;
    for line in lines(octets).take_while(|line| !line.is_empty()) {
        let text = octets.get(line.clone()).unwrap_or_default();
        if text.starts_with(b" ") || text.starts_with(b"\t") {
            // Folded (RFC 5322 §2.2.3): what is continued is only known as the field before.
            if let Some(field) = fields.last_mut().filter(|_| open) {
                field.value.end = line.end;
            }
            continue;
        }
        open = false;
        let Some(colon) = memchr::memchr(b':', text) else { continue };
        // White space before the colon is obsolete, and still seen (RFC 5322 §4.5).
        let name = text.get(..colon).unwrap_or_default().trim_ascii_end();
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            continue;
        }
        if fields.len() == MAX_FIELDS {
            return (fields, true);
        }
        open = true;
        fields.push(Field { name: line.start..line.start + name.len(), value: line.start + colon + 1..line.end });
    }
    (fields, false)
}

#[cfg(test)]
mod tests;
