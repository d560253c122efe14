//! What `[[route]]`s do with a message: each that applies, in order, before the worker or in its place.
//!
//! A route that doesn't stop adds to what comes after it; where that refuses, puts off or quarantines the message,
//! nothing of it is done.

use super::decide::{Case, Fate, Judged, loops, named, policy_on, webhook_target};
use super::forward;
use super::recipient::is_postmaster;
use crate::config::RouteAction;
use crate::config::route::{Facts, Taken, Whence};
use crate::mail::{Recipient, Reply};
use crate::store::{MessageOutcome, WebhookBody};

impl Case {
    /// What routes go by.
    pub(super) fn route_facts<'a>(&'a self, recipient: &'a Recipient) -> Facts<'a> {
        Facts {
            recipient: &recipient.address,
            sender: self.envelope.sender.as_ref(),
            client: Whence::of(&self.facts.client),
            message: Some(&self.message),
            auth: self.facts.client.auth.as_deref(),
        }
    }

    /// Where routes are looked at, those that don't apply to this recipient, and why.
    pub(super) fn routes_passed_over(&self, recipient: &Recipient) -> Vec<String> {
        let config = &self.snapshot.config;
        let is_before = is_postmaster(&recipient.address)
            || loops(self, recipient).is_some()
            || config.domain_for(&recipient.address).is_none_or(|domain| policy_on(self, domain).is_some());
        if is_before { Vec::new() } else { config.routes_passed_over(&self.route_facts(recipient)) }
    }
}

impl Judged {
    /// Does what a route says; a worker's is for the worker.
    pub(super) fn by_route(&mut self, case: &Case, taken: &Taken<'_>) {
        let config = &case.snapshot.config;
        let (verdict, effects) = match &taken.route.action {
            // RFC 7208 §8.6: what a DNS that doesn't answer is the reason for is no refusal for good.
            RouteAction::Drop | RouteAction::Reject { .. } if taken.is_doubtful => {
                let text = "Who sends this could not be looked up, try again later";
                self.fate = Fate::Defer(Reply::new(451, 4, 3, text));
                ("defer".to_owned(), Vec::new())
            }
            RouteAction::Forward { to, headers } => {
                for target in to {
                    self.forward(case, &forward::target(config, target), headers);
                }
                ("accept".to_owned(), to.iter().map(|to| format!("forward to {to}")).collect())
            }
            RouteAction::Webhook { to } => {
                for target in to {
                    self.webhook(case, &webhook_target(config, target), "POST", &[], WebhookBody::Message);
                }
                ("accept".to_owned(), to.iter().map(|to| format!("webhook to {}", named(config, to))).collect())
            }
            RouteAction::Drop => {
                self.let_go();
                ("drop".to_owned(), Vec::new())
            }
            RouteAction::Reject { text } => {
                self.fate = Fate::Reject(Reply::new(550, 7, 1, text.clone()));
                ("reject".to_owned(), Vec::new())
            }
            RouteAction::Quarantine { reason } => {
                self.outcome = MessageOutcome::Quarantined;
                (format!("quarantine ({reason})"), Vec::new())
            }
            RouteAction::Store => {
                self.outcome = MessageOutcome::Stored;
                ("store".to_owned(), Vec::new())
            }
            RouteAction::Tag | RouteAction::Worker { .. } => (String::new(), Vec::new()),
        };
        self.settle();
        if taken.route.stop {
            self.decided_with_tags(case, &taken.to_string(), &verdict, effects, &taken.route.tags);
        } else {
            let then =
                if verdict.is_empty() { "continue".to_owned() } else { format!("continue ({verdict}, and go on)") };
            self.decided_with_tags(case, &taken.to_string(), &then, effects, &taken.route.tags);
        }
    }

    /// Forgotten, unless a route before keeps it.
    pub(super) fn let_go(&mut self) {
        if self.outcome != MessageOutcome::Stored {
            self.outcome = MessageOutcome::Dropped;
        }
    }

    /// After the last route or the worker: nothing goes out of what is refused, put off or kept back, and what goes out
    /// beside a `store` or `drop` makes the message an accepted one.
    pub(super) fn settle(&mut self) {
        let kept_back = self.fate != Fate::Accept || self.outcome == MessageOutcome::Quarantined;
        if kept_back {
            self.deliveries.clear();
        } else if !self.deliveries.is_empty() {
            self.outcome = MessageOutcome::Accepted;
        }
    }
}
