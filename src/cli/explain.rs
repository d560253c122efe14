//! `explain ADDRESS`: where mail for an address would go, and why. Nothing is sent, kept or written; what the
//! rules ask outside (`fetch`, `ai`, DNS) is asked, for it is read.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;

use super::args::{Common, Explain};
use super::print::{self, BAD, DIM, GOOD, NOTE, Painted, WAIT};
use super::{Done, Failure, access, configured, show};
use crate::config::load::{self, Reading};
use crate::event::Event;
use crate::intake::decide::{Fate, Judged};
use crate::intake::foresee::{Foresight, Probe, foresee};
use crate::kv::{self, Write};
use crate::mail::{Address, Client, Reply, Timestamp};
use crate::reach::Alone;
use crate::reload;
use crate::rules::{KvView, Stage};
use crate::store::Task;

pub fn run(common: &Common, options: &Explain) -> Done {
    let found = load::Options { secrets: Reading::Wanted, ..configured::with_secrets(common) };
    let snapshot = Arc::new(reload::in_force(&found).map_err(Failure::Configuration)?);
    let sender = match options.from.as_str() {
        "" | "<>" => None,
        text => Some(Address::parse(text).map_err(|error| Failure::Usage(format!("--from {text:?}: {error}")))?),
    };
    let raw = match &options.message {
        Some(file) => std::fs::read(file).map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?,
        None => made_up(sender.as_ref(), &options.address),
    };
    let kv: KvView = if access::exists(&snapshot.config).is_ok() {
        Arc::new(access::reader(&snapshot.config)?)
    } else {
        Arc::new(NoStore)
    };
    let client = Client {
        ip: options.ip,
        port: 0,
        listener: SocketAddr::new(options.ip, 0).to_string(),
        helo: Some(options.helo.clone()),
        esmtp: true,
        tls: None,
        ptr: None,
        auth: None,
    };
    let reach = Alone::lent(&snapshot.config);
    let probe = Probe { recipient: options.address.clone(), sender, client, raw: raw.into(), reach };
    let seen = foresee(&snapshot, probe, &kv);
    if options.machine.json { print::json(&as_json(options, &seen)) } else { tell(options, &seen) }
}

/// A small message, for want of a real one.
fn made_up(sender: Option<&Address>, recipient: &Address) -> Vec<u8> {
    let from = sender.map_or_else(|| "MAILER-DAEMON@example.org".to_owned(), Address::to_string);
    format!(
        "From: {from}\r\nTo: {recipient}\r\nSubject: Hello\r\nDate: Tue, 24 Nov 2026 09:15:02 +0000\r\n\
         Message-ID: <hello@example.org>\r\n\r\nA message made up to see where it goes.\r\n"
    )
    .into_bytes()
}

fn tell(options: &Explain, seen: &Foresight) -> Done {
    if let Some((stage, reply)) = &seen.earlier {
        print::line(show::told(style(reply), command(*stage), &reply.to_string()))?;
    }
    if let Some(reply) = &seen.answer {
        print::line(show::told(style(reply), "RCPT", &reply.to_string()))?;
    }
    if let Some(to) = &seen.redirected {
        print::line(show::told(NOTE, "redirect", &format!("to {to}")))?;
    }
    for event in events(seen) {
        show::event(event).iter().try_for_each(print::line)?;
    }
    if let Some(reply) = refusal(seen) {
        print::line(show::told(style(reply), "answer", &reply.to_string()))?;
    }
    let Some(judged) = &seen.judged else { return Ok(()) };
    for (what, whereto) in deliveries(judged) {
        print::line(show::told(GOOD, "queues", &format!("{what} by {whereto}")))?;
    }
    if options.message.is_none() {
        let note = "decided on a message made up for this; --message FILE decides on yours";
        print::line(format_args!("{}", Painted(DIM, note)))?;
    }
    Ok(())
}

/// What it is the answer to, in SMTP's words.
fn command(stage: Stage) -> &'static str {
    match stage {
        Stage::Connect => "connect",
        Stage::Helo => "EHLO",
        Stage::MailFrom => "MAIL",
    }
}

fn events(seen: &Foresight) -> impl Iterator<Item = &Event> {
    seen.events.iter().chain(seen.judged.iter().flat_map(|judged| &judged.events))
}

fn style(reply: &Reply) -> anstyle::Style {
    match reply.code {
        200..=399 => GOOD,
        400..=499 => WAIT,
        _ => BAD,
    }
}

/// What the end of the message is answered with, where that isn't 250.
fn refusal(seen: &Foresight) -> Option<&Reply> {
    let fate = seen.judged.as_ref().and_then(|judged| match &judged.fate {
        Fate::Accept => None,
        Fate::Reject(reply) | Fate::Defer(reply) => Some(reply),
    });
    seen.refused.as_ref().or(fate)
}

/// What would be queued: what, and by which next hop. Of a webhook its host alone: its path may hold a key.
fn deliveries(judged: &Judged) -> impl Iterator<Item = (String, String)> + '_ {
    let written = judged.authored.iter().flat_map(|mail| &mail.deliveries);
    judged.deliveries.iter().chain(written).map(|delivery| {
        let what = match &delivery.task {
            Task::Webhook(_) => "webhook".to_owned(),
            task => format!("{} to {}", task.kind(), task.target()),
        };
        (what, delivery.destination.clone())
    })
}

fn written(write: &Write) -> String {
    match write {
        Write::Put { namespace, key, .. } => format!("{namespace} put {key}"),
        Write::Delete { namespace, key } => format!("{namespace} delete {key}"),
        Write::Increment { namespace, key, by } => format!("{namespace} increment {key} by {by}"),
    }
}

fn as_json(options: &Explain, seen: &Foresight) -> serde_json::Value {
    let delivered: Vec<_> = seen
        .judged
        .iter()
        .flat_map(deliveries)
        .map(|(what, destination)| json!({ "what": what, "destination": destination }))
        .collect();
    let writes: Vec<_> = seen.judged.iter().flat_map(|judged| &judged.writes).map(written).collect();
    let earlier = seen.earlier.as_ref().map(|(stage, reply)| json!({ "handler": stage.handler(), "reply": reply }));
    json!({
        "address": options.address,
        "earlier": earlier,
        "rcpt": seen.answer,
        "redirected": seen.redirected,
        "events": events(seen).collect::<Vec<_>>(),
        "answer": refusal(seen),
        "deliveries": delivered,
        "writes": writes,
    })
}

/// Where no store is yet, there are no keys.
struct NoStore;

impl kv::View for NoStore {
    fn get(&self, _: &str, _: &str, _: Timestamp) -> Result<Option<kv::Entry>, kv::ViewError> {
        Ok(None)
    }

    fn list(&self, _: &str, _: &str, _: Option<&str>, _: usize, _: Timestamp) -> Result<kv::Page, kv::ViewError> {
        Ok(kv::Page::default())
    }
}
