//! Where something comes from: tests of IP addresses and of domains.
//!
//! An address or a domain is often a sender's word, and one that is none is in no network and matches nothing. A network
//! or a pattern is the author's, and one that is none is an error.
//! Standards: RFC 4632 (CIDR), RFC 4291 §2.5 (kinds of IPv6 addresses), RFC 5890 (A-labels), RFC 6890 (private networks).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use rhai::{Dynamic, Engine, ImmutableString, NativeCallContext};

use super::{ScriptResult, say, shown, texts};

/// Octets of a domain (RFC 5321 §4.5.3.1.2), and of one beyond ASCII before it is written in ASCII.
const MAX_DOMAIN: usize = 255;
const MAX_WRITTEN: usize = 1020;

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn(
        "ip_in",
        |context: NativeCallContext, ip: ImmutableString, networks: Dynamic| -> ScriptResult<bool> {
            let networks = texts(&context, "networks", &networks)?;
            let networks = networks.iter().map(|text| network(text)).collect::<Result<Vec<_>, _>>();
            let networks = networks.map_err(|why| say(&context, why))?;
            Ok(address(&ip).is_some_and(|ip| networks.iter().any(|network| network.contains(&ip))))
        },
    );
    engine.register_fn("is_ip", |ip: ImmutableString| address(&ip).is_some());
    engine.register_fn("is_private_ip", |ip: ImmutableString| address(&ip).is_some_and(is_private));
    engine.register_fn(
        "domain_matches",
        |context: NativeCallContext, domain: ImmutableString, patterns: Dynamic| -> ScriptResult<bool> {
            let patterns = texts(&context, "patterns", &patterns)?;
            let patterns = patterns.iter().map(|text| Pattern::of(text)).collect::<Result<Vec<_>, _>>();
            let patterns = patterns.map_err(|why| say(&context, why))?;
            Ok(normal(&domain).is_some_and(|domain| patterns.iter().any(|pattern| pattern.matches(&domain))))
        },
    );
    engine.register_fn("org_domain", |domain: ImmutableString| {
        let domain = normal(&domain).filter(|domain| domain.parse::<IpAddr>().is_err());
        let found = domain.as_deref().and_then(psl::domain_str).map(ToOwned::to_owned);
        found.map_or(Dynamic::UNIT, Dynamic::from)
    });
}

/// An address as `session.ip` has it, or a literal of RFC 5321 §4.1.3; an IPv4 address within IPv6 is one of IPv4.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let tagged = text.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("ipv6:"));
    let text = if tagged { text.get(5..).unwrap_or_default() } else { text };
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let alone = || address(text).map(IpNet::from);
    text.parse::<IpNet>().ok().or_else(alone).ok_or_else(|| {
        format!("{} is no network: write one like \"192.0.2.0/24\", \"2001:db8::/32\" or a single address", shown(text))
    })
}

/// Of no use on the Internet: private, local, shared by a provider, of documentation, multicast, or none at all.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_documentation()
                || ip.is_multicast()
                || first == 0
                || first >= 240
                // RFC 6598 and RFC 2544.
                || first == 100 && second & 0xc0 == 64
                || first == 198 && second & 0xfe == 18
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || is_documentation(ip)
        }
    }
}

fn is_documentation(ip: Ipv6Addr) -> bool {
    matches!(ip.segments(), [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..])
}

/// In lower case, in ASCII, without the root's dot; `None` for what is no domain.
fn normal(domain: &str) -> Option<Cow<'_, str>> {
    let domain = domain.trim();
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    if domain.is_empty() || domain.len() > MAX_WRITTEN {
        return None;
    }
    let plain = |domain: &str| {
        let fine = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
        domain.len() <= MAX_DOMAIN && domain.bytes().all(fine) && domain.split('.').all(|label| !label.is_empty())
    };
    if domain.is_ascii() {
        return plain(domain).then(|| Cow::Owned(domain.to_ascii_lowercase()));
    }
    idna::domain_to_ascii(domain).ok().filter(|domain| plain(domain)).map(Cow::Owned)
}

/// Which domains are meant.
struct Pattern {
    domain: String,
    itself: bool,
    below: bool,
}

impl Pattern {
    fn of(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (rest, itself, below) = match (text.strip_prefix("*."), text.strip_prefix('.')) {
            (Some(rest), _) => (rest, false, true),
            (None, Some(rest)) => (rest, true, true),
            (None, None) => (text, true, false),
        };
        match normal(rest) {
            Some(domain) => Ok(Self { domain: domain.into_owned(), itself, below }),
            None => Err(format!(
                "{} is no pattern: write \"example.com\", \"*.example.com\" for what is below it, or \".example.com\" for both",
                shown(text)
            )),
        }
    }

    fn matches(&self, domain: &str) -> bool {
        let rest = domain.strip_suffix(self.domain.as_str());
        rest.is_some_and(|rest| if rest.is_empty() { self.itself } else { self.below && rest.ends_with('.') })
    }
}
