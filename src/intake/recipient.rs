//! RCPT: is this address ours, and does the worker want it?
//!
//! Standards: RFC 5321 §3.6 (relaying), §4.5.1 (postmaster), §3.3.

use std::fmt::Write as _;
use std::sync::Arc;

use super::canary::Handler;
use super::decide::{log_events, reached_events, script_failed};
use super::stages::Script;
use super::{Intake, Snapshot, Visit};
use crate::clock;
use crate::config::route::{AtRcpt, Facts, Whence};
use crate::config::{Config, Domain};
use crate::mail::{Address, Client, Recipient, Reply};
use crate::rules::{Lent, RcptCall, RcptOutcome, RcptVerdict, Release, SessionFacts};
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
        let rules = Arc::clone(snapshot.rules_for(visit.sender.as_ref(), address));
        let parties = (address, visit.sender.as_ref());
        let from = Whence { ip: client.ip, origin: &visit.origin };
        let (domain, main) = match standing(&snapshot, &rules, parties, from) {
            Standing::Answered(answer) => return answer,
            Standing::Asks { domain, main } => (domain, main),
        };
        let named = self.named(visit, client).await;
        let call = RcptCall {
            main,
            session: SessionFacts {
                client: named,
                sender: visit.sender.clone(),
                notes: std::mem::take(&mut visit.notes),
            },
            recipient: address.clone(),
            subaddress: domain.subaddress.clone(),
            now: clock::now(),
            seed: clock::seed(),
            reach: Lent::default(),
        };
        let notes = call.session.notes.clone();
        let script = Script {
            name: "rcpt_to",
            within: Release::rcpt_to_within,
            whole: Release::rcpt_to,
            lend: |call: &mut RcptCall, reach| call.reach = reach,
        };
        match self.run(visit, &rules, client.ip, call, script).await {
            Ok(outcome) => {
                snapshot.ran(Handler::RcptTo, &rules, matches!(outcome.verdict, RcptVerdict::Failed { .. }));
                self.rcpt_answer(visit, (&snapshot.config, &rules), address, outcome)
            }
            Err(reply) => {
                visit.notes = notes;
                Answer::Reply(reply)
            }
        }
    }

    fn rcpt_answer(
        &self,
        visit: &mut Visit,
        (config, rules): (&Config, &Release),
        address: &Address,
        outcome: RcptOutcome,
    ) -> Answer {
        visit.notes = outcome.notes;
        let now = clock::now();
        let told = reached_events(now, Some(address), outcome.reached);
        for event in told.into_iter().chain(log_events(now, Some(address), outcome.log)) {
            self.bus.publish(event.in_session(visit.session));
        }
        answer_of(config, outcome.verdict).unwrap_or_else(|error| {
            self.bus.publish(script_failed(rules, now, Some(address), "rcpt_to", error).in_session(visit.session));
            rules_failed()
        })
    }
}

/// What RCPT comes to before a worker is asked.
pub(super) enum Standing<'a> {
    Answered(Answer),
    /// The worker `main` of this domain has `rcpt_to`.
    Asks {
        domain: &'a Domain,
        main: String,
    },
}

pub(super) fn standing<'a>(
    snapshot: &'a Snapshot,
    rules: &Release,
    (address, sender): (&Address, Option<&Address>),
    client: Whence<'_>,
) -> Standing<'a> {
    let config = &snapshot.config;
    if address.domain().is_empty() {
        // RFC 5321 §4.5.1: <postmaster> without a domain is always ours.
        return Standing::Answered(if config.domains.is_empty() { not_ours(address) } else { Answer::Accept });
    }
    let Some(domain) = config.domain_for(address) else { return Standing::Answered(not_ours(address)) };
    if is_postmaster(address) {
        return Standing::Answered(Answer::Accept);
    }
    if is_disguised(address) {
        let text = format!("Relaying denied: {address} names another address within");
        return Standing::Answered(Answer::Reply(Reply::new(550, 7, 1, text)));
    }
    let route = match config.route_at_rcpt(&Facts { recipient: address, sender, client, message: None, auth: None }) {
        AtRcpt::Refuse(text) => return Standing::Answered(Answer::Reply(Reply::new(550, 7, 1, text.to_owned()))),
        AtRcpt::Accept => return Standing::Answered(Answer::Accept),
        AtRcpt::Ask(route) => route,
    };
    let main = config.main_for(Some(domain), route);
    if rules.has(&main, "rcpt_to") { Standing::Asks { domain, main } } else { Standing::Answered(Answer::Accept) }
}

