//! What the dispatcher holds in memory: how many deliveries, and how many octets their tasks take. No I/O, no clock.
//!
//! The octets of messages are counted elsewhere: the warm ones by the store; large ones stay in their segments.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Config;
use crate::store::Delivery;

/// Deliveries held at once: placed with a destination, under way or about to be settled.
pub(super) const MAX_HELD: usize = 4096;
/// Octets of their tasks. A claim may exceed it once: the store bounds that.
const MAX_OCTETS: usize = 64 << 20;

#[derive(Debug, Default)]
pub(super) struct Holdings {
    count: AtomicUsize,
    octets: Arc<AtomicUsize>,
}

/// What is free, in deliveries, in octets of their tasks, and in octets of warm messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Free {
    pub count: usize,
    pub octets: usize,
    pub warm: usize,
}

impl Holdings {
    /// How many more may be held.
    pub(super) fn room(&self) -> usize {
        if self.free_octets() == 0 { 0 } else { MAX_HELD.saturating_sub(self.count.load(Ordering::Relaxed)) }
    }

    pub(super) fn free(&self, warm: usize) -> Free {
        Free { count: self.room(), octets: self.free_octets(), warm }
    }

    fn free_octets(&self) -> usize {
        MAX_OCTETS.saturating_sub(self.octets.load(Ordering::Relaxed))
    }

    /// Counts it until it is settled ([`Holdings::settled`]), and its octets until it is dropped.
    pub(super) fn hold(&self, delivery: Delivery, config: &Arc<Config>) -> Held {
        self.count.fetch_add(1, Ordering::Relaxed);
        let weight = delivery.weight();
        self.octets.fetch_add(weight, Ordering::Relaxed);
        Held { delivery, weight, of: Arc::clone(&self.octets), config: Arc::clone(config) }
    }

    pub(super) fn settled(&self, count: usize) {
        self.count.fetch_sub(count, Ordering::Relaxed);
    }
}

/// A claimed delivery.
#[derive(Debug)]
pub(super) struct Held {
    delivery: Delivery,
    weight: usize,
    of: Arc<AtomicUsize>,
    /// By which it was placed.
    pub config: Arc<Config>,
}

impl Held {
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Octets of its message that it keeps in memory.
    pub(super) fn warm_octets(&self) -> usize {
        self.delivery.warm.as_ref().map_or(0, crate::store::Warm::octets)
    }

    /// Lets go of its message, which is read back when it is needed.
    pub(super) fn cool(&mut self) {
        self.delivery.warm = None;
    }
}

impl Deref for Held {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        &self.delivery
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.fetch_sub(self.weight, Ordering::Relaxed);
    }
}
