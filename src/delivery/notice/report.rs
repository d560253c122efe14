//! The notice itself: a part for people, a part for programs, and what goes back of the original.
//!
//! All texts from outside are cleaned of control characters and cut; no line is longer than 998 octets.
//! Standards: RFC 6522 (multipart/report), RFC 3464 §2 (the fields), RFC 6533 (UTF-8), RFC 3834 §5 (Auto-Submitted).

use std::fmt::Write as _;

use mail_builder::MessageBuilder;
use mail_builder::headers::HeaderType;
use mail_builder::headers::address::Address as Mailbox;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};

use super::original::{Returned, returned};
use super::recipient;
use crate::config::Config;
use crate::delivery::webhook::answer::clean;
use crate::mail::{Address, Message, MessageId, Ret, Timestamp};
use crate::store::{Body, NoticeTask};

/// Characters of a remote's words.
const MAX_REASON: usize = 600;
/// Where a folded line ends, if it can.
const FOLD: usize = 76;

/// What a notice is made from.
pub(super) struct Report<'a> {
    pub config: &'a Config,
    /// The notice's own.
    pub id: MessageId,
    pub message: MessageId,
    pub task: &'a NoticeTask,
    pub body: &'a Body,
    pub about: &'a Message,
    pub sender: &'a Address,
    pub now: Timestamp,
}

/// A notice, and what lists show of it.
pub(super) struct Written {
    pub octets: Vec<u8>,
    pub subject: String,
    pub from: String,
}

