//! What Rhai's own functions would make of a string before anybody looks at its size: a `replace` of one character by
//! many, in a text of many, is more memory than the machine has.

use rhai::{Engine, ImmutableString, NativeCallContext};

use super::api::bounds::Bounds;
use super::api::run::{ScriptResult, refuse};
use super::engine::charge;

/// In place of Rhai's own.
pub(super) fn bound(engine: &mut Engine) {
    engine.register_fn("replace", |context: NativeCallContext, text: &mut ImmutableString, find: &str, with: &str| {
        replace(&context, text, find, with)
    });
    engine.register_fn("replace", |context: NativeCallContext, text: &mut ImmutableString, find: &str, with: char| {
        replace(&context, text, find, with.encode_utf8(&mut [0; 4]))
    });
    engine.register_fn("replace", |context: NativeCallContext, text: &mut ImmutableString, find: char, with: &str| {
        replace(&context, text, find.encode_utf8(&mut [0; 4]), with)
    });
    engine.register_fn("replace", |context: NativeCallContext, text: &mut ImmutableString, find: char, with: char| {
        replace(&context, text, find.encode_utf8(&mut [0; 4]), with.encode_utf8(&mut [0; 4]))
    });
}

fn replace(context: &NativeCallContext, text: &mut ImmutableString, find: &str, with: &str) -> ScriptResult<()> {
    let most = Bounds::of(context).string;
    let matches = text.matches(find).count();
    let shorter = text.len().saturating_sub(matches.saturating_mul(find.len()));
    let length = shorter.saturating_add(matches.saturating_mul(with.len()));
    if length > most {
        return Err(refuse(context, format!("replace: a string longer than {most} octets")));
    }
    charge(text.len().saturating_add(length));
    *text = text.replace(find, with).into();
    Ok(())
}
