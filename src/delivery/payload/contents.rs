//! What the formats take of a message: its fields, texts and attachments, each within its bound.

use bytes::Bytes;
use serde::Serialize;

use super::{Size, Source};
use crate::mail::authentication::Check;
use crate::mail::message::quoted::{self, Stripped};
use crate::mail::message::spam::{self, Spam};
use crate::mail::{Address, Authentication, Client, Message, Part};

/// Octets of each of the two texts.
pub const MAX_TEXT: usize = 1 << 20;
/// Header fields, and octets of all of them.
pub const MAX_FIELDS: usize = 1_000;
const MAX_HEADER: usize = 256 * 1024;
/// Octets of all attachments, decoded.
const MAX_ATTACHED: usize = 32 << 20;
/// Octets of a file's name.
pub const MAX_NAME: usize = 200;

#[derive(Serialize)]
pub struct Field<'a> {
    pub name: &'a str,
    /// Unfolded and decoded (RFC 2047).
    pub value: String,
    /// As received.
    pub raw: String,
}

/// What was left out.
#[derive(Serialize, Default)]
pub struct Truncated {
    pub headers: bool,
    pub text: bool,
    pub html: bool,
    pub attachments: bool,
}

pub struct Attached<'a> {
    /// Its place in the message, from 1.
    pub id: usize,
    pub part: &'a Part,
    pub safe_name: String,
    pub content: Bytes,
    /// Whether the content goes along.
    pub fits: bool,
}

/// What a format of another's says in our words: an added field that its consumers don't look at.
#[derive(Serialize)]
pub struct Ours<'a> {
    message_id: String,
    attempt: u32,
    truncated: &'a Truncated,
}

/// All but attachments, which come one by one.
pub struct Contents<'a> {
    pub message: &'a Message,
    pub source: &'a Source,
    pub fields: Vec<Field<'a>>,
    pub text: Option<String>,
    pub html: Option<String>,
    /// The text taken apart; empty where there is none.
    pub stripped: Stripped,
    pub spam: Spam,
    pub truncated: Truncated,
    size: Size,
}

impl<'a> Contents<'a> {
    #[must_use]
    pub fn new(source: &'a Source, message: &'a Message, size: Size) -> Self {
        let mut truncated = Truncated::default();
        let fields = fields(message, &mut truncated);
        let (text, html) = texts(message, size, &mut truncated);
        let helo = source.body.client.as_ref().and_then(|client| client.helo.as_deref());
        Self {
            stripped: quoted::strip(text.as_deref().unwrap_or_default()),
            spam: spam::judge(message, source.message.timestamp(), helo),
            message,
            source,
            fields,
            text,
            html,
            truncated,
            size,
        }
    }

    /// The attachments that go along, one by one.
    pub fn attached<T>(&mut self, mut make: impl FnMut(Attached<'a>) -> T) -> Vec<T> {
        let some = |attached: Attached<'a>| attached.fits.then(|| make(attached));
        attachments(self.message, self.size, &mut self.truncated, some).into_iter().flatten().collect()
    }

    /// The message itself: after these fields and our trace, and without what only we may say. A thin one ends with its
    /// header section. What the other formats would have cut isn't.
    pub fn whole(&mut self, ours: &[(&str, &str)], is_ours: impl Fn(&str) -> bool) -> Bytes {
        let (message, head) = (self.message, &self.source.body.head);
        let is_thin = self.size == Size::Thin;
        let without = is_thin && !message.attachments().is_empty();
        self.truncated = Truncated { headers: false, attachments: without, ..std::mem::take(&mut self.truncated) };
        if !is_thin {
            self.truncated = Truncated::default();
        }
        // Where there are more fields than are looked at none is cut: those before them are ours.
        let mut cut = message.places_of(is_ours).unwrap_or_default();
        cut.extend_from_slice(message.forged());
        cut.sort_by_key(|place| place.start);
        let end = if is_thin { message.headers_end() } else { message.raw().len() };
        let mut whole = Vec::with_capacity(head.len() + end + 512);
        for (name, value) in ours {
            whole.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        whole.extend_from_slice(head);
        let mut from = 0;
        for place in cut {
            whole.extend_from_slice(message.raw().get(from..place.start).unwrap_or_default());
            from = place.end.max(from);
        }
        whole.extend_from_slice(message.raw().get(from..end).unwrap_or_default());
        whole.into()
    }

    #[must_use]
    pub fn ours(&self) -> Ours<'_> {
        let source = self.source;
        Ours { message_id: source.message.to_string(), attempt: source.attempt, truncated: &self.truncated }
    }

    /// A field's value, decoded; empty where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> String {
        self.message.header(name).unwrap_or_default()
    }

