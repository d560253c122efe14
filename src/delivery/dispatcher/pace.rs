//! How fast a destination's deliveries end, and how long those that wait for it take. No I/O, no clock.

use std::time::Duration;

use crate::mail::Timestamp;

/// A queue that moves on sooner than this is waited for.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// The longest wait for a queue to move on.
pub(super) const LATEST: Duration = Duration::from_mins(10);
/// A pace is taken over no less than that.
pub(super) const PACED: Duration = Duration::from_millis(500);
/// A pace that is older says nothing of today's.
pub(super) const PACE_LASTS: Duration = Duration::from_mins(1);
/// So many that wait before a pace is known came in no time.
pub(super) const FLOOD: usize = 512;
/// By second; one that was faster yet is soon known to be slow.
const FASTEST: f64 = 4096.0;

/// How fast its deliveries end while some wait.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// From when those that `ended` are counted.
    since: Option<Timestamp>,
    ended: u32,
    /// When one ended last.
    last: Option<Timestamp>,
    /// The last that is known.
    per_second: Option<f64>,
}

impl Pace {
    /// The first waits: how long nothing did, says nothing of the pace.
    pub(super) fn begin(&mut self, now: Timestamp) {
        let lasts = self.last.is_some_and(|last| now.since(last) < PACE_LASTS);
        let per_second = self.per_second.filter(|_| lasts);
        *self = Self { since: None, last: Some(now), ended: 0, per_second };
    }

    pub(super) fn count(&mut self, ended: usize, now: Timestamp) {
        self.last = Some(now);
        // Counted from the first that ends: how long one took alone is no pace either.
        let Some(since) = self.since else {
            self.since = Some(now);
            return;
        };
        self.ended = self.ended.saturating_add(u32::try_from(ended).unwrap_or(u32::MAX));
        let passed = now.since(since);
        if passed >= PACED {
            // One halt among the others makes it half as fast, and no slower.
            let now_is = (f64::from(self.ended) / passed.as_secs_f64()).min(FASTEST);
            self.per_second = Some(self.per_second.map_or(now_is, |before| now_is.max(before / 2.0)));
            self.ended = 0;
            self.since = Some(now);
        }
    }

    /// How long `ahead` deliveries take, of which some wait here. That it stands still just now is no pace: as long as it
    /// has, it may go on to.
    pub(super) fn time_for(&self, ahead: usize, waiting: usize, now: Timestamp) -> Duration {
        let still = self.last.map_or(Duration::ZERO, |last| now.since(last));
        let Some(per_second) = self.per_second else {
            // Of a flood it is known soon, and few destinations can have one at once.
            let least = if waiting >= FLOOD { Duration::ZERO } else { SOON * 2 };
            return still.clamp(least, LATEST);
        };
        let ahead = f64::from(u32::try_from(ahead).unwrap_or(u32::MAX));
        let seconds = (ahead / per_second).min(LATEST.as_secs_f64());
        (Duration::from_secs_f64(seconds) + still).min(LATEST)
    }
}
