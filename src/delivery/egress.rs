//! Which addresses a message or a script may lead us to: public ones, and those that `[egress] allow` names.
//!
//! Pure. Asked with the address that is connected to, never with a name (a name may change between two look-ups).
//! Standards: RFC 6890 (special-purpose registries), RFC 4193, RFC 6598, RFC 6052 (NAT64), RFC 3056 (6to4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Whether a target that the configuration doesn't name may be connected to.
#[must_use]
pub fn may_reach(ip: IpAddr, allow: &[IpNet]) -> bool {
    let plain = ip.to_canonical();
    is_public(plain) || allow.iter().any(|net| net.contains(&ip) || net.contains(&plain))
}

/// Whether `ip` is a unicast address of the public internet.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, ..)      // this network, private, loopback; multicast, reserved, broadcast
            | (100, 64..=127, _)            // shared by carriers (RFC 6598)
            | (169, 254, _)                 // link-local, where clouds keep their metadata
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)               // protocol assignments, documentation
            | (192, 88, 99)                 // 6to4 relays
            | (198, 18 | 19, _)             // benchmarks
            | (198, 51, 100)                // documentation, and the next
            | (203, 0, 113)
    );
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let [first, second, third, ..] = segments;
    // An IPv4 address in IPv6's clothes is judged by what it wears beneath.
    if let Some(v4) = embedded_v4(ip) {
        return is_public_v4(v4);
    }
    let global_unicast = (first & 0xe000) == 0x2000;
    let special = matches!(
        (first, second, third),
        (0x2001, 0x0000..=0x01ff | 0x0db8, _) // protocol assignments (Teredo, ORCHID, RFC 2928); documentation
            | (0x3fff, 0x0000..=0x0fff, _) // documentation (RFC 9637)
    );
    global_unicast && !special
}

/// The IPv4 address that NAT64 (RFC 6052 §2.1), 6to4 (RFC 3056 §2) or an IPv4-compatible form leads to.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [first, second, third, fourth, fifth, sixth, seventh, eighth] = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (first, second) {
        (0x2002, _) => Some(v4(second, third)),
        (0x0064, 0xff9b) | (0, 0) if [third, fourth, fifth, sixth] == [0; 4] => Some(v4(seventh, eighth)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().unwrap())
    }

    #[test]
    fn private_and_special_addresses_are_not_public() {
        for text in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.0.1",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.9",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.0.8",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "2001::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2002:c0a8:101::1",
            "fec0::1",
            "100::1",
            "4000::1",
        ] {
            assert!(!public(text), "{text} must not be public");
        }
    }

    #[test]
    fn the_internet_is_public() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(public(text), "{text} must be public");
        }
    }

    #[test]
    fn egress_allows_what_it_names_in_either_form() {
        let allow: Vec<IpNet> = vec!["127.0.0.0/8".parse().unwrap()];
        assert!(may_reach("127.0.0.1".parse().unwrap(), &allow));
        assert!(may_reach("::ffff:127.0.0.1".parse().unwrap(), &allow));
        assert!(!may_reach("10.0.0.1".parse().unwrap(), &allow));
    }
}
