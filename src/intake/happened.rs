//! A worker is told how something ended: `delivered`, `failed`. What it asks for commits with the task that told it.
//!
//! The task was queued in the transaction that settled what ended, so a power cut between the two loses nothing; it is
//! settled with the handler's effects, so that these happen once. A webhook that such a handler asks for is told to none.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::json;

use super::decide::{describe, describe_write, log_events, reached_events, script_failed};
use super::errand::Errand;
use super::turns::Turn;
use super::{Intake, PATIENCE, Snapshot, author, hook, too_busy};
use crate::aside;
use crate::clock::{self, Instant};
use crate::config::route::{AtRcpt, Facts};
use crate::event::{Event, Kind};
use crate::kv;
use crate::mail::{Address, MessageId};
use crate::rules::outcome::Effect;
use crate::rules::{Happening, HappeningCall, HappeningOutcome, Lent, Seed};
use crate::store::{Acceptance, NewDelivery, TellTask};

/// The network whose turns these runs take.
pub(super) const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What the handler came to.
#[derive(Default)]
pub struct Told {
    pub deliveries: Vec<NewDelivery>,
    pub reads: Vec<kv::Read>,
    pub writes: Vec<kv::Write>,
    /// Mails that it wrote; of what is told there are none.
    pub authored: Vec<Acceptance>,
    pub events: Vec<Event>,
    /// Why it failed, if it did.
    pub failed: Option<String>,
}

impl Intake {
    /// Whether the worker of `recipient` has a handler for it. Asked for each delivery that ends.
    #[must_use]
    pub fn hears(&self, recipient: &Address, happening: Happening) -> bool {
        let snapshot = self.current.load();
        snapshot.release.hears(happening)
            && main_of(&snapshot, recipient).is_some_and(|main| snapshot.release.has(&main, happening.handler()))
    }

    /// Runs the handler that the task is for; nothing, where the worker has none any more.
    ///
    /// # Errors
    /// Where it can't be run at all now; try later.
    pub async fn tell(&self, message: MessageId, task: TellTask) -> Result<Told, String> {
        let snapshot = self.current.load();
        let mut told = Told::default();
        let Some(call) = end(&snapshot, message, &task, clock::seed()) else { return Ok(told) };
        if !snapshot.release.has(&call.main, call.happening.handler()) {
            return Ok(told);
        }
        let turn = self.turns.take(NOWHERE, Instant::now() + PATIENCE).await;
        let turn = turn.ok_or_else(|| too_busy().to_string())?;
        let errand = Errand::new(&self.ways, &self.turns, &snapshot.config, NOWHERE);
        self.handle(&snapshot, call, &task.recipient, "what was told", (turn, &errand), &mut told).await?;
        Ok(told)
    }

    /// Runs a handler. `recipient`: whose it is; `about`: what its mails are about, in words.
    pub(super) async fn handle(
        &self,
        snapshot: &Snapshot,
        call: HappeningCall,
        recipient: &Address,
        about: &str,
        (turn, errand): (Turn, &Arc<Errand>),
        told: &mut Told,
    ) -> Result<(), String> {
        let (release, kv, errand) = (Arc::clone(&snapshot.release), self.store.kv(), Arc::clone(errand));
        let started = Instant::now();
        let run = aside::run(move || {
            let outcome = errand.within(turn, || release.happening(&call, &kv));
            (call, outcome)
        });
        let (call, outcome) = run.await.map_err(|error| error.to_string())?;
        told.take(snapshot, (recipient, about), call, outcome, started.elapsed());
        Ok(())
    }
}

impl Told {
    fn take(
        &mut self,
        snapshot: &Snapshot,
        (recipient, about): (&Address, &str),
        call: HappeningCall,
        outcome: HappeningOutcome,
        took: std::time::Duration,
    ) {
        let handler = call.happening.handler();
        let mut effects: Vec<String> = outcome.effects.iter().map(|(effect, at)| describe(None, effect, at)).collect();
        effects.extend(
            outcome
                .writes
                .iter()
                .zip(&outcome.writes_at)
                .map(|(write, at)| describe_write(write, at, &snapshot.release)),
        );
        let effects = effects.into_iter().map(|effect| snapshot.release.hide(effect)).collect();
        self.events.extend(reached_events(call.now, Some(recipient), outcome.reached));
        self.events.extend(log_events(call.now, Some(recipient), outcome.log));
        match outcome.result {
            Ok(()) => {
                let kind = Kind::Handled {
                    handler: handler.to_owned(),
                    by: call.main,
                    effects,
                    operations: outcome.usage.operations,
                    micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                };
                self.events.push(Event::new(call.now, kind));
            }
            Err(error) => {
                self.events.push(script_failed(call.now, Some(recipient), handler, error.clone()));
                self.failed = Some(error);
            }
        }
        (self.reads, self.writes) = (outcome.reads, outcome.writes);
        for (effect, _) in outcome.effects {
            if let Effect::Mail(draft) = &effect {
                let mail = author::authored(&snapshot.config, draft, about, call.now);
                self.events.push(author::written(draft, &mail, call.now));
                self.authored.push(mail);
            }
            if let Effect::Webhook { target, method, headers, body } = effect {
                let asked = hook::Asked { target: &target, method: &method, headers: &headers, quiet: true };
                self.deliveries.push(hook::delivery(&snapshot.config, &asked, hook::body(body), recipient, call.now));
            }
        }
    }
}

/// The worker for mail to that address, if it is one of ours.
fn main_of(snapshot: &Snapshot, recipient: &Address) -> Option<String> {
    let domain = snapshot.config.domain_for(recipient)?;
    // As RCPT would choose it: the message itself is long gone.
    let facts = Facts { recipient, sender: None, ip: NOWHERE, message: None, auth: None };
    let route = match snapshot.config.route_at_rcpt(&facts) {
        AtRcpt::Ask(route) => route,
        AtRcpt::Accept | AtRcpt::Refuse(_) => None,
    };
    Some(snapshot.config.main_for(Some(domain), route))
}

/// How the worker is told that something ended; `None`: mail to that address is none of ours any more.
pub(super) fn end(snapshot: &Snapshot, message: MessageId, task: &TellTask, seed: Seed) -> Option<HappeningCall> {
    let domain = snapshot.config.domain_for(&task.recipient)?;
    Some(HappeningCall {
        happening: if task.delivered { Happening::Delivered } else { Happening::Failed },
        main: main_of(snapshot, &task.recipient)?,
        subaddress: domain.subaddress.clone(),
        event: event(message, task),
        now: clock::now(),
        seed,
        reach: Lent::default(),
    })
}

/// What the handler reads.
fn event(message: MessageId, task: &TellTask) -> serde_json::Value {
    json!({
        "kind": task.what,
        "message_id": message,
        "to": task.recipient,
        "destination": task.destination,
        "status": task.status,
        "reply": task.reply,
        "attempts": task.attempts,
        "at": task.at.as_millis(),
    })
}
