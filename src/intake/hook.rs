//! A webhook that a worker or a route asked for, as a delivery.

use crate::config::Config;
use crate::mail::{Address, Timestamp};
use crate::rules::outcome::{Carried, WebhookTarget};
use crate::store::{Decider, NewDelivery, Task, WebhookBody, WebhookTask};

/// Where to, and how.
pub(super) struct Asked<'a> {
    pub target: &'a WebhookTarget,
    pub method: &'a str,
    pub headers: &'a [(String, String)],
    /// No handler is told how it ends.
    pub quiet: bool,
    /// The worker that decided.
    pub by: Option<&'a Decider>,
}

/// What the run said it carries.
pub(super) fn body(carried: Carried) -> WebhookBody {
    match carried {
        Carried::Json(text) => WebhookBody::Json(text),
        Carried::Message { format: None } => WebhookBody::Message,
        Carried::Message { format: Some(format) } => WebhookBody::Formatted(format),
    }
}

pub(super) fn delivery(
    config: &Config,
    asked: &Asked<'_>,
    body: WebhookBody,
    recipient: &Address,
    due: Timestamp,
) -> NewDelivery {
    let (binding, url) = match asked.target {
        WebhookTarget::Binding(name) => {
            (Some(name.clone()), config.webhook(name).map_or_else(String::new, |webhook| webhook.url.to_string()))
        }
        WebhookTarget::Url(url) => (None, url.clone()),
    };
    let destination = config.webhook_queue(binding.as_deref(), &url);
    let task = Task::Webhook(WebhookTask {
        binding,
        url,
        method: asked.method.to_owned(),
        headers: asked.headers.to_vec(),
        body,
        recipient: recipient.clone(),
        quiet: asked.quiet,
        by: asked.by.cloned(),
    });
    NewDelivery { task, destination, due }
}
