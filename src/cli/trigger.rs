//! `trigger`: `scheduled` runs now, by hand, for real or without effects.

use super::access::{self, Server, Writer};
use super::args::{Common, Trigger};
use super::print::{self, DIM, Painted};
use super::{Done, Failure, configured, show};
use crate::admin::api::{TriggerOf, Triggered};
use crate::clock;
use crate::config::load::{self, Reading};
use crate::config::{Config, Cron};
use crate::diagnostic::suggest;
use crate::intake::{Snapshot, foresee};
use crate::mail::Timestamp;
use crate::reach::Alone;
use crate::reload;

pub async fn run(common: &Common, options: &Trigger) -> Done {
    let wanted = load::Options { secrets: Reading::Wanted, ..configured::with_secrets(common) };
    let config = Config::load(&wanted).map_err(Failure::Configuration)?.config;
    let asked = TriggerOf { cron: chosen(&config, options.cron.as_deref())?, time: options.time };
    let ran = if options.dry_run {
        let snapshot = reload::in_force(&wanted).map_err(Failure::Configuration)?;
        // It blocks, and what asks outside has a runtime of its own.
        tokio::task::spawn_blocking(move || without_effects(&snapshot, &asked)).await.map_err(Failure::failed)??
    } else {
        // A server runs by what it has itself. Where none does it is done here, and never with a placeholder.
        let own_rules = if Server::find(&config.data_dir).await?.is_some() {
            None
        } else {
            let needed = load::Options { secrets: Reading::Needed, ..wanted };
            Some(reload::in_force(&needed).map_err(Failure::Configuration)?)
        };
        let writer = Writer::open(&config).await?;
        let ran = writer.trigger(asked, own_rules).await;
        writer.close().await;
        ran?
    };
    if options.machine.json {
        print::json(&ran)?;
    } else {
        told(&ran)?;
    }
    if ran.failed.is_some() { Err(Failure::Said) } else { Ok(()) }
}

/// One of the configuration's: another would be run by nobody else.
fn chosen(config: &Config, asked: Option<&str>) -> Result<String, Failure> {
    let known: Vec<&str> = config.crons.iter().map(Cron::text).collect();
    let all = || known.iter().map(|cron| format!("{cron:?}")).collect::<Vec<_>>().join(", ");
    let Some(asked) = asked else {
        return match known.as_slice() {
            [only] => Ok((*only).to_owned()),
            [] => Err(Failure::failed("the configuration has no crons: add [triggers] crons = [\"0 9 * * MON\"]")),
            _ => Err(Failure::Usage(format!("which cron? It is one of {}", all()))),
        };
    };
    let asked = asked.split_whitespace().collect::<Vec<_>>().join(" ");
    if known.contains(&asked.as_str()) {
        return Ok(asked);
    }
    let help = match suggest(&asked, known.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None if known.is_empty() => "it has none: add [triggers] crons = [\"0 9 * * MON\"]".to_owned(),
        None => format!("it has {}", all()),
    };
    Err(Failure::Failed(format!("no cron {asked:?} is configured ({help})")))
}

/// By the rules in force and the keys as they are now.
fn without_effects(snapshot: &Snapshot, asked: &TriggerOf) -> Result<Triggered, Failure> {
    let kv = access::keys(&snapshot.config)?;
    let at = asked.time.unwrap_or_else(clock::now);
    let told = foresee::told_on_time(snapshot, (&asked.cron, at), &kv, Alone::lent(&snapshot.config));
    let told = told.map_err(Failure::Failed)?;
    let (deliveries, mails) = (told.deliveries.len() as u64, told.authored.len() as u64);
    Ok(Triggered { id: None, deliveries, mails, failed: told.failed, events: told.events })
}

fn told(ran: &Triggered) -> Done {
    for event in &ran.events {
        show::event(event).iter().try_for_each(print::line)?;
    }
    let what = format!("{}, {}", print::count(ran.deliveries, "webhook"), print::count(ran.mails, "mail"));
    match (&ran.failed, &ran.id) {
        (Some(_), Some(id)) => print::line(format_args!("failed: nothing was done  {}", shown(id))),
        (Some(_), None) => print::line("it would fail, and nothing would be done"),
        (None, Some(id)) => print::line(format_args!("ran: {what} queued  {}", shown(id))),
        (None, None) => print::line(format_args!("would queue {what}; nothing was done")),
    }
}

fn shown(id: &crate::mail::MessageId) -> Painted<String> {
    Painted(DIM, format!("mailworker messages show {id}"))
}

/// A moment as it is written, or in Unix milliseconds.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(millis) = text.parse::<i64>() {
        return Ok(Timestamp::from_millis(millis));
    }
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    let wrong = |_| "this is no time: write it as 2026-11-30T09:00:00Z, or in Unix milliseconds".to_owned();
    parsed.map(|at| Timestamp::from_millis(at.as_millisecond())).map_err(wrong)
}
