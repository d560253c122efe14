//! What happens, as a closed list: the log line, the metric, the tail record and a message's trace all derive from it.
//!
//! An event that bears on a message is stored under its id (in the same transaction as the fact it tells);
//! every event goes over the [`Bus`] to the log, the metrics and `tail`. Never holds a body or a secret.

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::diagnostic::shown_url;
use crate::mail::{Address, Client, MessageId, Reply, Timestamp};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub at: Timestamp,
    /// The SMTP session it happened in, by its number since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageId>,
    #[serde(flatten)]
    pub kind: Kind,
}

/// The closed list. `event` is the tag in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Kind {
    // ---- the server
    Started {
        version: String,
    },
    Listening {
        protocol: String,
        address: String,
        tls: String,
    },
    Reloaded {
        what: String,
    },
    /// A deployed release runs, and not the files of the rules: which.
    Running {
        rules: String,
    },
    /// A release that was tried on a part of the mail is tried no more; what is active stays.
    CanaryStopped {
        env: String,
        release: i64,
        reason: String,
    },
    /// What was there before is kept.
    ReloadFailed {
        what: String,
        error: String,
    },
    /// Something of ours failed; `detail` is for the admin, never for a peer.
    Fault {
        what: String,
        detail: String,
    },
    StorageLow {
        free_bytes: u64,
        wanted_bytes: u64,
    },
    Retention {
        messages: u64,
        raw_bytes: u64,
        keys: u64,
    },
    Stopping {
        open_sessions: u64,
    },

    // ---- a session
    Connected {
        client: Box<Client>,
    },
    TlsStarted {
        version: String,
        cipher: String,
    },
    TlsFailed {
        error: String,
    },
    /// A command that was refused: the phase as RFC 5321 names it (connect, helo, mail, rcpt, data).
    Refused {
        phase: String,
        ip: std::net::IpAddr,
        sender: Option<String>,
        recipient: Option<String>,
        reply: Reply,
    },
    /// The session ended otherwise than by QUIT.
    Dropped {
        phase: String,
        ip: std::net::IpAddr,
        reason: String,
    },

    // ---- a message, up to its acceptance
    Received {
        client: Box<Client>,
        sender: Option<Address>,
        recipients: Vec<Address>,
        size: u64,
        subject: Option<String>,
    },
    /// The same message again after an answer that its sender can't have read (RFC 1047); `original` stands.
    Resent {
        original: MessageId,
    },
    /// What was found out about who sends it, check by check.
    Authenticated {
        checks: Vec<Checked>,
    },
    /// What a `[[route]]` or a worker decided for one recipient.
    Decided(Box<Decision>),
    /// A worker's `print`, `debug` or `ctx.log`.
    ScriptLog {
        recipient: Option<Address>,
        file: String,
        line: u32,
        text: String,
    },
    /// What a worker asked outside: `GET https://api.example.net/…`, `ai gpt-4o-mini`, `DNS TXT example.org`.
    Reached {
        recipient: Option<Address>,
        file: String,
        line: u32,
        what: String,
        /// `200, 512 octets`, or why there is none.
        answer: String,
        failed: bool,
        /// Asked in an earlier run for the same message.
        #[serde(default)]
        kept: bool,
        millis: u64,
    },
    /// A handler that is about no message on its way in (delivered, failed), the worker and what it asked for.
    Handled {
        handler: String,
        by: String,
        effects: Vec<String>,
        operations: u64,
        micros: u64,
    },
    /// `error` begins with `file:line:column:`, and `source` is that line.
    ScriptFailed {
        recipient: Option<Address>,
        handler: String,
        error: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
    },
    Accepted {
        reply: Reply,
        deliveries: u32,
    },
    Rejected {
        reply: Reply,
    },
    Deferred {
        reply: Reply,
    },

    // ---- a delivery
    Attempted(Box<Attempted>),
    /// No more attempts: refused for good, expired or given up.
    Failed {
        delivery: u32,
        destination: String,
        target: String,
        reason: String,
        attempts: u32,
    },
    /// A worker wrote a mail of its own: whom to, and the message that it is.
    Written {
        /// mail, reply
        what: String,
        to: Vec<Address>,
        mail: MessageId,
    },
    /// A notice (RFC 3464) was made: the message that carries it.
    NoticeSent {
        to: Address,
        notice: MessageId,
    },
    /// A notice was called for and not sent (RFC 3464, RFC 3834 and good manners), and why.
    NoticeSuppressed {
        to: Option<Address>,
        reason: String,
    },
    /// A destination is given a rest.
    DestinationPaused {
        destination: String,
        until: Timestamp,
        reason: String,
    },
    /// A webhook's endpoint said 410: nothing more is sent to it until an admin tries again, or its URL changes.
    EndpointDisabled {
        /// Its binding, or its [`shown_url`].
        endpoint: String,
        reason: String,
    },
    /// An admin's hand: retry, drop, put.
    Admin {
        verb: String,
        detail: String,
    },
}

