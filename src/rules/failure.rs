//! An error of a script in words: where it happened, and what was wrong or exceeded.
//!
//! Rhai's errors nest, one in each call that they passed through; the innermost one is what its author wants to see.
//! Overruns lose the place inside functions they pass through: of them the place is the call in the handler.

use rhai::{EvalAltResult, Position};

use super::api::run::{Fatal, place_at};
use super::api::value::article;
use super::engine::Budget;
use super::hidden::Hidden;
use super::outcome::Place;
use super::reference::takes;

/// Octets of what is said of one error.
const MAX_TEXT: usize = 1000;

/// Where, and what. `file` and `position` stand in where the error names none.
pub(super) fn describe(
    error: &EvalAltResult,
    (file, position): (&str, Position),
    budget: &Budget,
    hidden: &Hidden,
) -> (Place, String) {
    let (place, text) = innermost(error, file, position, budget);
    (place, tidy(&hidden.hide(text)))
}

fn innermost(error: &EvalAltResult, file: &str, position: Position, budget: &Budget) -> (Place, String) {
    let own = error.position();
    let position = if own.is_none() { position } else { own };
    match error {
        EvalAltResult::ErrorInFunctionCall(_, source, inner, _) => {
            let file = if source.is_empty() { file } else { source };
            innermost(inner, file, position, budget)
        }
        EvalAltResult::ErrorInModule(_, inner, _) => innermost(inner, file, position, budget),
        EvalAltResult::ErrorSystem(_, inner) => match inner.downcast_ref::<Fatal>() {
            Some(fatal) => (fatal.at.clone(), fatal.text.clone()),
            None => (place_at(file, position), inner.to_string()),
        },
        other => (place_at(file, position), text(other, budget)),
    }
}

fn text(error: &EvalAltResult, budget: &Budget) -> String {
    match error {
        EvalAltResult::ErrorTooManyOperations(_) => format!("more than {} operations", budget.operations),
        EvalAltResult::ErrorTerminated(what, _) => what.to_string(),
        EvalAltResult::ErrorStackOverflow(_) => format!("calls nested deeper than {}", budget.call_depth),
        EvalAltResult::ErrorTooManyVariables(_) => "too many variables at a time".to_owned(),
        EvalAltResult::ErrorTooManyModules(_) => "too many imports".to_owned(),
        EvalAltResult::ErrorDataTooLarge(what, _) => too_large(what, budget),
        EvalAltResult::ErrorRuntime(value, _) if value.is_unit() => "thrown without a word".to_owned(),
        EvalAltResult::ErrorRuntime(value, _) => value.to_string(),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => not_found(signature),
        EvalAltResult::ErrorVariableNotFound(name, _) => format!("no variable {name}"),
        EvalAltResult::ErrorModuleNotFound(name, _) => format!("no module {name}"),
        EvalAltResult::ErrorMismatchDataType(expected, found, _)
        | EvalAltResult::ErrorMismatchOutputType(expected, found, _)
            if !expected.is_empty() && !found.is_empty() =>
        {
            format!("expected {}, found {}", article(expected), article(found))
        }
        EvalAltResult::ErrorDotExpr(text, _) => no_member(text).unwrap_or_else(|| bare(error)),
        EvalAltResult::ErrorIndexingType(text, _) => no_index(text).unwrap_or_else(|| bare(error)),
        other => bare(other),
    }
}

/// `Unknown property 'x' - a getter is not registered for type 'T'`, and what is said of setters.
fn no_member(text: &str) -> Option<String> {
    let mut quoted = text.split('\'').skip(1).step_by(2);
    let (name, of) = (quoted.next()?, quoted.next()?);
    if text.starts_with("Unknown property") {
        let help = if of == "()" { format!("; where () can come, write value?.{name}") } else { String::new() };
        return Some(format!("no member {name} of {}{help}", article(of)));
    }
    text.starts_with("No writable property").then(|| format!("{name} of {} can't be set", article(of)))
}

/// `headers [string]`
fn no_index(text: &str) -> Option<String> {
    let (of, by) = text.split_once(" [")?;
    let help = if of == "headers" { ": headers.get(name) has a field, headers.get_all(name) every one" } else { "" };
    Some(format!("{} has no [{}]{help}", article(of), by.strip_suffix(']')?))
}

fn too_large(what: &str, budget: &Budget) -> String {
    if what.contains("string") {
        format!("a string longer than {} octets", budget.string_size)
    } else if what.contains("map") {
        format!("a map of more than {} entries, its maps included", budget.map_size)
    } else {
        format!("an array or blob of more than {} elements, its arrays included", budget.array_size)
    }
}

/// A function by that name there may be, with other parameters.
fn not_found(signature: &str) -> String {
    let signature = readable(signature);
    let Some((takes, given)) = signature.split_once(" (").and_then(|(name, given)| Some((takes(name)?, given))) else {
        return format!("no function {signature}");
    };
    let given = given.strip_suffix(')').unwrap_or(given).replace("i64", "integer").replace("f64", "float");
    let help = if given.contains("()") { "; where () can come, as of headers.get, write value ?? \"\"" } else { "" };
    format!("{takes}, not ({given}){help}")
}

/// `foo (message, &str | ImmutableString | String)` as its author would write it.
fn readable(signature: &str) -> String {
    signature.replace("&str | ImmutableString | String", "string").replace("ImmutableString", "string")
}

/// Rhai's own words, without the place that stands before them already.
fn bare(error: &EvalAltResult) -> String {
    let text = error.to_string();
    let place = format!(" ({})", error.position());
    readable(text.strip_suffix(&place).unwrap_or(&text))
}

/// One line of bounded length, safe to print.
fn tidy(text: &str) -> String {
    let cut = text.floor_char_boundary(MAX_TEXT);
    let line = text.get(..cut).unwrap_or_default();
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if cut < text.len() { format!("{line}…") } else { line }
}
