//! `message.tag(name)`: a label on the decision, for traces and lists. It does nothing to the message.

use rhai::{Engine, ImmutableString, NativeCallContext};

use super::message::MessageView;
use super::run::{ScriptResult, refuse};

/// Labels of one run, and characters of each.
const MAX_TAGS: usize = 20;
const MAX_TAG: usize = 50;

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("tag", tag);
}

fn tag(context: NativeCallContext, message: &mut MessageView, name: ImmutableString) -> ScriptResult<()> {
    let length = name.chars().count();
    if length == 0 || length > MAX_TAG || name.chars().any(|c| c.is_control() || c.is_whitespace() || c == ',') {
        let text = format!("tag: a label is 1 to {MAX_TAG} characters without blanks and commas, as in \"invoice\"");
        return Err(refuse(&context, text));
    }
    let mut state = message.run().state();
    if state.tags.iter().any(|tag| *tag == name.as_str()) {
        return Ok(());
    }
    if state.tags.len() >= MAX_TAGS {
        return Err(refuse(&context, format!("tag: more than {MAX_TAGS} labels on one message")));
    }
    state.tags.push(name.to_string());
    Ok(())
}
