//! Webhooks: one signed HTTP request for one delivery, and what its answer comes to.
//!
//! Must never: ask an endpoint that said 410 (`gone`), follow a redirect, connect to an address that `[egress]` forbids for
//! a URL of a script's, read more than 4 KiB of an answer, or say a key, a login or a query in an error. An attempt is
//! bounded in time as a whole.
//! Standards: Standard Webhooks; RFC 9110. Input: a [`WebhookTask`] and, where the body is made from the message, its
//! octets. Output: [`Sent`]; whether and when it is tried again is the dispatcher's.

pub mod answer;
pub mod client;
mod endpoint;
mod exchange;
mod gone;
pub mod sign;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use rustls::RootCertStore;
use url::Url;

use self::client::{Client, Clients, check_literal};
use self::endpoint::Endpoint;
use self::exchange::Exchange;
use self::gone::Gone;
use super::network::Network;
use super::payload::{self, Payload, Size, Source};
use super::{Failure, Side};
use crate::aside;
use crate::config::Config;
use crate::dns::Dns;
use crate::kv;
use crate::mail::Timestamp;
use crate::store::{Body, DeliveryKey, StoreError, WebhookBody, WebhookTask};

pub use self::answer::Answer;
pub use self::client::SetupError;

/// Sends webhooks; keeps connections to endpoints open for the next one.
pub struct Webhooks {
    clients: Clients,
    pub gone: Gone,
}

/// What came of one try.
#[derive(Debug)]
pub struct Sent {
    /// A 2xx, or why there was none; `Failure::retry` says whether it is worth another try.
    pub result: Result<Answer, Failure>,
    /// The endpoint asked for this much time (`Retry-After`), a day at most. Not before, however the schedule goes.
    pub retry_after: Option<Duration>,
    /// The destination as a whole should rest: 429, 502, 503, 504, or it can't be reached.
    pub pauses: bool,
    /// 410: the endpoint wants nothing more, this delivery's retries included. What remembers it, to be stored with the
    /// outcome; one alone of several tries at once brings it.
    pub disables: Option<kv::Write>,
    /// As in `hooks.example.net [192.0.2.1]:443`; without the address where none was reached.
    pub host: String,
    /// HTTP's, where there was an answer.
    pub status: Option<u16>,
}

impl Sent {
    fn unsent(failure: Failure, host: String) -> Self {
        let pauses = failure.side == Side::Network;
        Self { result: Err(failure), retry_after: None, pauses, disables: None, host, status: None }
    }
}

/// One try, as the dispatcher knows it.
#[derive(Debug, Clone, Copy)]
pub struct Try {
    pub key: DeliveryKey,
    /// From 1.
    pub attempt: u32,
    pub now: Timestamp,
}

impl Webhooks {
    /// `roots`: the authorities a certificate may come from; `None`: the public ones.
    ///
    /// # Errors
    /// [`SetupError`]
    pub fn new(dns: Arc<Dns>, roots: Option<Arc<RootCertStore>>, network: &Network) -> Result<Self, SetupError> {
        Ok(Self { clients: Clients::new(dns, roots, network)?, gone: Gone::default() })
    }

    /// Sends `task` once; twice where a body made from the message is too large (413): then without texts and
    /// attachments. What is too large even so, or is a script's own, is never sent again.
    ///
    /// `body` is the message, which all but [`WebhookBody::Json`] need. `capture` takes the request in the endpoint's
    /// place (`dev`), which then stands in `X-Original-URL`, and is not asked of `[egress]`.
    pub async fn send(
        &self,
        config: &Config,
        this: Try,
        task: &WebhookTask,
        body: Option<&Body>,
        capture: Option<&Url>,
    ) -> Sent {
        let (endpoint, client) = match self.endpoint(config, task, capture) {
            Ok(found) => found,
            Err((failure, host)) => return Sent::unsent(failure, host),
        };
        if let Some(since) = capture.map_or_else(|| self.gone.since(&endpoint.url), |_| None) {
            let detail =
                format!("disabled: it answered 410 at {since} and wants no more (`queue retry` asks it again)");
            return Sent::unsent(Failure::never(Side::Remote, "5.0.0", detail), endpoint.host());
        }
        let full = match content(config, this, task, &endpoint, body, Size::Full).await {
            Ok(full) => full,
            Err(failure) => return Sent::unsent(failure, endpoint.host()),
        };
        let mut sent = call(&client, &endpoint, this, full).await;
        if sent.status == Some(410) && capture.is_none() {
            sent.disables = self.gone.note(&endpoint.url, this.now);
        }
        if sent.status != Some(413) {
            return sent;
        }
        if !task.body.is_made() {
            return too_large(sent, "a script's own JSON can't be made smaller");
        }
        let sent = match content(config, this, task, &endpoint, body, Size::Thin).await {
            Ok(smaller) => call(&client, &endpoint, this, smaller).await,
            Err(failure) => return Sent::unsent(failure, endpoint.host()),
        };
        if sent.status == Some(413) { too_large(sent, "even without texts and attachments") } else { sent }
    }

