//! A lane: attempts one batch after the other for one destination, over one connection as long as that is good.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time;

use super::attempt::{self, Attempt, Extent, Health, Kept, Trouble};
use super::destination::Destination;
use super::settle::Judge;
use super::{Batch, Shared};
use crate::clock;
use crate::delivery::{Failure, Side, retry};
use crate::event::{Event, Kind};
use crate::mail::Timestamp;
use crate::store::{Settlement, Task};

/// How long a connection is kept for the next message.
const LINGER: Duration = Duration::from_secs(5);
/// How long a lane without one of its own waits for more: to begin another costs more than its wait.
const LULL: Duration = Duration::from_millis(100);
/// A destination's first rest is no longer than this.
const FIRST_REST: Duration = Duration::from_secs(30);
/// The first one where only a part of it is in trouble, or an endpoint asks for less.
const SHORT_REST: Duration = Duration::from_secs(2);
/// A rest that an endpoint asks for is no shorter.
const SHORTEST_REST: Duration = Duration::from_secs(1);

struct Lane {
    shared: Arc<Shared>,
    destination: Arc<Destination>,
    ended: mpsc::Sender<Settlement>,
    connection: Option<Kept>,
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
        if let Some(kept) = self.connection {
            kept.connection.quit().await;
        }
    }

    /// Waits for more for a while. False: nothing came.
    async fn linger(&mut self) -> bool {
        if !self.destination.begin_idling() {
            return true;
        }
        let patience = if self.connection.is_some() { LINGER } else { LULL };
        let woken = tokio::select! {
            biased;
            () = self.destination.wake.notified() => true,
            () = time::sleep(patience) => false,
            () = self.shared.draining() => false,
        };
        self.destination.end_idling();
        woken
    }

    /// One attempt, settled. False: there is no more time.
    async fn serve(&mut self, batch: Batch) -> bool {
        let begun = clock::now();
        let reuse = self.connection.take();
        let attempting = AssertUnwindSafe(attempt::attempt(&self.shared, &self.destination, &batch, reuse));
        let attempted = tokio::select! {
            biased;
            attempted = attempting.catch_unwind() => attempted,
            () = self.shared.over() => return false,
        };
        let attempt = attempted.unwrap_or_else(|_| self.fault(&batch));
        self.connection = attempt.connection;
        let now = clock::now();
        match attempt.health {
            Health::Well => self.destination.went_well(batch.len(), now),
            Health::Unknown => self.destination.ended(batch.len(), now),
            Health::Trouble(trouble) => self.trouble(trouble, &batch, (begun, now)).await,
        }
        // Their octets are free before the others begin.
        drop(batch);
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

    /// A panic: ours to find. It counts as an attempt, so that what causes one each time comes to its end too.
    fn fault(&self, batch: &Batch) -> Attempt {
        let detail = format!("an attempt for {} panicked; it is tried again by its schedule", self.destination.name);
        let event = Event::new(clock::now(), Kind::Fault { what: "delivery".into(), detail });
        self.shared.parts.bus.publish(event);
        let config = self.shared.parts.config.load_full();
        let judge = Judge::now(&config, self.shared.ears(), &self.destination.name, Duration::ZERO);
        let failure = Failure::later(Side::Ours, "4.3.0", "the attempt met a fault of our own");
        batch.iter().map(|held| judge.unsent(held, &failure)).collect::<Vec<_>>().into()
    }

    async fn trouble(&mut self, mut trouble: Trouble, batch: &Batch, at: (Timestamp, Timestamp)) {
        if trouble.extent == Extent::Broke {
            if !batch.first().is_some_and(|first| self.destination.broke(first.key.message)) {
                return self.destination.ended(batch.len(), at.1);
            }
            // Several messages in a row: it isn't them. Each was counted, and what waits hasn't been tried.
            trouble.extent = Extent::Busy;
        }
        let is_webhook = batch.first().is_some_and(|first| matches!(first.task, Task::Webhook(_)));
        self.rest(trouble, is_webhook, at).await;
    }

    /// Gives the destination a rest; what waits for it has met its trouble too.
    async fn rest(&mut self, trouble: Trouble, is_webhook: bool, at: (Timestamp, Timestamp)) {
        let config = self.shared.parts.config.load_full();
        let short = trouble.extent == Extent::Partly || (is_webhook && trouble.extent == Extent::Busy);
        let longest = if short { SHORT_REST } else { FIRST_REST };
        let schedule = if is_webhook { &config.webhook_defaults.retry } else { &config.relay.retry };
        let first = schedule.first().copied().unwrap_or(longest).min(longest);
        let wanted = trouble.wanted;
        let length = |failures| {
            let own = retry::pause(first, failures, fastrand::f64());
            // An endpoint knows best how long it takes, unless it is wrong again and again.
            wanted.map_or(own, |wanted| if failures < 3 { wanted.max(SHORTEST_REST) } else { wanted.max(own) })
        };
        let Some((resting, waiting)) = self.destination.rest(trouble, at, length) else { return };
        let kind = Kind::DestinationPaused {
            destination: self.destination.name.clone(),
            until: resting.until,
            reason: resting.trouble.failure.detail.clone(),
        };
        self.shared.parts.bus.publish(Event::new(at.1, kind));
        let name = self.destination.name.clone();
        for held in waiting {
            let settlement =
                Judge::now(&config, self.shared.ears(), &name, Duration::ZERO).rested(&held, &resting, true);
            self.end(settlement).await;
        }
    }
}
