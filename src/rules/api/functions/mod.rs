//! Functions that belong to nothing a script is handed: patterns, encodings, JSON, dates, addresses, templates.
//!
//! Pure: what comes in decides what comes out. `f(text, x)` and `text.f(x)` are the same call. What they do at a stretch
//! counts as operations (`engine::charge`), and what they give is held to the budget's sizes. Rows of
//! `reference/functions.rs` say what each takes, and stand for it in errors.

mod dates;
mod domains;
mod encodings;
pub mod json;
mod parsing;
mod pattern;
mod random;
mod regex;
mod templates;

use bytes::Bytes;
use rhai::{Dynamic, Engine, EvalAltResult, NativeCallContext};

use super::bounds::Bounds;
use super::octets::Octets;
use super::run::{ScriptResult, hidden, refuse};
use super::value::article;
use crate::rules::engine::charge;

pub use pattern::wrong_with as wrong_with_pattern;

pub(super) fn register(engine: &mut Engine) {
    dates::register(engine);
    domains::register(engine);
    encodings::register(engine);
    json::register(engine);
    parsing::register(engine);
    random::register(engine);
    regex::register(engine);
    templates::register(engine);
}

/// An error that begins with the function's name.
#[allow(clippy::unnecessary_box_returns)] // As the engine takes it.
fn say(context: &NativeCallContext, why: impl std::fmt::Display) -> Box<EvalAltResult> {
    refuse(context, format!("{}: {why}", context.fn_name()))
}

/// What a script wrote, short enough for an error.
fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let text = hidden(text);
    let cut = text.floor_char_boundary(MOST);
    let start = text.get(..cut).unwrap_or_default();
    if cut < text.len() { format!("{start:?}…") } else { format!("{start:?}") }
}

/// The octets of a string, a blob or octets; `what` is the parameter.
fn octets(context: &NativeCallContext, what: &str, value: &Dynamic) -> ScriptResult<Bytes> {
    let text = value.as_immutable_string_ref().ok().map(|text| Bytes::copy_from_slice(text.as_bytes()));
    let octets = text.or_else(|| Octets::from_dynamic(value).map(|octets| octets.bytes().clone()));
    let octets = octets.ok_or_else(|| {
        let found = article(value.type_name());
        say(context, format!("{what} is a string, a blob or octets, not {found}"))
    })?;
    charge(octets.len());
    Ok(octets)
}

/// The string or the strings that `value` is; `what` is the parameter.
fn texts(context: &NativeCallContext, what: &str, value: &Dynamic) -> ScriptResult<Vec<String>> {
    let text = |value: &Dynamic| {
        let text = value.as_immutable_string_ref().ok().map(|text| text.to_string());
        text.ok_or_else(|| {
            let found = article(value.type_name());
            say(context, format!("{what} is a string or an array of strings, not {found}"))
        })
    };
    let texts = match value.as_array_ref() {
        Ok(array) => array.iter().map(text).collect::<ScriptResult<Vec<_>>>()?,
        Err(_) => vec![text(value)?],
    };
    charge(texts.iter().map(|text| text.len() + 64).sum());
    Ok(texts)
}

/// Whether a text of that many octets may be given to the script.
fn fits(context: &NativeCallContext, length: usize) -> ScriptResult<()> {
    let most = Bounds::of(context).string;
    if length <= most {
        return Ok(());
    }
    Err(say(context, format!("the result has {length} octets, [budget] string_size is {most}")))
}
