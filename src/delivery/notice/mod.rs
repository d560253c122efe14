//! Notices: tells a sender what became of a message, as RFC 3464 has it. Whether it may, and what it queues.
//!
//! Must never: answer somebody who didn't write (the sender has to be proved by SPF or DKIM), answer a notice, a list
//! or a machine, or send what NOTIFY declines. Input: a [`NoticeTask`], the message it is about, DNS. Output: a message
//! of ours with one relay, to be committed with the settlement; or why there is none.
//! Standards: RFC 3461 (DSN), RFC 3464 (its form), RFC 6522, RFC 6533 (UTF-8), RFC 3834 §2, RFC 5321 §4.5.5, §6.1.

mod original;
mod report;
#[cfg(test)]
mod tests;

use ring::digest::{Context, SHA256};

use crate::authenticate::{Proof, sender_is_proved};
use crate::clock;
use crate::config::Config;
use crate::dns::Dns;
use crate::event::{Event, Kind};
use crate::mail::{Address, BodyKind, Envelope, Message, MessageId, Notify, Recipient, Reply, Timestamp};
use crate::store::{Acceptance, Body, NewDelivery, NoticeTask, RelayTask, StoreError, Task};

use report::Report;

/// What a notice comes to.
#[derive(Debug)]
pub enum Prepared {
    /// A message of ours with its relay, to be accepted in the transaction that settles the notice.
    Send(Box<Acceptance>),
    /// None is sent, for good: nobody asked for it, or it would reach somebody who didn't write.
    Suppressed { why: String },
    /// DNS didn't answer, so that nobody knows yet who wrote.
    Later { why: String },
    /// The message can't be read.
    Unread(StoreError),
}

/// Nothing is queued for the next hop to tell of it (RFC 3461 §6.4).
const NEVER: Notify = Notify { success: false, failure: false, delay: false, explicit: true };

/// Writes the notice that `task` calls for, about `message`, if its sender may have one.
pub async fn prepare(
    config: &Config,
    dns: &Dns,
    message: MessageId,
    task: &NoticeTask,
    body: &Body,
    now: Timestamp,
) -> Prepared {
    let about = match body.raw.beginning().await {
        Ok(octets) => Message::new(octets),
        Err(error) => return Prepared::Unread(error),
    };
    let sender = match addressee(&body.envelope, &about, task) {
        Ok(sender) => sender,
        Err(why) => return Prepared::Suppressed { why },
    };
    // Only a signature asks for all of it.
    let whole = async { body.raw.whole().await.map_err(|error| error.to_string()) };
    match sender_is_proved(dns, body.client.as_ref(), &body.envelope, (&about, whole)).await {
        Proof::Proved { .. } => {}
        Proof::NotProved { why } => {
            return Prepared::Suppressed { why: format!("nothing proves that {sender} sent it: {why}") };
        }
        Proof::Unknown { why } => return Prepared::Later { why },
    }
    let id = clock::message_id(now);
    let report = Report { config, id, message, task, body, about: &about, sender: &sender, now };
    Prepared::Send(Box::new(accepted(&report)))
}

/// Whom to tell; or why nobody.
fn addressee(envelope: &Envelope, about: &Message, task: &NoticeTask) -> Result<Address, String> {
    // RFC 5321 §4.5.5, §6.1: a notice is never answered by another.
    let sender = envelope.sender.clone().ok_or("the sender is null: a notice is not answered by a notice")?;
    if sender.domain().is_empty() {
        return Err(format!("{sender} has no domain to send a notice to"));
    }
    asked_for(recipient(envelope, task).map(|recipient| recipient.notify).unwrap_or_default(), &task.action)?;
    if about.is_bounce() || sender.unquoted_local().eq_ignore_ascii_case("mailer-daemon") {
        return Err("the message is a notice itself".to_owned());
    }
    if about.is_list() {
        return Err("the message came by a mailing list".to_owned());
    }
    if about.is_auto() {
        return Err("the message was sent by a machine (Auto-Submitted, Precedence or the like)".to_owned());
    }
    Ok(sender)
}

/// The recipient a notice is about, as the envelope has it.
fn recipient<'a>(envelope: &'a Envelope, task: &NoticeTask) -> Option<&'a Recipient> {
    let is_it = |one: &&Recipient| {
        one.address.same_mailbox(&task.recipient)
            || one.original.as_ref().is_some_and(|original| original.same_mailbox(&task.recipient))
    };
    match envelope.recipients.as_slice() {
        // Forwarded to somewhere else: whose it was is plain all the same.
        [only] => Some(only),
        several => several.iter().find(is_it),
    }
}

/// RFC 3461 §4.1: NOTIFY decides; without it failures are told, and delays where the configuration has them told.
fn asked_for(notify: Notify, action: &str) -> Result<(), String> {
    let (wanted, word) = match action {
        "failed" => (notify.failure, "FAILURE"),
        "delayed" => (notify.delay || !notify.explicit, "DELAY"),
        "delivered" | "relayed" | "expanded" => (notify.success, "SUCCESS"),
        _ => return Err("there is no notice of this kind (RFC 3464 §2.3.3)".to_owned()),
    };
    if wanted { Ok(()) } else { Err(format!("the sender didn't ask for it (NOTIFY without {word})")) }
}

fn accepted(report: &Report<'_>) -> Acceptance {
    let written = report.write();
    let recipient = Recipient { notify: NEVER, ..Recipient::new(report.sender.clone()) };
    let envelope = Envelope {
        sender: None,
        recipients: vec![recipient],
        smtputf8: report.is_utf8(),
        body: if written.octets.is_ascii() { BodyKind::SevenBit } else { BodyKind::EightBit },
        ret: None,
        envid: None,
    };
    let relay = RelayTask {
        recipient: report.sender.clone(),
        original: report.sender.clone(),
        notify: NEVER,
        orcpt: None,
        via: None,
        headers: Vec::new(),
        removed: Vec::new(),
        own: false,
        by: None,
    };
    let destination = report.config.relay_queue(report.sender, None);
    let reply = Reply::new(250, 0, 0, format!("Written here, a notice about {}", report.message));
    let fingerprint = fingerprint(report.sender, &written.octets);
    Acceptance {
        subject: Some(written.subject),
        header_from: Some(written.from),
        deliveries: vec![NewDelivery { task: Task::Relay(relay), destination, due: report.now }],
        events: vec![Event::new(report.now, Kind::Accepted { reply, deliveries: 1 }).of(report.id)],
        ..Acceptance::ours(report.id, envelope, written.octets, fingerprint, report.now)
    }
}

/// As intake's: over sender (null), recipient and octets.
fn fingerprint(recipient: &Address, octets: &[u8]) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    context.update(b"\0");
    context.update(recipient.as_str().as_bytes());
    context.update(b"\0\0");
    context.update(octets);
    let mut bits = [0; 16];
    for (bit, byte) in bits.iter_mut().zip(context.finish().as_ref()) {
        *bit = *byte;
    }
    bits
}
