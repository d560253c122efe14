//! `mailworker import`: an export of each service ─► routes that `check` takes, and what isn't carried over.
//!
//! `UPDATE=1 cargo test --test import` rewrites what is expected, `tests/import/*.expected`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

const EXPORTS: [(&str, &str); 5] = [
    ("cloudflare", "cloudflare.json"),
    ("mailgun", "mailgun.json"),
    ("forwardemail", "forwardemail.json"),
    ("forwardemail", "forwardemail.txt"),
    ("postfix-virtual", "postfix-virtual.txt"),
];

fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailworker"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MAILWORKER") || name == "NO_COLOR" {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(dir).stdin(Stdio::null()).output().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// A folder with the exports and a worker.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (_, file) in EXPORTS {
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(file), dir.path().join(file))
            .unwrap();
    }
    std::fs::create_dir(dir.path().join("rules")).unwrap();
    std::fs::write(dir.path().join("rules/main.rhai"), "fn email(message, env, ctx) { message.drop(); }\n").unwrap();
    dir
}

#[test]
fn each_export_becomes_routes_that_check_takes() {
    for (service, file) in EXPORTS {
        let dir = folder();
        let made = run(dir.path(), &["import", service, file, "--postmaster", "admin@example.net"]);
        assert!(made.status.success(), "{file}: {}", text(&made.stderr));
        let shown = format!("{}\n--- not carried over\n{}", text(&made.stdout), text(&made.stderr));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(format!("{file}.expected"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &shown).unwrap();
        }
        assert_eq!(shown, std::fs::read_to_string(&path).unwrap_or_default(), "{file}: UPDATE=1 writes it");
        let config = format!("hostname = \"mx.example.com\"\n{}", text(&made.stdout));
        std::fs::write(dir.path().join("mailworker.toml"), config).unwrap();
        let checked = run(dir.path(), &["check"]);
        assert!(checked.status.success(), "{file}: {}", text(&checked.stderr));
    }
}

#[test]
fn they_are_put_at_the_end_of_a_configuration_that_stays_as_it_is() {
    let dir = folder();
    let before = "# Ours.\nhostname = \"mx.example.com\"\n[[domain]]\nname = \"example.com\"\npostmaster = \"me@example.net\" # me\n";
    std::fs::write(dir.path().join("mailworker.toml"), before).unwrap();
    let written = run(dir.path(), &["import", "cloudflare", "cloudflare.json", "--write"]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    let after = std::fs::read_to_string(dir.path().join("mailworker.toml")).unwrap();
    assert!(after.starts_with(before), "{after}");
    assert_eq!(after.matches("[[domain]]").count(), 1, "{after}");
    let told = run(dir.path(), &["explain", "support@example.com"]);
    assert!(text(&told.stdout).contains("route 2 (support@example.com)"), "{}", text(&told.stdout));
    let again = run(dir.path(), &["import", "forwardemail", "forwardemail.txt", "--write"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert!(std::fs::read_to_string(dir.path().join("mailworker.toml")).unwrap().starts_with(&after));
}

#[test]
fn what_is_no_export_is_told_and_nothing_written() {
    let dir = folder();
    for (content, said) in [
        ("{\"result\": 7}", "`result` is no list"),
        ("{\n  \"result\": [,]}", "this is no JSON"),
        ("{\"rules\": []}", "there is no `result` in it"),
        ("[]", "nothing in it can be carried over"),
    ] {
        std::fs::write(dir.path().join("bad.json"), content).unwrap();
        let refused = run(dir.path(), &["import", "cloudflare", "bad.json"]);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{content}");
        assert!(text(&refused.stderr).contains(said), "{content}: {}", text(&refused.stderr));
    }
    let missing = run(dir.path(), &["import", "mailgun", "nowhere.json"]);
    assert!(text(&missing.stderr).contains("nowhere.json can't be read"), "{}", text(&missing.stderr));
    // A name with a control character or a line's end can't leave its comment.
    let hostile = "[{\"name\": \"x\\n[[domain]]\\n\\u0007\", \"matchers\": [{\"type\": \"literal\", \"field\": \"to\", \"value\": \
                   \"a@example.com\"}], \"actions\": [{\"type\": \"forward\", \"value\": [\"b@example.net\"]}]}]";
    std::fs::write(dir.path().join("bad.json"), hostile).unwrap();
    let made = text(&run(dir.path(), &["import", "cloudflare", "bad.json"]).stdout);
    assert!(made.contains("# line 1: x[[domain]]\n[[route]]"), "{made}");
}
