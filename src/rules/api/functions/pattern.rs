//! Regular expressions, compiled: bounded in what they may cost, and kept for the next call.
//!
//! Matching is linear in the text, and in the positions that a pattern has when its repetitions are written out; both
//! are bounded, and so is what they come to together. There is no look-around and there are no back-references, which
//! can't be had in linear time. What is compiled is kept for all runs of a release, as long as it is used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use regex_automata::meta::{Config, Regex};
use regex_syntax::hir::{Class, Hir, HirKind};
use regex_syntax::{Error, ParserBuilder};

use super::{charge, shown};

/// Octets of a pattern, and groups inside each other.
const MAX_PATTERN: usize = 4096;
const MAX_NESTED: u32 = 50;
/// Characters of a pattern with its repetitions written out: `[a-z]{3}` has three.
const MAX_POSITIONS: u64 = 2000;
/// Sixteenths of positions, by their weight, times octets of the text: two seconds at the worst.
const MAX_STEPS: u64 = 16 * 128 * 1024 * 1024;
/// Octets of a compiled pattern, and of the states that one search keeps.
const MAX_COMPILED: usize = 512 * 1024;
const MAX_STATES: usize = 256 * 1024;
/// What is kept: patterns, and octets of them all.
const MAX_KEPT: usize = 500;
const MAX_KEPT_OCTETS: usize = 8 * 1024 * 1024;

/// A compiled pattern.
#[derive(Debug)]
pub struct Pattern {
    pub regex: Regex,
    weight: u64,
}

impl Pattern {
    /// # Errors
    /// What is wrong with it, and where.
    fn new(pattern: &str) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN {
            return Err(format!("a pattern is at most {MAX_PATTERN} octets, this has {}", pattern.len()));
        }
        let parsed = ParserBuilder::new().nest_limit(MAX_NESTED).build().parse(pattern);
        let parsed = parsed.map_err(|error| unreadable(pattern, &error))?;
        let Extent { positions, weight } = Extent::of(&parsed, false);
        if positions > MAX_POSITIONS {
            let text = shown(pattern);
            return Err(format!(
                "the pattern {text} is {positions} characters long with its repetitions written out, {MAX_POSITIONS} at most"
            ));
        }
        let config = Config::new()
            .nfa_size_limit(Some(MAX_COMPILED))
            .onepass_size_limit(Some(MAX_STATES))
            .dfa_size_limit(Some(MAX_STATES))
            .hybrid_cache_capacity(MAX_STATES);
        let regex = Regex::builder().configure(config).build_from_hir(&parsed).map_err(|error| {
            let text = shown(pattern);
            match error.size_limit() {
                Some(most) => format!(
                    "the pattern {text} is larger than {most} octets when it is compiled: repeat less, or write [a-z] for \\w"
                ),
                None => format!("the pattern {text}: {error}"),
            }
        })?;
        Ok(Self { regex, weight })
    }

    /// # Errors
    /// A text of that length would take too long.
    pub fn admit(&self, length: usize) -> Result<(), String> {
        let steps = self.weight.saturating_mul(u64::try_from(length).unwrap_or(u64::MAX));
        if steps <= MAX_STEPS {
            charge(length);
            return Ok(());
        }
        let most = MAX_STEPS.checked_div(self.weight).unwrap_or(MAX_STEPS);
        Err(format!(
            "with a pattern that repeats as much as this one a text has at most {most} octets, this has {length}: write + for \
             {{1,64}}, or take a part of the text"
        ))
    }
}

/// What is wrong with a pattern, if anything is: for `check`.
#[must_use]
pub fn wrong_with(pattern: &str) -> Option<String> {
    Pattern::new(pattern).err()
}

/// How long a pattern is with its repetitions written out, and how much of that counts in a long text, in sixteenths.
///
/// Plain words, in either case, are found by few states at a time, however many they are; what is repeated, or one of
/// several characters, can be as many states as there are of it, for each octet of the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Extent {
    positions: u64,
    weight: u64,
}

impl Extent {
    fn of(pattern: &Hir, repeated: bool) -> Self {
        let plain = |positions, is_plain: bool| Self { positions, weight: positions * if is_plain { 1 } else { 16 } };
        match pattern.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::default(),
            HirKind::Literal(literal) => plain(u64::try_from(literal.0.len()).unwrap_or(u64::MAX / 16), !repeated),
            HirKind::Class(class) => plain(1, !repeated && is_one_letter(class)),
            HirKind::Capture(group) => Self::of(&group.sub, repeated).plus(plain(1, true)),
            HirKind::Repetition(part) => {
                let times = u64::from(part.max.unwrap_or(part.min).max(part.min).max(1));
                let Self { positions, weight } = Self::of(&part.sub, true);
                Self { positions: positions.saturating_mul(times), weight: weight.saturating_mul(times) }
            }
            HirKind::Concat(parts) | HirKind::Alternation(parts) => {
                parts.iter().map(|part| Self::of(part, repeated)).fold(Self::default(), Self::plus)
            }
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            positions: self.positions.saturating_add(other.positions),
            weight: self.weight.saturating_add(other.weight),
        }
    }
}

