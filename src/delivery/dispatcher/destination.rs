//! One destination's share: what waits for it, how many lanes serve it, and whether it rests. No I/O, no clock.
//!
//! **Invariant**: while something waits and the destination doesn't rest, a lane serves it or one is about to start.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Batch;
use crate::mail::Timestamp;
use crate::store::{Delivery, Task};

/// Deliveries that wait for one destination in memory; the others wait in the store.
const MAX_WAITING: usize = 1024;
/// Recipients of one transaction (RFC 5321 §4.5.3.1.8: a server takes 100).
const MAX_RECIPIENTS: usize = 100;
/// A queue that moves on sooner than this is waited for.
const SOON: Duration = Duration::from_secs(1);
/// The longest wait for a queue to move on.
const LATEST: Duration = Duration::from_mins(10);

#[derive(Debug)]
pub(super) struct Destination {
    pub name: String,
    state: Mutex<State>,
    /// Wakes a lane that is idle.
    pub wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Delivery>,
    lanes: usize,
    /// As many lanes as there may be.
    allowed: usize,
    /// Lanes that wait for more, their connection open.
    idle: usize,
    /// Troubles in a row.
    failures: u32,
    resting_until: Option<Timestamp>,
    pace: Pace,
    /// Sent back to the store since the queue was last empty.
    overflow: u32,
}

/// How fast its deliveries end, by the second that went before.
#[derive(Debug, Default)]
struct Pace {
    since: Option<Timestamp>,
    ended: u32,
    per_second: f64,
}

/// What became of a delivery that was offered.
#[derive(Debug)]
pub(super) enum Offered {
    /// It waits; a lane is to be started where `start` says so.
    Waits { start: bool },
    /// There is room for it soon.
    FullForNow(Delivery),
    /// It goes back to the store until then.
    NotBefore(Delivery, Timestamp),
}

impl Destination {
    pub(super) fn new(name: String) -> Self {
        Self { name, state: Mutex::default(), wake: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a delivery in, if it can be served before long. `lanes`: as many as may serve it at once.
    pub(super) fn offer(&self, delivery: Delivery, lanes: usize, now: Timestamp) -> Offered {
        let mut state = self.state();
        if let Some(until) = state.resting_until {
            if now < until {
                return Offered::NotBefore(delivery, until);
            }
            state.resting_until = None;
        }
        if state.waiting.len() >= MAX_WAITING {
            let ahead = state.waiting.len() + state.overflow as usize;
            let wait = state.pace.time_for(ahead, now);
            if wait <= SOON {
                return Offered::FullForNow(delivery);
            }
            state.overflow = state.overflow.saturating_add(1);
            return Offered::NotBefore(delivery, now.plus(wait));
        }
        state.allowed = lanes.max(1);
        state.waiting.push_back(delivery);
        if state.idle > 0 {
            self.wake.notify_one();
        }
        Offered::Waits { start: state.start_lane() }
    }

    /// The next batch: neighbours in the queue that one transaction can carry.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut state = self.state();
        let first = state.waiting.pop_front()?;
        let mut batch = vec![first];
        while batch.len() < MAX_RECIPIENTS
            && let (Some(first), Some(next)) = (batch.first(), state.waiting.front())
            && travel_together(first, next)
            && let Some(next) = state.waiting.pop_front()
        {
            batch.push(next);
        }
        if state.waiting.is_empty() {
            state.overflow = 0;
        }
        Some(batch)
    }

    /// Whether a further lane is to be started: one is counted then.
    pub(super) fn wants_lane(&self) -> bool {
        self.state().start_lane()
    }

    /// A lane is about to end. False: something came meanwhile, it must go on.
    pub(super) fn end_lane(&self) -> bool {
        let mut state = self.state();
        if state.waiting.is_empty() {
            state.lanes = state.lanes.saturating_sub(1);
        }
        state.waiting.is_empty()
    }

    /// A lane ends whatever waits (a stop, a rest).
    pub(super) fn leave(&self) {
        let mut state = self.state();
        state.lanes = state.lanes.saturating_sub(1);
    }

    /// A lane begins to wait for more. False: something waits already.
    pub(super) fn begin_idling(&self) -> bool {
        let mut state = self.state();
        let idles = state.waiting.is_empty();
        state.idle += usize::from(idles);
        idles
    }

    /// It waits no longer.
    pub(super) fn end_idling(&self) {
        let mut state = self.state();
        state.idle = state.idle.saturating_sub(1);
    }

    /// An attempt went through, whatever was said of the message: the destination is well.
    pub(super) fn went_well(&self, ended: usize, now: Timestamp) {
        let mut state = self.state();
        state.failures = 0;
        state.pace.count(ended, now);
    }

    /// The destination is in trouble: it rests, and what waited for it is handed back. `None`: it rests already.
    /// `rest` is told how many troubles there were in a row.
    pub(super) fn rest(&self, now: Timestamp, rest: impl FnOnce(u32) -> Duration) -> Option<(Timestamp, Batch)> {
        let mut state = self.state();
        if state.resting_until.is_some_and(|until| now < until) {
            return None;
        }
        state.failures = state.failures.saturating_add(1);
        let until = now.plus(rest(state.failures));
        state.resting_until = Some(until);
        state.overflow = 0;
        Some((until, state.waiting.drain(..).collect()))
    }

    /// An admin wants it tried now.
    pub(super) fn end_rest(&self) {
        self.state().resting_until = None;
    }

    /// Nothing that would be missed: no lanes, no rest, no count of troubles.
    pub(super) fn is_forgettable(&self, now: Timestamp) -> bool {
        let state = self.state();
        let rested = state.resting_until.is_none_or(|until| until.plus(LATEST) < now);
        state.waiting.is_empty() && state.lanes == 0 && rested
    }
}

impl State {
    fn start_lane(&mut self) -> bool {
        // One that was in trouble is tried by one lane alone.
        let allowed = if self.failures > 0 { 1 } else { self.allowed };
        let start = self.lanes < allowed && self.waiting.len() > self.idle;
        self.lanes += usize::from(start);
        start
    }
}

impl Pace {
    fn count(&mut self, ended: usize, now: Timestamp) {
        self.ended = self.ended.saturating_add(u32::try_from(ended).unwrap_or(u32::MAX));
        let since = *self.since.get_or_insert(now);
        let passed = now.since(since);
        if passed >= Duration::from_millis(500) {
            self.per_second = f64::from(self.ended) / passed.as_secs_f64();
            self.ended = 0;
            self.since = Some(now);
        }
    }

