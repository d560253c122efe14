//! Workers from outside: a message and a script ─► the outcome as text.
//!
//! The cases of `tests/rules/*.txt`; `UPDATE=1 cargo test --test rules` rewrites what is expected. The format is told
//! in tests/README.md.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

#[path = "rules/case.rs"]
mod case;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_case_comes_out_as_written() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut failures = String::new();
    let mut count = 0;
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut done = Vec::new();
        for case in case::read(&text) {
            count += 1;
            let outcome = case.run();
            if outcome != case.expected && !update {
                let _ = writeln!(
                    failures,
                    "\n{} == {}\nexpected:\n  {}\nfound:\n  {}",
                    file.file_name().unwrap().to_string_lossy(),
                    case.name,
                    case.expected.join("\n  "),
                    outcome.join("\n  ")
                );
            }
            done.push((case, outcome));
        }
        if update {
            std::fs::write(&file, case::write(&done)).unwrap();
        }
    }
    assert!(count > 0, "no cases found");
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn names_of_cases_are_sentences_and_come_once() {
    let mut seen = std::collections::BTreeSet::new();
    for file in files() {
        for case in case::read(&std::fs::read_to_string(&file).unwrap()) {
            assert!(case.name.matches('_').count() >= 2, "{} is no sentence", case.name);
            assert!(seen.insert(case.name.clone()), "{} comes twice", case.name);
        }
    }
}

#[test]
fn every_example_of_a_function_is_true() {
    let mut count = 0;
    for example in mailworker::rules::reference::examples() {
        count += 1;
        let cases = case::read(&format!("== one\n--- email\nprint({example});\n--- outcome\n"));
        assert_eq!(cases[0].run(), ["undecided", "log rules/main.rhai:2:1: true"], "{example}");
    }
    assert!(count > 30, "{count} examples");
}
