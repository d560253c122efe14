//! What the store shows: filters, lines of lists, counts, the report of a check.
//!
//! Types alone; the command line and the admin API print them and send them as JSON.

use serde::{Deserialize, Serialize};

use super::{DeliveryKey, MessageOutcome};
use crate::event::Event;
use crate::mail::{Address, MessageId, Timestamp};

/// Which messages to list; all fields narrow.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageFilter {
    /// Part of an address.
    pub sender: Option<String>,
    pub recipient: Option<String>,
    pub subject: Option<String>,
    pub outcome: Option<MessageOutcome>,
    pub since: Option<Timestamp>,
    /// Older than this id: the next page.
    pub before: Option<MessageId>,
    pub limit: Option<usize>,
}

/// A line of the list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MessageSummary {
    pub id: MessageId,
    pub received_at: Timestamp,
    pub sender: Option<Address>,
    pub recipients: Vec<Address>,
    pub subject: Option<String>,
    pub size: u64,
    pub outcome: MessageOutcome,
    /// Deliveries not yet settled.
    pub queued: u32,
    /// Deliveries given up.
    pub dead: u32,
    pub ip: Option<std::net::IpAddr>,
    /// The bytes are still there.
    pub raw: bool,
}

/// One message in full.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MessageDetail {
    #[serde(flatten)]
    pub summary: MessageSummary,
    pub mailbox: Option<String>,
    /// In order.
    pub trace: Vec<Event>,
    pub deliveries: Vec<QueueEntry>,
}

/// Which events of the log; all fields narrow.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    /// Part of an address; `<>` is the null sender.
    pub sender: Option<String>,
    pub recipient: Option<String>,
    /// Part of the client's address.
    pub ip: Option<String>,
    /// connect, helo, mail, rcpt, data
    pub phase: Option<String>,
    pub since: Option<Timestamp>,
    /// Older than this one: the next page.
    pub before: Option<i64>,
    pub limit: Option<usize>,
}

/// An event that belongs to no message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Logged {
    pub id: i64,
    #[serde(flatten)]
    pub event: Event,
}

/// Newest first.
#[derive(Debug, Clone, Default)]
pub struct LogPage {
    pub events: Vec<Logged>,
    /// It was looked at long enough: what is older than this may hold more.
    pub more_before: Option<i64>,
}

/// Which deliveries; all fields narrow. A field that isn't known here narrows nothing and so is refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueFilter {
    pub message: Option<MessageId>,
    pub sender: Option<String>,
    pub recipient: Option<String>,
    pub destination: Option<String>,
    /// Queued longer ago than this.
    pub before: Option<Timestamp>,
    /// Part of the last error.
    pub error: Option<String>,
    pub dead: Option<bool>,
    /// Behind this one: the next page.
    pub after: Option<DeliveryKey>,
    pub limit: Option<usize>,
}

impl QueueFilter {
    /// Whether nothing narrows it: an empty text is part of every text.
    #[must_use]
    pub fn reaches_all(&self) -> bool {
        let texts = [&self.sender, &self.recipient, &self.destination, &self.error];
        let narrows = texts.into_iter().flatten().any(|text| !text.is_empty());
        !narrows && self.message.is_none() && self.before.is_none() && self.dead.is_none()
    }
}

/// A line of the queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueEntry {
    pub key: DeliveryKey,
    pub kind: String,
    pub destination: String,
    /// The recipient, or a webhook's binding or host: its URL may hold a key.
    pub target: String,
    pub sender: Option<Address>,
    pub attempts: u32,
    pub queued_at: Timestamp,
    pub due: Timestamp,
    pub dead: bool,
    pub last_error: Option<String>,
}

/// What `store check` found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// A server has the store open: what it is writing was left out.
    pub running: bool,
    pub messages: u64,
    pub deliveries: u64,
    pub segments: u64,
    /// Octets of mail that were read.
    pub bytes: u64,
    pub findings: Vec<Finding>,
    /// Findings beyond the first thousand.
    pub unlisted: u64,
}

/// What a repair came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RepairReport {
    /// As it was found.
    pub found: CheckReport,
    /// As it is now.
    pub left: CheckReport,
    /// Where what was damaged lies now; `None`: nothing had to be put aside.
    pub quarantine: Option<std::path::PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// database, schema, message, octets, segment, delivery, trace, kv, log.
    pub kind: String,
    /// What is wrong, and with what.
    pub problem: String,
    /// What a repair would do about it.
    pub repair: String,
    /// Mail is lost or can't be sent.
    pub serious: bool,
}

/// Counts for metrics and /readyz.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Gauges {
    pub queued: u64,
    pub dead: u64,
    pub oldest_queued: Option<Timestamp>,
    pub store_bytes: u64,
    /// Log events that were too many to be kept.
    #[serde(default)]
    pub unlogged: u64,
}
