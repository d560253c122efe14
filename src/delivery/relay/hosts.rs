//! From a next hop to the hosts that take its mail, in the order in which they are tried.
//!
//! Standards: RFC 5321 §5.1 (MX), §5.2 (IPv6), RFC 7505 (null MX), §6.3 and RFC 974 (no mail to ourselves).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::config::{Config, ListenAddress};
use crate::delivery::egress;
use crate::delivery::route::NextHop;
use crate::delivery::{Failure, Side};
use crate::dns::{Dns, LookupError, Mx};

use super::dial::interleave;

/// Hosts of one domain that are tried in one attempt.
const MAX_HOSTS: usize = 5;
/// Addresses of one host that are tried in one attempt.
const MAX_ADDRESSES: usize = 8;

/// The status of a host that is ourselves (RFC 3463 §3.5: a routing loop).
pub const LEADS_BACK: &str = "5.4.6";

/// A host to be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub port: u16,
    /// Named by the configuration: goes where it says, whatever `[egress]` says.
    pub trusted: bool,
}

/// The hosts of `hop`, best first.
///
/// # Errors
/// The domain takes no mail, doesn't exist, leads back to us; or DNS doesn't answer.
pub async fn hosts_of(hop: &NextHop, config: &Config, dns: &Dns) -> Result<Vec<Host>, Failure> {
    let port = config.relay.port;
    match hop {
        NextHop::Smarthost(smarthost) => {
            Ok(vec![Host { name: smarthost.host.clone(), port: smarthost.port, trusted: true }])
        }
        NextHop::Literal(ip) => Ok(vec![Host { name: ip.to_string(), port, trusted: false }]),
        NextHop::Domain(domain) => {
            let records = match dns.mx(domain).await {
                Ok(records) => records,
                // A name that exists not at all has no address either (RFC 5321 §5.1).
                Err(LookupError::NoSuchName(_)) => {
                    return Err(Failure::never(Side::Ours, "5.1.2", format!("{domain}: no such domain")));
                }
                Err(error) => return Err(Failure::later(Side::Network, "4.4.3", error.to_string())),
            };
            let names = exchanges(domain, records, &config.hostname)?;
            Ok(names.into_iter().map(|name| Host { name, port, trusted: false }).collect())
        }
    }
}

/// What the MX records come to: shuffled where equal, without ourselves and those worse than we.
fn exchanges(domain: &str, mut records: Vec<Mx>, hostname: &str) -> Result<Vec<String>, Failure> {
    if records.is_empty() {
        // RFC 5321 §5.1: an implicit MX, the domain's own address.
        return Ok(vec![domain.to_owned()]);
    }
    if records.iter().all(|mx| mx.host.is_empty()) {
        return Err(Failure::never(Side::Remote, "5.1.10", format!("{domain} takes no mail (null MX)")));
    }
    records.retain(|mx| !mx.host.is_empty());
    fastrand::shuffle(&mut records);
    records.sort_by_key(|mx| mx.preference);
    let ours = records.iter().find(|mx| mx.host.eq_ignore_ascii_case(hostname)).map(|mx| mx.preference);
    if let Some(preference) = ours {
        records.retain(|mx| mx.preference < preference);
        if records.is_empty() {
            return Err(loops(domain));
        }
    }
    records.truncate(MAX_HOSTS);
    Ok(records.into_iter().map(|mx| mx.host).collect())
}

fn loops(domain: &str) -> Failure {
    Failure::never(Side::Ours, LEADS_BACK, format!("the best MX of {domain} is this server: mail would loop"))
}

/// The addresses at which `host` may be connected to.
///
/// # Errors
/// It has none, none that `[egress]` lets us reach, it is ourselves, or DNS doesn't answer.
pub async fn addresses_of(host: &Host, config: &Config, dns: &Dns) -> Result<Vec<SocketAddr>, Failure> {
    let found = match host.name.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => look_up(host, dns).await?,
    };
    let reachable: Vec<IpAddr> =
        found.iter().copied().filter(|ip| host.trusted || egress::may_reach(*ip, &config.egress)).collect();
    if reachable.is_empty() {
        let listed: Vec<String> = found.iter().map(ToString::to_string).collect();
        let detail =
            format!("{} is at {}, which is no public address and not in [egress] allow", host.name, listed.join(", "));
        return Err(Failure::never(Side::Ours, "5.4.4", detail));
    }
    let mut targets: Vec<SocketAddr> =
        interleave(&reachable).into_iter().map(|ip| SocketAddr::new(ip, host.port)).collect();
    targets.truncate(MAX_ADDRESSES);
    if !host.trusted && targets.iter().any(|target| is_ours(target, config)) {
        return Err(loops(&host.name));
    }
    Ok(targets)
}

