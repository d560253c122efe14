//! Reaches one host: addresses of both kinds, raced with a head start for the first (RFC 8305 §5).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time;

use crate::delivery::network::{Duplex, Network};

/// The head start an address has over the next one (RFC 8305 §8).
const HEAD_START: Duration = Duration::from_millis(250);

/// No address of the host could be connected to; this is what the last one said.
#[derive(Debug)]
pub struct DialError {
    pub address: SocketAddr,
    pub reason: String,
}

/// A connection, and to where.
pub type Dialled = (Box<dyn Duplex>, SocketAddr);

/// IPv6 and IPv4 in turn, IPv6 first, each kind in its order (RFC 8305 §4).
#[must_use]
pub fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut v6 = addresses.iter().filter(|ip| ip.is_ipv6());
    let mut v4 = addresses.iter().filter(|ip| ip.is_ipv4());
    let mut mixed = Vec::with_capacity(addresses.len());
    while mixed.len() < addresses.len() {
        mixed.extend(v6.next());
        mixed.extend(v4.next());
    }
    mixed
}

/// A connection to the first of the addresses that answers, each within `limit`; `None` where none is left.
///
/// Those that were reached or failed are taken off `left`, so that the next call goes on with the others.
pub async fn dial(
    network: &Network,
    left: &mut Vec<SocketAddr>,
    limit: Duration,
) -> Option<Result<Dialled, DialError>> {
    let mut waiting = left.clone().into_iter();
    let mut trying = FuturesUnordered::new();
    trying.push(connect(network, waiting.next()?, limit));
    loop {
        tokio::select! {
            biased;
            Some(tried) = trying.next() => {
                let known = tried.as_ref().map_or_else(|error| error.address, |(_, address)| *address);
                left.retain(|address| *address != known);
                match tried {
                    Ok(connected) => return Some(Ok(connected)),
                    Err(error) => match waiting.next() {
                        Some(address) => trying.push(connect(network, address, limit)),
                        None if trying.is_empty() => return Some(Err(error)),
                        None => {}
                    },
                }
            }
            () = time::sleep(HEAD_START), if waiting.len() > 0 => {
                if let Some(address) = waiting.next() {
                    trying.push(connect(network, address, limit));
                }
            }
        }
    }
}

async fn connect(network: &Network, address: SocketAddr, limit: Duration) -> Result<Dialled, DialError> {
    let failed = |reason: String| DialError { address, reason };
    match time::timeout(limit, network.connect(address)).await {
        Ok(Ok(stream)) => Ok((stream, address)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(failed("refused".to_owned())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("{} without an answer", super::seconds(limit)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_two_kinds_take_turns() {
        let mixed = interleave(&[ip("1.1.1.1"), ip("2.2.2.2"), ip("3.3.3.3"), ip("2606::1")]);
        assert_eq!(mixed, [ip("2606::1"), ip("1.1.1.1"), ip("2.2.2.2"), ip("3.3.3.3")]);
    }

    #[tokio::test]
    async fn what_was_not_needed_is_left_for_the_next_call() {
        let (one, two) =
            tokio::join!(tokio::net::TcpListener::bind("127.0.0.1:0"), tokio::net::TcpListener::bind("127.0.0.1:0"),);
        let (first, second) =
            (one.as_ref().unwrap().local_addr().unwrap(), two.as_ref().unwrap().local_addr().unwrap());
        let mut left = vec![first, second];
        for expected in [first, second] {
            let (_, reached) = dial(&Network::default(), &mut left, Duration::from_secs(5)).await.unwrap().unwrap();
            assert_eq!(reached, expected);
        }
        assert!(dial(&Network::default(), &mut left, Duration::from_secs(5)).await.is_none());
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_to_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let refusing = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bad = refusing.local_addr().unwrap();
        drop(refusing);
        let mut left = vec![bad, good];
        let (_, reached) = dial(&Network::default(), &mut left, Duration::from_secs(5)).await.unwrap().unwrap();
        assert_eq!((reached, left), (good, Vec::new()));
        assert!(dial(&Network::default(), &mut vec![bad], Duration::from_secs(5)).await.unwrap().is_err());
    }
}
