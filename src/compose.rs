//! Writes the mail that workers send: from a [`Draft`] to the octets of a message. Pure: id and time are arguments.
//!
//! Says of each that a machine wrote it (`Auto-Submitted`), and how many wrote before it because of each other
//! ([`HOPS`]): so that neither people's responders nor workers write to each other without end.
//! Standards: RFC 5322 §3.6, RFC 2045 to 2047, RFC 2387 (related), RFC 3834 §5, RFC 6532 (addresses beyond ASCII).

use mail_builder::MessageBuilder;
use mail_builder::headers::HeaderType;
use mail_builder::headers::address::Address as Mailbox;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text;
use mail_builder::mime::{BodyPart, MimePart};

use crate::mail::draft::{Enclosure, HOPS, Named, Purpose};
use crate::mail::{Address, Draft, MessageId, Timestamp};

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
        .header("Subject", Text::new(draft.subject.clone()))
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
        // An encoded word's beginning in a text of ASCII is a text, and not to be taken for one.
        let plain = value.is_ascii() && !value.contains("=?");
        let value: HeaderType<'_> =
            if plain { Raw::new(value.clone()).into() } else { Text::new(value.clone()).into() };
        message = message.header(name.clone(), value);
    }
    let mut octets = Vec::new();
    message.header("MIME-Version", Raw::new("1.0")).body(Parts { id, next: 0 }.whole(draft)).serialize(&mut octets);
    octets
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
        MimePart { headers: vec![("Content-Type".into(), kind.into())], contents: BodyPart::Multipart(parts) }
    }
}

fn enclosed(one: &Enclosure) -> MimePart<'static> {
    // A text would be encoded as one, its line ends with it; what goes along stays as it is.
    let disposition = ContentType::new(if one.inline { "inline" } else { "attachment" });
    let disposition = match &one.filename {
        Some(filename) => disposition.attribute("filename", filename.clone()),
        None => disposition,
    };
    let mut headers: Vec<(_, HeaderType<'static>)> = vec![
        ("Content-Type".into(), ContentType::new(one.content_type.clone()).into()),
        ("Content-Disposition".into(), disposition.into()),
    ];
    if let Some(id) = &one.content_id {
        headers.push(("Content-ID".into(), Raw::new(format!("<{id}>")).into()));
    }
    headers.push(("Content-Transfer-Encoding".into(), Raw::new("base64").into()));
    MimePart { headers, contents: BodyPart::Binary(in_lines(&one.content).into()) }
}

/// Base64 in lines of 76 (RFC 2045 §6.8).
fn in_lines(octets: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    let mut lines = Vec::with_capacity(octets.len() / 57 * 78 + 80);
    for piece in octets.chunks(57) {
        lines.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(piece).as_bytes());
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
