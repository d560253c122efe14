//! Short runs, made at once on the session's own thread: most workers decide in some microseconds, and handing them to a
//! thread that may block costs more than they do.
//!
//! Nothing a script does while it runs can be seen, so one that takes longer is cut short and made anew on such a thread,
//! with all of its budget. What counts is how long it had the processor, or waited for keys: that others had the
//! processor meanwhile, as under load they do, says nothing of a script. Where long ones cost more than the others save,
//! all go there for a while. The thread is held up for no more than [`PATIENCE`] and what is done without a look at the
//! time: some operations, or one that is long.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::aside;
use crate::clock;
use crate::mail::Timestamp;
use crate::rules;

/// How long a run may hold up its thread.
const PATIENCE: Duration = Duration::from_millis(1);
/// Octets of a message up to which what is read of it takes no longer than that.
pub(super) const SMALL: usize = 64 * 1024;
/// How long none is tried once those that took too long have used up what the short ones saved.
const PAUSE: Duration = Duration::from_secs(10);
/// How many short ones save what a long one costs for each time that it takes [`PATIENCE`]: two changes of thread against
/// a millisecond.
const COST: i64 = 25;
/// No more is saved than for so many of those.
const SAVINGS: i64 = 8 * COST;

/// Whether short runs are to be had.
#[derive(Debug, Default)]
pub(super) struct InPlace {
    /// Unix milliseconds.
    not_before: AtomicI64,
    /// What short runs have saved, in runs.
    saved: AtomicI64,
}

impl InPlace {
    /// Does `work` here and now, if it may be expected to be short. `work` is told how long it may take, and returns
    /// `None` where that was too little.
    ///
    /// # Errors
    /// It panicked, in words.
    pub(super) fn attempt<T>(&self, work: impl FnOnce(Duration) -> Option<T>) -> Option<Result<T, String>> {
        let now = clock::now();
        let not_before = Timestamp::from_millis(self.not_before.load(Ordering::Relaxed));
        // Also by a clock that was set back.
        if now < not_before && not_before.since(now) <= PAUSE {
            return None;
        }
        let begun = used();
        let done = catch_unwind(AssertUnwindSafe(|| work(PATIENCE)));
        self.account(now, used().saturating_sub(begun));
        match done {
            Ok(done) => done.map(Ok),
            Err(panic) => Some(Err(aside::in_words(panic.as_ref()))),
        }
    }

    /// What a run has cost or saved that used so much.
    fn account(&self, now: Timestamp, used: Duration) {
        if used <= PATIENCE {
            if self.saved.load(Ordering::Relaxed) < SAVINGS {
                self.saved.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        let times = used.as_micros() / PATIENCE.as_micros();
        let cost = COST.saturating_mul(i64::try_from(times).unwrap_or(i64::MAX)).min(2 * SAVINGS);
        if self.saved.fetch_sub(cost, Ordering::Relaxed) < cost {
            self.saved.store(0, Ordering::Relaxed);
            self.not_before.store(now.plus(PAUSE).as_millis(), Ordering::Relaxed);
        }
    }
}

/// How long this thread has been at work or waited for keys.
fn used() -> Duration {
    clock::busy().saturating_add(rules::waited())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_micros(1500);

    /// After runs that used so much each, whether the next is tried.
    fn is_tried_after(runs: &[(i64, Duration)]) -> bool {
        let in_place = InPlace::default();
        for (count, used) in runs {
            (0..*count).for_each(|_| in_place.account(clock::now(), *used));
        }
        in_place.attempt(|_| Some(1)).is_some()
    }

    #[test]
    fn what_is_short_is_done_at_once() {
        let in_place = InPlace::default();
        assert_eq!(in_place.attempt(|_| Some(1)), Some(Ok(1)));
        assert_eq!(in_place.attempt(|_| Some(2)), Some(Ok(2)));
    }

    #[test]
    fn after_one_that_takes_too_long_none_is_tried() {
        let in_place = InPlace::default();
        let too_long = in_place.attempt(|patience| {
            let begun = clock::busy();
            while clock::busy().saturating_sub(begun) <= patience {
                std::hint::spin_loop();
            }
            None::<u8>
        });
        assert_eq!(too_long, None);
        assert_eq!(in_place.attempt(|_| Some(1)), None);
        // As if the clock had been set back since by more than the pause.
        in_place.not_before.store(clock::now().plus(PAUSE * 2).as_millis(), Ordering::Relaxed);
        assert_eq!(in_place.attempt(|_| Some(1)), Some(Ok(1)));
    }

    #[test]
    fn one_that_came_to_its_end_and_waited_for_keys_was_long_too() {
        let in_place = InPlace::default();
        let waited = in_place.attempt(|_| {
            rules::engine::has_waited(LONG);
            Some(1)
        });
        assert_eq!(waited, Some(Ok(1)));
        assert_eq!(in_place.attempt(|_| Some(1)), None);
    }

    #[test]
    fn one_that_gives_way_at_once_costs_nothing() {
        let in_place = InPlace::default();
        assert_eq!(in_place.attempt(|_| None::<u8>), None);
        assert_eq!(in_place.attempt(|_| Some(1)), Some(Ok(1)));
    }

    #[test]
    fn one_in_many_may_be_long_and_more_may_not() {
        assert!(!is_tried_after(&[(1, LONG)]));
        assert!(!is_tried_after(&[(COST - 1, PATIENCE), (1, LONG)]));
        assert!(is_tried_after(&[(COST, PATIENCE), (1, LONG)]));
        assert!(is_tried_after(&[(3 * COST, PATIENCE), (3, LONG)]));
        assert!(!is_tried_after(&[(3 * COST, PATIENCE), (4, LONG)]));
    }

    #[test]
    fn no_more_is_saved_than_for_a_few() {
        assert!(is_tried_after(&[(1_000_000, PATIENCE), (8, LONG)]));
        assert!(!is_tried_after(&[(1_000_000, PATIENCE), (9, LONG)]));
    }

    #[test]
    fn one_costs_by_how_long_it_is() {
        assert!(is_tried_after(&[(1_000_000, PATIENCE), (1, 8 * PATIENCE)]));
        assert!(!is_tried_after(&[(1_000_000, PATIENCE), (1, 9 * PATIENCE)]));
        assert!(!is_tried_after(&[(1_000_000, PATIENCE), (1, Duration::MAX)]));
    }

    #[test]
    fn a_panic_is_an_error_in_words() {
        let in_place = InPlace::default();
        let panicked = in_place.attempt(|_| -> Option<u8> { std::panic::panic_any("out of cheese") });
        assert_eq!(panicked, Some(Err("out of cheese".to_owned())));
    }
}
