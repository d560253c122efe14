//! What goes over the control socket, as types that server and command line share.

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::kv;
use crate::mail::{MessageId, Timestamp};
use crate::store::QueueFilter;

/// What `tail --outcome` takes.
pub const OUTCOMES: [&str; 9] =
    ["accepted", "rejected", "deferred", "dropped", "stored", "quarantined", "failed", "delivered", "later"];

pub const STATUS: &str = "/v1/status";
pub const TAIL: &str = "/v1/tail";
pub const QUEUE_RETRY: &str = "/v1/queue/retry";
pub const QUEUE_DROP: &str = "/v1/queue/drop";
pub const RELEASE: &str = "/v1/messages/release";
pub const REPLAY: &str = "/v1/messages/replay";
pub const TRIGGER: &str = "/v1/scheduled";
pub const KV: &str = "/v1/kv";
pub const RELEASES: &str = "/v1/releases";
pub const SECRET_PUT: &str = "/v1/secrets/put";
pub const SECRET_DELETE: &str = "/v1/secrets/delete";
pub const BACKUP: &str = "/v1/backup";

/// What runs there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub listeners: Vec<Listening>,
    pub in_force: InForce,
}

/// Which rules run there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    pub env: String,
    /// A deployed release; `None`: the files.
    pub active: Option<i64>,
    /// A release on trial.
    pub canary: Option<i64>,
}

/// Which release a change was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    pub release: i64,
}

/// One listener, as bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// smtp, http
    pub protocol: String,
    /// With the real port.
    pub address: String,
    /// off, starttls, required, implicit
    pub tls: String,
}

/// As in `listening smtp 127.0.0.1:2525 starttls`.
impl std::fmt::Display for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "listening {} {} {}", self.protocol, self.address, self.tls)
    }
}

/// Which events `tail` shows; all fields narrow. The answer is an [`crate::event::Event`] a line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TailFilter {
    /// Part of an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// One of [`OUTCOMES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// Which deliveries a change of the queue is for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueChange {
    pub filter: QueueFilter,
    /// Needed where the filter narrows nothing: a slip must not reach the whole queue.
    #[serde(default)]
    pub all: bool,
}

/// How many deliveries a change of the queue reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub deliveries: u64,
}

/// Which message is to be decided on once more, for real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayOf {
    pub id: MessageId,
    /// How many deliveries it had ever had when it was looked at: where it has got more since, nothing is done.
    pub known: u32,
}

/// What was decided and committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replayed {
    pub deliveries: u64,
    /// Recipients that the rules refuse now: for these nothing was done.
    pub refused: u64,
    pub events: Vec<Event>,
}

/// Which time of `scheduled` is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerOf {
    pub cron: String,
    /// `None`: now.
    pub time: Option<Timestamp>,
}

/// What that run came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Triggered {
    /// Its trace; `None`: nothing was done.
    pub id: Option<MessageId>,
    pub deliveries: u64,
    pub mails: u64,
    /// Why the handler failed, if it did.
    pub failed: Option<String>,
    pub events: Vec<Event>,
}

/// An admin's writes to KV.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KvWrites {
    pub writes: Vec<kv::Write>,
}

/// A secret, to be sealed by the server.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretPut {
    pub env: String,
    pub name: String,
    pub value: String,
}

impl std::fmt::Debug for SecretPut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretPut").field("env", &self.env).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Which secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretDelete {
    pub env: String,
    pub name: String,
}

/// Where a backup goes: an absolute path on the server's machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupTo {
    pub dir: std::path::PathBuf,
}

/// What every answer that isn't 2xx carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiError {
    pub error: String,
}
