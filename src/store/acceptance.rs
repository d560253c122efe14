//! What callers hand to the store and get back from it while mail is moving: acceptances, deliveries, settlements.
//!
//! Types alone, made by intake (an [`Acceptance`]) and delivery (a [`Settlement`]). What stands in JSON columns
//! (tasks, envelopes) is read back by later versions of the program: fields are added, with a default, never renamed.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::claims::Warm;
use super::raw::Raw;
use crate::event::Event;
use crate::kv;
use crate::mail::{Address, Client, Envelope, MessageId, Notify, PayloadFormat, Timestamp};

/// Everything that one message comes to: committed together or not at all.
#[derive(Debug, Clone)]
pub struct Acceptance {
    pub id: MessageId,
    pub received_at: Timestamp,
    pub envelope: Envelope,
    /// `None` for what we author ourselves (notices).
    pub client: Option<Client>,
    /// Our own trace fields, prepended to the body in whatever is sent on.
    pub head: Bytes,
    /// As received.
    pub body: Raw,
    /// 128 bits over sender, recipients and octets: tells a resend (RFC 1047).
    pub fingerprint: [u8; 16],
    /// For the list of messages.
    pub subject: Option<String>,
    pub header_from: Option<String>,
    pub outcome: MessageOutcome,
    /// When the bytes may go; `None`: by the retention setting.
    pub keep_until: Option<Timestamp>,
    /// The mailbox of `store(#{ mailbox })`.
    pub mailbox: Option<String>,
    pub deliveries: Vec<NewDelivery>,
    pub kv_reads: Vec<kv::Read>,
    pub kv_writes: Vec<kv::Write>,
    /// The message's trace so far.
    pub events: Vec<Event>,
    /// Mails that its workers wrote, each a message of its own with its own trace; accepted in the same transaction.
    pub authored: Vec<Acceptance>,
}

impl Acceptance {
    /// One that we wrote ourselves, with nothing that follows from it yet.
    #[must_use]
    pub fn ours(id: MessageId, envelope: Envelope, octets: Vec<u8>, fingerprint: [u8; 16], at: Timestamp) -> Self {
        Self {
            id,
            received_at: at,
            envelope,
            client: None,
            head: Bytes::new(),
            body: Bytes::from(octets).into(),
            fingerprint,
            subject: None,
            header_from: None,
            outcome: MessageOutcome::Authored,
            keep_until: None,
            mailbox: None,
            deliveries: Vec::new(),
            kv_reads: Vec::new(),
            kv_writes: Vec::new(),
            events: Vec::new(),
            authored: Vec::new(),
        }
    }
}

/// What the list of messages shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageOutcome {
    /// Forwarded, turned into webhooks.
    Accepted,
    Stored,
    Dropped,
    Rejected,
    /// The sender was told 451: no body is kept.
    Deferred,
    /// What we author: a notice, a worker's mail.
    Authored,
    /// Kept, and delivered nowhere until an admin releases it.
    Quarantined,
}

/// What `accept` came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// On disk. From here on it is ours.
    Committed,
    /// A key that was read has changed: run the rules again. Nothing was written.
    Overtaken,
}

/// A delivery to be queued with its message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewDelivery {
    pub task: Task,
    /// The queue it stands in: `mx:example.net`, `smtp://127.0.0.1:2600`, `https://hooks.example.net`.
    pub destination: String,
    pub due: Timestamp,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Task {
    Relay(RelayTask),
    Webhook(WebhookTask),
    /// Tell the sender what became of the message (RFC 3464), if its sender is proved.
    Notice(NoticeTask),
    /// Run the worker again for a recipient whose run failed.
    Decide(DecideTask),
    /// Run the worker's `delivered` or `failed`.
    Tell(TellTask),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelayTask {
    pub recipient: Address,
    /// The recipient the mail came in for.
    pub original: Address,
    #[serde(default)]
    pub notify: Notify,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
    /// A `[[destination]]`; `None`: by `[relay]` or MX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Fields the worker added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// Where in the octets as received fields stand that the worker removed or replaced: from, and up to. In order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<(usize, usize)>,
    /// A mail that a worker wrote.
    #[serde(default, skip_serializing_if = "is_false")]
    pub own: bool,
    /// Who decided, and hears how it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Decider>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookTask {
    /// The binding, whose key and settings are taken when it is sent; `None`: a URL of the script's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    pub url: String,
    pub method: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    pub body: WebhookBody,
    /// The recipient whose run asked for it.
    pub recipient: Address,
    /// No handler is told how it ends: one asked for it that was told.
    #[serde(default, skip_serializing_if = "is_false")]
    pub quiet: bool,
    /// Who decided, and hears how it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Decider>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookBody {
    /// As sent.
    Json(String),
    /// Made from the message when it is sent, in the format of its `[[webhook]]`.
    Message,
    /// The same in this format, whatever the `[[webhook]]` says.
    Formatted(PayloadFormat),
}

impl WebhookBody {
    /// From the message's octets, which are needed then.
    #[must_use]
    pub fn is_made(&self) -> bool {
        !matches!(self, Self::Json(_))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NoticeTask {
    /// failed, delayed, delivered (RFC 3464 §2.3.3).
    pub action: String,
    pub recipient: Address,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
    /// As in `5.1.1`.
    pub status: String,
    /// The remote's answer, or our own reason.
    pub diagnostic: String,
    /// The server that said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecideTask {
    pub recipient: crate::mail::Recipient,
    /// What `rcpt_to` left for `email`.
    #[serde(default)]
    pub notes: std::collections::BTreeMap<String, serde_json::Value>,
}

/// How a delivery ended, for the worker to hear.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TellTask {
    /// It came to where it was to go; else it was given up.
    pub delivered: bool,
    /// Whose worker hears it.
    pub recipient: Address,
    /// What ended: forward, mail, webhook. (`kind` is the task's own.)
    pub what: String,
    /// The next recipient, or the webhook.
    pub destination: String,
    /// As in `5.1.1`, or HTTP's; empty where nobody answered.
    pub status: String,
    pub reply: String,
    pub attempts: u32,
    pub at: Timestamp,
    /// Who hears it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Decider>,
}

/// A worker that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decider {
    /// As the configuration named it.
    pub main: String,
    /// Of its rules, where others were on trial beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Which delivery: the message's n-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeliveryKey {
    pub message: MessageId,
    pub n: u32,
}

/// A claimed delivery. Claims live in memory: a process that dies leaves none behind.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub key: DeliveryKey,
    pub task: Task,
    pub destination: String,
    /// Attempts so far.
    pub attempts: u32,
    pub queued_at: Timestamp,
    pub due: Timestamp,
    /// A notice of delay has gone out.
    pub delay_noticed: bool,
    /// The message, where it is still in memory from its acceptance.
    pub warm: Option<Warm>,
}

