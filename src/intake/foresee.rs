//! Where mail for an address would go, and why: RCPT's answer and the message's fate, with nothing done.
//!
//! The same judgement as for real mail (`recipient`, `decide`), by a snapshot and keys that are only read. Blocks, for a
//! worker runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;

use super::decide::{self, Case, Judged, log_events, script_failed};
use super::recipient::{Standing, answer_of, rules_failed, standing};
use super::{Snapshot, headers};
use crate::clock;
use crate::event::Event;
use crate::mail::{Address, Client, Envelope, Message, Recipient, Reply};
use crate::rules::{KvView, RcptCall, SessionFacts};
use crate::smtp::Answer;

/// The mail that is asked about.
#[derive(Debug, Clone)]
pub struct Probe {
    pub recipient: Address,
    /// `None`: the null sender.
    pub sender: Option<Address>,
    pub ip: IpAddr,
    pub raw: Bytes,
}

/// What would become of it.
#[derive(Debug)]
pub struct Foresight {
    /// Of RCPT.
    pub answer: Reply,
    /// Where RCPT was led on to.
    pub redirected: Option<Address>,
    /// What `rcpt_to` had to say.
    pub events: Vec<Event>,
    /// Of the message; `None` where it wouldn't come to that.
    pub judged: Option<Judged>,
    /// The message is refused whoever it is for: it loops.
    pub refused: Option<Reply>,
}

/// Judges `probe` by `snapshot`; keys come from `kv`.
#[must_use]
pub fn foresee(snapshot: &Arc<Snapshot>, probe: Probe, kv: &KvView) -> Foresight {
    let now = clock::now();
    let client = Client {
        ip: probe.ip,
        port: 0,
        listener: SocketAddr::new(probe.ip, 0).to_string(),
        helo: None,
        esmtp: true,
        tls: None,
        ptr: None,
    };
    let mut facts = SessionFacts { client, sender: probe.sender.clone(), notes: BTreeMap::new() };
    let mut events = Vec::new();
    let answer = match standing(snapshot, &probe.recipient) {
        Standing::Answered(answer) => answer,
        Standing::Asks { domain, main } => {
            let (session, recipient) = (facts.clone(), probe.recipient.clone());
            let call = RcptCall { main, session, recipient, subaddress: domain.subaddress.clone(), now };
            let outcome = snapshot.release.rcpt_to(&call, kv);
            facts.notes = outcome.notes;
            events.extend(log_events(now, Some(&probe.recipient), outcome.log));
            answer_of(&snapshot.config, outcome.verdict).unwrap_or_else(|error| {
                events.push(script_failed(now, Some(&probe.recipient), "rcpt_to", error));
                rules_failed()
            })
        }
    };
    let redirected = if let Answer::Redirect(to) = &answer { Some(to.clone()) } else { None };
    let answer = match answer {
        Answer::Reply(reply) => reply,
        _ => Reply::new(250, 1, 5, "Recipient ok"),
    };
    let mut foresight = Foresight { answer, redirected, events, judged: None, refused: None };
    if !foresight.answer.is_positive() {
        return foresight;
    }
    let recipient = Recipient::new(foresight.redirected.clone().unwrap_or(probe.recipient));
    let envelope = Envelope { sender: probe.sender, recipients: vec![recipient.clone()], ..Envelope::default() };
    let case = Case {
        id: clock::message_id(now),
        received_at: now,
        snapshot: Arc::clone(snapshot),
        envelope,
        facts: Arc::new(facts),
        message: Arc::new(Message::new(probe.raw)),
    };
    foresight.refused = headers::refusal(&case);
    if foresight.refused.is_none() {
        foresight.judged = Some(decide::decide(&case, &recipient, kv, 1));
    }
    foresight
}