async fn look_up(host: &Host, dns: &Dns) -> Result<Vec<IpAddr>, Failure> {
    let found = match dns.addresses(&host.name).await {
        Ok(found) => found,
        Err(LookupError::NoSuchName(_)) => Vec::new(),
        Err(error) => return Err(Failure::later(Side::Network, "4.4.3", error.to_string())),
    };
    if !found.is_empty() {
        return Ok(found);
    }
    let detail = format!("{}: no such host, or it has no address", host.name);
    // A smarthost that has no address is a mistake of the admin's, for which no mail is to bounce.
    Err(if host.trusted {
        Failure::later(Side::Ours, "4.4.4", detail)
    } else {
        Failure::never(Side::Remote, "5.1.2", detail)
    })
}

/// One of our own listeners: bound to that address, or to all of them where the address is this machine's.
fn is_ours(target: &SocketAddr, config: &Config) -> bool {
    config.listeners.iter().any(|listener| match &listener.address {
        ListenAddress::Socket(bound) if bound.ip().is_unspecified() => {
            bound.port() == target.port() && (bound.is_ipv6() || target.is_ipv4()) && is_this_machines(target.ip())
        }
        ListenAddress::Socket(bound) => bound == target,
        ListenAddress::Systemd(_) => false,
    })
}

/// What is sent to an address of our own comes from the same: the system says so without sending anything.
fn is_this_machines(ip: IpAddr) -> bool {
    let any = if ip.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let from = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((ip, 25))?;
        socket.local_addr()
    };
    ip.is_loopback() || from().is_ok_and(|from| from.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mx(preference: u16, host: &str) -> Mx {
        Mx { preference, host: host.to_owned() }
    }

    fn ordered(records: Vec<Mx>) -> Result<Vec<String>, String> {
        exchanges("example.net", records, "mx.us.example").map_err(|failure| failure.status)
    }

    #[test]
    fn better_preferences_come_first() {
        let records = vec![mx(20, "b"), mx(10, "a"), mx(30, "c")];
        assert_eq!(ordered(records).unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn equal_preferences_are_shuffled() {
        let firsts: std::collections::HashSet<String> =
            (0..200).map(|_| ordered(vec![mx(10, "a"), mx(10, "b")]).unwrap().swap_remove(0)).collect();
        assert_eq!(firsts.len(), 2);
    }

    #[test]
    fn without_mx_the_domain_itself_is_the_host() {
        assert_eq!(ordered(Vec::new()).unwrap(), ["example.net"]);
    }

    #[test]
    fn a_null_mx_takes_no_mail_ever() {
        assert_eq!(ordered(vec![mx(0, "")]), Err("5.1.10".to_owned()));
    }

    #[test]
    fn we_drop_ourselves_and_those_worse() {
        let records = vec![mx(10, "a"), mx(20, "MX.us.example"), mx(20, "b"), mx(30, "c")];
        assert_eq!(ordered(records).unwrap(), ["a"]);
        assert_eq!(ordered(vec![mx(10, "mx.us.example"), mx(20, "b")]), Err("5.4.6".to_owned()));
    }

    #[test]
    fn a_listener_on_all_addresses_is_at_each_of_this_machines() {
        let listening = |address: &str| {
            let address = ListenAddress::Socket(address.parse().unwrap());
            let listener =
                crate::config::Listener { address, tls: crate::config::TlsMode::Off, proxy_protocol: Vec::new() };
            let mut config = Config::default();
            config.listeners = vec![listener];
            config
        };
        let ours = |target: &str, listener: &str| is_ours(&target.parse().unwrap(), &listening(listener));
        assert!(ours("127.0.0.1:25", "0.0.0.0:25") && ours("127.0.0.1:25", "[::]:25") && ours("[::1]:25", "[::]:25"));
        assert!(!ours("127.0.0.1:25", "0.0.0.0:26") && !ours("[::1]:25", "0.0.0.0:25"));
        assert!(!ours("127.0.0.2:25", "127.0.0.1:25") && ours("127.0.0.1:25", "127.0.0.1:25"));
        // Somebody else's, and, where there is a way to it, our own as it is seen from there.
        let elsewhere: SocketAddr = "192.0.2.1:25".parse().unwrap();
        assert!(!is_this_machines(elsewhere.ip()));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect(elsewhere).is_ok() {
            assert!(is_this_machines(socket.local_addr().unwrap().ip()));
        }
    }
}
