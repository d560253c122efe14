//! The one wall clock and the one source of ids. Modules that are pure are given what these return.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::mail::{MessageId, Timestamp};

/// Now, by the wall clock.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A fresh id for a message that arrives at `now`.
#[must_use]
pub fn message_id(now: Timestamp) -> MessageId {
    MessageId::new(now, fastrand::u128(..))
}

/// The monotonic clock that bounds a worker's run.
#[must_use]
pub fn run_clock() -> crate::rules::RunClock {
    let start = std::time::Instant::now();
    crate::rules::RunClock::new(move || start.elapsed())
}
