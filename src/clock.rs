//! The one wall clock, the one monotonic clock, a thread's time at work, and the one source of ids. Modules that are pure are
//! given what these return.
//!
//! A simulation holds the clock of its thread ([`hold`]): the wall clock then goes with the monotonic one, which is
//! tokio's and may be paused, and whoever asks [`is_held`] does nothing behind that thread's back.

use std::cell::Cell;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom as _, SystemRandom};
pub use tokio::time::Instant;

use crate::mail::{MessageId, Timestamp};
use crate::rules::Seed;

thread_local! {
    /// What the wall clock said at a moment, from which it is reckoned on, or what it says without a moment; `None`: the
    /// system's clock is asked.
    static HELD: Cell<Option<(Timestamp, Option<Instant>)>> = const { Cell::new(None) };
    /// Seeds that were given out while the clock is held.
    static SEEDS: Cell<u64> = const { Cell::new(0) };
}

/// Now, by the wall clock.
#[must_use]
pub fn now() -> Timestamp {
    if let Some((then, moment)) = HELD.get() {
        return moment.map_or(then, |moment| then.plus(moment.elapsed()));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// From here on this thread's wall clock says `now` and goes with the monotonic one, until the guard is dropped.
#[must_use]
pub fn hold(now: Timestamp) -> Held {
    HELD.set(Some((now, Some(Instant::now()))));
    SEEDS.set(0);
    Held(PhantomData)
}

/// From here on this thread's wall clock says `now` and stands still, until the guard is dropped.
#[must_use]
pub fn stop(now: Timestamp) -> Held {
    HELD.set(Some((now, None)));
    SEEDS.set(0);
    Held(PhantomData)
}

/// Whether this thread is a simulation's, in which all is done in one order.
#[must_use]
pub fn is_held() -> bool {
    HELD.get().is_some()
}

/// The clock of this thread is held.
#[derive(Debug)]
pub struct Held(PhantomData<*const ()>);

impl Drop for Held {
    fn drop(&mut self) {
        HELD.set(None);
    }
}

/// A fresh id for a message that arrives at `now`.
#[must_use]
pub fn message_id(now: Timestamp) -> MessageId {
    MessageId::new(now, fastrand::u128(..))
}

/// What a worker's run draws its ids from: unknown to everybody else, and another one for each call.
#[must_use]
pub fn seed() -> Seed {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    if is_held() {
        return Seed::new([0; 32], SEEDS.replace(SEEDS.get() + 1));
    }
    Seed::new(secret(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The same for each run of one thing, as long as this process lives: what such a run counts, it counts once.
#[must_use]
pub fn seed_of(what: &impl Hash) -> Seed {
    // No call's number, so that nothing else draws the same.
    Seed::new(if is_held() { [0; 32] } else { secret() }, u64::MAX).of(what)
}

fn secret() -> [u8; 32] {
    static SECRET: OnceLock<[u8; 32]> = OnceLock::new();
    *SECRET.get_or_init(|| {
        let mut secret = [0; 32];
        if SystemRandom::new().fill(&mut secret).is_err() {
            fastrand::fill(&mut secret);
        }
        secret
    })
}

/// The monotonic clock that bounds a worker's run.
#[must_use]
pub fn run_clock() -> crate::rules::RunClock {
    let start = Instant::now();
    crate::rules::RunClock::new(move || start.elapsed()).with_busy(busy)
}

/// How long this thread has had the processor. Where the clock is held, no work takes any time.
#[must_use]
pub fn busy() -> Duration {
    if is_held() {
        return Duration::ZERO;
    }
    let had = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(had.tv_sec.try_into().unwrap_or(0), had.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_not_at_work_while_another_is() {
        let at_work = |time: Duration| {
            let begun = busy();
            while busy().saturating_sub(begun) < time {
                std::hint::spin_loop();
            }
        };
        let begun = busy();
        at_work(Duration::from_millis(5));
        assert!(busy().saturating_sub(begun) >= Duration::from_millis(5));
        let (begun, moment) = (busy(), Instant::now());
        std::thread::spawn(move || at_work(Duration::from_millis(50))).join().unwrap();
        assert!(moment.elapsed() >= Duration::from_millis(50));
        assert!(busy().saturating_sub(begun) < Duration::from_millis(25));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_held_goes_with_the_monotonic_one() {
        let start = Timestamp::from_millis(1_800_000_000_000);
        let held = hold(start);
        assert_eq!((now(), is_held()), (start, true));
        tokio::time::advance(Duration::from_hours(30)).await;
        assert_eq!(now(), start.plus(Duration::from_hours(30)));
        drop(held);
        assert!(!is_held());
        assert_ne!(now(), start.plus(Duration::from_hours(30)));
    }

    #[tokio::test(start_paused = true)]
    async fn seeds_differ_and_only_those_of_a_held_clock_can_be_told_beforehand() {
        let draw = || [seed().draw(1), seed().draw(1)];
        let held = hold(Timestamp::default());
        let told = draw();
        drop(held);
        let held = hold(Timestamp::default());
        assert_eq!(draw(), told);
        drop(held);
        let [first, second] = draw();
        assert!(first != second && told[0] != told[1] && !told.contains(&first) && !told.contains(&second));
    }

    #[test]
    fn what_runs_again_draws_the_same_again_and_nothing_else_does() {
        assert_eq!(seed_of(&("tell", 1)).draw(1), seed_of(&("tell", 1)).draw(1));
        assert_eq!(seed_of(&("tell", 1)).mark(1), seed_of(&("tell", 1)).mark(1));
        let others = [seed_of(&("tell", 2)), seed_of(&("decide", 1)), seed(), seed()];
        assert!(others.iter().all(|other| other.draw(1) != seed_of(&("tell", 1)).draw(1)));
        assert!(others.iter().all(|other| other.mark(1) != seed_of(&("tell", 1)).mark(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_stopped_stands_still() {
        let start = Timestamp::from_millis(1_800_000_000_000);
        let _stopped = stop(start);
        tokio::time::advance(Duration::from_hours(30)).await;
        assert_eq!(now(), start);
    }
}
