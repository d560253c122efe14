//! A lane: attempts one batch after the other for one destination, over one connection as long as that is good.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time;

use super::attempt::{self, Attempt, Trouble};
use super::destination::Destination;
use super::{Batch, Shared, settle};
use crate::clock;
use crate::delivery::relay::connection::Connection;
use crate::delivery::retry;
use crate::event::{Event, Kind};
use crate::mail::Timestamp;
use crate::store::{DeliveryKey, Settlement};

/// How long a connection is kept for the next message.
const LINGER: Duration = Duration::from_secs(5);
/// After a fault of our own.
const FAULT: Duration = Duration::from_mins(1);
/// A destination's first rest is no longer than this.
const FIRST_REST: Duration = Duration::from_secs(30);

struct Lane {
    shared: Arc<Shared>,
    destination: Arc<Destination>,
    ended: mpsc::Sender<Settlement>,
    connection: Option<Connection>,
}

/// Starts one, which the destination has counted already.
pub(super) fn start(shared: &Arc<Shared>, destination: &Arc<Destination>) {
    match shared.way_to_settler() {
        Some(ended) => spawn(shared, destination, ended),
        None => destination.leave(),
    }
}

fn spawn(shared: &Arc<Shared>, destination: &Arc<Destination>, ended: mpsc::Sender<Settlement>) {
    let lane = Lane { shared: Arc::clone(shared), destination: Arc::clone(destination), ended, connection: None };
    // Its end is seen by the settler: with the last lane goes the last sender.
    let _lane = tokio::spawn(lane.run());
}

impl Lane {
    async fn run(mut self) {
        while self.shared.running() {
            if let Some(batch) = self.destination.take() {
                self.shared.freed.notify_one();
                if !self.serve(batch).await {
                    break;
                }
            } else if !self.linger().await && self.destination.end_lane() {
                return self.part().await;
            }
        }
        self.destination.leave();
        self.part().await;
    }

    async fn part(self) {
        // A slow goodbye mustn't hold up the settler's end.
        drop(self.ended);
        if let Some(connection) = self.connection {
            connection.quit().await;
        }
    }

    /// Keeps the connection for a while. False: nothing came.
    async fn linger(&mut self) -> bool {
        if self.connection.is_none() {
            return false;
        }
        if !self.destination.begin_idling() {
            return true;
        }
        let woken = tokio::select! {
            () = self.destination.wake.notified() => true,
            () = time::sleep(LINGER) => false,
            () = self.shared.draining() => false,
        };
        self.destination.end_idling();
        woken
    }

    /// One attempt, settled. False: there is no more time.
    async fn serve(&mut self, batch: Batch) -> bool {
        let keys: Vec<DeliveryKey> = batch.iter().map(|delivery| delivery.key).collect();
        let reuse = self.connection.take();
        let attempting = AssertUnwindSafe(attempt::attempt(&self.shared, &self.destination.name, batch, reuse));
        let attempted = tokio::select! {
            attempted = attempting.catch_unwind() => attempted,
            () = self.shared.over() => return false,
        };
        let attempt = attempted.unwrap_or_else(|_| self.fault(&keys));
        self.connection = attempt.connection;
        let now = clock::now();
        match attempt.trouble {
            Some(trouble) => self.rest(&trouble, now).await,
            None => self.destination.went_well(keys.len(), now),
        }
        for settlement in attempt.settlements {
            self.end(settlement).await;
        }
        while self.destination.wants_lane() {
            spawn(&self.shared, &self.destination, self.ended.clone());
        }
        true
    }

    async fn end(&mut self, settlement: Settlement) {
        // The settler goes only when the time for the stop is over: then it is due again at the next start.
        let _over = self.ended.send(settlement).await;
    }

    /// A panic: ours to find, and no delivery's end.
    fn fault(&self, keys: &[DeliveryKey]) -> Attempt {
        let now = clock::now();
        let detail = format!("an attempt for {} panicked; it is tried again", self.destination.name);
        let event = Event::new(now, Kind::Fault { what: "delivery".into(), detail });
        self.shared.parts.bus.publish(event);
        let settlements = keys.iter().map(|key| settle::postponed(*key, now.plus(FAULT))).collect();
        Attempt { settlements, connection: None, trouble: None }
    }

    /// Gives the destination a rest; what waits for it goes back to the store.
    async fn rest(&mut self, trouble: &Trouble, now: Timestamp) {
        let config = self.shared.parts.config.load_full();
        let first = config.relay.retry.first().copied().unwrap_or(FIRST_REST).min(FIRST_REST);
        let length = |failures| {
            let own = retry::pause(first, failures, fastrand::f64());
            trouble.wanted.map_or(own, |wanted| wanted.max(own))
        };
        let Some((until, waiting)) = self.destination.rest(now, length) else { return };
        let kind = Kind::DestinationPaused {
            destination: self.destination.name.clone(),
            until,
            reason: trouble.reason.clone(),
        };
        let event = Event::new(now, kind);
        self.shared.parts.store.log(event.clone());
        self.shared.parts.bus.publish(event);
        for delivery in waiting {
            let wait = until.since(now);
            let due = until.plus(wait.mul_f64(fastrand::f64() / 10.0));
            self.end(settle::postponed(delivery.key, due)).await;
        }
    }
}