/// A letter in either case, as `(?i)` makes one.
fn is_one_letter(class: &Class) -> bool {
    const MOST: usize = 4;
    let Class::Unicode(class) = class else { return false };
    let folded = |letter: char| letter.to_lowercase().flat_map(char::to_uppercase).collect::<String>();
    let first = class.ranges().first().map(|range| folded(range.start()));
    class.ranges().len() <= MOST
        && class.ranges().iter().all(|range| range.start() == range.end() && Some(folded(range.start())) == first)
}

fn unreadable(pattern: &str, error: &Error) -> String {
    let (kind, at) = match error {
        Error::Parse(error) => (error.kind().to_string(), error.span().start.offset),
        Error::Translate(error) => (error.kind().to_string(), error.span().start.offset),
        other => (other.to_string(), 0),
    };
    let at = pattern.get(..at).unwrap_or_default().chars().count() + 1;
    format!("the pattern {} can't be read at character {at}: {kind}", shown(pattern))
}

/// What is compiled, by its text.
#[derive(Default)]
pub struct Patterns(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    patterns: HashMap<String, (Arc<Pattern>, u64)>,
    octets: usize,
    /// Counts what was asked for.
    turn: u64,
}

impl Patterns {
    /// The pattern, compiled now or before.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn get(&self, text: &str) -> Result<Arc<Pattern>, String> {
        if let Some(pattern) = self.0.lock().unwrap_or_else(PoisonError::into_inner).find(text) {
            return Ok(pattern);
        }
        let pattern = Pattern::new(text).inspect_err(|_| charge(MAX_COMPILED))?;
        let pattern = Arc::new(pattern);
        charge(pattern.regex.memory_usage());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keep(text, Arc::clone(&pattern));
        Ok(pattern)
    }
}

impl Kept {
    fn find(&mut self, text: &str) -> Option<Arc<Pattern>> {
        self.turn += 1;
        let (pattern, used) = self.patterns.get_mut(text)?;
        *used = self.turn;
        Some(Arc::clone(pattern))
    }

    /// Keeps it; what wasn't used for the longest time makes room.
    fn keep(&mut self, text: &str, pattern: Arc<Pattern>) {
        let size = |pattern: &Pattern, text: &str| pattern.regex.memory_usage() + text.len();
        self.octets += size(&pattern, text);
        if let Some((other, _)) = self.patterns.insert(text.to_owned(), (pattern, self.turn)) {
            self.octets = self.octets.saturating_sub(size(&other, text));
        }
        while self.patterns.len() > MAX_KEPT || self.octets > MAX_KEPT_OCTETS && self.patterns.len() > 1 {
            let oldest = self.patterns.iter().min_by_key(|(_, (_, used))| *used).map(|(text, _)| text.clone());
            let Some(oldest) = oldest else { break };
            if let Some((pattern, _)) = self.patterns.remove(&oldest) {
                self.octets = self.octets.saturating_sub(size(&pattern, &oldest));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_extends_as_far_as_its_repetitions_written_out() {
        for (pattern, positions, weight) in [
            ("", 0, 0),
            ("abc|de", 5, 5),
            ("(?i)sky|ſ", 4, 4),
            ("[a-z]{3}", 3, 48),
            ("[ab]", 1, 16),
            ("(ab){2,5}", 15, 165),
            ("x*y+", 2, 32),
            ("^$", 0, 0),
            (r"\w{3,}", 3, 48),
        ] {
            let parsed = ParserBuilder::new().build().parse(pattern).unwrap();
            assert_eq!(Extent::of(&parsed, false), Extent { positions, weight }, "{pattern}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let patterns = Patterns::default();
        let first = patterns.get("first").unwrap();
        for number in 0..MAX_KEPT * 2 {
            patterns.get(&format!("pattern{number}")).unwrap();
            assert!(Arc::ptr_eq(&first, &patterns.get("first").unwrap()), "it was used all the time");
        }
        let kept = patterns.0.lock().unwrap();
        assert!(kept.patterns.len() <= MAX_KEPT && kept.octets <= MAX_KEPT_OCTETS);
        assert!(!kept.patterns.contains_key("pattern0"));
        let octets: usize = kept.patterns.iter().map(|(text, (held, _))| held.regex.memory_usage() + text.len()).sum();
        assert_eq!(octets, kept.octets);
    }
}
