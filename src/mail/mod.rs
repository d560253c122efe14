//! The words of mail that every other module speaks: addresses, envelopes, ids, replies, parsed messages.
//!
//! Pure: no clock, no randomness, no I/O. `now` and ids come in as arguments.
//! Standards: RFC 5321 (envelope, replies), RFC 5322 (messages), RFC 3463 (enhanced status codes), RFC 3461 (DSN).

pub mod address;
pub mod authentication;
pub mod draft;
pub mod field;
pub mod format;
pub mod id;
pub mod label;
pub mod limits;
pub mod message;
pub mod reply;
pub mod results;
pub mod time;

pub use address::Address;
pub use authentication::Authentication;
pub use draft::Draft;
pub use format::PayloadFormat;
pub use id::MessageId;
pub use limits::SessionLimits;
pub use message::{Mailbox, Message, Part};
pub use reply::Reply;
pub use time::Timestamp;

use serde::{Deserialize, Serialize};

/// What MAIL and RCPT said about one message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The reverse-path; `None` is the null sender `<>` (RFC 5321 §4.5.5).
    pub sender: Option<Address>,
    pub recipients: Vec<Recipient>,
    /// The client said SMTPUTF8 at MAIL (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// What the client said of the body (RFC 6152, RFC 3030).
    pub body: BodyKind,
    /// RET= of RFC 3461 §4.3.
    pub ret: Option<Ret>,
    /// ENVID= of RFC 3461 §4.4, decoded from xtext.
    pub envid: Option<String>,
}

/// One accepted RCPT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Where the worker is run for: the address after `redirect`.
    pub address: Address,
    /// As the client wrote it, where `redirect` changed it.
    pub original: Option<Address>,
    /// NOTIFY= of RFC 3461 §4.1.
    pub notify: Notify,
    /// ORCPT= of RFC 3461 §4.2, as written (`rfc822;user+40example.com`).
    pub orcpt: Option<String>,
}

impl Recipient {
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { address, original: None, notify: Notify::default(), orcpt: None }
    }
}

/// BODY= (RFC 6152 §2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyKind {
    #[default]
    #[serde(rename = "7bit")]
    SevenBit,
    #[serde(rename = "8bitmime")]
    EightBit,
}

/// RET= (RFC 3461 §4.3): what of the original a notice carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ret {
    Full,
    Hdrs,
}

/// NOTIFY= (RFC 3461 §4.1). The default, nothing said, is "failure" (and a delay where configured).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    pub success: bool,
    pub failure: bool,
    pub delay: bool,
    /// NOTIFY was given (so it is passed on to a next hop with DSN).
    pub explicit: bool,
}

impl Default for Notify {
    fn default() -> Self {
        Self { success: false, failure: true, delay: false, explicit: false }
    }
}

/// Who is speaking to us: the facts of one connection. Grows while the session goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The peer's address, after PROXY where one is trusted.
    pub ip: std::net::IpAddr,
    pub port: u16,
    /// The listener's address it came in by, as bound.
    pub listener: String,
    /// What it said at EHLO or HELO, if anything yet.
    pub helo: Option<String>,
    /// EHLO and not HELO.
    pub esmtp: bool,
    pub tls: Option<Tls>,
    /// The name of the PTR record, confirmed forward (RFC 8601 §3 iprev), where known.
    pub ptr: Option<String>,
    /// Who the sender of the message proved to be, where that was looked into.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "authentication::shared")]
    pub auth: Option<std::sync::Arc<Authentication>>,
    /// Where its address is, as far as databases know.
    #[serde(default, skip_serializing_if = "Origin::is_unknown")]
    pub origin: Origin,
}

/// Where an address is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// The number of its autonomous system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// ISO 3166-1's two letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
}

impl Origin {
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.asn.is_none() && self.country.is_none()
    }
}

/// What TLS a session runs over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// As in `TLSv1.3`.
    pub version: String,
    /// As in `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    pub sni: Option<String>,
}
