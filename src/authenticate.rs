//! Who is speaking: iprev and SPF when the sender is known, DKIM, ARC and DMARC when the message is there.
//!
//! mail-auth is confined to this module and `dns`. Every wait has an end ([`Patience`]), and a DNS that doesn't answer is
//! `temperror`, never a «no». Input: the session's facts, envelope and octets as received. Output: an
//! [`Authentication`], by which intake judges; and whether the envelope's sender is proved, so that a notice may go to it,
//! where that wasn't found out when the message came.
//! A signature vouches for the message and its author, not for the envelope: a user of the same domain can put
//! anybody's address there. So it proves the sender only where that is the author.
//! Standards: RFC 8601 §3 (iprev), RFC 7208 (SPF), RFC 6376 and 8463 (DKIM), RFC 8617 (ARC), RFC 9989 (DMARC:
//! its tree walk through DNS, not the public suffix list of RFC 7489).

mod authors;
mod header;
mod letter;
mod spf;
mod tags;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use mail_auth::Parameters;

use crate::clock::Instant;
use crate::dns::{Addresses4, Addresses6, Dns, Exchanges, LookupError, Pointers, Texts};
use crate::mail::authentication::{Check, Iprev, Scope, Spf};
use crate::mail::{Address, Authentication, Client, Envelope, Message};
pub use header::Header;
use letter::Letter;
pub use letter::{Proofs, proofs};

/// For all of it.
const DEADLINE: Duration = Duration::from_secs(30);

/// Names of one address that are followed (RFC 8601 §3, as RFC 7208 §5.5 bounds them).
const MAX_NAMES: usize = 5;
/// Octets of what a peer or its DNS says that are kept.
const MAX_SAID: usize = 255;

/// How long something may take, from its beginning on.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    until: Instant,
    whole: Duration,
}

impl Patience {
    /// From now on.
    #[must_use]
    pub fn new(whole: Duration) -> Self {
        Self { until: Instant::now() + whole, whole }
    }

    /// As long, from now on.
    fn anew(self) -> Self {
        Self::new(self.whole)
    }

    async fn wait<T>(self, what: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.until, what).await.ok()
    }

    fn exceeded(self) -> String {
        format!("DNS did not answer within {:?}", self.whole)
    }
}

/// One line of it, and not too much.
fn clipped(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(MAX_SAID).collect()
}

/// The name of an address that leads back to it.
pub async fn iprev(dns: &Dns, ip: std::net::IpAddr, patience: Patience) -> Iprev {
    let looked = patience.wait(async {
        let mut names = dns.names(ip).await?;
        names.truncate(MAX_NAMES);
        let found = join_all(names.iter().map(|name| dns.addresses_like(name, ip))).await;
        let leads_back = |found: &&Result<Vec<_>, LookupError>| found.as_ref().is_ok_and(|found| found.contains(&ip));
        if let Some((name, _)) = names.iter().zip(&found).find(|(_, found)| leads_back(found)) {
            return Ok(Iprev { result: Check::Pass, name: clipped(name) });
        }
        if let Some(Err(error @ LookupError::Temporary { .. })) =
            found.into_iter().find(|found| matches!(found, Err(LookupError::Temporary { .. })))
        {
            return Err(error);
        }
        // RFC 8601 §2.7.3: without a name there is nothing that could fail.
        let result = if names.is_empty() { Check::PermError } else { Check::Fail };
        Ok(Iprev { result, name: String::new() })
    });
    match looked.await {
        Some(Ok(found)) => found,
        Some(Err(_)) | None => Iprev { result: Check::TempError, name: String::new() },
    }
}

/// Whether the client may call itself so (RFC 7208 §2.3).
pub async fn spf_of_helo(dns: &Dns, client: &Client, patience: Patience) -> Spf {
    let helo = client.helo.as_deref().unwrap_or_default();
    let sender = format!("postmaster@{helo}");
    spf(dns, client, (Scope::Helo, helo, &sender), patience).await
}

/// Whether it may send for the envelope's domain; for the null sender, for its own (RFC 7208 §2.4).
pub async fn spf_of_sender(dns: &Dns, client: &Client, sender: Option<&Address>, patience: Patience) -> Spf {
    let helo = client.helo.as_deref().unwrap_or_default();
    match sender {
        Some(sender) => spf(dns, client, (Scope::Mfrom, &sender.domain_key(), sender.as_str()), patience).await,
        None => spf(dns, client, (Scope::Mfrom, helo, &format!("postmaster@{helo}")), patience).await,
    }
}

async fn spf(dns: &Dns, client: &Client, (scope, domain, sender): (Scope, &str, &str), patience: Patience) -> Spf {
    let helo = client.helo.as_deref().unwrap_or_default();
    let asked = spf::Asked { ip: client.ip.to_canonical(), sender, domain, helo, names_within: patience.whole / 4 };
    let answer = patience.wait(spf::check_host(dns, &asked)).await;
    let answer = answer.unwrap_or_else(|| spf::Answer { result: Check::TempError, reason: patience.exceeded() });
    Spf { result: answer.result, domain: clipped(domain), scope, reason: clipped(&answer.reason) }
}

/// Whether a notice to the sender would reach the one who sent the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// As in `spf=pass smtp.mailfrom=example.com`.
    Proved {
        by: String,
    },
    NotProved {
        why: String,
    },
    /// DNS did not answer: ask again.
    Unknown {
        why: String,
    },
}

