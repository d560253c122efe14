//! As Postmark posts an inbound message: JSON, the addresses taken apart.
//!
//! `Headers` has what isn't a member of its own. What only the receiving server may say (`Return-Path`, `X-Spam-…`,
//! `Received-SPF`) is said by us, and left out where the sender wrote it. `MessageID` is of the delivery, so that a
//! message for two recipients isn't taken for one that came twice.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::Write as _;

use super::contents::{Contents, Ours};
use super::{Payload, Size, Source};
use crate::mail::{Address, Mailbox, Message};

/// In lower case: members of their own, or what no longer holds of the parts.
const APART: [&str; 9] =
    ["from", "to", "cc", "bcc", "reply-to", "subject", "date", "content-type", "content-transfer-encoding"];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Inbound<'a> {
    from_name: String,
    message_stream: &'static str,
    from: String,
    from_full: Full,
    to: String,
    to_full: Vec<Full>,
    cc: String,
    cc_full: Vec<Full>,
    bcc: String,
    bcc_full: Vec<Full>,
    original_recipient: &'a str,
    subject: String,
    #[serde(rename = "MessageID")]
    message_id: String,
    reply_to: String,
    mailbox_hash: Cow<'a, str>,
    date: String,
    text_body: &'a str,
    html_body: &'a str,
    stripped_text_reply: &'a str,
    tag: &'static str,
    headers: Vec<Header<'a>>,
    attachments: Vec<Attachment<'a>>,
    #[serde(rename = "mailworker")]
    ours: Ours<'a>,
}

#[derive(Serialize, Clone)]
#[serde(rename_all = "PascalCase")]
struct Full {
    email: String,
    name: String,
    mailbox_hash: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Header<'a> {
    name: &'a str,
    value: Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Attachment<'a> {
    name: String,
    content: String,
    content_type: &'a str,
    content_length: usize,
    /// Even an empty one makes a consumer take it for a picture within the text.
    #[serde(rename = "ContentID", skip_serializing_if = "Option::is_none")]
    content_id: Option<&'a str>,
}

#[must_use]
pub fn payload(source: &Source, size: Size) -> Payload {
    let message = Message::received_by(&source.authserv_id, source.raw.clone());
    let mut contents = Contents::new(source, &message, size);
    let attachments = contents.attached(|file| Attachment {
        content_length: file.content.len(),
        content: STANDARD.encode(&file.content),
        name: file.safe_name,
        content_type: &file.part.content_type,
        content_id: file.part.content_id.as_deref(),
    });
    let people = |field: &str| -> Vec<Full> {
        message.addresses(field).into_iter().map(|one| full(one, &source.subaddress)).collect()
    };
    let from = people("From").into_iter().next();
    let from = from.unwrap_or_else(|| full(Mailbox { name: None, address: None }, &source.subaddress));
    let (to_full, cc_full) = (people("To"), people("Cc"));
    let (bcc, bcc_full) = hidden(&contents, &to_full, &cc_full, people("Bcc"));
    let is_reply = message.has_header("In-Reply-To") || !contents.stripped.quoted.is_empty();
    let inbound = Inbound {
        from_name: from.name.clone(),
        message_stream: "inbound",
        from: from.email.clone(),
        from_full: from,
        to: contents.header("To"),
        to_full,
        cc: contents.header("Cc"),
        cc_full,
        bcc,
        bcc_full,
        original_recipient: contents.recipient(),
        subject: message.subject().unwrap_or_default(),
        message_id: uuid(&source.id),
        reply_to: contents.header("Reply-To"),
        mailbox_hash: source.recipient.tag(&source.subaddress).unwrap_or_default(),
        date: contents.header("Date"),
        text_body: contents.text.as_deref().unwrap_or_default(),
        html_body: contents.html.as_deref().unwrap_or_default(),
        stripped_text_reply: if is_reply { &contents.stripped.text } else { "" },
        tag: "",
        headers: headers(&contents),
        attachments,
        ours: contents.ours(),
    };
    Payload::json(&inbound)
}

fn full(mailbox: Mailbox, separator: &str) -> Full {
    let email = mailbox.address.unwrap_or_default();
    let address = Address::parse(&email).ok();
    let hash = address.as_ref().and_then(|address| address.tag(separator)).map(Cow::into_owned);
    Full { email, name: mailbox.name.unwrap_or_default(), mailbox_hash: hash.unwrap_or_default() }
}

/// The recipient that no field names is a blind one.
fn hidden(contents: &Contents, to: &[Full], cc: &[Full], bcc: Vec<Full>) -> (String, Vec<Full>) {
    let recipient = &contents.source.recipient;
    let is_it = |one: &Full| Address::parse(&one.email).is_ok_and(|address| address.same_mailbox(recipient));
    if !bcc.is_empty() || to.iter().chain(cc).any(is_it) {
        return (contents.header("Bcc"), bcc);
    }
    let mailbox = Mailbox { name: None, address: Some(recipient.to_string()) };
    (recipient.to_string(), vec![full(mailbox, &contents.source.subaddress)])
}

fn headers<'a>(contents: &'a Contents<'a>) -> Vec<Header<'a>> {
    let mut headers = vec![Header { name: "Return-Path", value: format!("<{}>", contents.sender()).into() }];
    let mut add = |name, value: String| headers.push(Header { name, value: value.into() });
    if let (Some(result), Some(client)) = (contents.spf(), contents.client()) {
        let helo = client.helo.as_deref().unwrap_or_default();
        let words = format!("client-ip={}; helo={helo}; envelope-from={}", client.ip, contents.sender());
        add("Received-SPF", format!("{result} identity=mailfrom; {words}"));
    }
    add("X-Spam-Status", if contents.is_spam() { "Yes" } else { "No" }.to_owned());
    add("X-Spam-Score", contents.score());
    add("X-Spam-Tests", contents.spam.symbols.keys().copied().collect::<Vec<_>>().join(","));
    let received = contents.fields.iter().filter(|field| !is_apart(field.name));
    headers.extend(received.map(|field| Header { name: field.name, value: field.value.as_str().into() }));
    headers
}

fn is_apart(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    APART.contains(&name.as_str()) || name == "return-path" || name == "received-spf" || name.starts_with("x-spam-")
}

/// One of our own kind (RFC 9562 §5.8), the same for each try.
fn uuid(id: &str) -> String {
    let hash = digest(&SHA256, id.as_bytes());
    let mut uuid = String::with_capacity(36);
    for (at, octet) in hash.as_ref().iter().take(16).enumerate() {
        let octet = match at {
            6 => octet & 0x0f | 0x80,
            8 => octet & 0x3f | 0x80,
            _ => *octet,
        };
        let parted = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
        let _infallible = write!(uuid, "{parted}{octet:02x}");
    }
    uuid
}

#[cfg(test)]
#[path = "postmark_tests.rs"]
mod tests;
