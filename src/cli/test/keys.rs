//! The keys that a test's run reads, and what its writes make of them: a namespace's words without a store.
//!
//! How a test file writes a value: as it is, or, with more than a value to say, as a table of `$value` (or `$base64` for
//! octets), `$metadata` and `$expiration_ttl`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};

use crate::diagnostic::suggest;
use crate::kv::{self, Entry, Page, Value, ViewError, Write};
use crate::mail::Timestamp;
use crate::store::Limits;

/// Namespace and key.
pub type Name = (String, String);

const MORE: [&str; 4] = ["$value", "$base64", "$metadata", "$expiration_ttl"];

/// What a test file says of a key: `value`, and with it `metadata` and `expiration_ttl` where they are named.
///
/// # Errors
/// What is wrong, and on a second line what to do.
pub fn said(written: &Json) -> Result<Map<String, Json>, String> {
    let mut item = Map::new();
    let Some(table) = written.as_object().filter(|table| table.keys().any(|key| key.starts_with('$'))) else {
        item.insert("value".to_owned(), written.clone());
        return Ok(item);
    };
    for (key, value) in table {
        let field = match key.as_str() {
            "$value" => "value",
            "$base64" => {
                if value.as_str().and_then(|text| STANDARD.decode(text).ok()).is_none() {
                    return Err("`$base64` is octets in base64, as a string".to_owned());
                }
                item.insert("value".to_owned(), json!({ "$base64": value }));
                continue;
            }
            "$metadata" => "metadata",
            "$expiration_ttl" if value.as_u64().is_some() => "expiration_ttl",
            "$expiration_ttl" => return Err("`$expiration_ttl` is in seconds, counted from `now`".to_owned()),
            other => {
                let help = match suggest(other, MORE) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("beside a value's own keys, the keys here are {}", MORE.join(", ")),
                };
                return Err(format!("unknown key `{}`\n{help}", other.escape_debug()));
            }
        };
        item.insert(field.to_owned(), value.clone());
    }
    Ok(item)
}

/// The entry that a test file lays down before a run.
///
/// # Errors
/// As [`said`].
pub fn entry(written: &Json, now: Timestamp) -> Result<Entry, String> {
    let mut item = said(written)?;
    let value = item.remove("value").ok_or("a key has a value\nwrite `$value` or `$base64`")?;
    let octets = value.get("$base64").and_then(Json::as_str).and_then(|text| STANDARD.decode(text).ok());
    let value = match (octets, value) {
        (Some(octets), _) => Value::Blob(octets),
        (None, Json::String(text)) => Value::Text(text),
        (None, other) => Value::Json(other),
    };
    let ttl = item.get("expiration_ttl").and_then(Json::as_u64).map(Duration::from_secs);
    Ok(Entry { value, metadata: item.remove("metadata"), expires_at: ttl.map(|ttl| now.plus(ttl)), version: 1 })
}

/// A key as it is, in the words of [`said`].
#[must_use]
pub fn shown(entry: &Entry, now: Timestamp) -> Map<String, Json> {
    let value = match &entry.value {
        Value::Text(text) => json!(text),
        Value::Json(json) => json.clone(),
        Value::Blob(octets) => json!({ "$base64": STANDARD.encode(octets) }),
    };
    let mut item = Map::from_iter([("value".to_owned(), value)]);
    if let Some(metadata) = &entry.metadata {
        item.insert("metadata".to_owned(), metadata.clone());
    }
    if let Some(at) = entry.expires_at {
        item.insert("expiration_ttl".to_owned(), json!(at.since(now).as_secs()));
    }
    item
}

/// The words of [`said`] as a test file writes them.
#[must_use]
pub fn written(item: &Map<String, Json>) -> Json {
    let value = item.get("value").cloned().unwrap_or_default();
    if item.contains_key("metadata") || item.contains_key("expiration_ttl") {
        let mut table = match value {
            Json::Object(octets) if octets.contains_key("$base64") => octets,
            value => Map::from_iter([("$value".to_owned(), value)]),
        };
        for field in ["metadata", "expiration_ttl"] {
            table.extend(item.get(field).map(|value| (format!("${field}"), value.clone())));
        }
        return Json::Object(table);
    }
    value
}

/// What a test's runs read and have written.
pub struct Keys(Mutex<State>, Limits);

struct State {
    entries: BTreeMap<Name, Entry>,
    version: u64,
    /// How many were decided by these: what each asks of a limit is a question of its own.
    cases: u64,
}

