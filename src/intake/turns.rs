//! Whose worker runs next: so many at once, and no network takes them all.
//!
//! Runs that are not over in a moment wait here for a turn, first by network, then with all others, each in the order of
//! coming. A network has half of the turns at most, so that others find one; a message of many recipients gives its turn
//! back now and then. Every wait has an end, since a sender waits behind it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Instant;

/// The turns of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    at_once: usize,
    /// Of one network.
    share: usize,
    networks: Arc<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>,
}

/// A turn, over when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _place: OwnedSemaphorePermit,
    _share: Share,
}

impl Turns {
    pub(super) fn new(at_once: usize) -> Self {
        let at_once = at_once.max(1);
        Self { all: Arc::new(Semaphore::new(at_once)), at_once, share: at_once.div_ceil(2), networks: Arc::default() }
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.at_once.saturating_sub(self.all.available_permits())
    }

    /// Waits for a turn until `latest`. `None`: none came in time.
    pub(super) async fn take(&self, client: IpAddr, latest: Instant) -> Option<Turn> {
        let mut share = self.share_of(network(client));
        let both = async {
            share.place = Some(Arc::clone(&share.places).acquire_owned().await.ok()?);
            Arc::clone(&self.all).acquire_owned().await.ok()
        };
        // What is free is had even where it is late.
        let place = tokio::time::timeout_at(latest, both).await.ok().flatten()?;
        Some(Turn { _place: place, _share: share })
    }

    fn share_of(&self, network: IpAddr) -> Share {
        let mut networks = lock(&self.networks);
        let places = networks.entry(network).or_insert_with(|| Arc::new(Semaphore::new(self.share)));
        let places = Arc::clone(places);
        drop(networks);
        Share { networks: Arc::clone(&self.networks), network, places, place: None }
    }
}

/// One run's part in its network's turns. The last one takes the network's entry with it.
#[derive(Debug)]
struct Share {
    networks: Arc<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>,
    network: IpAddr,
    places: Arc<Semaphore>,
    place: Option<OwnedSemaphorePermit>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut networks = lock(&self.networks);
        self.place = None;
        // Ours and the map's: whoever wants one more takes it from the map, under this lock.
        if Arc::strong_count(&self.places) <= 2 {
            networks.remove(&self.network);
        }
    }
}

fn lock(networks: &Mutex<HashMap<IpAddr, Arc<Semaphore>>>) -> MutexGuard<'_, HashMap<IpAddr, Arc<Semaphore>>> {
    networks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What counts as one sender: an IPv4 /24, an IPv6 /64, by its first address.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !0xff)),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(5)
    }

    #[tokio::test]
    async fn no_network_takes_all_the_turns() {
        let turns = Turns::new(4);
        let one = turns.take(ip("192.0.2.1"), soon()).await.unwrap();
        let two = turns.take(ip("::ffff:192.0.2.2"), soon()).await.unwrap();
        assert!(turns.take(ip("192.0.2.3"), soon()).await.is_none(), "a /24 has half of them");
        let other = turns.take(ip("198.51.100.1"), soon()).await.unwrap();
        let sixth = turns.take(ip("2001:db8::1"), soon()).await.unwrap();
        assert!(turns.take(ip("203.0.113.1"), soon()).await.is_none(), "there are four");
        drop(one);
        let again = turns.take(ip("192.0.2.3"), Instant::now()).await;
        assert!(again.is_some(), "what is free is had at once");
        drop((two, other, sixth, again));
        assert!(lock(&turns.networks).is_empty());
        assert_eq!(turns.all.available_permits(), 4);
    }

    #[tokio::test]
    async fn whoever_gives_its_turn_back_comes_after_those_who_wait() {
        let turns = Turns::new(1);
        let first = turns.take(ip("192.0.2.1"), soon()).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let far = Instant::now() + Duration::from_secs(30);
        let wait = |name: &'static str, client: &str| {
            let (turns, order, client) = (turns.clone(), Arc::clone(&order), ip(client));
            async move {
                let turn = turns.take(client, far).await;
                order.lock().unwrap().push(name);
                drop(turn);
            }
        };
        let (other, again) = (wait("another", "198.51.100.1"), wait("again", "192.0.2.1"));
        let give_back = async { drop(first) };
        tokio::join!(other, give_back, again);
        assert_eq!(*order.lock().unwrap(), ["another", "again"]);
    }
}
