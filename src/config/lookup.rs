//! Who is asked for by name: the domain and the route of a recipient, webhooks, destinations, workers.
//!
//! Pure. Domains are found by hash: once for the name, once for each of its parents among the wildcards.
//! What is no domain of ours stays none in every disguise: a trailing dot and an address literal never match.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use super::route::{Pattern, Table};
use super::{Config, Destination, Domain, ListenAddress, Route, RouteAction, Webhook};
use crate::mail::Address;
use crate::mail::address::domain_key;

/// Domains by name, whether any of them demands TLS, routes by whom they are for: made when first asked; a copy makes its own.
#[derive(Default)]
pub struct Index {
    names: OnceLock<HashMap<String, usize>>,
    tls: OnceLock<bool>,
    routes: OnceLock<Table>,
}

impl Index {
    /// The table of these routes, which are the configuration's own.
    pub(super) fn routes(&self, routes: &[Route]) -> &Table {
        self.routes.get_or_init(|| Table::new(routes))
    }
}

impl Clone for Index {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Index")
    }
}

impl Config {
    /// The `[[domain]]` of an address: by its name, else by the nearest wildcard. `None`: not ours (or no domain at all).
    #[must_use]
    pub fn domain_for(&self, address: &Address) -> Option<&Domain> {
        self.domain_by_key(&address.domain_key())
    }

