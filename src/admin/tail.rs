//! Which events a tail shows. Pure.
//!
//! An address stands in few of a message's events, so a message that has matched is followed by its id.

use std::collections::{HashSet, VecDeque};

use super::api::TailFilter;
use crate::event::{Event, Kind};
use crate::mail::MessageId;

/// How many messages are followed at once; the oldest is forgotten first.
const FOLLOWED: usize = 4096;

/// One tail's filter, and what has matched so far.
#[derive(Debug)]
pub struct Follow {
    filter: TailFilter,
    followed: HashSet<MessageId>,
    order: VecDeque<MessageId>,
}

impl Follow {
    #[must_use]
    pub fn new(filter: TailFilter) -> Self {
        let lower = |text: Option<String>| text.map(|text| text.to_lowercase());
        let filter = TailFilter { recipient: lower(filter.recipient), sender: lower(filter.sender), ..filter };
        Self { filter, followed: HashSet::new(), order: VecDeque::new() }
    }

    /// Whether this event is shown.
    pub fn shows(&mut self, event: &Event) -> bool {
        let addressed = self.is_followed(event.message) || self.addresses(event);
        let wanted = self.filter.outcome.as_deref();
        addressed && wanted.is_none_or(|wanted| outcomes(&event.kind).contains(&wanted))
    }

    fn is_followed(&self, message: Option<MessageId>) -> bool {
        message.is_some_and(|id| self.followed.contains(&id))
    }

    fn addresses(&mut self, event: &Event) -> bool {
        if self.filter.sender.is_none() && self.filter.recipient.is_none() {
            return true;
        }
        let (senders, recipients) = event.kind.parties();
        let matched =
            has(self.filter.sender.as_deref(), &senders) && has(self.filter.recipient.as_deref(), &recipients);
        if matched && let Some(id) = event.message {
            self.follow(id);
        }
        matched
    }

    fn follow(&mut self, id: MessageId) {
        if self.followed.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > FOLLOWED
            && let Some(oldest) = self.order.pop_front()
        {
            self.followed.remove(&oldest);
        }
    }
}

fn has(wanted: Option<&str>, addresses: &[&str]) -> bool {
    wanted.is_none_or(|wanted| addresses.iter().any(|address| address.to_lowercase().contains(wanted)))
}

/// The outcomes that an event tells of, in the words of [`super::api::OUTCOMES`].
fn outcomes(kind: &Kind) -> Vec<&'static str> {
    match kind {
        Kind::Accepted { .. } => vec!["accepted"],
        Kind::Rejected { .. } => vec!["rejected"],
        Kind::Deferred { .. } => vec!["deferred"],
        Kind::Refused { reply, .. } => vec![if reply.is_permanent() { "rejected" } else { "deferred" }],
        Kind::Failed { .. } | Kind::ScriptFailed { .. } => vec!["failed"],
        Kind::Attempted(attempted) => match attempted.outcome.as_str() {
            "delivered" => vec!["delivered"],
            "later" => vec!["later"],
            _ => vec!["failed"],
        },
        Kind::Decided(decision) => match decision.word() {
            "reject" => vec!["rejected"],
            "defer" => vec!["deferred"],
            "drop" => vec!["dropped"],
            "store" => vec!["stored"],
            "quarantine" => vec!["quarantined"],
            "fail" => vec!["failed"],
            _ => vec!["accepted"],
        },
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Address, Reply, Timestamp};

    fn id(n: u128) -> MessageId {
        MessageId::new(Timestamp::from_millis(1), n)
    }

    fn log(recipient: &str) -> Kind {
        let recipient = Some(Address::parse(recipient).unwrap());
        Kind::ScriptLog { recipient, file: "rules/main.rhai".into(), line: 1, text: "hello".into() }
    }

    fn event(n: u128, kind: Kind) -> Event {
        Event::new(Timestamp::from_millis(1), kind).of(id(n))
    }

    fn accepted() -> Kind {
        Kind::Accepted { reply: Reply::new(250, 2, 0, "ok"), deliveries: 1 }
    }

    #[test]
    fn a_message_that_matched_by_recipient_is_followed() {
        let filter = TailFilter { recipient: Some("SUPPORT@".into()), ..TailFilter::default() };
        let mut follow = Follow::new(filter);
        assert!(follow.shows(&event(1, log("support@example.com"))));
        assert!(!follow.shows(&event(2, log("sales@example.com"))));
        assert!(follow.shows(&event(1, accepted())));
        assert!(!follow.shows(&event(2, accepted())));
    }

    #[test]
    fn an_outcome_narrows_to_the_events_that_tell_it() {
        let mut follow = Follow::new(TailFilter { outcome: Some("accepted".into()), ..TailFilter::default() });
        assert!(!follow.shows(&event(1, log("support@example.com"))));
        assert!(follow.shows(&event(1, accepted())));
    }

    #[test]
    fn the_null_sender_is_found_as_it_is_written() {
        let refused = |sender: &str| Kind::Refused {
            phase: "rcpt".into(),
            ip: [192, 0, 2, 1].into(),
            sender: Some(sender.to_owned()),
            recipient: None,
            reply: Reply::new(550, 7, 1, "no"),
        };
        let received = |sender: Option<&str>| Kind::Received {
            client: Box::new(crate::mail::Client {
                ip: [192, 0, 2, 1].into(),
                port: 1,
                listener: String::new(),
                helo: None,
                esmtp: false,
                tls: None,
                ptr: None,
                auth: None,
                origin: crate::mail::Origin::default(),
            }),
            sender: sender.map(|sender| Address::parse(sender).unwrap()),
            recipients: Vec::new(),
            size: 1,
            subject: None,
        };
        let mut follow = Follow::new(TailFilter { sender: Some("<>".into()), ..TailFilter::default() });
        assert!(follow.shows(&event(1, received(None))));
        assert!(follow.shows(&event(2, refused("<>"))));
        assert!(!follow.shows(&event(3, received(Some("ann@example.org")))));
        assert!(!follow.shows(&event(4, refused("ann@example.org"))));
    }

    #[test]
    fn what_is_followed_is_bounded() {
        let mut follow = Follow::new(TailFilter { recipient: Some("a@".into()), ..TailFilter::default() });
        for n in 0..FOLLOWED as u128 + 10 {
            assert!(follow.shows(&event(n, log("a@example.com"))));
        }
        assert_eq!(follow.followed.len(), FOLLOWED);
        assert_eq!(follow.order.len(), FOLLOWED);
    }
}
