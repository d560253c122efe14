//! What the message itself proves: DKIM, ARC and, with SPF, DMARC, through mail-auth.
//!
//! Each signature is verified by itself and all at once, so that one whose key nobody serves holds up no other.
//! Bounds: so many signatures, seals and domains of From, and so much of a header for all of them: what is hashed of it here
//! takes no more than some milliseconds. The caller bounds the time.
//! Standards: RFC 6376, RFC 8301 (algorithms), RFC 8463 (ed25519), RFC 8617 (ARC), RFC 9989 (DMARC), RFC 8601 §2.7.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use mail_auth::common::crypto::Algorithm;
use mail_auth::dkim::DkimError;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::dmarc::{Alignment, Policy};
use mail_auth::{
    ArcOutput, AuthenticatedMessage, DkimOutput, DkimResult, DmarcOutput, DmarcResult, DnsError, Error, SpfOutput,
    SpfResult,
};

use super::authors::{Authors, Doubt, is_name};
use super::header::Header;
use super::tags;
use super::{Caches, Patience, clipped};
use crate::clock::Instant;
use crate::dns::Dns;
use crate::mail::address::domain_key;
use crate::mail::authentication::{self, Check, Seal, Spf, is_same_organisation};

/// Signatures that are verified; each costs a look-up and a public key operation.
const MAX_SIGNATURES: usize = 10;
/// Seals of a chain (RFC 8617 §4.2.1 allows 50); each costs the same.
const MAX_SEALS: usize = 10;

/// Octets of headers that are hashed for all the signatures, and for all the seals.
const MAX_HASHED: usize = 1024 * 1024;
/// Names in one's `h=`; each is looked for among all the fields.
const MAX_NAMES: usize = 100;
/// Fields that are looked at for one signature: its names times the header's fields.
const MAX_LOOKED_AT: usize = 100_000;

/// What is looked into.
pub(super) struct Letter<'a> {
    message: AuthenticatedMessage<'a>,
    header: &'a Header,
    /// Signatures that aren't verified, and why.
    unverified: Vec<authentication::Dkim>,
    /// The chain isn't, and why.
    chain_fault: Option<String>,
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
    arc.trusted = arc.result == Check::Pass
        && arc.chain.iter().all(is_trusted)
        && letter.first_seal_saw_a_pass()
        && letter.last_seal_holds_the_author();
    // The sender's own domains may have used up all the time there was; the author's is asked in time of its own.
    let (dmarc, dmarc_took) = timed(letter.dmarc(dns, &caches, spf, &mut dkim, patience.anew())).await;
    let dkim = dkim.into_iter().map(|(_, signature)| signature).collect();
    Proofs { dkim, arc, dmarc, dkim_took, arc_took, dmarc_took }
}

async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    (what.await, began.elapsed())
}

impl<'a> Letter<'a> {
    pub(super) fn of(header: &'a Header) -> Self {
        let mut message = AuthenticatedMessage::parse(&header.octets).unwrap_or_default();
        message.body_hashes.clone_from(&header.hashes);
        let (fields, unverified) = (message.headers.len(), unread(&message, header));
        let chain_fault = tags::fault_of_chain(&message.headers);
        let mut letter = Self { message, header, unverified, chain_fault };
        letter.leave_out_ill_formed();
        let affordable = MAX_HASHED / header.octets.len().max(1);
        letter.leave_out_signatures(fields, affordable.clamp(1, MAX_SIGNATURES));
        letter.leave_out_chain(fields, affordable.clamp(1, MAX_SEALS));
        letter
    }

    /// Signatures whose tags can't be as they are.
    fn leave_out_ill_formed(&mut self) {
        let unverified = &mut self.unverified;
        self.message.dkim_headers.retain(|signature| {
            let fault = tags::fault_of_signature(signature.value);
            let is_good = fault.is_none();
            // RFC 8601 §2.7.1: an error of syntax is neutral.
            let told = fault.filter(|_| unverified.len() < MAX_SIGNATURES);
            unverified.extend(told.map(|reason| authentication::Dkim {
                result: Check::Neutral,
                reason,
                ..named(&signature.header)
            }));
            is_good
        });
    }