/// The same as [`standing`], in words: which domain, routes and worker, and why.
pub(super) fn reason(
    snapshot: &Snapshot,
    rules: &Release,
    (address, sender): (&Address, Option<&Address>),
    client: Whence<'_>,
) -> String {
    let config = &snapshot.config;
    if address.domain().is_empty() {
        return "postmaster without a domain is always ours (RFC 5321 §4.5.1)".to_owned();
    }
    let Some(domain) = config.domain_for(address) else {
        return format!("no [[domain]] takes {}", address.domain());
    };
    let name = &domain.name;
    if is_postmaster(address) {
        return format!("[[domain]] {name}: its postmaster, {}, whatever routes and rules say", domain.postmaster);
    }
    if is_disguised(address) {
        return format!("[[domain]] {name}: another address is hidden in the local part");
    }
    let tag = address.local().split_once(domain.subaddress.as_str()).filter(|_| !domain.subaddress.is_empty());
    let tag = tag.map(|(base, tag)| format!(", {tag:?} of {base}@")).unwrap_or_default();
    let facts = Facts { recipient: address, sender, client, message: None, auth: None };
    let mut routes = String::new();
    for taken in config.routes_for(&facts) {
        let _infallible = write!(routes, ", {taken}");
    }
    let what = match config.route_at_rcpt(&facts) {
        AtRcpt::Refuse(_) => "a route refuses it".to_owned(),
        AtRcpt::Accept => "a route takes it".to_owned(),
        AtRcpt::Ask(route) => {
            let main = config.main_for(Some(domain), route);
            let asks = if rules.has(&main, "rcpt_to") { "its rcpt_to is asked" } else { "it has no rcpt_to" };
            format!("the worker {main}, {asks}")
        }
    };
    format!("[[domain]] {name}{tag}{routes}: {what}")
}

/// The routes that don't apply at RCPT, and why; what needs the message stands there as such.
pub(super) fn passed_over(
    config: &Config,
    (address, sender): (&Address, Option<&Address>),
    client: Whence<'_>,
) -> Vec<String> {
    if config.domain_for(address).is_none() || is_postmaster(address) || is_disguised(address) {
        return Vec::new();
    }
    config.routes_passed_over(&Facts { recipient: address, sender, client, message: None, auth: None })
}

/// A worker's verdict as an answer; `Err` is the script's failure, in words.
pub(super) fn answer_of(config: &Config, verdict: RcptVerdict) -> Result<Answer, String> {
    match verdict {
        RcptVerdict::Accept => Ok(Answer::Accept),
        RcptVerdict::Reject { reply, .. } | RcptVerdict::Defer { reply, .. } => Ok(Answer::Reply(reply)),
        RcptVerdict::Redirect { to, .. } if config.domain_for(&to).is_some() => Ok(Answer::Redirect(to)),
        RcptVerdict::Redirect { to, at } => {
            Err(format!("{at}: redirect({to}) leads to a domain that isn't configured: use forward in email"))
        }
        RcptVerdict::Failed { error } => Err(error),
    }
}

pub(super) fn rules_failed() -> Answer {
    Answer::Reply(Reply::new(451, 3, 0, "The rules for this address failed, try again later"))
}

pub(super) fn is_postmaster(address: &Address) -> bool {
    address.unquoted_local().eq_ignore_ascii_case("postmaster")
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
