//! Why a route applies, and why one doesn't: in words, for traces and for whoever asks.

use super::{Conditions, Facts, Held, Route, found};
use crate::config::Config;
use crate::config::route::pattern::Candidate;
use crate::mail::Message;

impl Config {
    /// Of the routes that may be for this recipient, up to the one that stops, those that don't apply, and why.
    #[must_use]
    pub fn routes_passed_over(&self, facts: &Facts<'_>) -> Vec<String> {
        let mut told = Vec::new();
        if self.routes.is_empty() {
            return told;
        }
        for looked in self.looked_at(facts) {
            if looked.held == Held::Yes && looked.route.stop {
                break;
            }
            if looked.held != Held::Yes {
                let why = self.against(looked.route, facts);
                told.push(format!("route {} doesn't apply: {why}", looked.at + 1));
            }
        }
        told
    }

    fn against(&self, route: &Route, facts: &Facts<'_>) -> String {
        let key = facts.recipient.domain_key();
        let recipient = Candidate { address: facts.recipient, key: &key, domain: self.domain_by_key(&key) };
        if let Some(why) = route.when.against(facts, &recipient) {
            return why;
        }
        if facts.message.is_none() {
            return "whether its `unless` holds is known when the message is there".to_owned();
        }
        let except = route.unless.as_ref().map(|unless| unless.why(facts, self)).unwrap_or_default();
        format!("its `unless` holds ({except})")
    }
}

impl Conditions {
    /// What held, for the trace.
    pub(super) fn why(&self, facts: &Facts<'_>, config: &Config) -> String {
        let key = facts.recipient.domain_key();
        let recipient = Candidate { address: facts.recipient, key: &key, domain: config.domain_by_key(&key) };
        let mut words: Vec<String> = Vec::new();
        words.extend(self.recipients.iter().find(|one| recipient.matches(&one.pattern)).map(|one| one.text.clone()));
        let sender = self.senders.iter().find(|one| one.matches(facts.sender));
        words.extend(sender.map(|one| format!("sender {}", one.text)));
        words.extend(self.networks.iter().find(|one| one.contains(&facts.client.ip)).map(|one| format!("ip {one}")));
        words.extend(self.origin.why(facts.client.origin));
        if let Some(message) = facts.message {
            words.extend(self.author(message).map(|one| format!("from {}", one.text)));
            for (name, texts) in &self.headers {
                words.extend(found(message, name, texts).map(|text| format!("header {name}: {}", text.written)));
            }
        }
        words.extend(self.larger_than.map(|than| format!("larger than {than} octets")));
        words.extend(self.smaller_than.map(|than| format!("smaller than {than} octets")));
        if facts.message.is_some() {
            words.extend(self.auth.why(facts.auth));
        }
        words.join(", ")
    }

    /// The first of them that doesn't hold, or isn't known yet.
    fn against(&self, facts: &Facts<'_>, recipient: &Candidate<'_>) -> Option<String> {
        if !(self.recipients.is_empty() || self.recipients.iter().any(|one| recipient.matches(&one.pattern))) {
            return Some("it is for others".to_owned());
        }
        if !(self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&facts.client.ip))) {
            let networks: Vec<String> = self.networks.iter().map(ToString::to_string).collect();
            return Some(format!("the client {} is not in {}", facts.client.ip, networks.join(", ")));
        }
        if let Some(why) = self.origin.against(facts.client.origin) {
            return Some(why);
        }
        if !(self.senders.is_empty() || self.senders.iter().any(|one| one.matches(facts.sender))) {
            let sender = facts.sender.map_or("<>", |sender| sender.as_str());
            return Some(format!("the sender {sender} is not {}", texts(&self.senders, |one| &one.text)));
        }
        if !self.needs_the_message() {
            return None;
        }
        let Some(message) = facts.message else {
            return Some(format!("that is known when the message is there ({})", self.open()));
        };
        self.against_message(message).or_else(|| self.auth.against(facts.auth))
    }

    fn against_message(&self, message: &Message) -> Option<String> {
        let size = u64::try_from(message.raw().len()).unwrap_or(u64::MAX);
        if self.larger_than.is_some_and(|than| size <= than) || self.smaller_than.is_some_and(|than| size >= than) {
            return Some(format!("the message has {size} octets"));
        }
        if !self.authors.is_empty() && self.author(message).is_none() {
            return Some(format!("From is not {}", texts(&self.authors, |one| &one.text)));
        }
        let missing = self.headers.iter().find(|(name, texts)| found(message, name, texts).is_none());
        missing.map(|(name, wanted)| format!("no {name} has {}", texts(wanted, |one| &one.written)))
    }

    /// What needs the message.
    fn open(&self) -> String {
        let mut words: Vec<&str> = Vec::new();
        words.extend(Some("from").filter(|_| !self.authors.is_empty()));
        words.extend(Some("header").filter(|_| !self.headers.is_empty()));
        words.extend(Some("size").filter(|_| self.larger_than.or(self.smaller_than).is_some()));
        words.extend(Some("auth").filter(|_| !self.auth.is_empty()));
        words.join(", ")
    }
}

fn texts<T>(all: &[T], text: impl Fn(&T) -> &String) -> String {
    all.iter().map(|one| text(one).as_str()).collect::<Vec<_>>().join(" or ")
}
