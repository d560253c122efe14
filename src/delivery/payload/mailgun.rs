//! As Mailgun's `forward()` posts a message: a form with the message's fields among its own, and files.
//!
//! `timestamp`, `token` and `signature` prove it by the webhook's first symmetric key, whose text as it stands is what
//! the consumer has as its signing key; each try has a token of its own, for one that comes twice is a replay. A sender can't say
//! what is ours to say: `X-Mailgun-…` of the message are left out, and so is a form field that would be another's.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};
use ring::hmac;
use serde_json::Map;

use super::contents::Contents;
use super::form::Form;
use super::{Payload, Size, Source};
use crate::mail::Message;
use crate::mail::authentication::Check;

/// Fields of the message that are fields of the form, too: consumers read a thousand at most.
const MAX_FIELDS: usize = 500;
/// Octets of a token, in hexadecimal.
const TOKEN: usize = 25;
const OWN: [&str; 13] = [
    "recipient",
    "domain",
    "timestamp",
    "token",
    "signature",
    "message-headers",
    "message-url",
    "content-id-map",
    "attachments",
    "attachment-count",
    "event",
    "mailworker",
    "body-mime",
];

#[must_use]
pub fn payload(source: &Source, size: Size) -> Payload {
    let message = Message::received_by(&source.authserv_id, source.raw.clone());
    let mut contents = Contents::new(source, &message, size);
    let mut form = Form::default();
    headers(&contents, &mut form);
    form.text("recipient", contents.recipient());
    form.text("sender", contents.sender());
    form.text("from", contents.header("From"));
    form.text("subject", message.subject().unwrap_or_default());
    form.text("body-plain", contents.text.as_deref().unwrap_or_default());
    form.text("stripped-text", &*contents.stripped.text);
    form.text("stripped-signature", &*contents.stripped.signature);
    if let Some(html) = &contents.html {
        form.text("body-html", &**html);
    }
    form.text("stripped-html", as_html(&contents.stripped.text));
    let (mut ids, mut count) = (Map::new(), 0);
    contents.attached(|file| {
        count += 1;
        let name = format!("attachment-{count}");
        form.file(&name, &file.safe_name, &file.part.content_type, file.content);
        ids.extend(file.part.content_id.iter().map(|id| (format!("<{id}>"), name.clone().into())));
    });
    form.text("attachment-count", count.to_string());
    if !ids.is_empty() {
        form.json("content-id-map", &ids);
    }
    form.json("mailworker", &contents.ours());
    sign(source, size, &mut form);
    form.finish(&source.id)
}

/// As it posts to a URL that ends with `mime`: the message itself, and who it is from and for.
#[must_use]
pub fn mime(source: &Source, size: Size) -> Payload {
    let message = Message::received_by(&source.authserv_id, source.raw.clone());
    let mut contents = Contents::new(source, &message, size);
    let mut form = Form::default();
    form.text("recipient", contents.recipient());
    form.text("sender", contents.sender());
    form.text("from", contents.header("From"));
    form.text("subject", message.subject().unwrap_or_default());
    let score = contents.score();
    let ours = found(&contents, &score);
    form.octets("body-mime", contents.whole(&ours, is_forged));
    form.json("mailworker", &contents.ours());
    sign(source, size, &mut form);
    form.finish(&source.id)
}

/// What we know of the message.
fn found<'a>(contents: &Contents<'a>, score: &'a str) -> Vec<(&'static str, &'a str)> {
    let mut all: Vec<(&str, &str)> = vec![("X-Mailgun-Incoming", "Yes"), ("X-Envelope-From", contents.sender())];
    all.extend(contents.spf().map(|result| ("X-Mailgun-Spf", result)));
    let keys = contents.auth().map(|auth| auth.dkim.as_slice()).unwrap_or_default();
    if !keys.is_empty() {
        let passes = keys.iter().any(|key| key.result == Check::Pass);
        all.push(("X-Mailgun-Dkim-Check-Result", if passes { "Pass" } else { "Fail" }));
    }
    all.extend([("X-Mailgun-Sflag", if contents.is_spam() { "Yes" } else { "No" }), ("X-Mailgun-Sscore", score)]);
    all
}

/// The message's, after what we know of it.
fn headers(contents: &Contents, form: &mut Form) {
    let score = contents.score();
    let mut all: Vec<(&str, &str)> = found(contents, &score);
    let received = contents.fields.iter().filter(|field| !is_forged(field.name));
    all.extend(received.map(|field| (field.name, field.value.as_str())));
    for (name, value) in all.iter().filter(|(name, _)| is_free(name)).take(MAX_FIELDS) {
        form.text(name, *value);
    }
    form.json("message-headers", &all);
}

fn is_forged(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("x-mailgun-") || name == "x-envelope-from"
}

/// Whether a field of the message may be one of the form: none of ours, and a name that no consumer reads as another.
fn is_free(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let is_plain = name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_');
    let is_ours = OWN.contains(&lower.replace('_', "-").as_str())
        || ["attachment-", "body-", "stripped-"].iter().any(|prefix| lower.starts_with(prefix))
        // `From` is the message's, `from` ours.
        || matches!(name, "from" | "subject" | "sender");
    is_plain && !is_ours
}

/// The text of an answer as HTML.
fn as_html(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    if text.is_empty() { text } else { format!("<p>{}</p>", text.replace("\r\n", "\n").replace('\n', "<br>\n")) }
}

fn sign(source: &Source, size: Size, form: &mut Form) {
    let timestamp = source.now.as_secs().to_string();
    let seed = format!("{}.{}.{}.{size:?}", source.id, source.attempt, source.now.as_millis());
    let token = hex(digest(&SHA256, seed.as_bytes()).as_ref().get(..TOKEN).unwrap_or_default());
    if let Some(key) = &source.key {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes());
        form.text("signature", hex(hmac::sign(&key, format!("{timestamp}{token}").as_bytes()).as_ref()));
    }
    form.text("timestamp", timestamp);
    form.text("token", token);
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(octets.len() * 2), |mut hex, octet| {
        let _infallible = write!(hex, "{octet:02x}");
        hex
    })
}

#[cfg(test)]
#[path = "mailgun_tests.rs"]
mod tests;
