//! Our own format, `email.received`: the whole of a message as JSON, in names that stay.
//!
//! Envelope and session as the server saw them; header fields in order with their repetitions; texts decoded to UTF-8;
//! attachments with their content in Base64. Bounds: see `contents`; `truncated` says what was left out.
//! Additions keep `schema`; a field never changes its meaning.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use std::borrow::Cow;

use super::contents::{Attached, Field, Truncated, attachments, fields, texts};
use super::{Payload, Size, Source};
use crate::mail::message::quoted::Stripped;
use crate::mail::message::report::Report;
use crate::mail::message::spam::Spam;
use crate::mail::message::{calendar, quoted, report, spam};
use crate::mail::{Address, Authentication, BodyKind, Client, Envelope, Mailbox, Message, Notify, Origin, Ret};

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: String,
    id: &'a str,
    schema: u32,
    data: Received<'a>,
}

/// The names are JSON's.
#[allow(clippy::struct_field_names)]
#[derive(Serialize)]
struct Received<'a> {
    message_id: String,
    rfc_message_id: Option<String>,
    attempt: u32,
    received_at: String,
    envelope: Addressed<'a>,
    session: Option<Session<'a>>,
    auth: Option<Authenticated<'a>>,
    headers: Vec<Field<'a>>,
    from: Vec<Mailbox>,
    to: Vec<Mailbox>,
    cc: Vec<Mailbox>,
    reply_to: Vec<Mailbox>,
    subject: Option<String>,
    date: Option<String>,
    in_reply_to: Option<String>,
    references: Vec<String>,
    list: List,
    auto_submitted: bool,
    is_bounce: bool,
    dsn_report: Option<Report>,
    calendar: Vec<calendar::Event>,
    spam: Spam,
    text: Option<String>,
    html: Option<String>,
    text_from_html: bool,
    /// The text taken apart; absent where the text is.
    stripped: Option<Stripped>,
    truncated: Truncated,
    attachments: Vec<Attachment<'a>>,
    raw: Raw,
}

#[derive(Serialize)]
struct Addressed<'a> {
    mail_from: Option<&'a str>,
    rcpt_to: &'a str,
    recipients: Vec<&'a str>,
    original_recipient: Option<&'a str>,
    subaddress: Subaddress<'a>,
    smtputf8: bool,
    body_8bit: bool,
    size: usize,
    dsn: Dsn<'a>,
}

#[derive(Serialize)]
struct Subaddress<'a> {
    user: Cow<'a, str>,
    tag: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Dsn<'a> {
    ret: Option<Ret>,
    envid: Option<&'a str>,
    notify: Notify,
    orcpt: Option<&'a str>,
}

#[derive(Serialize)]
struct Session<'a> {
    remote_ip: std::net::IpAddr,
    remote_port: u16,
    helo: Option<&'a str>,
    ptr: Option<&'a str>,
    tls: Option<Secured<'a>>,
    listener: &'a str,
    /// `asn` and `country`, where databases know them.
    #[serde(flatten)]
    origin: &'a Origin,
}

/// What was found out about the sender; absent where nothing was looked into.
#[derive(Serialize)]
struct Authenticated<'a> {
    /// SPF or DKIM speaks for the domain of From.
    from_authenticated: bool,
    #[serde(flatten)]
    found: &'a Authentication,
}

#[derive(Serialize)]
struct Secured<'a> {
    version: &'a str,
    cipher: &'a str,
}

#[derive(Serialize)]
struct List {
    id: Option<String>,
    unsubscribe: Option<String>,
}

#[derive(Serialize)]
struct Attachment<'a> {
    /// Its place in the message, from 1.
    id: usize,
    /// As the sender named it: never a path to be trusted.
    filename: Option<&'a str>,
    safe_filename: String,
    content_type: &'a str,
    size: usize,
    sha256: String,
    disposition: &'static str,
    content_id: Option<&'a str>,
    inline: bool,
    /// Base64; absent in a payload made smaller, and past the bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// The octets as received, by which `mailworker messages` knows them.
#[derive(Serialize)]
struct Raw {
    size: usize,
    sha256: String,
}

