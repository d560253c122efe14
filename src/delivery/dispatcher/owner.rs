//! The one task that claims: it looks for what is due, and places it with its destination.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use super::destination::{Destination, Offered};
use super::held::Held;
use super::settle::Judge;
use super::{Shared, lane, settle};
use crate::clock;
use crate::config::Config;
use crate::event::{Event, Kind};
use crate::mail::Timestamp;
use crate::store::{Delivery, DeliveryKey, Settlement, StoreError, Task};

/// Deliveries of one claim.
const CLAIM: usize = 256;
/// Between two looks at a queue whose next row is due and held by somebody.
const SHORTEST: Duration = Duration::from_millis(20);
/// Between two looks where nothing seems due: the clock may have been set.
const LONGEST: Duration = Duration::from_mins(1);
/// A full queue is looked at again after this long at the latest.
const FULL: Duration = Duration::from_millis(50);
/// Destinations known before the first look for those that can be forgotten.
const FEW: usize = 256;
/// What was due when the process started, and goes out at once.
const HEAD_START: usize = 200;
/// The rest of it is spread over this long.
const SPREAD: Duration = Duration::from_mins(1);

/// Runs until the stop.
pub(super) async fn run(shared: Arc<Shared>) {
    let started = clock::now();
    let mut owner = Owner {
        shared: Arc::clone(&shared),
        destinations: HashMap::new(),
        sweep_at: FEW,
        aside: VecDeque::new(),
        started,
        left_over: 0,
        retries: shared.parts.store.retries(),
    };
    owner.recall().await;
    while shared.running() {
        owner.step().await;
    }
    // The settler ends when the last lane has.
    shared.close();
}

struct Owner {
    shared: Arc<Shared>,
    destinations: HashMap<String, Arc<Destination>>,
    sweep_at: usize,
    /// Claimed, and waiting for a full queue to move on.
    aside: VecDeque<Held>,
    started: Timestamp,
    /// Deliveries that were due before the start and have been met.
    left_over: usize,
    retries: u64,
}

impl Owner {
    async fn step(&mut self) {
        let now = clock::now();
        let retries = self.shared.parts.store.retries();
        if retries != self.retries {
            self.retries = retries;
            self.destinations.values().for_each(|destination| destination.end_rest());
            self.forget().await;
        }
        while let Some(delivery) = self.aside.pop_front() {
            if let Some(delivery) = self.place(delivery, now) {
                self.aside.push_front(delivery);
                return self.wait_for_room().await;
            }
        }
        let room = self.shared.held.room();
        if room == 0 {
            return self.wait_for_room().await;
        }
        match self.shared.parts.store.claim(now, room.min(CLAIM)).await {
            Ok(claimed) if claimed.is_empty() => self.wait_for_work(now).await,
            Ok(claimed) => {
                let config = self.shared.parts.config.load_full();
                self.aside.extend(claimed.into_iter().map(|delivery| self.shared.held.hold(delivery, &config)));
            }
            Err(StoreError::Closed) => self.shared.draining().await,
            Err(error) => {
                let kind = Kind::Fault { what: "claim deliveries".into(), detail: error.to_string() };
                self.shared.parts.bus.publish(Event::new(now, kind));
                self.pause(Duration::from_secs(1)).await;
            }
        }
    }

    /// The endpoints that said 410 before the start.
    async fn recall(&self) {
        if let Ok(webhooks) = &self.shared.webhooks {
            self.told(webhooks.gone.recall(&self.shared.parts.store).await);
        }
    }

    /// They are asked again.
    async fn forget(&self) {
        if let Ok(webhooks) = &self.shared.webhooks {
            self.told(webhooks.gone.forget(&self.shared.parts.store).await);
        }
    }

