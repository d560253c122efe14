//! `render`: a text with `{{name}}` in it, filled from a map.
//!
//! What is put in is never looked at again, so that a value can't name another. A name that the map hasn't is an error.

use rhai::{Dynamic, Engine, ImmutableString, Map, NativeCallContext};

use super::super::env::did_you_mean;
use super::super::value::to_json;
use super::{Bounds, ScriptResult, charge, say, shown};

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn(
        "render",
        |context: NativeCallContext, template: ImmutableString, values: Map| -> ScriptResult<String> {
            rendered(&context, &template, &values, false)
        },
    );
    engine.register_fn(
        "render_html",
        |context: NativeCallContext, template: ImmutableString, values: Map| -> ScriptResult<String> {
            rendered(&context, &template, &values, true)
        },
    );
    engine.register_fn("html_escape", |context: NativeCallContext, text: ImmutableString| -> ScriptResult<String> {
        let mut result = String::new();
        escape(&text, &mut result);
        charge(result.len());
        super::fits(&context, result.len())?;
        Ok(result)
    });
}

fn rendered(context: &NativeCallContext, template: &str, values: &Map, html: bool) -> ScriptResult<String> {
    let most = Bounds::of(context).string;
    let (mut result, mut rest) = (String::new(), template);
    while let Some((before, after)) = rest.split_once("{{") {
        result.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            let at = template.len() - after.len() - 2;
            let line = template.get(..at).unwrap_or_default().matches('\n').count() + 1;
            return Err(say(context, format!("line {line} of the template has {{{{ without its }}}}")));
        };
        let text = value(name.trim(), values).map_err(|why| say(context, why))?;
        if html {
            escape(&text, &mut result);
        } else {
            result.push_str(&text);
        }
        charge(name.len() + text.len() + 64);
        if result.len() > most {
            break;
        }
        rest = after;
    }
    if result.len().saturating_add(rest.len()) > most {
        return Err(say(context, format!("the result is longer than [budget] string_size, {most} octets")));
    }
    result.push_str(rest);
    charge(result.len());
    Ok(result)
}

/// What stands for `a.b.0`, as text.
fn value(path: &str, values: &Map) -> Result<String, String> {
    let mut names = path.split('.');
    let first = names.next().unwrap_or_default();
    let mut found = entry(first, values, path)?.clone();
    for name in names {
        found = member(&found, name, path)?;
    }
    if found.is_unit() {
        return Ok(String::new());
    }
    if let Ok(text) = found.as_immutable_string_ref() {
        return Ok(text.to_string());
    }
    match to_json(&found).map_err(|why| format!("{{{{{path}}}}}: {why}"))? {
        serde_json::Value::String(text) => Ok(text),
        json => Ok(json.to_string()),
    }
}

fn entry<'a>(name: &str, values: &'a Map, path: &str) -> Result<&'a Dynamic, String> {
    values.get(name).ok_or_else(|| {
        let help = did_you_mean(name, values.keys().map(rhai::Identifier::as_str), "there");
        format!("the map has no {} for {{{{{path}}}}} ({help})", shown(name))
    })
}

fn member(value: &Dynamic, name: &str, path: &str) -> Result<Dynamic, String> {
    if let Ok(map) = value.as_map_ref() {
        return entry(name, &map, path).cloned();
    }
    let item = value.as_array_ref().ok().and_then(|array| array.get(name.parse::<usize>().ok()?).cloned());
    item.ok_or_else(|| format!("{} of {{{{{path}}}}} is looked for in what has no such part", shown(name)))
}

/// Fit for the text of an element and for a quoted attribute.
fn escape(text: &str, into: &mut String) {
    for character in text.chars() {
        match character {
            '&' => into.push_str("&amp;"),
            '<' => into.push_str("&lt;"),
            '>' => into.push_str("&gt;"),
            '"' => into.push_str("&quot;"),
            '\'' => into.push_str("&#39;"),
            other => into.push(other),
        }
    }
}
