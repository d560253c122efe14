//! One attempt at a batch: by relay, by webhook, by a notice or by running the worker again.
//!
//! Input: claimed deliveries of one message. Output: a settlement for each, the connection where it is good for the
//! next, and what was learnt of the destination's health. An attempt is bounded in time as a whole, and never waits for
//! octets while it has a place.

use std::sync::Arc;
use std::time::Duration;

use super::destination::Destination;
use super::held::Held;
use super::settle::{self, Judge, Relayed};
use super::share::Share;
use super::{Shared, owner};
use crate::clock::{self, Instant};
use crate::config::Config;
use crate::delivery::notice::{self, Prepared};
use crate::delivery::relay::connection::Connection;
use crate::delivery::relay::letter::{Content, Letter, Rcpt, added};
use crate::delivery::relay::{Outcome, Relay, Trouble as RelayTrouble, seconds};
use crate::delivery::route::{self, NextHop};
use crate::delivery::webhook::{Sent, Try};
use crate::delivery::{Failure, Side};
use crate::event::{Event, Kind};
use crate::store::{
    Body, DecideTask, Delivery, LARGE, NoticeTask, RelayTask, Settlement, StoreError, Task, TellTask, WebhookTask,
};

pub(super) use crate::delivery::relay::Extent;

/// An attempt takes no longer than this, and a second for so many octets: RFC 5321 §4.5.3.2 bounds each step alone.
const LONGEST: Duration = Duration::from_mins(30);
const OCTETS_A_SECOND: usize = 8 * 1024;
/// Notices at once for senders of one domain, whose name servers may be silent.
const SAME_SENDERS: usize = 4;
/// Before a notice is looked at again that had to wait for those.
const NOTICE_WAIT: Duration = Duration::from_secs(10);

/// What came of it.
pub(super) struct Attempt {
    pub settlements: Vec<Settlement>,
    pub connection: Option<Kept>,
    pub health: Health,
}

/// A connection that is good for the next message to the same hop.
pub(super) struct Kept {
    pub hop: NextHop,
    pub connection: Connection,
}

/// What was learnt of the destination.
pub(super) enum Health {
    /// Nothing: it wasn't asked.
    Unknown,
    Well,
    Trouble(Trouble),
}

/// The destination as a whole may have to rest.
#[derive(Debug)]
pub(super) struct Trouble {
    pub failure: Failure,
    /// The server that was spoken to.
    pub host: Option<String>,
    /// It asked for this long.
    pub wanted: Option<Duration>,
    pub extent: Extent,
}

impl From<Vec<Settlement>> for Attempt {
    fn from(settlements: Vec<Settlement>) -> Self {
        Self { settlements, connection: None, health: Health::Unknown }
    }
}

/// What one attempt stands in.
struct Scene<'a> {
    shared: &'a Shared,
    config: Arc<Config>,
    destination: &'a str,
    begun: Instant,
}

/// Attempts `batch`, as soon as there is a place for it.
pub(super) async fn attempt(shared: &Shared, destination: &Destination, batch: &[Held], kept: Option<Kept>) -> Attempt {
    let Some(first) = batch.first() else { return Vec::new().into() };
    let mut payload: Option<Share<'_>> = None;
    loop {
        let place = match &first.task {
            Task::Relay(_) | Task::Webhook(_) => shared.places.take(&destination.first_place, 1).await,
            // No remote of theirs can hold these up for long; their lanes bound them.
            Task::Notice(_) | Task::Decide(_) | Task::Tell(_) => None,
        };
        let config = shared.parts.config.load_full();
        let scene = Scene { shared, config, destination: &destination.name, begun: Instant::now() };
        let (batch, astray) = scene.part(batch);
        let mut attempt: Attempt = match scene.body(first).await {
            _ if batch.is_empty() => Vec::new().into(),
            Ok(Some(body)) if payload.is_none() && is_copied(first, &body) => {
                let kib = u32::try_from(body.raw.len() / 1024).unwrap_or(u32::MAX).min(super::MAX_PAYLOADS_KIB);
                payload = shared.payloads.try_take(&destination.first_large, kib);
                if payload.is_none() {
                    // The place isn't kept while others have what is there.
                    drop((place, body));
                    payload = shared.payloads.take(&destination.first_large, kib).await;
                    continue;
                }
                scene.carry(&batch, Some(body), kept).await
            }
            Ok(body) => scene.carry(&batch, body, kept).await,
            Err(error) => scene.without_body(&batch, &error),
        };
        attempt.settlements.extend(astray);
        return attempt;
    }
}

/// Whether a request's body is made of a large message, which takes as much memory for as long as it is sent.
fn is_copied(delivery: &Delivery, body: &Body) -> bool {
    let made = matches!(&delivery.task, Task::Webhook(task) if task.body.is_made());
    made && body.raw.len() > LARGE
}

