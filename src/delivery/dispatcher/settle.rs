//! What an attempt's result comes to: done, later, dead; a notice where one is due; the event that tells it. Pure but
//! for [`Judge::now`].
//!
//! Standards: RFC 5321 §4.5.4.1 and §6.1 (retries, and a notice when they end), RFC 3461 §4.1 and §5.2 (who wants which
//! notice), RFC 3463 (`4.4.7`: the time was up).

mod resting;
#[cfg(test)]
pub(super) mod tests;

use std::time::Duration;

use crate::clock;
use crate::config::Config;
use crate::delivery::retry::{self, Next};
use crate::delivery::webhook::Sent;
use crate::delivery::webhook::answer::clean;
use crate::delivery::{Decide, Decided, Failure, Retry};
use crate::event::{Attempted, Event, Kind, millis, shown_url};
use crate::mail::{Notify, Reply, Timestamp};
use crate::store::{
    Acceptance, Body, DecideTask, Delivery, DeliveryKey, MessageOutcome, NewDelivery, NoticeTask, RelayTask, Settled,
    Settlement, Task, TellTask,
};

use super::owner::TELL;

/// Characters of an answer that a worker hears.
const MAX_TOLD: usize = 600;

/// What a result is judged by.
pub(super) struct Judge<'a> {
    pub config: &'a Config,
    /// Who knows which workers are to hear how something ended.
    pub ears: &'a dyn Decide,
    pub destination: &'a str,
    pub now: Timestamp,
    /// In 0..1, for the jitter.
    pub chance: f64,
    pub took: Duration,
}

/// Where a letter went, whatever was said of it.
pub(super) struct Relayed {
    pub peer: Option<String>,
    pub tls: Option<String>,
    pub passes_dsn: bool,
}

/// The attempt was never made.
pub(super) fn postponed(key: DeliveryKey, due: Timestamp) -> Settlement {
    settlement(key, Settled::Postponed { due }, Vec::new())
}

/// The notice goes out as a message of ours.
pub(super) fn noticed(delivery: &Delivery, body: &Body, notice: Box<Acceptance>, now: Timestamp) -> Settlement {
    let mut done = settlement(delivery.key, Settled::Done, Vec::new());
    if let Some(to) = body.envelope.sender.clone() {
        done.events = told(delivery, now, Kind::NoticeSent { to, notice: notice.id });
    }
    done.authored = vec![*notice];
    done
}

/// No notice goes out, and why.
pub(super) fn suppressed(delivery: &Delivery, body: &Body, reason: String, now: Timestamp) -> Settlement {
    let kind = Kind::NoticeSuppressed { to: body.envelope.sender.clone(), reason };
    settlement(delivery.key, Settled::Done, told(delivery, now, kind))
}

fn told(delivery: &Delivery, now: Timestamp, kind: Kind) -> Vec<Event> {
    vec![Event::new(now, kind).of(delivery.key.message)]
}

fn settlement(key: DeliveryKey, result: Settled, events: Vec<Event>) -> Settlement {
    Settlement {
        key,
        result,
        events,
        then: Vec::new(),
        kv_reads: Vec::new(),
        kv_writes: Vec::new(),
        authored: Vec::new(),
        outcome: None,
        keep: None,
    }
}

/// One attempt's facts for its event.
#[derive(Default)]
struct Account {
    host: Option<String>,
    tls: Option<String>,
    answer: String,
    /// As a worker hears it: `5.1.1`, or HTTP's.
    status: String,
}

impl<'a> Judge<'a> {
    pub(super) fn now(config: &'a Config, ears: &'a dyn Decide, destination: &'a str, took: Duration) -> Self {
        Self { config, ears, destination, now: clock::now(), chance: fastrand::f64(), took }
    }
}

