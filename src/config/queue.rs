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
        self.webhook_share(binding, url).0
    }

    /// Its queue, and the `[[webhook]]` that it is of.
    #[must_use]
    pub fn webhook_share(&self, binding: Option<&str>, url: &str) -> (String, Option<&Webhook>) {
        let origin = |url: &url::Url| url.origin().ascii_serialization();
        // Reading a URL costs more than all the rest.
        let (parsed, webhook) = if let Some(binding) = binding {
            (None, self.webhook(binding))
        } else {
            let parsed = url::Url::parse(url).ok();
            let webhook = parsed.as_ref().and_then(|url| self.webhook_at(url));
            (parsed, webhook)
        };
        let queue = match webhook {
            Some(webhook) => format!("{} ({})", origin(&webhook.url), webhook.binding),
            None => {
                parsed.or_else(|| url::Url::parse(url).ok()).map_or_else(|| "webhook".to_owned(), |url| origin(&url))
            }
        };
        (queue, webhook)
    }

    /// The `[[webhook]]` that a task stands for.
    #[must_use]
    pub fn named_webhook(&self, binding: Option<&str>, url: &str) -> Option<&Webhook> {
        match binding {
            Some(binding) => self.webhook(binding),
            None if self.webhooks.is_empty() => None,
            // A text that is no URL has none.
            None => self.webhook_at(&url::Url::parse(url).ok()?),
        }
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
