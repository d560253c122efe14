//! The octets of mail in memory, all sessions together: `[limits] in_flight`.
//!
//! A session reserves as its message grows, in steps, and gives all of it back when the message has been answered or
//! has gone with its session. Where nothing is left to reserve, the message is refused (452 4.3.1) and nobody is
//! killed for want of memory. **Invariant**: what is reserved is released exactly once, by `Drop`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The first step of a reservation; each further one doubles, up to [`LARGEST_STEP`].
const SMALLEST_STEP: u64 = 64 * 1024;
const LARGEST_STEP: u64 = 1024 * 1024;

/// How much may be held and how much is.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicU64,
    used: AtomicU64,
}

impl Budget {
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit: AtomicU64::new(limit), used: AtomicU64::new(0) })
    }

    /// A new limit after a reload. What is held stays held.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A reservation of nothing yet.
    #[must_use]
    pub fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation { budget: Arc::clone(self), held: 0 }
    }

    fn take(&self, octets: u64) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        self.used
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(octets).filter(|sum| *sum <= limit)
            })
            .is_ok()
    }
}

/// One message's share.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    held: u64,
}

impl Reservation {
    /// Makes sure that at least `octets` are reserved. `false`: the budget has no room, and what was held is still held.
    #[must_use]
    pub fn grow_to(&mut self, octets: u64) -> bool {
        let Some(missing) = octets.checked_sub(self.held).filter(|missing| *missing > 0) else { return true };
        let step = self.held.clamp(SMALLEST_STEP, LARGEST_STEP);
        let wanted = missing.div_ceil(step).saturating_mul(step);
        // Near the limit the exact need may still fit where a whole step doesn't.
        let taken = [wanted, missing].into_iter().find(|octets| self.budget.take(*octets));
        self.held += taken.unwrap_or(0);
        taken.is_some()
    }

    /// Gives all of it back.
    pub fn release(&mut self) {
        self.budget.used.fetch_sub(self.held, Ordering::Relaxed);
        self.held = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_in_steps_and_is_given_back() {
        let budget = Budget::new(1024 * 1024);
        let mut one = budget.reserve();
        assert!(one.grow_to(1));
        assert_eq!(budget.used(), SMALLEST_STEP);
        assert!(one.grow_to(SMALLEST_STEP));
        assert_eq!(budget.used(), SMALLEST_STEP);
        assert!(one.grow_to(SMALLEST_STEP + 1));
        assert_eq!(budget.used(), 2 * SMALLEST_STEP);
        drop(one);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn refuses_beyond_the_limit_and_holds_what_it_had() {
        let budget = Budget::new(100);
        let mut one = budget.reserve();
        assert!(one.grow_to(60), "a whole step is too much, the exact need is not");
        let mut two = budget.reserve();
        assert!(!two.grow_to(41));
        assert!(two.grow_to(40));
        assert_eq!(budget.used(), 100);
        one.release();
        assert_eq!(budget.used(), 40);
    }
}
