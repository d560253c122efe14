//! Which way a delivery goes: its next hop, and the name of the queue it stands in. Pure.
//!
//! Named by [`relay_destination`] and [`webhook_destination`] when a delivery is queued; looked up again by
//! [`next_hop`] at each attempt, so that a changed configuration holds for what already waits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::{Config, Scheme, Smarthost};
use crate::mail::Address;
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

/// The queue in which a message for `recipient` stands; `via` is a `[[destination]]`.
#[must_use]
pub fn relay_destination(config: &Config, recipient: &Address, via: Option<&str>) -> String {
    let named = via.and_then(|name| config.destinations.iter().find(|destination| destination.name == name));
    match named.map(|destination| &destination.smarthost).or(config.relay.smarthost.as_ref()) {
        Some(smarthost) => smarthost_name(smarthost),
        None => format!("mx:{}", recipient.domain_key()),
    }
}

/// The queue in which a call of `url` stands: scheme and authority, without a login.
#[must_use]
pub fn webhook_destination(url: &url::Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

/// As in the configuration, without its login.
#[must_use]
pub fn smarthost_name(smarthost: &Smarthost) -> String {
    let scheme = match smarthost.scheme {
        Scheme::Smtp => "smtp",
        Scheme::SmtpStarttls => "smtp+starttls",
        Scheme::Smtps => "smtps",
        Scheme::Lmtp => "lmtp",
    };
    if smarthost.host.contains(':') {
        format!("{scheme}://[{}]:{}", smarthost.host, smarthost.port)
    } else {
        format!("{scheme}://{}:{}", smarthost.host, smarthost.port)
    }
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
