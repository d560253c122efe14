//! Reaches one host: addresses of both kinds, raced with a head start for the first (RFC 8305 §5).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time;

/// The head start an address has over the next one (RFC 8305 §8).
const HEAD_START: Duration = Duration::from_millis(250);

/// No address of the host could be connected to; this is what the last one said.
#[derive(Debug)]
pub struct DialError {
    pub address: SocketAddr,
    pub reason: String,
}

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

/// A connection to the first of `addresses` that answers, each within `limit`. `None` where there are no addresses.
pub async fn dial(addresses: &[SocketAddr], limit: Duration) -> Option<Result<(TcpStream, SocketAddr), DialError>> {
    let mut waiting = addresses.iter().copied();
    let mut trying = FuturesUnordered::new();
    trying.push(connect(waiting.next()?, limit));
    loop {
        tokio::select! {
            Some(tried) = trying.next() => match tried {
                Ok(connected) => return Some(Ok(connected)),
                Err(error) => match waiting.next() {
                    Some(address) => trying.push(connect(address, limit)),
                    None if trying.is_empty() => return Some(Err(error)),
                    None => {}
                },
            },
            () = time::sleep(HEAD_START), if waiting.len() > 0 => {
                if let Some(address) = waiting.next() {
                    trying.push(connect(address, limit));
                }
            }
        }
    }
}

async fn connect(address: SocketAddr, limit: Duration) -> Result<(TcpStream, SocketAddr), DialError> {
    let failed = |reason: String| DialError { address, reason };
    match time::timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // Commands are written whole; waiting for more to send with them only delays.
            stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
            Ok((stream, address))
        }
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
    async fn an_address_that_refuses_gives_way_to_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let refusing = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bad = refusing.local_addr().unwrap();
        drop(refusing);
        let (_, reached) = dial(&[bad, good], Duration::from_secs(5)).await.unwrap().unwrap();
        assert_eq!(reached, good);
        assert!(dial(&[bad], Duration::from_secs(5)).await.unwrap().is_err());
    }
}
