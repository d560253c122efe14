//! One destination's share: what waits for it, how many lanes serve it, and whether it rests. No I/O, no clock.
//!
//! **Invariant**: while something waits and the destination doesn't rest, a lane serves it or one is about to start.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use super::Batch;
use super::attempt::Trouble;
use super::held::{Free, Held};
use super::pace::{LATEST, Pace, SOON};
use crate::mail::{MessageId, Timestamp};
use crate::store::{Delivery, Task};

/// Deliveries that wait for one destination in memory; the others wait in the store.
const MAX_WAITING: usize = 1024;
/// Recipients of one transaction (RFC 5321 §4.5.3.1.8: a server takes 100).
const MAX_RECIPIENTS: usize = 100;
/// What waits for one destination has at most this part of what is free: however many are slow, something is left.
const PART: usize = 4;
/// Different messages in a row over which the connection broke: then it isn't the messages.
const BROKEN: usize = 3;

#[derive(Debug)]
pub(super) struct Destination {
    pub name: String,
    state: Mutex<State>,
    /// Wakes a lane that is idle.
    pub wake: Notify,
    /// The right to its first place, and to the first webhook made for it from a large message (see `share`).
    pub first_place: Semaphore,
    pub first_large: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Octets of their tasks, and of the messages that are kept warm for them.
    octets: usize,
    warm: usize,
    lanes: usize,
    /// As many lanes as there may be.
    allowed: usize,
    /// Lanes that wait for more, their connection open.
    idle: usize,
    /// Troubles in a row.
    failures: u32,
    resting: Option<Resting>,
    /// Over which the connection broke since something went well.
    broken: Vec<MessageId>,
    pace: Pace,
    /// Sent back to the store since the queue was last empty, and not come again: what isn't warm comes from there.
    overflow: u32,
}

#[derive(Debug)]
struct Waiting {
    held: Held,
    /// What was counted for it.
    warm: usize,
}

/// It is left in peace.
#[derive(Debug, Clone)]
pub(super) struct Resting {
    pub since: Timestamp,
    pub until: Timestamp,
    pub trouble: Arc<Trouble>,
}

/// What became of a delivery that was offered.
#[derive(Debug)]
pub(super) enum Offered {
    /// It waits; a lane is to be started where `start` says so.
    Waits { start: bool },
    /// There is room for it soon.
    FullForNow(Held),
    /// It goes back to the store until then.
    NotBefore(Held, Timestamp),
    /// The destination is in trouble, which bears on this one too.
    Rests(Held, Resting),
}

impl Destination {
    pub(super) fn new(name: String) -> Self {
        let (first_place, first_large) = (Semaphore::new(1), Semaphore::new(1));
        Self { name, state: Mutex::default(), wake: Notify::new(), first_place, first_large }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a delivery in, if it can be served before long. `lanes`: as many as may serve it at once.
    pub(super) fn offer(&self, held: Held, lanes: usize, free: Free, now: Timestamp) -> Offered {
        let mut state = self.state();
        // It is one of those that were sent back, and no longer ahead of itself.
        let came_back = u32::from(held.warm.is_none() && state.overflow > 0);
        if let Some(resting) = &state.resting {
            if now < resting.until {
                return Offered::Rests(held, resting.clone());
            }
            state.resting = None;
        }
        if state.is_full(held.weight(), free) {
            let ahead = state.waiting.len() + (state.overflow - came_back) as usize;
            let wait = state.pace.time_for(ahead, state.waiting.len(), now);
            if wait <= SOON {
                return Offered::FullForNow(held);
            }
            state.overflow = (state.overflow - came_back).saturating_add(1);
            return Offered::NotBefore(held, now.plus(wait));
        }
        state.overflow -= came_back;
        state.allowed = lanes.max(1);
        if state.waiting.is_empty() {
            state.pace.begin(now);
        }
        state.push(held, free);
        if state.idle > 0 {
            self.wake.notify_one();
        }
        Offered::Waits { start: state.start_lane() }
    }

    /// The next batch: neighbours in the queue that one transaction can carry.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut state = self.state();
        let first = state.pop()?;
        let mut batch = vec![first];
        while batch.len() < MAX_RECIPIENTS
            && let (Some(first), Some(next)) = (batch.first(), state.waiting.front())
            && travel_together(first, &next.held)
            && let Some(next) = state.pop()
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
        state.broken.clear();
        state.pace.count(ended, now);
    }

    /// Something ended that says nothing of the destination's health.
    pub(super) fn ended(&self, ended: usize, now: Timestamp) {
        self.state().pace.count(ended, now);
    }

