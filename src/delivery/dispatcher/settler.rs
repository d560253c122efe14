//! The one task that settles: whatever has ended is committed in one transaction, then told.
//!
//! An outcome that can't be stored (a full disk) is kept and tried again: its delivery stays held meanwhile, so that
//! nothing goes out twice. Ends when the last lane has, or when the stop has waited long enough.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time;

use super::Shared;
use crate::clock;
use crate::event::{Event, Kind};
use crate::store::{Accepted, Settled, Settlement, StoreError};

/// Settlements of one transaction.
const BATCH: usize = 256;
/// Before what couldn't be stored is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Before a worker whose keys were changed meanwhile runs again.
const OVERTAKEN: Duration = Duration::from_secs(1);

pub(super) async fn run(shared: Arc<Shared>, mut ends: mpsc::Receiver<Settlement>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut again: Vec<Settlement> = Vec::new();
    // Stands while others come in: however many they are, what waits has its turn.
    let turn = time::sleep(Duration::ZERO);
    tokio::pin!(turn);
    let mut open = true;
    while open || !again.is_empty() {
        tokio::select! {
            biased;
            () = &mut turn, if !again.is_empty() => batch.append(&mut again),
            received = ends.recv_many(&mut batch, BATCH), if open => open = received > 0,
            () = shared.over() => return,
        }
        let waits = !again.is_empty();
        // What depends on keys stands or falls by itself.
        let (alone, together): (Vec<_>, Vec<_>) = batch.drain(..).partition(|one| !one.kv_reads.is_empty());
        settle(&shared, together, &mut again).await;
        for one in alone {
            settle(&shared, vec![one], &mut again).await;
        }
        if !waits && !again.is_empty() {
            turn.as_mut().reset(time::Instant::now() + AGAIN);
        }
    }
}

/// All of them in one transaction; where that fails, each by itself.
async fn settle(shared: &Shared, batch: Vec<Settlement>, again: &mut Vec<Settlement>) {
    if batch.is_empty() {
        return;
    }
    match shared.parts.store.settle(batch.clone()).await {
        Ok(Accepted::Committed) => settled(shared, batch),
        Ok(Accepted::Overtaken) => {
            let due = clock::now().plus(OVERTAKEN);
            again.extend(batch.into_iter().map(|one| super::settle::postponed(one.key, due)));
        }
        Err(error) => match <[Settlement; 1]>::try_from(batch) {
            Ok([one]) => unsettled(shared, one, &error, again),
            Err(batch) => {
                for one in batch {
                    match shared.parts.store.settle(vec![one.clone()]).await {
                        Ok(_) => settled(shared, vec![one]),
                        Err(error) => unsettled(shared, one, &error, again),
                    }
                }
            }
        },
    }
}

fn settled(shared: &Shared, batch: Vec<Settlement>) {
    let count = batch.len();
    for event in batch.into_iter().flat_map(|one| one.events) {
        shared.parts.bus.publish(event);
    }
    shared.release(count);
}

fn unsettled(shared: &Shared, mut one: Settlement, error: &StoreError, again: &mut Vec<Settlement>) {
    let gone = matches!(error, StoreError::NotFound(_));
    if matches!(error, StoreError::Closed) || (gone && matches!(one.result, Settled::Postponed { .. })) {
        shared.release(1);
        return;
    }
    let detail = format!("delivery {} of {} has ended, and that can't be stored: {error}", one.key.n, one.key.message);
    let fault = Kind::Fault { what: "settle".into(), detail };
    shared.parts.bus.publish(Event::new(clock::now(), fault).of(one.key.message));
    if gone {
        // Its message's row is gone, and nothing can be queued on it any more: without that the delivery has its end.
        one.then.clear();
    }
    again.push(one);
}
