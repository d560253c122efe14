//! What the message itself proves: DKIM, ARC and, with SPF, DMARC, through mail-auth.
//!
//! Each signature is verified by itself and all at once, so that one whose key nobody serves holds up no other.
//! Bounds: so many signatures, seals and domains of From; a body is hashed once for each of the four ways there are
//! (mail-auth takes no `l=`, RFC 6376 §8.2). The caller bounds the time.
//! Standards: RFC 6376, RFC 8301 (algorithms), RFC 8463 (ed25519), RFC 8617 (ARC), RFC 9989 (DMARC), RFC 8601 §2.7.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use mail_auth::common::crypto::{Algorithm, HashAlgorithm};
use mail_auth::dkim::{Canonicalization, DkimError};
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::dmarc::{Alignment, Policy};
use mail_auth::{
    ArcOutput, AuthenticatedMessage, DkimOutput, DkimResult, DmarcOutput, DmarcResult, Error, SpfOutput, SpfResult,
};

use super::{Caches, Patience, clipped};
use crate::clock::Instant;
use crate::dns::Dns;
use crate::mail::authentication::{self, Check, Seal, Spf};

/// Signatures that are verified; each costs a look-up and a public key operation.
const MAX_SIGNATURES: usize = 10;
/// Seals of a chain (RFC 8617 §4.2.1 allows 50); each costs the same.
const MAX_SEALS: usize = 10;
/// Domains of From that are judged; nobody writes from more.
const MAX_AUTHORS: usize = 5;

/// What is looked into.
struct Letter<'a> {
    message: AuthenticatedMessage<'a>,
    /// Signatures that can't be read, and why.
    unread: Vec<Error>,
    too_many: bool,
    chain_too_long: bool,
}

/// The header of a message, and what its body hashes to: all that has to be known to look into it.
#[derive(Default)]
pub struct Header {
    octets: Bytes,
    hashes: Hashes,
}

type Hashes = Vec<(Canonicalization, HashAlgorithm, u64, Vec<u8>)>;

impl Header {
    /// Hashes the body, as the signatures would have it: for a large message this takes its time.
    #[must_use]
    pub fn read(raw: &Bytes) -> Self {
        let Some(message) = AuthenticatedMessage::parse(raw) else {
            return Self { octets: Bytes::new(), hashes: Vec::new() };
        };
        let octets = raw.get(..message.body_offset()).unwrap_or(raw);
        Self { octets: Bytes::copy_from_slice(octets), hashes: message.body_hashes }
    }
}

/// All that a message proves, each with the time it took.
#[derive(Debug, Default)]
pub struct Proofs {
    pub dkim: Vec<authentication::Dkim>,
    pub arc: authentication::Arc,
    pub dmarc: authentication::Dmarc,
    pub dkim_took: Duration,
    pub arc_took: Duration,
    pub dmarc_took: Duration,
}

/// Looks into it. `sealers`: the domains whose seals are believed.
pub async fn proofs(dns: &Dns, header: &Header, spf: &Spf, sealers: &[String], patience: Patience) -> Proofs {
    let (letter, caches) = (Letter::of(header), Caches::of(dns));
    let signed = letter.signed();
    let ((mut dkim, dkim_took), (mut arc, arc_took)) =
        tokio::join!(timed(letter.dkim(dns, &caches, &signed, patience)), timed(letter.arc(dns, &caches, patience)),);
    let is_trusted = |seal: &Seal| sealers.iter().any(|sealer| super::is_aligned(&seal.domain, sealer));
    arc.trusted = arc.result == Check::Pass && arc.chain.iter().all(is_trusted) && letter.first_seal_saw_a_pass();
    let (dmarc, dmarc_took) = timed(letter.dmarc(dns, &caches, spf, &mut dkim, patience)).await;
    let dkim = dkim.into_iter().map(|(_, signature)| signature).collect();
    Proofs { dkim, arc, dmarc, dkim_took, arc_took, dmarc_took }
}

async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    (what.await, began.elapsed())
}