impl Scene<'_> {
    fn judge(&self) -> Judge<'_> {
        Judge::now(&self.config, self.shared.ears(), self.destination, self.begun.elapsed())
    }

    /// Those that still belong to this destination, and a settlement for each that by the configuration in force doesn't:
    /// it is placed anew, for one transaction goes to one next hop alone.
    fn part<'b>(&self, batch: &'b [Held]) -> (Vec<&'b Delivery>, Vec<Settlement>) {
        let (mut here, mut astray) = (Vec::with_capacity(batch.len()), Vec::new());
        for held in batch {
            if Arc::ptr_eq(&held.config, &self.config) || owner::share(&self.config, held).0 == self.destination {
                here.push(&**held);
            } else {
                astray.push(settle::postponed(held.key, clock::now()));
            }
        }
        (here, astray)
    }

    /// The message's octets, where they are needed: warm or read back.
    async fn body(&self, delivery: &Delivery) -> Result<Option<Arc<Body>>, StoreError> {
        let needs_none = match &delivery.task {
            Task::Webhook(task) => !task.body.is_made(),
            Task::Tell(_) => true,
            _ => false,
        };
        if needs_none {
            return Ok(None);
        }
        if let Some(warm) = &delivery.warm {
            return Ok(Some(Arc::clone(warm.body())));
        }
        self.shared.parts.store.body(delivery.key.message).await.map(|body| Some(Arc::new(body)))
    }

    async fn carry(&self, batch: &[&Delivery], body: Option<Arc<Body>>, kept: Option<Kept>) -> Attempt {
        let Some(first) = batch.first() else { return Vec::new().into() };
        match (&first.task, body) {
            (Task::Relay(_), Some(body)) => self.relay(batch, &body, kept).await,
            (Task::Webhook(task), body) => self.webhook(first, task, body.as_deref()).await,
            (Task::Notice(task), Some(body)) => self.notice(first, task, &body).await,
            (Task::Decide(task), Some(body)) => self.decide(first, task, body).await,
            (Task::Tell(task), _) => self.tell(first, task).await,
            (_, None) => self.without_body(batch, &StoreError::Failed("its octets were not read".into())),
        }
    }

    fn without_body(&self, batch: &[&Delivery], error: &StoreError) -> Attempt {
        let gone = matches!(error, StoreError::NotFound(_));
        let failure = if gone {
            Failure::never(Side::Ours, "5.3.0", format!("the message can't be sent any more: {error}"))
        } else {
            Failure::later(Side::Ours, "4.3.0", format!("the message can't be read: {error}"))
        };
        if !gone {
            self.unreadable(batch, error.to_string());
        }
        self.unsent(batch, &failure)
    }

    /// A disk that fails is told.
    fn unreadable(&self, batch: &[&Delivery], detail: String) {
        if let Some(first) = batch.first() {
            let fault = Kind::Fault { what: "read a message".into(), detail };
            self.shared.parts.bus.publish(Event::new(clock::now(), fault).of(first.key.message));
        }
    }

    fn unsent(&self, batch: &[&Delivery], failure: &Failure) -> Attempt {
        let judge = self.judge();
        batch.iter().map(|delivery| judge.unsent(delivery, failure)).collect::<Vec<_>>().into()
    }

    async fn relay(&self, batch: &[&Delivery], body: &Body, kept: Option<Kept>) -> Attempt {
        let parts = &self.shared.parts;
        let tasks: Vec<&RelayTask> = batch.iter().filter_map(|delivery| relay_task(delivery)).collect();
        let Some(first) = tasks.first() else { return Vec::new().into() };
        let capture = parts.capture.as_ref().map(|capture| capture.smtp);
        let ready = self.shared.tls.as_ref().map_err(Clone::clone);
        let (tls, hop) = match ready.and_then(|tls| Ok((tls, route::next_hop(&self.config, first, capture)?))) {
            Ok(ready) => ready,
            Err(failure) => return self.unsent(batch, &failure),
        };
        let letter = Letter {
            envelope: body.envelope.clone(),
            recipients: tasks.iter().map(|task| rcpt(task)).collect(),
            content: Content {
                added: added(&first.headers),
                head: body.head.clone(),
                raw: body.raw.clone(),
                removed: first.removed.clone(),
            },
        };
        let relay = Relay { config: &self.config, dns: &parts.dns, tls, network: &parts.network };
        let reuse = kept.filter(|kept| kept.hop == hop).map(|kept| kept.connection);
        let limit = LONGEST + Duration::from_secs((letter.content.size() / OCTETS_A_SECOND) as u64);
        let sending = tokio::time::timeout(limit, relay.send(&hop, &letter, reuse));
        let outcome = sending.await.unwrap_or_else(|_| overdue(limit, letter.recipients.len()));
        if let Some(detail) = outcome.unread {
            self.unreadable(batch, detail);
        }
        let judge = self.judge();
        let relayed = Relayed { peer: outcome.peer, tls: outcome.tls, passes_dsn: outcome.passes_dsn };
        let results = batch.iter().zip(tasks).zip(outcome.results);
        let settlements =
            results.map(|((delivery, task), result)| judge.relayed(delivery, task, result, &relayed)).collect();
        let health = outcome.trouble.map_or(Health::Well, |RelayTrouble { extent, failure }| {
            Health::Trouble(Trouble { failure, host: relayed.peer, wanted: None, extent })
        });
        let connection = outcome.connection.map(|connection| Kept { hop, connection });
        Attempt { settlements, connection, health }
    }

    async fn webhook(&self, delivery: &Delivery, task: &WebhookTask, body: Option<&Body>) -> Attempt {
        let webhooks = match &self.shared.webhooks {
            Ok(webhooks) => webhooks,
            Err(failure) => return vec![self.judge().unsent(delivery, failure)].into(),
        };
        let this = Try { key: delivery.key, attempt: delivery.attempts + 1, now: clock::now() };
        let capture = self.shared.parts.capture.as_ref().map(|capture| &capture.http);
        let sent = webhooks.send(&self.config, this, task, body, capture).await;
        let health = match &sent.result {
            Err(failure) if sent.pauses => {
                let named = self.config.named_webhook(task.binding.as_deref(), &task.url).is_some();
                Health::Trouble(webhook_trouble(failure.clone(), &sent, named))
            }
            Err(failure) if failure.side == Side::Ours => Health::Unknown,
            _ => Health::Well,
        };
        Attempt { settlements: vec![self.judge().hooked(delivery, sent)], connection: None, health }
    }

    async fn notice(&self, delivery: &Delivery, task: &NoticeTask, body: &Body) -> Attempt {
        let sender = body.envelope.sender.as_ref().map_or_else(String::new, crate::mail::Address::domain_key);
        let Some(_turn) = self.shared.senders.enter(&sender, SAME_SENDERS) else {
            let wait = crate::delivery::retry::jitter(NOTICE_WAIT, fastrand::f64());
            return vec![settle::postponed(delivery.key, clock::now().plus(wait))].into();
        };
        let (dns, message) = (&self.shared.parts.dns, delivery.key.message);
        let prepared = notice::prepare(&self.config, dns, message, task, body, clock::now()).await;
        let judge = self.judge();
        let settlement = match prepared {
            Prepared::Send(notice) => settle::noticed(delivery, body, notice, judge.now),
            Prepared::Suppressed { why } => settle::suppressed(delivery, body, why, judge.now),
            Prepared::Unread(error) => return self.without_body(&[delivery], &error),
            Prepared::Later { why } => judge.unsent(delivery, &Failure::later(Side::Network, "4.4.3", why)),
        };
        vec![settlement].into()
    }

    async fn decide(&self, delivery: &Delivery, task: &DecideTask, body: Arc<Body>) -> Attempt {
        let decider = &self.shared.parts.decider;
        let run = decider.decide(delivery.key, body, task.clone()).await;
        vec![self.judge().decided(delivery, task, run)].into()
    }

    async fn tell(&self, delivery: &Delivery, task: &TellTask) -> Attempt {
        let told = self.shared.parts.decider.tell(delivery.key, task.clone()).await;
        vec![self.judge().heard(delivery, told)].into()
    }
}