/// Whether SPF vouches for the envelope's sender, or a DKIM signature of its domain for the sender as the author.
/// `message` has its header at least; `whole` gives all its octets, which only a signature needs.
pub async fn sender_is_proved(
    dns: &Dns,
    client: Option<&Client>,
    envelope: &Envelope,
    (message, whole): (&Message, impl Future<Output = Result<Bytes, String>>),
) -> Proof {
    let Some(sender) = &envelope.sender else {
        return Proof::NotProved { why: "the null sender proves nobody".to_owned() };
    };
    let Some(client) = client else {
        return Proof::NotProved { why: "the message came over no session".to_owned() };
    };
    if let Some(proof) = client.auth.as_deref().and_then(|auth| proof_at_arrival(auth, sender, message)) {
        return proof;
    }
    let looked = tokio::time::timeout(DEADLINE, async {
        let spf = spf_of_sender(dns, client, Some(sender), Patience::new(DEADLINE)).await.result;
        if spf == Check::Pass {
            return Proof::Proved { by: format!("spf=pass smtp.mailfrom={}", sender.domain()) };
        }
        let dkim = if message.is_by(sender) && message.has_header("DKIM-Signature") {
            match whole.await {
                Ok(raw) => signed(dns, sender, raw).await,
                Err(why) => return Proof::Unknown { why: format!("the message can't be read: {why}") },
            }
        } else {
            Signed::No
        };
        match dkim {
            Signed::By(domain) => Proof::Proved { by: format!("dkim=pass header.d={domain}") },
            Signed::Unknown => Proof::Unknown { why: format!("DNS did not answer for the DKIM keys of {sender}") },
            Signed::No if spf == Check::TempError => {
                Proof::Unknown { why: format!("DNS did not answer for the SPF record of {}", sender.domain()) }
            }
            Signed::No => Proof::NotProved { why: format!("spf={}, no DKIM signature of its own", spf.word()) },
        }
    });
    looked.await.unwrap_or_else(|_| Proof::Unknown { why: format!("SPF and DKIM took longer than {DEADLINE:?}") })
}

/// What was found out when the message came; `None` where DNS didn't answer then, so that it has to be asked again.
fn proof_at_arrival(auth: &Authentication, sender: &Address, message: &Message) -> Option<Proof> {
    if auth.spf.result == Check::Pass {
        return Some(Proof::Proved { by: format!("spf=pass smtp.mailfrom={}", sender.domain()) });
    }
    let own = |signature: &&crate::mail::authentication::Dkim| is_aligned(&sender.domain_key(), &signature.domain);
    if message.is_by(sender) {
        if let Some(signature) = auth.dkim.iter().filter(own).find(|signature| signature.result == Check::Pass) {
            return Some(Proof::Proved { by: format!("dkim=pass header.d={}", signature.domain) });
        }
        if auth.dkim.iter().filter(own).any(|signature| signature.result == Check::TempError) {
            return None;
        }
    }
    let why = format!("spf={}, no DKIM signature of its own", auth.spf.result.word());
    (auth.spf.result != Check::TempError).then_some(Proof::NotProved { why })
}

/// A DKIM signature that verifies and whose domain is the sender's or above it.
enum Signed {
    By(String),
    Unknown,
    No,
}

/// What mail-auth is given beside the question: nothing, or a table's answers.
pub struct Caches(Option<(Texts, Exchanges, Addresses4, Addresses6, Pointers)>);

impl Caches {
    #[must_use]
    pub fn of(dns: &Dns) -> Self {
        Self(
            dns.known().map(|table| {
                (table.texts(), table.exchanges(), table.addresses4(), table.addresses6(), table.pointers())
            }),
        )
    }

    fn parameters<P>(&self, params: P) -> Parameters<'_, P, Texts, Exchanges, Addresses4, Addresses6, Pointers> {
        let known = self.0.as_ref();
        Parameters {
            params,
            cache_txt: known.map(|shelves| &shelves.0),
            cache_mx: known.map(|shelves| &shelves.1),
            cache_ptr: known.map(|shelves| &shelves.4),
            cache_ipv4: known.map(|shelves| &shelves.2),
            cache_ipv6: known.map(|shelves| &shelves.3),
        }
    }
}

/// Whether a signature of the sender's domain holds; From is signed, or it is nobody's (RFC 6376 §5.4).
async fn signed(dns: &Dns, sender: &Address, raw: Bytes) -> Signed {
    let Ok(header) = Header::of(&Arc::new(Message::new(raw))).await else { return Signed::Unknown };
    if !header.has_one_author() {
        return Signed::No;
    }
    let (letter, caches) = (Letter::of(&header), Caches::of(dns));
    let each = letter.signed();
    let results = letter.dkim(dns, &caches, &each, Patience::new(DEADLINE)).await;
    let own = || results.iter().filter(|(_, one)| is_aligned(&sender.domain_key(), &one.domain));
    if let Some((_, pass)) = own().find(|(_, one)| one.result == Check::Pass) {
        return Signed::By(pass.domain.clone());
    }
    if own().any(|(_, one)| one.result == Check::TempError) { Signed::Unknown } else { Signed::No }
}

/// The signer is the sender's domain or one above it that isn't a top-level domain.
fn is_aligned(sender: &str, signer: &str) -> bool {
    let above = sender.strip_suffix(signer).is_some_and(|rest| rest.ends_with('.'));
    signer.contains('.') && (sender == signer || above)
}

#[cfg(test)]
mod tests;
