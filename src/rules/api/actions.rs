//! What a script asks to be done with the message: `forward`, `set_reject`, `defer`, `drop`, `store`.
//!
//! Nothing is done here: effects and verdicts are staged in the run. An argument that can't be is an error.
//! Standards: RFC 5322 §2.2 (header fields), §3.6.8 (field names).

use rhai::{Array, Dynamic, Engine, ImmutableString, Map, NativeCallContext};

use super::address;
use super::answer;
use super::env::{Environment, did_you_mean};
use super::message::MessageView;
use super::options::{self, Options};
use super::run::{Run, ScriptResult, refuse};
use super::value::article;
use crate::mail::field::{self, MAX_VALUE};
use crate::mail::{Address, Reply};
use crate::rules::outcome::{Effect, ForwardTo};

/// Header fields that one `forward` adds.
const MAX_FIELDS: usize = 50;
/// Characters of what a quarantine is for.
const MAX_REASON: usize = 200;
/// Octets of a mailbox's name, and the longest retention: ten years.
const MAX_MAILBOX: usize = 100;
const MAX_RETENTION_DAYS: u64 = 3653;

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("forward", |context: NativeCallContext, message: &mut MessageView, to: Dynamic| {
        forward(context, message, to, Map::new())
    });
    engine.register_fn("forward", forward);
    engine.register_fn("set_reject", |context: NativeCallContext, message: &mut MessageView, text: ImmutableString| {
        reject(&context, message.run(), answer::rejection(&text))
    });
    engine.register_fn(
        "set_reject",
        |context: NativeCallContext,
         message: &mut MessageView,
         code: i64,
         enhanced: ImmutableString,
         text: ImmutableString| {
            reject(&context, message.run(), answer::rejection_with(code, &enhanced, &text))
        },
    );
    engine.register_fn("defer", |context: NativeCallContext, message: &mut MessageView, text: ImmutableString| {
        defer(&context, message.run(), answer::deferral(&text))
    });
    engine.register_fn("drop", |context: NativeCallContext, message: &mut MessageView| {
        let at = message.run().place(&context);
        message.run().state().drop = Some(at);
    });
    engine.register_fn("quarantine", quarantine);
    engine.register_fn("store", |context: NativeCallContext, message: &mut MessageView| {
        store(context, message, Map::new())
    });
    engine.register_fn("store", store);
}

/// The last reason given stands.
fn quarantine(context: NativeCallContext, message: &mut MessageView, reason: ImmutableString) -> ScriptResult<()> {
    let length = reason.chars().count();
    if reason.trim().is_empty() || length > MAX_REASON || reason.chars().any(char::is_control) {
        let text = format!("quarantine: the reason is one line of 1 to {MAX_REASON} characters, this has {length}");
        return Err(refuse(&context, text));
    }
    let at = message.run().place(&context);
    message.run().state().quarantine = Some((reason.to_string(), at));
    Ok(())
}

/// The last rejection asked for stands.
pub(super) fn reject(context: &NativeCallContext, run: &Run, reply: Result<Reply, String>) -> ScriptResult<()> {
    let reply = reply.map_err(|why| refuse(context, why))?;
    let at = run.place(context);
    run.state().reject = Some((reply, at));
    Ok(())
}

/// The last deferral asked for stands.
pub(super) fn defer(context: &NativeCallContext, run: &Run, reply: Result<Reply, String>) -> ScriptResult<()> {
    let reply = reply.map_err(|why| refuse(context, why))?;
    let at = run.place(context);
    run.state().defer = Some((reply, at));
    Ok(())
}

fn forward(context: NativeCallContext, message: &mut MessageView, to: Dynamic, headers: Map) -> ScriptResult<()> {
    let run = message.run();
    let headers = fields(headers).map_err(|why| refuse(&context, format!("forward: {why}")))?;
    let targets = match to.as_array_ref() {
        Ok(array) => array.clone(),
        Err(_) => Array::from([to.clone()]),
    };
    if targets.is_empty() {
        return Err(refuse(&context, "forward: no address given: the array is empty"));
    }
    for target in &targets {
        let to = forward_to(&run.environment, target).map_err(|why| refuse(&context, format!("forward: {why}")))?;
        run.stage(&context, Effect::Forward { to, headers: headers.clone() })?;
    }
    Ok(())
}

