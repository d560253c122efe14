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

/// Which deliveries; all fields narrow.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
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

/// A line of the queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueEntry {
    pub key: DeliveryKey,
    pub kind: String,
    pub destination: String,
    /// The recipient or URL.
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
