//! The PROXY protocol, versions 1 and 2: the true address of a client that a proxy hands on.
//!
//! Read only from peers that the listener's `proxy_protocol` names, and from these it is required: whoever could send
//! one unasked could be anybody. Takes the header's octets from the stream and not one more. Bounded in size and time.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A proxy has the header ready when it connects.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest version 1 header, CRLF included.
const V1_LONGEST: usize = 107;
/// More than addresses and the usual extensions take; a longer version 2 header is refused.
const V2_LONGEST: usize = 2048;

/// Reads the header that must come first. `None`: the proxy speaks for itself (a health check), or doesn't know.
///
/// # Errors
/// In words for the log.
pub(super) async fn read<R: AsyncRead + Unpin>(stream: &mut R, limit: Duration) -> Result<Option<SocketAddr>, String> {
    match tokio::time::timeout(limit, read_header(stream)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no PROXY header after {} s", limit.as_secs_f32())),
    }
}

async fn read_header<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Option<SocketAddr>, String> {
    // Shorter than the shortest header of either version, `PROXY UNKNOWN` and CRLF.
    let mut header = vec![0; v2::PROTOCOL_PREFIX.len()];
    stream.read_exact(&mut header).await.map_err(|error| unread(&error))?;
    if header == v2::PROTOCOL_PREFIX {
        read_v2(stream, header).await
    } else if header.starts_with(b"PROXY ") {
        read_v1(stream, header).await
    } else {
        Err("a PROXY header is required of this peer and it sent none".to_owned())
    }
}

/// To its CRLF, octet by octet, so that nothing behind it is taken.
async fn read_v1<R: AsyncRead + Unpin>(stream: &mut R, mut header: Vec<u8>) -> Result<Option<SocketAddr>, String> {
    while !header.ends_with(b"\r\n") {
        if header.len() >= V1_LONGEST {
            return Err(format!("the PROXY header is longer than {V1_LONGEST} octets"));
        }
        header.push(stream.read_u8().await.map_err(|error| unread(&error))?);
    }
    let parsed = v1::Header::try_from(header.as_slice()).map_err(malformed)?;
    Ok(match parsed.addresses {
        v1::Addresses::Tcp4(tcp) => Some(socket(tcp.source_address, tcp.source_port)),
        v1::Addresses::Tcp6(tcp) => Some(socket(tcp.source_address, tcp.source_port)),
        v1::Addresses::Unknown => None,
    })
}

async fn read_v2<R: AsyncRead + Unpin>(stream: &mut R, mut header: Vec<u8>) -> Result<Option<SocketAddr>, String> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await.map_err(|error| unread(&error))?;
    let [_, _, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_LONGEST {
        return Err(format!("the PROXY header is longer than {V2_LONGEST} octets"));
    }
    header.extend_from_slice(&fixed);
    let begun = header.len();
    header.resize(begun + length, 0);
    let rest = header.get_mut(begun..).unwrap_or_default();
    stream.read_exact(rest).await.map_err(|error| unread(&error))?;

    let parsed = v2::Header::try_from(header.as_slice()).map_err(malformed)?;
    Ok(match (parsed.command, parsed.addresses) {
        (v2::Command::Proxy, v2::Addresses::IPv4(tcp)) => Some(socket(tcp.source_address, tcp.source_port)),
        (v2::Command::Proxy, v2::Addresses::IPv6(tcp)) => Some(socket(tcp.source_address, tcp.source_port)),
        _ => None,
    })
}

fn socket(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into().to_canonical(), port)
}

fn unread(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        "the peer left before its PROXY header was whole".to_owned()
    } else {
        format!("reading the PROXY header: {error}")
    }
}

fn malformed(error: impl std::fmt::Display) -> String {
    format!("the PROXY header is malformed: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_from(octets: &[u8]) -> (Result<Option<SocketAddr>, String>, Vec<u8>) {
        let mut stream = octets;
        let result = read(&mut stream, TIMEOUT).await;
        (result, stream.to_vec())
    }

    #[tokio::test]
    async fn version_1_gives_the_client_and_leaves_what_follows() {
        let (result, rest) = read_from(b"PROXY TCP4 192.0.2.9 10.0.0.1 4711 25\r\nEHLO x\r\n").await;
        assert_eq!(result, Ok(Some("192.0.2.9:4711".parse().unwrap())));
        assert_eq!(rest, b"EHLO x\r\n");
        let (result, _) = read_from(b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 25\r\n").await;
        assert_eq!(result, Ok(Some("[2001:db8::9]:4711".parse().unwrap())));
    }

    #[tokio::test]
    async fn version_1_may_not_know() {
        assert_eq!(read_from(b"PROXY UNKNOWN\r\n").await.0, Ok(None));
    }

    #[tokio::test]
    async fn version_2_gives_the_client_and_leaves_what_follows() {
        let mut octets = v2::Builder::with_addresses(
            v2::Version::Two | v2::Command::Proxy,
            v2::Protocol::Stream,
            ("192.0.2.9:4711".parse::<SocketAddr>().unwrap(), "10.0.0.1:25".parse::<SocketAddr>().unwrap()),
        )
        .build()
        .unwrap();
        octets.extend_from_slice(b"x");
        let (result, rest) = read_from(&octets).await;
        assert_eq!(result, Ok(Some("192.0.2.9:4711".parse().unwrap())));
        assert_eq!(rest, b"x");
    }

    #[tokio::test]
    async fn version_2_of_the_proxy_itself_names_nobody() {
        let mut octets = v2::PROTOCOL_PREFIX.to_vec();
        octets.extend_from_slice(&[0x20, 0, 0, 0]);
        assert_eq!(read_from(&octets).await.0, Ok(None));
    }

    #[tokio::test]
    async fn a_header_is_required_whole_bounded_and_well_formed() {
        let cases: [(&[u8], &str); 5] = [
            (b"EHLO client.example\r\n", "required"),
            (b"PROXY TCP4 192.", "left before"),
            (&[b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat(), "longer than 107"),
            (b"PROXY TCP4 nonsense 10.0.0.1 1 25\r\n", "malformed"),
            (&[v2::PROTOCOL_PREFIX, &[0x21, 0x11, 0xff, 0xff]].concat(), "longer than 2048"),
        ];
        for (octets, expected) in cases {
            let error = read_from(octets).await.0.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn a_header_that_does_not_come_is_not_waited_for() {
        let (mut ours, _theirs) = tokio::io::duplex(64);
        let error = read(&mut ours, Duration::from_millis(1)).await.unwrap_err();
        assert!(error.contains("no PROXY header after 0.001 s"), "{error}");
    }
}
