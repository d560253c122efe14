//! Who is speaking: SPF and DKIM through mail-auth, which is confined to this module and `dns`.
//!
//! Says whether the envelope's sender is proved to have sent a message, so that a notice may go to it. A DNS that
//! doesn't answer is [`Proof::Unknown`], never a «no». Input: the session's facts, envelope and octets as received.
//! A signature vouches for the message and its author, not for the envelope: a user of the same domain can put
//! anybody's address there. So it proves the sender only where that is the author.
//! Standards: RFC 7208 (SPF, the MAIL FROM identity), RFC 6376 and 8463 (DKIM), aligned with the envelope's domain.

use std::time::Duration;

use bytes::Bytes;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{AuthenticatedMessage, DkimResult, Parameters, SpfResult};

use crate::dns::{Addresses4, Addresses6, Dns, Exchanges, Pointers, Texts};
use crate::mail::{Address, Client, Envelope, Message};

/// Signatures that are looked at; each costs a look-up and a hash of the body.
const MAX_SIGNATURES: usize = 10;
/// For all of it.
const DEADLINE: Duration = Duration::from_secs(30);

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
    hostname: &str,
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
    let caches = Caches::of(dns);
    let looked = tokio::time::timeout(DEADLINE, async {
        let spf = caches.spf(dns, hostname, client, sender).await;
        if spf == SpfResult::Pass {
            return Proof::Proved { by: format!("spf=pass smtp.mailfrom={}", sender.domain()) };
        }
        let dkim = if is_author(sender, message) && count_signatures(message.raw()) > 0 {
            match whole.await {
                Ok(raw) => caches.dkim(dns, sender, &raw).await,
                Err(why) => return Proof::Unknown { why: format!("the message can't be read: {why}") },
            }
        } else {
            Signed::No
        };
        match dkim {
            Signed::By(domain) => Proof::Proved { by: format!("dkim=pass header.d={domain}") },
            Signed::Unknown => Proof::Unknown { why: format!("DNS did not answer for the DKIM keys of {sender}") },
            Signed::No if spf == SpfResult::TempError => {
                Proof::Unknown { why: format!("DNS did not answer for the SPF record of {}", sender.domain()) }
            }
            Signed::No => Proof::NotProved { why: format!("{}, no DKIM signature of its own", spf_words(spf)) },
        }
    });
    looked.await.unwrap_or_else(|_| Proof::Unknown { why: format!("SPF and DKIM took longer than {DEADLINE:?}") })
}

/// A DKIM signature that verifies and whose domain is the sender's or above it.
enum Signed {
    By(String),
    Unknown,
    No,
}

/// What mail-auth is given beside the question: nothing, or a table's answers.
struct Caches(Option<(Texts, Exchanges, Addresses4, Addresses6, Pointers)>);

impl Caches {
    fn of(dns: &Dns) -> Self {
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

    async fn spf(&self, dns: &Dns, hostname: &str, client: &Client, sender: &Address) -> SpfResult {
        let helo = client.helo.as_deref().unwrap_or_default();
        let question = SpfParameters::verify_mail_from(client.ip.to_canonical(), helo, hostname, sender.as_str());
        dns.authenticator().check_host(self.parameters(question)).await.result()
    }

    async fn dkim(&self, dns: &Dns, sender: &Address, raw: &[u8]) -> Signed {
        // More signatures than a message has in earnest are work that somebody wants us to do.
        if count_signatures(raw) > MAX_SIGNATURES {
            return Signed::No;
        }
        let Some(message) = AuthenticatedMessage::parse(raw) else { return Signed::No };
        let results = dns.authenticator().verify_dkim(self.parameters(&message)).await;
        let mut unknown = false;
        for output in &results {
            let Some(signature) = output.signature() else { continue };
            // RFC 6376 §8.2: behind the part that `l=` signs anything may stand. §5.4: From is signed, or nobody's.
            let is_whole = signature.l == 0 && signature.h.iter().any(|name| name.eq_ignore_ascii_case("from"));
            if !is_whole || !is_aligned(&sender.domain_key(), &signature.d.to_ascii_lowercase()) {
                continue;
            }
            match output.result() {
                DkimResult::Pass => return Signed::By(signature.d.clone()),
                DkimResult::TempError(_) => unknown = true,
                _ => {}
            }
        }
        if unknown { Signed::Unknown } else { Signed::No }
    }
}

/// The one author (RFC 5322 §3.6.2) is the envelope's sender, to the letter: another mailbox of a domain that signs for
/// all its users is another person's.
fn is_author(sender: &Address, message: &Message) -> bool {
    let mut fields = message.headers().filter(|(name, _)| name.eq_ignore_ascii_case("from"));
    let (Some(_), None) = (fields.next(), fields.next()) else { return false };
    let authors = message.addresses("From");
    let [author] = authors.as_slice() else { return false };
    let author = author.address.as_deref().and_then(|address| Address::parse(address).ok());
    author.is_some_and(|author| {
        author.unquoted_local() == sender.unquoted_local() && author.domain_key() == sender.domain_key()
    })
}

/// The signer is the sender's domain or one above it that isn't a top-level domain.
fn is_aligned(sender: &str, signer: &str) -> bool {
    let above = sender.strip_suffix(signer).is_some_and(|rest| rest.ends_with('.'));
    signer.contains('.') && (sender == signer || above)
}

fn count_signatures(raw: &[u8]) -> usize {
    let mut fields = 0;
    for line in raw.split(|octet| *octet == b'\n') {
        if matches!(line, [] | b"\r") {
            break;
        }
        let name = line.get(..15).unwrap_or_default();
        fields += usize::from(name.eq_ignore_ascii_case(b"dkim-signature:"));
    }
    fields
}

/// As RFC 8601 §2.7.2 spells it.
fn spf_words(result: SpfResult) -> &'static str {
    match result {
        SpfResult::Pass => "spf=pass",
        SpfResult::Fail => "spf=fail",
        SpfResult::SoftFail => "spf=softfail",
        SpfResult::Neutral => "spf=neutral",
        SpfResult::TempError => "spf=temperror",
        SpfResult::PermError => "spf=permerror",
        SpfResult::None => "spf=none",
    }
}

#[cfg(test)]
mod tests;
