//! Several recipients, one answer: what the sender reads, and what is committed.
//!
//! All reject: the first one's words. None accepts and some defer or fail: 451. Some accept: 250; a recipient whose
//! run failed is tried again by us, one that was rejected calls for a notice (RFC 3464), which `delivery` sends only
//! to a proved sender. A client that asked for PRDR gets one answer for each recipient.

use std::time::Duration;

use super::decide::{Case, Fate, Judged};
use crate::event::{Event, Kind};
use crate::kv;
use crate::mail::{Reply, Timestamp};
use crate::smtp::Answer;
use crate::store::{Acceptance, DecideTask, MessageOutcome, NewDelivery, NoticeTask, Task};

/// How long after a failed run the worker is tried again for that recipient.
const DECIDE_AGAIN: Duration = Duration::from_mins(1);

/// What one message comes to.
pub struct Combined {
    pub answer: Answer,
    pub outcome: MessageOutcome,
    pub deliveries: Vec<NewDelivery>,
    pub reads: Vec<kv::Read>,
    pub writes: Vec<kv::Write>,
    pub keep_until: Option<Timestamp>,
    pub mailbox: Option<String>,
    pub events: Vec<Event>,
    /// Mails that the workers wrote.
    pub authored: Vec<Acceptance>,
    /// Somebody was refused by an answer of its own (PRDR): the message isn't ours for all of its recipients.
    pub partial: bool,
}

/// Folds the recipients' fates into one.
pub fn combine(case: &Case, judged: Vec<Judged>, prdr: bool, now: Timestamp) -> Combined {
    let queued = Reply::new(250, 0, 0, format!("Queued as {}", case.id));
    let replies: Vec<Reply> = judged.iter().map(|one| reply_to(&one.fate, &queued)).collect();
    let accepted = judged.iter().any(|one| one.fate == Fate::Accept);
    let deferred = judged.iter().any(|one| matches!(one.fate, Fate::Defer(_)));
    let last = match (accepted, deferred) {
        (true, _) => queued,
        (false, true) => first(&replies, Reply::is_temporary),
        (false, false) => first(&replies, Reply::is_permanent),
    };
    let mut combined = Combined {
        answer: Answer::Accept,
        outcome: outcome(&judged, accepted, deferred),
        deliveries: Vec::new(),
        reads: Vec::new(),
        writes: Vec::new(),
        keep_until: None,
        mailbox: None,
        events: Vec::new(),
        authored: Vec::new(),
        partial: prdr && judged.iter().any(|one| one.fate != Fate::Accept),
    };
    for one in judged {
        combined.take(case, one, accepted, deferred, prdr, now);
    }
    let deliveries = u32::try_from(combined.deliveries.len()).unwrap_or(u32::MAX);
    combined.events.push(Event::new(
        now,
        match combined.outcome {
            MessageOutcome::Rejected => Kind::Rejected { reply: case.snapshot.shown(&last) },
            MessageOutcome::Deferred => Kind::Deferred { reply: case.snapshot.shown(&last) },
            _ => Kind::Accepted { reply: last.clone(), deliveries },
        },
    ));
    combined.answer = if prdr { Answer::Each { replies, last } } else { Answer::Reply(last) };
    combined
}

fn reply_to(fate: &Fate, queued: &Reply) -> Reply {
    match fate {
        Fate::Accept => queued.clone(),
        Fate::Reject(reply) | Fate::Defer(reply) => reply.clone(),
    }
}

fn first(replies: &[Reply], class: impl Fn(&Reply) -> bool) -> Reply {
    let found = replies.iter().find(|reply| class(reply)).cloned();
    found.unwrap_or_else(|| Reply::new(451, 3, 0, "Nothing could be decided, try again later"))
}

pub(super) fn outcome(judged: &[Judged], accepted: bool, deferred: bool) -> MessageOutcome {
    if !accepted {
        return if deferred { MessageOutcome::Deferred } else { MessageOutcome::Rejected };
    }
    let has = |wanted| judged.iter().any(|one| one.fate == Fate::Accept && one.outcome == wanted);
    [MessageOutcome::Quarantined, MessageOutcome::Accepted, MessageOutcome::Stored]
        .into_iter()
        .find(|wanted| has(*wanted))
        .unwrap_or(MessageOutcome::Dropped)
}

impl Combined {
    fn take(&mut self, case: &Case, one: Judged, accepted: bool, deferred: bool, prdr: bool, now: Timestamp) {
        self.events.extend(one.events);
        self.reads.extend(one.reads);
        // Ours to make up for; a recipient that was named twice is still one: tried again once, told of once.
        let ours_now = accepted && !prdr && !one.is_repeated;
        match one.fate {
            Fate::Accept => {
                self.writes.extend(one.writes);
                self.deliveries.extend(one.deliveries);
                self.authored.extend(one.authored);
                self.keep_until = self.keep_until.max(one.keep_until);
                self.mailbox = self.mailbox.take().or(one.mailbox);
            }
            Fate::Reject(reply) => {
                // Where the whole message is deferred it all happens again: nothing of this time stands.
                if accepted || !deferred {
                    self.writes.extend(one.writes);
                }
                if ours_now {
                    self.deliveries.push(notice(&one.recipient, &reply, now));
                }
            }
            Fate::Defer(_) => {
                if ours_now {
                    let task = Task::Decide(DecideTask { recipient: one.recipient, notes: case.facts.notes.clone() });
                    let due = now.plus(DECIDE_AGAIN);
                    self.deliveries.push(NewDelivery { task, destination: "decide".into(), due });
                }
            }
        }
    }
}

/// The sender read 250 for the whole, so it must hear of this recipient in another way.
#[must_use]
pub fn notice(recipient: &crate::mail::Recipient, reply: &Reply, now: Timestamp) -> NewDelivery {
    let task = Task::Notice(NoticeTask {
        action: "failed".into(),
        recipient: recipient.original.clone().unwrap_or_else(|| recipient.address.clone()),
        orcpt: recipient.orcpt.clone(),
        status: reply.enhanced().unwrap_or_else(|| "5.0.0".into()),
        diagnostic: reply.to_string(),
        remote: None,
    });
    NewDelivery { task, destination: "notice".into(), due: now }
}
