//! The octets of mail that is coming in or being answered: `[limits] in_flight`. What of a large message lies on the disk
//! already counts a quarter: it takes room there, but no memory.
//!
//! A session reserves as its message grows and gives all of it back when the message has been answered or has gone with
//! its session. Where nothing is left to reserve, the message is refused (452 4.3.1) and nobody is killed for want of
//! memory. While there is plenty, anybody may have it; once half is in use, a network has at most its share, so that
//! nobody can take the room from all others. **Invariant**: what is reserved is released exactly once, by `Drop`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::limits::network;
use crate::config::Limits;

/// How much may be held and how much is.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicU64,
    share: AtomicU64,
    used: AtomicU64,
    by_network: Mutex<HashMap<IpAddr, u64>>,
}

/// One octet in memory counts as many as these on the disk.
const ON_DISK: u64 = 4;

/// What a message counts that has so many octets on the disk and so many in memory.
#[must_use]
pub fn weight(on_disk: u64, in_memory: usize) -> u64 {
    (on_disk / ON_DISK).saturating_add(u64::try_from(in_memory).unwrap_or(u64::MAX))
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// All sessions together hold what may be held.
    All,
    /// This network holds its share.
    Share,
}

impl Budget {
    #[must_use]
    pub fn new(limits: &Limits) -> Arc<Self> {
        let budget = Self {
            limit: AtomicU64::new(0),
            share: AtomicU64::new(0),
            used: AtomicU64::new(0),
            by_network: Mutex::default(),
        };
        budget.set(limits);
        Arc::new(budget)
    }

    /// New limits after a reload. What is held stays held.
    pub fn set(&self, limits: &Limits) {
        self.limit.store(limits.in_flight, Ordering::Relaxed);
        // One message as large as we say we take must find room.
        self.share.store((limits.in_flight / 4).max(limits.message_size), Ordering::Relaxed);
    }

    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// More than half is in use.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.used() > self.limit.load(Ordering::Relaxed) / 2
    }

    /// A reservation of nothing yet, for a client of this address.
    #[must_use]
    pub fn reserve(self: &Arc<Self>, client: IpAddr) -> Reservation {
        Reservation { budget: Arc::clone(self), network: network(client), held: 0 }
    }

    fn take(&self, network: IpAddr, octets: u64) -> Result<(), Full> {
        let limit = self.limit.load(Ordering::Relaxed);
        let share = self.share.load(Ordering::Relaxed);
        // Under the lock, so that two of one network can't pass its share together.
        let mut by_network = self.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = by_network.get(&network).copied().unwrap_or(0).saturating_add(octets);
        let total = self.used().saturating_add(octets);
        if total > limit {
            return Err(Full::All);
        }
        if theirs > share && total > limit / 2 {
            return Err(Full::Share);
        }
        by_network.insert(network, theirs);
        self.used.store(total, Ordering::Relaxed);
        Ok(())
    }

    fn give_back(&self, network: IpAddr, octets: u64) {
        let mut by_network = self.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(theirs) = by_network.get_mut(&network) {
            *theirs = theirs.saturating_sub(octets);
            if *theirs == 0 {
                by_network.remove(&network);
            }
        }
        self.used.store(self.used().saturating_sub(octets), Ordering::Relaxed);
    }
}

/// One message's part of it.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    network: IpAddr,
    held: u64,
}

impl Reservation {
    /// Makes sure that at least `octets` are reserved.
    ///
    /// # Errors
    /// There is no room; what was held is still held.
    pub fn grow_to(&mut self, octets: u64) -> Result<(), Full> {
        let Some(missing) = octets.checked_sub(self.held).filter(|missing| *missing > 0) else { return Ok(()) };
        self.budget.take(self.network, missing)?;
        self.held = octets;
        Ok(())
    }

    /// Something is held, and room is short.
    #[must_use]
    pub fn is_in_others_way(&self) -> bool {
        self.held > 0 && self.budget.is_short()
    }

    /// Gives all of it back.
    pub fn release(&mut self) {
        if self.held > 0 {
            self.budget.give_back(self.network, self.held);
            self.held = 0;
        }
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

    const ANN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const BOB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn budget(in_flight: u64, message_size: u64) -> Arc<Budget> {
        Budget::new(&Limits { message_size, in_flight, ..Limits::default() })
    }

    #[test]
    fn what_is_reserved_is_counted_once_and_given_back() {
        let budget = budget(1000, 100);
        let mut one = budget.reserve(ANN);
        for (wanted, used) in [(1, 1), (64, 64), (64, 64), (10, 64), (65, 65)] {
            assert_eq!(one.grow_to(wanted), Ok(()));
            assert_eq!(budget.used(), used);
        }
        drop(one);
        assert_eq!(budget.used(), 0);
        assert!(budget.by_network.lock().unwrap().is_empty());
    }

    #[test]
    fn refuses_beyond_the_limit_and_holds_what_it_had() {
        let budget = budget(100, 100);
        let mut one = budget.reserve(ANN);
        assert_eq!(one.grow_to(60), Ok(()));
        let mut two = budget.reserve(BOB);
        assert_eq!(two.grow_to(41), Err(Full::All));
        assert_eq!(two.grow_to(40), Ok(()));
        assert_eq!(budget.used(), 100);
        one.release();
        assert_eq!(budget.used(), 40);
    }

    #[test]
    fn half_may_be_anybodys_and_beyond_it_each_network_has_its_share() {
        let budget = budget(1000, 100);
        let mut anns = [budget.reserve(ANN), budget.reserve(ANN)];
        assert_eq!(anns[0].grow_to(300), Ok(()));
        assert_eq!(anns[1].grow_to(200), Ok(()));
        assert!(!budget.is_short());
        assert_eq!(anns[1].grow_to(201), Err(Full::Share));
        let mut bobs = [budget.reserve(BOB), budget.reserve(BOB)];
        assert_eq!(bobs[0].grow_to(250), Ok(()));
        assert!(budget.is_short() && bobs[0].is_in_others_way() && !bobs[1].is_in_others_way());
        assert_eq!(bobs[1].grow_to(1), Err(Full::Share));
    }

    #[test]
    fn a_message_of_full_size_finds_room_on_an_idle_server() {
        let budget = budget(1000, 1000);
        assert_eq!(budget.reserve(ANN).grow_to(1000), Ok(()));
    }
}
