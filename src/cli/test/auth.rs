//! `auth` of a test: what is known of the sender, instead of looking it up.
//!
//! `auth.spf = "pass"` says a result and leaves the rest as it would be for this message; `auth.dmarc = { result = "fail",
//! policy = "reject" }` says more. What isn't named is `none`, as for a client that nobody looks into.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, SeqAccess, Visitor};

use crate::config::document::{Leaf, Parsed};
use crate::mail::authentication::{self, Authentication, Check, Scope, Seal};
use crate::mail::{Address, Client, Message};

/// As it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    pub iprev: Option<Said<Iprev>>,
    pub spf: Option<Said<Spf>>,
    pub spf_helo: Option<Said<Spf>>,
    pub dkim: Option<Signatures>,
    pub dmarc: Option<Said<Dmarc>>,
    pub arc: Option<Said<Sealed>>,
    #[serde(default)]
    pub trusted_forwarder: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Iprev {
    pub result: Option<Parsed<Result>>,
    pub name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spf {
    pub result: Option<Parsed<Result>>,
    pub domain: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    pub result: Option<Parsed<Result>>,
    pub domain: Option<String>,
    pub selector: Option<String>,
    pub identity: Option<String>,
    pub algorithm: Option<String>,
    pub aligned: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dmarc {
    pub result: Option<Parsed<Result>>,
    pub domain: Option<String>,
    pub policy: Option<Parsed<Policy>>,
    pub aligned_spf: Option<bool>,
    pub aligned_dkim: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    pub result: Option<Parsed<Result>>,
    /// The domains that sealed it, the first one first.
    #[serde(default)]
    pub chain: Vec<String>,
    #[serde(default)]
    pub trusted: bool,
}

/// A word of RFC 8601.
#[derive(Debug, Clone, Copy)]
pub struct Result(pub Check);

impl Leaf for Result {
    const WHAT: &'static str = "a result, such as \"pass\"";
    const EXAMPLE: &'static str = "pass";
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let words = Check::ALL.map(Check::word).join(", ");
        Check::of_word(text).map(Self).ok_or_else(|| format!("this is no result\nthe words are {words}"))
    }
}

/// What a domain asks for.
#[derive(Debug)]
pub struct Policy(pub String);

impl Leaf for Policy {
    const WHAT: &'static str = "none, quarantine or reject";
    const EXAMPLE: &'static str = "reject";
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let known = ["none", "quarantine", "reject"].contains(&text);
        known.then(|| Self(text.to_owned())).ok_or_else(|| "a policy is none, quarantine or reject".to_owned())
    }
}

/// What can be said by its result alone.
pub trait ByResult: Default {
    fn of(result: Check) -> Self;
}

macro_rules! by_result {
    ($($said:ty),*) => {
        $(impl ByResult for $said {
            fn of(result: Check) -> Self {
                Self { result: Some(Parsed(Result(result))), ..Self::default() }
            }
        })*
    };
}
by_result!(Iprev, Spf, Signature, Dmarc, Sealed);

/// A result, or a table.
#[derive(Debug)]
pub struct Said<T>(pub T);

impl<'de, T: ByResult + DeserializeOwned> Deserialize<'de> for Said<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct SaidVisitor<T>(PhantomData<T>);
        impl<'de, T: ByResult + DeserializeOwned> Visitor<'de> for SaidVisitor<T> {
            type Value = Said<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a result such as \"pass\", or a table with `result`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Said<T>, E> {
                Result::parse(text).map(|result| Said(T::of(result.0))).map_err(E::custom)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> std::result::Result<Said<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(Said)
            }
        }
        deserializer.deserialize_any(SaidVisitor(PhantomData))
    }
}

/// One or several.
#[derive(Debug)]
pub struct Signatures(pub Vec<Said<Signature>>);

impl<'de> Deserialize<'de> for Signatures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct SignaturesVisitor;
        impl<'de> Visitor<'de> for SignaturesVisitor {
            type Value = Signatures;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a result such as \"pass\", a table with `result`, or a list of them")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Signatures, E> {
                let result = Result::parse(text).map_err(E::custom)?;
                Ok(Signatures(vec![Said(Signature::of(result.0))]))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> std::result::Result<Signatures, A::Error> {
                let one = Signature::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Signatures(vec![Said(one)]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Signatures, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(Signatures(all))
            }
        }
        deserializer.deserialize_any(SignaturesVisitor)
    }
}

