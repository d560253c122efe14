//! `kv`: a worker's key-value namespaces, read beside the running server and written through it.

use std::io::IsTerminal as _;

use serde_json::json;

use super::access::{self, Writer};
use super::args::{Common, Kv};
use super::print::{self, DIM, Painted, plain};
use super::{Done, Failure, configured};
use crate::clock;
use crate::config::Config;
use crate::diagnostic::suggest;
use crate::kv::{self, Entry, MAX_KEY, MAX_LIST, MAX_VALUE, MIN_TTL, Value, View, Write};

pub async fn run(common: &Common, verb: Kv) -> Done {
    let config = configured::load(common)?.config;
    match verb {
        Kv::Get { binding, key, machine } => {
            bound(&config, &binding)?;
            let view = access::reader(&config)?;
            let found = view.get(&binding, &key, clock::now()).map_err(Failure::failed)?;
            let entry = found.ok_or_else(|| Failure::Failed(format!("{binding} has no key {key:?}")))?;
            if machine.json { print::json(&entry_json(&key, &entry)) } else { value(&entry.value) }
        }
        Kv::List { binding, prefix, limit, values, machine } => {
            bound(&config, &binding)?;
            let view = access::reader(&config)?;
            list(&view, &binding, &prefix, limit, (values, machine.json))
        }
        Kv::Put { binding, key, value, ttl, text } => {
            bound(&config, &binding)?;
            let write = put(binding, key, value, ttl, text)?;
            write_one(&config, write).await
        }
        Kv::Delete { binding, key } => {
            bound(&config, &binding)?;
            write_one(&config, Write::Delete { namespace: binding, key }).await
        }
    }
}

/// A slip in a name must not look like an empty namespace.
fn bound(config: &Config, binding: &str) -> Result<(), Failure> {
    if config.kv_namespaces.iter().any(|name| name == binding) {
        return Ok(());
    }
    let names = config.kv_namespaces.join(", ");
    let hint = match suggest(binding, config.kv_namespaces.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean {meant}?"),
        None if names.is_empty() => "the configuration has no [[kv_namespaces]]".to_owned(),
        None => format!("there are: {names}"),
    };
    Err(Failure::Usage(format!("no namespace is bound to {binding:?}: {hint}")))
}

async fn write_one(config: &Config, write: Write) -> Done {
    let writer = Writer::open(config).await?;
    let written = writer.kv_write(write).await;
    writer.close().await;
    written
}

fn put(
    namespace: String,
    key: String,
    text: String,
    ttl: Option<std::time::Duration>,
    as_text: bool,
) -> Result<Write, Failure> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(Failure::Usage(format!("a key has 1 to {MAX_KEY} octets; this one has {}", key.len())));
    }
    if text.len() > MAX_VALUE {
        return Err(Failure::Usage(format!("a value has at most {MAX_VALUE} octets; this one has {}", text.len())));
    }
    if let Some(ttl) = ttl.filter(|ttl| ttl.as_secs() < MIN_TTL) {
        return Err(Failure::Usage(format!("--ttl {ttl:?} is shorter than {MIN_TTL} s")));
    }
    let parsed = if as_text || !numbers_stay(&text) { None } else { serde_json::from_str(&text).ok() };
    let value = match parsed {
        None | Some(serde_json::Value::Null) => Value::Text(text),
        Some(serde_json::Value::String(text)) => Value::Text(text),
        Some(json) => Value::Json(json),
    };
    let expires_at = ttl.map(|ttl| clock::now().plus(ttl));
    Ok(Write::Put { namespace, key, value, metadata: None, expires_at })
}

/// Whether every number of a JSON text is still the same once it is read. One alone must stay as it was written, since
/// it may be none (a telephone number, an id); within more, a whole number must be one that a script can hold.
fn numbers_stay(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
    if text.trim().chars().all(is_part) {
        return serde_json::from_str::<serde_json::Number>(text).is_ok_and(|number| number.to_string() == text.trim());
    }
    // What is outside of strings: every second part, once quotes within strings are gone.
    let unescaped = text.replace("\\\\", "").replace("\\\"", "");
    let mut words = unescaped.split('"').step_by(2).flat_map(|part| part.split(|c| !is_part(c)));
    words.all(|word| {
        !word.bytes().any(|byte| byte.is_ascii_digit()) || word.contains(['.', 'e', 'E']) || word.parse::<i64>().is_ok()
    })
}

