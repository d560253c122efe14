//! Who is speaking: looked into while the session goes on, so that a message seldom waits for it.
//!
//! The client's name is asked for when it connects, SPF when the sender is known, while the octets still come in; DKIM, ARC
//! and DMARC when they are there. Clients of `[authentication] skip` are not looked into at all. Every look has its
//! deadline, and one that a message doesn't come to is given up with its transaction. What a sender's own domains are asked
//! takes no time from what its author's is.
//! Input: the visit's facts, the message's octets. Output: an [`Authentication`], and an event that tells each check.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{Intake, Visit};
use crate::authenticate::{Header, Patience, Proofs, iprev, proofs, spf_of_helo, spf_of_sender};
use crate::clock::Instant;
use crate::config::{Authentication as Settings, Config};
use crate::dns::Dns;
use crate::event::{Checked, Kind, millis};
use crate::mail::authentication::{Authentication, Check, Iprev, Spf};
use crate::mail::{Address, Client, Message};

/// What is being looked up.
struct Look<T>(JoinHandle<(T, u64)>);

impl<T: Send + 'static> Look<T> {
    fn begin(what: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(timed(what)))
    }

    /// `None`: it was ended.
    async fn end(&mut self) -> Option<(T, u64)> {
        (&mut self.0).await.ok()
    }
}

/// Nobody waits for it any more.
impl<T> Drop for Look<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Of one visit.
#[derive(Default)]
pub(super) struct Looks {
    iprev: Option<Look<Iprev>>,
    /// The same, once it is known.
    name: Option<(Iprev, u64)>,
    helo: Option<Look<Spf>>,
    sender: Option<Look<Spf>>,
    /// The domains that those two are about: of HELO, of the sender.
    about: (String, String),
}

/// What is known before the message is judged.
pub(super) struct Found {
    pub auth: Arc<Authentication>,
    pub told: Kind,
}

impl Looks {
    /// The client's name, as far as it is known.
    async fn name(&mut self) -> Option<&(Iprev, u64)> {
        if let Some(mut look) = self.iprev.take() {
            self.name = look.end().await;
        }
        self.name.as_ref()
    }
}

impl Intake {
    /// At its connection.
    pub(super) fn look_at_client(&self, visit: &mut Visit, client: &Client) {
        let settings = &visit.snapshot.config.authentication;
        if !settings.concerns(client.ip) {
            return;
        }
        let (dns, ip, patience) = (Arc::clone(&self.dns), client.ip, Patience::new(settings.timeout));
        visit.looks.iprev = Some(Look::begin(async move { iprev(&dns, ip, patience).await }));
    }

    /// When MAIL named the sender.
    pub(super) fn look_at_sender(&self, visit: &mut Visit, client: &Client, sender: Option<&Address>) {
        let config = &visit.snapshot.config;
        if !config.authentication.concerns(client.ip) {
            return;
        }
        let patience = Patience::new(config.authentication.timeout);
        let helo = client.helo.clone().unwrap_or_default();
        visit.looks.about = (helo.clone(), sender.map_or(helo, Address::domain_key));
        let (dns, speaker) = (Arc::clone(&self.dns), client.clone());
        visit.looks.helo = Some(Look::begin(async move { spf_of_helo(&dns, &speaker, patience).await }));
        let (dns, speaker) = (Arc::clone(&self.dns), client.clone());
        let sender = sender.cloned();
        visit.looks.sender =
            Some(Look::begin(async move { spf_of_sender(&dns, &speaker, sender.as_ref(), patience).await }));
    }

    /// The client with its name, as a handler of the session sees it.
    pub(super) async fn named(&self, visit: &mut Visit, client: &Client) -> Client {
        let mut client = visit.located(client);
        if let Some((iprev, _)) = visit.looks.name().await.filter(|(iprev, _)| iprev.result == Check::Pass) {
            client.ptr = Some(iprev.name.clone());
        }
        client
    }

    /// All that can be known of the sender of this message; `None` where nobody looks into this client.
    pub(super) async fn looked_into(&self, visit: &mut Visit, client: &Client, header: Header) -> Option<Found> {
        let config = Arc::clone(&visit.snapshot.config);
        let settings = &config.authentication;
        if !settings.concerns(client.ip) {
            return None;
        }
        let (mut helo, mut sender) = (visit.looks.helo.take(), visit.looks.sender.take());
        let about = &visit.looks.about;
        let (spf_helo, spf) = tokio::join!(ended(helo.as_mut(), &about.0), ended(sender.as_mut(), &about.1));
        // A slow SPF of the sender's takes no time from what it signed.
        let patience = Patience::new(settings.timeout);
        let proofs = proofs(&self.dns, &header, &spf.0, &settings.trusted_sealers, patience).await;
        let iprev = visit.looks.name().await.cloned().unwrap_or_default();
        Some(found(settings, client, iprev, spf_helo, spf, proofs))
    }
}

