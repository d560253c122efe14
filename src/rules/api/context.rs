//! `ctx`: webhooks, the log, the time, what is deployed. What a worker writes is in `drafts`; what it reads from outside in `outside`.
//!
//! A webhook is staged with its body as it will be sent, or as the message itself (see [`super::payload`]). Its target is a `[[webhook]]` by name or an http(s) URL;
//! whether that URL may be reached is the egress policy's to say, when it is sent.
//! Standards: RFC 9110 §5.1 and §5.5 (field names and values).

use std::sync::Arc;

use rhai::{Dynamic, Engine, Map, NativeCallContext};

use super::env::Environment;
use super::options::{self, Options};
use super::payload;
use super::run::{Run, ScriptResult, beginning, refuse};
use super::value::{article, shown};
use crate::diagnostic::suggest;
use crate::rules::EmailCall;
use crate::rules::outcome::{Effect, WebhookTarget};

/// Octets of a URL, of a header field; fields.
const MAX_URL: usize = 2048;
const MAX_FIELD: usize = 4096;
const MAX_FIELDS: usize = 50;
const METHODS: &[&str] = &["POST", "PUT", "PATCH"];
/// Fields that delivery makes itself, or that belong to the connection.
const PROTECTED: &[&str] = &[
    "host",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "proxy-authorization",
    "proxy-connection",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

/// `ctx` of one run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ContextView {
    run: Arc<Run>,
    /// The message that the run is about, where it is about one.
    about: Option<Arc<EmailCall>>,
}

impl ContextView {
    #[must_use]
    pub fn new(run: Arc<Run>, about: Option<Arc<EmailCall>>) -> Self {
        Self { run, about }
    }

    #[must_use]
    pub fn about(&self) -> Option<&EmailCall> {
        self.about.as_deref()
    }

    #[must_use]
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }
}

pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<ContextView>("ctx");
    engine.register_get("env_name", |ctx: &mut ContextView| ctx.run.environment.env_name.clone());
    engine.register_get("version", |ctx: &mut ContextView| ctx.run.environment.version.clone());
    engine.register_fn("now", |ctx: &mut ContextView| ctx.run.now.as_millis());
    engine.register_fn("log", |context: NativeCallContext, ctx: &mut ContextView, text: Dynamic| {
        ctx.run.log(ctx.run.place(&context), &shown(&text));
    });
    engine.register_fn(
        "webhook",
        |context: NativeCallContext, ctx: &mut ContextView, target: Dynamic, payload: Dynamic| {
            webhook(context, ctx, target, payload, Map::new())
        },
    );
    engine.register_fn("webhook", webhook);
}

fn webhook(
    context: NativeCallContext,
    ctx: &mut ContextView,
    target: Dynamic,
    payload: Dynamic,
    options: Map,
) -> ScriptResult<()> {
    let effect = staged(&ctx.run, &target, &payload, options);
    let effect = effect.map_err(|why| refuse(&context, format!("webhook: {why}")))?;
    ctx.run.stage(&context, effect)
}

fn staged(run: &Run, target: &Dynamic, payload: &Dynamic, options: Map) -> Result<Effect, String> {
    let target = match target.as_immutable_string_ref() {
        Ok(text) => target_of(&run.environment, &text)?,
        Err(_) => return Err(format!("the target is a webhook's name or a URL, not {}", article(target.type_name()))),
    };
    let mut options = Options::new(options, options::WEBHOOK)?;
    let body = payload::carried(payload, options.text("format")?)?;
    let method = options.text("method")?.unwrap_or_else(|| "POST".to_owned()).to_ascii_uppercase();
    if !METHODS.contains(&method.as_str()) {
        return Err(format!("the method is one of {}, not {method:?}", METHODS.join(", ")));
    }
    let headers: Map = options.map("headers")?.unwrap_or_default();
    if headers.len() > MAX_FIELDS {
        return Err(format!("at most {MAX_FIELDS} headers, these are {}", headers.len()));
    }
    let mut headers: Vec<(String, String)> =
        headers.into_iter().map(|(name, value)| field(name.as_str(), &value)).collect::<Result<_, _>>()?;
    if let Ok(text) = payload.as_immutable_string_ref()
        && serde_json::from_str::<serde::de::IgnoredAny>(&text).is_err()
        && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
    {
        headers.push(("Content-Type".to_owned(), "text/plain; charset=utf-8".to_owned()));
    }
    Ok(Effect::Webhook { target, method, headers, body })
}

/// A webhook by its name, or a URL.
///
/// # Errors
/// What is wrong with it.
pub fn target_of(environment: &Environment, text: &str) -> Result<WebhookTarget, String> {
    if environment.webhooks.iter().any(|name| *name == text) {
        return Ok(WebhookTarget::Binding(text.to_string()));
    }
    let shown = || beginning(text, 100);
    if !text.contains("://") {
        if environment.destinations.iter().any(|name| *name == text) {
            return Err(format!("{:?} is a destination: use message.forward", shown()));
        }
        let webhooks = environment.webhooks.join(", ");
        let help = match suggest(text, environment.webhooks.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None if webhooks.is_empty() => "give an http(s) URL, or name one by [[webhook]]".to_owned(),
            None => format!("webhooks: {webhooks}; or give an http(s) URL"),
        };
        return Err(format!("no webhook {:?} ({help})", shown()));
    }
    let url = url::Url::parse(text).map_err(|why| format!("{:?} is no URL: {why}", shown()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{:?} is no http(s) URL", shown()));
    }
    if text.len() > MAX_URL {
        return Err(format!("a URL is at most {MAX_URL} octets, this has {}", text.len()));
    }
    Ok(WebhookTarget::Url(text.to_string()))
}

/// A header field, checked.
///
/// # Errors
/// What is wrong with it.
pub fn field(name: &str, value: &Dynamic) -> Result<(String, String), String> {
    let token = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet);
    if name.is_empty() || name.len() > 100 || !name.bytes().all(token) {
        return Err(format!("{name:?} is no name of a header"));
    }
    if PROTECTED.iter().any(|protected| protected.eq_ignore_ascii_case(name)) {
        return Err(format!("the header {name} is protected: delivery makes it"));
    }
    let text = match value.as_immutable_string_ref() {
        Ok(text) => text.to_string(),
        Err(_) if value.is_int() || value.is_float() || value.is_bool() => value.to_string(),
        Err(_) => return Err(format!("the header {name} is a string, not {}", article(value.type_name()))),
    };
    if text.len() > MAX_FIELD || !text.bytes().all(|octet| octet == b'\t' || (octet >= b' ' && octet != 0x7f)) {
        return Err(format!("the header {name} has a control character, or more than {MAX_FIELD} octets"));
    }
    Ok((name.to_owned(), text))
}
