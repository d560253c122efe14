//! Where mail for an address would go, and why: the answers up to RCPT's and the message's fate, with nothing done.
//!
//! The same judgement as for real mail (`stages`, `recipient`, `decide`), by a snapshot and keys that are only read. Blocks, for a
//! worker runs.

mod happens;
mod past;
mod rehearsal;

pub use happens::{on_end, on_time, told_on_time};
pub use past::{Past, again};
pub use rehearsal::{Rehearsal, Why};

use std::sync::Arc;

use bytes::Bytes;

use super::decide::{self, Case, Judged, log_events, reached_events, script_failed};
use super::recipient::{Standing, answer_of, passed_over, reason, rules_failed, standing};
use super::stages::{stage_call, stage_reply};
use super::{Notes, Snapshot, headers};
use crate::clock;
use crate::config::route::Whence;
use crate::event::Event;
use crate::mail::{Address, Client, Envelope, Message, Recipient, Reply};
use crate::rules::outcome::Place;
use crate::rules::{KvView, Lent, Outcome, RcptCall, RcptVerdict, Seed, SessionFacts, Stage, StageCall, StageVerdict};
use crate::smtp::Answer;

/// The mail that is asked about.
#[derive(Debug, Clone)]
pub struct Probe {
    pub recipient: Address,
    /// `None`: the null sender.
    pub sender: Option<Address>,
    /// With what it calls itself.
    pub client: Client,
    pub raw: Bytes,
    /// Whom the rules ask outside: all that they ask are reads.
    pub reach: Lent,
}

/// What would become of it.
#[derive(Debug, Default)]
pub struct Foresight {
    /// What it is refused with before there is a recipient, and where.
    pub earlier: Option<(Stage, Reply)>,
    /// Who took the recipient or didn't, in words.
    pub reason: Option<String>,
    /// The routes that don't apply, and why, as far as it came.
    pub passed_over: Vec<String>,
    /// Of RCPT; `None` where it wouldn't come to that.
    pub answer: Option<Reply>,
    /// The line of a handler that settled either.
    pub answered_at: Option<Place>,
    /// Where RCPT was led on to.
    pub redirected: Option<Address>,
    /// What the handlers before `email` had to say.
    pub events: Vec<Event>,
    /// Of the message; `None` where it wouldn't come to that.
    pub judged: Option<Judged>,
    /// What the worker's `email` came to, where it was asked.
    pub outcome: Option<Outcome>,
    /// The message is refused whoever it is for: it loops.
    pub refused: Option<Reply>,
}

/// Judges `probe` by `snapshot`; keys come from `kv`.
#[must_use]
pub fn foresee(snapshot: &Arc<Snapshot>, probe: Probe, kv: &KvView) -> Foresight {
    let mut foresight = Foresight::default();
    let client = Client { helo: None, ..probe.client.clone() };
    let mut facts = SessionFacts { client, sender: None, notes: Notes::new() };
    for stage in Stage::ALL {
        if let Some(reply) = foresight.stage(snapshot, stage, &probe, &mut facts, kv) {
            foresight.earlier = Some((stage, reply));
            return foresight;
        }
    }
    let parties = (&probe.recipient, probe.sender.as_ref());
    foresight.passed_over = passed_over(&snapshot.config, parties, Whence::of(&probe.client));
    if foresight.rcpt_to(snapshot, &probe, &mut facts, kv) {
        foresight.message(snapshot, probe, facts, kv);
    }
    foresight
}

impl Foresight {
    /// The refusal before there is a recipient, if there is one.
    fn stage(
        &mut self,
        snapshot: &Snapshot,
        stage: Stage,
        probe: &Probe,
        facts: &mut SessionFacts,
        kv: &KvView,
    ) -> Option<Reply> {
        match stage {
            Stage::Connect => {}
            Stage::Helo => facts.client.helo.clone_from(&probe.client.helo),
            Stage::MailFrom => facts.sender.clone_from(&probe.sender),
        }
        if !snapshot.release.asks(stage) {
            return None;
        }
        let call =
            StageCall { reach: probe.reach.clone(), ..stage_call(snapshot, stage, facts.clone(), Seed::default()) };
        let outcome = snapshot.release.stage(&call, kv);
        facts.notes = outcome.notes;
        self.events.extend(reached_events(call.now, None, outcome.reached));
        self.events.extend(log_events(call.now, None, outcome.log));
        if let StageVerdict::Failed { error } = &outcome.verdict {
            self.events.push(script_failed(&snapshot.release, call.now, None, stage.handler(), error.clone()));
        }
        if let StageVerdict::Reject { at, .. } | StageVerdict::Defer { at, .. } = &outcome.verdict {
            self.answered_at = Some(at.clone());
        }
        stage_reply(stage, &outcome.verdict)
    }

