//! `explain`: where mail for an address would go, or what became of a message and what would now, and why, line by line.
//! Nothing is sent, kept or written; what is read outside (who sends it; the rules' `fetch`, `ai`, DNS) is asked, unless
//! that is not wanted.

mod debugger;
mod given;
pub mod inquiry;
mod past;
mod recorder;

use std::sync::Arc;

use serde_json::json;

use super::args::{Common, Explain, What};
use super::print::{self, BAD, DIM, GOOD, NOTE, Painted, WAIT, plain};
use super::{Done, Failure, access, configured, show};
use crate::config::load::{self, Reading};
use crate::event::{Event, Kind};
use crate::intake::Snapshot;
use crate::intake::canary::{Canary, Deployed};
use crate::intake::decide::{Fate, Judged};
use crate::intake::foresee::{Foresight, Probe, foresee};
use crate::kv::{self, Write};
use crate::mail::Reply;
use crate::reload;
use crate::rules::step::Watcher;
use crate::rules::{Release, Stage};
use crate::store::{NewDelivery, Task};

use debugger::Debugger;
use given::Given;
use inquiry::{Found, Inquiry, reach, unknown};
use recorder::{Call, Line, Recorder, Sources};

pub fn run(common: &Common, options: &Explain) -> Done {
    let found = load::Options { secrets: Reading::Wanted, ..configured::with_secrets(common) };
    let snapshot = reload::in_force(&found).map_err(Failure::Configuration)?;
    let recorder = Recorder::default();
    let is_stepped = options.step || !options.breakpoints.is_empty();
    let debugger = is_stepped.then(|| Arc::new(Debugger::new(options.breakpoints.clone())));
    let snapshot = Arc::new(watched(snapshot, &recorder, debugger.as_ref())?);
    match &options.what {
        What::Address(address) => {
            let given = given::address(options, &snapshot.config, address)?;
            foretell(options, &snapshot, given, &recorder)?;
        }
        What::File(file) => foretell(options, &snapshot, given::file(options, &snapshot.config, file)?, &recorder)?,
        What::Message(id) => past::run(options, &snapshot, *id, &recorder)?,
    }
    for missed in debugger.iter().flat_map(|debugger| debugger.missed()) {
        print::remark(&format!("it never came to {missed}, where it was to stop"));
    }
    Ok(())
}

/// All rules that may run are watched, each with its own text: that of a deployed release isn't what lies in the files.
fn watched(snapshot: Snapshot, recorder: &Recorder, debugger: Option<&Arc<Debugger>>) -> Result<Snapshot, Failure> {
    let Snapshot { config, release, deployed } = snapshot;
    let watch = |release: Arc<Release>, sources: Sources| {
        let (noted, debugger, is_timed) = (recorder.clone(), debugger.cloned(), debugger.is_none());
        let watcher = Watcher::new(move |step| {
            noted.reached(step, &sources);
            debugger.as_ref().map_or(Ok(()), |debugger| debugger.at(step, &sources))
        });
        let release = Arc::into_inner(release).ok_or_else(|| Failure::failed("the rules are in use already"))?;
        Ok::<_, Failure>(Arc::new(release.watched(watcher, is_timed)))
    };
    let Some(Deployed { active, canary }) = deployed else {
        let release = watch(release, Sources::below(&config.base_dir))?;
        return Ok(Snapshot { config, release, deployed: None });
    };
    let reader = access::reader(&config)?;
    let release = watch(release, Sources::of(&reader.release(active)?.1, String::new()))?;
    let canary = match canary {
        Some(canary) => {
            let which = format!(" (release {}, on trial)", canary.id);
            let sources = Sources::of(&reader.release(canary.id)?.1, which);
            Some(Canary { release: watch(canary.release, sources)?, ..canary })
        }
        None => None,
    };
    Ok(Snapshot { config, release, deployed: Some(Deployed { active, canary }) })
}

/// What would become of mail.
fn foretell(options: &Explain, snapshot: &Arc<Snapshot>, given: Given, recorder: &Recorder) -> Done {
    let inquiry = Inquiry::new(&snapshot.config, options.offline, None);
    let Given { recipient, sender, client, raw, is_made_up } = given;
    let kv = access::keys(&snapshot.config)?;
    let (client, found) = inquiry.of_message(&client, sender.as_ref(), &raw);
    let sent = (recipient.clone(), sender.clone());
    let probe = Probe { recipient, sender, client, raw, reach: reach(&snapshot.config, options.offline) };
    let mut seen = foresee(snapshot, probe, &recorder.watching(kv, snapshot)).shown(snapshot);
    let unknown = match found {
        Found::Checked(told) => {
            seen.events.insert(0, told);
            None
        }
        Found::Nothing(why) => Some(unknown(&why)),
    };
    if options.machine.json {
        let more = [
            ("address", json!(sent.0)),
            ("sender", json!(sent.1)),
            ("not_looked_into", json!(unknown)),
            ("lines", json!(recorder.take())),
        ];
        return print::json(&as_json(&seen, snapshot, more));
    }
    if matches!(options.what, What::File(_)) {
        let from = print::sender(sent.1.as_ref());
        print::line(show::told(DIM, "message", &format!("from {from} to {}", sent.0)))?;
    }
    if let Some(why) = unknown {
        print::line(show::told(DIM, "sender", &why))?;
    }
    tell(&seen)?;
    tell_lines(&recorder.take())?;
    if is_made_up && seen.judged.is_some() {
        let note = "decided on a message made up for this; --message FILE decides on yours";
        print::line(format_args!("{}", Painted(DIM, note)))?;
    }
    Ok(())
}