impl<'a> Letter<'a> {
    fn of(header: &'a Header) -> Self {
        let mut message = AuthenticatedMessage::parse(&header.octets).unwrap_or_default();
        message.body_hashes.clone_from(&header.hashes);
        let too_many = message.dkim_headers.len() > MAX_SIGNATURES;
        message.dkim_headers.truncate(MAX_SIGNATURES);
        let chain_too_long = message.ams_headers.len() > MAX_SEALS || message.as_headers.len() > MAX_SEALS;
        if chain_too_long {
            message.ams_headers.clear();
            message.as_headers.clear();
            message.aar_headers.clear();
        }
        let is_dkims = |error: &&Error| matches!(error, Error::Dkim(_));
        let unread = message.errors.iter().map(|header| &header.header).filter(is_dkims).take(MAX_SIGNATURES);
        let unread = unread.cloned().collect();
        Self { message, unread, too_many, chain_too_long }
    }

    /// The same message with one signature each.
    fn signed(&self) -> Vec<AuthenticatedMessage<'a>> {
        let one = |at: usize| {
            let mut one = AuthenticatedMessage {
                headers: self.message.headers.clone(),
                from: self.message.from.clone(),
                body_hashes: self.message.body_hashes.clone(),
                ..AuthenticatedMessage::default()
            };
            one.dkim_headers.extend(self.message.dkim_headers.get(at).cloned());
            one
        };
        (0..self.message.dkim_headers.len()).map(one).collect()
    }

    /// Whether each signature holds, in their order.
    async fn dkim<'x>(
        &self,
        dns: &Dns,
        caches: &'x Caches,
        signed: &'x [AuthenticatedMessage<'x>],
        patience: Patience,
    ) -> Vec<(Option<DkimOutput<'x>>, authentication::Dkim)> {
        let verify = |one: &'x AuthenticatedMessage<'x>| async move {
            let verified = patience.wait(dns.authenticator().verify_dkim(caches.parameters(one))).await;
            let output = verified.and_then(|outputs| outputs.into_iter().next());
            let mut found = named(one);
            let Some(output) = output else {
                (found.result, found.reason) = (Check::TempError, patience.exceeded());
                return (None, found);
            };
            (found.result, found.reason) = judged(&output);
            // Only what holds, or may hold another time, says anything of the author.
            let counts = matches!(found.result, Check::Pass | Check::TempError);
            (counts.then_some(output), found)
        };
        let mut all = join_all(signed.iter().map(verify)).await;
        let unread = |error: &Error| {
            let result = if *error == Error::Dkim(DkimError::SignatureLength) { Check::Policy } else { Check::Neutral };
            (None, authentication::Dkim { result, reason: error.to_string(), ..Default::default() })
        };
        all.extend(self.unread.iter().map(unread));
        if self.too_many {
            let reason = format!("signatures beyond the first {MAX_SIGNATURES} are not looked at");
            all.push((None, authentication::Dkim { result: Check::Policy, reason, ..Default::default() }));
        }
        all
    }

    /// Whether the chain holds.
    async fn arc(&self, dns: &Dns, caches: &Caches, patience: Patience) -> authentication::Arc {
        if self.chain_too_long {
            let reason = format!("more than {MAX_SEALS} have sealed it");
            return authentication::Arc { result: Check::Fail, reason, ..Default::default() };
        }
        let verified = patience.wait(dns.authenticator().verify_arc(caches.parameters(&self.message))).await;
        verified.map_or_else(
            || authentication::Arc { result: Check::TempError, reason: patience.exceeded(), ..Default::default() },
            |output| chain(&output),
        )
    }

    /// Whether what the first of the chain saw was a pass of DMARC, in its own words.
    fn first_seal_saw_a_pass(&self) -> bool {
        let first = self.message.aar_headers.iter().find(|results| results.header.i == 1);
        first.is_some_and(|results| crate::mail::results::says(results.value, "dmarc", "pass"))
    }

    /// Whether somebody who may speak for it sent it. Of several domains in From, the one that fares worst.
    async fn dmarc(
        &self,
        dns: &Dns,
        caches: &Caches,
        spf: &Spf,
        dkim: &mut [(Option<DkimOutput<'_>>, authentication::Dkim)],
        patience: Patience,
    ) -> authentication::Dmarc {
        let authors = self.authors();
        if authors.len() > MAX_AUTHORS {
            let reason = format!("it is from more than {MAX_AUTHORS} domains");
            return authentication::Dmarc {
                result: Check::Fail,
                policy: "reject".into(),
                reason,
                ..Default::default()
            };
        }
        let outputs: Vec<DkimOutput<'_>> = dkim.iter().filter_map(|(output, _)| output.clone()).collect();
        let mut worst: Option<authentication::Dmarc> = None;
        for (domain, address) in &authors {
            let message = AuthenticatedMessage { from: vec![address.clone()], ..AuthenticatedMessage::default() };
            let question = DmarcParameters {
                message: &message,
                dkim_output: &outputs,
                dkim2_output: None,
                rfc5321_mail_from_domain: &spf.domain,
                spf_output: &SpfOutput::new(spf.domain.clone()).with_result(spf_result(spf.result)),
            };
            let found = match patience.wait(dns.authenticator().verify_dmarc(caches.parameters(question))).await {
                Some(output) => author(&output, domain, spf, dkim),
                None => authentication::Dmarc {
                    result: Check::TempError,
                    domain: clipped(domain),
                    reason: patience.exceeded(),
                    ..Default::default()
                },
            };
            worst = match worst {
                Some(worst) if badness(&worst) >= badness(&found) => Some(worst),
                _ => Some(found),
            };
        }
        let mut worst = worst.unwrap_or_default();
        if authors.len() > 1 {
            // Nobody speaks for all of them at once.
            (worst.aligned_spf, worst.aligned_dkim) = (false, false);
            for (_, signature) in dkim.iter_mut() {
                signature.aligned = false;
            }
        }
        worst
    }

    /// The domains of From, each once, with an address there.
    fn authors(&self) -> Vec<(String, String)> {
        let mut authors: Vec<(String, String)> = Vec::new();
        for address in &self.message.from {
            let Some((_, domain)) = address.rsplit_once('@') else { continue };
            let domain = crate::mail::address::domain_key(domain);
            if authors.len() <= MAX_AUTHORS && !authors.iter().any(|(known, _)| *known == domain) {
                authors.push((domain, address.clone()));
            }
        }
        authors
    }
}

/// Who signed, whatever it is worth.
fn named(one: &AuthenticatedMessage<'_>) -> authentication::Dkim {
    let Some(signature) = one.dkim_headers.first().map(|header| &header.header) else {
        return authentication::Dkim::default();
    };
    let algorithm = match signature.a {
        Algorithm::RsaSha1 => "rsa-sha1",
        Algorithm::RsaSha256 => "rsa-sha256",
        Algorithm::Ed25519Sha256 => "ed25519-sha256",
    };
    authentication::Dkim {
        domain: clipped(&signature.d.to_lowercase()),
        selector: clipped(&signature.s),
        identity: clipped(&signature.i),
        algorithm: algorithm.to_owned(),
        b: STANDARD.encode(signature.b.get(..6).unwrap_or(&signature.b)),
        ..Default::default()
    }
}

/// RFC 8601 §2.7.1
fn judged(output: &DkimOutput<'_>) -> (Check, String) {
    let Some(signature) = output.signature() else { return (Check::Neutral, "it can't be read".to_owned()) };
    // RFC 6376 §5.4: a signature that doesn't hold From is nobody's word on the author.
    if !signature.h.iter().any(|name| name.eq_ignore_ascii_case("from")) {
        return (Check::PermError, "From is not signed".to_owned());
    }
    // RFC 8301 §3.1
    if signature.a == Algorithm::RsaSha1 {
        return (Check::Policy, "rsa-sha1 proves nothing any more".to_owned());
    }
    result(output.result())
}

fn result(result: &DkimResult) -> (Check, String) {
    match result {
        DkimResult::Pass => (Check::Pass, String::new()),
        DkimResult::None => (Check::None, String::new()),
        DkimResult::Neutral(
            error @ (Error::Dkim(DkimError::FailedBodyHashMatch | DkimError::SignatureExpired) | Error::Arc(_)),
        )
        | DkimResult::Fail(error) => (Check::Fail, clipped(&error.to_string())),
        DkimResult::Neutral(error) => (Check::Neutral, clipped(&error.to_string())),
        DkimResult::PermError(error) => (Check::PermError, clipped(&error.to_string())),
        DkimResult::TempError(error) => (Check::TempError, clipped(&error.to_string())),
    }
}

fn chain(output: &ArcOutput<'_>) -> authentication::Arc {
    let (result, reason) = result(output.result());
    // RFC 8617 §5.2 knows no other way to be wrong.
    let is_known = matches!(result, Check::None | Check::Pass | Check::TempError);
    let result = if is_known { result } else { Check::Fail };
    let seal = |set: &mail_auth::arc::Set<'_>| Seal {
        domain: clipped(&set.seal.header.d.to_lowercase()),
        selector: clipped(&set.seal.header.s),
    };
    authentication::Arc { result, chain: output.sets().iter().map(seal).collect(), trusted: false, reason }
}

