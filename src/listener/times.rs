//! How long a session may take, a message, and each wait within them (RFC 5321 §4.5.3.2); how slowly mail may come in.
//!
//! Keeps moments, reads no clock: `now` is an argument. Input: what the connection sees happen. Output: how long the
//! next read may wait, and what it means when that time is up.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::SessionSettings;

/// Over so long a message's rate is averaged, or over a quarter of its time where that is shorter.
const WINDOW: Duration = Duration::from_mins(1);
/// What comes in more slowly than this keeps its room from others for too long; a modem of 1990 was faster.
const SLOWEST: u64 = 1024;

/// A session's moments.
#[derive(Debug)]
pub(super) struct Times {
    session_ends: Instant,
    /// Set while a message comes in.
    message_ends: Option<Instant>,
    /// When the session last did something: a command that comes in drop by drop is no such thing.
    moved: Instant,
    /// When octets of a message last came.
    heard: Instant,
    /// Since when the octets of a message are counted, and how many came.
    window: (Instant, u64),
}

/// What the next wait is bounded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// Nothing whole came for so long.
    Quiet(Duration),
    Session(Duration),
    Message(Duration),
    /// No limit by itself: the rate is due to be looked at.
    Rate,
}

impl Limit {
    /// For the log, and for the peer.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Quiet(time) => format!("{} s without a whole command or block of data", time.as_secs_f32()),
            Self::Session(time) => format!("the session took longer than {} s", time.as_secs_f32()),
            Self::Message(time) => format!("the message took longer than {} s", time.as_secs_f32()),
            Self::Rate => format!("the message came in at less than {SLOWEST} octets a second while memory is short"),
        }
    }
}

impl Times {
    pub(super) fn new(now: Instant, settings: &SessionSettings) -> Self {
        let session_ends = later(now, settings.session_timeout);
        Self { session_ends, message_ends: None, moved: now, heard: now, window: (now, 0) }
    }

    pub(super) fn session_ends(&self) -> Instant {
        self.session_ends
    }

    pub(super) fn moved(&mut self, now: Instant) {
        self.moved = now;
    }

    /// Octets of a message came in.
    pub(super) fn heard(&mut self, now: Instant, count: usize) {
        self.heard = now;
        self.window.1 = self.window.1.saturating_add(count as u64);
    }

    /// What bounds the next wait, and up to when. `timeout`: what the session allows for it.
    pub(super) fn next(
        &mut self,
        now: Instant,
        receiving: bool,
        timeout: Duration,
        settings: &SessionSettings,
    ) -> (Instant, Limit) {
        if !receiving {
            self.message_ends = None;
            let quiet = (later(self.moved, timeout), Limit::Quiet(timeout));
            let session = (self.session_ends, Limit::Session(settings.session_timeout));
            return if session.0 < quiet.0 { session } else { quiet };
        }
        // A message that has begun may end in its own time, whatever is left of the session's.
        let message_ends = *self.message_ends.get_or_insert_with(|| {
            self.window = (now, 0);
            later(now, settings.message_timeout)
        });
        // RFC 5321 §4.5.3.2: each block of data has its time anew, a command line has it once.
        let quiet = (later(self.heard.max(self.moved), timeout), Limit::Quiet(timeout));
        let message = (message_ends, Limit::Message(settings.message_timeout));
        let rate = (later(self.window.0, window(settings)), Limit::Rate);
        [message, rate].into_iter().fold(quiet, |first, other| if other.0 < first.0 { other } else { first })
    }

    /// The window is over: whether the message came in too slowly during it. A new one begins.
    pub(super) fn was_slow(&mut self, now: Instant, settings: &SessionSettings) -> bool {
        let (_, octets) = std::mem::replace(&mut self.window, (now, 0));
        u128::from(octets) * 1000 < u128::from(SLOWEST) * window(settings).as_millis()
    }

    /// The message was answered: the next one has its time anew.
    pub(super) fn message_over(&mut self) {
        self.message_ends = None;
    }
}

fn window(settings: &SessionSettings) -> Duration {
    WINDOW.min(settings.message_timeout / 4)
}

/// `duration` after `moment`, however long it is.
pub(super) fn later(moment: Instant, duration: Duration) -> Instant {
    const YEAR: Duration = Duration::from_hours(365 * 24);
    moment + duration.min(YEAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: Duration = Duration::from_mins(5);
    const BLOCK: Duration = Duration::from_mins(3);

    fn settings() -> SessionSettings {
        SessionSettings::default()
    }

    #[test]
    fn a_message_outlives_the_session_and_not_its_own_time() {
        let settings = settings();
        let start = Instant::now();
        let mut times = Times::new(start, &settings);
        let late = start + settings.session_timeout - Duration::from_secs(1);
        times.heard(late, 1);
        assert_eq!(times.next(late, true, BLOCK, &settings).1, Limit::Rate);
        let mut now = late;
        let ends = late + settings.message_timeout;
        while now < ends {
            let (until, limit) = times.next(now, true, BLOCK, &settings);
            now = until;
            match limit {
                Limit::Rate => _ = times.was_slow(now, &settings),
                other => assert_eq!((other, now), (Limit::Message(settings.message_timeout), ends)),
            }
            times.heard(now, 1);
        }
        times.moved(now);
        let (until, limit) = times.next(now, false, COMMAND, &settings);
        assert_eq!((until, limit), (start + settings.session_timeout, Limit::Session(settings.session_timeout)));
    }

    #[test]
    fn a_look_at_the_rate_gives_a_silent_peer_no_more_time() {
        let settings = settings();
        let start = Instant::now();
        let mut times = Times::new(start, &settings);
        let mut now = start;
        loop {
            let (until, limit) = times.next(now, true, BLOCK, &settings);
            now = until;
            if limit != Limit::Rate {
                assert_eq!((limit, now), (Limit::Quiet(BLOCK), start + BLOCK));
                return;
            }
            assert!(times.was_slow(now, &settings));
        }
    }

    #[test]
    fn a_kilobyte_a_second_is_fast_enough() {
        let settings = settings();
        let start = Instant::now();
        let mut times = Times::new(start, &settings);
        times.next(start, true, BLOCK, &settings);
        times.heard(start, 60 * 1024);
        let (until, limit) = times.next(start, true, BLOCK, &settings);
        assert_eq!((until, limit), (start + WINDOW, Limit::Rate));
        assert!(!times.was_slow(until, &settings), "and a new window begins");
        times.heard(until, 60 * 1024 - 1);
        assert!(times.was_slow(until + WINDOW, &settings));
    }
}
