//! Whom a webhook calls, and with which keys, as the configuration says at the time of the try. Pure.
//!
//! A binding is looked up anew each time, so that a changed URL or key holds for what already waits. A URL that a
//! `[[webhook]]` names gets that one's key and settings; any other gets `[webhook_defaults]` and is a script's.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::answer::clean;
use crate::config::{Config, Secret, Webhook};
use crate::delivery::{Failure, Side};
use crate::mail::PayloadFormat;
use crate::store::WebhookTask;

/// One endpoint, for one try.
pub struct Endpoint<'a> {
    pub url: Url,
    pub method: Method,
    /// Current key first; none: unsigned.
    pub secrets: &'a [Secret],
    pub headers: HeaderMap,
    pub timeout: Duration,
    /// Of what is made of a message.
    pub format: PayloadFormat,
    /// The configuration names it: it goes where it says, whatever `[egress]` says.
    pub trusted: bool,
}

/// The endpoint of `task`.
///
/// # Errors
/// A binding that is gone: it may come back, so later. A URL, method or header field that can't be sent: never.
pub fn of<'a>(config: &'a Config, task: &WebhookTask) -> Result<Endpoint<'a>, Failure> {
    let (url, webhook) = if let Some(binding) = &task.binding {
        let webhook = config.webhook(binding).ok_or_else(|| {
            Failure::later(Side::Ours, "4.3.5", format!("no [[webhook]] is named {binding:?} any more"))
        })?;
        (webhook.url.clone(), Some(webhook))
    } else {
        // What is wrong with it may be quoted with it, and it may hold a key.
        let url = Url::parse(&task.url).map_err(|_| never("the URL can't be read"))?;
        let webhook = config.webhook_at(&url);
        (url, webhook)
    };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(never("a webhook's URL begins with http:// or https:// and a host"));
    }
    let method = Method::from_bytes(task.method.as_bytes())
        .ok()
        .filter(|method| !matches!(*method, Method::CONNECT | Method::TRACE))
        .ok_or_else(|| never(&format!("{} is no method for a webhook", clean(&task.method, 20))))?;
    Ok(Endpoint {
        url,
        method,
        secrets: webhook.map_or(&config.webhook_defaults.secrets, |webhook| &webhook.secrets),
        headers: headers(task, webhook)?,
        timeout: webhook.map_or(config.webhook_defaults.timeout, |webhook| webhook.timeout),
        format: webhook.map_or_else(PayloadFormat::default, |webhook| webhook.format),
        trusted: webhook.is_some(),
    })
}

impl Endpoint<'_> {
    /// As in `hooks.example.net:443`.
    #[must_use]
    pub fn host(&self) -> String {
        let port = self.url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}", self.url.host_str().unwrap_or_default())
    }
}

/// The script's fields; over them those of the configuration, whose values may be logins.
fn headers(task: &WebhookTask, webhook: Option<&Webhook>) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let configured = webhook.map(|webhook| webhook.headers.as_slice()).unwrap_or_default();
    for (name, value) in task.headers.iter().chain(configured) {
        let shown = clean(name, 60);
        let (Ok(field), Ok(mut value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) else {
            return Err(never(&format!(
                "the header field {shown} can't be sent: RFC 9110 §5 allows no such name or value"
            )));
        };
        if is_ours(field.as_str()) {
            return Err(never(&format!("the header field {shown} is set by mailworker itself")));
        }
        value.set_sensitive(true);
        headers.insert(field, value);
    }
    Ok(headers)
}

/// In lower case.
fn is_ours(name: &str) -> bool {
    name.starts_with("webhook-")
        || matches!(name, "host" | "content-length" | "transfer-encoding" | "connection" | "te" | "upgrade")
}

fn never(detail: &str) -> Failure {
    Failure::never(Side::Ours, "5.1.3", detail)
}