/// All at once, for mail that comes over no session: what an admin asks about. The client with what was found, and the
/// event that tells it; `None` where nobody looks into this client.
pub async fn look_into(
    dns: &Dns,
    config: &Config,
    client: &Client,
    sender: Option<&Address>,
    raw: &Bytes,
) -> Option<(Client, Kind)> {
    let settings = &config.authentication;
    if !settings.concerns(client.ip) {
        return None;
    }
    let patience = Patience::new(settings.timeout);
    let (iprev, helo, spf) = tokio::join!(
        timed(iprev(dns, client.ip, patience)),
        timed(spf_of_helo(dns, client, patience)),
        timed(spf_of_sender(dns, client, sender, patience)),
    );
    let header = Header::of(&Arc::new(Message::new(raw.clone()))).await.ok()?;
    let patience = Patience::new(settings.timeout);
    let proofs = proofs(dns, &header, &spf.0, &settings.trusted_sealers, patience).await;
    let found = found(settings, client, iprev, helo, spf, proofs);
    let ptr = Some(found.auth.iprev.name.clone()).filter(|name| !name.is_empty());
    Some((Client { ptr, auth: Some(found.auth), ..client.clone() }, found.told))
}

async fn timed<T>(what: impl Future<Output = T>) -> (T, u64) {
    let began = Instant::now();
    (what.await, millis(began.elapsed()))
}

/// Each with the milliseconds it took.
fn found(
    settings: &Settings,
    client: &Client,
    iprev: (Iprev, u64),
    helo: (Spf, u64),
    spf: (Spf, u64),
    proofs: Proofs,
) -> Found {
    let checks = checks(&iprev, &helo, &spf, &proofs);
    let Proofs { dkim, arc, dmarc, .. } = proofs;
    let auth = Authentication {
        iprev: iprev.0,
        spf: spf.0,
        spf_helo: helo.0,
        dkim,
        dmarc,
        arc,
        trusted_forwarder: settings.trusts(client.ip),
    };
    Found { auth: Arc::new(auth), told: Kind::Authenticated { checks } }
}

async fn ended(look: Option<&mut Look<Spf>>, domain: &str) -> (Spf, u64) {
    match look {
        Some(look) => look.end().await.unwrap_or_else(|| {
            let (domain, reason) = (domain.to_owned(), "the look-up broke off".to_owned());
            (Spf { result: Check::TempError, domain, reason, ..Spf::default() }, 0)
        }),
        None => (Spf::default(), 0),
    }
}

/// Each check as the trace tells it.
fn checks(iprev: &(Iprev, u64), helo: &(Spf, u64), sender: &(Spf, u64), proofs: &Proofs) -> Vec<Checked> {
    let check = |check: &str, result: Check, about: &str, reason: &str, millis: u64| Checked {
        check: check.to_owned(),
        result: result.word().to_owned(),
        about: about.to_owned(),
        reason: reason.to_owned(),
        millis,
    };
    let (arc, dmarc) = (&proofs.arc, &proofs.dmarc);
    let mut all = vec![
        check("iprev", iprev.0.result, &iprev.0.name, "", iprev.1),
        check("spf helo", helo.0.result, &helo.0.domain, &helo.0.reason, helo.1),
        check("spf", sender.0.result, &sender.0.domain, &sender.0.reason, sender.1),
    ];
    for signature in &proofs.dkim {
        all.push(check("dkim", signature.result, &signature.domain, &signature.reason, millis(proofs.dkim_took)));
    }
    if arc.result != Check::None {
        let sealers: Vec<&str> = arc.chain.iter().map(|seal| seal.domain.as_str()).collect();
        all.push(check("arc", arc.result, &sealers.join(", "), &arc.reason, millis(proofs.arc_took)));
    }
    let policy = if dmarc.policy.is_empty() { String::new() } else { format!("p={}", dmarc.policy) };
    let reason = [policy.as_str(), dmarc.reason.as_str()].join(" ").trim().to_owned();
    all.push(check("dmarc", dmarc.result, &dmarc.domain, &reason, millis(proofs.dmarc_took)));
    all
}
