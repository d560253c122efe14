//! Sending on: claims due deliveries and carries them out by relay, webhook, notice or a second decision.
//!
//! Input: [`crate::store::Delivery`]s, by claim. Output: [`crate::store::Settlement`]s. Each has one kind of result.
//! A dead or throttling destination holds up nobody else; what was claimed is settled before its outcome is believed.
//! It never runs rules by itself (that is [`Decide`]'s) and never tells a sender anything that SPF or DKIM don't vouch
//! for. Standards: RFC 5321 §4.5.4, §5; RFC 7505; RFC 3464; Standard Webhooks.

pub mod dispatcher;
pub mod egress;
pub mod network;
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
use crate::mail::{Address, Reply};
use crate::store::{Acceptance, Body, DecideTask, Decider, DeliveryKey, Keep, NewDelivery, Store, TellTask};

pub use dispatcher::Dispatcher;
pub use network::Network;

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
    pub network: Network,
}

/// Where `dev` sends everything.
#[derive(Debug, Clone)]
pub struct Capture {
    /// Takes every relay, whatever its recipient's MX.
    pub smtp: SocketAddr,
    /// Takes every webhook; where it should have gone stands in `X-Original-URL`.
    pub http: url::Url,
}

/// Runs workers: for one recipient whose first run failed, and where one is to hear how something ended. Intake is one.
pub trait Decide: Send + Sync {
    fn decide(&self, key: DeliveryKey, body: Arc<Body>, task: DecideTask) -> Deciding<'_>;

    /// Whether the worker that decided, or else that of the recipient, is to hear that something was delivered, or was given up.
    fn hears(&self, by: Option<&Decider>, recipient: &Address, delivered: bool) -> bool;

    /// Tells it.
    fn tell(&self, key: DeliveryKey, task: TellTask) -> Deciding<'_>;
}

pub type Deciding<'a> = Pin<Box<dyn Future<Output = Decided> + Send + 'a>>;

/// What a second run comes to.
#[derive(Debug)]
pub enum Decided {
    /// Commit this; the recipient is dealt with (a rejection is a `Task::Notice` among the deliveries).
    Done {
        deliveries: Vec<NewDelivery>,
        /// Mails that the worker wrote.
        authored: Vec<Acceptance>,
        /// What the message is by it, beside being sent.
        quarantined: bool,
        /// How it asks the message to be kept.
        keep: Option<Keep>,
        kv_reads: Vec<kv::Read>,
        kv_writes: Vec<kv::Write>,
        events: Vec<Event>,
    },
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

    /// The remote's own words, where it is the remote that refused the message. Not those about our login.
    #[must_use]
    pub fn speaker(&self) -> Option<&Reply> {
        self.reply.as_ref().filter(|_| self.side == Side::Remote)
    }

    /// What a notice may say of it. Where we send on to, how we are configured and what goes wrong here is for the log.
    #[must_use]
    pub fn told(&self) -> String {
        if let Some(reply) = self.speaker() {
            return reply.to_string();
        }
        let words = match self.status.split_once('.').map_or("", |(_class, rest)| rest) {
            "1.2" => "The domain that it goes to does not exist, or has no mail server",
            "1.10" => "The domain that it goes to takes no mail",
            "3.4" => "The message is too large for the mail server that it goes to",
            "4.1" => "The mail server that it goes to could not be reached",
            "4.2" => "The connection to the mail server that it goes to broke off",
            "4.3" => "The name service (DNS) gave no answer",
            "4.6" => "The message would go in a circle",
            "6.7" => "The mail server that it goes to takes no internationalised mail (SMTPUTF8)",
            "7.4" | "7.5" => "No secure connection to the mail server that it goes to could be made",
            _ => "A local fault of this mail server",
        };
        words.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outsider_hears_the_remote_and_nothing_of_ours() {
        let mut failure = Failure::never(Side::Remote, "5.1.1", "relay.lan [10.0.0.5]:25 answered RCPT TO with …");
        failure.reply = Some(Reply::new(550, 1, 1, "no such user"));
        assert_eq!(failure.told(), "550 5.1.1 no such user");
        failure.side = Side::Ours;
        assert_eq!((failure.told().as_str(), failure.speaker()), ("A local fault of this mail server", None));
        for (side, status, detail) in [
            (Side::Ours, "4.3.5", "no [[destination]] is named \"archive\" any more"),
            (Side::Ours, "5.4.4", "mx.lan is at 10.0.0.5, which is no public address and not in [egress] allow"),
            (Side::Network, "4.4.1", "connect to relay.lan [10.0.0.5]:25: refused"),
            (Side::Remote, "5.3.4", "relay.lan [10.0.0.5]:25 takes 10 octets, the message has 11"),
        ] {
            let told = Failure::later(side, status, detail).told();
            assert!(!told.contains("lan") && !told.contains("[["), "{told}");
        }
    }
}
