//! A message that was received before, judged once more: all of its recipients, with nothing done.
//!
//! As it came: its id, its time (the caller's clock is to say so), its client, its envelope. What sessions leave behind
//! nowhere is made again: the handlers before `email` run, so that `session.notes` are what they would be. The runs of one
//! message see each other's writes, as they did then.

use std::sync::Arc;
use std::time::Duration;

use super::{Foresight, Probe};
use crate::clock::Instant;
use crate::intake::decide::Case;
use crate::intake::round::Round;
use crate::intake::{Notes, Snapshot, headers};
use crate::mail::{Address, Client, Envelope, Message, MessageId, Recipient};
use crate::rules::{KvView, Lent, Seed, SessionFacts, Stage};

/// No judgement of one message takes as long: each run has its budget.
const EVER: Duration = Duration::from_hours(24);

/// What is known of it.
#[derive(Clone)]
pub struct Past {
    pub id: MessageId,
    pub envelope: Envelope,
    pub client: Client,
    pub message: Arc<Message>,
    /// What its workers draw ids from.
    pub seed: Seed,
    /// Whom they ask outside.
    pub reach: Lent,
}

/// Judges it by `snapshot` for each recipient of its envelope, in order, as it may be shown. Blocks, for workers run.
#[must_use]
pub fn again(snapshot: &Arc<Snapshot>, past: &Past, kv: &KvView) -> Vec<Foresight> {
    seen(snapshot, past, kv).into_iter().map(|one| one.shown(snapshot)).collect()
}

fn seen(snapshot: &Arc<Snapshot>, past: &Past, kv: &KvView) -> Vec<Foresight> {
    let recipients = &past.envelope.recipients;
    let Some(first) = recipients.first() else { return Vec::new() };
    let client = Client { helo: None, ..past.client.clone() };
    let mut facts = SessionFacts { client, sender: None, notes: Notes::new() };
    let mut session = Foresight::default();
    let mut probe = past.probe(named(first).clone());
    for stage in Stage::ALL {
        if let Some(reply) = session.stage(snapshot, stage, &probe, &mut facts, kv) {
            session.earlier = Some((stage, reply));
            return recipients.iter().map(|_| session.once_more()).collect();
        }
    }
    let (mut seen, mut accepted) = (Vec::with_capacity(recipients.len()), Vec::with_capacity(recipients.len()));
    for recipient in recipients {
        let mut foresight = Foresight { events: std::mem::take(&mut session.events), ..Foresight::default() };
        probe.recipient = named(recipient).clone();
        if foresight.rcpt_to(snapshot, &probe, &mut facts, kv) {
            let address = foresight.redirected.clone().unwrap_or_else(|| probe.recipient.clone());
            let original = foresight.redirected.is_some().then(|| probe.recipient.clone());
            accepted.push(Recipient { address, original, ..recipient.clone() });
        }
        seen.push(foresight);
    }
    judge(snapshot, past, (facts, accepted), kv, &mut seen);
    seen
}

/// As the client wrote it.
fn named(recipient: &Recipient) -> &Address {
    recipient.original.as_ref().unwrap_or(&recipient.address)
}

/// The message itself, for those whose RCPT was accepted.
fn judge(
    snapshot: &Arc<Snapshot>,
    past: &Past,
    (facts, recipients): (SessionFacts, Vec<Recipient>),
    kv: &KvView,
    seen: &mut [Foresight],
) {
    let accepted = seen.iter_mut().filter(|one| one.answer.as_ref().is_some_and(crate::mail::Reply::is_positive));
    let case = Case {
        id: past.id,
        received_at: past.id.timestamp(),
        snapshot: Arc::clone(snapshot),
        envelope: Envelope { recipients, ..past.envelope.clone() },
        facts: Arc::new(facts),
        message: Arc::new(Message::received_by(&snapshot.config.hostname, past.message.raw().clone())),
        seed: past.seed,
        told: None,
        is_judged_again: false,
    };
    if let Some(reply) = headers::refusal(&case) {
        accepted.for_each(|one| one.refused = Some(reply.clone()));
        return;
    }
    let mut round = Round::new(&case, Arc::clone(kv), past.reach.clone(), 1);
    let ever = Instant::now() + EVER;
    let _all_of_them = round.go_on(&case, ever, ever);
    for (one, judged) in accepted.zip(round.judged()) {
        one.judged = Some(judged);
    }
}

impl Past {
    fn probe(&self, recipient: Address) -> Probe {
        let (sender, client) = (self.envelope.sender.clone(), self.client.clone());
        Probe { recipient, sender, client, raw: self.message.raw().clone(), reach: self.reach.clone() }
    }
}

impl Foresight {
    /// What came before there was a recipient, for one more of them; its events are told once.
    fn once_more(&mut self) -> Self {
        Self {
            earlier: self.earlier.clone(),
            answered_at: self.answered_at.clone(),
            events: std::mem::take(&mut self.events),
            ..Self::default()
        }
    }
}