impl Delivery {
    /// About as many octets as it takes in memory, the message apart.
    #[must_use]
    pub fn weight(&self) -> usize {
        let fields = |headers: &[(String, String)]| {
            headers.iter().map(|(name, value)| name.len() + value.len() + size_of::<(String, String)>()).sum::<usize>()
        };
        let named = |by: &Option<Decider>| {
            by.as_ref().map_or(0, |by| by.main.len() + by.version.as_ref().map_or(0, String::len))
        };
        let task = match &self.task {
            Task::Relay(task) => {
                let removed = size_of_val(task.removed.as_slice());
                task.recipient.as_str().len()
                    + task.original.as_str().len()
                    + fields(&task.headers)
                    + removed
                    + named(&task.by)
            }
            Task::Webhook(task) => {
                let body = if let WebhookBody::Json(text) = &task.body { text.len() } else { 0 };
                task.url.len() + fields(&task.headers) + body + named(&task.by)
            }
            Task::Tell(task) => {
                task.recipient.as_str().len() + task.destination.len() + task.reply.len() + named(&task.by)
            }
            Task::Notice(task) => task.recipient.as_str().len() + task.diagnostic.len(),
            Task::Decide(task) => {
                let noted = task.notes.iter().map(|(name, value)| name.len() + json_weight(value)).sum::<usize>();
                task.recipient.address.as_str().len() + noted
            }
        };
        size_of::<Self>() + self.destination.len() + task
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_false(flag: &bool) -> bool {
    !*flag
}

fn json_weight(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(json_weight).sum(),
            Value::Object(values) => values.iter().map(|(name, value)| name.len() + json_weight(value)).sum(),
            _ => 0,
        }
}

/// A message's octets and what belongs to them.
#[derive(Debug, Clone)]
pub struct Body {
    pub envelope: Envelope,
    pub client: Option<Client>,
    pub head: Bytes,
    pub raw: Raw,
}

/// A message's way out of its quarantine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discharge {
    pub id: MessageId,
    pub deliveries: Vec<NewDelivery>,
}

/// A message that is decided on once more, because an admin wants it: committed whole or not at all.
#[derive(Debug, Clone)]
pub struct Redecision {
    pub id: MessageId,
    /// How many deliveries it had ever had when it was decided on. Another number refuses this one.
    pub known: u32,
    /// What the message is by it; `None`: what it was.
    pub outcome: Option<MessageOutcome>,
    pub keep: Option<Keep>,
    pub deliveries: Vec<NewDelivery>,
    /// Mails that its workers wrote, accepted in the same transaction.
    pub authored: Vec<Acceptance>,
    pub kv_reads: Vec<kv::Read>,
    pub kv_writes: Vec<kv::Write>,
    /// Appended to the message's trace.
    pub events: Vec<Event>,
}

/// How a claimed delivery ended this time.
#[derive(Debug, Clone)]
pub struct Settlement {
    pub key: DeliveryKey,
    pub result: Settled,
    /// Appended to the message's trace.
    pub events: Vec<Event>,
    /// Queued on the same message, in the same transaction (a notice after a failure).
    pub then: Vec<NewDelivery>,
    /// Written in the same transaction (a worker's second run).
    pub kv_reads: Vec<kv::Read>,
    pub kv_writes: Vec<kv::Write>,
    /// Accepted in the same transaction, as messages of ours: the notice itself, mails that a worker wrote.
    pub authored: Vec<Acceptance>,
    /// What the message has become by it (a worker's second run); `None`: what it was.
    pub outcome: Option<MessageOutcome>,
    /// How it is to be kept by it; `None`: as it was.
    pub keep: Option<Keep>,
}

/// What `store(#{ mailbox, retention })` asked for in a second run. The longer retention counts, and the first mailbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    pub until: Option<Timestamp>,
    pub mailbox: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Settled {
    /// Off the queue.
    Done,
    /// Stays queued; counts as an attempt.
    Later { due: Timestamp, error: String, delay_noticed: bool },
    /// Stays queued, the attempt was never made (its destination is paused): nothing counted.
    Postponed { due: Timestamp },
    /// Kept for an admin to look into and send again.
    Dead { error: String },
}
