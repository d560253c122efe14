//! RCPT: is this address ours, and does the worker want it?
//!
//! Standards: RFC 5321 §3.6 (relaying), §4.5.1 (postmaster), §3.3.

use std::sync::Arc;

use super::decide::{log_events, script_failed};
use super::{Intake, Visit};
use crate::clock;
use crate::config::{Config, RouteAction};
use crate::mail::{Address, Client, Recipient, Reply};
use crate::rules::{RcptCall, RcptOutcome, RcptVerdict, SessionFacts};
use crate::smtp::Answer;

impl Intake {
    pub(super) async fn rcpt_to(&self, visit: &mut Visit, client: &Client, recipient: Recipient) -> Answer {
        let answer = self.judge_recipient(visit, client, &recipient.address).await;
        if let Answer::Reply(reply) = &answer
            && !reply.is_positive()
        {
            self.refused(visit, client, "rcpt", visit.sender.as_ref(), Some(&recipient.address), reply);
        }
        answer
    }

    async fn judge_recipient(&self, visit: &mut Visit, client: &Client, address: &Address) -> Answer {
        let snapshot = Arc::clone(&visit.snapshot);
        let config = &snapshot.config;
        if address.domain().is_empty() {
            // RFC 5321 §4.5.1: <postmaster> without a domain is always ours.
            return if config.domains.is_empty() { not_ours(address) } else { Answer::Accept };
        }
        let Some(domain) = config.domain_for(address) else { return not_ours(address) };
        if is_postmaster(address) {
            return Answer::Accept;
        }
        if is_disguised(address) {
            return not_ours(address);
        }
        let route = config.route_for(address);
        match route.map(|(_, route)| &route.action) {
            Some(RouteAction::Reject { text }) => {
                return Answer::Reply(Reply::new(550, 7, 1, text.clone()));
            }
            Some(RouteAction::Worker { .. }) | None => {}
            Some(_) => return Answer::Accept,
        }
        let main = config.main_for(Some(domain), route.map(|(_, route)| route));
        if !snapshot.release.has(&main, "rcpt_to") {
            return Answer::Accept;
        }
        let call = RcptCall {
            main,
            session: SessionFacts {
                client: client.clone(),
                sender: visit.sender.clone(),
                notes: std::mem::take(&mut visit.notes),
            },
            recipient: address.clone(),
            subaddress: domain.subaddress.clone(),
            now: clock::now(),
        };
        let notes = call.session.notes.clone();
        if let Some(outcome) = self.run_rcpt(visit, call).await {
            self.rcpt_answer(visit, config, address, outcome)
        } else {
            visit.notes = notes;
            Answer::Reply(Reply::new(451, 3, 0, "Something failed here, try again later"))
        }
    }

    async fn run_rcpt(&self, visit: &Visit, call: RcptCall) -> Option<RcptOutcome> {
        let _permit = Arc::clone(&self.runs).acquire_owned().await.ok()?;
        let (release, kv) = (Arc::clone(&visit.snapshot.release), self.store.kv());
        tokio::task::spawn_blocking(move || release.rcpt_to(&call, &kv)).await.ok()
    }

    fn rcpt_answer(&self, visit: &mut Visit, config: &Config, address: &Address, outcome: RcptOutcome) -> Answer {
        visit.notes = outcome.notes;
        let now = clock::now();
        for event in log_events(now, Some(address), outcome.log) {
            self.bus.publish(event.in_session(visit.session));
        }
        match outcome.verdict {
            RcptVerdict::Accept => Answer::Accept,
            RcptVerdict::Reject { reply, .. } | RcptVerdict::Defer { reply, .. } => Answer::Reply(reply),
            RcptVerdict::Redirect { to, .. } if config.domain_for(&to).is_some() => Answer::Redirect(to),
            RcptVerdict::Redirect { to, at } => {
                let error =
                    format!("{at}: redirect({to}) leads to a domain that isn't configured: use forward in email");
                self.script_trouble(visit, address, error)
            }
            RcptVerdict::Failed { error } => self.script_trouble(visit, address, error),
        }
    }

    fn script_trouble(&self, visit: &Visit, address: &Address, error: String) -> Answer {
        let event = script_failed(clock::now(), Some(address), "rcpt_to", error).in_session(visit.session);
        self.store.log(event.clone());
        self.bus.publish(event);
        Answer::Reply(Reply::new(451, 3, 0, "The rules for this address failed, try again later"))
    }
}

pub(super) fn is_postmaster(address: &Address) -> bool {
    address.local().eq_ignore_ascii_case("postmaster") || address.local().eq_ignore_ascii_case("\"postmaster\"")
}

fn not_ours(address: &Address) -> Answer {
    let text = if address.domain().is_empty() {
        "Relaying denied".to_owned()
    } else {
        format!("Relaying denied: {} is none of our domains", address.domain())
    };
    Answer::Reply(Reply::new(550, 7, 1, text))
}

/// A route hidden in the local part: `user%elsewhere@ours`, `elsewhere!user@ours`, `"user@elsewhere"@ours`.
fn is_disguised(address: &Address) -> bool {
    address.local().contains(['%', '!', '@'])
}
