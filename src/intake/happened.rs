//! A worker is told how something ended: `delivered`, `failed`. What it asks for commits with the task that told it.
//!
//! The task was queued in the transaction that settled what ended, so a power cut between the two loses nothing; it is
//! settled with the handler's effects, so that these happen once. A webhook that such a handler asks for is told to none.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::json;

use super::decide::{describe, describe_write, log_events, reached_events, script_failed};
use super::decider::{decider, main_of, rules_of};
use super::errand::Errand;
use super::turns::Turn;
use super::{Intake, PATIENCE, Snapshot, author, hook, too_busy};
use crate::aside;
use crate::clock::{self, Instant};
use crate::event::{Event, Kind};
use crate::kv;
use crate::mail::{Address, MessageId};
use crate::rules::outcome::Effect;
use crate::rules::{Happening, HappeningCall, HappeningOutcome, Lent, Release, Seed};
use crate::store::{Acceptance, Decider, DeliveryKey, NewDelivery, TellTask};

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
    /// Whether the worker that decided, or else that of `recipient`, has a handler for it. Asked for each delivery that ends.
    #[must_use]
    pub fn hears(&self, by: Option<&Decider>, recipient: &Address, happening: Happening) -> bool {
        let snapshot = self.current.load();
        let rules = rules_of(&snapshot, by);
        rules.hears(happening)
            && main_of(&snapshot, by, recipient).is_some_and(|main| rules.has(&main, happening.handler()))
    }

    /// Runs the handler that the task is for; nothing, where the worker has none any more.
    ///
    /// # Errors
    /// Where it can't be run at all now; try later.
    pub async fn tell(&self, key: DeliveryKey, task: TellTask) -> Result<Told, String> {
        let snapshot = self.current.load();
        let mut told = Told::default();
        let call = end(&snapshot, key.message, &task, clock::seed_of(&("tell", key)));
        let Some((rules, call)) = call else { return Ok(told) };
        if !rules.has(&call.main, call.happening.handler()) {
            return Ok(told);
        }
        let turn = self.turns.take(NOWHERE, Instant::now() + PATIENCE).await;
        let turn = turn.ok_or_else(|| too_busy().to_string())?;
        let errand = Errand::new(&self.ways, &self.turns, &snapshot.config, NOWHERE);
        self.handle((&snapshot, rules), call, &task.recipient, "what was told", (turn, &errand), &mut told).await?;
        Ok(told)
    }

    /// Runs a handler. `recipient`: whose it is; `about`: what its mails are about, in words.
    pub(super) async fn handle(
        &self,
        (snapshot, rules): (&Snapshot, &Arc<Release>),
        call: HappeningCall,
        recipient: &Address,
        about: &str,
        (turn, errand): (Turn, &Arc<Errand>),
        told: &mut Told,
    ) -> Result<(), String> {
        let (release, kv, errand) = (Arc::clone(rules), self.store.kv(), Arc::clone(errand));
        let started = Instant::now();
        let run = aside::run(move || {
            let outcome = errand.within(turn, || release.happening(&call, &kv));
            (call, outcome)
        });
        let (call, outcome) = run.await.map_err(|error| error.to_string())?;
        told.take((snapshot, rules), (recipient, about), call, outcome, started.elapsed());
        Ok(())
    }
}

impl Told {
    pub(super) fn take(
        &mut self,
        (snapshot, rules): (&Snapshot, &Arc<Release>),
        (recipient, about): (&Address, &str),
        call: HappeningCall,
        outcome: HappeningOutcome,
        took: std::time::Duration,
    ) {
        let handler = call.happening.handler();
        let by = decider(snapshot, rules, || call.main.clone());
        let mut effects: Vec<String> = outcome.effects.iter().map(|(effect, at)| describe(None, effect, at)).collect();
        let writes = outcome.writes.iter().zip(&outcome.writes_at);
        effects.extend(writes.map(|(write, at)| describe_write(write, at, rules)));
        let effects = effects.into_iter().map(|effect| rules.hide(effect)).collect();
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
                self.events.push(script_failed(rules, call.now, Some(recipient), handler, error.clone()));
                self.failed = Some(error);
            }
        }
        (self.reads, self.writes) = (outcome.reads, outcome.writes);
        for (effect, _) in outcome.effects {
            if let Effect::Mail(draft) = &effect {
                let mail = author::authored((&snapshot.config, rules), draft, about, by.as_ref(), call.now);
                self.events.push(author::written(draft, &mail, call.now));
                self.authored.push(mail);
            }
            if let Effect::Webhook { target, method, headers, body } = effect {
                let asked = hook::Asked { target: &target, method: &method, headers: &headers, quiet: true, by: None };
                self.deliveries.push(hook::delivery(&snapshot.config, &asked, hook::body(body), recipient, call.now));
            }
        }
    }
}

/// How the worker is told that something ended, and by which rules; `None`: mail to that address is none of ours any more.
pub(super) fn end<'a>(
    snapshot: &'a Snapshot,
    message: MessageId,
    task: &TellTask,
    seed: Seed,
) -> Option<(&'a Arc<Release>, HappeningCall)> {
    let domain = snapshot.config.domain_for(&task.recipient)?;
    let call = HappeningCall {
        happening: if task.delivered { Happening::Delivered } else { Happening::Failed },
        main: main_of(snapshot, task.by.as_ref(), &task.recipient)?,
        subaddress: domain.subaddress.clone(),
        event: event(message, task),
        now: clock::now(),
        seed,
        reach: Lent::default(),
    };
    Some((rules_of(snapshot, task.by.as_ref()), call))
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
