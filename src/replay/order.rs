//! Pages that threads come to in any order, given to the caller in theirs; and no thread goes far ahead of the slowest.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How far the caller has come, for those who work ahead of it.
pub(super) struct Ahead {
    /// The number of the page that the caller waits for; `None`: it wants no more.
    next: Mutex<Option<u64>>,
    moved: Condvar,
    most: u64,
}

impl Ahead {
    /// At most `most` pages are begun that the caller hasn't had.
    pub fn new(most: usize) -> Self {
        Self { next: Mutex::new(Some(0)), moved: Condvar::new(), most: most as u64 }
    }

    /// Waits until this page may be begun; `false`: nobody wants it any more. Whoever has the page that the caller waits for
    /// doesn't wait.
    pub fn may_begin(&self, number: u64) -> bool {
        let next = self.lock();
        let waited = self.moved.wait_while(next, |next| next.is_some_and(|next| number >= next + self.most));
        waited.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// For a thread that judges pages: where it panics its page never comes, and nobody waits for it.
    pub fn working(&self) -> Working<'_> {
        Working(self)
    }

    fn come_to(&self, come_to: u64) {
        // Whoever has ended it has ended it for good.
        if let Some(next) = &mut *self.lock() {
            *next = come_to;
        }
        self.moved.notify_all();
    }

    fn end(&self) {
        *self.lock() = None;
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Option<u64>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by a thread for as long as it judges.
pub(super) struct Working<'a>(&'a Ahead);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end();
        }
    }
}

/// What came too early, until its turn.
pub(super) struct Ordered<'a, T> {
    ahead: &'a Ahead,
    early: BTreeMap<u64, T>,
    next: u64,
}

impl<'a, T> Ordered<'a, T> {
    pub fn new(ahead: &'a Ahead) -> Self {
        Self { ahead, early: BTreeMap::new(), next: 0 }
    }

    pub fn put(&mut self, number: u64, page: T) {
        self.early.insert(number, page);
    }

    /// The next in order, if it is there.
    pub fn take(&mut self) -> Option<T> {
        let page = self.early.remove(&self.next)?;
        self.next += 1;
        self.ahead.come_to(self.next);
        Some(page)
    }
}

/// Whoever waits to go ahead needn't, however the caller ends.
impl<T> Drop for Ordered<'_, T> {
    fn drop(&mut self) {
        self.ahead.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    const MOST: usize = 4;
    const PAGES: u64 = 200;

    #[test]
    fn nobody_goes_far_ahead_of_the_slowest() {
        let (ahead, begun, given) = (Ahead::new(MOST), AtomicU64::new(0), AtomicU64::new(0));
        let (sender, pages) = channel();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let (sender, ahead, begun, given) = (sender.clone(), &ahead, &begun, &given);
                scope.spawn(move || {
                    loop {
                        let number = begun.fetch_add(1, Ordering::SeqCst);
                        if number >= PAGES || !ahead.may_begin(number) {
                            return;
                        }
                        // What others had been given can only have grown since this one was let go on.
                        assert!(number < given.load(Ordering::SeqCst) + MOST as u64, "{number}");
                        // The first is slow: all that may be are done before it.
                        while number == 0 && begun.load(Ordering::SeqCst) <= MOST as u64 {
                            std::thread::yield_now();
                        }
                        sender.send(number).unwrap();
                    }
                });
            }
            drop(sender);
            let mut ordered = Ordered::new(&ahead);
            let mut all = Vec::new();
            for number in pages {
                ordered.put(number, number);
                assert!(ordered.early.len() <= MOST);
                loop {
                    // Before those who wait are let go on.
                    given.store(ordered.next + u64::from(ordered.early.contains_key(&ordered.next)), Ordering::SeqCst);
                    let Some(page) = ordered.take() else { break };
                    all.push(page);
                }
            }
            assert_eq!(all, (0..PAGES).collect::<Vec<_>>());
        });
    }

    #[test]
    fn a_page_that_never_comes_holds_nobody_up() {
        let ahead = Ahead::new(1);
        let mut ordered = Ordered::new(&ahead);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| ahead.may_begin(1));
            let dies = scope.spawn(|| {
                let _working = ahead.working();
                assert!(ahead.may_begin(0));
                panic!("judging page 0");
            });
            assert!(dies.join().is_err());
            assert!(!waits.join().unwrap());
        });
        // What others had done by then still comes, and begins nothing anew.
        ordered.put(0, 0);
        assert_eq!(ordered.take(), Some(0));
        assert!(!ahead.may_begin(1));
    }

    #[test]
    fn who_waits_to_go_ahead_ends_with_the_caller() {
        let ahead = Ahead::new(MOST);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| ahead.may_begin(MOST as u64));
            drop(Ordered::<u64>::new(&ahead));
            assert!(!waits.join().unwrap());
        });
        assert!(!ahead.may_begin(0));
    }
}
