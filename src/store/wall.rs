//! Whether the wall clock can be believed: nothing is deleted and nobody is given up because a clock has jumped.
//!
//! The last moment seen is kept with the store, and while it runs the monotonic clock says how long ago that was. A clock
//! that is more than an hour ahead of that is believed only after an hour, in which a person can put it right: after a
//! stop of days it is right, and the hour costs nothing.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use super::StoreError;
use super::claims::Claimed;
use crate::clock::Instant;
use crate::event::{Event, Kind};
use crate::mail::Timestamp;

/// Further ahead than this is a jump, and so long it waits to be believed.
const HOUR: Duration = Duration::from_hours(1);
/// A stop that long is worth a word.
const DAY: Duration = Duration::from_hours(24);

pub(super) const SEEN: &str = "SELECT value FROM counters WHERE name = 'seen'";
pub(super) const SEE: &str =
    "INSERT INTO counters (name, value) VALUES ('seen', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// The clock against what is known of the time.
#[derive(Debug, Default)]
pub(super) struct Wall {
    last: Option<Timestamp>,
    /// When `last` was, by the monotonic clock; `None`: before this process.
    at: Option<Instant>,
    held: Option<Jump>,
}

#[derive(Debug, Clone, Copy)]
struct Jump {
    /// What the time was then, as far as is known.
    from: Timestamp,
    by: Duration,
    until: Timestamp,
}

/// What a look at the clock says.
#[derive(Debug, PartialEq)]
pub(super) enum Look {
    Believed,
    /// It was set back: what was reckoned by it before is void.
    SetBack,
    /// It has jumped ahead; with what the admin is to hear of it, once.
    Held(Option<Event>),
}

impl Wall {
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let last = connection.query_row(SEEN, [], |row| Ok(row.get(0).ok())).optional()?.flatten();
        Ok(Self { last: last.map(Timestamp::from_millis), ..Self::default() })
    }

    /// What is known of the time without the wall clock.
    fn expected(&self) -> Option<Timestamp> {
        self.last.map(|last| last.plus(self.at.map_or(Duration::ZERO, |at| at.elapsed())))
    }

    pub(super) fn look(&mut self, now: Timestamp) -> Look {
        let running = self.at.is_some();
        let expected = self.expected().unwrap_or(now);
        (self.last, self.at) = (Some(now), Some(Instant::now()));
        let by = now.since(expected);
        if by > HOUR {
            let before = self.held.map_or((expected, Duration::ZERO), |jump| (jump.from, jump.by));
            self.held = Some(Jump { from: before.0, by: before.1 + by, until: now.plus(HOUR) });
            return Look::Held((running || by > DAY).then(|| jumped(now, expected, by)));
        }
        if expected.since(now) > HOUR {
            self.held = None;
            return Look::SetBack;
        }
        if self.held.take_if(|jump| now >= jump.until).is_none() && self.held.is_some() {
            return Look::Held(None);
        }
        Look::Believed
    }

    /// Keeps the moment for the next start; only one that is believed.
    pub(super) fn keep(&self, connection: &Connection) -> Result<(), StoreError> {
        if let (Some(last), None) = (self.last, self.held) {
            connection.prepare_cached(SEE)?.execute([last.as_millis()])?;
        }
        Ok(())
    }

    /// What was queued before a jump that isn't believed yet is no older for it.
    pub(super) fn make_younger(&self, claimed: &mut Claimed, now: Timestamp) {
        let unseen = || self.expected().map(|expected| (expected, now.since(expected))).filter(|(_, by)| *by > HOUR);
        let Some((from, by)) = self.held.map(|jump| (jump.from, jump.by)).or_else(unseen) else { return };
        // The last moment that is known may have been some time before a stop: what was queued since lies near it.
        let before = from.plus(by / 2);
        for delivery in claimed.deliveries_mut().iter_mut().filter(|delivery| delivery.queued_at < before) {
            delivery.queued_at = delivery.queued_at.plus(by);
        }
    }
}

fn jumped(now: Timestamp, expected: Timestamp, by: Duration) -> Event {
    let what = "the clock is ahead of what was last known of the time".to_owned();
    let detail = format!(
        "it says {now}, and by what was last seen it should be about {expected} ({} hours less). If it is wrong, set it \
         right within an hour: until then nothing is deleted by its age, and no delivery is given up for it",
        by.as_secs() / 3600
    );
    Event::new(now, Kind::Fault { what, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn seen(last: Timestamp) -> Wall {
        Wall { last: Some(last), ..Wall::default() }
    }

    #[test]
    fn a_clock_that_runs_on_is_believed() {
        let mut wall = Wall::default();
        assert_eq!(wall.look(NOW), Look::Believed);
        assert_eq!(wall.look(NOW.plus(HOUR)), Look::Believed);
        assert_eq!(seen(NOW.minus(HOUR)).look(NOW), Look::Believed);
    }

    #[test]
    fn one_that_is_ahead_is_believed_after_an_hour_and_told_once() {
        let mut wall = seen(NOW);
        let ahead = NOW.plus(40 * DAY);
        assert!(matches!(wall.look(ahead), Look::Held(Some(_))));
        assert_eq!(wall.look(ahead.plus(HOUR / 2)), Look::Held(None));
        assert_eq!(wall.look(ahead.plus(HOUR)), Look::Believed);
        assert_eq!(wall.look(ahead.plus(HOUR)), Look::Believed);
    }

    #[test]
    fn one_that_is_put_right_is_believed_at_once() {
        let mut wall = seen(NOW);
        assert!(matches!(wall.look(NOW.plus(40 * DAY)), Look::Held(_)));
        assert_eq!(wall.look(NOW), Look::SetBack);
        assert_eq!(wall.look(NOW), Look::Believed);
        assert!(matches!(wall.look(NOW.plus(2 * HOUR)), Look::Held(Some(_))), "and held to again");
    }

    #[test]
    fn a_night_without_the_server_is_no_news() {
        assert_eq!(seen(NOW.minus(HOUR * 9)).look(NOW), Look::Held(None));
    }
}
