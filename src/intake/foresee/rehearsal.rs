//! A whole session rehearsed: what each of its questions would be answered, and why. Nothing is kept, sent or written.
//!
//! The judgement is the one that mail gets (`stages`, `recipient`, `decide`, `combine`); who drives the session brings its
//! questions and says the answers. What one message would write the next one doesn't see.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::config::route::Whence;
use crate::event::Event;
use crate::intake::combine::{Combined, combine};
use crate::intake::decide::{Case, log_events, reached_events, script_failed};
use crate::intake::recipient::{Standing, answer_of, passed_over, reason, rules_failed, standing};
use crate::intake::round::Round;
use crate::intake::stages::{stage_call, stage_reply, welcome};
use crate::intake::{Notes, Snapshot, headers};
use crate::mail::{Address, Client, Message, Recipient, SessionLimits};
use crate::rules::{KvView, Lent, RcptCall, RcptVerdict, Seed, SessionFacts, Stage, StageCall, StageVerdict};
use crate::smtp::{Answer, Question, Transaction};
use crate::store::NewDelivery;

/// No judgement of one message takes as long: each run has its budget.
const EVER: Duration = Duration::from_hours(24);

/// One session's memory, as intake has it.
pub struct Rehearsal {
    snapshot: Arc<Snapshot>,
    kv: KvView,
    /// Whom the rules ask outside.
    reach: Lent,
    sender: Option<Address>,
    notes: Notes,
    greeted: Notes,
    connected: Notes,
}

/// Why it is answered so.
#[derive(Debug, Default)]
pub struct Why {
    /// In words, one line each.
    pub reasons: Vec<String>,
    /// What would stand in the log and the trace.
    pub events: Vec<Event>,
    /// What would be queued.
    pub deliveries: Vec<NewDelivery>,
}

