//! Who a message's sender proved to be: what iprev, SPF, DKIM, DMARC and ARC came to, each in RFC 8601's words.
//!
//! Facts alone: `authenticate` finds them out, intake judges by them, scripts, payloads and traces show them. The names in
//! JSON are those that a script reads; they stay, and further ones may come (with a default, for what is on disk).
//! Standards: RFC 8601 §2.7 (results), RFC 7208 (SPF), RFC 6376 (DKIM), RFC 9989 (DMARC), RFC 8617 (ARC).

use serde::{Deserialize, Serialize};

/// What one check came to (RFC 8601 §2.7). `None` also stands where nothing was looked up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    #[default]
    None,
    Pass,
    Fail,
    SoftFail,
    Neutral,
    Policy,
    /// DNS did not answer: another time it may be otherwise.
    TempError,
    PermError,
}

impl Check {
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Pass,
        Self::Fail,
        Self::SoftFail,
        Self::Neutral,
        Self::Policy,
        Self::TempError,
        Self::PermError,
    ];

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
            Self::Policy => "policy",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }

    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|check| check.word() == word)
    }
}

/// All that was found out about the sender of one message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Authentication {
    pub iprev: Iprev,
    /// Of MAIL FROM; of the null sender, as if it were postmaster at the name of HELO (RFC 7208 §2.4).
    pub spf: Spf,
    pub spf_helo: Spf,
    /// One for each signature, in the order in which they stand.
    pub dkim: Vec<Dkim>,
    pub dmarc: Dmarc,
    pub arc: Arc,
    /// The client is one of `[authentication] trusted_forwarders`.
    pub trusted_forwarder: bool,
}

/// Whether the address has a name that leads back to it (RFC 8601 §3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Iprev {
    pub result: Check,
    /// The name; empty where none is confirmed.
    pub name: String,
}

/// Whether the domain lets this address send for it (RFC 7208).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spf {
    pub result: Check,
    pub domain: String,
    pub scope: Scope,
    /// Why it isn't a pass, in our words.
    pub reason: String,
}

/// Whose word is checked (RFC 7208 §2.3, §2.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    #[default]
    Mfrom,
    Helo,
}

/// One signature (RFC 6376).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dkim {
    pub result: Check,
    /// `d=`
    pub domain: String,
    /// `s=`
    pub selector: String,
    /// `i=`, empty where the signature has none.
    pub identity: String,
    /// As in `rsa-sha256`.
    pub algorithm: String,
    /// Whether its domain is that of From, as the author's domain would have them compared.
    pub aligned: bool,
    /// The start of `b=`, by which it is told from others of the same domain (RFC 6008).
    pub b: String,
    /// Why it isn't a pass, in our words.
    pub reason: String,
}

/// What the domain of From asks for, and whether the sender speaks for it (RFC 9989).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dmarc {
    pub result: Check,
    /// Of the one From; empty where it can't be read for sure, or nobody may speak for all there are.
    pub domain: String,
    /// What is asked for mail that fails: none, quarantine or reject; empty where the domain publishes nothing.
    pub policy: String,
    /// A pass of SPF is that of From's domain.
    pub aligned_spf: bool,
    /// A pass of DKIM is.
    pub aligned_dkim: bool,
    pub reason: String,
    /// Why the author isn't known for sure, in words that are ours alone; empty where it is.
    pub doubt: String,
}

/// What those say through whose hands it went (RFC 8617).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Arc {
    pub result: Check,
    /// Who sealed it, the first one first.
    pub chain: Vec<Seal>,
    /// All of the chain are `[authentication] trusted_sealers`, it holds, the first one saw DMARC pass, and the last one
    /// sealed the one From there is.
    pub trusted: bool,
    pub reason: String,
}

/// One of a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seal {
    pub domain: String,
    pub selector: String,
}

impl Authentication {
    /// Whether somebody who may speak for the domain of From sent it: SPF or DKIM passes for that domain. It is told for
    /// domains, too, that publish no policy, and so have no DMARC result.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.dmarc.result == Check::Pass || self.dmarc.aligned_spf || self.dmarc.aligned_dkim
    }

    /// Whether it may come to that another time: what DNS didn't answer for could speak for the author. Whoever sends chooses
    /// a domain of MAIL FROM and of a signature whose DNS is away; that of somebody else proves nothing, now or later.
    #[must_use]
    pub fn may_pass_later(&self) -> bool {
        let may_hold = |one: &Dkim| one.result == Check::TempError && one.aligned;
        let may_send = |one: &Spf, author: &str| {
            one.result == Check::TempError && !author.is_empty() && is_same_organisation(&one.domain, author)
        };
        match self.dmarc.result {
            Check::TempError => true,
            Check::Fail => false,
            _ => self.dkim.iter().any(may_hold) || may_send(&self.spf, &self.dmarc.domain),
        }
    }
}

/// By the public suffix list, which says it where no policy is published, and of a signature by itself; what DMARC comes to is
/// by the tree walk (RFC 9989 §4.10).
#[must_use]
pub fn is_same_organisation(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_lowercase(), other.to_lowercase());
    one == other || psl::domain_str(&one).is_some_and(|own| psl::domain_str(&other) == Some(own))
}

/// As JSON, one that several hold is written and read as if it were theirs alone.
pub(super) mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Authentication;

    // The signature is serde's.
    #[allow(clippy::ref_option)]
    pub fn serialize<S: Serializer>(auth: &Option<Arc<Authentication>>, to: S) -> Result<S::Ok, S::Error> {
        auth.as_deref().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<Authentication>>, D::Error> {
        Ok(Option::<Authentication>::deserialize(from)?.map(Arc::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_version_wrote_is_read() {
        let read: Authentication = serde_json::from_str(r#"{"spf":{"result":"softfail","new":1}}"#).unwrap();
        assert_eq!(read.spf.result, Check::SoftFail);
        assert_eq!(read.dmarc, Dmarc::default());
    }

    #[test]
    fn each_result_is_the_word_that_is_written() {
        for check in Check::ALL {
            assert_eq!(serde_json::to_value(check).unwrap(), check.word());
            assert_eq!(Check::of_word(check.word()), Some(check));
        }
    }

    #[test]
    fn who_speaks_for_the_author_has_passed_without_a_policy_too() {
        let mut auth = Authentication::default();
        assert!(!auth.passed());
        auth.dmarc.aligned_dkim = true;
        assert!(auth.passed());
        auth.dmarc = Dmarc { result: Check::Pass, ..Dmarc::default() };
        assert!(auth.passed());
    }
}
