//! How often something has happened of late: what `env.limit` counts, at once and in memory alone.
//!
//! A window that slides, from two that stand: what of the one before lies within the period still counts, in proportion. So
//! a limit holds over any period, and takes a few octets for each key. Bound: [`MAX_WINDOWS`]; beyond it those go first
//! that counted least, so that a flood of new keys pushes itself out and not the one who is being held back.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::kv::{Counted, Limit};
use crate::mail::Timestamp;

/// Keys that are counted at a time.
const MAX_WINDOWS: usize = 100_000;
/// Questions of a key that are remembered: a run that is repeated counts once.
const REMEMBERED: usize = 4;

/// Counters of one process.
#[derive(Default)]
pub struct Limits(Mutex<HashMap<(String, String, u64), Window>>);

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Limits")
    }
}

#[derive(Debug, Default)]
struct Window {
    /// The how many-th of its length since 1970.
    number: i64,
    current: u32,
    previous: u32,
    /// The newest last.
    answers: Vec<(u64, Counted)>,
}

impl Limits {
    /// Counts one, if there is room for it.
    #[must_use]
    pub fn count(&self, limit: &Limit<'_>) -> Counted {
        let per = i64::try_from(limit.per).unwrap_or(i64::MAX).max(1);
        let (number, elapsed) = (limit.now.as_millis().div_euclid(per), limit.now.as_millis().rem_euclid(per));
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (limit.name.to_owned(), limit.key.to_owned(), limit.per);
        if windows.len() >= MAX_WINDOWS && !windows.contains_key(&key) {
            make_room(&mut windows, limit.now);
        }
        let window = windows.entry(key).or_default();
        window.turn(number);
        if let Some((_, answer)) = window.answers.iter().find(|(once, _)| *once == limit.once) {
            return *answer;
        }
        // Rounded up: a part of one counts whole.
        let left_of_previous =
            (i128::from(window.previous) * i128::from(per - elapsed) + i128::from(per) - 1) / i128::from(per);
        let used = window.current.saturating_add(u32::try_from(left_of_previous).unwrap_or(u32::MAX));
        let allowed = used < limit.most;
        if allowed {
            window.current += 1;
        }
        let counted = Counted {
            allowed,
            remaining: limit.most.saturating_sub(used).saturating_sub(1),
            reset_at: Timestamp::from_millis((number + 1).saturating_mul(per)),
        };
        // What was denied has counted nothing, and may be had by now when it is asked for again.
        if allowed {
            if window.answers.len() >= REMEMBERED {
                window.answers.remove(0);
            }
            window.answers.push((limit.once, counted));
        }
        counted
    }
}

impl Window {
    fn turn(&mut self, number: i64) {
        // A clock that went back a little counts on in the window that there is; one that was far ahead, or it denied for as
        // long, begins anew.
        if number <= self.number && self.number <= number.saturating_add(1) {
            return;
        }
        self.previous = if number == self.number + 1 { self.current } else { 0 };
        (self.number, self.current) = (number, 0);
    }
}

/// Takes out what no longer counts; where that isn't enough, a quarter of all, those that counted least.
fn make_room(windows: &mut HashMap<(String, String, u64), Window>, now: Timestamp) {
    windows.retain(|(_, _, per), window| {
        let per = i64::try_from(*per).unwrap_or(i64::MAX).max(1);
        (window.number - now.as_millis().div_euclid(per)).abs() <= 1
    });
    if windows.len() < MAX_WINDOWS / 4 * 3 {
        return;
    }
    let mut counts: Vec<u32> = windows.values().map(|window| window.current.max(window.previous)).collect();
    let quarter = counts.len() / 4;
    let least = counts.select_nth_unstable(quarter).1;
    let least = *least;
    windows.retain(|_, window| window.current.max(window.previous) > least);
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_800_000_000_000;

    fn ask(limits: &Limits, key: &str, at: i64, once: u64) -> Counted {
        let now = Timestamp::from_millis(START + at);
        limits.count(&Limit { name: "n", key, most: 4, per: 1000, now, once })
    }

    #[test]
    fn so_many_are_allowed_in_a_period_wherever_it_begins() {
        let limits = Limits::default();
        let remaining: Vec<(bool, u32)> =
            (0..5).map(|n| ask(&limits, "a", 900, n)).map(|counted| (counted.allowed, counted.remaining)).collect();
        assert_eq!(remaining, [(true, 3), (true, 2), (true, 1), (true, 0), (false, 0)]);
        assert!(ask(&limits, "b", 900, 9).allowed, "each key counts for itself");
        // The window before still counts in proportion.
        assert!(!ask(&limits, "a", 1000, 10).allowed);
        assert!(!ask(&limits, "a", 1249, 11).allowed);
        assert!(ask(&limits, "a", 1251, 12).allowed && !ask(&limits, "a", 1252, 13).allowed);
        assert!(ask(&limits, "a", 5000, 14).remaining == 3);
        assert_eq!(ask(&limits, "a", 5000, 15).reset_at.as_millis(), START + 6000);
    }

    #[test]
    fn a_run_that_is_repeated_counts_once() {
        let limits = Limits::default();
        assert_eq!(ask(&limits, "a", 0, 1), ask(&limits, "a", 0, 1));
        assert_eq!(ask(&limits, "a", 0, 2).remaining, 2);
    }

    #[test]
    fn a_run_that_was_denied_and_comes_again_later_is_denied_no_more() {
        let limits = Limits::default();
        for once in 0..4 {
            assert!(ask(&limits, "a", 0, once).allowed);
        }
        assert!(!ask(&limits, "a", 0, 9).allowed && ask(&limits, "a", 2_000, 9).allowed);
        assert_eq!(ask(&limits, "a", 2_000, 9), ask(&limits, "a", 2_000, 9));
        assert_eq!(ask(&limits, "a", 2_000, 10).remaining, 2);
    }

    #[test]
    fn a_clock_that_goes_back_counts_on() {
        let limits = Limits::default();
        for once in 0..4 {
            assert!(ask(&limits, "a", 1_000, once).allowed);
        }
        assert!(!ask(&limits, "a", 999, 9).allowed);
    }

    #[test]
    fn a_clock_that_was_far_ahead_denies_nothing_after_it_was_set_right() {
        let limits = Limits::default();
        for once in 0..4 {
            assert!(ask(&limits, "a", 10_000, once).allowed);
        }
        assert!(!ask(&limits, "a", 10_000, 4).allowed);
        assert_eq!(ask(&limits, "a", 0, 9).remaining, 3);
        assert_eq!(ask(&limits, "a", 1, 10).remaining, 2);
    }

    #[test]
    fn a_flood_of_keys_pushes_itself_out() {
        let limits = Limits::default();
        for once in 0..4 {
            let _ = ask(&limits, "held back", 0, once);
        }
        for n in 0..(MAX_WINDOWS as u64 + 10) {
            let _ = ask(&limits, &format!("flood {n}"), 0, 100 + n);
        }
        assert!(limits.0.lock().unwrap().len() <= MAX_WINDOWS);
        assert!(!ask(&limits, "held back", 0, 9).allowed);
    }
}
