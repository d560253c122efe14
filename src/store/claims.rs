//! Who holds which delivery, in memory alone: a process that dies holds nothing.
//!
//! What was just accepted waits here warm, with its octets, and is claimed without a query. All else is found by
//! walking the index of due times from where the last walk ended (`cursor`); what comes to lie behind the cursor
//! (a settlement that queues again, an admin's retry) takes it back there.
//!
//! **Invariant**: each queued row is held (`held`: warm, claimed or about to commit) or lies past the cursor.
//! The writer thread alone walks and releases, so a walk never sees a row between its commit and its release.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Body, Delivery, DeliveryKey};
use crate::mail::Timestamp;

/// Octets of messages that are kept warm, from their acceptance until whoever claimed them has let go of them, and of
/// the tasks that wait to be claimed.
pub const WARM_BYTES: usize = 16 << 20;
/// Octets of the tasks of one claim, warm and cold ones each; it exceeds them by one task at most.
pub(super) const CLAIM_BYTES: usize = 16 << 20;
/// Warm deliveries.
const WARM_COUNT: usize = 20_000;

/// A place in the index of due times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub due: i64,
    pub message: [u8; 16],
    pub n: u32,
}

impl Position {
    /// Before all.
    pub(super) const START: Self = Self { due: i64::MIN, message: [0; 16], n: 0 };

    pub(super) fn new(due: Timestamp, key: DeliveryKey) -> Self {
        Self { due: due.as_millis(), message: key.message.to_bytes(), n: key.n }
    }

