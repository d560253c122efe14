//! For how long an answer is waited for, and whose limit that is.

use std::time::Duration;

use tokio::time::Instant;

use super::{limited, unanswered};
use crate::rules::reach::Failed;

#[derive(Clone, Copy)]
pub(super) struct Until {
    pub deadline: Instant,
    timeout: Duration,
    /// The run's own time ends first: that no answer came says little of whoever was asked.
    is_cut_short: bool,
}

impl Until {
    /// `whole`: what it may take; `left`: what the run has left, of which a wait for a place may have taken a little.
    pub fn of(whole: Duration, left: Duration) -> Self {
        let timeout = whole.min(left);
        Self { deadline: Instant::now() + timeout, timeout, is_cut_short: timeout < whole.mul_f64(0.9) }
    }

    /// `host` gave no answer until then.
    pub fn late(self, host: &str) -> Failed {
        let why = format!("{host}: no answer in {}", shown(self.timeout));
        if self.is_cut_short { limited(why) } else { unanswered(why) }
    }
}

/// As a limit reads: what a wait for a place took off it is no news.
pub(super) fn shown(duration: Duration) -> String {
    let hundredths = u64::try_from(duration.as_millis().div_ceil(10)).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(hundredths.saturating_mul(10))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_limit_it_was_is_told_apart() {
        let late = |whole, left| Until::of(Duration::from_millis(whole), Duration::from_millis(left)).late("h.example");
        assert_eq!(late(5000, 30_000), Failed::Unanswered("h.example: no answer in 5s".to_owned()));
        assert_eq!(late(300, 297), Failed::Unanswered("h.example: no answer in 300ms".to_owned()));
        assert_eq!(late(5000, 1000), Failed::Limited("h.example: no answer in 1s".to_owned()));
    }
}
