//! The tables against the engine's own lists, both ways.

use std::collections::{BTreeMap, BTreeSet};

use rhai::Engine;

use super::members::SECTIONS;
use super::*;

/// Registered for the engine's sake, not for a script to name.
const SILENT: &[&str] = &["print", "to_debug", "to_string"];

/// `message.forward/2`, `headers.len`: whose it is, its name, and how many arguments a method takes.
fn registered() -> BTreeMap<String, String> {
    let mut engine = Engine::new_raw();
    crate::rules::api::register(&mut engine);
    let mut found = BTreeMap::new();
    for signature in engine.gen_fn_signatures(false) {
        let (name, rest) = signature.split_once('(').unwrap();
        let (parameters, result) = rest.split_once(')').unwrap();
        let mut parameters = parameters.split(", ").filter_map(|parameter| parameter.split_once(": "));
        let Some((_, of)) = parameters.next() else { continue };
        let of = match of.trim_start_matches("&mut ") {
            "KVnamespace" => "kv",
            of => of,
        };
        let is_word = |character: char| character.is_alphanumeric() || character == '_';
        let key = match name.strip_prefix("get$") {
            Some(property) => format!("{of}.{property}"),
            // Set what can be got, index, operators.
            None if !name.chars().all(is_word) || SILENT.contains(&name) => continue,
            None => format!("{of}.{name}/{}", parameters.count()),
        };
        found.insert(key, result.trim_start_matches(" -> ").to_owned());
    }
    let unoffered: BTreeSet<&str> = UNOFFERED.iter().map(|(name, _)| *name).collect();
    found.retain(|key, _| {
        let name = key.strip_prefix("message.").map(|name| name.split('/').next().unwrap());
        name.is_none_or(|name| !unoffered.contains(name))
    });
    found
}

fn key(signature: &str) -> String {
    match signature.split_once('(') {
        None => signature.to_owned(),
        Some((name, ")")) => format!("{name}/0"),
        Some((name, parameters)) => format!("{name}/{}", parameters.split(", ").count()),
    }
}

#[test]
fn every_registered_member_is_in_the_tables_and_none_else() {
    let registered: BTreeSet<String> = registered().into_keys().collect();
    let rows = SECTIONS.iter().flat_map(|section| section.2).flat_map(|member| member.0);
    let written: BTreeSet<String> = rows.map(|signature| key(signature)).collect();
    let missing: Vec<_> = registered.difference(&written).collect();
    let invented: Vec<_> = written.difference(&registered).collect();
    assert!(missing.is_empty(), "add to src/rules/reference/members.rs: {missing:?}");
    assert!(invented.is_empty(), "nothing of the kind is registered: {invented:?}");
}

#[test]
fn what_a_member_gives_is_what_its_function_returns() {
    let registered = registered();
    for Member(signatures, gives, _) in SECTIONS.iter().flat_map(|section| section.2) {
        for signature in *signatures {
            let Some(result) = registered.get(&key(signature)) else { continue };
            let expected = match result.as_str() {
                "" => "",
                "i64" => "integer",
                known @ ("string" | "bool" | "array" | "map" | "headers" | "octets" | "session" | "blob") => known,
                octets if octets.ends_with("::Octets") => "octets",
                unit if unit.starts_with("core::result::Result<()") => "",
                // Dynamic: what it is the tables alone know.
                _ => continue,
            };
            assert_eq!(*gives, expected, "{signature}");
        }
    }
}

#[test]
fn the_page_is_short_enough_to_be_read() {
    let lines = text().lines().count();
    assert!(lines <= 250, "{lines} lines");
}
