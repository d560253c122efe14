//! Which queue a delivery stands in: deliveries of one queue share connections, pauses and limits.

use super::{Config, Scheme, Smarthost, Webhook};
use crate::mail::{Address, address::domain_key};

impl Config {
    /// As in `mx:example.net` or `smtp://127.0.0.1:2600`; `via` is a `[[destination]]`.
    #[must_use]
    pub fn relay_queue(&self, recipient: &Address, via: Option<&str>) -> String {
        let named = via.and_then(|name| self.destination(name)).map(|destination| &destination.smarthost);
        match named.or(self.relay.smarthost.as_ref()) {
            Some(smarthost) => smarthost.queue(),
            None => format!("mx:{}", domain_key(recipient.domain())),
        }
    }

    /// As in `https://hooks.example.net (HOOK)`: each `[[webhook]]` has a queue of its own, whatever else its host
    /// serves. `https://hooks.example.net` where none names the URL: its path may be new with each message, and a key.
    #[must_use]
    pub fn webhook_queue(&self, binding: Option<&str>, url: &str) -> String {
        let origin = |url: &url::Url| url.origin().ascii_serialization();
        match self.named_webhook(binding, url) {
            Some(webhook) => format!("{} ({})", origin(&webhook.url), webhook.binding),
            None => url::Url::parse(url).map_or_else(|_| "webhook".to_owned(), |url| origin(&url)),
        }
    }

    /// The `[[webhook]]` that a task stands for.
    #[must_use]
    pub fn named_webhook(&self, binding: Option<&str>, url: &str) -> Option<&Webhook> {
        binding.map_or_else(|| self.webhook_by_url(url), |binding| self.webhook(binding))
    }
}

impl Smarthost {
    /// Its queue's name: scheme, host and port, never the login.
    #[must_use]
    pub fn queue(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Smtp => "smtp",
            Scheme::SmtpStarttls => "smtp+starttls",
            Scheme::Smtps => "smtps",
            Scheme::Lmtp => "lmtp",
        };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{scheme}://{host}:{}", self.port)
    }
}
