//! `--update`: what failing tests expect is rewritten to what was decided, in the file's own text.
//!
//! Comments, order and spelling of all else stay. An item goes on naming what it named: a payload of which one key was
//! expected has that one key with its new value.

use serde_json::{Map, Value as Json};
use toml_edit::{Array, DocumentMut, InlineTable, Item, TableLike, Value};

use super::case::Case;
use super::compare::{holds_for, pairs};
use super::decision::{Decision, Made};
use super::keys;
use super::kind::Kind;

/// The text with the expectations of these failing cases as they were decided.
///
/// # Errors
/// Why the text can't be changed.
pub fn rewritten(text: &str, failing: &[(&Case, &Decision)]) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    let tests = document.get_mut("test").and_then(Item::as_array_of_tables_mut);
    let tests = tests.ok_or("its tests are no [[test]] tables")?;
    for (case, decision) in failing {
        let table = tests.get_mut(case.index).ok_or("a test is missing")?;
        let expect = table.get_mut("expect").and_then(Item::as_table_like_mut);
        let expect = expect.ok_or("a test expects nothing")?;
        for (kind, items) in wanted(case, decision) {
            set_kind(expect, kind, &items);
        }
    }
    Ok(document.to_string())
}

/// The kinds that are to be written anew, with their items.
fn wanted(case: &Case, decision: &Decision) -> Vec<(Kind, Vec<Json>)> {
    let failing = case.expected.iter().filter(|(kind, expected)| !holds_for(**kind, expected, decision));
    let mut wanted: Vec<(Kind, Vec<Json>)> =
        failing.map(|(kind, expected)| (*kind, as_made(*kind, expected, decision.of(*kind)))).collect();
    let says_fate = case.expected.keys().any(|kind| kind.is_fate() && !decision.of(*kind).is_empty());
    // «Not forwarded» alone would say less than the test did.
    if !says_fate && case.expected.keys().any(|kind| kind.is_fate()) {
        let is_refused = decision.of(Kind::Rcpt).iter().any(Made::is_news);
        let says = |kind: Kind| kind.is_fate() || kind == Kind::Rcpt && is_refused;
        for kind in Kind::ALL.into_iter().filter(|kind| says(*kind) && !case.expected.contains_key(kind)) {
            let items = as_made(kind, &[], decision.of(kind));
            wanted.extend((!items.is_empty()).then_some((kind, items)));
        }
    }
    wanted
}

/// The items as they were made, each with as much as was expected of it.
fn as_made(kind: Kind, expected: &[Json], made: &[Made]) -> Vec<Json> {
    let pairs = pairs(kind, expected, made).into_iter();
    let mut items: Vec<(usize, Json)> = pairs
        .filter_map(|(wanted, found)| {
            let at = found?;
            let found = &made.get(at)?.item;
            Some((
                at,
                wanted
                    .and_then(|at| expected.get(at))
                    .map_or_else(|| new_item(kind, found), |wanted| narrowed(kind, wanted, found)),
            ))
        })
        .collect();
    items.sort_by_key(|(at, _)| *at);
    items.into_iter().map(|(_, item)| item).collect()
}

/// An item that nobody expected: what a person would have written of it.
fn new_item(kind: Kind, made: &Json) -> Json {
    let mut item = made.clone();
    if let (Kind::Webhook, Some(fields)) = (kind, item.as_object_mut()) {
        fields.retain(|field, value| field != "method" || value != "POST");
    }
    item
}

fn narrowed(kind: Kind, expected: &Json, made: &Json) -> Json {
    if kind == Kind::Kv || kind == Kind::Deleted {
        let mut item = narrow(expected, made);
        // A pattern stays a pattern.
        if let (Some(item), Some(key)) = (item.as_object_mut(), expected.get("key")) {
            item.insert("key".to_owned(), key.clone());
        }
        return item;
    }
    narrow(expected, made)
}

/// What was made of the keys that were expected; all of it, where none is left of them.
fn narrow(expected: &Json, made: &Json) -> Json {
    match (expected, made) {
        (Json::Object(expected), Json::Object(made)) => {
            let kept: Map<String, Json> = expected
                .iter()
                .filter_map(|(key, expected)| Some((key.clone(), narrow(expected, made.get(key)?))))
                .collect();
            Json::Object(if kept.is_empty() && !expected.is_empty() { made.clone() } else { kept })
        }
        (Json::Array(expected), Json::Array(made)) if expected.len() == made.len() => {
            Json::Array(expected.iter().zip(made).map(|(expected, made)| narrow(expected, made)).collect())
        }
        _ => made.clone(),
    }
}

