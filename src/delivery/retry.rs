//! When a delivery is tried again: the schedule, its jitter and its end. Pure: now and chance are arguments.
//!
//! RFC 5321 §4.5.4.1: retries at growing intervals, given up after days.

use std::time::Duration;

use crate::mail::Timestamp;

/// The share of a wait by which it is spread to either side, so that what failed together isn't tried together.
const SPREAD: f64 = 0.1;

/// What the schedule says after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    At(Timestamp),
    /// The schedule is at its end.
    Expired,
}

/// By `[relay]`: the last wait repeats until `expire` after it was queued. One attempt is made when that time is up.
///
/// `attempts` counts the one that just failed; `chance` lies in 0..1.
#[must_use]
pub fn relay(
    waits: &[Duration],
    expire: Duration,
    attempts: u32,
    queued_at: Timestamp,
    now: Timestamp,
    chance: f64,
) -> Next {
    // A clock that was set back makes the delivery younger, never older: `since` is zero then.
    let age = now.since(queued_at);
    if age >= expire {
        return Next::Expired;
    }
    let last = waits.last().copied().unwrap_or(Duration::from_mins(1));
    let wait = wait(waits, attempts).unwrap_or(last);
    let jittered = jitter(wait, chance);
    Next::At(now.plus(jittered.min(expire.saturating_sub(age))))
}

/// By `[webhook_defaults]`: each wait once, then no more.
#[must_use]
pub fn webhook(waits: &[Duration], attempts: u32, now: Timestamp, chance: f64) -> Next {
    wait(waits, attempts).map_or(Next::Expired, |wait| Next::At(now.plus(jitter(wait, chance))))
}

/// How long a destination rests after `failures` troubles in a row: doubling from `first` to ten minutes.
#[must_use]
pub fn pause(first: Duration, failures: u32, chance: f64) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(10));
    jitter(doubled.min(Duration::from_mins(10).max(first)), chance)
}

/// `wait` spread by a tenth to either side.
#[must_use]
pub fn jitter(wait: Duration, chance: f64) -> Duration {
    wait.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * chance.clamp(0.0, 1.0))
}

fn wait(waits: &[Duration], attempts: u32) -> Option<Duration> {
    let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    waits.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const DAY: Duration = Duration::from_hours(24);
    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn due(next: Next) -> Duration {
        match next {
            Next::At(at) => at.since(NOW),
            Next::Expired => panic!("expired"),
        }
    }

    #[test]
    fn the_last_wait_repeats() {
        let waits = [MINUTE, 5 * MINUTE];
        let at = |attempts| due(relay(&waits, DAY, attempts, NOW, NOW, 0.5));
        assert_eq!([at(1), at(2), at(3), at(40)], [MINUTE, 5 * MINUTE, 5 * MINUTE, 5 * MINUTE]);
    }

    #[test]
    fn chance_spreads_by_a_tenth() {
        let at = |chance| due(relay(&[100 * MINUTE], DAY, 1, NOW, NOW, chance));
        assert_eq!((at(0.0), at(1.0)), (90 * MINUTE, 110 * MINUTE));
    }

    #[test]
    fn one_last_attempt_falls_on_the_expiry_and_then_no_more() {
        let queued = NOW.minus(DAY).plus(MINUTE);
        assert_eq!(due(relay(&[10 * MINUTE], DAY, 9, queued, NOW, 0.5)), MINUTE);
        assert_eq!(relay(&[10 * MINUTE], DAY, 9, NOW.minus(DAY), NOW, 0.5), Next::Expired);
    }

    #[test]
    fn a_clock_set_back_expires_nothing_and_waits_no_longer() {
        let queued_in_the_future = NOW.plus(30 * DAY);
        assert_eq!(due(relay(&[MINUTE], DAY, 1, queued_in_the_future, NOW, 0.5)), MINUTE);
    }

    #[test]
    fn a_schedule_without_waits_still_waits() {
        assert_eq!(due(relay(&[], DAY, 1, NOW, NOW, 0.5)), MINUTE);
    }

    #[test]
    fn a_webhook_ends_with_its_schedule() {
        let waits = [Duration::from_secs(5), MINUTE];
        assert_eq!(due(webhook(&waits, 1, NOW, 0.5)), Duration::from_secs(5));
        assert_eq!(due(webhook(&waits, 2, NOW, 0.5)), MINUTE);
        assert_eq!(webhook(&waits, 3, NOW, 0.5), Next::Expired);
        assert_eq!(webhook(&waits, u32::MAX, NOW, 0.5), Next::Expired);
    }

    #[test]
    fn a_pause_doubles_to_ten_minutes() {
        let seconds = |failures| pause(Duration::from_secs(30), failures, 0.5).as_secs();
        assert_eq!([seconds(1), seconds(2), seconds(3), seconds(60)], [30, 60, 120, 600]);
    }
}