    /// The connection broke over this message. True: over several in a row, so that it isn't the message.
    pub(super) fn broke(&self, message: MessageId) -> bool {
        let mut state = self.state();
        if !state.broken.contains(&message) {
            state.broken.push(message);
        }
        let troubled = state.broken.len() >= BROKEN;
        if troubled {
            state.broken.clear();
        }
        troubled
    }

    /// The destination is in trouble, which an attempt met that had `begun` then: it rests, and what waited for it is
    /// handed back. `None`: this trouble is known. `rest` is told how many there were in a row.
    pub(super) fn rest(
        &self,
        trouble: Trouble,
        (begun, now): (Timestamp, Timestamp),
        rest: impl FnOnce(u32) -> Duration,
    ) -> Option<(Resting, Batch)> {
        let mut state = self.state();
        if state.resting.as_ref().is_some_and(|resting| now < resting.until || begun < resting.since) {
            return None;
        }
        state.failures = state.failures.saturating_add(1);
        let until = now.plus(rest(state.failures));
        let resting = Resting { since: now, until, trouble: Arc::new(trouble) };
        state.resting = Some(resting.clone());
        state.overflow = 0;
        let mut back = Vec::with_capacity(state.waiting.len());
        while let Some(held) = state.pop() {
            back.push(held);
        }
        Some((resting, back))
    }

    /// An admin wants it tried now.
    pub(super) fn end_rest(&self) {
        self.state().resting = None;
    }

    /// Nothing that would be missed: no lanes, no rest, no count of troubles.
    pub(super) fn is_forgettable(&self, now: Timestamp) -> bool {
        let state = self.state();
        let rested = state.resting.as_ref().is_none_or(|resting| resting.until.plus(LATEST) < now);
        state.waiting.is_empty() && state.lanes == 0 && rested
    }
}

impl State {
    /// Whether what waits already has its part of what is free.
    fn is_full(&self, weight: usize, free: Free) -> bool {
        let many = self.waiting.len() >= MAX_WAITING.min(free.count / PART);
        !self.waiting.is_empty() && (many || self.octets + weight > free.octets / PART)
    }

    /// The next in turn keeps its message warm; those further back do so as far as their part of what is free goes.
    fn push(&mut self, mut held: Held, free: Free) {
        let with_the_last = self.waiting.back().is_some_and(|last| last.held.key.message == held.key.message);
        let mut warm = if with_the_last { 0 } else { held.warm_octets() };
        if !self.waiting.is_empty() && self.warm + warm > free.warm / PART {
            held.cool();
            warm = 0;
        }
        self.octets += held.weight();
        self.warm += warm;
        self.waiting.push_back(Waiting { held, warm });
    }

    fn pop(&mut self) -> Option<Held> {
        let Waiting { held, warm } = self.waiting.pop_front()?;
        self.octets = self.octets.saturating_sub(held.weight());
        self.warm = self.warm.saturating_sub(warm);
        Some(held)
    }

    fn start_lane(&mut self) -> bool {
        // One that was in trouble is tried by one lane alone.
        let allowed = if self.failures > 0 { 1 } else { self.allowed };
        let start = self.lanes < allowed && self.waiting.len() > self.idle;
        self.lanes += usize::from(start);
        start
    }
}

