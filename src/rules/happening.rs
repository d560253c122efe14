//! Handlers that are about no message on its way in: `delivered`, `failed`, `scheduled`.
//!
//! What a run asks for comes back as data; one that fails has asked for nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rhai::Dynamic;

use super::api::context::ContextView;
use super::api::env::EnvView;
use super::api::run::{Handler, Run, Start};
use super::api::value;
use super::outcome::{Effect, LogLine, Place, Usage};
use super::{KvView, Lent, Reached, Release, Seed};
use crate::kv;
use crate::mail::Timestamp;

/// What happens, each with its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// A forward, a mail of the worker's or a webhook has come to where it was to go.
    Delivered,
    /// It was given up.
    Failed,
    /// It is time, by the configuration's `[triggers]`.
    Scheduled,
}

impl Happening {
    /// What its handler is called.
    #[must_use]
    pub fn handler(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Scheduled => "scheduled",
        }
    }
}

/// One call of such a handler.
#[derive(Debug, Clone)]
pub struct HappeningCall {
    pub happening: Happening,
    pub main: String,
    /// The separator of subaddresses; empty: none.
    pub subaddress: String,
    /// Its fields, as the handler reads them.
    pub event: serde_json::Value,
    pub now: Timestamp,
    pub seed: Seed,
    /// Nobody, where the handler may not ask outside.
    pub reach: Lent,
}

/// What it came to.
#[derive(Debug, Clone)]
pub struct HappeningOutcome {
    /// An error begins with `file:line:column:`.
    pub result: Result<(), String>,
    /// In the order asked for; empty where it failed, as writes are.
    pub effects: Vec<(Effect, Place)>,
    /// To be checked when the outcome commits.
    pub reads: Vec<kv::Read>,
    pub writes: Vec<kv::Write>,
    pub writes_at: Vec<Place>,
    pub log: Vec<LogLine>,
    pub reached: Vec<Reached>,
    pub usage: Usage,
}

impl Release {
    /// Whether any worker has a handler for it.
    #[must_use]
    pub fn hears(&self, happening: Happening) -> bool {
        self.workers.values().any(|worker| worker.entry(happening.handler()).is_some())
    }

    /// Runs the handler. Blocks for as long as the budget allows: call it where blocking is allowed.
    #[must_use]
    pub fn happening(&self, call: &HappeningCall, kv: &KvView) -> HappeningOutcome {
        let run = Arc::new(Run::new(&Start {
            main: &call.main,
            handler: Handler::Happening(call.happening),
            subaddress: &call.subaddress,
            now: call.now,
            seed: call.seed,
            environment: &self.environment,
            kv,
            reach: &call.reach,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            notes: &std::collections::BTreeMap::new(),
        }));
        let arguments = [
            value::from_json(&call.event),
            Dynamic::from(EnvView::new(Arc::clone(&run))),
            Dynamic::from(ContextView::new(Arc::clone(&run), None)),
        ];
        let (mut state, ended) = self.run(None, &run, call.happening.handler(), arguments);
        if ended.result.is_err() {
            state.effects.clear();
            state.kv.writes.clear();
            state.kv.writes_at.clear();
        }
        HappeningOutcome {
            result: ended.result,
            effects: state.effects,
            reads: state.kv.reads,
            writes: state.kv.writes,
            writes_at: state.kv.writes_at,
            log: state.log,
            reached: state.reached,
            usage: ended.usage,
        }
    }
}
