//! One attempt at a batch: by relay, by webhook, by a notice or by running the worker again.
//!
//! Input: claimed deliveries of one message. Output: a settlement for each, the connection where it is good for the
//! next, and the destination's trouble where it is in one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::SemaphorePermit;

use super::settle::{self, Judge, Relayed};
use super::{Batch, Shared};
use crate::clock;
use crate::config::Config;
use crate::delivery::notice::{self, Prepared};
use crate::delivery::relay::Relay;
use crate::delivery::relay::connection::Connection;
use crate::delivery::relay::letter::{Content, Letter, Rcpt, added};
use crate::delivery::webhook::Try;
use crate::delivery::{Failure, Side, route};
use crate::store::{
    Body, DecideTask, Delivery, NoticeTask, RelayTask, Settlement, StoreError, Task, WebhookBody, WebhookTask,
};

/// What came of it.
pub(super) struct Attempt {
    pub settlements: Vec<Settlement>,
    pub connection: Option<Connection>,
    pub trouble: Option<Trouble>,
}

/// The destination as a whole should rest.
pub(super) struct Trouble {
    pub reason: String,
    /// It asked for this long.
    pub wanted: Option<Duration>,
}

impl From<Vec<Settlement>> for Attempt {
    fn from(settlements: Vec<Settlement>) -> Self {
        Self { settlements, connection: None, trouble: None }
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
pub(super) async fn attempt(
    shared: &Shared,
    destination: &str,
    batch: Batch,
    connection: Option<Connection>,
) -> Attempt {
    let Ok(_place) = shared.attempts.acquire().await else { return Vec::new().into() };
    let scene = Scene { shared, config: shared.parts.config.load_full(), destination, begun: Instant::now() };
    let Some(first) = batch.first() else { return Vec::new().into() };
    let needs_body = !matches!(&first.task, Task::Webhook(WebhookTask { body: WebhookBody::Json(_), .. }));
    let (body, _octets) = match if needs_body { scene.body(first).await } else { Ok((None, None)) } {
        Ok(found) => found,
        Err(error) => return scene.without_body(&batch, &error),
    };
    match (&first.task, body) {
        (Task::Relay(_), Some(body)) => scene.relay(&batch, &body, connection).await,
        (Task::Webhook(task), body) => scene.webhook(first, task, body.as_deref()).await,
        (Task::Notice(task), Some(body)) => scene.notice(first, task, &body).await,
        (Task::Decide(task), Some(body)) => scene.decide(first, task, body).await,
        (_, None) => scene.without_body(&batch, &StoreError::NotFound("its octets were not read".into())),
    }
}

type Found<'a> = (Option<Arc<Body>>, Option<SemaphorePermit<'a>>);

impl<'a> Scene<'a> {
    fn judge(&self) -> Judge<'_> {
        Judge {
            config: &self.config,
            destination: self.destination,
            now: clock::now(),
            chance: fastrand::f64(),
            took: self.begun.elapsed(),
        }
    }