/// Whether one transaction can carry both: one message with the same fields added and removed.
fn travel_together(one: &Delivery, other: &Delivery) -> bool {
    match (&one.task, &other.task) {
        (Task::Relay(a), Task::Relay(b)) => {
            one.key.message == other.key.message && a.headers == b.headers && a.removed == b.removed
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::delivery::dispatcher::held::{Holdings, MAX_HELD};
    use crate::delivery::dispatcher::pace::{FLOOD, PACE_LASTS, PACED};
    use crate::delivery::dispatcher::{attempt::Extent, settle};
    use crate::delivery::{Failure, Side};
    use crate::mail::{Address, Notify as Dsn};
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
            removed: Vec::new(),
            own: false,
            by: None,
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

    const PLENTY: Free = Free { count: 1 << 20, octets: 1 << 40, warm: 1 << 40 };

    fn held(delivery: Delivery) -> Held {
        static CONFIG: std::sync::LazyLock<Arc<Config>> =
            std::sync::LazyLock::new(|| Arc::new(settle::tests::config()));
        Holdings::default().hold(delivery, &CONFIG)
    }

    fn offer(destination: &Destination, message: u128, n: u32) -> Offered {
        destination.offer(held(delivery(message, n)), 2, PLENTY, NOW)
    }

    fn trouble() -> Trouble {
        let failure = Failure::later(Side::Network, "4.4.1", "connect to mx1: refused");
        Trouble { failure, host: None, wanted: None, extent: Extent::Unreachable }
    }

    fn rest(destination: &Destination, length: Duration) -> Option<(Resting, Batch)> {
        destination.rest(trouble(), (NOW, NOW), |failures| length * failures)
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
        let adds: fn(&mut RelayTask) = |task| task.headers.push(("X-Team".into(), "sales".into()));
        let removes: fn(&mut RelayTask) = |task| task.removed.push((0, 12));
        for differ in [adds, removes] {
            let destination = Destination::new("mx:example.net".into());
            offer(&destination, 1, 0);
            let mut other = delivery(1, 1);
            if let Task::Relay(task) = &mut other.task {
                differ(task);
            }
            destination.offer(held(other), 2, PLENTY, NOW);
            assert_eq!(destination.take().unwrap().len(), 1);
        }
    }

    #[test]
    fn trouble_hands_back_what_waits_and_is_counted_once() {
        let destination = Destination::new("mx:example.net".into());
        offer(&destination, 1, 0);
        let (resting, back) = rest(&destination, Duration::from_secs(10)).unwrap();
        assert_eq!((resting.until, back.len()), (NOW.plus(Duration::from_secs(10)), 1));
        assert!(rest(&destination, Duration::ZERO).is_none(), "a second lane's trouble is the same one");
        let after = resting.until.plus(SOON);
        let slow = destination.rest(trouble(), (NOW.minus(SOON), after), |_| Duration::ZERO);
        assert!(slow.is_none(), "and so is that of one that had begun before");
        assert!(matches!(offer(&destination, 1, 0), Offered::Rests(_, known) if known.until == resting.until));
        destination.end_rest();
        assert!(matches!(offer(&destination, 1, 0), Offered::Waits { .. }));
    }

    #[test]
    fn after_trouble_one_lane_tries_until_it_went_well() {
        let destination = Destination::new("mx:example.net".into());
        rest(&destination, Duration::ZERO);
        assert!(matches!(offer(&destination, 1, 0), Offered::Waits { start: true }));
        assert!(matches!(offer(&destination, 2, 0), Offered::Waits { start: false }));
        destination.went_well(1, NOW);
        assert!(destination.wants_lane());
    }

    /// So many messages as it can have, waiting from `at` on.
    fn fill(destination: &Destination, at: Timestamp) {
        for message in 0..MAX_WAITING {
            let offered = destination.offer(held(delivery(message as u128, 0)), 2, PLENTY, at);
            assert!(matches!(offered, Offered::Waits { .. }), "{offered:?}");
        }
    }

    /// How long what doesn't find room is put off. `None`: it is waited for.
    fn put_off(destination: &Destination, now: Timestamp) -> Option<Duration> {
        match destination.offer(held(delivery(0, 1)), 2, PLENTY, now) {
            Offered::FullForNow(_) => None,
            Offered::NotBefore(_, at) => Some(at.since(now)),
            other => panic!("{other:?}"),
        }
    }

    /// So many end in that time.
    fn paced(destination: &Destination, ended: usize, (from, over): (Timestamp, Duration)) -> Timestamp {
        destination.went_well(1, from);
        destination.went_well(ended, from.plus(over));
        from.plus(over)
    }

    #[test]
    fn a_full_queue_that_moves_is_waited_for_and_one_that_crawls_is_not() {
        let full = |ended: usize| {
            let destination = Destination::new("mx:example.net".into());
            fill(&destination, NOW);
            assert_eq!(put_off(&destination, NOW), None, "its pace isn't known yet");
            let later = paced(&destination, ended, (NOW, 2 * SOON));
            put_off(&destination, later)
        };
        assert_eq!(full(5000), None);
        assert_eq!(full(1), Some(LATEST));
    }

    /// A next hop that halts for a second (its disk, its garbage) goes on as fast as before.
    #[test]
    fn a_queue_that_stands_still_is_given_as_long_again_and_no_longer() {
        let destination = Destination::new("mx:example.net".into());
        fill(&destination, NOW);
        let moved = paced(&destination, 2048, (NOW, SOON));
        for still in [SOON, 10 * SOON] {
            let wait = put_off(&destination, moved.plus(still)).unwrap();
            assert!((still..still + 2 * SOON).contains(&wait), "{wait:?}");
        }
        let again = moved.plus(11 * SOON);
        destination.went_well(1, again);
        assert_eq!(put_off(&destination, again), None, "it goes on");
        let crawled = (1..20).map(|n| again.plus(n * 30 * SOON)).inspect(|&now| destination.went_well(1, now)).last();
        assert_eq!(put_off(&destination, crawled.unwrap()), Some(LATEST), "now it crawls");
        let silent = Destination::new("mx:example.org".into());
        fill(&silent, NOW);
        assert_eq!(put_off(&silent, NOW.plus(7 * SOON)), Some(7 * SOON));
        assert_eq!(put_off(&silent, NOW.plus(2 * LATEST)), Some(LATEST));
    }

    #[test]
    fn how_long_one_took_alone_and_a_halt_before_the_first_are_no_pace() {
        for took in [PACED / 10, PACED, 20 * SOON] {
            let destination = Destination::new("mx:example.net".into());
            offer(&destination, 0, 0);
            destination.take().unwrap();
            destination.went_well(1, NOW.plus(took));
            let later = NOW.plus(Duration::from_hours(1));
            fill(&destination, later);
            assert_eq!(put_off(&destination, later), None, "it isn't known yet");
            destination.went_well(100, later.plus(took));
            assert_eq!(put_off(&destination, later.plus(took)), None, "nor by the first");
        }
    }

    #[test]
    fn a_pace_of_long_ago_is_none() {
        let destination = Destination::new("mx:example.net".into());
        offer(&destination, 0, 0);
        let crawled = paced(&destination, 1, (NOW, 60 * SOON));
        destination.take().unwrap();
        fill(&destination, crawled.plus(PACE_LASTS));
        assert_eq!(put_off(&destination, crawled.plus(PACE_LASTS)), None);
    }

    /// With what is free in earnest: [`MAX_HELD`] in all.
    #[test]
    fn before_its_pace_is_known_a_flood_is_waited_for_and_what_others_leave_no_room_for_is_not() {
        let fill_up = |taken: usize| {
            let destination = Destination::new("mx:example.net".into());
            let mut waiting = 0;
            loop {
                let free = Free { count: MAX_HELD - taken - waiting, ..PLENTY };
                match destination.offer(held(delivery(waiting as u128, 0)), 2, free, NOW) {
                    Offered::Waits { .. } => waiting += 1,
                    other => return (destination, waiting, free, other),
                }
            }
        };
        let (_, waiting, _, offered) = fill_up(256);
        assert!((FLOOD..MAX_WAITING).contains(&waiting) && matches!(offered, Offered::FullForNow(_)), "{offered:?}");
        let (destination, waiting, free, _) = fill_up(MAX_HELD - 100);
        assert_eq!(waiting, 20);
        for message in 0..2 * MAX_WAITING {
            let offered = destination.offer(held(delivery(message as u128, 1)), 2, free, NOW);
            assert!(matches!(offered, Offered::NotBefore(_, at) if at == NOW.plus(2 * SOON)), "{offered:?}");
        }
    }

    #[test]
    fn what_comes_again_from_the_store_is_no_longer_ahead_there() {
        let destination = Destination::new("mx:example.net".into());
        fill(&destination, NOW);
        offer(&destination, 0, 1);
        let later = paced(&destination, 1024, (NOW, 2 * SOON));
        for _ in 0..10 {
            assert_eq!(put_off(&destination, later), Some(2 * SOON));
        }
    }

    #[test]
    fn what_waits_for_one_is_a_part_of_what_is_free() {
        let destination = Destination::new("mx:example.net".into());
        let weight = held(delivery(0, 0)).weight();
        let few = Free { count: 8, ..PLENTY };
        let light = Free { octets: 2 * PART * weight, ..PLENTY };
        let offer = |message, free| destination.offer(held(delivery(message, 0)), 2, free, NOW);
        for message in 0..2 {
            assert!(matches!(offer(message, few), Offered::Waits { .. }));
        }
        assert!(matches!(offer(2, few), Offered::NotBefore(..)));
        assert!(matches!(offer(2, light), Offered::NotBefore(..)));
        destination.take().unwrap();
        assert!(matches!(offer(2, light), Offered::Waits { .. }));
        let none = Free { count: 1, octets: 1, warm: 1 };
        assert!(matches!(
            Destination::new("b".into()).offer(held(delivery(3, 0)), 2, none, NOW),
            Offered::Waits { .. }
        ));
    }

    #[test]
    fn one_message_that_breaks_connections_is_no_trouble_and_several_are() {
        let destination = Destination::new("mx:example.net".into());
        let broke = |message| destination.broke(MessageId::new(NOW, message));
        assert_eq!([broke(1), broke(1), broke(2), broke(1), broke(3)], [false, false, false, false, true]);
        assert_eq!([broke(1), broke(2)], [false, false]);
        destination.went_well(1, NOW);
        assert!(!broke(3));
    }
}