impl Report<'_> {
    pub(super) fn write(&self) -> Written {
        let hostname = &self.config.hostname;
        let from = format!("MAILER-DAEMON@{hostname}");
        let subject = self.subject();
        let mut message = MessageBuilder::new()
            .header("From", Mailbox::new_address(Some("Mail Delivery System"), from.clone()))
            .header("To", Mailbox::new_address(None::<&str>, self.written(self.sender)))
            .subject(subject.clone())
            .header("Date", Raw::new(self.now.to_rfc5322()))
            .header("Message-ID", Raw::new(format!("<{}@{hostname}>", self.id)))
            .header("Auto-Submitted", Raw::new("auto-replied"))
            .header("MIME-Version", Raw::new("1.0"));
        if let Some(id) = self.about.message_id().filter(|id| is_plain_id(id)) {
            message = message
                .header("In-Reply-To", Raw::new(format!("<{id}>")))
                .header("References", Raw::new(format!("<{id}>")));
        }
        // By its id, which nobody can know beforehand: mail-builder's own would be of the system's clock.
        let boundary = format!("_{}", self.id);
        let kind = ContentType::new("multipart/report")
            .attribute("report-type", "delivery-status")
            .attribute("boundary", boundary);
        let parts = vec![MimePart::new("text/plain", self.words()), self.status(), self.original()];
        let body =
            MimePart { headers: vec![("Content-Type".into(), kind.into())], contents: BodyPart::Multipart(parts) };
        let mut octets = Vec::new();
        message.body(body).serialize(&mut octets);
        Written { octets, subject, from }
    }

    /// Whether the notice goes by SMTPUTF8: the original came so, or its sender can't be written otherwise.
    pub(super) fn is_utf8(&self) -> bool {
        self.body.envelope.smtputf8 || !self.sender.local().is_ascii()
    }

    fn subject(&self) -> String {
        let recipient = &self.task.recipient;
        match self.task.action.as_str() {
            "failed" => format!("Not delivered: your message to {recipient}"),
            "delayed" => format!("Delayed: your message to {recipient}"),
            _ => format!("Delivered: your message to {recipient}"),
        }
    }

    /// For a person who knows nothing of mail servers.
    fn words(&self) -> String {
        let task = self.task;
        let mut text = format!("This is the mail server {}.\r\n\r\n", self.config.hostname);
        let reason = self.reason();
        let said = match self.server() {
            Some(server) => format!("The mail server {server} said:"),
            None => "The reason:".to_owned(),
        };
        let until = self.tried_until().to_rfc5322();
        let recipient = &task.recipient;
        let _infallible = match task.action.as_str() {
            "failed" => write!(
                text,
                "Your message could not be delivered to\r\n\r\n    {recipient}\r\n\r\n{said}\r\n\r\n    {reason}\r\n\r\n\
                 It will not be tried again. If the address is right, please reach the\r\n\
                 recipient in another way.\r\n"
            ),
            "delayed" => write!(
                text,
                "Your message has not been delivered yet to\r\n\r\n    {recipient}\r\n\r\n{said}\r\n\r\n    {reason}\r\n\r\n\
                 You need not do anything: it will be tried again until {until}.\r\n"
            ),
            "delivered" => write!(text, "Your message was delivered to\r\n\r\n    {recipient}\r\n"),
            _ => write!(
                text,
                "Your message was handed on for\r\n\r\n    {recipient}\r\n\r\n\
                 to a mail server that sends no confirmations. You will hear no more\r\n\
                 unless it fails there.\r\n"
            ),
        };
        let subject = self.about.subject().map(|subject| clean(&subject, 200)).filter(|subject| !subject.is_empty());
        if let Some(subject) = subject {
            let _infallible = write!(text, "\r\nSubject of your message: {subject}\r\n");
        }
        let _infallible = write!(
            text,
            "Received here: {}\r\nIts number here: {}\r\n",
            self.message.timestamp().to_rfc5322(),
            self.message
        );
        text
    }

    /// RFC 3464 §2.2 and §2.3; RFC 6533 §3 for addresses beyond ASCII.
    fn status(&self) -> MimePart<'static> {
        let task = self.task;
        let mut fields = Fields { text: String::new(), utf8: self.is_utf8() };
        if let Some(envid) = &self.body.envelope.envid {
            fields.put("Original-Envelope-Id", envid);
        }
        fields.put("Reporting-MTA", &format!("dns; {}", self.config.hostname));
        if let Some(helo) = self.body.client.as_ref().and_then(|client| client.helo.as_deref()) {
            fields.put("Received-From-MTA", &format!("dns; {helo}"));
        }
        fields.put("Arrival-Date", &self.message.timestamp().to_rfc5322());
        fields.text.push_str("\r\n");
        let known = recipient(&self.body.envelope, task);
        if let Some(orcpt) = task.orcpt.as_deref().or_else(|| known.and_then(|one| one.orcpt.as_deref())) {
            fields.put("Original-Recipient", &original_recipient(orcpt));
        }
        fields.put("Final-Recipient", &typed(&task.recipient, fields.utf8));
        fields.put("Action", &task.action);
        fields.put("Status", self.code());
        if let Some(server) = self.server() {
            fields.put("Remote-MTA", &format!("dns; {server}"));
        }
        if matches!(task.action.as_str(), "failed" | "delayed") {
            let reason = self.reason();
            let kind = if is_smtp(&reason) { "smtp" } else { "x-mailworker" };
            fields.put("Diagnostic-Code", &format!("{kind}; {reason}"));
        }
        fields.put("Last-Attempt-Date", &self.now.to_rfc5322());
        if task.action == "delayed" {
            fields.put("Will-Retry-Until", &self.tried_until().to_rfc5322());
        }
        let kind = if fields.utf8 { "message/global-delivery-status" } else { "message/delivery-status" };
        part(kind, if fields.text.is_ascii() { "7bit" } else { "8bit" }, fields.text.into_bytes())
    }

    fn original(&self) -> MimePart<'static> {
        // RFC 3461 §4.3: RET is of failures; of all else the header section goes back.
        let asked = self.body.envelope.ret == Some(Ret::Full) && self.task.action == "failed";
        // Of what is large only the beginning is here.
        let whole = asked && self.body.raw.here().is_some();
        let Returned { content_type, encoding, octets } = returned(self.about.raw(), whole, self.is_utf8());
        part(content_type, encoding, octets)
    }

    fn reason(&self) -> String {
        clean(&self.task.diagnostic, MAX_REASON)
    }

    /// `mx1.example.net` of `mx1.example.net [192.0.2.1]:25`.
    fn server(&self) -> Option<String> {
        let name = clean(self.task.remote.as_deref()?, 255);
        name.split(' ').next().filter(|name| !name.is_empty()).map(str::to_owned)
    }

    /// As in `5.1.1`; what isn't of this form says nothing but its class.
    fn code(&self) -> &str {
        let status = self.task.status.as_str();
        let is_number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Vec<&str> = status.split('.').collect();
        match (parts.as_slice(), self.task.action.as_str()) {
            (["2" | "4" | "5", subject, detail], _) if is_number(subject) && is_number(detail) => status,
            (_, "failed") => "5.0.0",
            (_, "delayed") => "4.0.0",
            _ => "2.0.0",
        }
    }

    fn tried_until(&self) -> Timestamp {
        self.message.timestamp().plus(self.config.relay.expire)
    }

    /// An address in a header field: with A-labels where the notice doesn't go by SMTPUTF8.
    fn written(&self, address: &Address) -> String {
        if self.is_utf8() { address.to_string() } else { format!("{}@{}", address.local(), address.domain_key()) }
    }
}