    /// As [`Config::domain_for`], for a name in A-labels and lower case.
    #[must_use]
    pub fn domain_by_key(&self, key: &str) -> Option<&Domain> {
        let names = self.index.names.get_or_init(|| {
            // The first of two that are the same is the one that counts; `check` refuses the second.
            self.domains.iter().enumerate().rev().map(|(at, domain)| (domain.name.clone(), at)).collect()
        });
        if let Some(at) = names.get(key).filter(|_| !key.starts_with('*')) {
            return self.domains.get(*at);
        }
        let mut rest = key;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(at) = names.get(&format!("*.{parent}")) {
                return self.domains.get(*at);
            }
            rest = parent;
        }
        None
    }

    /// Whether mail for this recipient is taken over TLS alone: by its domain's wish, but for the postmaster's, who is to
    /// be told of trouble with it, too.
    #[must_use]
    pub fn requires_tls(&self, recipient: &Address) -> bool {
        *self.index.tls.get_or_init(|| self.domains.iter().any(|domain| domain.require_tls))
            && !recipient.local().trim_matches('"').eq_ignore_ascii_case("postmaster")
            && self.domain_for(recipient).is_some_and(|domain| domain.require_tls)
    }

    /// The same text for the same mailbox, however it is written: case (where its domain doesn't tell them apart), quotes
    /// and the form of the domain.
    #[must_use]
    pub fn mailbox_key(&self, address: &Address) -> String {
        let key = address.domain_key();
        let exact = self.domain_by_key(&key).is_some_and(|domain| domain.case_sensitive);
        let local = address.unquoted_local();
        if exact { format!("{local}@{key}") } else { format!("{}@{key}", local.to_lowercase()) }
    }

    #[must_use]
    pub fn webhook(&self, binding: &str) -> Option<&Webhook> {
        self.webhooks.iter().find(|webhook| webhook.binding == binding)
    }

    /// The `[[webhook]]` of this very URL.
    #[must_use]
    pub fn webhook_at(&self, url: &url::Url) -> Option<&Webhook> {
        self.webhooks.iter().find(|webhook| webhook.url == *url)
    }

    #[must_use]
    pub fn destination(&self, name: &str) -> Option<&Destination> {
        self.destinations.iter().find(|destination| destination.name == name)
    }

    /// The worker for a recipient, as the configuration names it: the route's, else the domain's, else the top-level one.
    #[must_use]
    pub fn main_for(&self, domain: Option<&Domain>, route: Option<&Route>) -> String {
        let of_route = route.and_then(|route| match &route.action {
            RouteAction::Worker { main } => main.as_deref(),
            _ => None,
        });
        written(of_route.or_else(|| domain.and_then(|domain| domain.main.as_deref())).unwrap_or(&self.main))
    }

    /// The domains that each worker may write mail for: those it decides for. The top-level one is the admin's own, and
    /// one that a route names may get mail of any.
    #[must_use]
    pub fn senders(&self) -> std::collections::BTreeMap<String, Vec<String>> {
        let all = || self.domains.iter().map(|domain| domain.name.clone()).collect::<Vec<_>>();
        let own = |main: &str| {
            let domains = self.domains.iter().filter(|domain| self.main_for(Some(domain), None) == main);
            domains.map(|domain| domain.name.clone()).collect::<Vec<_>>()
        };
        let routed = |main: &str| {
            self.routes.iter().any(|route| {
            matches!(&route.action, super::RouteAction::Worker { main: Some(named) } if written(named) == main)
        })
        };
        let top = written(&self.main);
        let mains = self.rules_mains().into_iter();
        mains
            .map(|main| {
                let domains = if main == top || routed(&main) { all() } else { own(&main) };
                (main, domains)
            })
            .collect()
    }

    /// Every worker that is named anywhere, as written, each once, the top-level one first.
    #[must_use]
    pub fn rules_mains(&self) -> Vec<String> {
        let of_domains = self.domains.iter().filter_map(|domain| domain.main.as_deref());
        let of_routes = self.routes.iter().filter_map(|route| match &route.action {
            RouteAction::Worker { main } => main.as_deref(),
            _ => None,
        });
        let mut mains: Vec<String> = Vec::new();
        for main in std::iter::once(self.main.as_path()).chain(of_domains).chain(of_routes) {
            let main = written(main);
            if !mains.contains(&main) {
                mains.push(main);
            }
        }
        mains
    }

    /// The workers that mail goes to, each with whose mail that is: a route that takes all of a domain leaves its worker
    /// none.
    #[must_use]
    pub fn mail_mains(&self) -> Vec<(String, String)> {
        let mut mains: Vec<(String, String)> = Vec::new();
        let mut add = |main: String, whose: &str| {
            if !mains.iter().any(|(earlier, _)| *earlier == main) {
                mains.push((main, whose.to_owned()));
            }
        };
        for route in self.routes.iter().filter(|route| route.enabled) {
            if let RouteAction::Worker { main: Some(_) } = &route.action {
                let whose = route.when.recipients.first().map_or("a route", |one| one.text.as_str());
                add(self.main_for(None, Some(route)), whose);
            }
        }
        for domain in &self.domains {
            let takes_all = |route: &Route| {
                let when = &route.when;
                let of_all = when.recipients.iter().any(|one| match &one.pattern {
                    Pattern::Domain(name) => *name == domain.name,
                    pattern => matches!(pattern, Pattern::Anybody),
                });
                let always = of_all && when.is_by_recipient_alone() && route.unless.is_none();
                route.enabled && route.stop && always && !matches!(route.action, RouteAction::Worker { main: None })
            };
            if !self.routes.iter().any(takes_all) {
                add(self.main_for(Some(domain), None), &domain.name);
            }
        }
        mains
    }

    /// Whether a host's name is ours: the hostname, or a name of a loopback interface (RFC 5321 §5.1: no loops).
    #[must_use]
    pub fn is_local_host(&self, name: &str) -> bool {
        let key = domain_key(name.trim_end_matches('.'));
        key == self.hostname || key == "localhost" || key.ends_with(".localhost")
    }

    /// Whether a socket address is one that we listen on.
    #[must_use]
    pub fn listens_on(&self, address: std::net::SocketAddr) -> bool {
        self.listeners.iter().any(|listener| match &listener.address {
            ListenAddress::Socket(own) => {
                own.port() == address.port()
                    && (own.ip() == address.ip() || (own.ip().is_unspecified() && address.ip().is_loopback()))
            }
            ListenAddress::Systemd(_) => false,
        })
    }

    /// A path of the configuration, from the directory of the file it was read from.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> std::path::PathBuf {
        self.base_dir.join(path)
    }
}

fn written(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
