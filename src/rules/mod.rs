//! Workers: Rhai scripts that are handed a message and return what is to become of it. No effects: effects are returned.
//!
//! Pure: knows neither store nor network. It reads KV through [`crate::kv::View`], and what is outside through [`Reach`]; what a run wrote comes back in its
//! [`Outcome`]. Input: sources, bindings, facts about message and session. Output: diagnostics, outcomes.
//! rhai is confined to this module. The contract with admins is `rules/README.md`.

pub mod api;
mod check;
pub mod engine;
mod failure;
mod growth;
mod happening;
mod hidden;
mod lookups;
mod modules;
pub mod outcome;
pub mod reach;
pub mod reference;
pub mod release;
pub mod scripted;
pub mod seed;
mod stack;
pub mod step;
mod worker;

use std::sync::Arc;

pub use engine::waited;
pub use happening::{Happening, HappeningCall, HappeningOutcome};
pub use hidden::Secrets;
pub use outcome::{Effect, Outcome, Verdict};
pub use reach::{Lent, Reach, Reached};
pub use release::Release;
pub use seed::Seed;
pub use stack::THREAD as THREAD_STACK;

use crate::kv;
use crate::mail::{Address, Client, Message, MessageId, Timestamp};

/// What the configuration binds: what `env` holds.
#[derive(Debug, Clone, Default)]
pub struct Bindings {
    pub env_name: String,
    pub vars: std::collections::BTreeMap<String, serde_json::Value>,
    /// Secrets by name: strings that neither the log nor a trace shows.
    pub secrets: Secrets,
    /// What no script is handed, and an answer from outside may repeat: shown as little.
    pub concealed: Secrets,
    pub kv_namespaces: Vec<String>,
    /// Names of `[[webhook]]`s.
    pub webhooks: Vec<String>,
    /// Names of `[[destination]]`s.
    pub destinations: Vec<String>,
    /// The domains that each main may write mail for, `*.example.com` for all below it.
    pub senders: std::collections::BTreeMap<String, Vec<String>>,
    pub budget: Option<crate::rules::engine::Budget>,
    /// What `ctx.ai` asks; `None`: nobody.
    pub ai: Option<Ai>,
    /// What the budget's wall clock is read from; without one, operations alone bound a run.
    pub clock: Option<RunClock>,
}

/// What rules know of `[ai]`.
#[derive(Debug, Clone, Default)]
pub struct Ai {
    /// The model where a script names none.
    pub model: Option<String>,
}

/// A monotonic clock, lent by the caller: how long it is since some moment of its choosing. And how long the thread has had
/// the processor, where that is known.
#[derive(Clone)]
pub struct RunClock {
    elapsed: Arc<dyn Fn() -> std::time::Duration + Send + Sync>,
    busy: Option<fn() -> std::time::Duration>,
}

impl RunClock {
    #[must_use]
    pub fn new(elapsed: impl Fn() -> std::time::Duration + Send + Sync + 'static) -> Self {
        Self { elapsed: Arc::new(elapsed), busy: None }
    }

    #[must_use]
    pub fn with_busy(self, busy: fn() -> std::time::Duration) -> Self {
        Self { busy: Some(busy), ..self }
    }

    fn read(&self) -> std::time::Duration {
        (self.elapsed)()
    }

    /// How long this thread has been at work, as far as that can be told.
    fn busy(&self) -> std::time::Duration {
        self.busy.map_or_else(|| self.read(), |busy| busy())
    }
}

impl std::fmt::Debug for RunClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunClock")
    }
}

/// What a worker is told of the session.
#[derive(Debug, Clone)]
pub struct SessionFacts {
    pub client: Client,
    pub sender: Option<Address>,
    /// What earlier stages set on `session.notes`; goes on to the later ones.
    pub notes: std::collections::BTreeMap<String, serde_json::Value>,
}

/// One call of `email`.
#[derive(Debug, Clone)]
pub struct EmailCall {
    /// The script to run, as the configuration names it: `rules/main.rhai`.
    pub main: String,
    pub id: MessageId,
    pub received_at: Timestamp,
    pub recipient: Address,
    /// The domain's separator; empty: no subaddresses.
    pub subaddress: String,
    pub session: Arc<SessionFacts>,
    pub message: Arc<Message>,
    /// `now` for TTLs and KV reads.
    pub now: Timestamp,
    /// What ids are drawn from.
    pub seed: Seed,
    pub reach: Lent,
}

/// One call of `rcpt_to`.
#[derive(Debug, Clone)]
pub struct RcptCall {
    pub main: String,
    pub session: SessionFacts,
    pub recipient: Address,
    pub subaddress: String,
    pub now: Timestamp,
    /// What ids are drawn from.
    pub seed: Seed,
    pub reach: Lent,
}

/// Where a session stands before it names a recipient: each has a handler of the first worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before the greeting.
    Connect,
    /// After EHLO or HELO.
    Helo,
    /// MAIL FROM; the session's sender is the one that it names.
    MailFrom,
}

impl Stage {
    pub const ALL: [Self; 3] = [Self::Connect, Self::Helo, Self::MailFrom];

    /// What its handler is called.
    #[must_use]
    pub fn handler(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Helo => "helo",
            Self::MailFrom => "mail_from",
        }
    }
}

/// One call of `connect`, `helo` or `mail_from`.
#[derive(Debug, Clone)]
pub struct StageCall {
    pub stage: Stage,
    pub session: SessionFacts,
    /// The separator of the sender's subaddress; empty: none.
    pub subaddress: String,
    pub now: Timestamp,
    pub seed: Seed,
    pub reach: Lent,
}

/// What such a handler decided, and the notes as it left them.
#[derive(Debug, Clone)]
pub struct StageOutcome {
    pub verdict: StageVerdict,
    /// What `connect` lets the session do.
    pub limits: crate::mail::SessionLimits,
    pub notes: std::collections::BTreeMap<String, serde_json::Value>,
    pub log: Vec<outcome::LogLine>,
    pub reached: Vec<Reached>,
    pub usage: outcome::Usage,
}

#[derive(Debug, Clone, PartialEq)]
pub enum StageVerdict {
    Accept,
    Reject {
        reply: crate::mail::Reply,
        at: outcome::Place,
    },
    Defer {
        reply: crate::mail::Reply,
        at: outcome::Place,
    },
    /// The script failed: a 4xx, and this in the log (`file:line:column: …`).
    Failed {
        error: String,
    },
}

/// What `rcpt_to` decided, and the notes as it left them.
#[derive(Debug, Clone)]
pub struct RcptOutcome {
    pub verdict: RcptVerdict,
    pub notes: std::collections::BTreeMap<String, serde_json::Value>,
    pub log: Vec<outcome::LogLine>,
    pub reached: Vec<Reached>,
    pub usage: outcome::Usage,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RcptVerdict {
    Accept,
    Reject {
        reply: crate::mail::Reply,
        at: outcome::Place,
    },
    Defer {
        reply: crate::mail::Reply,
        at: outcome::Place,
    },
    Redirect {
        to: Address,
        at: outcome::Place,
    },
    /// The script failed: 451, and this in the log (`file:line:column: …`).
    Failed {
        error: String,
    },
}

/// Where a run reads its keys.
pub type KvView = Arc<dyn kv::View>;
