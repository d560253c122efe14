//! What the writer is handed: one thing to be committed, whole or not at all, and how it becomes rows.

use std::sync::Arc;

use super::{Done, Outcome};
use crate::kv;
use crate::mail::{MessageId, Timestamp};
use crate::store::apply::{self, Writing};
use crate::store::{
    Acceptance, Accepted, Body, DeliveryKey, Discharge, QueueFilter, Redecision, Settlement, keys, queue, releases,
    secrets,
};

/// Something to be committed, whole or not at all.
#[derive(Debug)]
pub(in crate::store) enum Work {
    Accept(Box<Acceptance>),
    Settle(Vec<Settlement>),
    Keys {
        writes: Vec<kv::Write>,
        now: Timestamp,
    },
    Discharge(Discharge),
    Secret(secrets::Change),
    Redecide(Box<Redecision>),
    Release(releases::Change),
    /// An admin's hand on a batch of the queue, past `after`.
    Queue {
        verb: queue::Verb,
        filter: Box<QueueFilter>,
        after: Option<DeliveryKey>,
        now: Timestamp,
    },
}

impl Work {
    pub(super) fn octets(&self) -> usize {
        match self {
            Self::Accept(acceptance) => {
                let authored = acceptance.authored.iter().map(|one| one.body.in_memory()).sum::<usize>();
                acceptance.head.len() + acceptance.body.in_memory() + authored
            }
            Self::Redecide(redecision) => redecision.authored.iter().map(|one| one.body.in_memory()).sum(),
            _ => 0,
        }
    }

    pub(super) fn apply(&self, writing: &mut Writing<'_>) -> Outcome {
        match self {
            Self::Accept(acceptance) => {
                let mut all = Vec::with_capacity(1);
                apply::accept(writing, acceptance, &mut all)?;
                Ok((Done::Accepted(Accepted::Committed), all))
            }
            Self::Settle(settlements) => {
                let mut all = Vec::with_capacity(settlements.len());
                for settlement in settlements {
                    apply::settle(writing, settlement, &mut all)?;
                }
                Ok((Done::Accepted(Accepted::Committed), all))
            }
            Self::Keys { writes, now } => {
                keys::write(writing.connection, writing.versions, writes, *now)?;
                Ok((Done::Batch(writes.len() as u64, None), Vec::new()))
            }
            Self::Secret(change) => {
                secrets::apply(writing.connection, change)?;
                Ok((Done::Batch(1, None), Vec::new()))
            }
            Self::Release(change) => {
                let id = releases::apply(writing.connection, change)?;
                Ok((Done::Batch(id.unsigned_abs(), None), Vec::new()))
            }
            Self::Discharge(release) => {
                let effects = apply::release(writing, release)?;
                Ok((Done::Batch(release.deliveries.len() as u64, None), vec![effects]))
            }
            Self::Redecide(redecision) => {
                let mut all = Vec::with_capacity(1);
                apply::redecide(writing, redecision, &mut all)?;
                Ok((Done::Accepted(Accepted::Committed), all))
            }
            Self::Queue { verb, filter, after, now } => {
                let batch = queue::act(writing.connection, *verb, filter, *after, *now)?;
                Ok((Done::Batch(batch.count, batch.next), vec![batch.effects]))
            }
        }
    }

    /// Whether it changes what a server runs by.
    pub(super) fn is_deployed(&self) -> bool {
        matches!(self, Self::Secret(_) | Self::Release(_))
    }

    /// The octets of what was accepted, by message, ready to be handed out with its deliveries.
    pub(super) fn into_bodies(self) -> Vec<(MessageId, Option<Arc<Body>>)> {
        let body = |acceptance: Acceptance| {
            let Acceptance { id, envelope, client, head, body, .. } = acceptance;
            (id, Some(Arc::new(Body { envelope, client, head, raw: body })))
        };
        match self {
            Self::Accept(mut acceptance) => {
                let authored = std::mem::take(&mut acceptance.authored);
                std::iter::once(*acceptance).chain(authored).map(body).collect()
            }
            Self::Settle(settlements) => {
                settlements.into_iter().flat_map(|settlement| settlement.authored).map(body).collect()
            }
            Self::Redecide(redecision) => redecision.authored.into_iter().map(body).collect(),
            _ => Vec::new(),
        }
    }
}