fn part(content_type: &'static str, encoding: &'static str, octets: Vec<u8>) -> MimePart<'static> {
    let headers: Vec<(_, HeaderType<'static>)> = vec![
        ("Content-Type".into(), ContentType::new(content_type).into()),
        ("Content-Transfer-Encoding".into(), Raw::new(encoding).into()),
    ];
    MimePart { headers, contents: BodyPart::Binary(octets.into()) }
}

/// The fields of a delivery status, folded.
struct Fields {
    text: String,
    utf8: bool,
}

impl Fields {
    fn put(&mut self, name: &str, value: &str) {
        let value = clean(value, MAX_REASON + 300);
        self.text.push_str(name);
        self.text.push(':');
        let mut column = name.len() + 1;
        for word in value.split(' ') {
            // A fold stands before a word, never before the first one, which would make an empty line.
            if column + 1 + word.len() > FOLD && column > name.len() + 1 {
                self.text.push_str("\r\n");
                column = 0;
            }
            self.text.push(' ');
            if self.utf8 {
                self.text.push_str(word);
            } else {
                self.text.extend(word.chars().map(|c| if c.is_ascii() { c } else { '?' }));
            }
            column += 1 + word.len();
        }
        self.text.push_str("\r\n");
    }
}

/// `rfc822; user@example.com`; an address beyond ASCII as RFC 6533 §3 has it.
fn typed(address: &Address, utf8: bool) -> String {
    if address.is_ascii() {
        return format!("rfc822; {address}");
    }
    if utf8 {
        return format!("utf-8; {address}");
    }
    // utf-8-addr-xtext, for a report in ASCII.
    let mut text = String::from("utf-8; ");
    for character in address.as_str().chars() {
        if character.is_ascii_graphic() && !matches!(character, '\\' | '+' | '=') {
            text.push(character);
        } else {
            let _infallible = write!(text, "\\x{{{:X}}}", u32::from(character));
        }
    }
    text
}

/// ORCPT as the client gave it, its xtext undone where that gives something printable (RFC 3461 §4.2).
fn original_recipient(orcpt: &str) -> String {
    let Some((kind, address)) = orcpt.split_once(';') else { return orcpt.to_owned() };
    if kind.eq_ignore_ascii_case("utf-8") {
        return format!("{kind}; {address}");
    }
    let mut plain = String::with_capacity(address.len());
    let mut rest = address;
    while let Some((before, after)) = rest.split_once('+') {
        let octet =
            after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|byte| matches!(byte, b' '..=b'~'));
        let (Some(octet), Some(behind)) = (octet, after.get(2..)) else { return format!("{kind}; {address}") };
        plain.push_str(before);
        plain.push(char::from(octet));
        rest = behind;
    }
    plain.push_str(rest);
    format!("{kind}; {plain}")
}

/// A reply of SMTP: a code of three digits first.
fn is_smtp(reason: &str) -> bool {
    let code = reason.get(..3).unwrap_or_default();
    code.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(reason.as_bytes(), [b'2'..=b'5', _, _] | [b'2'..=b'5', _, _, b' ', ..])
}

/// Fit to stand between angle brackets in a header field.
fn is_plain_id(id: &str) -> bool {
    (1..=250).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>'))
}
