//! What was expected held against what was made: which item stands for which, and where the two differ.
//!
//! An expected item says as much as it cares for: fields and keys of maps that it doesn't name may be anything. Of a kind
//! that is named the items must be exactly those, in their order; keys are told apart by name, and `*` in an expected
//! key stands for any characters.

use serde_json::Value;

use super::case::Case;
use super::decision::{Decision, Made};
use super::kind::Kind;

/// Beyond so many comparisons items are paired by their place alone.
const MAX_COMPARISONS: usize = 250_000;

/// What is said of one value.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    Same(String, Option<Value>),
    /// Expected, and not made.
    Missing(String, Option<Value>),
    /// Made, and not expected.
    Extra(String, Option<Value>),
}

/// An expected item and the one made that stands for it; one of them may be missing.
pub type Pair = (Option<usize>, Option<usize>);

/// Whether all is as the case expects.
#[must_use]
pub fn holds(case: &Case, decision: &Decision) -> bool {
    failed_unexpectedly(case, decision).is_none()
        && case.expected.iter().all(|(kind, expected)| holds_for(*kind, expected, decision))
}

/// Whether a kind is as expected.
#[must_use]
pub fn holds_for(kind: Kind, expected: &[Value], decision: &Decision) -> bool {
    let made = decision.of(kind);
    pairs(kind, expected, made).into_iter().all(|pair| match pair {
        (Some(e), Some(m)) => expected.get(e).zip(made.get(m)).is_some_and(|(e, m)| matches(kind, e, &m.item)),
        _ => false,
    })
}

/// A failure of a script, where the case names none.
#[must_use]
pub fn failed_unexpectedly<'a>(case: &Case, decision: &'a Decision) -> Option<&'a Made> {
    if case.expected.contains_key(&Kind::Error) { None } else { decision.of(Kind::Error).first() }
}

/// Which expected item goes with which that was made, in the order in which they are to be shown.
#[must_use]
pub fn pairs(kind: Kind, expected: &[Value], made: &[Made]) -> Vec<Pair> {
    if matches!(kind, Kind::Kv | Kind::Deleted) { by_key(expected, made) } else { in_order(kind, expected, made) }
}

/// Keys named in full come first, so that a pattern takes what is left.
fn by_key(expected: &[Value], made: &[Made]) -> Vec<Pair> {
    let mut left: Vec<usize> = (0..made.len()).collect();
    let mut taken = vec![None; expected.len()];
    for patterns in [false, true] {
        for (item, taken) in expected.iter().zip(&mut taken) {
            if text(item, "key").contains('*') != patterns {
                continue;
            }
            let stands_for = |at: &usize| {
                made.get(*at).is_some_and(|made| {
                    text(item, "namespace") == text(&made.item, "namespace")
                        && is_like(text(item, "key"), text(&made.item, "key"))
                })
            };
            *taken = left.iter().position(stands_for).map(|at| left.remove(at));
        }
    }
    let found = taken.into_iter().enumerate().map(|(at, made)| (Some(at), made));
    found.chain(left.into_iter().map(|at| (None, Some(at)))).collect()
}

fn text<'a>(item: &'a Value, field: &str) -> &'a str {
    item.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Whether `name` is as `pattern` says, in which `*` stands for any characters.
