//! How what is scarce is shared among destinations: places for attempts, octets of webhooks made from large messages.
//!
//! **Invariant**: half of it is only for destinations that have none of it yet. However many lanes of however many slow
//! hosts have theirs, one that comes with its first need finds room, until as many hosts are slow as that half has room
//! for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

pub(super) struct Pool {
    all: Arc<Semaphore>,
    size: usize,
    /// What destinations may have beyond their first.
    beyond: Semaphore,
}

/// A part of it, until it is dropped.
pub(super) struct Share<'a> {
    _right: SemaphorePermit<'a>,
    _part: SemaphorePermit<'a>,
}

/// How much of a pool is taken.
#[derive(Debug, Clone)]
pub(super) struct Usage {
    all: Arc<Semaphore>,
    size: usize,
}

impl Usage {
    pub(super) fn taken(&self) -> usize {
        self.size.saturating_sub(self.all.available_permits())
    }
}

impl Pool {
    pub(super) fn new(size: usize) -> Self {
        let size = size.max(1);
        Self { all: Arc::new(Semaphore::new(size)), size, beyond: Semaphore::new(size / 2) }
    }

    /// How much of it is taken, for whoever looks on; keeps nothing alive but the count.
    pub(super) fn usage(&self) -> Usage {
        Usage { all: Arc::clone(&self.all), size: self.size }
    }

    /// So many of it for a destination whose first share `first` (of one permit) stands for. `None`: never, it is over.
    pub(super) async fn take<'a>(&'a self, first: &'a Semaphore, count: u32) -> Option<Share<'a>> {
        // The one who waits for more may become the first meanwhile.
        let right = tokio::select! {
            biased;
            right = first.acquire() => right,
            right = self.beyond.acquire_many(count) => right,
        };
        let right = right.ok()?;
        let part = self.all.acquire_many(count).await.ok()?;
        Some(Share { _right: right, _part: part })
    }

    /// The same, where nobody needs to wait for it.
    pub(super) fn try_take<'a>(&'a self, first: &'a Semaphore, count: u32) -> Option<Share<'a>> {
        let right = first.try_acquire().or_else(|_| self.beyond.try_acquire_many(count)).ok()?;
        let part = self.all.try_acquire_many(count).ok()?;
        Some(Share { _right: right, _part: part })
    }
}

/// At most so many at once of each name.
#[derive(Debug, Default)]
pub(super) struct ByName {
    busy: Mutex<HashMap<String, usize>>,
}

/// One of them, until it is dropped.
pub(super) struct Turn<'a> {
    of: &'a ByName,
    name: String,
}

impl ByName {
    pub(super) fn enter(&self, name: &str, limit: usize) -> Option<Turn<'_>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let count = busy.entry(name.to_owned()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Turn { of: self, name: name.to_owned() })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut busy = self.of.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = busy.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                busy.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_slow_destinations_have_beyond_their_first_is_half_of_it() {
        let pool = Pool::new(8);
        let (slow, other, healthy) = (Semaphore::new(1), Semaphore::new(1), Semaphore::new(1));
        let mut taken = Vec::new();
        for first in [&slow, &other] {
            while let Some(share) = pool.try_take(first, 1) {
                taken.push(share);
            }
        }
        assert_eq!(taken.len(), 6, "a first each, and four beyond");
        let share = pool.try_take(&healthy, 1).unwrap();
        assert!(pool.try_take(&healthy, 1).is_none());
        drop(share);
        assert!(pool.take(&healthy, 1).await.is_some());
    }

    #[tokio::test]
    async fn whoever_waits_for_more_becomes_the_first() {
        let (pool, slow) = (Pool::new(4), Semaphore::new(1));
        let first = pool.try_take(&slow, 1).unwrap();
        let _beyond = [pool.try_take(&slow, 1).unwrap(), pool.try_take(&slow, 1).unwrap()];
        let waiting = pool.take(&slow, 1);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(first);
        assert!(waiting.await.is_some());
    }

    #[tokio::test]
    async fn a_large_one_waits_for_its_first_alone() {
        let pool = Pool::new(64);
        let (slow, healthy) = (Semaphore::new(1), Semaphore::new(1));
        let _first = pool.try_take(&slow, 24).unwrap();
        let _second = pool.try_take(&slow, 24).unwrap();
        assert!(pool.try_take(&slow, 24).is_none());
        assert!(pool.try_take(&healthy, 12).is_some());
    }

    #[test]
    fn names_bound_themselves_and_are_forgotten() {
        let names = ByName::default();
        let turns: Vec<_> = (0..2).filter_map(|_| names.enter("example.org", 2)).collect();
        assert_eq!(turns.len(), 2);
        assert!(names.enter("example.org", 2).is_none());
        assert!(names.enter("example.net", 2).is_some());
        drop(turns);
        assert!(names.busy.lock().unwrap().is_empty());
    }
}
