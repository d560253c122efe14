//! What becomes of mail whose sender isn't who it says, before a route or a worker is asked.
//!
//! By the policy of the recipient's domain. It doesn't concern the postmaster (RFC 5321 §4.5.1), clients that nobody looks
//! into, trusted forwarders, and mail whose chain of trusted sealers saw DMARC pass. SPF alone says little of forwarded mail,
//! so it counts only where the setting says so and DKIM doesn't speak for the author (RFC 9989 §4.10). A DNS that didn't
//! answer is no failure.

use crate::config::{Consequence, Domain};
use crate::mail::authentication::{Check, Dmarc};
use crate::mail::{Authentication, Reply};

/// A judgement that leaves nothing to the worker.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sentence {
    pub consequence: Consequence,
    /// In words, for the trace.
    pub why: String,
    /// What a sender that is refused reads.
    pub reply: Reply,
}

/// `None`: the worker decides.
pub(super) fn sentence(auth: &Authentication, domain: &Domain) -> Option<Sentence> {
    if auth.trusted_forwarder || auth.arc.trusted {
        return None;
    }
    let by_dmarc = match (auth.dmarc.result, auth.dmarc.policy.as_str()) {
        (Check::Fail, "reject") => domain.policy.dmarc_reject,
        (Check::Fail, "quarantine") => domain.policy.dmarc_quarantine,
        _ => Consequence::Accept,
    };
    let is_spf_alone = auth.spf.result == Check::Fail && !auth.passed() && !auth.may_pass_later();
    let by_spf = if is_spf_alone { domain.policy.spf_fail } else { Consequence::Accept };
    if by_dmarc.max(by_spf) == Consequence::Accept {
        return None;
    }
    Some(if by_dmarc >= by_spf {
        by_author(auth, by_dmarc)
    } else {
        let sender = &auth.spf.domain;
        Sentence {
            consequence: by_spf,
            why: format!("spf=fail for {sender}"),
            // RFC 7372 §3.2
            reply: Reply::new(550, 7, 23, format!("{sender} does not let this server send its mail (spf=fail)")),
        }
    })
}

/// What the sender reads is in our words and names the author's domain at the most: what stands in From is the trace's.
fn by_author(auth: &Authentication, consequence: Consequence) -> Sentence {
    let Dmarc { domain: author, doubt, reason, .. } = &auth.dmarc;
    let asks = format!("asks to {} ", asked(&auth.dmarc.policy));
    let (why, said) = match (author.as_str(), doubt.as_str()) {
        ("", "") => {
            let why = if reason.is_empty() { "nobody can say who it is from" } else { reason };
            (why.to_owned(), "Nobody can say who it is from, so that nobody's policy can be asked for".to_owned())
        }
        ("", doubt) => {
            let why = if reason.is_empty() { doubt } else { reason };
            (why.to_owned(), format!("{}, so that nobody speaks for its author", capitalised(doubt)))
        }
        (author, "") => {
            (format!("{author} {asks}such mail"), format!("Not sent by {author}, whose DMARC policy {asks}it"))
        }
        (author, doubt) => (
            format!("{author} {asks}such mail, as {doubt}"),
            format!("{}, so that nobody speaks for {author}, whose DMARC policy {asks}it", capitalised(doubt)),
        ),
    };
    // RFC 7372 has no code for DMARC.
    let reply = Reply::new(550, 7, 1, format!("{said} (dmarc=fail)"));
    Sentence { consequence, why: format!("dmarc=fail, {why}"), reply }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(characters).collect()
}

fn asked(policy: &str) -> &str {
    if policy == "quarantine" { "quarantine" } else { "refuse" }
}
