//! The definitions that editors read, `mailworker.d.rhai`: what a worker may call, with types and a word on each.
//!
//! From the same tables as the pages, so that it can't say anything else. The form is Rhai's own for definition files.

use std::fmt::Write as _;

use super::members::{Member, Section};
use super::{functions, sections, ticked};

/// Seconds, as scripts may name them.
const CONSTANTS: &[(&str, &str)] =
    &[("SECOND", "1 second"), ("MINUTE", "60 seconds"), ("HOUR", "3,600 seconds"), ("DAY", "86,400 seconds")];

/// The whole file.
#[must_use]
pub fn definitions() -> String {
    let mut file = "// What a worker of mailworker may call: for editors that know Rhai's definition files.\n\
                    // `mailworker definitions` prints it; rules/README.md is the reference.\nmodule static;\n"
        .to_owned();
    for (name, about) in CONSTANTS {
        let _ = write!(file, "\n/// {about}, for `expiration_ttl` and the like.\nconst {name}: int;\n");
    }
    for section in sections().chain(functions::SECTIONS) {
        let (heading, _, rows): &Section = section;
        let _ = write!(file, "\n// ---- {}\n", heading.replace('`', ""));
        for member in *rows {
            for signature in member.signatures {
                about(&mut file, member);
                declared(&mut file, signature, member.gives);
            }
        }
    }
    file
}

/// `message.forward(to, headers)` is a function of the message and two more, `message.subject` a getter.
fn declared(file: &mut String, signature: &str, gives: &str) {
    let (called, parameters) = match signature.split_once('(') {
        Some((called, parameters)) => (called, Some(parameters)),
        None => (signature, None),
    };
    let (of, name) = called.split_once('.').map_or((None, called), |(of, name)| (Some(of), name));
    let receiver = of.map(|of| match of {
        "kv" => "namespace: kv".to_owned(),
        of => format!("{of}: {}", kind(of)),
    });
    let all: Vec<String> = receiver.into_iter().chain(listed(parameters.unwrap_or_default()).map(typed)).collect();
    let getter = if parameters.is_none() { "get " } else { "" };
    let _ = writeln!(file, "fn {getter}{name}({}) -> {};", all.join(", "), kind(gives));
}

fn about(file: &mut String, member: &Member) {
    let _ = write!(file, "\n/// {}\n", member.meaning);
    if !member.errors.is_empty() {
        let _ = write!(file, "///\n/// An error where: {}\n", member.errors);
    }
    let _ = write!(file, "///\n/// {}\n", ticked(member.example));
}

/// The parameters before the closing bracket.
fn listed(parameters: &str) -> impl Iterator<Item = &str> {
    parameters.trim_end_matches(')').split(", ").filter(|text| !text.is_empty())
}

fn typed(parameter: &str) -> String {
    match parameter.split_once(": ") {
        Some((name, of)) => format!("{name}: {}", kind(of)),
        None => format!("{parameter}: ?"),
    }
}

/// The reference's word for a type in Rhai's.
fn kind(word: &str) -> String {
    let one = |word: &str| match word.trim().trim_matches('`') {
        "" | "()" => "()".to_owned(),
        "integer" => "int".to_owned(),
        "any" => "?".to_owned(),
        known @ ("string" | "bool" | "float" | "map" | "array" | "blob") => match known {
            "string" => "String".to_owned(),
            "map" => "Map".to_owned(),
            "array" => "Array".to_owned(),
            "blob" => "Blob".to_owned(),
            plain => plain.to_owned(),
        },
        own => own.to_owned(),
    };
    word.split(" or ").map(one).collect::<Vec<_>>().join(" | ")
}
