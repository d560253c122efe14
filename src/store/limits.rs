//! How often something has happened of late: what `env.limit` counts, at once and in memory alone.
//!
//! A window that slides, from two that stand: what of the one before lies within the period still counts, in proportion. So
//! a limit holds over any period, and takes a few octets for each key. Bound: [`MAX_WINDOWS`]; beyond it those go first
//! that counted least, so that a flood of new keys pushes itself out and not the one who is being held back.
//!
//! A run that is repeated asks what it asked before, and gets the same answer: those that were allowed are remembered, the
//! newest [`REMEMBERED`] of the process, whatever key they are of.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::kv::{Counted, Limit};
use crate::mail::Timestamp;

/// Keys that are counted at a time.
const MAX_WINDOWS: usize = 100_000;
/// Answers that are remembered, by one process: all that the runs under way can have asked, several times over.
const REMEMBERED: usize = 65_536;

/// A limit's name, key and period.
type Key = (String, String, u64);

/// Counters of one process.
#[derive(Default)]
pub struct Limits(Mutex<Counters>);

#[derive(Default)]
struct Counters {
    windows: HashMap<Key, Window>,
    answers: Answers,
}

/// What was allowed of late.
#[derive(Default)]
struct Answers {
    by_question: HashMap<Question, Counted>,
    /// The oldest first.
    order: VecDeque<Question>,
    hasher: RandomState,
}

/// The run's mark, and the limit that it asked for there: a run that takes another way asks another question.
type Question = (u64, u64);

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
}

impl Limits {
    /// Counts one, if there is room for it.
    #[must_use]
    pub fn count(&self, limit: &Limit<'_>) -> Counted {
        let per = i64::try_from(limit.per).unwrap_or(i64::MAX).max(1);
        let (number, elapsed) = (limit.now.as_millis().div_euclid(per), limit.now.as_millis().rem_euclid(per));
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Counters { windows, answers } = &mut *counters;
        let key = (limit.name.to_owned(), limit.key.to_owned(), limit.per);
        let question = (limit.once, answers.hasher.hash_one(&key));
        if let Some(answer) = answers.by_question.get(&question) {
            return *answer;
        }
        if windows.len() >= MAX_WINDOWS && !windows.contains_key(&key) {
            make_room(windows, limit.now);
        }
        let window = windows.entry(key).or_default();
        window.turn(number);
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
            answers.keep(question, counted);
        }
        counted
    }
}

impl Answers {
    fn keep(&mut self, question: Question, answer: Counted) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_question.remove(&oldest);
        }
        self.order.push_back(question);
        self.by_question.insert(question, answer);
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
fn make_room(windows: &mut HashMap<Key, Window>, now: Timestamp) {
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
    fn a_run_that_is_repeated_counts_once_however_many_ask_in_between() {
        let limits = Limits::default();
        let of = |key, once| {
            let now = Timestamp::from_millis(START);
            limits.count(&Limit { name: "n", key, most: 1_000, per: 1000, now, once })
        };
        let first: Vec<Counted> = (0..100).map(|once| of("a", once)).collect();
        (100..200).for_each(|once| assert!(of("a", once).allowed));
        assert_eq!((0..100).map(|once| of("a", once)).collect::<Vec<_>>(), first);
        assert_eq!(of("a", 200).remaining, 799);
        // Where a run that is repeated goes another way, it asks something else.
        assert_eq!(of("b", 0).remaining, 999);
    }

    #[test]
    fn as_many_answers_are_remembered_as_there_is_room_for() {
        let limits = Limits::default();
        for once in 0..(REMEMBERED as u64 + 10) {
            assert!(ask(&limits, &once.to_string(), 0, once).allowed);
        }
        let counters = limits.0.lock().unwrap();
        assert_eq!((counters.answers.by_question.len(), counters.answers.order.len()), (REMEMBERED, REMEMBERED));
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
        assert!(limits.0.lock().unwrap().windows.len() <= MAX_WINDOWS);
        assert!(!ask(&limits, "held back", 0, 9).allowed);
    }
}
