//! Routes: which mail each takes, and what it does with it, without a script.
//!
//! Pure. A route's conditions hold together; of several values of one condition any does. What needs the message isn't
//! known at RCPT, and is unknown there, not untrue. Routes apply in order; one that stops is the last one. What hinges on a
//! look-up that DNS didn't answer holds for nobody; an exception that does (`unless`) keeps nobody's mail out for good.

mod auth;
mod origin;
mod pattern;
mod table;
mod told;
mod written;

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

pub use auth::{Method, Proof, Written as WrittenProof};
pub use origin::{Country, Somewhere, System};
pub use pattern::{Match, Pattern, Sender, Text};
pub use table::Table;
pub use written::{ActionName, Conditions as WrittenConditions, Many, Route as Written};

use super::{Config, Domain};
use crate::mail::{Address, Authentication, Client, Message, Origin};
use pattern::Candidate;

/// Fields of one name that a condition looks at, and octets of each.
const MAX_FIELDS: usize = 100;
const MAX_VALUE: usize = 64 * 1024;

/// `[[route]]`
#[derive(Debug, Clone)]
pub struct Route {
    pub when: Conditions,
    /// It doesn't apply to what this holds for.
    pub unless: Option<Conditions>,
    pub action: RouteAction,
    /// Labels of the decision.
    pub tags: Vec<String>,
    /// Whether it is the last one that applies.
    pub stop: bool,
    pub enabled: bool,
}

#[derive(Debug, Clone)]
pub enum RouteAction {
    /// `main` where the route names one.
    Worker {
        main: Option<PathBuf>,
    },
    /// Addresses and destinations; fields that are put before the message.
    Forward {
        to: Vec<String>,
        headers: Vec<(String, String)>,
    },
    /// Bindings or URLs.
    Webhook {
        to: Vec<String>,
    },
    Store,
    Drop,
    Reject {
        text: String,
    },
    Quarantine {
        reason: String,
    },
    /// Its labels, and nothing else.
    Tag,
}

/// What must hold, all of it; what is empty always does.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    pub recipients: Vec<Match>,
    /// Of MAIL FROM.
    pub senders: Vec<Sender>,
    /// Of the From field.
    pub authors: Vec<Sender>,
    pub headers: Vec<(String, Vec<Text>)>,
    /// Octets.
    pub larger_than: Option<u64>,
    pub smaller_than: Option<u64>,
    pub networks: Vec<IpNet>,
    /// Of the client.
    pub origin: Somewhere,
    /// Of who sent it.
    pub auth: Proof,
}

/// What is known of a message, or of a recipient before there is one.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub recipient: &'a Address,
    /// `None`: the null sender.
    pub sender: Option<&'a Address>,
    pub client: Whence<'a>,
    /// `None`: it hasn't come yet.
    pub message: Option<&'a Message>,
    /// What was found out about its sender; `None` where nobody looks into the client.
    pub auth: Option<&'a Authentication>,
}

/// Where a client connects from.
#[derive(Clone, Copy)]
pub struct Whence<'a> {
    pub ip: IpAddr,
    pub origin: &'a Origin,
}

impl<'a> Whence<'a> {
    #[must_use]
    pub fn of(client: &'a Client) -> Self {
        Self { ip: client.ip, origin: &client.origin }
    }
}

/// Whether conditions hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Yes,
    No,
    /// The message will tell; when it is there: DNS didn't.
    Unknown,
}

impl Held {
    fn when(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }

    fn and(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::No => Self::No,
            Self::Yes => other(),
            Self::Unknown if other() == Self::No => Self::No,
            Self::Unknown => Self::Unknown,
        }
    }
}

/// A route that applies.
pub struct Taken<'a> {
    /// Its place in the list, from 0.
    pub at: usize,
    pub route: &'a Route,
    /// What of its conditions held: `billing@example.com, header Subject: /invoice/`.
    pub why: String,
    /// It isn't known whether its exception holds, for DNS didn't answer: another time it might not apply.
    pub is_doubtful: bool,
}

impl std::fmt::Display for Taken<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "route {} ({})", self.at + 1, self.why)
    }
}

/// A route that may be for a recipient.
struct Looked<'a> {
    at: usize,
    route: &'a Route,
    held: Held,
    is_doubtful: bool,
}