    /// Whom to call and by which client; where that can't be, why, and the host as far as it is known.
    fn endpoint<'a>(
        &self,
        config: &'a Config,
        task: &WebhookTask,
        capture: Option<&Url>,
    ) -> Result<(Endpoint<'a>, Client), (Failure, String)> {
        let mut endpoint = endpoint::of(config, task).map_err(|failure| (failure, String::new()))?;
        if let Some(capture) = capture {
            let mut original = std::mem::replace(&mut endpoint.url, capture.clone());
            let _has_host = original.set_username("").and_then(|()| original.set_password(None));
            if let Ok(value) = HeaderValue::from_str(original.as_str()) {
                endpoint.headers.insert(HeaderName::from_static("x-original-url"), value);
            }
            return Ok((endpoint, self.clients.named()));
        }
        if endpoint.trusted {
            return Ok((endpoint, self.clients.named()));
        }
        if let Err(error) = check_literal(&endpoint.url, &config.egress) {
            return Err((Failure::never(Side::Ours, "5.4.4", error.to_string()), endpoint.host()));
        }
        match self.clients.scripted(&config.egress) {
            Ok(client) => Ok((endpoint, client)),
            Err(error) => Err((Failure::later(Side::Ours, "4.3.0", error.to_string()), endpoint.host())),
        }
    }
}

/// 413, and there is nothing smaller to send.
fn too_large(mut sent: Sent, why: &str) -> Sent {
    if let Err(failure) = sent.result {
        sent.result = Err(Failure::never(Side::Remote, "5.3.4", format!("{} ({why})", failure.detail)));
    }
    sent
}

/// The body, as it will be signed and sent.
async fn content(
    config: &Config,
    this: Try,
    task: &WebhookTask,
    endpoint: &Endpoint<'_>,
    body: Option<&Body>,
    size: Size,
) -> Result<Payload, Failure> {
    let format = match &task.body {
        WebhookBody::Json(text) => {
            return Ok(Payload { content_type: payload::JSON, body: Bytes::from(text.clone()) });
        }
        WebhookBody::Message => endpoint.format,
        WebhookBody::Formatted(format) => *format,
    };
    let Some(body) = body else {
        return Err(Failure::never(
            Side::Ours,
            "5.3.0",
            "the message's octets are gone, so nothing can be made of them",
        ));
    };
    let raw = body.raw.whole().await.map_err(|error| unread(&error))?;
    let source = Source {
        id: sign::id(this.key),
        message: this.key.message,
        attempt: this.attempt,
        recipient: task.recipient.clone(),
        subaddress: config.domain_for(&task.recipient).map_or_else(String::new, |domain| domain.subaddress.clone()),
        body: body.clone(),
        authserv_id: config.hostname.clone(),
        raw,
        key: endpoint.secrets.iter().find(|secret| secret.signing_key().is_none()).cloned(),
        now: this.now,
    };
    // Decoding and encoding a large message takes a while: not on a thread that others wait for.
    let made = aside::run(move || payload::made(format, &source, size)).await;
    made.map_err(|error| Failure::later(Side::Ours, "4.3.0", format!("the body couldn't be made: {error}")))
}

fn unread(error: &StoreError) -> Failure {
    Failure::later(Side::Ours, "4.3.0", format!("the message can't be read: {error}"))
}

/// One signed request.
async fn call(client: &Client, endpoint: &Endpoint<'_>, this: Try, payload: Payload) -> Sent {
    let mut headers = endpoint.headers.clone();
    if let Err(failure) = sign_with(&mut headers, endpoint, this, &payload) {
        return Sent::unsent(failure, endpoint.host());
    }
    if !payload.is_json() {
        // What a script or the configuration calls it lacks the boundary.
        let Ok(kind) = HeaderValue::from_str(&payload.content_type) else {
            let failure = Failure::never(Side::Ours, "5.3.0", "the body's type can't be said");
            return Sent::unsent(failure, endpoint.host());
        };
        headers.insert(CONTENT_TYPE, kind);
    }
    let exchange = Exchange {
        client,
        url: &endpoint.url,
        method: endpoint.method.clone(),
        headers,
        host: endpoint.host(),
        timeout: endpoint.timeout,
        now: this.now,
    };
    exchange.run(payload.body).await
}

fn sign_with(headers: &mut HeaderMap, endpoint: &Endpoint<'_>, this: Try, payload: &Payload) -> Result<(), Failure> {
    let id = sign::id(this.key);
    let fields = [
        ("webhook-id", Some(id.clone())),
        ("webhook-timestamp", Some(this.now.as_secs().to_string())),
        ("webhook-signature", sign::signature(endpoint.secrets, &id, this.now, &payload.body)),
    ];
    for (name, value) in fields {
        let Some(value) = value else { continue };
        let value = HeaderValue::from_str(&value)
            .map_err(|_| Failure::later(Side::Ours, "4.3.0", format!("{name} can't be sent")))?;
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(())
}
