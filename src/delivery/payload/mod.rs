//! What a webhook made from a message carries: one module for each format, each with the same `payload` function.
//!
//! Pure: octets in, octets out. A message is hostile: every text, list and attachment has a bound, and what was left
//! out is said to be. Input: [`Source`]. Output: [`Payload`], signed and sent as it is by `webhook`.

pub mod cloudmailin;
mod contents;
mod form;
pub mod mailgun;
pub mod postmark;
pub mod sendgrid;
pub mod standard;

use bytes::Bytes;
use std::borrow::Cow;

use crate::config::Secret;
use crate::mail::{Address, MessageId, PayloadFormat, Timestamp};
use crate::store::Body;

/// What a payload is made from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The `webhook-id`: the same for each try.
    pub id: String,
    pub message: MessageId,
    /// From 1.
    pub attempt: u32,
    /// The recipient it is made for.
    pub recipient: Address,
    /// The separator of subaddresses in its domain.
    pub subaddress: String,
    pub body: Body,
    /// Our own name: what else bears it in `Authentication-Results` is forged, and isn't told.
    pub authserv_id: String,
    /// The octets of its `raw`.
    pub raw: Bytes,
    /// For formats that have a signature within.
    pub key: Option<Secret>,
    pub now: Timestamp,
}

/// How much of the message is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Full,
    /// Without texts and the content of attachments: for an endpoint that said 413. What is left out is said to be, and
    /// `message_id` finds it (`mailworker messages raw ID`).
    Thin,
}

/// A request's body, as it is sent.
#[derive(Debug, Clone)]
pub struct Payload {
    pub content_type: Cow<'static, str>,
    pub body: Bytes,
}

impl Payload {
    fn json(value: &impl serde::Serialize) -> Self {
        // Strings, numbers and lists of them: there is nothing that JSON can't say.
        let body = serde_json::to_vec(value).unwrap_or_default();
        Self { content_type: JSON, body: body.into() }
    }

    #[must_use]
    pub fn is_json(&self) -> bool {
        self.content_type == JSON
    }
}

pub const JSON: Cow<'static, str> = Cow::Borrowed("application/json");

/// The message in this format.
#[must_use]
pub fn made(format: PayloadFormat, source: &Source, size: Size) -> Payload {
    match format {
        PayloadFormat::Standard => standard::payload(source, size),
        PayloadFormat::Mailgun => mailgun::payload(source, size),
        PayloadFormat::MailgunMime => mailgun::mime(source, size),
        PayloadFormat::Sendgrid => sendgrid::payload(source, size),
        PayloadFormat::SendgridRaw => sendgrid::raw(source, size),
        PayloadFormat::Postmark => postmark::payload(source, size),
        PayloadFormat::Cloudmailin => cloudmailin::payload(source, size),
    }
}

#[cfg(test)]
mod example;
