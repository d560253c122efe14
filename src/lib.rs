//! mailworker: a programmable inbound mail server.
//!
//! The life of a message, one type on each arrow, each made by exactly one stage:
//!
//! ```text
//! bytes ─► listener::connection ─► smtp::Session ─► Action::Ask(Question) ─► intake
//!    intake: Transaction            ─► Received { envelope, message, client }
//!            Received               ─► rules::Outcome, one for each recipient (no effects, effects are returned)
//!            Outcome                ─► store::Acceptance { body, deliveries, kv writes, events }
//!            store.accept           ─► MessageId                     ONE transaction, fsynced
//!            MessageId              ─► Reply 250                     only here
//! store.claim ─► Delivery ─► relay | webhook | notice | decide ─► Attempt ─► store.settle   ONE transaction
//! every stage ─► Event ─► log, metrics, tail
//! ```
//!
//! The modules stand in the order in which a message meets them.

pub mod admin;
pub mod app;
pub mod aside;
pub mod authenticate;
pub mod cli;
pub mod clock;
pub mod compose;
pub mod config;
pub mod delivery;
pub mod diagnostic;
pub mod dns;
pub mod event;
pub mod intake;
pub mod kv;
pub mod listener;
pub mod mail;
pub mod reach;
pub mod reload;
pub mod replay;
pub mod rules;
pub mod smtp;
pub mod store;
pub mod telemetry;
pub mod vault;