fn set_kind(expect: &mut dyn TableLike, kind: Kind, items: &[Json]) {
    if kind == Kind::Kv || kind == Kind::Deleted {
        return set(expect, kind.key(), &by_namespace(kind, items));
    }
    let is_single = match expect.get(kind.key()) {
        Some(item) => !item.is_array(),
        None => !matches!(kind, Kind::Forward | Kind::Webhook | Kind::Send | Kind::Log),
    };
    let value = match items {
        [] if kind == Kind::Drop => Json::Bool(false),
        [item] if is_single => short(kind, item, expect.get(kind.key())),
        items => {
            let there = expect.get(kind.key()).and_then(Item::as_array);
            let at = |at: usize| there.and_then(|array| array.get(at)).map(|value| Item::Value(value.clone()));
            Json::Array(items.iter().enumerate().map(|(index, item)| short(kind, item, at(index).as_ref())).collect())
        }
    };
    set(expect, kind.key(), &value);
}

/// `{ to = "a@b" }` as `"a@b"`, and nothing as `true`, unless a table stands there.
fn short(kind: Kind, item: &Json, there: Option<&Item>) -> Json {
    let Some(fields) = item.as_object().filter(|_| !there.is_some_and(Item::is_table_like)) else {
        return item.clone();
    };
    match kind.brief().and_then(|brief| fields.get(brief)) {
        _ if fields.is_empty() => Json::Bool(true),
        Some(value) if fields.len() == 1 => value.clone(),
        _ => item.clone(),
    }
}

/// Keys as a test file has them: by namespace.
pub(super) fn by_namespace(kind: Kind, items: &[Json]) -> Json {
    let mut namespaces = Map::new();
    for item in items {
        let name = |field: &str| item.get(field).and_then(Json::as_str).unwrap_or_default().to_owned();
        let (namespace, key) = (name("namespace"), name("key"));
        if kind == Kind::Deleted {
            let keys = namespaces.entry(namespace).or_insert_with(|| Json::Array(Vec::new()));
            keys.as_array_mut().into_iter().for_each(|keys| keys.push(Json::String(key.clone())));
        } else {
            let keys = namespaces.entry(namespace).or_insert_with(|| Json::Object(Map::new()));
            let value = item.as_object().map(keys::written).unwrap_or_default();
            keys.as_object_mut().into_iter().for_each(|keys| drop(keys.insert(key.clone(), value.clone())));
        }
    }
    Json::Object(namespaces)
}

fn set(table: &mut dyn TableLike, key: &str, new: &Json) {
    match table.get_mut(key) {
        Some(item) => set_item(item, new),
        None => {
            if let Some(value) = toml(new) {
                table.insert(key, Item::Value(value));
            }
        }
    }
}

fn set_item(item: &mut Item, new: &Json) {
    if let (Some(table), Json::Object(fields)) = (item.as_table_like_mut(), new) {
        return set_table(table, fields);
    }
    match item.as_value_mut() {
        Some(value) => set_value(value, new),
        None => *item = toml(new).map_or(Item::None, Item::Value),
    }
}

fn set_table(table: &mut dyn TableLike, fields: &Map<String, Json>) {
    let there: Vec<String> = table.iter().map(|(key, _)| key.to_owned()).collect();
    for key in there.iter().filter(|key| !fields.contains_key(*key)) {
        table.remove(key);
    }
    for (key, value) in fields {
        set(table, key, value);
    }
}

/// What stands around a value (blanks, comments) stays.
fn set_value(value: &mut Value, new: &Json) {
    match (&mut *value, new) {
        (Value::InlineTable(table), Json::Object(fields)) => set_table(table, fields),
        (Value::Array(array), Json::Array(items)) => {
            while array.len() > items.len() {
                array.remove(array.len() - 1);
            }
            for (at, item) in items.iter().enumerate() {
                match array.get_mut(at) {
                    Some(value) => set_value(value, item),
                    None => array.extend(toml(item)),
                }
            }
        }
        _ => {
            let Some(mut written) = toml(new) else { return };
            if json(value).as_ref() != Some(new) {
                *written.decor_mut() = value.decor().clone();
                *value = written;
            }
        }
    }
}

/// A simple value, to tell whether it changes: one that doesn't keeps its spelling.
fn json(value: &Value) -> Option<Json> {
    match value {
        Value::String(text) => Some(Json::String(text.value().clone())),
        Value::Integer(number) => Some(Json::from(*number.value())),
        Value::Float(number) => Some(Json::from(*number.value())),
        Value::Boolean(value) => Some(Json::Bool(*value.value())),
        Value::Datetime(_) | Value::Array(_) | Value::InlineTable(_) => None,
    }
}

/// `None` for null, which TOML doesn't have.
pub(super) fn toml(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::from(number),
            None => Value::from(number.as_f64()?),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::Array(items.iter().filter_map(toml).collect::<Array>()),
        Json::Object(fields) => {
            let fields = fields.iter().filter_map(|(key, value)| Some((key.as_str(), toml(value)?)));
            Value::InlineTable(fields.collect::<InlineTable>())
        }
    })
}