/// What mail-auth says of one author's domain, and whose word speaks for it.
fn author(
    output: &DmarcOutput,
    domain: &str,
    spf: &Spf,
    dkim: &mut [(Option<DkimOutput<'_>>, authentication::Dkim)],
) -> authentication::Dmarc {
    let record = output.dmarc_record();
    let is_strict = |alignment: Option<Alignment>| alignment == Some(Alignment::Strict);
    let speaks = |other: &str, strict: bool| if strict { other == domain } else { is_same_organisation(other, domain) };
    let strict = is_strict(record.map(|record| record.adkim));
    for (_, signature) in dkim.iter_mut() {
        signature.aligned = speaks(&signature.domain, strict);
    }
    let (result, reason) = match output.result() {
        DmarcResult::Pass => (Check::Pass, String::new()),
        DmarcResult::None => (Check::None, String::new()),
        DmarcResult::Fail(_) => (Check::Fail, "neither SPF nor DKIM passes for its domain".to_owned()),
        DmarcResult::TempError(error) => (Check::TempError, clipped(&error.to_string())),
        DmarcResult::PermError(error) => (Check::PermError, clipped(&error.to_string())),
    };
    let (aligned_spf, aligned_dkim) = if record.is_some() {
        (*output.spf_result() == DmarcResult::Pass, *output.dkim_result() == DmarcResult::Pass)
    } else {
        // Where nothing is published, what has the same organisational domain speaks for it.
        let signed = dkim.iter().any(|(_, signature)| signature.result == Check::Pass && signature.aligned);
        (spf.result == Check::Pass && speaks(&spf.domain, false), signed)
    };
    let policy = match (record, output.policy()) {
        (None, _) => "",
        (_, Policy::Reject) => "reject",
        (_, Policy::Quarantine) => "quarantine",
        (_, Policy::None | Policy::Unspecified) => "none",
    };
    authentication::Dmarc {
        result,
        domain: clipped(domain),
        policy: policy.to_owned(),
        aligned_spf,
        aligned_dkim,
        reason,
    }
}

/// By the public suffix list.
fn is_same_organisation(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_lowercase(), other.to_lowercase());
    one == other || psl::domain_str(&one).is_some_and(|own| psl::domain_str(&other) == Some(own))
}

fn badness(found: &authentication::Dmarc) -> usize {
    match (found.result, found.policy.as_str()) {
        (Check::Fail, "reject") => 6,
        (Check::Fail, "quarantine") => 5,
        (Check::Fail, _) => 4,
        (Check::TempError, _) => 3,
        (Check::PermError, _) => 2,
        (Check::None, _) => 1,
        _ => 0,
    }
}

fn spf_result(result: Check) -> SpfResult {
    match result {
        Check::Pass => SpfResult::Pass,
        Check::Fail | Check::Policy => SpfResult::Fail,
        Check::SoftFail => SpfResult::SoftFail,
        Check::Neutral => SpfResult::Neutral,
        Check::TempError => SpfResult::TempError,
        Check::PermError => SpfResult::PermError,
        Check::None => SpfResult::None,
    }
}
