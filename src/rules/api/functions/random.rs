//! `random_id`: nothing random here; it is drawn from the seed that the run was given.

use rhai::{Engine, ImmutableString, NativeCallContext};

use super::super::octets::hexadecimal;
use super::super::run::current;
use super::{ScriptResult, say};

/// Octets of an id.
const LENGTH: usize = 16;

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("random_id", |context: NativeCallContext| -> ScriptResult<ImmutableString> {
        let Some(run) = current() else {
            return Err(say(&context, "call it in a handler: while the rules are loaded there is no message"));
        };
        Ok(hexadecimal(run.draw().get(..LENGTH).unwrap_or_default()))
    });
}