impl Judge<'_> {
    /// A recipient's answer.
    pub(super) fn relayed(
        &self,
        delivery: &Delivery,
        task: &RelayTask,
        result: Result<Reply, Failure>,
        relayed: &Relayed,
    ) -> Settlement {
        let account = |answer: String, status: String| Account {
            host: relayed.peer.clone(),
            tls: relayed.tls.clone(),
            answer,
            status,
        };
        match result {
            Ok(reply) => {
                let status = reply.enhanced().unwrap_or_else(|| "2.0.0".to_owned());
                let mut done = self.done(delivery, account(reply.to_string(), status.clone()));
                // Who wants to hear of success hears it from the last one that knows how (RFC 3461 §5.2.2).
                if task.notify.success && !relayed.passes_dsn {
                    let notice = notice("relayed", task, status, reply.to_string(), relayed.peer.clone());
                    done.then.push(self.queued(notice));
                }
                done
            }
            Err(failure) => {
                let account = account(failure.detail.clone(), failure.status.clone());
                let mut settlement = self.failed(delivery, &failure, account);
                let notices = self.notices(delivery, task, &failure, relayed, &mut settlement.result);
                settlement.then.extend(notices);
                settlement
            }
        }
    }

    /// The notices that a failure calls for; a notice of delay is noted in `result`.
    fn notices(
        &self,
        delivery: &Delivery,
        task: &RelayTask,
        failure: &Failure,
        relayed: &Relayed,
        result: &mut Settled,
    ) -> Vec<NewDelivery> {
        let diagnostic = failure.told();
        let remote = failure.speaker().and(relayed.peer.clone());
        match result {
            Settled::Dead { .. } if task.notify.failure => {
                let expired = failure.retry == Retry::Later;
                let status = if expired { "4.4.7".to_owned() } else { failure.status.clone() };
                vec![self.queued(notice("failed", task, status, diagnostic, remote))]
            }
            Settled::Later { delay_noticed, .. } if !*delay_noticed && self.is_delayed(delivery, task.notify) => {
                *delay_noticed = true;
                vec![self.queued(notice("delayed", task, failure.status.clone(), diagnostic, remote))]
            }
            _ => Vec::new(),
        }
    }

    fn is_delayed(&self, delivery: &Delivery, notify: Notify) -> bool {
        let wanted = notify.delay || !notify.explicit;
        let long = self.config.relay.delay_notice.is_some_and(|after| self.now.since(delivery.queued_at) >= after);
        wanted && long
    }

    fn queued(&self, task: NoticeTask) -> NewDelivery {
        NewDelivery { task: Task::Notice(task), destination: "notice".to_owned(), due: self.now }
    }

    /// An endpoint's answer.
    pub(super) fn hooked(&self, delivery: &Delivery, sent: Sent) -> Settlement {
        let host = Some(sent.host).filter(|host| !host.is_empty());
        let status = sent.status.map(|status| status.to_string()).unwrap_or_default();
        let account = |answer: String| Account { host, tls: None, answer, status };
        match sent.result {
            Ok(answer) => self.done(delivery, account(answer.to_string())),
            Err(failure) => {
                let mut settlement = self.failed(delivery, &failure, account(failure.detail.clone()));
                if let (Settled::Later { due, .. }, Some(wanted)) = (&mut settlement.result, sent.retry_after) {
                    *due = (*due).max(self.now.plus(wanted));
                    let next = *due;
                    correct_next(&mut settlement.events, next);
                }
                if let Some(write) = sent.disables {
                    let disabled = Kind::EndpointDisabled { endpoint: target(&delivery.task), reason: failure.detail };
                    settlement.events.push(Event::new(self.now, disabled).of(delivery.key.message));
                    settlement.kv_writes.push(write);
                }
                settlement
            }
        }
    }

    /// The worker's second run.
    pub(super) fn decided(&self, delivery: &Delivery, task: &DecideTask, decided: Decided) -> Settlement {
        match decided {
            Decided::Done { deliveries, authored, quarantined, keep, kv_reads, kv_writes, mut events } => {
                let sends = !authored.is_empty()
                    || deliveries.iter().any(|new| matches!(new.task, Task::Relay(_) | Task::Webhook(_)));
                let mut done = self.done(delivery, Account { answer: "decided".to_owned(), ..Account::default() });
                own(&mut events, delivery);
                done.events.splice(0..0, events);
                done.outcome = if quarantined {
                    Some(MessageOutcome::Quarantined)
                } else {
                    sends.then_some(MessageOutcome::Accepted)
                };
                Settlement { then: deliveries, authored, keep, kv_reads, kv_writes, ..done }
            }
            Decided::Later { error, mut events } => {
                let failure = Failure::later(crate::delivery::Side::Ours, "4.3.0", error);
                let account = Account { answer: failure.detail.clone(), ..Account::default() };
                let mut settlement = self.failed(delivery, &failure, account);
                own(&mut events, delivery);
                settlement.events.splice(0..0, events);
                if matches!(settlement.result, Settled::Dead { .. }) && task.recipient.notify.failure {
                    let recipient = &task.recipient;
                    let notice = NoticeTask {
                        action: "failed".to_owned(),
                        recipient: recipient.original.clone().unwrap_or_else(|| recipient.address.clone()),
                        orcpt: recipient.orcpt.clone(),
                        status: "4.4.7".to_owned(),
                        // What fails in a worker is the admin's to know.
                        diagnostic: "The rules for this address could not be carried out".to_owned(),
                        remote: None,
                    };
                    settlement.then = vec![self.queued(notice)];
                }
                settlement
            }
        }
    }

    /// A worker that was told.
    pub(super) fn heard(&self, delivery: &Delivery, decided: Decided) -> Settlement {
        match decided {
            Decided::Done { deliveries, kv_reads, kv_writes, mut events, .. } => {
                let mut done = self.done(delivery, Account { answer: "told".to_owned(), ..Account::default() });
                own(&mut events, delivery);
                done.events.splice(0..0, events);
                Settlement { then: deliveries, kv_reads, kv_writes, ..done }
            }
            Decided::Later { error, mut events } => {
                let failure = Failure::later(crate::delivery::Side::Ours, "4.3.0", error);
                let account = Account { answer: failure.detail.clone(), ..Account::default() };
                let mut settlement = self.failed(delivery, &failure, account);
                own(&mut events, delivery);
                settlement.events.splice(0..0, events);
                settlement
            }
        }
    }

    /// Nothing was sent, for a reason of ours.
    pub(super) fn unsent(&self, delivery: &Delivery, failure: &Failure) -> Settlement {
        let account = Account { answer: failure.detail.clone(), status: failure.status.clone(), ..Account::default() };
        let mut settlement = self.failed(delivery, failure, account);
        if let Task::Relay(task) = &delivery.task {
            let nobody = Relayed { peer: None, tls: None, passes_dsn: false };
            let notices = self.notices(delivery, task, failure, &nobody, &mut settlement.result);
            settlement.then.extend(notices);
        }
        settlement
    }

    fn done(&self, delivery: &Delivery, account: Account) -> Settlement {
        let told = self.told(delivery, true, &account);
        let event = self.attempted(delivery, "delivered", account, None);
        Settlement { then: told, ..settlement(delivery.key, Settled::Done, vec![event]) }
    }

    /// Again by the schedule, or no more.
    fn failed(&self, delivery: &Delivery, failure: &Failure, account: Account) -> Settlement {
        let attempts = delivery.attempts + 1;
        let next = match failure.retry {
            Retry::Never => None,
            Retry::Later => match self.schedule(delivery, attempts) {
                Next::At(due) => Some(due),
                Next::Expired => None,
            },
        };
        let error = failure.detail.clone();
        if let Some(due) = next {
            let event = self.attempted(delivery, "later", account, Some(due));
            let result = Settled::Later { due, error, delay_noticed: delivery.delay_noticed };
            return settlement(delivery.key, result, vec![event]);
        }
        let reason = if failure.retry == Retry::Later {
            format!("given up after {attempts} attempts; the last one: {error}")
        } else {
            error
        };
        let told = self.told(delivery, false, &account);
        let attempted = self.attempted(delivery, "failed", account, None);
        let failed = Kind::Failed {
            delivery: delivery.key.n,
            destination: self.destination.to_owned(),
            target: target(&delivery.task),
            reason: reason.clone(),
            attempts,
        };
        let failed = Event::new(self.now, failed).of(delivery.key.message);
        Settlement { then: told, ..settlement(delivery.key, Settled::Dead { error: reason }, vec![attempted, failed]) }
    }

    /// What the worker hears of an end, in the transaction that settles it.
    fn told(&self, delivery: &Delivery, delivered: bool, account: &Account) -> Vec<NewDelivery> {
        let (recipient, by, kind) = match &delivery.task {
            Task::Relay(task) => (&task.original, &task.by, if task.own { "mail" } else { "forward" }),
            Task::Webhook(task) if !task.quiet => (&task.recipient, &task.by, "webhook"),
            _ => return Vec::new(),
        };
        if !self.ears.hears(by.as_ref(), recipient, delivered) {
            return Vec::new();
        }
        let task = TellTask {
            delivered,
            recipient: recipient.clone(),
            what: kind.to_owned(),
            destination: target(&delivery.task),
            status: account.status.clone(),
            reply: clean(&account.answer, MAX_TOLD),
            attempts: delivery.attempts + 1,
            at: self.now,
            by: by.clone(),
        };
        vec![NewDelivery { task: Task::Tell(task), destination: TELL.to_owned(), due: self.now }]
    }

    fn schedule(&self, delivery: &Delivery, attempts: u32) -> Next {
        if let Task::Webhook(_) | Task::Tell(_) = delivery.task {
            return retry::webhook(&self.config.webhook_defaults.retry, attempts, self.now, self.chance);
        }
        let relay = &self.config.relay;
        retry::relay(&relay.retry, relay.expire, attempts, delivery.queued_at, self.now, self.chance)
    }

    fn attempted(&self, delivery: &Delivery, outcome: &str, account: Account, next: Option<Timestamp>) -> Event {
        let attempted = Attempted {
            delivery: delivery.key.n,
            kind: kind(&delivery.task).to_owned(),
            destination: self.destination.to_owned(),
            target: target(&delivery.task),
            host: account.host,
            attempt: delivery.attempts + 1,
            outcome: outcome.to_owned(),
            answer: account.answer,
            millis: millis(self.took),
            next,
            tls: account.tls,
        };
        Event::new(self.now, Kind::Attempted(Box::new(attempted))).of(delivery.key.message)
    }
}

