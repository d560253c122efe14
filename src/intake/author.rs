//! The mails that a worker wrote: each a message of ours, with deliveries and a trace of its own.
//!
//! They are accepted in the transaction that accepts what they were written about, or not at all. The envelope's sender
//! is the address they come from, so that SPF speaks for them and bounces come to the worker; the null one, where they
//! answer to what has none (RFC 5321 §4.5.5).

use std::time::Duration;

use super::headers;
use crate::clock;
use crate::compose;
use crate::config::Config;
use crate::event::{Event, Kind};
use crate::kv;
use crate::mail::draft::Purpose;
use crate::mail::{Address, BodyKind, Draft, Envelope, Notify, Recipient, Reply, Timestamp};
use crate::rules::Release;
use crate::store::{Acceptance, Decider, NewDelivery, RelayTask, Task};

/// No notice of ours tells of it: `failed` does. Next hops may tell as they like.
const NOBODY_WAITS: Notify = Notify { success: false, failure: false, delay: false, explicit: false };

/// What stands in traces: «mail».
pub(super) fn word(purpose: &Purpose) -> &'static str {
    match purpose {
        Purpose::New => "mail",
        Purpose::Reply { .. } => "reply",
    }
}

/// The draft as a message of ours. `about`: what it was written about, in words; `by`: the worker. It goes out as it was
/// written; the list of messages shows its subject without the values of secrets.
pub(super) fn authored(
    (config, rules): (&Config, &Release),
    draft: &Draft,
    about: &str,
    by: Option<&Decider>,
    now: Timestamp,
) -> Acceptance {
    let id = clock::message_id(now);
    let octets = compose::write(draft, id, now, &config.hostname);
    let mut to: Vec<&Address> = Vec::new();
    for address in draft.recipients() {
        if !to.iter().any(|known| known.same_mailbox(address)) {
            to.push(address);
        }
    }
    let recipient = |address: &&Address| Recipient { notify: NOBODY_WAITS, ..Recipient::new((*address).clone()) };
    let envelope = Envelope {
        sender: (!draft.null_sender).then(|| draft.from.address.clone()),
        recipients: to.iter().map(recipient).collect(),
        smtputf8: compose::is_utf8(draft),
        body: if octets.is_ascii() { BodyKind::SevenBit } else { BodyKind::EightBit },
        ret: None,
        envid: None,
    };
    let deliveries: Vec<NewDelivery> = to.iter().map(|to| delivery(config, draft, to, by, now)).collect();
    let text = format!("Written here, a {} of the worker's about {about}", word(&draft.purpose));
    let (reply, count) = (Reply::new(250, 0, 0, text), u32::try_from(deliveries.len()).unwrap_or(u32::MAX));
    Acceptance {
        subject: Some(super::clip(&rules.hide(draft.subject.clone()))),
        header_from: Some(draft.from.address.to_string()),
        deliveries,
        events: vec![Event::new(now, Kind::Accepted { reply, deliveries: count }).of(id)],
        ..Acceptance::ours(id, envelope, octets, headers::never_again(id), now)
    }
}

fn delivery(config: &Config, draft: &Draft, to: &Address, by: Option<&Decider>, now: Timestamp) -> NewDelivery {
    let task = Task::Relay(RelayTask {
        recipient: to.clone(),
        original: draft.from.address.clone(),
        notify: NOBODY_WAITS,
        orcpt: None,
        via: None,
        headers: Vec::new(),
        removed: Vec::new(),
        own: true,
        by: by.cloned(),
    });
    NewDelivery { task, destination: config.relay_queue(to, None), due: now }
}

/// That it was written, for the trace of what it was written about.
pub(super) fn written(draft: &Draft, mail: &Acceptance, now: Timestamp) -> Event {
    let to = mail.envelope.recipients.iter().map(|recipient| recipient.address.clone()).collect();
    Event::new(now, Kind::Written { what: word(&draft.purpose).to_owned(), to, mail: mail.id })
}

/// That its sender has had an answer, for as long as there is to be no other.
pub(super) fn noted(draft: &Draft, now: Timestamp) -> Option<kv::Write> {
    let Purpose::Reply { once, .. } = &draft.purpose else { return None };
    Some(kv::Write::Put {
        namespace: kv::REPLIES.to_owned(),
        key: once.key.clone(),
        value: kv::Value::Text(String::new()),
        metadata: None,
        expires_at: Some(now.plus(Duration::from_secs(once.every))),
    })
}