/// An endpoint that says how long it wants to be left alone is there; one that answers 502 to 504 isn't. A URL that no
/// `[[webhook]]` names shares its queue with its host's others: its answer is about itself alone.
fn webhook_trouble(failure: Failure, sent: &Sent, named: bool) -> Trouble {
    let extent = if !named && sent.status.is_some() {
        Extent::Partly
    } else if sent.status == Some(429) || sent.retry_after.is_some() {
        Extent::Busy
    } else {
        Extent::Unreachable
    };
    let host = Some(sent.host.clone()).filter(|host| !host.is_empty());
    Trouble { failure, host, wanted: sent.retry_after.filter(|_| named), extent }
}

fn overdue(limit: Duration, recipients: usize) -> Outcome {
    let failure = Failure::later(Side::Network, "4.4.2", format!("the attempt was given up after {}", seconds(limit)));
    Outcome {
        results: (0..recipients).map(|_| Err(failure.clone())).collect(),
        peer: None,
        tls: None,
        passes_dsn: false,
        connection: None,
        trouble: Some(RelayTrouble { extent: Extent::Broke, failure }),
        unread: None,
    }
}

fn relay_task(delivery: &Delivery) -> Option<&RelayTask> {
    if let Task::Relay(task) = &delivery.task { Some(task) } else { None }
}

fn rcpt(task: &RelayTask) -> Rcpt {
    Rcpt { address: task.recipient.clone(), notify: task.notify, orcpt: task.orcpt.clone() }
}