    /// The place just before this one, so that a walk from it meets this one.
    fn before(self) -> Self {
        match self.n.checked_sub(1) {
            Some(n) => Self { n, ..self },
            None => Self { due: self.due.saturating_sub(1), message: [0xff; 16], n: u32::MAX },
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Claims {
    state: Mutex<State>,
    changed: Notify,
    /// Octets of messages that are kept warm, claimed or not.
    kept: Arc<AtomicUsize>,
}

/// A message that is still in memory from its acceptance. Its octets count against the bound on what is warm until the
/// last clone is gone.
#[derive(Debug, Clone)]
pub struct Warm {
    body: Arc<Body>,
    _kept: Arc<Kept>,
}

impl Warm {
    #[must_use]
    pub fn body(&self) -> &Arc<Body> {
        &self.body
    }

    /// The octets that are kept for it.
    #[must_use]
    pub fn octets(&self) -> usize {
        octets(&self.body)
    }
}

impl std::ops::Deref for Warm {
    type Target = Body;

    fn deref(&self) -> &Body {
        &self.body
    }
}

fn octets(body: &Body) -> usize {
    body.head.len() + body.raw.in_memory()
}

#[derive(Debug)]
struct Kept {
    octets: usize,
    of: Arc<AtomicUsize>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.of.fetch_sub(self.octets, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct State {
    held: HashSet<DeliveryKey>,
    warm: VecDeque<Ready>,
    /// Octets of their tasks.
    ready_bytes: usize,
    cursor: Position,
    /// The lowest place that was freed while a walk was under way.
    freed: Option<Position>,
    /// When the first row past the cursor falls due.
    cold_due: Option<i64>,
    /// Every so often the cold ones come first, or a steady stream of new mail would starve them.
    turn: u32,
}

/// One that waits to be claimed without a query.
#[derive(Debug)]
struct Ready {
    delivery: Delivery,
    weight: usize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            held: HashSet::new(),
            warm: VecDeque::new(),
            ready_bytes: 0,
            cursor: Position::START,
            freed: None,
            cold_due: Some(i64::MIN),
            turn: 0,
        }
    }
}

impl State {
    /// A row has come to lie at `position`, free to be claimed.
    fn cold(&mut self, position: Position) {
        self.freed = Some(self.freed.map_or(position, |freed| freed.min(position)));
        if position <= self.cursor {
            self.cursor = position.before();
        }
        self.cold_due = Some(self.cold_due.map_or(position.due, |due| due.min(position.due)));
    }
}

impl Claims {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Warm ones up to `limit`, and how many more a walk should look for.
    pub(super) fn take_warm(&self, now: Timestamp, limit: usize) -> (Vec<Delivery>, usize) {
        let mut state = self.state();
        state.turn = state.turn.wrapping_add(1);
        let cold_is_due = state.cold_due.is_some_and(|due| due <= now.as_millis());
        let share = match limit {
            _ if !cold_is_due => limit,
            0..4 if state.turn.is_multiple_of(4) => 0,
            0..4 => limit,
            _ => limit - limit / 4,
        };
        let (mut taken, mut octets) = (Vec::with_capacity(share.min(state.warm.len())), 0);
        while taken.len() < share
            && octets < CLAIM_BYTES
            && let Some(ready) = state.warm.pop_front()
        {
            octets += ready.weight;
            taken.push(ready.delivery);
        }
        state.ready_bytes = state.ready_bytes.saturating_sub(octets);
        let wanted = if cold_is_due { limit.saturating_sub(taken.len()) } else { 0 };
        (taken, wanted)
    }

    /// When the first that nobody holds falls due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let state = self.state();
        let warm = state.warm.front().map(|warm| warm.delivery.due.as_millis());
        warm.into_iter().chain(state.cold_due).min().map(Timestamp::from_millis)
    }

    /// Where the next walk starts.
    pub(super) fn walk(&self) -> Position {
        let mut state = self.state();
        state.freed = None;
        state.cursor
    }

    /// Claims what a walk has met and nobody holds.
    pub(super) fn claim(&self, met: Vec<Delivery>) -> Vec<Delivery> {
        let mut state = self.state();
        met.into_iter().filter(|delivery| state.held.insert(delivery.key)).collect()
    }

    /// Nothing is walked yet; when the first row falls due.
    pub(super) fn walked_to_start(&self, cold_due: Option<i64>) {
        self.walked(Position::START, cold_due);
    }

    /// The walk has come to `cursor`, and the row after it falls due then.
    pub(super) fn walked(&self, cursor: Position, cold_due: Option<i64>) {
        let mut state = self.state();
        state.cursor = cursor;
        state.cold_due = cold_due;
        if let Some(freed) = state.freed.take() {
            state.cold(freed);
        }
    }

    /// These rows are about to commit; no walk may hand them out before [`Claims::offer`] or [`Claims::release`].
    pub(super) fn hold(&self, keys: &[DeliveryKey]) {
        self.state().held.extend(keys);
    }

    /// These rows never came to be.
    pub(super) fn forget(&self, keys: &[DeliveryKey]) {
        let mut state = self.state();
        for key in keys {
            state.held.remove(key);
        }
    }

    /// Octets that may yet be kept warm.
    pub(super) fn warm_room(&self) -> usize {
        WARM_BYTES.saturating_sub(self.kept.load(Ordering::Relaxed) + self.state().ready_bytes)
    }

    /// Committed and held: they wait warm where there is room, else as rows. All of one message, which is `body` where
    /// it is in memory still.
    pub(super) fn offer(&self, deliveries: Vec<Delivery>, body: Option<Arc<Body>>) {
        if deliveries.is_empty() {
            return;
        }
        let needed = body.as_deref().map_or(0, octets);
        let mut state = self.state();
        // Only this raises it, and one thread alone offers.
        let room = WARM_BYTES.saturating_sub(self.kept.load(Ordering::Relaxed) + state.ready_bytes);
        let warm = body.filter(|_| needed <= room).map(|body| {
            self.kept.fetch_add(needed, Ordering::Relaxed);
            Warm { body, _kept: Arc::new(Kept { octets: needed, of: Arc::clone(&self.kept) }) }
        });
        // Nothing is left where the body itself found no room: then they are claimed from their rows.
        let mut room = room.saturating_sub(needed);
        for mut delivery in deliveries {
            let weight = delivery.weight();
            if state.warm.len() < WARM_COUNT && weight <= room {
                room -= weight;
                state.ready_bytes += weight;
                delivery.warm.clone_from(&warm);
                state.warm.push_back(Ready { delivery, weight });
            } else {
                state.held.remove(&delivery.key);
                state.cold(Position::new(delivery.due, delivery.key));
            }
        }
    }

    /// No longer held; `due` where the row is still queued.
    pub(super) fn release(&self, key: DeliveryKey, due: Option<Timestamp>) {
        let mut state = self.state();
        state.held.remove(&key);
        if let Some(due) = due {
            state.cold(Position::new(due, key));
        }
    }

    /// A row that nobody has held came to lie there.
    pub(super) fn cold(&self, position: Position) {
        self.state().cold(position);
    }

    /// Their rows are gone: those that wait warm are no longer handed out.
    pub(super) fn dropped(&self, keys: &HashSet<DeliveryKey>) {
        let mut state = self.state();
        let warm = std::mem::take(&mut state.warm);
        for entry in warm {
            if keys.contains(&entry.delivery.key) {
                state.ready_bytes = state.ready_bytes.saturating_sub(entry.weight);
                state.held.remove(&entry.delivery.key);
            } else {
                state.warm.push_back(entry);
            }
        }
    }

    /// What the rows say is no longer known: the next walk starts over.
    pub(super) fn start_over(&self) {
        let mut state = self.state();
        state.cursor = Position::START;
        state.cold_due = Some(i64::MIN);
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn notify(&self) {
        self.changed.notify_one();
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Claimed deliveries on their way to a caller: one that goes away before it has them leaves them to the next.
#[derive(Debug)]
pub(super) struct Claimed {
    deliveries: Vec<Delivery>,
    claims: Arc<Claims>,
}

impl Claimed {
    pub(super) fn new(deliveries: Vec<Delivery>, claims: Arc<Claims>) -> Self {
        Self { deliveries, claims }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    pub(super) fn into_vec(mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }

    pub(super) fn deliveries_mut(&mut self) -> &mut [Delivery] {
        &mut self.deliveries
    }

    pub(super) fn extend(&mut self, more: Vec<Delivery>) {
        self.deliveries.extend(more);
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        for delivery in self.deliveries.drain(..) {
            self.claims.release(delivery.key, Some(delivery.due));
        }
    }
}
