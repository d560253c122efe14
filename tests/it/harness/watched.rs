//! A value that threads change and tests wait on.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::DEADLINE;

#[derive(Debug, Default)]
pub struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    pub fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Condvar::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes the value and wakes whoever waits.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `find` finds something, at most [`DEADLINE`].
    pub fn wait<R>(&self, find: impl FnMut(&mut T) -> Option<R>) -> Option<R> {
        self.wait_for(DEADLINE, find)
    }

    pub fn wait_for<R>(&self, limit: Duration, mut find: impl FnMut(&mut T) -> Option<R>) -> Option<R> {
        let end = Instant::now() + limit;
        let mut value = self.lock();
        loop {
            if let Some(found) = find(&mut value) {
                return Some(found);
            }
            let left = end.checked_duration_since(Instant::now())?;
            value = self.changed.wait_timeout(value, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}
