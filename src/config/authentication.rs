//! `[authentication]`: whose mail is looked into, what becomes of mail that fails, and who is believed.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

/// Loopback, private and link-local networks, those that providers share (RFC 1918, RFC 6598, RFC 4193).
const OWN: [&str; 9] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

/// `[authentication]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// Networks whose clients are not looked into: no look-ups, no policy, no field of ours.
    pub skip: Vec<IpNet>,
    /// For all look-ups of a message's signatures, and for those of its author's policy; for those of the client and the
    /// sender, from their beginning.
    pub timeout: Duration,
    /// Clients that forward others' mail, which may break SPF and DKIM: no policy is applied to theirs.
    pub trusted_forwarders: Vec<IpNet>,
    /// Domains whose ARC seals are believed.
    pub trusted_sealers: Vec<String>,
    /// Where a domain says nothing of its own.
    pub policy: Policy,
}

/// What becomes of mail that fails; of each domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// It fails DMARC, and the domain of From publishes `p=reject`.
    pub dmarc_reject: Consequence,
    /// The same with `p=quarantine`.
    pub dmarc_quarantine: Consequence,
    /// SPF says `-all`, and nothing else speaks for the domain of From.
    pub spf_fail: Consequence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Consequence {
    /// The worker decides.
    Accept,
    Quarantine,
    Reject,
}

impl Authentication {
    /// Whether this client's mail is looked into.
    #[must_use]
    pub fn concerns(&self, ip: IpAddr) -> bool {
        !self.skip.iter().any(|network| network.contains(&ip))
    }

    #[must_use]
    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted_forwarders.iter().any(|network| network.contains(&ip))
    }
}

impl Default for Authentication {
    fn default() -> Self {
        Self {
            skip: OWN.iter().filter_map(|network| network.parse().ok()).collect(),
            timeout: Duration::from_secs(10),
            trusted_forwarders: Vec::new(),
            trusted_sealers: Vec::new(),
            policy: Policy::default(),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            dmarc_reject: Consequence::Reject,
            dmarc_quarantine: Consequence::Quarantine,
            spf_fail: Consequence::Accept,
        }
    }
}
