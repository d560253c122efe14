//! What of the store doesn't work at present, for `/readyz`: said until it works again, or long enough after the last
//! failure that it must be tried anew (what isn't ready gets no mail, and without mail nothing would show that it works).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::mail::Timestamp;

/// After a write that failed.
const WRITING: Duration = Duration::from_secs(30);
/// After a segment that couldn't be read: what lies in it is tried again every few minutes at first.
const READING: Duration = Duration::from_mins(10);

#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// There may be one: asked at each commit and each read, so without the lock.
    any: AtomicBool,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    writing: Option<(Timestamp, String)>,
    reading: Option<(Timestamp, i64, String)>,
}

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cannot_write(&self, why: String, now: Timestamp) {
        self.lock().writing = Some((now, why));
        self.any.store(true, Ordering::Relaxed);
    }

    pub(super) fn can_write(&self) {
        if self.any.load(Ordering::Relaxed) {
            self.lock().writing = None;
        }
    }

    /// Whether that is news.
    pub(super) fn cannot_read(&self, segment: i64, why: String, now: Timestamp) -> bool {
        let mut all = self.lock();
        let is_known = all.reading.as_ref().is_some_and(|(at, known, _)| *known == segment && now.since(*at) < READING);
        all.reading = Some((now, segment, why));
        self.any.store(true, Ordering::Relaxed);
        !is_known
    }

    /// It could be read, or isn't there any more.
    pub(super) fn can_read(&self, segment: i64) {
        if self.any.load(Ordering::Relaxed) {
            let mut all = self.lock();
            if all.reading.as_ref().is_some_and(|(_, known, _)| *known == segment) {
                all.reading = None;
            }
        }
    }

    /// Whether no write failed of late.
    pub(super) fn writes(&self, now: Timestamp) -> bool {
        self.lock().writing.as_ref().is_none_or(|(at, _)| now.since(*at) >= WRITING)
    }

    /// In words.
    pub(super) fn current(&self, now: Timestamp) -> Vec<String> {
        let all = self.lock();
        let writing = all.writing.iter().filter(|(at, _)| now.since(*at) < WRITING);
        let reading = all.reading.iter().filter(|(at, _, _)| now.since(*at) < READING);
        writing.map(|(_, why)| why.clone()).chain(reading.map(|(_, _, why)| why.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn a_trouble_is_told_until_it_is_over_or_must_be_tried_anew() {
        let troubles = Troubles::default();
        troubles.cannot_write("no".to_owned(), at(100));
        assert_eq!(troubles.current(at(129)), ["no"]);
        assert!(!troubles.writes(at(129)) && troubles.writes(at(130)));
        assert!(troubles.current(at(130)).is_empty());
        troubles.cannot_write("no".to_owned(), at(140));
        troubles.can_write();
        assert!(troubles.current(at(141)).is_empty());
    }

    #[test]
    fn a_segment_that_cannot_be_read_is_news_once() {
        let troubles = Troubles::default();
        assert!(troubles.cannot_read(7, "7".to_owned(), at(100)));
        assert!(!troubles.cannot_read(7, "7".to_owned(), at(200)));
        troubles.can_read(8);
        assert_eq!(troubles.current(at(201)), ["7"]);
        troubles.can_read(7);
        assert!(troubles.current(at(201)).is_empty());
        assert!(troubles.cannot_read(7, "7".to_owned(), at(202)));
    }
}
