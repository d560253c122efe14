//! The tables against the engine's own lists, both ways.

use std::collections::{BTreeMap, BTreeSet};

use rhai::Engine;

use super::functions::named;
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
    let is_function = |key: &String| {
        let name = key.split(['.', '/']).nth(1);
        name.is_some_and(|name| key.contains('/') && named(name).is_some())
    };
    let registered: BTreeSet<String> = registered().into_keys().collect();
    let rows = sections().flat_map(|section| section.2).flat_map(|member| member.0);
    let written: BTreeSet<String> = rows.map(|signature| key(signature)).collect();
    let missing: Vec<_> = registered.difference(&written).filter(|key| !is_function(key)).collect();
    let invented: Vec<_> = written.difference(&registered).collect();
    assert!(missing.is_empty(), "add to src/rules/reference/members.rs: {missing:?}");
    assert!(invented.is_empty(), "nothing of the kind is registered: {invented:?}");
}

/// Names with the types of the parameters, and what it gives, of everything that is called.
fn calls() -> Vec<(String, Vec<String>, String)> {
    let mut engine = Engine::new_raw();
    crate::rules::api::register(&mut engine);
    let signatures = engine.gen_fn_signatures(false);
    let call = |signature: &String| {
        let (name, rest) = signature.split_once('(').unwrap();
        let (parameters, result) = rest.split_once(')').unwrap();
        let types = parameters.split(", ").filter_map(|parameter| Some(parameter.split_once(": ")?.1.to_owned()));
        (name.to_owned(), types.collect(), result.trim_start_matches(" -> ").to_owned())
    };
    signatures.iter().map(call).collect()
}

#[test]
fn every_function_is_registered_with_the_parameters_that_its_row_has() {
    let calls = calls();
    for name in function_names() {
        let registered: Vec<_> = calls.iter().filter(|(called, ..)| called == name).collect();
        assert!(!registered.is_empty(), "{name} is registered nowhere");
        for way in ways(name) {
            let types: Vec<&str> = way.trim_matches(['(', ')']).split(", ").filter(|text| !text.is_empty()).collect();
            let fits = |(_, found, _): &&&(String, Vec<String>, String)| {
                found.len() == types.len()
                    && types.iter().zip(found).all(|(written, found)| match written.split_once(": ") {
                        Some((_, "integer")) => found == "i64",
                        Some((_, written)) => found == written,
                        None => true,
                    })
            };
            assert!(registered.iter().any(|call| fits(&call)), "{name}{way}: {registered:?}");
        }
        for (_, found, _) in registered {
            assert!(ways(name).any(|way| arguments(way) == found.len()), "{name} takes {found:?}, too");
        }
    }
}

#[test]
fn what_a_function_gives_is_what_it_returns() {
    for Function(signatures, gives, ..) in rows() {
        let name = signatures[0].split('(').next().unwrap();
        for (_, _, result) in calls().iter().filter(|(called, ..)| called == name) {
            let result = result.trim_start_matches("core::result::Result<").split([',', '>']).next().unwrap();
            let expected = match result.rsplit("::").next().unwrap() {
                "i64" => "integer",
                "String" | "ImmutableString" | "string" => "string",
                "Octets" | "octets" => "octets",
                "Map" | "map" | "BTreeMap<SmartString" => "map",
                "Array" | "array" | "Vec<Dynamic" => "array",
                "bool" => "bool",
                // Dynamic: what it is the table alone knows.
                _ => continue,
            };
            assert_eq!(*gives, expected, "{name}: {result}");
        }
    }
}

#[test]
fn a_row_fits_into_its_table() {
    for Function(signatures, gives, meaning, example) in rows() {
        let texts = signatures.iter().chain([gives, meaning, example]);
        assert!(texts.into_iter().all(|text| !text.contains(['\n', '|'])), "{signatures:?}");
    }
    for (number, line) in functions().lines().enumerate().filter(|(_, line)| line.starts_with("| ")) {
        assert_eq!(line.matches(" | ").count(), 3, "line {}", number + 1);
    }
}

#[test]
fn what_a_member_gives_is_what_its_function_returns() {
    let registered = registered();
    for Member(signatures, gives, _) in sections().flat_map(|section| section.2) {
        for signature in *signatures {
            let Some(result) = registered.get(&key(signature)) else { continue };
            let expected = match result.as_str() {
                "" => "",
                "i64" => "integer",
                known @ ("string" | "bool" | "array" | "map" | "headers" | "octets" | "session" | "blob" | "auth") => {
                    known
                }
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