    /// Whether it comes to a message.
    fn rcpt_to(&mut self, snapshot: &Snapshot, probe: &Probe, facts: &mut SessionFacts, kv: &KvView) -> bool {
        let now = clock::now();
        let rules = snapshot.rules_for(probe.sender.as_ref(), &probe.recipient);
        let parties = (&probe.recipient, probe.sender.as_ref());
        self.reason = Some(reason(snapshot, rules, parties, Whence::of(&probe.client)));
        let answer = match standing(snapshot, rules, parties, Whence::of(&probe.client)) {
            Standing::Answered(answer) => answer,
            Standing::Asks { domain, main } => {
                let (session, recipient) = (facts.clone(), probe.recipient.clone());
                let (subaddress, seed) = (domain.subaddress.clone(), Seed::default());
                let reach = probe.reach.clone();
                let call = RcptCall { main, session, recipient, subaddress, now, seed, reach };
                let outcome = rules.rcpt_to(&call, kv);
                facts.notes = outcome.notes;
                self.answered_at = place(&outcome.verdict);
                self.events.extend(reached_events(now, Some(&probe.recipient), outcome.reached));
                self.events.extend(log_events(now, Some(&probe.recipient), outcome.log));
                answer_of(&snapshot.config, outcome.verdict).unwrap_or_else(|error| {
                    self.events.push(script_failed(rules, now, Some(&probe.recipient), "rcpt_to", error));
                    rules_failed()
                })
            }
        };
        if let Answer::Redirect(to) = &answer {
            self.redirected = Some(to.clone());
        }
        let answer = match answer {
            Answer::Reply(reply) => reply,
            _ => Reply::new(250, 1, 5, "Recipient ok"),
        };
        self.answer.insert(answer).is_positive()
    }

    fn message(&mut self, snapshot: &Arc<Snapshot>, probe: Probe, facts: SessionFacts, kv: &KvView) {
        let now = clock::now();
        let recipient = match self.redirected.clone() {
            Some(address) => Recipient { original: Some(probe.recipient), ..Recipient::new(address) },
            None => Recipient::new(probe.recipient),
        };
        let envelope = Envelope { sender: probe.sender, recipients: vec![recipient.clone()], ..Envelope::default() };
        let case = Case {
            id: clock::message_id(now),
            received_at: now,
            snapshot: Arc::clone(snapshot),
            envelope,
            facts: Arc::new(facts),
            message: Arc::new(Message::received_by(&snapshot.config.hostname, probe.raw)),
            seed: Seed::default(),
            told: None,
            is_judged_again: false,
        };
        self.refused = headers::refusal(&case);
        if self.refused.is_none() {
            self.passed_over = case.routes_passed_over(&recipient);
            let (judged, outcome) = decide::decide_telling(&case, &recipient, kv, &probe.reach);
            (self.judged, self.outcome) = (Some(judged), outcome);
        }
    }
}

impl Foresight {
    /// As it may be shown: the answers without the values of secrets, which whoever sends such a mail would read.
    #[must_use]
    pub fn shown(mut self, snapshot: &Snapshot) -> Self {
        let fate = self.judged.as_mut().and_then(|judged| match &mut judged.fate {
            decide::Fate::Accept => None,
            decide::Fate::Reject(reply) | decide::Fate::Defer(reply) => Some(reply),
        });
        let earlier = self.earlier.as_mut().map(|(_, reply)| reply);
        for reply in [fate, earlier, self.answer.as_mut(), self.refused.as_mut()].into_iter().flatten() {
            *reply = snapshot.shown(reply);
        }
        self
    }
}

fn place(verdict: &RcptVerdict) -> Option<Place> {
    match verdict {
        RcptVerdict::Reject { at, .. } | RcptVerdict::Defer { at, .. } | RcptVerdict::Redirect { at, .. } => {
            Some(at.clone())
        }
        RcptVerdict::Accept | RcptVerdict::Failed { .. } => None,
    }
}
