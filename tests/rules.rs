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

/// Each by itself, in a handler that has what it names: `check` says nothing against it, and it runs to its end.
#[test]
fn every_example_of_a_member_compiles_and_runs() {
    const BOUND: &str = "@ kv USERS COUNTS SEEN\n@ webhook TICKETS CRM\n@ ai small\n\
        @ vars {\"SUPPORT_EMAIL\": \"support@example.com\", \"DEFAULT_EMAIL\": \"team@example.com\"}\n\
        @ stored USERS gone:ann true\n@ stored USERS ann \"Ann\"\n";
    const MESSAGE: &str = "From: Ann <ann@example.org>\nTo: support@example.com\nSubject: A file\n\
        Message-ID: <1@example.org>\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n\
        --b\nContent-Type: text/plain\n\nSee the file.\n--b\nContent-Type: application/pdf\n\
        Content-Disposition: attachment; filename=a.pdf\n\n%PDF\n--b--\n";
    let mut count = 0;
    for (member, example) in mailworker::rules::reference::member_examples() {
        count += 1;
        let answer = match member.split(['.', '(']).nth(1) {
            Some("fetch") => "@ answer {\"body\": \"{}\"}\n",
            Some("ai") => {
                "@ answer {\"body\": \"{\\\"choices\\\": [{\\\"message\\\": {\\\"content\\\": \\\"bug\\\"}}]}\"}\n"
            }
            Some("dns_lookup") => "@ answer {\"records\": [{\"preference\": 10, \"host\": \"mx.example.org\"}]}\n",
            Some("dnsbl") => "@ answer {\"records\": []}\n",
            _ => "",
        };
        let (handler, script) = match member.split('.').next() {
            Some("session") if member.contains("set_limits") => ("connect", example.to_owned()),
            Some("session") => ("rcpt_to", example.to_owned()),
            Some("attachment") => ("email", format!("for attachment in message.attachments {{ {example} }}")),
            _ => ("email", example.to_owned()),
        };
        let text = format!("== one\n{BOUND}{answer}--- {handler}\n{script}\n--- message\n{MESSAGE}--- outcome\n");
        let came = case::read(&text)[0].run();
        let is_wrong = |line: &String| ["error", "warning", "failed"].iter().any(|word| line.starts_with(word));
        assert!(!came.iter().any(is_wrong), "{member}: {example}\n{}", came.join("\n"));
    }
    assert!(count > 90, "{count} examples");
}

/// As Cloudflare has it; what is read of a message can be as large.
#[test]
fn a_value_has_25_mib_and_no_more() {
    const MOST: usize = 25 << 20;
    let header = "Subject: large\r\n\r\n";
    let script = "try { env.NS.put(\"k\", message.raw); } catch (why) { print(why); }";
    for (size, expected) in [
        (MOST, format!("write NS put k blob of {MOST} octets")),
        (
            MOST + 2,
            format!("log rules/main.rhai:2:53: put \"k\": a value is at most {MOST} octets, this one has {}", MOST + 2),
        ),
    ] {
        let mut text = header.to_owned();
        while text.len() + 1002 < size {
            text.push_str(&"x".repeat(1000));
            text.push_str("\r\n");
        }
        text.push_str(&"x".repeat(size - text.len() - 2));
        let text = text.replace("\r\n", "\n");
        let case = case::read(&format!("== one\n@ kv NS\n--- email\n{script}\n--- message\n{text}\n--- outcome\n"));
        assert_eq!(case[0].run(), ["undecided", &expected], "{size}");
    }
}
