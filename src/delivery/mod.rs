//! Sending on: claims due deliveries and carries them out by relay, webhook, notice or a second decision.
//!
//! Input: [`crate::store::Delivery`]s, by claim. Output: [`crate::store::Settlement`]s. Each has one kind of result.
//! A dead or throttling destination holds up nobody else; what was claimed is settled before its outcome is believed.
//! It never runs rules by itself (that is [`Decide`]'s) and never tells a sender anything that SPF or DKIM don't vouch
//! for. Standards: RFC 5321 §4.5.4, §5; RFC 7505; RFC 3464; Standard Webhooks.

pub mod dispatcher;
pub mod egress;
pub mod notice;
pub mod payload;
pub mod relay;
pub mod retry;
pub mod route;
pub mod webhook;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::dns::Dns;
use crate::event::{Bus, Event};
use crate::kv;
use crate::mail::{MessageId, Reply};
use crate::store::{Body, DecideTask, NewDelivery, Store};

pub use dispatcher::Dispatcher;

/// What a dispatcher is made of.
#[derive(Clone)]
pub struct Parts {
    pub store: Store,
    /// Read anew for each attempt: a reload holds from the next one on.
    pub config: Arc<ArcSwap<Config>>,
    pub dns: Arc<Dns>,
    pub bus: Bus,
    pub decider: Arc<dyn Decide>,
    /// `dev`: everything goes to a sink instead of the world.
    pub capture: Option<Capture>,
    /// The authorities a certificate may come from; `None`: the public ones.
    pub roots: Option<Arc<rustls::RootCertStore>>,
}

/// Where `dev` sends everything.
#[derive(Debug, Clone)]
pub struct Capture {
    /// Takes every relay, whatever its recipient's MX.
    pub smtp: SocketAddr,
    /// Takes every webhook; where it should have gone stands in `X-Original-URL`.
    pub http: url::Url,
}

/// Runs the worker for one recipient whose first run failed. Intake is one.
pub trait Decide: Send + Sync {
    fn decide(&self, message: MessageId, body: Arc<Body>, task: DecideTask) -> Deciding<'_>;
}

pub type Deciding<'a> = Pin<Box<dyn Future<Output = Decided> + Send + 'a>>;

/// What a second run comes to.
#[derive(Debug)]
pub enum Decided {
    /// Commit this; the recipient is dealt with (a rejection is a `Task::Notice` among the deliveries).
    Done { deliveries: Vec<NewDelivery>, kv_reads: Vec<kv::Read>, kv_writes: Vec<kv::Write>, events: Vec<Event> },
    /// The run failed or deferred again: once more, by the schedule of `[relay]`.
    Later { error: String, events: Vec<Event> },
}

/// The one kind of failure that a delivery has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub retry: Retry,
    /// Who failed: the remote host, or we.
    pub side: Side,
    /// As in `5.1.1` (RFC 3463).
    pub status: String,
    /// What the remote said, if it said something.
    pub reply: Option<Reply>,
    /// Host, phase, limit: «read after MAIL FROM from mx1.example.net [192.0.2.1]:25: 300 s without an answer».
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    Later,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Remote,
    Network,
    Ours,
}

impl Failure {
    /// Something that may be otherwise the next time.
    #[must_use]
    pub fn later(side: Side, status: &str, detail: impl Into<String>) -> Self {
        Self { retry: Retry::Later, side, status: status.to_owned(), reply: None, detail: detail.into() }
    }

    /// Something that trying again doesn't mend.
    #[must_use]
    pub fn never(side: Side, status: &str, detail: impl Into<String>) -> Self {
        Self { retry: Retry::Never, side, status: status.to_owned(), reply: None, detail: detail.into() }
    }
}