/// Whose domains stand where a test names none.
pub struct Speaker {
    helo: String,
    name: String,
    /// Of MAIL FROM; of the null sender, of EHLO (RFC 7208 §2.4).
    sender: String,
    /// Of From.
    author: String,
}

impl Speaker {
    pub fn of(raw: &Bytes, sender: Option<&Address>, client: &Client) -> Self {
        let author = Message::new(raw.clone()).header_from().and_then(|from| Address::parse(&from).ok());
        let helo = client.helo.clone().unwrap_or_default();
        Self {
            name: client.ptr.clone().unwrap_or_default(),
            sender: sender.map_or_else(|| helo.clone(), Address::domain_key),
            author: author.as_ref().map(Address::domain_key).unwrap_or_default(),
            helo,
        }
    }
}

impl Auth {
    /// What it comes to for the mail of this speaker.
    pub fn found(self, speaker: &Speaker) -> Arc<Authentication> {
        let iprev = self.iprev.map(|Said(iprev)| authentication::Iprev {
            result: check(iprev.result),
            name: iprev.name.unwrap_or_else(|| speaker.name.clone()),
        });
        let dkim: Vec<_> = self.dkim.map(|all| all.0).unwrap_or_default();
        let dkim: Vec<_> = dkim.into_iter().map(|Said(signature)| signature.found(&speaker.author)).collect();
        let spf = self.spf.map(|Said(spf)| spf.found(Scope::Mfrom, &speaker.sender)).unwrap_or_default();
        let dmarc = self.dmarc.map(|Said(dmarc)| dmarc.found(&speaker.author, &spf, &dkim)).unwrap_or_default();
        Arc::new(Authentication {
            iprev: iprev.unwrap_or_default(),
            spf,
            spf_helo: self.spf_helo.map(|Said(spf)| spf.found(Scope::Helo, &speaker.helo)).unwrap_or_default(),
            dkim,
            dmarc,
            arc: self.arc.map(|Said(arc)| arc.found()).unwrap_or_default(),
            trusted_forwarder: self.trusted_forwarder,
        })
    }
}

fn check(said: Option<Parsed<Result>>) -> Check {
    said.map(|Parsed(Result(check))| check).unwrap_or_default()
}

impl Spf {
    fn found(self, scope: Scope, domain: &str) -> authentication::Spf {
        let domain = self.domain.unwrap_or_else(|| domain.to_owned());
        authentication::Spf { result: check(self.result), domain, scope, reason: String::new() }
    }
}

impl Signature {
    fn found(self, author: &str) -> authentication::Dkim {
        let domain = self.domain.unwrap_or_else(|| author.to_owned());
        authentication::Dkim {
            result: check(self.result),
            selector: self.selector.unwrap_or_else(|| "mail".to_owned()),
            identity: self.identity.unwrap_or_default(),
            algorithm: self.algorithm.unwrap_or_else(|| "rsa-sha256".to_owned()),
            aligned: self.aligned.unwrap_or_else(|| domain.eq_ignore_ascii_case(author)),
            b: String::new(),
            reason: String::new(),
            domain,
        }
    }
}

impl Dmarc {
    /// A pass stands on SPF or DKIM, where a test doesn't say which.
    fn found(self, author: &str, spf: &authentication::Spf, dkim: &[authentication::Dkim]) -> authentication::Dmarc {
        let result = check(self.result);
        let passes = result == Check::Pass;
        let signed = dkim.iter().any(|signature| signature.result == Check::Pass && signature.aligned);
        let sent = spf.result == Check::Pass && spf.domain.eq_ignore_ascii_case(author);
        authentication::Dmarc {
            result,
            domain: self.domain.unwrap_or_else(|| author.to_owned()),
            policy: self.policy.map_or_else(|| "none".to_owned(), |Parsed(Policy(policy))| policy),
            aligned_spf: self.aligned_spf.unwrap_or(passes && (sent || !signed)),
            aligned_dkim: self.aligned_dkim.unwrap_or(passes && signed),
            reason: String::new(),
            doubt: String::new(),
        }
    }
}

impl Sealed {
    fn found(self) -> authentication::Arc {
        let seal = |domain| Seal { domain, selector: "arc".to_owned() };
        authentication::Arc {
            result: check(self.result),
            chain: self.chain.into_iter().map(seal).collect(),
            trusted: self.trusted,
            reason: String::new(),
        }
    }
}
