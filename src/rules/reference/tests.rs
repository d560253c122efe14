//! The tables against the engine's own lists, both ways.

use std::collections::{BTreeMap, BTreeSet};

use rhai::Engine;

use super::functions::named;
use super::*;

/// Registered for the engine's sake, not for a script to name.
const SILENT: &[&str] = &["print", "to_debug", "to_string"];

/// `message.forward/2`, `headers.len`: whose it is, its name, and how many arguments a method takes.
fn registered() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, parameters, result) in calls() {
        let Some((of, more)) = parameters.split_first() else { continue };
        let of = receiver(of);
        let is_word = |character: char| character.is_alphanumeric() || character == '_';
        let key = match name.strip_prefix("get$") {
            Some(property) => format!("{of}.{property}"),
            // Set what can be got, index, operators.
            None if !name.chars().all(is_word) || SILENT.contains(&name.as_str()) => continue,
            None => format!("{of}.{name}/{}", more.len()),
        };
        found.insert(key, result);
    }
    found
}

fn receiver(of: &str) -> &str {
    match of.trim_start_matches("&mut ") {
        "KVnamespace" => "kv",
        of => of,
    }
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
    let rows = members().flat_map(|member| member.signatures);
    let written: BTreeSet<String> = rows.map(|signature| key(signature)).collect();
    let missing: Vec<_> = registered.difference(&written).filter(|key| !is_function(key)).collect();
    let invented: Vec<_> = written.difference(&registered).collect();
    assert!(missing.is_empty(), "add to src/rules/reference: {missing:?}");
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

/// Of all pages.
fn members() -> impl Iterator<Item = &'static Member> {
    sections().flat_map(|section| section.2)
}

/// Name and type of each parameter: `name: string`, `to: string or array`.
fn parameters(signature: &str) -> Vec<(&str, &str)> {
    let (_, parameters) = signature.split_once('(').unwrap_or((signature, ""));
    let each = parameters.trim_end_matches(')').split(", ").filter(|text| !text.is_empty());
    each.map(|text| text.split_once(": ").unwrap_or((text, ""))).collect()
}

#[test]
fn every_parameter_has_its_type() {
    const TYPES: &[&str] = &["string", "integer", "float", "bool", "map", "array", "blob", "octets", "any"];
    for signature in members().chain(rows()).flat_map(|row| row.signatures) {
        for (name, of) in parameters(signature) {
            assert!(of.split(" or ").all(|of| TYPES.contains(&of)), "{signature}: {name} is of no known type");
        }
    }
    let untyped: Vec<String> = definitions()
        .lines()
        .filter(|line| line.starts_with("fn ") && line.contains(": ?"))
        .map(ToOwned::to_owned)
        .collect();
    let any = ["put(", "webhook(", "log(", "json_stringify("];
    assert!(untyped.iter().all(|line| any.iter().any(|name| line[3..].starts_with(name))), "{untyped:#?}");
}

/// Whether what is written fits to what is registered: one of several types by its own function, or all by one for any.
fn fits(written: &[(&str, &str)], registered: &[String]) -> bool {
    let fits = |of: &str, found: &str| match (of, found) {
        (_, "?" | "Dynamic") => true,
        ("integer", found) => found == "i64",
        (of, found) => of == found,
    };
    written.len() == registered.len()
        && written.iter().zip(registered).all(|((_, written), found)| {
            let found = found.trim_start_matches("&mut ");
            written.split(" or ").any(|of| fits(of, found.rsplit("::").next().unwrap()))
        })
}

#[test]
fn every_function_is_registered_with_the_parameters_that_its_row_has() {
    let calls = calls();
    for name in function_names() {
        let registered: Vec<_> = calls.iter().filter(|(called, ..)| called == name).collect();
        assert!(!registered.is_empty(), "{name} is registered nowhere");
        for way in ways(name) {
            let written = parameters(way);
            assert!(registered.iter().any(|(_, found, _)| fits(&written, found)), "{name}{way}: {registered:?}");
        }
        for (_, found, _) in registered {
            assert!(ways(name).any(|way| arguments(way) == found.len()), "{name} takes {found:?}, too");
        }
    }
}

#[test]
fn every_method_is_registered_with_the_parameters_that_its_row_has() {
    let calls = calls();
    for signature in members().flat_map(|member| member.signatures).filter(|signature| signature.contains('(')) {
        let (of, name) = signature.split('(').next().unwrap().split_once('.').unwrap();
        let written = parameters(signature);
        let is_it = |(called, found, _): &&(String, Vec<String>, String)| {
            called == name
                && found.split_first().is_some_and(|(first, more)| receiver(first) == of && fits(&written, more))
        };
        assert!(calls.iter().any(|call| is_it(&call)), "{signature}: {:?}", calls.iter().find(|call| call.0 == name));
    }
}

#[test]
fn every_row_has_an_example_that_names_all_of_it() {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for row in members().chain(rows()) {
        for signature in row.signatures {
            let name = signature.split('(').next().unwrap();
            let name = name.find('.').map_or(name, |at| &name[at..]);
            let ends = |(at, _): (usize, &str)| !row.example[at + name.len()..].starts_with(is_word);
            assert!(row.example.match_indices(name).any(ends), "{signature}: {:?}", row.example);
        }
    }
}

/// By what is registered: a row says an error where a function, or the setter of a property, can answer with one.
#[test]
fn a_row_says_its_errors_where_there_are_some_and_only_there() {
    let calls = calls();
    for row in members().chain(rows()) {
        let can_fail = row.signatures.iter().any(|signature| {
            let called = signature.split('(').next().unwrap();
            let (of, name) = called.split_once('.').map_or((None, called), |(of, name)| (Some(of), name));
            calls.iter().any(|(found, parameters, result)| {
                let is_so = match found.split_once('$') {
                    None => found == name && signature.contains('('),
                    Some((_, property)) => property == name && !signature.contains('('),
                };
                let is_its = of.is_none_or(|of| parameters.first().is_some_and(|first| receiver(first) == of));
                is_so && is_its && result.contains("Result<")
            })
        });
        assert_eq!(can_fail, !row.errors.is_empty(), "{:?}: {:?}", row.signatures, row.errors);
    }
}

#[test]
fn what_a_function_gives_is_what_it_returns() {
    for Member { signatures, gives, .. } in rows() {
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
    for Member { signatures, gives, meaning, example, errors } in members().chain(rows()) {
        let texts = signatures.iter().chain([gives, meaning, example, errors]);
        assert!(texts.into_iter().all(|text| !text.contains(['\n', '|'])), "{signatures:?}");
        assert!(example.len() <= 120, "{signatures:?}: what is to be read in a table is short");
    }
    for (number, line) in functions().lines().enumerate().filter(|(_, line)| line.starts_with("| ")) {
        assert!(matches!(line.matches(" | ").count(), 3 | 4), "line {}", number + 1);
    }
}

#[test]
fn what_a_member_gives_is_what_its_function_returns() {
    let registered = registered();
    for Member { signatures, gives, .. } in members() {
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