fn is_like(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

/// The longest common sequence stays together; what lies between is paired by its place.
fn in_order(kind: Kind, expected: &[Value], made: &[Made]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let (mut e, mut m) = (0, 0);
    for (next_e, next_m) in common(kind, expected, made).into_iter().chain([(expected.len(), made.len())]) {
        while e < next_e || m < next_m {
            pairs.push(((e < next_e).then_some(e), (m < next_m).then_some(m)));
            (e, m) = (next_e.min(e + 1), next_m.min(m + 1));
        }
        if e < expected.len() && m < made.len() {
            pairs.push((Some(e), Some(m)));
        }
        (e, m) = (e + 1, m + 1);
    }
    pairs
}

/// Pairs of items that match, as many as can be had in order.
fn common(kind: Kind, expected: &[Value], made: &[Made]) -> Vec<(usize, usize)> {
    let width = made.len() + 1;
    if expected.len().saturating_mul(made.len()) > MAX_COMPARISONS {
        return Vec::new();
    }
    // How many can be had from here on.
    let mut longest = vec![0_usize; (expected.len() + 1) * width];
    let get = |longest: &[usize], e: usize, m: usize| longest.get(e * width + m).copied().unwrap_or_default();
    for (e, wanted) in expected.iter().enumerate().rev() {
        for (m, found) in made.iter().enumerate().rev() {
            let value = if matches(kind, wanted, &found.item) {
                1 + get(&longest, e + 1, m + 1)
            } else {
                get(&longest, e + 1, m).max(get(&longest, e, m + 1))
            };
            if let Some(cell) = longest.get_mut(e * width + m) {
                *cell = value;
            }
        }
    }
    let mut pairs = Vec::new();
    let (mut e, mut m) = (0, 0);
    while let (Some(wanted), Some(found)) = (expected.get(e), made.get(m)) {
        if matches(kind, wanted, &found.item) {
            pairs.push((e, m));
            (e, m) = (e + 1, m + 1);
        } else if get(&longest, e + 1, m) >= get(&longest, e, m + 1) {
            e += 1;
        } else {
            m += 1;
        }
    }
    pairs
}

/// Whether an item is as expected.
#[must_use]
pub fn matches(kind: Kind, expected: &Value, made: &Value) -> bool {
    differences(kind, expected, made).iter().all(|line| matches!(line, Line::Same(..)))
}

/// Value by value, what is expected of an item and what was made of it.
#[must_use]
pub fn differences(kind: Kind, expected: &Value, made: &Value) -> Vec<Line> {
    let mut lines = Vec::new();
    match kind {
        Kind::Error if text(made, "text").contains(text(expected, "text")) => {
            lines.push(Line::Same(String::new(), made.get("text").cloned()));
        }
        Kind::Kv => {
            for (field, path) in key_fields(expected) {
                if let Some(value) = expected.get(field) {
                    compare(&path, value, made.get(field), &mut lines);
                }
            }
        }
        Kind::Deleted => lines.push(Line::Same(key_path(expected), None)),
        _ => {
            let alone = is_brief(kind, expected);
            for (field, value) in expected.as_object().into_iter().flatten() {
                compare(if alone { "" } else { field }, value, made.get(field), &mut lines);
            }
        }
    }
    lines
}

fn compare(path: &str, expected: &Value, made: Option<&Value>, lines: &mut Vec<Line>) {
    match (expected, made) {
        (Value::Object(expected), Some(Value::Object(made))) => {
            for (key, value) in expected {
                compare(&below(path, key), value, made.get(key), lines);
            }
        }
        (Value::Array(expected), Some(Value::Array(made))) if expected.len() == made.len() => {
            for (at, (expected, made)) in expected.iter().zip(made).enumerate() {
                compare(&format!("{path}[{at}]"), expected, Some(made), lines);
            }
        }
        (expected, Some(made)) if is_same(expected, made) => {
            lines.push(Line::Same(path.to_owned(), Some(made.clone())));
        }
        (expected, made) => {
            lines.push(Line::Missing(path.to_owned(), Some(expected.clone())));
            lines.extend(made.map(|made| Line::Extra(path.to_owned(), Some(made.clone()))));
        }
    }
}

/// Numbers are the same by their value, however they are written.
fn is_same(expected: &Value, made: &Value) -> bool {
    expected == made
        || expected.is_number()
            && made.is_number()
            && expected.as_f64() == made.as_f64()
            && expected.is_f64() != made.is_f64()
}

/// The values of an item that stands alone.
#[must_use]
pub fn values(kind: Kind, item: &Value) -> Vec<(String, Option<Value>)> {
    match kind {
        Kind::Kv => {
            let fields = key_fields(item).into_iter();
            fields.filter_map(|(field, path)| Some((path, Some(item.get(field)?.clone())))).collect()
        }
        Kind::Deleted => vec![(key_path(item), None)],
        _ if is_brief(kind, item) => {
            item.as_object().into_iter().flatten().map(|(_, value)| (String::new(), Some(value.clone()))).collect()
        }
        _ => match item.as_object().filter(|fields| !fields.is_empty()) {
            Some(fields) => fields.iter().map(|(field, value)| (field.clone(), Some(value.clone()))).collect(),
            None => vec![(String::new(), Some(Value::Bool(true)))],
        },
    }
}

/// Whether all that is said is the field that a string alone stands for.
fn is_brief(kind: Kind, item: &Value) -> bool {
    item.as_object().is_some_and(|fields| fields.len() == 1 && fields.keys().next().map(String::as_str) == kind.brief())
}

/// `EMAILS."a key"`
fn key_path(item: &Value) -> String {
    below(text(item, "namespace"), text(item, "key"))
}

/// What may be said of a key, each with its path.
fn key_fields(item: &Value) -> [(&'static str, String); 3] {
    let path = key_path(item);
    [("metadata", below(&path, "$metadata")), ("expiration_ttl", below(&path, "$expiration_ttl")), ("value", path)]
}

/// A key below a path, as TOML would write it.
fn below(path: &str, key: &str) -> String {
    let is_bare =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let key = if is_bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(items: &[&str]) -> Vec<Made> {
        items.iter().map(|to| Made { item: json!({ "to": to }), at: None }).collect()
    }

    fn expected(items: &[&str]) -> Vec<Value> {
        items.iter().map(|to| json!({ "to": to })).collect()
    }

    #[test]
    fn items_keep_together_where_they_match() {
        let paired = |e: &[&str], m: &[&str]| pairs(Kind::Forward, &expected(e), &made(m));
        assert_eq!(paired(&["a", "b"], &["a", "b"]), [(Some(0), Some(0)), (Some(1), Some(1))]);
        assert_eq!(paired(&["a", "b"], &["b"]), [(Some(0), None), (Some(1), Some(0))]);
        assert_eq!(paired(&["a"], &["x", "a", "y"]), [(None, Some(0)), (Some(0), Some(1)), (None, Some(2))]);
        assert_eq!(paired(&["a"], &["b"]), [(Some(0), Some(0))]);
        assert_eq!(paired(&[], &[]), []);
        assert_eq!(paired(&["a", "c"], &["b", "c"]), [(Some(0), Some(0)), (Some(1), Some(1))]);
    }

    #[test]
    fn an_expected_item_names_only_what_it_cares_for() {
        let item = json!({ "target": "T", "payload": { "a": 1, "list": [{ "b": 2, "c": 3 }], "n": 1.0 } });
        for (expected, holds) in [
            (json!({}), true),
            (json!({ "payload": { "a": 1 } }), true),
            (json!({ "payload": { "n": 1 } }), true),
            (json!({ "payload": { "list": [{ "b": 2 }] } }), true),
            (json!({ "payload": { "list": [] } }), false),
            (json!({ "payload": { "a": 2 } }), false),
            (json!({ "payload": { "z": 1 } }), false),
            (json!({ "payload": "a" }), false),
        ] {
            assert_eq!(matches(Kind::Webhook, &expected, &item), holds, "{expected}");
        }
        let lines = differences(Kind::Webhook, &json!({ "payload": { "a": 2, "z z": 1 } }), &item);
        assert_eq!(
            lines,
            [
                Line::Missing("payload.a".into(), Some(json!(2))),
                Line::Extra("payload.a".into(), Some(json!(1))),
                Line::Missing("payload.\"z z\"".into(), Some(json!(1)))
            ]
        );
    }

    #[test]
    fn keys_are_found_by_name_and_patterns_take_what_is_left() {
        let key = |key: &str| json!({ "namespace": "N", "key": key, "value": 1 });
        let made: Vec<Made> = ["a:1", "a:2", "b"].map(|name| Made { item: key(name), at: None }).into();
        let paired = pairs(Kind::Kv, &[key("a:*"), key("a:1")], &made);
        assert_eq!(paired, [(Some(0), Some(1)), (Some(1), Some(0)), (None, Some(2))]);
        for (pattern, name, like) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*", "", true),
            ("a*c*e", "abcde", true),
            ("a*c", "abcd", false),
            ("*aa", "a", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(is_like(pattern, name), like, "{pattern} {name}");
        }
    }

    #[test]
    fn an_error_is_known_by_a_part_of_it() {
        let made = json!({ "text": "rules/main.rhai:2:5: no variable x" });
        assert!(matches(Kind::Error, &json!({ "text": "no variable" }), &made));
        assert!(!matches(Kind::Error, &json!({ "text": "no function" }), &made));
    }
}
