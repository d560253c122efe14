//! `message.tag(name)`: a label on the decision, for traces and lists. It does nothing to the message.

use rhai::{Engine, ImmutableString, NativeCallContext};

use super::message::MessageView;
use super::run::{ScriptResult, refuse};
use crate::mail::label::{MAX_LABEL, MAX_LABELS, is_label};

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("tag", tag);
}

fn tag(context: NativeCallContext, message: &mut MessageView, name: ImmutableString) -> ScriptResult<()> {
    if !is_label(&name) {
        let text = format!("tag: a label is 1 to {MAX_LABEL} characters without blanks and commas, as in \"invoice\"");
        return Err(refuse(&context, text));
    }
    let mut state = message.run().state();
    if state.tags.iter().any(|tag| *tag == name.as_str()) {
        return Ok(());
    }
    if state.tags.len() >= MAX_LABELS {
        return Err(refuse(&context, format!("tag: more than {MAX_LABELS} labels on one message")));
    }
    state.tags.push(name.to_string());
    Ok(())
}