/// The message as JSON.
#[must_use]
pub fn payload(source: &Source, size: Size) -> Payload {
    let message = Message::received_by(&source.authserv_id, source.raw.clone());
    let mut truncated = Truncated::default();
    let headers = fields(&message, &mut truncated);
    let (text, html) = texts(&message, size, &mut truncated);
    let text_from_html = message.text().is_some() && !message.has_plain_text();
    let attachments = attachments(&message, size, &mut truncated, attachment);
    let client = source.body.client.as_ref();
    let event = Event {
        kind: "email.received",
        timestamp: source.now.to_string(),
        id: &source.id,
        schema: 1,
        data: Received {
            message_id: source.message.to_string(),
            rfc_message_id: message.message_id(),
            attempt: source.attempt,
            received_at: source.message.timestamp().to_string(),
            envelope: addressed(source),
            session: client.map(session),
            auth: client.and_then(|client| client.auth.as_deref()).map(authenticated),
            headers,
            from: message.addresses("From"),
            to: message.addresses("To"),
            cc: message.addresses("Cc"),
            reply_to: message.addresses("Reply-To"),
            subject: message.subject(),
            date: message.date().map(|date| date.to_string()),
            in_reply_to: message.ids("In-Reply-To").into_iter().next(),
            references: message.ids("References"),
            list: List { id: message.header("List-Id"), unsubscribe: message.header("List-Unsubscribe") },
            auto_submitted: message.is_auto(),
            is_bounce: message.is_bounce() || source.body.envelope.sender.is_none(),
            dsn_report: report::read(&message),
            calendar: calendar::read(&message),
            spam: spam::judge(&message, source.message.timestamp(), client.and_then(|client| client.helo.as_deref())),
            stripped: text.as_deref().map(quoted::strip),
            text,
            html,
            text_from_html,
            truncated,
            attachments,
            raw: Raw { size: message.raw().len(), sha256: sha256(message.raw()) },
        },
    };
    Payload::json(&event)
}

fn addressed(source: &Source) -> Addressed<'_> {
    let envelope: &Envelope = &source.body.envelope;
    let recipient = envelope.recipients.iter().find(|one| one.address == source.recipient);
    let address = &source.recipient;
    Addressed {
        mail_from: envelope.sender.as_ref().map(Address::as_str),
        rcpt_to: address.as_str(),
        recipients: envelope.recipients.iter().map(|one| one.address.as_str()).collect(),
        original_recipient: recipient.and_then(|one| one.original.as_ref()).map(Address::as_str),
        subaddress: Subaddress { user: address.base(&source.subaddress), tag: address.tag(&source.subaddress) },
        smtputf8: envelope.smtputf8,
        body_8bit: envelope.body == BodyKind::EightBit,
        size: source.body.raw.len(),
        dsn: Dsn {
            ret: envelope.ret,
            envid: envelope.envid.as_deref(),
            notify: recipient.map(|one| one.notify).unwrap_or_default(),
            orcpt: recipient.and_then(|one| one.orcpt.as_deref()),
        },
    }
}

fn session(client: &Client) -> Session<'_> {
    Session {
        remote_ip: client.ip,
        remote_port: client.port,
        helo: client.helo.as_deref(),
        ptr: client.ptr.as_deref(),
        tls: client.tls.as_ref().map(|tls| Secured { version: &tls.version, cipher: &tls.cipher }),
        listener: &client.listener,
        origin: &client.origin,
    }
}

fn authenticated(found: &Authentication) -> Authenticated<'_> {
    Authenticated { from_authenticated: found.passed(), found }
}

fn attachment(attached: Attached<'_>) -> Attachment<'_> {
    let Attached { id, part, safe_name, content, fits } = attached;
    Attachment {
        id,
        filename: part.filename.as_deref(),
        safe_filename: safe_name,
        content_type: &part.content_type,
        size: content.len(),
        sha256: sha256(&content),
        disposition: if part.inline { "inline" } else { "attachment" },
        content_id: part.content_id.as_deref(),
        inline: part.inline,
        content: fits.then(|| STANDARD.encode(&content)),
    }
}

fn sha256(octets: &[u8]) -> String {
    use std::fmt::Write as _;
    digest(&SHA256, octets).as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _infallible = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
#[path = "standard_tests.rs"]
mod tests;