/// What was decided for one recipient, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub recipient: Address,
    /// `worker rules/main.rhai`, `route 3 (billing@example.com)`, `postmaster`, `the policy on senders`.
    pub by: String,
    /// accept, reject, defer, drop, store, quarantine, fail; what explains it may follow a blank ([`Decision::word`]).
    pub verdict: String,
    /// The line whose action settled it: `rules/main.rhai:21:9`.
    pub place: Option<String>,
    /// What it asked for, in order, one line each: `forward to team@example.net (rules/main.rhai:33)`; then its KV writes:
    /// `put EMAILS "key" (rules/main.rhai:35:9)`.
    pub effects: Vec<String>,
    /// Labels that the worker gave it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The version of the deployed release whose worker decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// That release is tried on a part of the mail.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
    /// Of one run: operations used, microseconds taken, runs needed (more than one where KV was overtaken).
    pub operations: u64,
    pub micros: u64,
    pub runs: u32,
}

/// One look at who sends a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// iprev, spf helo, spf, dkim, arc, dmarc.
    pub check: String,
    /// A word of RFC 8601.
    pub result: String,
    /// Whose name or domain it is about.
    pub about: String,
    pub reason: String,
    /// How long it took, beside what else happened meanwhile.
    pub millis: u64,
}

/// One attempt at a delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempted {
    /// Which of the message's deliveries.
    pub delivery: u32,
    /// relay, webhook, notice, decide, tell.
    pub kind: String,
    /// The queue it went by: a domain, a smarthost, an endpoint's host.
    pub destination: String,
    /// The recipient, the webhook's binding or its [`shown_url`].
    pub target: String,
    /// The server that was spoken to: `mx1.example.net [192.0.2.1]:25`.
    pub host: Option<String>,
    pub attempt: u32,
    /// delivered, later, failed.
    pub outcome: String,
    /// The remote's answer in its own words, or what went wrong, with host, phase and limit.
    pub answer: String,
    pub millis: u64,
    /// When it is tried again, if it is.
    pub next: Option<Timestamp>,
    pub tls: Option<String>,
}

impl Decision {
    /// The verdict without what explains it: `store (the worker decided nothing)` is a store.
    #[must_use]
    pub fn word(&self) -> &str {
        self.verdict.split(' ').next().unwrap_or_default()
    }
}

impl Event {
    #[must_use]
    pub fn new(at: Timestamp, kind: Kind) -> Self {
        Self { at, session: None, message: None, kind }
    }

    #[must_use]
    pub fn of(mut self, message: MessageId) -> Self {
        self.message = Some(message);
        self
    }

    #[must_use]
    pub fn in_session(mut self, session: u64) -> Self {
        self.session = Some(session);
        self
    }
}

impl Kind {
    /// Senders and recipients that it names itself.
    #[must_use]
    pub fn parties(&self) -> (Vec<&str>, Vec<&str>) {
        match self {
            Self::Refused { sender, recipient, .. } => {
                (sender.as_deref().into_iter().collect(), recipient.as_deref().into_iter().collect())
            }
            Self::Received { sender, recipients, .. } => {
                (vec![sender.as_ref().map_or("<>", Address::as_str)], recipients.iter().map(Address::as_str).collect())
            }
            Self::Decided(decision) => (Vec::new(), vec![decision.recipient.as_str()]),
            Self::ScriptLog { recipient, .. }
            | Self::Reached { recipient, .. }
            | Self::ScriptFailed { recipient, .. } => (Vec::new(), recipient.iter().map(Address::as_str).collect()),
            Self::Attempted(attempted) => (Vec::new(), vec![attempted.target.as_str()]),
            Self::Failed { target, .. } => (Vec::new(), vec![target.as_str()]),
            Self::NoticeSent { to, .. } => (Vec::new(), vec![to.as_str()]),
            Self::Written { to, .. } => (Vec::new(), to.iter().map(Address::as_str).collect()),
            _ => (Vec::new(), Vec::new()),
        }
    }

