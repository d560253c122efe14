//! Which way a delivery goes. Pure.
//!
//! Looked up at each attempt, so that a changed configuration holds for what already waits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::{Config, Scheme, Smarthost};
use crate::store::RelayTask;

use super::{Failure, Side};

/// Where a message is handed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// As the configuration (or `dev`) says.
    Smarthost(Smarthost),
    /// By the MX records of this domain (A-labels, lower case).
    Domain(String),
    /// A recipient at an address literal (RFC 5321 §4.1.3).
    Literal(IpAddr),
}

/// Where `task` goes now.
///
/// # Errors
/// A `[[destination]]` that is gone: it may come back, so later. A recipient without a usable domain: never.
pub fn next_hop(config: &Config, task: &RelayTask, capture: Option<SocketAddr>) -> Result<NextHop, Failure> {
    if let Some(sink) = capture {
        let host = sink.ip().to_string();
        return Ok(NextHop::Smarthost(Smarthost { scheme: Scheme::Smtp, host, port: sink.port(), login: None }));
    }
    if let Some(via) = &task.via {
        let found = config.destinations.iter().find(|destination| &destination.name == via);
        return found.map(|destination| NextHop::Smarthost(destination.smarthost.clone())).ok_or_else(|| {
            Failure::later(Side::Ours, "4.3.5", format!("no [[destination]] is named {via:?} any more"))
        });
    }
    if let Some(smarthost) = &config.relay.smarthost {
        return Ok(NextHop::Smarthost(smarthost.clone()));
    }
    let domain = task.recipient.domain();
    match domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(literal) => parse_literal(literal)
            .map(NextHop::Literal)
            .ok_or_else(|| Failure::never(Side::Ours, "5.1.3", format!("{domain} is no address literal"))),
        None if domain.is_empty() => {
            Err(Failure::never(Side::Ours, "5.1.3", format!("{} has no domain to go to", task.recipient)))
        }
        None => Ok(NextHop::Domain(task.recipient.domain_key())),
    }
}

fn parse_literal(inner: &str) -> Option<IpAddr> {
    match inner.split_at_checked(5) {
        Some((tag, rest)) if tag.eq_ignore_ascii_case("IPv6:") => rest.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}
