//! Short runs, made at once on the session's own thread: most workers decide in some microseconds, and handing them to a
//! thread that may block costs more than they do.
//!
//! Nothing a script does while it runs can be seen, so one that takes longer is cut short and made anew on such a thread,
//! with all of its budget. After one has been cut short, all go there for a while. The other sessions of the thread wait
//! no longer than [`PATIENCE`] and the one operation that was under way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::aside;
use crate::clock::{self, Instant};
use crate::mail::Timestamp;

/// How long a run may hold up its thread.
const PATIENCE: Duration = Duration::from_millis(1);
/// Octets of a message up to which what is read of it takes no longer than that.
pub(super) const SMALL: usize = 64 * 1024;
/// How long none is tried after one took too long.
const PAUSE: Duration = Duration::from_secs(10);

/// Whether short runs are to be had.
#[derive(Debug, Default)]
pub(super) struct InPlace {
    /// Unix milliseconds.
    not_before: AtomicI64,
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
        let started = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| work(PATIENCE)));
        if started.elapsed() > PATIENCE {
            self.not_before.store(now.plus(PAUSE).as_millis(), Ordering::Relaxed);
        }
        match done {
            Ok(done) => done.map(Ok),
            Err(panic) => Some(Err(aside::in_words(panic.as_ref()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let started = Instant::now();
            while started.elapsed() <= patience {
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
    fn a_panic_is_an_error_in_words() {
        let in_place = InPlace::default();
        let panicked = in_place.attempt(|_| -> Option<u8> { std::panic::panic_any("out of cheese") });
        assert_eq!(panicked, Some(Err("out of cheese".to_owned())));
    }
}
