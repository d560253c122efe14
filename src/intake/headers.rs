//! What is read from and written to a message's header on the way in: `Received`, loops, the fingerprint.
//!
//! Standards: RFC 5321 §4.4 (trace), §6.3 (loops), RFC 3848 and RFC 6531 §4.3 (the words after `with`), RFC 1047.

use std::fmt::Write as _;

use super::decide::Case;
use crate::mail::message::MAX_FIELDS;
use crate::mail::{Address, Client, Envelope, MessageId, Reply, results};

/// What stands before all that was received: who sent it, where that was looked into, and our trace field.
#[must_use]
pub fn head(case: &Case) -> Vec<u8> {
    let client = &case.facts.client;
    let results = client
        .auth
        .as_deref()
        .map(|auth| results::written(&case.snapshot.config.hostname, client, case.envelope.sender.as_ref(), auth));
    let mut head = results.map(String::into_bytes).unwrap_or_default();
    head.extend(received(case));
    head
}

/// Our trace field, to stand before all that was received (RFC 5321 §4.4).
#[must_use]
pub fn received(case: &Case) -> Vec<u8> {
    let client = &case.facts.client;
    let mut field = String::with_capacity(320);
    let helo = printable(client.helo.as_deref().unwrap_or("unknown"));
    let name = client.ptr.as_deref().map(|ptr| format!("{} ", printable(ptr))).unwrap_or_default();
    let literal = match client.ip {
        std::net::IpAddr::V4(ip) => format!("[{ip}]"),
        std::net::IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    };
    // Writing to a String can't fail.
    let _ = write!(field, "Received: from {helo} ({name}{literal})\r\n");
    if let Some(tls) = &client.tls {
        let _ = write!(field, "\t(using {} with cipher {})\r\n", printable(&tls.version), printable(&tls.cipher));
    }
    let with = protocol(client, &case.envelope);
    let _ = write!(field, "\tby {} with {with} id {}", case.snapshot.config.hostname, case.id);
    // With several, naming them would tell each of the others (RFC 5321 §7.2).
    if let [only] = case.envelope.recipients.as_slice() {
        let _ = write!(field, "\r\n\tfor <{}>", only.original.as_ref().unwrap_or(&only.address));
    }
    let _ = write!(field, ";\r\n\t{}\r\n", case.received_at.to_rfc5322());
    field.into_bytes()
}

/// The word after `with`.
fn protocol(client: &Client, envelope: &Envelope) -> &'static str {
    match (envelope.smtputf8, client.esmtp, client.tls.is_some()) {
        (true, _, true) => "UTF8SMTPS",
        (true, _, false) => "UTF8SMTP",
        (false, true, true) => "ESMTPS",
        (false, true, false) => "ESMTP",
        (false, false, _) => "SMTP",
    }
}

/// A peer's word, safe inside a header field's comment.
fn printable(text: &str) -> String {
    text.chars().take(255).filter(|c| !c.is_control() && !matches!(c, '(' | ')' | '\\')).collect()
}

/// Too many hops: the message goes in circles (RFC 5321 §6.3). Too many fields: what stands behind the last one that is
/// read, another From or a field that was forged in our name, nobody here would see.
#[must_use]
pub fn refusal(case: &Case) -> Option<Reply> {
    if case.message.has_unseen_fields() {
        let text = format!("The header has more than the {MAX_FIELDS} fields that are read here");
        return Some(Reply::new(550, 6, 0, text));
    }
    let hops = case.message.count_header("Received");
    let limit = case.snapshot.config.limits.hops;
    (hops > limit).then(|| Reply::new(554, 4, 6, format!("Too many hops ({hops}): this message goes in circles")))
}

/// 128 bits that tell a resend from a new message: over sender, recipients and octets (RFC 1047).
///
/// A client that lowers the case of a domain before it tries again sends the same mail (RFC 5321 §2.4). Local parts count as
/// they are written, in case and quotes, and recipients in their order: what is taken for new comes twice at the worst, what
/// is taken for a resend wouldn't come at all.
#[must_use]
pub fn fingerprint(envelope: &Envelope, raw: &[u8]) -> [u8; 16] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    if let Some(sender) = &envelope.sender {
        add(&mut context, sender);
    }
    for recipient in &envelope.recipients {
        context.update(b"\0");
        add(&mut context, &recipient.address);
    }
    context.update(b"\0\0");
    context.update(raw);
    let mut bits = [0; 16];
    for (bit, byte) in bits.iter_mut().zip(context.finish().as_ref()) {
        *bit = *byte;
    }
    bits
}

fn add(context: &mut ring::digest::Context, address: &Address) {
    let domain = address.domain();
    if domain.bytes().all(|octet| octet.is_ascii() && !octet.is_ascii_uppercase()) {
        context.update(address.as_str().as_bytes());
        return;
    }
    context.update(address.local().as_bytes());
    context.update(b"@");
    context.update(address.domain_key().as_bytes());
}

/// The fingerprint of a message that no resend is to be taken for.
#[must_use]
pub fn never_again(id: MessageId) -> [u8; 16] {
    id.to_bytes()
}