impl Rehearsal {
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, kv: KvView, reach: Lent) -> Self {
        let (notes, greeted, connected) = (Notes::new(), Notes::new(), Notes::new());
        Self { snapshot, kv, reach, sender: None, notes, greeted, connected }
    }

    /// Answers a question of the session's. Blocks, for workers run.
    pub fn answer(&mut self, client: &Client, question: Question) -> (Answer, Why) {
        let mut why = Why::default();
        let answer = match question {
            Question::Connect => match self.stage(client, Stage::Connect, None, Notes::new(), &mut why) {
                Ok((notes, limits)) => {
                    self.connected = notes;
                    welcome(limits)
                }
                Err(answer) => answer,
            },
            Question::Helo { .. } => match self.stage(client, Stage::Helo, None, self.connected.clone(), &mut why) {
                Ok((notes, _)) => {
                    self.greeted = notes;
                    Answer::Accept
                }
                Err(answer) => answer,
            },
            Question::MailFrom { envelope, .. } => {
                let sender = envelope.sender;
                match self.stage(client, Stage::MailFrom, sender.as_ref(), self.greeted.clone(), &mut why) {
                    Ok((notes, _)) => {
                        (self.notes, self.sender) = (notes, sender);
                        Answer::Accept
                    }
                    Err(answer) => answer,
                }
            }
            Question::RcptTo { recipient } => self.rcpt_to(client, &recipient, &mut why),
            Question::Message(transaction) => self.message(client, *transaction, &mut why),
        };
        (answer, why)
    }

    fn stage(
        &self,
        client: &Client,
        stage: Stage,
        sender: Option<&Address>,
        notes: Notes,
        why: &mut Why,
    ) -> Result<(Notes, SessionLimits), Answer> {
        let handler = stage.handler();
        if !self.snapshot.release.asks(stage) {
            why.reasons.push(format!("no worker has {handler}"));
            return Ok((notes, SessionLimits::default()));
        }
        let facts = facts_of(client, sender, notes);
        let reach = self.reach.clone();
        let call = StageCall { reach, ..stage_call(&self.snapshot, stage, facts, Seed::default()) };
        let outcome = self.snapshot.release.stage(&call, &self.kv);
        why.events.extend(reached_events(call.now, None, outcome.reached));
        why.events.extend(log_events(call.now, None, outcome.log));
        why.reasons.push(match &outcome.verdict {
            StageVerdict::Accept if outcome.limits.is_none() => format!("{handler} has nothing against it"),
            StageVerdict::Accept => format!("{handler} has nothing against it, within limits: {}", outcome.limits),
            StageVerdict::Reject { at, .. } | StageVerdict::Defer { at, .. } => format!("{handler}, at {at}"),
            StageVerdict::Failed { .. } => format!("{handler} failed"),
        });
        if let StageVerdict::Failed { error } = &outcome.verdict {
            why.events.push(script_failed(&self.snapshot.release, call.now, None, handler, error.clone()));
        }
        match stage_reply(stage, &outcome.verdict) {
            None => Ok((outcome.notes, outcome.limits)),
            Some(reply) => Err(Answer::Reply(reply)),
        }
    }

    fn rcpt_to(&mut self, client: &Client, recipient: &Recipient, why: &mut Why) -> Answer {
        let (snapshot, address) = (Arc::clone(&self.snapshot), &recipient.address);
        let (parties, from) = ((address, self.sender.as_ref()), Whence::of(client));
        let rules = Arc::clone(snapshot.rules_for(self.sender.as_ref(), address));
        why.reasons.push(reason(&snapshot, &rules, parties, from));
        why.reasons.extend(passed_over(&snapshot.config, parties, from));
        let (domain, main) = match standing(&snapshot, &rules, parties, from) {
            Standing::Answered(answer) => return answer,
            Standing::Asks { domain, main } => (domain, main),
        };
        let session = facts_of(client, self.sender.as_ref(), self.notes.clone());
        let (subaddress, seed, now) = (domain.subaddress.clone(), Seed::default(), clock::now());
        let (recipient, reach) = (address.clone(), self.reach.clone());
        let call = RcptCall { main, session, recipient, subaddress, now, seed, reach };
        let outcome = rules.rcpt_to(&call, &self.kv);
        self.notes = outcome.notes;
        why.events.extend(reached_events(now, Some(address), outcome.reached));
        why.events.extend(log_events(now, Some(address), outcome.log));
        why.reasons.push(match &outcome.verdict {
            RcptVerdict::Accept => "rcpt_to has nothing against it".to_owned(),
            RcptVerdict::Reject { at, .. } | RcptVerdict::Defer { at, .. } => format!("rcpt_to, at {at}"),
            RcptVerdict::Redirect { to, at } => format!("rcpt_to leads it on to {to}, at {at}"),
            RcptVerdict::Failed { .. } => "rcpt_to failed".to_owned(),
        });
        answer_of(&snapshot.config, outcome.verdict).unwrap_or_else(|error| {
            why.events.push(script_failed(&rules, now, Some(address), "rcpt_to", error));
            rules_failed()
        })
    }

    fn message(&self, client: &Client, transaction: Transaction, why: &mut Why) -> Answer {
        let now = clock::now();
        let Transaction { envelope, body, prdr, .. } = transaction;
        let case = Case {
            id: clock::message_id(now),
            received_at: now,
            snapshot: Arc::clone(&self.snapshot),
            facts: Arc::new(facts_of(client, envelope.sender.as_ref(), self.notes.clone())),
            envelope,
            message: Arc::new(Message::received_by(&self.snapshot.config.hostname, body)),
            seed: Seed::default(),
            told: None,
            is_judged_again: false,
        };
        if let Some(reply) = headers::refusal(&case) {
            why.reasons.push(format!("more than [limits] hops = {} Received fields", self.snapshot.config.limits.hops));
            let replies = vec![reply.clone(); case.envelope.recipients.len()];
            return if prdr { Answer::Each { replies, last: reply } } else { Answer::Reply(reply) };
        }
        why.reasons.extend(case.envelope.recipients.iter().flat_map(|to| case.routes_passed_over(to)));
        let mut round = Round::new(&case, Arc::clone(&self.kv), self.reach.clone(), 1);
        let ever = Instant::now() + EVER;
        let _all_of_them = round.go_on(&case, ever, ever);
        let Combined { answer, deliveries, authored, events, .. } = combine(&case, round.judged(), prdr, now);
        why.events.extend(events);
        why.deliveries = deliveries;
        why.deliveries.extend(authored.into_iter().flat_map(|mail| mail.deliveries));
        answer
    }
}

fn facts_of(client: &Client, sender: Option<&Address>, notes: Notes) -> SessionFacts {
    SessionFacts { client: client.clone(), sender: sender.cloned(), notes }
}
