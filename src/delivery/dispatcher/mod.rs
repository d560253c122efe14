//! Claims what is due, gives each destination its share of the attempts, and settles what came of them.
//!
//! One task claims and places (`owner`); each destination has lanes, tasks that attempt one batch after the other over
//! one connection (`lane`); one task settles (`settler`). A destination that is in trouble rests, one that is slow
//! fills its own share alone (`share`, `held`, `pace`): nobody else waits for it. What is held is settled or, where the process
//! dies, due again.
//! Never: an attempt without a claim, an outcome believed before it is stored, a queue without a bound.
//! Standards: RFC 5321 §4.5.4.1 (retries by destination). Input: [`Parts`]. Output: settlements, events.

mod attempt;
mod destination;
mod held;
mod lane;
mod owner;
mod pace;
mod settle;
mod settler;
mod share;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use self::held::{Held, Holdings, MAX_HELD};
use self::share::{ByName, Pool, Usage};
use super::relay::tls::Tls;
use super::webhook::Webhooks;
use super::{Decide, Failure, Parts, Side};
use crate::store::Settlement;

/// Octets of webhooks that are made from large messages and under way. Of small ones there are as many as places; large
/// messages themselves aren't in memory, but while the store's gate lets them be loaded.
const MAX_PAYLOADS_KIB: u32 = 48 * 1024;

/// The running dispatcher.
#[derive(Debug)]
pub struct Dispatcher {
    phase: watch::Sender<Phase>,
    settler: JoinHandle<()>,
    attempts: Usage,
}

/// Where it stands between start and stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Nothing is begun any more.
    Draining,
    /// What is under way is let go, to be due again at the next start.
    Over,
}

/// What its tasks share.
struct Shared {
    parts: Parts,
    tls: Result<Tls, Failure>,
    webhooks: Result<Webhooks, Failure>,
    phase: watch::Receiver<Phase>,
    /// Bounds the attempts under way at remotes (`[limits] deliveries`).
    places: Pool,
    /// Bounds the octets of webhooks made from large messages, in KiB.
    payloads: Pool,
    /// Senders whose notices are being made, by domain.
    senders: ByName,
    held: Holdings,
    /// Room has come up: something was settled or taken off a destination's queue.
    freed: Notify,
    /// The way to the settler; emptied when nothing is claimed any more, so that the settler ends with the last lane.
    ended: RwLock<Option<mpsc::Sender<Settlement>>>,
}

impl Dispatcher {
    /// Starts it on the current runtime.
    #[must_use]
    pub fn start(parts: Parts) -> Self {
        let (phase, watched) = watch::channel(Phase::Running);
        // Each held delivery ends once, so this queue never blocks.
        let (ended, ends) = mpsc::channel(MAX_HELD);
        let unusable = |what: &str, why: String| Failure::later(Side::Ours, "4.3.0", format!("{what}: {why}"));
        let places = Pool::new(parts.config.load().limits.deliveries);
        let attempts = places.usage();
        let shared = Arc::new(Shared {
            places,
            payloads: Pool::new(MAX_PAYLOADS_KIB as usize),
            senders: ByName::default(),
            tls: Tls::new(parts.roots.clone()).map_err(|error| unusable("TLS", error.to_string())),
            webhooks: Webhooks::new(Arc::clone(&parts.dns), parts.roots.clone(), &parts.network)
                .map_err(|error| unusable("webhooks", error.to_string())),
            parts,
            phase: watched,
            held: Holdings::default(),
            freed: Notify::new(),
            ended: RwLock::new(Some(ended)),
        });
        let settler = tokio::spawn(settler::run(Arc::clone(&shared), ends));
        // Ends by itself when the phase changes; the settler outlives it.
        let _owner = tokio::spawn(owner::run(shared));
        Self { phase, settler, attempts }
    }

    /// How many attempts are under way.
    pub fn attempts_open(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let attempts = self.attempts.clone();
        move || attempts.taken()
    }

    /// Claims nothing more and lets what is under way settle, for at most `deadline`. What hasn't settled then is
    /// due again at the next start.
    pub async fn drain(mut self, deadline: Duration) {
        self.phase.send_replace(Phase::Draining);
        if tokio::time::timeout(deadline, &mut self.settler).await.is_err() {
            self.phase.send_replace(Phase::Over);
            let _late = tokio::time::timeout(Duration::from_secs(1), &mut self.settler).await;
        }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Over);
        self.settler.abort();
    }
}

impl Shared {
    /// Who knows which workers are to hear how something ended.
    fn ears(&self) -> &dyn Decide {
        &*self.parts.decider
    }

    fn running(&self) -> bool {
        *self.phase.borrow() == Phase::Running
    }

    /// Resolves when nothing is to be begun any more.
    async fn draining(&self) {
        let mut phase = self.phase.clone();
        let _dispatcher_is_gone = phase.wait_for(|phase| *phase != Phase::Running).await;
    }

    /// Resolves when what is under way is to be let go.
    async fn over(&self) {
        let mut phase = self.phase.clone();
        let _dispatcher_is_gone = phase.wait_for(|phase| *phase == Phase::Over).await;
    }

    fn release(&self, count: usize) {
        self.held.settled(count);
        self.freed.notify_one();
    }

    /// Another end of the way to the settler; none once the stop has begun.
    fn way_to_settler(&self) -> Option<mpsc::Sender<Settlement>> {
        self.ended.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn close(&self) {
        self.ended.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Deliveries that one attempt carries: of one message, to one next hop.
type Batch = Vec<Held>;
