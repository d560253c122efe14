//! The world outside, for workers: HTTP for `fetch` and `ai`, and look-ups of DNS.
//!
//! Reads alone: what is to be done in the world is a delivery. Each request has a deadline, an answer of bounded size, and
//! goes only where `[fetch]` and `[egress]` let it; what is checked is the address that is connected to. How many are
//! under way, and what a run may ask at all, is whose run it is to bound. Must never: say a key or more of a URL than its
//! host in an error. Input: a [`Request`] of rules. Output: an [`Answer`], or [`Failed`].

mod http;
mod until;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::RootCertStore;
use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;

use crate::clock::Instant;
use crate::config::Config;
use crate::delivery::Network;
use crate::delivery::webhook::client::{Clients, SetupError};
use crate::dns::{Data, Dns, LookupError};
use crate::rules::reach::{Answer, Asked, Failed, Lent, Reach, Request};
use until::Until;

/// Who asks the world. One for each process.
pub struct Outside {
    clients: Clients,
    dns: Arc<Dns>,
}

impl Outside {
    /// `roots`: the authorities a certificate may come from; `None`: the public ones.
    ///
    /// # Errors
    /// [`SetupError`]
    pub fn new(dns: Arc<Dns>, roots: Option<Arc<RootCertStore>>, network: &Network) -> Result<Self, SetupError> {
        Ok(Self { clients: Clients::new(Arc::clone(&dns), roots, network)?, dns })
    }

    /// By the configuration's own resolver. Call it within a runtime.
    ///
    /// # Errors
    /// What the resolver or the clients say, in words.
    pub fn of(config: &Config) -> Result<Self, String> {
        let dns = Dns::new(&config.dns).map_err(|error| error.to_string())?;
        Self::new(Arc::new(dns), None, &Network::default()).map_err(|error| error.to_string())
    }

    /// # Errors
    /// [`Failed`]; after `within` it is one.
    pub async fn ask(&self, config: &Config, request: &Request, within: Duration) -> Result<Answer, Failed> {
        match request {
            Request::Fetch(fetch) => {
                let until = Until::of(fetch.timeout.unwrap_or(config.fetch.timeout), within);
                http::fetch(&self.clients, config, fetch, until).await
            }
            Request::Ai { body, most, .. } => {
                let ai = config.ai.as_ref().ok_or_else(|| limited("the configuration has no [ai]"))?;
                http::ai(&self.clients.named(), ai, body, *most, Until::of(ai.timeout, within)).await
            }
            Request::Dns { name, kind } => {
                let asked = tokio::time::timeout(within, self.dns.records(name, kind.name())).await;
                match asked {
                    Ok(Ok(found)) => Ok(Answer::Records(found.into_iter().map(as_json).collect())),
                    Ok(Err(LookupError::NoSuchName(_))) => Ok(Answer::Records(Vec::new())),
                    Ok(Err(error)) => Err(unanswered(error.to_string())),
                    Err(_) => Err(limited(format!("DNS gave no answer for {name} in {}", until::shown(within)))),
                }
            }
        }
    }
}

fn unanswered(why: impl Into<String>) -> Failed {
    Failed::Unanswered(why.into())
}

/// It wasn't asked, or not for as long as it may take.
fn limited(why: impl Into<String>) -> Failed {
    Failed::Limited(why.into())
}

fn as_json(data: Data) -> Json {
    match data {
        Data::Text(text) => text.into(),
        Data::Mx(mx) => json!({ "preference": mx.preference, "host": mx.host }),
        Data::Srv { priority, weight, port, target } => {
            json!({ "priority": priority, "weight": weight, "port": port, "target": target })
        }
    }
}

/// Asks one after the other, for a command that runs rules by itself. What it asks with is made when it is first asked.
pub struct Alone {
    config: Arc<Config>,
    ready: OnceLock<Result<(Outside, Runtime), String>>,
}

impl Alone {
    #[must_use]
    pub fn lent(config: &Arc<Config>) -> Lent {
        Lent::new(Arc::new(Self { config: Arc::clone(config), ready: OnceLock::new() }))
    }

    fn made(&self) -> Result<(Outside, Runtime), String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let within = runtime.enter();
        let outside = Outside::of(&self.config)?;
        drop(within);
        Ok((outside, runtime))
    }
}

/// Asks nobody: to a script, nobody answers.
pub struct Offline;

impl Reach for Offline {
    fn ask(&self, _request: &Request, _nth: usize, _within: Duration) -> Asked {
        Asked { result: Err(unanswered("--offline, so nobody is asked")), took: Duration::ZERO, kept: false }
    }
}

impl Reach for Alone {
    fn ask(&self, request: &Request, _nth: usize, within: Duration) -> Asked {
        let began = Instant::now();
        let result = match self.ready.get_or_init(|| self.made()) {
            Ok((outside, runtime)) => runtime.block_on(outside.ask(&self.config, request, within)),
            Err(why) => Err(Failed::Ends(why.clone())),
        };
        Asked { result, took: began.elapsed(), kept: false }
    }
}