    /// The message's octets: warm, or read back within the bound on what is read back.
    async fn body(&self, delivery: &Delivery) -> Result<Found<'a>, StoreError> {
        if let Some(warm) = &delivery.warm {
            return Ok((Some(Arc::clone(warm.body())), None));
        }
        let store = &self.shared.parts.store;
        let body = store.body(delivery.key.message).await?;
        let kib = u32::try_from(body.raw.len() / 1024 + 1).unwrap_or(u32::MAX).min(super::MAX_COLD_KIB);
        if let Ok(permit) = self.shared.cold.try_acquire_many(kib) {
            return Ok((Some(Arc::new(body)), Some(permit)));
        }
        // Not kept while it waits.
        drop(body);
        let permit = self.shared.cold.acquire_many(kib).await.map_err(|_| StoreError::Closed)?;
        let body = store.body(delivery.key.message).await?;
        Ok((Some(Arc::new(body)), Some(permit)))
    }

    fn without_body(&self, batch: &[Delivery], error: &StoreError) -> Attempt {
        let judge = self.judge();
        let gone = matches!(error, StoreError::NotFound(_));
        let failure = if gone {
            Failure::never(Side::Ours, "5.3.0", format!("the message can't be sent any more: {error}"))
        } else {
            Failure::later(Side::Ours, "4.3.0", format!("the message can't be read: {error}"))
        };
        batch.iter().map(|delivery| judge.unsent(delivery, &failure)).collect::<Vec<_>>().into()
    }

    async fn relay(&self, batch: &[Delivery], body: &Body, reuse: Option<Connection>) -> Attempt {
        let parts = &self.shared.parts;
        let tasks: Vec<&RelayTask> = batch.iter().filter_map(relay_task).collect();
        let Some(first) = tasks.first() else { return Vec::new().into() };
        let capture = parts.capture.as_ref().map(|capture| capture.smtp);
        let ready = self.shared.tls.as_ref().map_err(Clone::clone);
        let ready = ready.and_then(|tls| Ok((tls, route::next_hop(&self.config, first, capture)?)));
        let (tls, hop) = match ready {
            Ok(ready) => ready,
            Err(failure) => {
                let judge = self.judge();
                return batch.iter().map(|delivery| judge.unsent(delivery, &failure)).collect::<Vec<_>>().into();
            }
        };
        let letter = Letter {
            envelope: body.envelope.clone(),
            recipients: tasks.iter().map(|task| rcpt(task)).collect(),
            content: Content { added: added(&first.headers), head: body.head.clone(), raw: body.raw.clone() },
        };
        let relay = Relay { config: &self.config, dns: &parts.dns, tls };
        let outcome = relay.send(&hop, &letter, reuse).await;
        let judge = self.judge();
        let relayed = Relayed { peer: outcome.peer, tls: outcome.tls, passes_dsn: outcome.passes_dsn };
        let results = batch.iter().zip(tasks).zip(outcome.results);
        let settlements =
            results.map(|((delivery, task), result)| judge.relayed(delivery, task, result, &relayed)).collect();
        let trouble = outcome.trouble.map(|failure| Trouble { reason: failure.detail, wanted: None });
        Attempt { settlements, connection: outcome.connection, trouble }
    }

    async fn webhook(&self, delivery: &Delivery, task: &WebhookTask, body: Option<&Body>) -> Attempt {
        let webhooks = match &self.shared.webhooks {
            Ok(webhooks) => webhooks,
            Err(failure) => return vec![self.judge().unsent(delivery, failure)].into(),
        };
        let this = Try { key: delivery.key, attempt: delivery.attempts + 1, now: clock::now() };
        let capture = self.shared.parts.capture.as_ref().map(|capture| &capture.http);
        let sent = webhooks.send(&self.config, this, task, body, capture).await;
        let trouble = match &sent.result {
            Err(failure) if sent.pauses => Some(Trouble { reason: failure.detail.clone(), wanted: sent.retry_after }),
            _ => None,
        };
        Attempt { settlements: vec![self.judge().hooked(delivery, sent)], connection: None, trouble }
    }

    async fn notice(&self, delivery: &Delivery, task: &NoticeTask, body: &Body) -> Attempt {
        let (dns, message) = (&self.shared.parts.dns, delivery.key.message);
        let prepared = notice::prepare(&self.config, dns, message, task, body, clock::now()).await;
        let judge = self.judge();
        let settlement = match prepared {
            Prepared::Send(notice) => settle::noticed(delivery, body, notice, judge.now),
            Prepared::Suppressed { why } => settle::suppressed(delivery, body, why, judge.now),
            Prepared::Later { why } => judge.unsent(delivery, &Failure::later(Side::Network, "4.4.3", why)),
        };
        vec![settlement].into()
    }

    async fn decide(&self, delivery: &Delivery, task: &DecideTask, body: Arc<Body>) -> Attempt {
        let decider = &self.shared.parts.decider;
        let run = decider.decide(delivery.key.message, body, task.clone()).await;
        vec![self.judge().decided(delivery, task, run)].into()
    }
}

fn relay_task(delivery: &Delivery) -> Option<&RelayTask> {
    if let Task::Relay(task) = &delivery.task { Some(task) } else { None }
}

fn rcpt(task: &RelayTask) -> Rcpt {
    Rcpt { address: task.recipient.clone(), notify: task.notify, orcpt: task.orcpt.clone() }
}
