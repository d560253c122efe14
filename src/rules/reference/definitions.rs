//! The definitions that editors read, `mailworker.d.rhai`: what a worker may call, with types and a word on each.
//!
//! From the same tables as the pages, so that it can't say anything else. The form is Rhai's own for definition files.

use std::fmt::Write as _;

use super::functions::{self, Function};
use super::members::{Member, Section};
use super::sections;

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
    for section in sections() {
        let (heading, _, rows): &Section = section;
        let _ = write!(file, "\n// ---- {}\n", heading.replace('`', ""));
        for Member(signatures, gives, meaning) in *rows {
            for signature in *signatures {
                member(&mut file, signature, gives, meaning);
            }
        }
    }
    for (heading, _, rows) in functions::SECTIONS {
        let _ = write!(file, "\n// ---- {heading}\n");
        for Function(signatures, gives, meaning, example) in *rows {
            for signature in *signatures {
                let (name, parameters) = signature.split_once('(').unwrap_or((signature, ")"));
                let parameters: Vec<String> = listed(parameters).map(typed).collect();
                about(&mut file, meaning);
                let _ = write!(file, "///\n/// `{}`\n", example.replace('`', "\""));
                let _ = writeln!(file, "fn {name}({}) -> {};", parameters.join(", "), kind(gives));
            }
        }
    }
    file
}

/// `message.forward(to, headers)` is a function of the message and two more, `message.subject` a getter.
fn member(file: &mut String, signature: &str, gives: &str, meaning: &str) {
    let Some((of, rest)) = signature.split_once('.') else { return };
    about(file, meaning);
    let receiver = match of {
        "kv" => "namespace: kv".to_owned(),
        of => format!("{of}: {of}"),
    };
    let _ = match rest.split_once('(') {
        None => writeln!(file, "fn get {rest}({receiver}) -> {};", kind(gives)),
        Some((name, parameters)) => {
            let parameters = std::iter::once(receiver).chain(listed(parameters).map(typed)).collect::<Vec<_>>();
            writeln!(file, "fn {name}({}) -> {};", parameters.join(", "), kind(gives))
        }
    };
}

fn about(file: &mut String, meaning: &str) {
    let _ = write!(file, "\n/// {meaning}\n");
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
