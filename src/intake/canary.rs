//! A release that is tried on a part of the mail, and what is counted of it.
//!
//! Which part is no dice: sender and recipient decide, so that mail that comes again, or is put off and tried again, has
//! the same rules. What belongs to no recipient (`connect`, `helo`, `mail_from`) is the active release's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::digest::{SHA256, digest};

use crate::config::Config;
use crate::config::route::Pattern;
use crate::mail::Address;
use crate::rules::Release;

/// What is deployed beside the files.
pub struct Deployed {
    /// The active release's number.
    pub active: i64,
    pub canary: Option<Canary>,
}

/// A release on trial.
pub struct Canary {
    /// Its number.
    pub id: i64,
    pub release: Arc<Release>,
    pub share: Share,
    /// Failing runs in a hundred that are too many, where they are more than the active release's.
    pub max_errors: f64,
    /// As long as there are fewer runs of a handler, nothing is concluded of it.
    pub min_runs: u64,
    pub counts: Arc<Counts>,
}

/// Whose mail it decides on.
pub enum Share {
    Percent(u8),
    Recipients(Box<Pattern>),
}

/// Handlers that a release on trial runs. Each is counted for itself: `rcpt_to` runs more often than `email`, and its
/// successes would hide that no message is decided on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Handler {
    RcptTo,
    Email,
}

impl Handler {
    const ALL: [Self; 2] = [Self::Email, Self::RcptTo];

    fn name(self) -> &'static str {
        match self {
            Self::RcptTo => "rcpt_to",
            Self::Email => "email",
        }
    }
}

/// Runs since the trial began here.
#[derive(Debug, Default)]
pub struct Counts {
    rcpt_to: Both,
    email: Both,
}

impl Counts {
    fn of(&self, handler: Handler) -> &Both {
        match handler {
            Handler::RcptTo => &self.rcpt_to,
            Handler::Email => &self.email,
        }
    }
}

#[derive(Debug, Default)]
struct Both {
    canary: Ran,
    active: Ran,
}

#[derive(Debug, Default)]
struct Ran {
    runs: AtomicU64,
    failed: AtomicU64,
}

impl Ran {
    fn count(&self, failed: bool) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        (self.failed.load(Ordering::Relaxed), self.runs.load(Ordering::Relaxed))
    }
}

/// In a hundred.
#[allow(clippy::cast_precision_loss, reason = "counts of runs")]
fn rate((failed, runs): (u64, u64)) -> f64 {
    if runs == 0 { 0.0 } else { failed as f64 * 100.0 / runs as f64 }
}

impl Canary {
    /// Whether it decides on this mail.
    pub(super) fn takes(&self, config: &Config, sender: Option<&Address>, recipient: &Address) -> bool {
        match &self.share {
            Share::Recipients(pattern) => pattern.takes(recipient, config),
            Share::Percent(percent) => {
                let sender = sender.map(|sender| sender.as_str().to_ascii_lowercase()).unwrap_or_default();
                let text = format!("{}\0{sender}\0{}", self.id, config.mailbox_key(recipient));
                let drawn = digest(&SHA256, text.as_bytes());
                let drawn = drawn.as_ref().iter().take(8).fold(0_u64, |number, octet| number << 8 | u64::from(*octet));
                drawn % 100 < u64::from(*percent)
            }
        }
    }

    pub(super) fn count(&self, handler: Handler, is_canary: bool, failed: bool) {
        let both = self.counts.of(handler);
        if is_canary { &both.canary } else { &both.active }.count(failed);
    }

    /// Why it is to be given up; `None`: it may go on.
    #[must_use]
    pub fn verdict(&self) -> Option<String> {
        Handler::ALL.into_iter().find_map(|handler| self.verdict_on(handler))
    }

    fn verdict_on(&self, handler: Handler) -> Option<String> {
        let both = self.counts.of(handler);
        let (canary, active) = (both.canary.read(), both.active.read());
        let too_many = canary.1 >= self.min_runs && rate(canary) > self.max_errors && rate(canary) > rate(active);
        too_many.then(|| {
            format!(
                "{}: {} of its {} runs failed ({:.1}%, of the active release's {:.1}%), and more than {}% are too many",
                handler.name(),
                canary.0,
                canary.1,
                rate(canary),
                rate(active),
                self.max_errors
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::rules::Bindings;

    fn canary(id: i64, percent: u8) -> Canary {
        let sources = BTreeMap::from([("m.rhai".to_owned(), "fn email(m, e, c) { m.drop(); }".to_owned())]);
        let (release, _) = Release::compile(&sources, &["m.rhai".to_owned()], Bindings::default()).unwrap();
        let (release, counts, share) = (Arc::new(release), Arc::default(), Share::Percent(percent));
        Canary { id, release, share, max_errors: 5.0, min_runs: 20, counts }
    }

    fn taken(canary: &Canary) -> Vec<usize> {
        let (config, to) = (Config::default(), Address::parse("support@example.com").unwrap());
        let takes = |n: &usize| {
            let sender = Address::parse(&format!("Sender{n}@example.org")).unwrap();
            canary.takes(&config, Some(&sender), &to)
        };
        (0..1000).filter(takes).collect()
    }

    #[test]
    fn of_a_thousand_senders_its_share_is_its_percent_and_always_the_same() {
        for percent in [1, 10, 50, 99] {
            let first = taken(&canary(7, percent));
            // Three standard deviations.
            let count = f64::from(u32::try_from(first.len()).unwrap());
            let (wanted, spread) = (
                f64::from(percent) * 10.0,
                3.0 * (f64::from(percent) * (1.0 - f64::from(percent) / 100.0) * 10.0).sqrt(),
            );
            assert!((count - wanted).abs() <= spread, "{percent}%: {}", first.len());
            assert_eq!(first, taken(&canary(7, percent)));
        }
        assert!(taken(&canary(7, 0)).is_empty());
        assert_ne!(taken(&canary(7, 10)), taken(&canary(8, 10)));
    }

    #[test]
    fn it_is_given_up_for_more_errors_than_are_allowed_and_than_the_others_have() {
        let failing = |failed: usize, runs: usize, active_failed: usize| {
            let canary = canary(7, 10);
            (0..runs).for_each(|n| canary.count(Handler::Email, true, n < failed));
            (0..100).for_each(|n| canary.count(Handler::Email, false, n < active_failed));
            canary.verdict()
        };
        assert_eq!(failing(19, 19, 0), None);
        assert!(failing(2, 20, 0).unwrap().contains("2 of its 20 runs failed (10.0%"));
        assert_eq!(failing(1, 20, 0), None);
        assert_eq!(failing(2, 20, 10), None);
    }

    #[test]
    fn what_one_handler_does_well_excuses_no_other() {
        let canary = canary(7, 10);
        (0..1000).for_each(|_| canary.count(Handler::RcptTo, true, false));
        (0..19).for_each(|_| canary.count(Handler::Email, true, true));
        assert_eq!(canary.verdict(), None, "too few runs of `email`");
        canary.count(Handler::Email, true, true);
        let why = canary.verdict().unwrap();
        assert!(why.starts_with("email: 20 of its 20 runs failed"), "{why}");
    }
}