    /// How long `count` deliveries take.
    fn time_for(&mut self, count: usize, now: Timestamp) -> Duration {
        self.count(0, now);
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        // Nothing is known before the first half second: then it is fast until shown otherwise.
        if self.since.is_none() || (self.per_second == 0.0 && self.ended > 0) {
            return SOON;
        }
        let seconds = count / self.per_second.max(0.01);
        Duration::from_secs_f64(seconds.clamp(0.0, LATEST.as_secs_f64()))
    }
}

/// Whether one transaction can carry both: one message with the same fields before it.
fn travel_together(one: &Delivery, other: &Delivery) -> bool {
    match (&one.task, &other.task) {
        (Task::Relay(a), Task::Relay(b)) => one.key.message == other.key.message && a.headers == b.headers,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Address, MessageId, Notify as Dsn};
    use crate::store::{DeliveryKey, RelayTask};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn delivery(message: u128, n: u32) -> Delivery {
        let recipient = Address::parse(&format!("r{n}@example.net")).unwrap();
        let task = RelayTask {
            original: recipient.clone(),
            recipient,
            notify: Dsn::default(),
            orcpt: None,
            via: None,
            headers: Vec::new(),
        };
        Delivery {
            key: DeliveryKey { message: MessageId::new(NOW, message), n },
            task: Task::Relay(task),
            destination: "mx:example.net".into(),
            attempts: 0,
            queued_at: NOW,
            due: NOW,
            delay_noticed: false,
            warm: None,
        }
    }

    fn offer(destination: &Destination, message: u128, n: u32) -> Offered {
        destination.offer(delivery(message, n), 2, NOW)
    }

    #[test]
    fn lanes_start_up_to_the_limit_and_one_message_travels_together() {
        let destination = Destination::new("mx:example.net".into());
        assert!(matches!(offer(&destination, 1, 0), Offered::Waits { start: true }));
        assert!(matches!(offer(&destination, 1, 1), Offered::Waits { start: true }));
        assert!(matches!(offer(&destination, 2, 0), Offered::Waits { start: false }));
        assert_eq!(destination.take().unwrap().len(), 2);
        assert!(!destination.end_lane(), "one more waits");
        assert_eq!(destination.take().unwrap().len(), 1);
        assert!(destination.end_lane());
    }

    #[test]
    fn fields_that_differ_part_a_message() {
        let destination = Destination::new("mx:example.net".into());
        offer(&destination, 1, 0);
        let mut other = delivery(1, 1);
        if let Task::Relay(task) = &mut other.task {
            task.headers.push(("X-Team".into(), "sales".into()));
        }
        destination.offer(other, 2, NOW);
        assert_eq!(destination.take().unwrap().len(), 1);
    }

    #[test]
    fn trouble_hands_back_what_waits_and_is_counted_once() {
        let destination = Destination::new("mx:example.net".into());
        offer(&destination, 1, 0);
        let (until, back) = destination.rest(NOW, |failures| Duration::from_secs(10 * u64::from(failures))).unwrap();
        assert_eq!((until, back.len()), (NOW.plus(Duration::from_secs(10)), 1));
        assert!(destination.rest(NOW, |_| Duration::ZERO).is_none(), "a second lane's trouble is the same one");
        assert!(matches!(offer(&destination, 1, 0), Offered::NotBefore(_, at) if at == until));
        destination.end_rest();
        assert!(matches!(offer(&destination, 1, 0), Offered::Waits { .. }));
    }

    #[test]
    fn after_trouble_one_lane_tries_until_it_went_well() {
        let destination = Destination::new("mx:example.net".into());
        destination.rest(NOW, |_| Duration::ZERO);
        assert!(matches!(offer(&destination, 1, 0), Offered::Waits { start: true }));
        assert!(matches!(offer(&destination, 2, 0), Offered::Waits { start: false }));
        destination.went_well(1, NOW);
        assert!(destination.wants_lane());
    }

    #[test]
    fn a_full_queue_that_moves_is_waited_for_and_one_that_crawls_is_not() {
        let full = |ended: usize| {
            let destination = Destination::new("mx:example.net".into());
            for message in 0..MAX_WAITING {
                offer(&destination, message as u128, 0);
            }
            destination.went_well(0, NOW);
            let later = NOW.plus(Duration::from_secs(1));
            destination.went_well(ended, later);
            destination.offer(delivery(0, 1), 2, later)
        };
        assert!(matches!(full(5000), Offered::FullForNow(_)));
        assert!(matches!(full(1), Offered::NotBefore(_, at) if at == NOW.plus(LATEST + SOON)));
    }
}
