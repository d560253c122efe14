//! What a script changes of the message for its next hops: `set_header`, `remove_header`.
//!
//! Nothing is changed here, and the message that scripts read stays as it was received: each change is an effect, for
//! the forwards after it. Refused: fields that tell a message's way, prove it or say how its body is to be read.
//! Standards: RFC 5322 §2.2, §3.6; RFC 2047 §5 (where encoded words may stand), RFC 6376, RFC 8601, RFC 8617.
//! Bound: the places in a message where a run takes fields out are counted.

use rhai::{Dynamic, Engine, ImmutableString, NativeCallContext};

use super::actions::{field_name, field_value};
use super::message::MessageView;
use super::run::{ScriptResult, refuse};
use crate::mail::field::{is_among, is_structured};
use crate::rules::outcome::Effect;

/// Places in the message that one run takes fields out of: each stands in every forward's task.
const MAX_PLACES: usize = 1_000;

/// In lower case; a name that ends with `-` is every one that begins so.
const PROTECTED: &[&str] = &[
    "received",
    "return-path",
    "delivered-to",
    "dkim-signature",
    "authentication-results",
    "arc-",
    "mime-version",
    "content-",
];

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn(
        "set_header",
        |context: NativeCallContext, message: &mut MessageView, name: ImmutableString, value: Dynamic| {
            let checked = checked(&name, Some(&value)).map_err(|why| refuse(&context, format!("set_header: {why}")))?;
            change(&context, message, &name, checked)
        },
    );
    engine.register_fn(
        "remove_header",
        |context: NativeCallContext, message: &mut MessageView, name: ImmutableString| {
            let checked = checked(&name, None).map_err(|why| refuse(&context, format!("remove_header: {why}")))?;
            change(&context, message, &name, checked)
        },
    );
}

/// The value to stand there, if one is to.
fn checked(name: &str, value: Option<&Dynamic>) -> Result<Option<String>, String> {
    field_name(name)?;
    if is_among(PROTECTED, name) {
        return Err(format!(
            "the header field {name:?} is protected: it tells the message's way, proves it or says how its body is read"
        ));
    }
    let Some(value) = value else { return Ok(None) };
    let text = field_value(name, value)?;
    if is_structured(name) && !text.is_ascii() {
        return Err(format!("the header field {name} is ASCII: write a name in it as an encoded word (RFC 2047)"));
    }
    Ok(Some(text))
}

fn change(
    context: &NativeCallContext,
    message: &mut MessageView,
    name: &str,
    value: Option<String>,
) -> ScriptResult<()> {
    let run = message.run();
    let Some(places) = message.call().message.places(&[name.to_owned()]) else {
        return Err(refuse(
            context,
            "the message has more header fields than are looked at: none can be changed safely",
        ));
    };
    let mut state = run.state();
    state.places = state.places.saturating_add(places.len());
    let too_many = state.places > MAX_PLACES;
    drop(state);
    if too_many {
        return Err(refuse(
            context,
            format!("{name} and others stand in more than {MAX_PLACES} places: too many to take out"),
        ));
    }
    run.stage(context, Effect::Header { name: name.to_owned(), value })
}
