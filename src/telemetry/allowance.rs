//! How many lines strangers may have: whoever needs no login to cause a line must not fill the disk with them.
//!
//! Counted over [`WINDOW`] seconds: so many lines for one address, so many in all. What is kept back is counted (the
//! metrics count every event) and told of in one line when the window is over. Pure but for its lock; the table of
//! addresses has a bound.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::mail::Timestamp;

/// Seconds.
const WINDOW: i64 = 10;
/// Lines about one address in a window.
const ONE: u32 = 20;
/// Lines in a window, whoever they are about.
const ALL: u32 = 100;
/// Addresses counted by themselves; those beyond share what is left of [`ALL`].
const ADDRESSES: usize = 1024;

/// Counts the lines of one kind of thing.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    window: Mutex<Window>,
    /// Something was kept back that wasn't told yet: read before each line, so without the lock.
    owing: AtomicBool,
}

#[derive(Debug, Default)]
struct Window {
    number: i64,
    lines: u32,
    kept_back: u64,
    by_address: HashMap<IpAddr, Lines>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Lines {
    written: u32,
    kept_back: u64,
}

/// What a window kept back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeptBack {
    pub lines: u64,
    /// Whom most of them were about (IPv6: the first address of its /64), and how many.
    pub most: Option<(IpAddr, u64)>,
}

impl Allowance {
    /// Whether a line about `address` may be written at `now`.
    pub(super) fn grants(&self, address: Option<IpAddr>, now: Timestamp) -> bool {
        let mut guard = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let window = &mut *guard;
        // What a window kept back is told before the next begins; here it is only never lost.
        let number = number(now);
        let over = window.is_over(number);
        if over && window.kept_back == 0 {
            *window = Window { number, ..Window::default() };
        } else if over {
            window.number = number;
            window.lines = 0;
            window.by_address.values_mut().for_each(|lines| lines.written = 0);
        }
        let all = window.lines < ALL;
        let room = window.by_address.len() < ADDRESSES;
        let own = address.map(network).and_then(|network| {
            let known = room || window.by_address.contains_key(&network);
            known.then(|| window.by_address.entry(network).or_default())
        });
        let granted = all && own.as_ref().is_none_or(|own| own.written < ONE);
        if let Some(own) = own {
            if granted {
                own.written += 1;
            } else {
                own.kept_back += 1;
            }
        }
        if granted {
            window.lines += 1;
        } else {
            window.kept_back += 1;
            self.owing.store(true, Ordering::Relaxed);
        }
        granted
    }

    /// What was kept back in a window that is over by `now`; told once.
    pub(super) fn kept_back(&self, now: Timestamp) -> Option<KeptBack> {
        if !self.owing.load(Ordering::Relaxed) {
            return None;
        }
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.kept_back == 0 || !window.is_over(number(now)) {
            return None;
        }
        self.owing.store(false, Ordering::Relaxed);
        let over = std::mem::replace(&mut *window, Window { number: number(now), ..Window::default() });
        let counted = over.by_address.into_iter().map(|(address, lines)| (address, lines.kept_back));
        let most = counted.max_by_key(|(_, lines)| *lines).filter(|(_, lines)| *lines > 0);
        Some(KeptBack { lines: over.kept_back, most })
    }
}

impl Window {
    /// Events come a little out of order; a clock that was set back begins anew.
    fn is_over(&self, number: i64) -> bool {
        number > self.number || number < self.number - 1
    }
}

fn number(now: Timestamp) -> i64 {
    now.as_secs() / WINDOW
}

/// An IPv6 subscriber has a /64 to choose from.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn one_address_has_its_share_and_the_others_theirs() {
        let allowance = Allowance::default();
        let granted = (0..50).filter(|_| allowance.grants(Some(ip(1)), at(100))).count();
        assert_eq!(granted, ONE as usize);
        assert!(allowance.grants(Some(ip(2)), at(100)));
        assert_eq!(allowance.kept_back(at(105)), None, "the window isn't over");
        let told = KeptBack { lines: 30, most: Some((ip(1), 30)) };
        assert_eq!(allowance.kept_back(at(110)), Some(told));
        assert_eq!(allowance.kept_back(at(120)), None, "once");
        assert!(allowance.grants(Some(ip(1)), at(120)));
    }

    #[test]
    fn many_addresses_share_one_bound() {
        let allowance = Allowance::default();
        let granted =
            (0..=255).flat_map(|last| [ip(last); 10]).filter(|ip| allowance.grants(Some(*ip), at(100))).count();
        assert_eq!(granted, ALL as usize);
        assert_eq!(allowance.kept_back(at(110)).map(|kept| kept.lines), Some(2560 - u64::from(ALL)));
    }

    #[test]
    fn the_table_of_addresses_has_a_bound_and_a_subscriber_one_place() {
        let allowance = Allowance::default();
        for n in 0..5000_u32 {
            allowance.grants(Some(std::net::Ipv4Addr::from_bits(n).into()), at(100));
        }
        assert_eq!(allowance.window.lock().unwrap().by_address.len(), ADDRESSES);
        let allowance = Allowance::default();
        let granted = (0..50_u128).filter(|n| {
            let address = Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | n);
            allowance.grants(Some(address.into()), at(100))
        });
        assert_eq!(granted.count(), ONE as usize);
    }

    #[test]
    fn what_was_kept_back_is_not_lost_where_nobody_asks_in_time() {
        let allowance = Allowance::default();
        assert_eq!((0..30).filter(|_| allowance.grants(Some(ip(1)), at(100))).count(), ONE as usize);
        assert!(allowance.grants(Some(ip(1)), at(110)), "a new window");
        assert_eq!(allowance.kept_back(at(120)).map(|kept| kept.lines), Some(10));
    }
}
