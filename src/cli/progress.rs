//! A line that shows how far something has come, on a terminal alone; it stands on standard error.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use super::print;
use crate::clock::Instant;

/// How often it is drawn anew.
const EVERY: Duration = Duration::from_millis(100);
/// Characters of the bar.
const WIDTH: u32 = 24;

/// The line.
pub struct Bar {
    is_shown: bool,
    is_there: bool,
    begun: Instant,
    drawn: Option<Instant>,
    steps: u64,
}

impl Bar {
    #[must_use]
    pub fn new() -> Self {
        Self {
            is_shown: std::io::stderr().is_terminal(),
            is_there: false,
            begun: Instant::now(),
            drawn: None,
            steps: 0,
        }
    }

    /// So much of all; `words` gets how many a second there were.
    pub fn show(&mut self, done: Duration, all: Duration, steps: u64, words: impl FnOnce(u64) -> String) {
        self.steps = steps;
        if !self.is_shown || self.drawn.is_some_and(|drawn| drawn.elapsed() < EVERY) {
            return;
        }
        self.drawn = Some(Instant::now());
        let rate = u128::from(self.steps) * 1000 / self.begun.elapsed().as_millis().max(1);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        print::redraw(&line(done, all, &words(rate)));
        self.is_there = true;
    }

    /// Takes it away: something else is to be printed.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_there) {
            print::redraw("");
            self.drawn = None;
        }
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

fn line(done: Duration, all: Duration, words: &str) -> String {
    let of = all.as_millis().max(1);
    let part = u32::try_from(done.as_millis().min(of) * u128::from(WIDTH) / of).unwrap_or(WIDTH);
    let percent = done.as_millis().min(of) * 100 / of;
    let mut line = String::new();
    for at in 0..WIDTH {
        line.push(if at < part { '█' } else { '░' });
    }
    let _infallible = write!(line, " {percent:>3} %  {words}");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_all_is_a_part_of_the_line() {
        let drawn = |done, all| line(Duration::from_secs(done), Duration::from_secs(all), "x");
        assert_eq!(drawn(0, 10), format!("{}   0 %  x", "░".repeat(24)));
        assert_eq!(drawn(5, 10), format!("{}{}  50 %  x", "█".repeat(12), "░".repeat(12)));
        assert_eq!(drawn(11, 10), format!("{} 100 %  x", "█".repeat(24)));
        assert_eq!(drawn(0, 0), format!("{}   0 %  x", "░".repeat(24)));
    }
}