impl Keys {
    #[must_use]
    pub fn new(entries: BTreeMap<Name, Entry>) -> Self {
        Self(Mutex::new(State { entries, version: 1, cases: 0 }), Limits::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is before the next case is decided.
    pub fn lay(&self, entries: &BTreeMap<Name, Entry>) {
        let mut state = self.state();
        state.cases += 1;
        state.entries.extend(entries.clone());
    }

    /// As a commit would.
    ///
    /// # Errors
    /// What is no integer and was to be added to: the commit would fail.
    pub fn apply(&self, write: &Write, now: Timestamp) -> Result<(), String> {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        match write {
            Write::Put { namespace, key, value, metadata, expires_at } => {
                let (value, metadata) = (value.clone(), metadata.clone());
                let entry = Entry { value, metadata, expires_at: *expires_at, version };
                state.entries.insert((namespace.clone(), key.clone()), entry);
            }
            Write::Delete { namespace, key } => {
                state.entries.remove(&(namespace.clone(), key.clone()));
            }
            Write::Increment { namespace, key, by } => {
                let name = (namespace.clone(), key.clone());
                let before = state.entries.get(&name).filter(|entry| is_there(entry, now)).cloned();
                let number = match before.as_ref().map(|entry| &entry.value) {
                    None => Some(0),
                    Some(Value::Json(json)) => json.as_i64(),
                    Some(Value::Text(_) | Value::Blob(_)) => None,
                };
                let sum = number.and_then(|number| number.checked_add(*by));
                let sum =
                    sum.ok_or_else(|| format!("increment {namespace} {key:?}: it holds no integer of 64 bits"))?;
                let (metadata, expires_at) = before.map_or((None, None), |entry| (entry.metadata, entry.expires_at));
                state.entries.insert(name, Entry { value: Value::Json(sum.into()), metadata, expires_at, version });
            }
        }
        Ok(())
    }

    /// What there is now.
    #[must_use]
    pub fn entry(&self, name: &Name, now: Timestamp) -> Option<Entry> {
        self.state().entries.get(name).filter(|entry| is_there(entry, now)).cloned()
    }
}

fn is_there(entry: &Entry, now: Timestamp) -> bool {
    entry.expires_at.is_none_or(|at| at > now)
}

impl kv::View for Keys {
    fn count(&self, limit: &kv::Limit<'_>) -> kv::Counted {
        let nth = self.state().cases.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.1.count(&kv::Limit { once: limit.once ^ nth, ..*limit })
    }

    fn get(&self, namespace: &str, key: &str, now: Timestamp) -> Result<Option<Entry>, ViewError> {
        Ok(self.entry(&(namespace.to_owned(), key.to_owned()), now))
    }

    fn list(
        &self,
        namespace: &str,
        prefix: &str,
        cursor: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page, ViewError> {
        let state = self.state();
        let matching = state.entries.iter().filter(|((of, key), entry)| {
            of == namespace
                && key.starts_with(prefix)
                && cursor.is_none_or(|cursor| key.as_str() > cursor)
                && is_there(entry, now)
        });
        let mut keys: Vec<kv::Key> = matching
            .take(limit.saturating_add(1))
            .map(|((_, key), entry)| kv::Key {
                name: key.clone(),
                metadata: entry.metadata.clone(),
                expires_at: entry.expires_at,
                version: entry.version,
            })
            .collect();
        let more = keys.len() > limit;
        keys.truncate(limit);
        let cursor = keys.last().filter(|_| more).map(|key| key.name.clone());
        Ok(Page { keys, cursor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    #[test]
    fn what_is_said_of_a_key_is_shown_and_written_the_same() {
        for text in [
            r#""plain""#,
            r#"{"a":[1,2]}"#,
            "7",
            r#"{"$base64":"AAE="}"#,
            r#"{"$value":"v","$metadata":{"by":"me"},"$expiration_ttl":60}"#,
            r#"{"$base64":"AAE=","$expiration_ttl":60}"#,
        ] {
            let json: Json = serde_json::from_str(text).unwrap();
            let item = shown(&entry(&json, NOW).unwrap(), NOW);
            assert_eq!(item, said(&json).unwrap(), "{text}");
            assert_eq!(written(&item), json, "{text}");
        }
        let unknown = said(&json!({ "$valu": 1 })).unwrap_err();
        assert!(unknown.contains("did you mean `$value`?"), "{unknown}");
        assert!(entry(&json!({ "$metadata": 1 }), NOW).is_err() && said(&json!({ "$base64": "?" })).is_err());
    }

    #[test]
    fn writes_are_applied_in_order_and_what_expired_is_gone() {
        let name = |key: &str| ("N".to_owned(), key.to_owned());
        let brief = entry(&json!({ "$value": 5, "$expiration_ttl": 1 }), NOW).unwrap();
        let keys = Keys::new([(name("n"), brief), (name("t"), entry(&json!("t"), NOW).unwrap())].into());
        let increment = |key: &str| Write::Increment { namespace: "N".into(), key: key.into(), by: 2 };
        keys.apply(&increment("n"), NOW).unwrap();
        assert_eq!(keys.entry(&name("n"), NOW).unwrap().value, Value::Json(7.into()));
        let later = NOW.plus(Duration::from_secs(2));
        assert!(keys.entry(&name("n"), later).is_none());
        keys.apply(&increment("n"), later).unwrap();
        assert_eq!(keys.entry(&name("n"), later).unwrap().value, Value::Json(2.into()));
        assert!(keys.apply(&increment("t"), NOW).unwrap_err().contains("no integer"));
        keys.apply(&Write::Delete { namespace: "N".into(), key: "t".into() }, NOW).unwrap();
        let page = kv::View::list(&keys, "N", "", None, 10, later).unwrap();
        assert_eq!(page.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["n"]);
    }
}
