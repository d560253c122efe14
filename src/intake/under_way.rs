//! The messages that are being decided or committed, so that one whose client lost patience and came again isn't taken
//! twice (RFC 1047).
//!
//! **Invariant**: what begins ends, by the `Drop` of its [`Mark`], on every path out. So there is one at most for each
//! session.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Known = (IpAddr, [u8; 16]);

/// By client and fingerprint. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashSet<Known>>>);

/// One message is under way.
#[derive(Debug)]
pub(super) struct Mark {
    under_way: UnderWay,
    known: Known,
}

impl UnderWay {
    /// `None`: the same message from the same client is under way.
    pub(super) fn begin(&self, client: IpAddr, fingerprint: [u8; 16]) -> Option<Mark> {
        let known = (client, fingerprint);
        self.known().insert(known).then(|| Mark { under_way: self.clone(), known })
    }

    fn known(&self) -> MutexGuard<'_, HashSet<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mark {
    pub(super) fn fingerprint(&self) -> [u8; 16] {
        self.known.1
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.under_way.known().remove(&self.known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_of_one_client_is_under_way_once() {
        let under_way = UnderWay::default();
        let (one, two) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mark = under_way.begin(one, [1; 16]).unwrap();
        assert!(under_way.begin(one, [1; 16]).is_none());
        let others = [under_way.begin(one, [2; 16]), under_way.begin(two, [1; 16])];
        assert!(others.iter().all(Option::is_some));
        drop((mark, others));
        assert!(under_way.known().is_empty());
    }
}