/// A destination of the configuration by its name, or an address.
///
/// # Errors
/// What is wrong with it.
pub fn forward_to(environment: &Environment, target: &Dynamic) -> Result<ForwardTo, String> {
    let Ok(text) = target.as_immutable_string_ref() else {
        return Err(format!("expected an address or a destination's name, got {}", article(target.type_name())));
    };
    if environment.destinations.iter().any(|name| *name == text.as_str()) {
        return Ok(ForwardTo::Destination(text.to_string()));
    }
    if text.contains('@') || text.is_empty() {
        return address::from_dynamic(target).map(ForwardTo::Address);
    }
    if environment.webhooks.iter().any(|name| *name == text.as_str()) {
        return Err(format!("{:?} is a webhook: use ctx.webhook", text.as_str()));
    }
    let names = environment.destinations.iter().map(String::as_str);
    let help = did_you_mean(&text, names, "a destination");
    Err(format!("{:?} is neither an address nor a destination ({help})", text.as_str()))
}

/// The fields to add, checked.
fn fields(headers: Map) -> Result<Vec<(String, String)>, String> {
    if headers.len() > MAX_FIELDS {
        return Err(format!("at most {MAX_FIELDS} header fields, these are {}", headers.len()));
    }
    headers.into_iter().map(|(name, value)| added(name.as_str(), &value)).collect()
}

fn added(name: &str, value: &Dynamic) -> Result<(String, String), String> {
    if !field::is_free(name) {
        return Err(format!("the header field {name:?} is protected: only X- fields can be added"));
    }
    field_name(name)?;
    Ok((name.to_owned(), field_value(name, value)?))
}

/// Whether a header field can be called that (RFC 5322 §3.6.8).
pub(super) fn field_name(name: &str) -> Result<(), String> {
    if !field::is_name(name) {
        return Err(format!("{name:?} is no name of a header field"));
    }
    Ok(())
}

/// What a header field may hold, on one line.
pub(super) fn field_value(name: &str, value: &Dynamic) -> Result<String, String> {
    let text = match value.as_immutable_string_ref() {
        Ok(text) => text.to_string(),
        Err(_) if value.is_int() || value.is_float() || value.is_bool() => value.to_string(),
        Err(_) => return Err(format!("the header field {name} is a string, not {}", article(value.type_name()))),
    };
    if !field::is_line(&text) {
        return Err(format!("the header field {name} has a line break or another control character"));
    }
    if text.len() > MAX_VALUE {
        return Err(format!("the header field {name} is at most {MAX_VALUE} octets, this has {}", text.len()));
    }
    Ok(text)
}

fn store(context: NativeCallContext, message: &mut MessageView, options: Map) -> ScriptResult<()> {
    let (mailbox, retention_secs) = store_options(options).map_err(|why| refuse(&context, format!("store: {why}")))?;
    message.run().stage(&context, Effect::Store { mailbox, retention_secs })
}

fn store_options(options: Map) -> Result<(Option<String>, Option<u64>), String> {
    let mut options = Options::new(options, options::STORE)?;
    let mailbox = options.text("mailbox")?;
    let bad = |name: &String| name.trim().is_empty() || name.len() > MAX_MAILBOX || name.chars().any(char::is_control);
    if mailbox.as_ref().is_some_and(bad) {
        return Err(format!("mailbox is a name of 1 to {MAX_MAILBOX} octets without control characters"));
    }
    let most = MAX_RETENTION_DAYS * 86_400;
    let retention = match options.integer("retention")? {
        None => None,
        Some(seconds) => match u64::try_from(seconds).ok().filter(|seconds| (1..=most).contains(seconds)) {
            None => return Err("retention is in seconds, at most ten years (30 * DAY)".to_owned()),
            some => some,
        },
    };
    Ok((mailbox, retention))
}

/// `session.redirect(address)`.
pub(super) fn redirect(context: &NativeCallContext, run: &Run, to: &Dynamic) -> ScriptResult<()> {
    let to: Address = address::from_dynamic(to).map_err(|why| refuse(context, format!("redirect: {why}")))?;
    let at = run.place(context);
    run.state().redirect = Some((to, at));
    Ok(())
}
