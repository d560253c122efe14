//! As CloudMailin's «JSON normalized» posts a message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::contents::{Contents, Ours};
use super::{Payload, Size, Source};
use crate::mail::authentication::Check;
use crate::mail::{Address, Authentication, Message};

#[derive(Serialize)]
struct Normalized<'a> {
    headers: Map<String, Value>,
    envelope: Value,
    plain: Option<&'a str>,
    html: Option<&'a str>,
    reply_plain: Option<&'a str>,
    attachments: Vec<Attachment<'a>>,
    #[serde(rename = "mailworker")]
    ours: Ours<'a>,
}

#[derive(Serialize)]
struct Attachment<'a> {
    content: String,
    file_name: String,
    content_type: &'a str,
    size: usize,
    disposition: &'static str,
    content_id: Option<&'a str>,
}

#[must_use]
pub fn payload(source: &Source, size: Size) -> Payload {
    let message = Message::received_by(&source.authserv_id, source.raw.clone());
    let mut contents = Contents::new(source, &message, size);
    let attachments = contents.attached(|file| Attachment {
        size: file.content.len(),
        content: STANDARD.encode(&file.content),
        file_name: file.safe_name,
        content_type: &file.part.content_type,
        disposition: if file.part.inline { "inline" } else { "attachment" },
        content_id: file.part.content_id.as_deref(),
    });
    let normalized = Normalized {
        headers: headers(&contents),
        envelope: envelope(&contents),
        plain: contents.text.as_deref(),
        html: contents.html.as_deref(),
        reply_plain: contents.text.is_some().then_some(&*contents.stripped.text),
        attachments,
        ours: contents.ours(),
    };
    Payload::json(&normalized)
}

/// Names in lower case with underscores; a field that comes several times is a list.
fn headers(contents: &Contents) -> Map<String, Value> {
    let mut headers = Map::new();
    for field in &contents.fields {
        let value = Value::from(field.value.as_str());
        match headers.entry(field.name.to_ascii_lowercase().replace('-', "_")) {
            serde_json::map::Entry::Vacant(place) => drop(place.insert(value)),
            serde_json::map::Entry::Occupied(mut place) => match place.get_mut() {
                Value::Array(values) => values.push(value),
                first => *first = Value::Array(vec![first.take(), value]),
            },
        }
    }
    headers
}

fn envelope(contents: &Contents) -> Value {
    let recipients: Vec<&str> =
        contents.source.body.envelope.recipients.iter().map(|one| one.address.as_str()).collect();
    let client = contents.client();
    let mut envelope = json!({
        "to": contents.recipient(),
        "recipients": recipients,
        "from": contents.sender(),
        "helo_domain": client.and_then(|client| client.helo.as_deref()),
        "remote_ip": client.map(|client| client.ip),
        "tls": client.is_some_and(|client| client.tls.is_some()),
        "spamd": {
            "score": contents.score(),
            "success": !contents.is_spam(),
            "symbols": contents.spam.symbols.keys().collect::<Vec<_>>(),
            "description": contents.spam.verdict,
        },
    });
    if let (Some(auth), Some(envelope)) = (contents.auth(), envelope.as_object_mut()) {
        authenticated(auth, contents.source.body.envelope.sender.as_ref(), envelope);
    }
    envelope
}

fn authenticated(auth: &Authentication, sender: Option<&Address>, envelope: &mut Map<String, Value>) {
    let domain = if auth.spf.domain.is_empty() { sender.map_or("", Address::domain) } else { &auth.spf.domain };
    envelope.insert("spf".to_owned(), json!({ "result": auth.spf.result.word(), "domain": domain }));
    let one = |key: &crate::mail::authentication::Dkim| json!({ "result": key.result.word(), "domain": key.domain, "selector": key.selector });
    let passes = auth.dkim.iter().any(|key| key.result == Check::Pass);
    let keys: Vec<Value> = auth.dkim.iter().map(one).collect();
    envelope.insert("dkim".to_owned(), json!({ "success": passes, "result": keys }));
    let dmarc = &auth.dmarc;
    envelope.insert(
        "dmarc".to_owned(),
        json!({
            "success": dmarc.result == Check::Pass,
            "result": dmarc.result.word(),
            "details": { "domain": dmarc.domain, "policy": dmarc.policy, "spf_result": auth.spf.result.word() },
        }),
    );
}

#[cfg(test)]
#[path = "cloudmailin_tests.rs"]
mod tests;
