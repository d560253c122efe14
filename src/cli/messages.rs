//! `messages`: what came in and what became of it, read beside the running server.

use super::access::{self, Writer};
use super::args::{Common, Machine, MessageList, Messages};
use super::pages::pages;
use super::print::{self, BAD, BOLD, DIM, GOOD, NOTE, Painted, WAIT, plain, short};
use super::{Done, Failure, configured, queue, show};
use crate::clock;
use crate::config::Config;
use crate::event::Kind;
use crate::intake::forward;
use crate::mail::{Address, Message, MessageId, Recipient};
use crate::store::{Discharge, MessageDetail, MessageFilter, MessageOutcome, MessageSummary, Reader};

pub fn run(common: &Common, verb: Messages) -> Done {
    let config = configured::load(common)?.config;
    let reader = access::reader(&config)?;
    match verb {
        Messages::List(options) => list(&reader, &options),
        Messages::Show { id, machine } => {
            let detail = reader.message(id)?;
            if machine.json { print::json(&detail) } else { one(&detail) }
        }
        Messages::Raw { id } => print::raw(&reader.body(id)?.raw),
        Messages::Release { id, to, machine } => {
            let release = released(&config, &reader, id, &to)?;
            drop(reader);
            super::runtime()?.block_on(release_by(&config, release, machine))
        }
    }
}

async fn release_by(config: &Config, release: Discharge, machine: Machine) -> Done {
    let writer = Writer::open(config).await?;
    let number = writer.release(release).await;
    writer.close().await;
    let deliveries = number?;
    if machine.json {
        return print::json(&crate::admin::api::Changed { deliveries });
    }
    print::line(format_args!("released: {} queued", print::count(deliveries, "delivery")))
}

/// Whom it goes to: those for whom it was put into quarantine, or by `to` others in their place.
fn released(config: &Config, reader: &Reader, id: MessageId, to: &[String]) -> Result<Discharge, Failure> {
    let detail = reader.message(id)?;
    if detail.summary.outcome != MessageOutcome::Quarantined {
        let text = format!("message {id} isn't in quarantine: it is {}", name(detail.summary.outcome));
        return Err(Failure::Failed(text));
    }
    let held = |recipient: &&Recipient| {
        detail.trace.iter().any(|event| match &event.kind {
            Kind::Decided(decision) => decision.word() == "quarantine" && decision.recipient == recipient.address,
            _ => false,
        })
    };
    let body = reader.body(id)?;
    let message = super::runtime()?.block_on(body.raw.beginning()).map_err(Failure::failed)?;
    let message = Message::received_by(&config.hostname, message);
    let envelope = body.envelope;
    let mut recipients: Vec<&Recipient> = Vec::new();
    for recipient in envelope.recipients.iter().filter(held) {
        if !recipients.iter().any(|known| known.address.same_mailbox(&recipient.address)) {
            recipients.push(recipient);
        }
    }
    let deliveries = forward::released(config, &message, &recipients, to, clock::now()).map_err(Failure::Failed)?;
    Ok(Discharge { id, deliveries })
}

fn filter(options: &MessageList) -> MessageFilter {
    MessageFilter {
        sender: options.sender.clone(),
        recipient: options.recipient.clone(),
        subject: options.subject.clone(),
        outcome: options.outcome,
        since: options.since.map(|age| clock::now().minus(age)),
        before: options.before,
        limit: None,
    }
}

fn list(reader: &Reader, options: &MessageList) -> Done {
    let (limit, machine) = (options.limit, options.machine);
    let first = filter(options);
    let show = |message: &MessageSummary| if machine.json { print::json(message) } else { print::line(line(message)) };
    let shown = pages(
        limit.of(machine),
        |last: Option<&MessageSummary>, limit| {
            let before = last.map(|message| message.id).or(first.before);
            Ok(reader.messages(&MessageFilter { before, limit: Some(limit), ..first.clone() })?)
        },
        show,
    )?;
    shown.tell(limit, machine, "messages")
}

fn line(message: &MessageSummary) -> String {
    let outcome = Painted(style(message.outcome), format!("{:8}", name(message.outcome)));
    format!(
        "{}  {}  {outcome}  {} → {}  {}{}",
        print::time(message.received_at),
        message.id,
        print::sender(message.sender.as_ref()),
        recipients(&message.recipients),
        short(message.subject.as_deref().unwrap_or("(no subject)"), 60),
        waiting(message),
    )
}

/// What is still to be done for it.
fn waiting(message: &MessageSummary) -> String {
    let mut parts = Vec::new();
    if message.queued > 0 {
        parts.push(Painted(WAIT, format!("  {} queued", message.queued)).to_string());
    }
    if message.dead > 0 {
        parts.push(Painted(BAD, format!("  {} dead", message.dead)).to_string());
    }
    parts.concat()
}

fn recipients(recipients: &[Address]) -> String {
    let named: Vec<_> = recipients.iter().take(3).map(|address| plain(address.as_str())).collect();
    match recipients.len().checked_sub(3) {
        Some(more) if more > 0 => format!("{} and {more} more", named.join(", ")),
        _ => named.join(", "),
    }
}

fn name(outcome: MessageOutcome) -> &'static str {
    match outcome {
        MessageOutcome::Accepted => "accepted",
        MessageOutcome::Stored => "stored",
        MessageOutcome::Dropped => "dropped",
        MessageOutcome::Rejected => "rejected",
        MessageOutcome::Deferred => "deferred",
        MessageOutcome::Authored => "authored",
        MessageOutcome::Quarantined => "quarantined",
    }
}

fn style(outcome: MessageOutcome) -> anstyle::Style {
    match outcome {
        MessageOutcome::Accepted | MessageOutcome::Stored => GOOD,
        MessageOutcome::Dropped | MessageOutcome::Deferred | MessageOutcome::Quarantined => WAIT,
        MessageOutcome::Rejected => BAD,
        MessageOutcome::Authored => NOTE,
    }
}

/// The whole story, in order.
pub fn one(detail: &MessageDetail) -> Done {
    let message = &detail.summary;
    let field = |name: &str, value: &str| print::line(format_args!("{} {value}", Painted(DIM, format!("{name:<9}"))));
    print::line(format_args!("{}", Painted(BOLD, format!("message   {}", message.id))))?;
    field("subject", &plain(message.subject.as_deref().unwrap_or("(no subject)")))?;
    field("from", &print::sender(message.sender.as_ref()))?;
    for recipient in &message.recipients {
        field("to", &plain(recipient.as_str()))?;
    }
    field("received", &format!("{} UTC", print::time(message.received_at)))?;
    let kept = if message.raw { "kept" } else { "not kept" };
    let mailbox = detail.mailbox.as_deref().map(|name| format!(" in mailbox {}", plain(name))).unwrap_or_default();
    field("size", &format!("{} bytes, {kept}{mailbox}", message.size))?;
    let outcome = Painted(style(message.outcome), name(message.outcome));
    field("outcome", &format!("{outcome}{}", waiting(message)))?;
    print::line("")?;
    for event in &detail.trace {
        let mut lines = show::event(event).into_iter();
        let first = lines.next().unwrap_or_default();
        print::line(format_args!("{} {first}", Painted(DIM, print::clock(event.at))))?;
        lines.try_for_each(|line| print::line(format_args!("{:12} {line}", "")))?;
    }
    if !detail.deliveries.is_empty() {
        print::line("")?;
        let now = clock::now();
        detail.deliveries.iter().try_for_each(|entry| print::line(queue::line(entry, now)))?;
    }
    Ok::<(), Failure>(())
}