/// Every check and what it came to.
fn tell(seen: &Foresight) -> Done {
    if let Some((stage, reply)) = &seen.earlier {
        print::line(show::told(style(reply), command(*stage), &reply.to_string()))?;
    }
    if let Some(reply) = &seen.answer {
        print::line(show::told(style(reply), "RCPT", &reply.to_string()))?;
    }
    if let Some(reason) = &seen.reason {
        print::line(show::told(DIM, "why", reason))?;
    }
    seen.passed_over.iter().try_for_each(|why| print::line(show::told(DIM, "", why)))?;
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
    Ok(())
}

/// The lines of rules that were reached, and what each asked of the store.
fn tell_lines(lines: &[Line]) -> Done {
    let mut file = "";
    for line in lines {
        if line.file != file {
            file = &line.file;
            print::line(show::told(NOTE, "ran", file))?;
        }
        let times = if line.times > 1 { format!("  ×{}", line.times) } else { String::new() };
        print::line(format_args!("{:>6}  {}{}", line.number, plain(&line.text), Painted(DIM, times)))?;
        for call in &line.calls {
            let Call { asked, answer, micros } = call;
            let told = format!("· {asked} → {answer}, in {micros} µs");
            print::line(format_args!("{:8}{}", "", Painted(DIM, plain(&told))))?;
        }
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
    let all = seen.events.iter().chain(seen.judged.iter().flat_map(|judged| &judged.events));
    // Nothing was written: the decision says what would be.
    all.filter(|event| !matches!(event.kind, Kind::Written { .. }))
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

/// What would be queued for it and for the mails that were written.
fn deliveries(judged: &Judged) -> impl Iterator<Item = (String, String)> + '_ {
    whereto(judged.deliveries.iter().chain(judged.authored.iter().flat_map(|mail| &mail.deliveries)))
}

/// What, and by which next hop. Of a webhook its host alone: its path may hold a key.
pub fn whereto<'a>(deliveries: impl IntoIterator<Item = &'a NewDelivery>) -> impl Iterator<Item = (String, String)> {
    deliveries.into_iter().map(|delivery| {
        let what = match &delivery.task {
            Task::Webhook(_) => "webhook".to_owned(),
            task => format!("{} to {}", task.kind(), task.target()),
        };
        (what, delivery.destination.clone())
    })
}

/// What is kept for us, and no worker's.
fn is_own(write: &Write) -> bool {
    matches!(write, Write::Put { namespace, .. } if namespace == kv::REPLIES)
}

fn written(write: &Write) -> String {
    match write {
        Write::Put { namespace, key, .. } => format!("{namespace} put {key}"),
        Write::Delete { namespace, key } => format!("{namespace} delete {key}"),
        Write::Increment { namespace, key, by } => format!("{namespace} increment {key} by {by}"),
    }
}

fn as_json<const N: usize>(
    seen: &Foresight,
    rules: &Snapshot,
    more: [(&str, serde_json::Value); N],
) -> serde_json::Value {
    let delivered: Vec<_> = seen
        .judged
        .iter()
        .flat_map(deliveries)
        .map(|(what, destination)| json!({ "what": what, "destination": destination }))
        .collect();
    let writes = seen.judged.iter().flat_map(|judged| &judged.writes).filter(|write| !is_own(write));
    let writes: Vec<_> = writes.map(|write| rules.release.hide(written(write))).collect();
    let earlier = seen.earlier.as_ref().map(|(stage, reply)| json!({ "handler": stage.handler(), "reply": reply }));
    let mut told = json!({
        "earlier": earlier,
        "rcpt": seen.answer,
        "why": seen.reason,
        "passed_over": seen.passed_over,
        "redirected": seen.redirected,
        "events": events(seen).collect::<Vec<_>>(),
        "answer": refusal(seen),
        "deliveries": delivered,
        "writes": writes,
    });
    if let Some(told) = told.as_object_mut() {
        told.extend(more.map(|(name, value)| (name.to_owned(), value)));
    }
    told
}
