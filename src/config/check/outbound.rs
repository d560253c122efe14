//! What goes out: webhooks with their keys, destinations, the relay.

use super::super::decode::At;
use super::super::leaf::{HopUrl, Parsed};
use super::super::raw;
use super::super::secret::{HeaderValue, Secrets};
use super::super::tree::is_secret_key;
use super::super::{Destination, Login, Relay, RelayTimeouts, Scheme, Secret, Smarthost, Webhook, WebhookDefaults};
use super::Checker;

impl Checker<'_> {
    pub(super) fn webhooks(
        &mut self,
        raw: raw::WebhookDefaults,
        list: Vec<At<raw::Webhook>>,
    ) -> (WebhookDefaults, Vec<At<Webhook>>) {
        let default = WebhookDefaults::default();
        let defaults = WebhookDefaults {
            secrets: self.secrets(raw.secret.as_ref(), true),
            timeout: self.time(raw.timeout.as_ref(), default.timeout),
            retry: self.waits(raw.retry, default.retry),
            concurrency: self.count(raw.concurrency.as_ref(), default.concurrency, 1),
        };
        let webhooks = list
            .into_iter()
            .filter_map(|At { value, node }| self.webhook(value, node, &defaults, raw.secret.is_some()))
            .collect();
        (defaults, webhooks)
    }

    fn webhook(
        &mut self,
        raw: raw::Webhook,
        node: u32,
        defaults: &WebhookDefaults,
        keyed: bool,
    ) -> Option<At<Webhook>> {
        let signed = keyed || raw.secret.is_some();
        let own = self.secrets(raw.secret.as_ref(), true);
        let headers = self.headers(raw.headers);
        let timeout = self.time(raw.timeout.as_ref(), defaults.timeout);
        let concurrency = self.count(raw.concurrency.as_ref(), defaults.concurrency, 1);
        let format = raw.format.map(|at| at.value).unwrap_or_default();
        let (Some(binding), Some(url)) = (raw.binding, raw.url) else {
            let help = "binding = \"TICKETS\" and url = \"https://tickets.example.net/hook\"";
            self.lack(node, &["binding", "url"], "a webhook needs `binding` and `url`", help);
            return None;
        };
        if !signed {
            let help = "give it a `secret`, so that the endpoint can tell that a request is yours";
            self.warn(binding.node, "what goes to this webhook isn't signed", Some(help));
        }
        let secrets = if own.is_empty() { defaults.secrets.clone() } else { own };
        let webhook =
            Webhook { binding: binding.value.0.0, url: url.value.0.0, secrets, headers, timeout, concurrency, format };
        Some(At { value: webhook, node: binding.node })
    }

    fn headers(&mut self, raw: std::collections::BTreeMap<String, At<HeaderValue>>) -> Vec<(String, String)> {
        let mut headers = Vec::with_capacity(raw.len());
        for (name, At { value, node }) in raw {
            if !is_token(&name) {
                self.error_at_key(node, "this is no name of a header field (RFC 9110 §5.1)", None);
            } else if is_ours(&name) {
                self.error_at_key(node, "this header field is set by mailworker itself", None);
            }
            match value {
                HeaderValue::Plain(_) if is_secret_key(&name) => {
                    let help = "say where it is: { env = \"NAME\" }, { file = \"path\" } or { credential = \"name\" }";
                    self.error(node, "a login doesn't stand in the file in the clear", Some(help));
                }
                HeaderValue::Plain(text) if text.contains(char::is_control) => {
                    self.error(node, "a header field can't have a line break in it", None);
                }
                HeaderValue::Plain(text) => headers.push((name, text)),
                HeaderValue::Source(source) => {
                    let secret = self.secret(node, &source, false);
                    headers.extend(secret.map(|secret| (name, secret.expose().to_owned())));
                }
            }
        }
        headers
    }

    pub(super) fn destinations(&mut self, list: Vec<At<raw::Destination>>) -> Vec<At<Destination>> {
        let mut destinations = Vec::with_capacity(list.len());
        for At { value, node } in list {
            let smarthost = self.smarthost(node, value.smarthost, value.password.as_ref());
            if let (Some(name), Some(smarthost)) = (value.name, smarthost) {
                let destination = Destination { name: name.value.0.0, smarthost };
                destinations.push(At { value: destination, node: name.node });
            } else {
                let help = "name = \"archive\" and smarthost = \"lmtp://127.0.0.1:24\"";
                self.lack(node, &["name", "smarthost"], "a destination needs `name` and `smarthost`", help);
            }
        }
        destinations
    }

    /// `section` is the table that both stand in.
    fn smarthost(
        &mut self,
        section: u32,
        url: Option<At<Parsed<HopUrl>>>,
        password: Option<&At<Secrets>>,
    ) -> Option<Smarthost> {
        let secret = self.secrets(password, false).into_iter().next();
        let Some(At { value: Parsed(url), node }) = url else {
            if let Some(password) = password {
                let help = "smarthost = \"smtps://USER@HOST\"";
                if !self.is_hole_in(section, "smarthost") {
                    self.error_at_key(password.node, "a `password` without a `smarthost`", Some(help));
                }
            }
            return None;
        };
        let login = self.login(section, &url, node, password, secret);
        Some(Smarthost { scheme: url.scheme, host: url.host, port: url.port, login })
    }

    fn login(
        &mut self,
        section: u32,
        url: &HopUrl,
        node: u32,
        password: Option<&At<Secrets>>,
        secret: Option<Secret>,
    ) -> Option<Login> {
        match (&url.user, password) {
            (None, None) => None,
            (Some(_), None) => {
                let help = "password = { env = \"RELAY_PASSWORD\" }";
                if !self.is_hole_in(section, "password") {
                    self.error(node, "this smarthost has a user and no `password`", Some(help));
                }
                None
            }
            (None, Some(password)) => {
                let help = "write it before the host: smtps://USER@HOST";
                self.error_at_key(password.node, "a `password`, but no user in `smarthost`", Some(help));
                None
            }
            (Some(user), Some(_)) => {
                if matches!(url.scheme, Scheme::Smtp | Scheme::Lmtp) {
                    let help = "use smtp+starttls:// or smtps://";
                    self.error(node, "a password would go over the wire in the clear", Some(help));
                }
                secret.map(|password| Login { user: user.clone(), password })
            }
        }
    }

    pub(super) fn relay(&mut self, relay: Option<At<raw::Relay>>) -> Relay {
        let (raw, section) = relay.map_or_else(|| (raw::Relay::default(), 0), |at| (at.value, at.node));
        let default = Relay::default();
        let port = raw.port.as_ref().map_or(default.port, |at| at.value);
        if let Some(at) = raw.port.as_ref().filter(|at| at.value == 0) {
            self.error(at.node, "no server listens on port 0", None);
        }
        Relay {
            smarthost: self.smarthost(section, raw.smarthost, raw.password.as_ref()),
            port,
            require_tls: raw.require_tls.unwrap_or(default.require_tls),
            retry: self.waits(raw.retry, default.retry),
            expire: self.time(raw.expire.as_ref(), default.expire),
            concurrency: self.count(raw.concurrency.as_ref(), default.concurrency, 1),
            messages_per_connection: self.count(
                raw.messages_per_connection.as_ref(),
                default.messages_per_connection,
                1,
            ),
            delay_notice: raw.delay_notice.map(|at| at.value.0).filter(|after| !after.is_zero()),
            timeouts: self.relay_timeouts(&raw.timeouts.unwrap_or_default()),
        }
    }

    fn relay_timeouts(&mut self, raw: &raw::RelayTimeouts) -> RelayTimeouts {
        let default = RelayTimeouts::default();
        RelayTimeouts {
            connect: self.time(raw.connect.as_ref(), default.connect),
            greeting: self.time(raw.greeting.as_ref(), default.greeting),
            command: self.time(raw.command.as_ref(), default.command),
            data: self.time(raw.data.as_ref(), default.data),
            data_end: self.time(raw.data_end.as_ref(), default.data_end),
        }
    }
}

/// RFC 9110 §5.6.2
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// What each request carries already.
fn is_ours(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("webhook-")
        || matches!(name.as_str(), "host" | "content-length" | "transfer-encoding" | "connection" | "te" | "upgrade")
}