    fn told(&self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            let kind = Kind::Fault { what: "endpoints that said 410".into(), detail: error.to_string() };
            self.shared.parts.bus.publish(Event::new(clock::now(), kind));
        }
    }

    async fn wait_for_room(&self) {
        tokio::select! {
            biased;
            () = self.shared.freed.notified() => {}
            () = time::sleep(FULL) => {}
            () = self.shared.draining() => {}
        }
    }

    async fn wait_for_work(&self, now: Timestamp) {
        let store = &self.shared.parts.store;
        let due = store.next_due().await.ok().flatten();
        let wait = due.map_or(LONGEST, |due| due.since(now).clamp(SHORTEST, LONGEST));
        tokio::select! {
            biased;
            () = store.changed() => {}
            () = time::sleep(wait) => {}
            () = self.shared.draining() => {}
        }
    }

    async fn pause(&self, wait: Duration) {
        tokio::select! {
            biased;
            () = time::sleep(wait) => {}
            () = self.shared.draining() => {}
        }
    }

    /// With its destination, or back to the store; returned where there is room for it soon.
    fn place(&mut self, delivery: Held, now: Timestamp) -> Option<Held> {
        if let Some(due) = self.spread(&delivery, now) {
            self.postpone(delivery.key, due);
            return None;
        }
        let config = self.shared.parts.config.load_full();
        let (name, lanes) = share(&config, &delivery);
        let destination = self.destination(name, now);
        let free = self.shared.held.free(self.shared.parts.store.warm_room());
        match destination.offer(delivery, lanes, free, now) {
            Offered::Waits { start } => {
                if start {
                    lane::start(&self.shared, &destination);
                }
                None
            }
            Offered::FullForNow(delivery) => Some(delivery),
            Offered::NotBefore(delivery, at) => {
                // Not all in the same moment, and rather too early: the pace may pick up, and lanes mustn't be idle.
                let wait = at.since(now).mul_f64(0.3 + fastrand::f64() * 0.4);
                self.postpone(delivery.key, now.plus(wait));
                None
            }
            Offered::Rests(delivery, resting) => {
                let judge = Judge::now(&config, self.shared.ears(), &destination.name, Duration::ZERO);
                self.end(judge.rested(&delivery, &resting, delivery.due <= resting.since));
                None
            }
        }
    }

    /// After a restart everything due goes on, spread out: when this one is to go, if not now.
    fn spread(&mut self, delivery: &Delivery, now: Timestamp) -> Option<Timestamp> {
        if delivery.warm.is_some() || delivery.due >= self.started || now.since(self.started) > SPREAD {
            return None;
        }
        self.left_over += 1;
        (self.left_over > HEAD_START).then(|| now.plus(SPREAD.mul_f64(fastrand::f64())))
    }

    fn postpone(&self, key: DeliveryKey, due: Timestamp) {
        self.end(settle::postponed(key, due));
    }

    fn end(&self, settlement: Settlement) {
        if let Some(ended) = self.shared.way_to_settler() {
            let _room_is_kept = ended.try_send(settlement);
        }
    }

    fn destination(&mut self, name: String, now: Timestamp) -> Arc<Destination> {
        if let Some(known) = self.destinations.get(&name) {
            return Arc::clone(known);
        }
        if self.destinations.len() >= self.sweep_at {
            self.destinations.retain(|_, destination| !destination.is_forgettable(now));
            self.sweep_at = (self.destinations.len() * 2).max(FEW);
        }
        let destination = Arc::new(Destination::new(name.clone()));
        self.destinations.insert(name, Arc::clone(&destination));
        destination
    }
}

/// The queue that a delivery belongs to by the configuration as it is now, and how many lanes it may have.
pub(super) fn share(config: &Config, delivery: &Delivery) -> (String, usize) {
    match &delivery.task {
        Task::Relay(task) => (config.relay_queue(&task.recipient, task.via.as_deref()), config.relay.concurrency),
        Task::Webhook(task) => {
            let (queue, named) = config.webhook_share(task.binding.as_deref(), &task.url);
            (queue, named.map_or(config.webhook_defaults.concurrency, |webhook| webhook.concurrency))
        }
        Task::Notice(_) => ("notice".to_owned(), NOTICES),
        Task::Decide(_) => ("decide".to_owned(), DECISIONS),
        Task::Tell(_) => (TELL.to_owned(), DECISIONS),
    }
}

/// The queue of what workers are to hear.
pub(super) const TELL: &str = "tell";
/// Lanes for notices: each may wait for a sender's name servers, which may be silent.
const NOTICES: usize = 64;
/// Lanes for second decisions, and for what is told; the worker bounds itself.
const DECISIONS: usize = 4;
