//! How many connections there may be: in all, and from one address (IPv6: from one /64, which is one subscriber's).
//!
//! **Invariant**: each admission is taken back exactly once, by the `Drop` of its [`Slot`], on every path out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts who is connected.
#[derive(Debug, Default)]
pub struct Gate {
    total: AtomicUsize,
    by_network: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's admission.
#[derive(Debug)]
pub struct Slot {
    gate: Arc<Gate>,
    network: Option<IpAddr>,
}

impl Gate {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Admits one more connection among `limit` in all; `None`: there are as many as may be.
    #[must_use]
    pub fn admit(self: &Arc<Self>, limit: usize) -> Option<Slot> {
        self.total
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < limit).then_some(open + 1))
            .ok()
            .map(|_| Slot { gate: Arc::clone(self), network: None })
    }
}

impl Slot {
    /// Counts the connection under its address, too: at most `limit` for one network. `false`: there are as many.
    #[must_use]
    pub fn assign(&mut self, ip: IpAddr, limit: usize) -> bool {
        let network = network(ip);
        let mut by_network = self.gate.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        let open = by_network.get(&network).copied().unwrap_or(0);
        if open >= limit {
            return false;
        }
        by_network.insert(network, open + 1);
        self.network = Some(network);
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gate.total.fetch_sub(1, Ordering::Relaxed);
        let Some(network) = self.network else { return };
        let mut by_network = self.gate.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = by_network.get_mut(&network) {
            *open -= 1;
            if *open == 0 {
                by_network.remove(&network);
            }
        }
    }
}

/// What is counted as one: an IPv4 address, however it is written, or an IPv6 /64 by its first address.
pub(super) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn counts_in_all_and_lets_go() {
        let gate = Gate::new();
        let one = gate.admit(1).unwrap();
        assert!(gate.admit(1).is_none());
        drop(one);
        assert_eq!(gate.open(), 0);
        assert!(gate.admit(1).is_some());
    }

    #[test]
    fn counts_an_ipv6_network_as_one() {
        let gate = Gate::new();
        let mut one = gate.admit(9).unwrap();
        let mut two = gate.admit(9).unwrap();
        assert!(one.assign(ip("2001:db8:0:1::1"), 1));
        assert!(!two.assign(ip("2001:db8:0:1:ffff::2"), 1));
        assert!(two.assign(ip("2001:db8:0:2::1"), 1));
        drop(one);
        assert!(gate.admit(9).unwrap().assign(ip("2001:db8:0:1::3"), 1));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_the_same_one() {
        let gate = Gate::new();
        let mut one = gate.admit(9).unwrap();
        let mut two = gate.admit(9).unwrap();
        assert!(one.assign(ip("192.0.2.1"), 1));
        assert!(!two.assign(ip("::ffff:192.0.2.1"), 1));
        assert!(two.assign(ip("192.0.2.2"), 1));
    }

    #[test]
    fn leaves_no_entry_behind() {
        let gate = Gate::new();
        let mut one = gate.admit(9).unwrap();
        assert!(one.assign(ip("192.0.2.1"), 1));
        drop(one);
        assert!(gate.by_network.lock().unwrap().is_empty());
    }
}
