//! Who has said what to whom, as those outside the server know it. It outlives every process of the server.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mailworker::event::{Event, Kind};
use mailworker::mail::MessageId;

use crate::pipe::Mark;
use crate::plan::Plan;
use crate::world::BEGINNING;

#[derive(Default)]
pub struct Ledger {
    /// By mail.
    pub mails: Vec<Sent>,
    /// By group: how often the end of a message was sent whose answer was never read.
    pub open_ends: Vec<u32>,
    pub takes: Vec<Take>,
    pub heard: Vec<Heard>,
    /// Recipients that a next hop has refused for good.
    pub refused: BTreeSet<String>,
    /// Endpoints that have said 410.
    pub gone: BTreeSet<usize>,
    pub deaths: Vec<u64>,
    /// When the server began to serve, and when it ceased.
    pub up: Vec<(u64, Option<u64>)>,
    /// How often the server has told that this is done: a message's recipient, a webhook's id.
    told: BTreeMap<String, usize>,
    /// What must not happen and was seen at once.
    pub violations: Vec<String>,
    pub attempts: u64,
    /// Sessions that ended without QUIT: in which time of the server's serving, which, and when.
    pub dropped: Vec<(usize, u64, u64)>,
    /// Messages that were told to be there already, and when.
    pub resent: Vec<(MessageId, u64)>,
}

/// Where one mail stands with its sender.
#[derive(Default)]
pub enum Sent {
    #[default]
    Waiting,
    Promised(Promise),
    /// For good.
    Refused,
}

/// A 250 that was read.
pub struct Promise {
    pub id: MessageId,
    /// Passed: the server has seen that it was read.
    pub went_on: Mark,
}

/// A message that a next hop has taken, for one recipient.
pub struct Take {
    pub recipient: String,
    pub id: Option<MessageId>,
    pub octets: Bytes,
    pub at: u64,
    /// Reached: the server has read the answer. None: it was never sent.
    pub answered: Option<Mark>,
    /// The server died or was stopped before it could note it.
    pub excused: bool,
}

/// A request that an endpoint has taken.
pub struct Heard {
    pub group: String,
    /// `webhook-id`
    pub id: String,
    pub answered: Option<Mark>,
    pub excused: bool,
}

impl Ledger {
    pub fn new(plan: &Plan) -> Self {
        let groups = plan.mails.iter().map(|mail| mail.group + 1).max().unwrap_or(0);
        let mails = plan.mails.iter().map(|_| Sent::Waiting).collect();
        Self { mails, open_ends: vec![0; groups], ..Self::default() }
    }

    pub fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// The mails of which the sender hasn't read how they ended.
    pub fn unsent(&self) -> Vec<usize> {
        (0..self.mails.len()).filter(|mail| matches!(self.mails[*mail], Sent::Waiting)).collect()
    }

    pub fn began(&mut self, now: u64) {
        self.up.push((now, None));
    }

    /// The server is no longer there: what it may have read and not noted may be done once more.
    pub fn ended(&mut self, now: u64) {
        if let Some((_, until)) = self.up.last_mut() {
            until.get_or_insert(now);
        }
        let told = |key: &str| self.told.get(key).copied().unwrap_or(0);
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        let mut is_excused = |key: String, answered: Option<&Mark>| {
            if !answered.is_some_and(Mark::is_reached) {
                return false;
            }
            let count = known.entry(key.clone()).or_default();
            *count += 1;
            *count > told(&key)
        };
        for take in &mut self.takes {
            take.excused |=
                take.id.is_none_or(|id| is_excused(format!("{id} {}", take.recipient), take.answered.as_ref()));
        }
        for heard in &mut self.heard {
            heard.excused |= is_excused(heard.id.clone(), heard.answered.as_ref());
        }
    }

    pub fn died(&mut self, now: u64) {
        self.deaths.push(now);
        self.ended(now);
    }

    /// Of the server's own telling.
    pub fn told(&mut self, event: &Event) {
        match (&event.kind, event.message) {
            (Kind::Attempted(attempted), Some(id)) => {
                self.attempts += 1;
                if attempted.outcome == "delivered" {
                    let key = match attempted.kind.as_str() {
                        "webhook" => format!("msg_{id}_{}", attempted.delivery),
                        _ => format!("{id} {}", attempted.target),
                    };
                    *self.told.entry(key).or_default() += 1;
                }
            }
            (Kind::Dropped { .. }, _) => {
                let at = u64::try_from(event.at.since(BEGINNING).as_millis()).unwrap();
                self.dropped.push((self.up.len(), event.session.unwrap(), at));
            }
            (Kind::Resent { original }, _) => {
                self.resent.push((*original, u64::try_from(event.at.since(BEGINNING).as_millis()).unwrap()));
            }
            (Kind::Fault { what, detail }, _) => {
                self.violation(format!("a fault of the server's own: {what}: {detail}"));
            }
            _ => {}
        }
    }
}
