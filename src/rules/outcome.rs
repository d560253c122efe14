//! What a run decided, as data: the verdict, the effects in order, what was read and written, and why.

use serde::{Deserialize, Serialize};

use super::reach::Reached;
use crate::kv;
use crate::mail::{Address, Draft, PayloadFormat, Reply};

/// A place in a script: what the trace points at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub file: String,
    pub line: u32,
    pub column: u32,
}

impl Place {
    /// `file:line:column` that stands before an error's words.
    #[must_use]
    pub fn before(error: &str) -> Option<(&str, usize, usize)> {
        let mut parts = error.splitn(4, ':');
        let (file, line, column) = (parts.next()?, parts.next()?, parts.next()?);
        parts.next().map(|_| Some((file, line.parse().ok()?, column.parse().ok()?)))?
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// What one run of `email` comes to.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub verdict: Verdict,
    /// In the order asked for; empty for Reject, Defer and Failed, and of a Quarantine what says how it is kept.
    pub effects: Vec<(Effect, Place)>,
    /// To be checked when the outcome commits.
    pub reads: Vec<kv::Read>,
    /// In order; empty for Defer and Failed. A rejection's writes stand (a counter of refusals is one).
    pub writes: Vec<kv::Write>,
    /// The place of each write.
    pub writes_at: Vec<Place>,
    /// Labels that the script gave it; none where it failed.
    pub tags: Vec<String>,
    pub log: Vec<LogLine>,
    /// What it asked outside, in order.
    pub reached: Vec<Reached>,
    pub usage: Usage,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Effects carry it further (forward, webhook, store).
    Accept,
    /// The script asked for nothing: kept with the default retention, and said so.
    Undecided,
    /// `drop()`, on purpose.
    Drop {
        at: Place,
    },
    /// Kept, and sent nowhere until an admin lets it out.
    Quarantine {
        reason: String,
        at: Place,
    },
    Reject {
        reply: Reply,
        at: Place,
    },
    Defer {
        reply: Reply,
        at: Place,
    },
    /// It threw, overran or panicked: 451, nothing done. Begins with `file:line:column:`.
    Failed {
        error: String,
    },
}

/// One staged effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    Forward {
        to: ForwardTo,
        headers: Vec<(String, String)>,
    },
    Webhook {
        target: WebhookTarget,
        method: String,
        headers: Vec<(String, String)>,
        body: Carried,
    },
    Store {
        mailbox: Option<String>,
        retention_secs: Option<u64>,
    },
    /// A mail of the worker's own.
    Mail(Box<Draft>),
    /// For what is forwarded after it; `None`: the field is taken out.
    Header {
        name: String,
        value: Option<String>,
    },
}

impl Effect {
    /// Whether it says what becomes of the message.
    #[must_use]
    pub fn decides(&self) -> bool {
        !matches!(self, Self::Header { .. })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardTo {
    Address(Address),
    /// A `[[destination]]` of the config; the recipient stays.
    Destination(String),
}

/// What a webhook carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Carried {
    /// As it will be sent: mostly JSON, or the text that a script made itself.
    Json(String),
    /// The message, of which it is made when it is sent; without a format, in that of its `[[webhook]]`.
    Message { format: Option<PayloadFormat> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookTarget {
    Binding(String),
    Url(String),
}

/// A line of `print`, `debug` or `ctx.log`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    pub at: Place,
    pub text: String,
}

/// What a run used. The clock is the caller's: `micros` is filled in by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub operations: u64,
    pub micros: u64,
}