    /// Those that would take too much work.
    fn leave_out_signatures(&mut self, fields: usize, affordable: usize) {
        let signatures = std::mem::take(&mut self.message.dkim_headers);
        let (mut good, overlong): (Vec<_>, Vec<_>) =
            signatures.into_iter().partition(|signature| is_short(&signature.header.h, fields));
        let too_long = |signature: &mail_auth::common::headers::Header<'_, mail_auth::dkim::Signature>| {
            let reason = format!("it names more fields than are looked for ({MAX_NAMES}, fewer in so long a header)");
            authentication::Dkim { result: Check::Policy, reason, ..named(&signature.header) }
        };
        self.unverified.extend(overlong.iter().take(MAX_SIGNATURES).map(too_long));
        if good.len() > affordable {
            good.truncate(affordable);
            self.unverified.push(left_out(format!("signatures beyond the first {affordable} are not looked at")));
        }
        self.message.dkim_headers = good;
    }

    fn leave_out_chain(&mut self, fields: usize, affordable: usize) {
        let message = &mut self.message;
        let is_sha1 = |algorithm| algorithm == Algorithm::RsaSha1;
        let newest = message.ams_headers.iter().max_by_key(|signature| signature.header.i);
        let fault = if let Some(fault) = self.chain_fault.take() {
            fault
        } else if message.ams_headers.len().max(message.as_headers.len()) > affordable {
            format!("more than {affordable} have sealed it")
        } else if message.as_headers.iter().any(|seal| is_sha1(seal.header.a))
            || newest.is_some_and(|signature| is_sha1(signature.header.a))
        {
            // RFC 8301 §3.1
            "rsa-sha1 proves nothing any more".to_owned()
        } else if message.ams_headers.iter().any(|seal| !is_short(&seal.header.h, fields)) {
            "a seal names more fields than are looked for".to_owned()
        } else {
            return;
        };
        message.ams_headers.clear();
        message.as_headers.clear();
        message.aar_headers.clear();
        self.chain_fault = Some(fault);
    }

    /// The same message with one signature each.
    pub(super) fn signed(&self) -> Vec<AuthenticatedMessage<'a>> {
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
    pub(super) async fn dkim<'x>(
        &self,
        dns: &Dns,
        caches: &'x Caches,
        signed: &'x [AuthenticatedMessage<'x>],
        patience: Patience,
    ) -> Vec<(Option<DkimOutput<'x>>, authentication::Dkim)> {
        let verify = |one: &'x AuthenticatedMessage<'x>| async move {
            let verified = patience.wait(dns.authenticator().verify_dkim(caches.parameters(one))).await;
            let signature = one.dkim_headers.first().map(|signature| &signature.header)?;
            let late = || Error::Dns(DnsError::Resolver(patience.exceeded()));
            let output = verified.and_then(|outputs| outputs.into_iter().next());
            let output = output.unwrap_or_else(|| DkimOutput::temp_err(late()).with_signature(signature));
            let (mut result, mut reason) = judged(&output);
            if result == Check::Pass && !self.header.is_read_alike {
                (result, reason) = (Check::Policy, "its header can be read in more than one way".to_owned());
            }
            // Only what holds, or may hold another time, says anything of the author.
            let counts = matches!(result, Check::Pass | Check::TempError);
            Some((counts.then_some(output), authentication::Dkim { result, reason, ..named(signature) }))
        };
        let mut all: Vec<_> = join_all(signed.iter().map(verify)).await.into_iter().flatten().collect();
        all.extend(self.unverified.iter().map(|signature| (None, signature.clone())));
        all
    }

    /// Whether the chain holds.
    async fn arc(&self, dns: &Dns, caches: &Caches, patience: Patience) -> authentication::Arc {
        if let Some(fault) = &self.chain_fault {
            let reason = fault.clone();
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

    /// Whether the newest of the chain vouches for the one From there is: otherwise anybody may have put it there since.
    fn last_seal_holds_the_author(&self) -> bool {
        let newest = self.message.ams_headers.iter().max_by_key(|seal| seal.header.i);
        let holds = newest.is_some_and(|seal| seal.header.h.iter().any(|name| name.eq_ignore_ascii_case("from")));
        holds && self.header.has_one_author()
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
        let Authors { domains, doubt, .. } = &self.header.authors;
        if let (Some(doubt), []) = (doubt, domains.as_slice()) {
            return authentication::Dmarc {
                result: Check::Fail,
                policy: "reject".into(),
                reason: doubt.told.clone(),
                doubt: doubt.what.clone(),
                ..Default::default()
            };
        }
        // Of two fields From a signature may hold one, and another one be shown.
        let may_speak = self.header.has_one_author();
        let nobody = Spf::default();
        let spf = if doubt.is_some() { &nobody } else { spf };
        let speaking = dkim.iter().filter(|_| may_speak);
        let outputs: Vec<DkimOutput<'_>> = speaking.filter_map(|(output, _)| output.clone()).collect();
        let asked = domains.iter().map(|domain| policy(dns, caches, spf, &outputs, (domain, patience)));
        let mut worst: Option<authentication::Dmarc> = None;
        for (domain, output) in domains.iter().zip(join_all(asked).await) {
            let found = match output {
                Some(output) => author(&output, domain, spf, dkim, may_speak),
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
        if domains.len() > 1 || doubt.is_some() {
            unspoken_for(&mut worst, dkim, doubt.as_ref());
        }
        worst
    }
}

/// Of several authors nobody speaks for all at once, and for one whom not all readers see nobody does.
fn unspoken_for(
    found: &mut authentication::Dmarc,
    dkim: &mut [(Option<DkimOutput<'_>>, authentication::Dkim)],
    doubt: Option<&Doubt>,
) {
    found.doubt = doubt.map(|doubt| doubt.what.clone()).unwrap_or_default();
    (found.aligned_spf, found.aligned_dkim) = (false, false);
    for (_, signature) in dkim.iter_mut() {
        signature.aligned = false;
    }
    let is_settled = matches!(found.result, Check::None | Check::PermError);
    match doubt {
        Some(doubt) if is_settled || found.result == Check::Fail => found.reason.clone_from(&doubt.told),
        None if is_settled => found.reason = format!("{} is one of several authors", found.domain),
        _ => {}
    }
    if is_settled {
        found.domain.clear();
    }
}

/// What one author's domain says of it; `None` where DNS didn't answer in time.
async fn policy(
    dns: &Dns,
    caches: &Caches,
    spf: &Spf,
    outputs: &[DkimOutput<'_>],
    (domain, patience): (&str, Patience),
) -> Option<DmarcOutput> {
    let message = AuthenticatedMessage { from: vec![format!("author@{domain}")], ..AuthenticatedMessage::default() };
    let question = DmarcParameters {
        message: &message,
        dkim_output: outputs,
        dkim2_output: None,
        rfc5321_mail_from_domain: &spf.domain,
        spf_output: &SpfOutput::new(spf.domain.clone()).with_result(spf_result(spf.result)),
    };
    patience.wait(dns.authenticator().verify_dmarc(caches.parameters(question))).await
}

/// Signatures that can't be read, or aren't.
fn unread(message: &AuthenticatedMessage<'_>, header: &Header) -> Vec<authentication::Dkim> {
    let is_dkims = |error: &&Error| matches!(error, Error::Dkim(_));
    let fault = |error: &Error| {
        let result = if *error == Error::Dkim(DkimError::SignatureLength) { Check::Policy } else { Check::Neutral };
        authentication::Dkim { result, reason: error.to_string(), ..Default::default() }
    };
    let errors = message.errors.iter().map(|header| &header.header).filter(is_dkims).take(MAX_SIGNATURES);
    let too_large = header.is_too_large.then(|| left_out("its header is too large to be verified".to_owned()));
    errors.map(fault).chain(too_large).collect()
}

fn left_out(reason: String) -> authentication::Dkim {
    authentication::Dkim { result: Check::Policy, reason, ..Default::default() }
}

/// Its names can be looked for without much work.
fn is_short(names: &[String], fields: usize) -> bool {
    names.len() <= MAX_NAMES && names.len().saturating_mul(fields) <= MAX_LOOKED_AT
}

/// Who signed, whatever it is worth.
fn named(signature: &mail_auth::dkim::Signature) -> authentication::Dkim {
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
    // DNS can't be asked for it, now or later.
    if !is_name(&domain_key(&format!("{}._domainkey.{}", signature.s, signature.d))) {
        return (Check::PermError, "its key has a name that can't be".to_owned());
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
    may_speak: bool,
) -> authentication::Dmarc {
    let record = output.dmarc_record();
    let is_strict = |alignment: Option<Alignment>| alignment == Some(Alignment::Strict);
    let speaks = |other: &str, strict: bool| if strict { other == domain } else { is_same_organisation(other, domain) };
    let strict = is_strict(record.map(|record| record.adkim));
    for (_, signature) in dkim.iter_mut() {
        signature.aligned = may_speak && speaks(&signature.domain, strict);
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
        doubt: String::new(),
    }
}

/// What is certain is worse than what DNS may say another time: an author whose DNS is away on purpose hides no other.
fn badness(found: &authentication::Dmarc) -> usize {
    match (found.result, found.policy.as_str()) {
        (Check::Fail, "reject") => 6,
        (Check::Fail, "quarantine") => 5,
        (Check::Fail, _) => 4,
        (Check::PermError, _) => 3,
        (Check::None, _) => 2,
        (Check::TempError, _) => 1,
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