/// As it was put, JSON laid out; on a terminal without what that would obey.
fn value(value: &Value) -> Done {
    match value {
        Value::Text(text) => print::text(text),
        Value::Blob(octets) if std::io::stdout().is_terminal() => print::text(&String::from_utf8_lossy(octets)),
        Value::Blob(octets) => print::bytes(octets),
        Value::Json(json) => print::line(print::escaped(&serde_json::to_string_pretty(json).map_err(Failure::failed)?)),
    }
}

/// Characters of a value in a list.
const SHOWN: usize = 80;

/// A value as a line of a list begins with it.
fn in_one_line(value: &Value) -> String {
    let text = match value {
        Value::Text(text) => text.chars().take(2 * SHOWN).collect(),
        Value::Blob(octets) => format!("{} octets", octets.len()),
        Value::Json(json) => json.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn entry_json(key: &str, entry: &Entry) -> serde_json::Value {
    let (kind, value) = match &entry.value {
        Value::Text(text) => ("text", json!(text)),
        Value::Blob(octets) => {
            ("blob", json!(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, octets)))
        }
        Value::Json(value) => ("json", value.clone()),
    };
    json!({
        "key": key,
        "type": kind,
        "value": value,
        "metadata": entry.metadata,
        "expires_at": entry.expires_at,
    })
}

fn list(view: &dyn kv::View, binding: &str, prefix: &str, limit: usize, (values, json): (bool, bool)) -> Done {
    let (now, mut cursor, mut left) = (clock::now(), None::<String>, limit);
    while left > 0 {
        let page = view.list(binding, prefix, cursor.as_deref(), left.min(MAX_LIST), now).map_err(Failure::failed)?;
        for key in &page.keys {
            if values {
                // One that another commit has taken in the meantime is listed no more.
                let Some(entry) = view.get(binding, &key.name, now).map_err(Failure::failed)? else { continue };
                if json {
                    print::json(&entry_json(&key.name, &entry))?;
                } else {
                    let expires = entry.expires_at.map(|at| format!("  expires {at}")).unwrap_or_default();
                    let value = print::short(&in_one_line(&entry.value), SHOWN);
                    print::line(format_args!("{}  {value}{}", plain(&key.name), Painted(DIM, expires)))?;
                }
            } else if json {
                print::json(&json!({ "key": key.name, "metadata": key.metadata, "expires_at": key.expires_at }))?;
            } else {
                let expires = key.expires_at.map(|at| format!("  expires {at}")).unwrap_or_default();
                print::line(format_args!("{}{}", plain(&key.name), Painted(DIM, expires)))?;
            }
        }
        left = left.saturating_sub(page.keys.len());
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(text: &str, as_text: bool) -> Value {
        match put("N".into(), "k".into(), text.into(), None, as_text).unwrap() {
            Write::Put { value, .. } => value,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn json_is_kept_as_json_unless_text_is_asked_for() {
        assert_eq!(value_of("hello", false), Value::Text("hello".into()));
        assert_eq!(value_of("[1,2]", false), Value::Json(json!([1, 2])));
        assert_eq!(value_of("[1,2]", true), Value::Text("[1,2]".into()));
        assert_eq!(value_of("\"quoted\"", false), Value::Text("quoted".into()));
    }

    #[test]
    fn a_number_that_would_not_stay_the_same_is_text() {
        for same in ["7", "-7", "0.5", "[1.50, 2]", "{\"a\\\"9\": \"12345678901234567890123\"}", "9223372036854775807"]
        {
            assert!(matches!(value_of(same, false), Value::Json(_)), "{same}");
        }
        for other in ["12345678901234567890123", "[12345678901234567890123]", "1.50", "1e3", "+7", "007", "1-2"] {
            assert_eq!(value_of(other, false), Value::Text(other.into()));
        }
    }

    #[test]
    fn a_short_life_and_a_long_key_are_wrong_usage() {
        let short = put("N".into(), "k".into(), "v".into(), Some(std::time::Duration::from_secs(5)), false);
        assert!(matches!(short, Err(Failure::Usage(text)) if text.contains("60 s")));
        let long = put("N".into(), "k".repeat(513), "v".into(), None, false);
        assert!(matches!(long, Err(Failure::Usage(text)) if text.contains("512")));
    }
}