    #[must_use]
    pub fn recipient(&self) -> &'a str {
        self.source.recipient.as_str()
    }

    /// The envelope's; empty for the null sender.
    #[must_use]
    pub fn sender(&self) -> &'a str {
        self.source.body.envelope.sender.as_ref().map_or("", Address::as_str)
    }

    #[must_use]
    pub fn client(&self) -> Option<&'a Client> {
        self.source.body.client.as_ref()
    }

    #[must_use]
    pub fn auth(&self) -> Option<&'a Authentication> {
        self.client().and_then(|client| client.auth.as_deref())
    }

    /// SPF's result in the capitals of the services; `None` where it says nothing.
    #[must_use]
    pub fn spf(&self) -> Option<&'static str> {
        match self.auth()?.spf.result {
            Check::Pass => Some("Pass"),
            Check::Fail => Some("Fail"),
            Check::SoftFail => Some("SoftFail"),
            Check::Neutral => Some("Neutral"),
            _ => None,
        }
    }

    #[must_use]
    pub fn is_spam(&self) -> bool {
        self.spam.verdict == "spam"
    }

    /// As in `2.5`.
    #[must_use]
    pub fn score(&self) -> String {
        format!("{:.1}", self.spam.score)
    }
}

pub fn fields<'a>(message: &'a Message, truncated: &mut Truncated) -> Vec<Field<'a>> {
    let mut fields = Vec::new();
    let mut room = MAX_HEADER;
    for (name, value, raw) in message.decoded_headers() {
        match room.checked_sub(name.len() + raw.len()) {
            Some(rest) if fields.len() < MAX_FIELDS => room = rest,
            _ => {
                truncated.headers = true;
                break;
            }
        }
        fields.push(Field { name, value, raw: String::from_utf8_lossy(raw).into_owned() });
    }
    fields
}

/// Text and HTML.
pub fn texts(message: &Message, size: Size, truncated: &mut Truncated) -> (Option<String>, Option<String>) {
    let cut = |text: Option<String>, is_cut: &mut bool| {
        let mut text = text?;
        *is_cut = size == Size::Thin || text.len() > MAX_TEXT;
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        (size == Size::Full).then_some(text)
    };
    (cut(message.text(), &mut truncated.text), cut(message.html(), &mut truncated.html))
}

pub fn attachments<'a, T>(
    message: &'a Message,
    size: Size,
    truncated: &mut Truncated,
    mut make: impl FnMut(Attached<'a>) -> T,
) -> Vec<T> {
    truncated.attachments = message.content().cut;
    let mut room = if size == Size::Thin { 0 } else { MAX_ATTACHED };
    let attached = |(id, part): (usize, &'a Part)| {
        let content = part.content(message.raw());
        let fits = size == Size::Full && content.len() <= room;
        if fits {
            room -= content.len();
        } else {
            truncated.attachments = true;
        }
        make(Attached { id, part, safe_name: safe_name(part.filename.as_deref(), id), content, fits })
    };
    (1..).zip(message.attachments()).map(attached).collect()
}

/// A name that names a file in one directory, on every system: no path, no control characters, no leading dot.
pub fn safe_name(filename: Option<&str>, id: usize) -> String {
    let last = filename.unwrap_or_default().rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String =
        last.chars().map(|c| if c.is_control() || "<>:\"|?*\u{202e}".contains(c) { '_' } else { c }).collect();
    let mut name = kept.trim_matches(|c: char| c == '.' || c.is_whitespace()).to_owned();
    name.truncate(name.floor_char_boundary(MAX_NAME));
    if name.is_empty() { format!("attachment-{id}") } else { name }
}