/// What routes say of a recipient before there is a message.
pub enum AtRcpt<'a> {
    Refuse(&'a str),
    /// One takes it, or the message will tell.
    Accept,
    /// The worker's `rcpt_to` is asked: that of this route, else the domain's.
    Ask(Option<&'a Route>),
}

impl Config {
    /// The routes that apply, in order; a worker decides after them unless the last one stops.
    #[must_use]
    pub fn routes_for<'a>(&'a self, facts: &Facts<'_>) -> Vec<Taken<'a>> {
        let mut taken = Vec::new();
        if self.routes.is_empty() {
            return taken;
        }
        for Looked { at, route, held, is_doubtful } in self.looked_at(facts) {
            if held == Held::Yes {
                let mut why = route.when.why(facts, self);
                if is_doubtful {
                    why.push_str(", as far as is known: DNS did not answer for its `unless`");
                }
                taken.push(Taken { at, route, why, is_doubtful });
                if route.stop {
                    break;
                }
            }
        }
        taken
    }

    /// What routes say at RCPT: of those that need the message nothing is known yet, so that nobody is refused by a later
    /// one, and the worker is asked as if they weren't there.
    #[must_use]
    pub fn route_at_rcpt<'a>(&'a self, facts: &Facts<'_>) -> AtRcpt<'a> {
        if self.routes.is_empty() {
            return AtRcpt::Ask(None);
        }
        let mut open = false;
        for Looked { route, held, .. } in self.looked_at(facts) {
            match (held, &route.action) {
                (Held::Unknown, _) => open = true,
                (Held::Yes, RouteAction::Worker { .. }) => return AtRcpt::Ask(Some(route)),
                (Held::Yes, RouteAction::Reject { text }) if !open => return AtRcpt::Refuse(text),
                (Held::Yes, _) if route.stop => return AtRcpt::Accept,
                _ => {}
            }
        }
        AtRcpt::Ask(None)
    }

    /// The routes that may be for this recipient, each looked at when it is its turn.
    fn looked_at<'a>(&'a self, facts: &Facts<'_>) -> impl Iterator<Item = Looked<'a>> {
        let key = facts.recipient.domain_key();
        let domain = self.domain_by_key(&key);
        let candidates = self.index.routes(&self.routes).candidates(facts.recipient, &key, domain);
        let facts = *facts;
        candidates.into_iter().filter_map(move |at| {
            let at = at as usize;
            let route = self.routes.get(at)?;
            let recipient = Candidate { address: facts.recipient, key: &key, domain };
            let when = route.when.hold(&facts, &recipient);
            let free = || route.unless.as_ref().map_or(Held::Yes, |unless| unless.hold(&facts, &recipient).not());
            if facts.message.is_none() {
                return Some(Looked { at, route, held: when.and(free), is_doubtful: false });
            }
            let free = if when == Held::Yes { free() } else { Held::No };
            Some(Looked { at, route, held: Held::when(free != Held::No), is_doubtful: free == Held::Unknown })
        })
    }
}

impl Conditions {
    /// Whether it says nothing but for whom.
    #[must_use]
    pub fn is_by_recipient_alone(&self) -> bool {
        let Self { recipients: _, senders, authors, headers, larger_than, smaller_than, networks, origin, auth } = self;
        let texts = senders.is_empty() && authors.is_empty() && headers.is_empty() && auth.is_empty();
        texts && larger_than.is_none() && smaller_than.is_none() && networks.is_empty() && origin.is_empty()
    }

    fn hold(&self, facts: &Facts<'_>, recipient: &Candidate<'_>) -> Held {
        let for_whom = self.recipients.is_empty() || self.recipients.iter().any(|one| recipient.matches(&one.pattern));
        let Whence { ip, origin } = facts.client;
        let in_network = self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&ip));
        let from_where = in_network && self.origin.holds(origin);
        let by_whom = || self.senders.is_empty() || self.senders.iter().any(|one| one.matches(facts.sender));
        if !(for_whom && from_where && by_whom()) {
            return Held::No;
        }
        if !self.needs_the_message() {
            return Held::Yes;
        }
        facts
            .message
            .map_or(Held::Unknown, |message| Held::when(self.hold_for(message)).and(|| self.auth.held(facts.auth)))
    }

    fn needs_the_message(&self) -> bool {
        let by_size = self.larger_than.or(self.smaller_than).is_some();
        by_size || !self.authors.is_empty() || !self.headers.is_empty() || !self.auth.is_empty()
    }

    fn hold_for(&self, message: &Message) -> bool {
        let size = u64::try_from(message.raw().len()).unwrap_or(u64::MAX);
        self.larger_than.is_none_or(|than| size > than)
            && self.smaller_than.is_none_or(|than| size < than)
            && (self.authors.is_empty() || self.author(message).is_some())
            && self.headers.iter().all(|(name, texts)| found(message, name, texts).is_some())
    }

    fn author(&self, message: &Message) -> Option<&Sender> {
        let authors = message.addresses("From");
        let mut authors = authors.iter().filter_map(|mailbox| Address::parse(mailbox.address.as_deref()?).ok());
        authors.find_map(|author| self.authors.iter().find(|one| one.matches(Some(&author))))
    }
}

/// The text that some field of that name has.
fn found<'t>(message: &Message, name: &str, texts: &'t [Text]) -> Option<&'t Text> {
    message.header_values(name).take(MAX_FIELDS).find_map(|value| {
        let value = Message::decode(value.get(..MAX_VALUE).unwrap_or(value));
        texts.iter().find(|text| text.is_in(&value))
    })
}

/// Whether a recipient's domain is one of these words' own: `*.example.com` is that of every subdomain.
fn same_domain(wanted: &str, key: &str) -> bool {
    match wanted.strip_prefix('*') {
        Some(suffix) => key.len() > suffix.len() && key.ends_with(suffix),
        None => wanted == key,
    }
}

/// By which a recipient is looked at.
impl Domain {
    fn separator(of: Option<&Self>) -> &str {
        of.map_or("", |domain| domain.subaddress.as_str())
    }
}