    /// Whether it is kept in the store's log where it belongs to no message: what somebody may ask about the next day,
    /// and not that each connection came, encrypted and went.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        !matches!(
            self,
            Self::Connected { .. }
                | Self::TlsStarted { .. }
                | Self::Listening { .. }
                | Self::Retention { .. }
                // The store keeps it with what it tells.
                | Self::CanaryStopped { .. }
        )
    }
}

type Keeper = std::sync::Arc<dyn Fn(Event) + Send + Sync>;

/// Hands each event to every subscriber. Publishing never waits and never fails: a slow subscriber loses the oldest.
#[derive(Clone)]
pub struct Bus {
    sender: tokio::sync::broadcast::Sender<std::sync::Arc<Event>>,
    /// Who keeps what belongs to no message.
    keeper: std::sync::Arc<std::sync::RwLock<Option<Keeper>>>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("sender", &self.sender).finish_non_exhaustive()
    }
}

impl Bus {
    /// `capacity`: how many events a subscriber may lag behind.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { sender: tokio::sync::broadcast::channel(capacity).0, keeper: std::sync::Arc::default() }
    }

    /// From here on `keeper` gets what [`Kind::is_kept`] and belongs to no message; `None`: nobody does. It must not wait.
    pub fn keep(&self, keeper: Option<Keeper>) {
        *self.keeper.write().unwrap_or_else(std::sync::PoisonError::into_inner) = keeper;
    }

    /// Logs and counts it, has it kept, and tells every subscriber. Costs nothing where there is none.
    pub fn publish(&self, event: Event) {
        crate::telemetry::record(&event);
        if event.message.is_none() && event.kind.is_kept() {
            let keeper = self.keeper.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            if let Some(keep) = keeper {
                keep(event.clone());
            }
        }
        if self.sender.receiver_count() > 0 {
            let _nobody_listens = self.sender.send(std::sync::Arc::new(event));
        }
    }

    #[must_use]
    pub fn subscribe(&self) -> tokio::sync::broadcast::Receiver<std::sync::Arc<Event>> {
        self.sender.subscribe()
    }
}

/// A duration in whole milliseconds, for an event's field.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_by_its_host_alone() {
        for (url, shown) in [
            ("https://hooks.example.net/services/T0/B0/key", "https://hooks.example.net/…"),
            ("https://user:pw@hooks.example.net:8443/?key=k#f", "https://hooks.example.net:8443/…"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
            ("https://hooks.example.net", "https://hooks.example.net"),
            ("no url with a key", "(no URL)"),
        ] {
            assert_eq!(shown_url(url), shown, "{url}");
        }
    }

    #[test]
    fn no_kinds_field_hides_one_of_the_events_own() {
        let decision = Decision {
            recipient: Address::parse("support@example.com").unwrap(),
            by: "worker rules/main.rhai".into(),
            verdict: "accept".into(),
            place: Some("rules/main.rhai:3:13".into()),
            effects: Vec::new(),
            tags: Vec::new(),
            version: None,
            canary: false,
            operations: 1,
            micros: 1,
            runs: 1,
        };
        let at = Timestamp::from_millis(1_800_000_000_000);
        let attempted = Attempted {
            delivery: 0,
            kind: "relay".into(),
            destination: "mx:example.net".into(),
            target: "team@example.net".into(),
            host: None,
            attempt: 1,
            outcome: "later".into(),
            answer: "450".into(),
            millis: 1,
            next: Some(at),
            tls: None,
        };
        for kind in [Kind::Decided(Box::new(decision)), Kind::Attempted(Box::new(attempted))] {
            let event = Event::new(at, kind).of(MessageId::new(at, 1)).in_session(7);
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{text}");
        }
    }
}
