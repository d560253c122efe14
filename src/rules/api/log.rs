//! `print` and `debug`: lines in the message's trace, with the place they were said at.
//!
//! `print` shows a value as text, `debug` as it is written in a script. Without a run (a file's top level, while the
//! rules are loaded) there is no trace and nothing is said.

use rhai::{Array, Blob, Dynamic, Engine, ImmutableString, Map, NativeCallContext};

use super::run::{current, place_at};
use super::value;

pub(super) fn register(engine: &mut Engine) {
    // The engine's own take each type by itself; so must these, to come first.
    engine.register_fn("print", |context: NativeCallContext| print(&context, ""));
    engine.register_fn("print", |context: NativeCallContext, (): ()| print(&context, ""));
    engine.register_fn("print", |context: NativeCallContext, text: ImmutableString| print(&context, &text));
    engine.register_fn("print", |context: NativeCallContext, value: bool| print(&context, &value.to_string()));
    engine.register_fn("print", |context: NativeCallContext, value: char| print(&context, &value.to_string()));
    engine.register_fn("print", |context: NativeCallContext, value: i64| print(&context, &value.to_string()));
    engine.register_fn("print", |context: NativeCallContext, value: f64| shown(&context, value));
    engine.register_fn("print", |context: NativeCallContext, value: Array| shown(&context, value));
    engine.register_fn("print", |context: NativeCallContext, value: Map| shown(&context, value));
    engine.register_fn("print", |context: NativeCallContext, value: Blob| shown(&context, value));
    engine.register_fn("print", |context: NativeCallContext, value: Dynamic| print(&context, &value::shown(&value)));
    engine.on_debug(|text, source, position| {
        if let Some(run) = current() {
            run.log(place_at(source.unwrap_or(&run.main), position), text);
        }
    });
}

fn shown<T: rhai::Variant + Clone>(context: &NativeCallContext, value: T) -> ImmutableString {
    print(context, &Dynamic::from(value).to_string())
}

/// What the engine would print goes nowhere.
fn print(context: &NativeCallContext, text: &str) -> ImmutableString {
    if let Some(run) = current() {
        run.log(run.place(context), text);
    }
    ImmutableString::new()
}