fn correct_next(events: &mut [Event], due: Timestamp) {
    for event in events {
        if let Kind::Attempted(attempted) = &mut event.kind {
            attempted.next = Some(due);
        }
    }
}

/// A worker's events are told of the message that it ran for.
fn own(events: &mut [Event], delivery: &Delivery) {
    for event in events {
        event.message = Some(delivery.key.message);
    }
}

fn notice(action: &str, task: &RelayTask, status: String, diagnostic: String, remote: Option<String>) -> NoticeTask {
    NoticeTask {
        action: action.to_owned(),
        // As the sender knows it, not where we sent it on.
        recipient: task.original.clone(),
        orcpt: task.orcpt.clone(),
        status,
        diagnostic,
        remote,
    }
}

fn kind(task: &Task) -> &'static str {
    match task {
        Task::Relay(_) => "relay",
        Task::Webhook(_) => "webhook",
        Task::Notice(_) => "notice",
        Task::Decide(_) => "decide",
        Task::Tell(_) => "tell",
    }
}

/// To whom, as it may stand in a log.
fn target(task: &Task) -> String {
    match task {
        Task::Relay(task) => task.recipient.to_string(),
        Task::Webhook(task) => task.binding.clone().unwrap_or_else(|| shown_url(&task.url)),
        Task::Notice(task) => task.recipient.to_string(),
        Task::Decide(task) => task.recipient.address.to_string(),
        Task::Tell(task) => task.recipient.to_string(),
    }
}
