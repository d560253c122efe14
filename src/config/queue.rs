//! Which queue a delivery stands in: deliveries of one queue share connections, pauses and limits.

use super::{Config, Scheme, Smarthost};
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

    /// As in `https://hooks.example.net` or `http://127.0.0.1:8080`: an endpoint's origin.
    #[must_use]
    pub fn webhook_queue(&self, url: &str) -> String {
        url::Url::parse(url).map_or_else(|_| "webhook".to_owned(), |url| url.origin().ascii_serialization())
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
