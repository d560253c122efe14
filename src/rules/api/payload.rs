//! What a webhook carries: a script's own text as it is, another value as JSON, or the message itself in a format that
//! others know.
//!
//! `message.to_payload` says which format and holds nothing: the body is made when it is sent, of the octets as
//! received, so that large attachments stand neither in the script's memory nor in the queue. A script can't look into
//! it; what it wants to add it puts into a map of its own.

use rhai::{Dynamic, Engine, ImmutableString, NativeCallContext};

use super::env::did_you_mean;
use super::message::MessageView;
use super::run::{ScriptResult, beginning, refuse};
use super::value::{article, to_json};
use crate::mail::PayloadFormat;
use crate::rules::outcome::Carried;

/// Octets of a script's own.
const MAX_PAYLOAD: usize = 1024 * 1024;

/// The message of the run, in a format.
#[derive(Debug, Clone, Copy)]
pub struct PayloadView(PayloadFormat);

pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<PayloadView>("payload");
    engine.register_fn("to_payload", |_: &mut MessageView| PayloadView(PayloadFormat::Standard));
    engine.register_fn(
        "to_payload",
        |context: NativeCallContext, _: &mut MessageView, format: ImmutableString| -> ScriptResult<PayloadView> {
            let format = format_of(&format).map_err(|why| refuse(&context, format!("to_payload: {why}")))?;
            Ok(PayloadView(format))
        },
    );
}

/// What `ctx.webhook` is given.
///
/// # Errors
/// Why it can't be carried.
pub fn carried(payload: &Dynamic, format: Option<String>) -> Result<Carried, String> {
    let format = format.as_deref().map(format_of).transpose()?;
    if payload.read_lock::<MessageView>().is_some() {
        return Ok(Carried::Message { format });
    }
    if let Some(made) = payload.read_lock::<PayloadView>() {
        return match format {
            Some(other) if other != made.0 => {
                Err(format!("the payload is made for {} already, not for {}", made.0.word(), other.word()))
            }
            _ => Ok(Carried::Message { format: Some(made.0) }),
        };
    }
    if format.is_some() {
        let given = article(payload.type_name());
        return Err(format!("a format is for `message` as the payload; {given} goes as JSON"));
    }
    if let Ok(text) = payload.as_immutable_string_ref() {
        // What a script signed or encoded itself: JSON of it would be another text.
        return small(text.len()).map(|()| Carried::Json(text.to_string()));
    }
    let json = to_json(payload).map_err(|why| format!("payload: {why}"))?;
    // By way of `Display` it takes twice as long.
    let body = serde_json::to_string(&json).map_err(|why| format!("payload: {why}"))?;
    small(body.len()).map(|()| Carried::Json(body))
}

fn small(length: usize) -> Result<(), String> {
    if length <= MAX_PAYLOAD {
        return Ok(());
    }
    Err(format!("a payload is at most {MAX_PAYLOAD} octets, this has {length}"))
}

fn format_of(word: &str) -> Result<PayloadFormat, String> {
    PayloadFormat::of_word(word).ok_or_else(|| {
        let shown = beginning(word, 40);
        let words = PayloadFormat::ALL.iter().map(|format| format.word());
        format!("no format {shown:?} ({})", did_you_mean(&shown, words, "formats"))
    })
}
