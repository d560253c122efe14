//! The architecture as a test: who may know whom, which crate lives where, what is pure, and how a file looks.
//!
//! Reads `src` as text. What stands in `#[cfg(test)]` modules is free. Each finding names file and line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "tidy/coverage.rs"]
mod coverage;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A module and the ones it may use. Everyone may use `diagnostic`; the modules stand in the order of the flow.
const MAY_USE: &[(&str, &[&str])] = &[
    ("mail", &[]),
    ("kv", &["mail"]),
    ("diagnostic", &[]),
    // An event is handed to the log by the bus itself, so that none is told to one and not to the other.
    ("event", &["mail", "telemetry"]),
    ("config", &["mail"]),
    ("smtp", &["mail"]),
    ("rules", &["mail", "kv"]),
    ("compose", &["mail"]),
    // It makes the monotonic clock that bounds a run.
    ("clock", &["mail", "rules"]),
    // It does nothing aside where the clock is held.
    ("aside", &["clock"]),
    ("dns", &["config"]),
    // It asks for workers, by the clients that webhooks have.
    ("reach", &["config", "rules", "dns", "delivery", "clock"]),
    ("authenticate", &["mail", "dns", "clock", "aside"]),
    ("store", &["mail", "kv", "event", "clock", "aside"]),
    // Secrets lie sealed in the store, and are opened with a key of the configuration's.
    ("vault", &["config", "store", "clock"]),
    (
        "intake",
        &[
            "mail",
            "kv",
            "event",
            "config",
            "smtp",
            "rules",
            "compose",
            "store",
            "dns",
            "authenticate",
            "reach",
            "clock",
            "aside",
        ],
    ),
    ("delivery", &["mail", "kv", "event", "config", "store", "dns", "authenticate", "clock", "aside"]),
    ("listener", &["mail", "event", "config", "smtp", "intake", "clock"]),
    // It counts what the store says of itself.
    ("telemetry", &["mail", "event", "store", "clock"]),
    ("admin", &["mail", "kv", "event", "config", "store", "vault", "rules", "telemetry", "clock"]),
    (
        "reload",
        &["mail", "kv", "event", "config", "smtp", "rules", "store", "dns", "intake", "delivery", "listener", "clock"],
    ),
    // What is asked of past mail: it reads, and changes nothing.
    ("replay", &["mail", "kv", "event", "config", "rules", "store", "intake", "clock"]),
    (
        "app",
        &[
            "mail",
            "kv",
            "event",
            "config",
            "smtp",
            "rules",
            "clock",
            "dns",
            "authenticate",
            "store",
            "vault",
            "intake",
            "delivery",
            "reach",
            "listener",
            "telemetry",
            "admin",
            "reload",
        ],
    ),
    (
        "cli",
        &[
            "mail",
            "kv",
            "event",
            "config",
            "smtp",
            "rules",
            "clock",
            "dns",
            "authenticate",
            "store",
            "vault",
            "intake",
            "delivery",
            "reach",
            "listener",
            "telemetry",
            "admin",
            "reload",
            "replay",
            "app",
        ],
    ),
];

/// A crate and the places that may name it: a file, or a folder with all below it.
const LIVES_IN: &[(&str, &[&str])] = &[
    ("rhai", &["src/rules/"]),
    ("stacker", &["src/rules/"]),
    ("rusqlite", &["src/store/"]),
    ("refinery", &["src/store/"]),
    ("memmap2", &["src/store/"]),
    ("mail_parser", &["src/mail/message.rs", "src/mail/message/"]),
    // The replies of servers are read by delivery, and by `mailworker send`.
    ("smtp_proto", &["src/smtp/command.rs", "src/smtp/command/", "src/delivery/", "src/cli/dialogue.rs"]),
    ("maxminddb", &["src/config/geoip.rs"]),
    ("mail_auth", &["src/authenticate.rs", "src/authenticate/", "src/dns.rs", "src/dns/"]),
    ("hickory_resolver", &["src/dns.rs", "src/dns/"]),
    ("hickory_proto", &["src/dns.rs", "src/dns/"]),
    ("mail_send", &["src/delivery/", "src/cli/dialogue.rs"]),
    ("mail_builder", &["src/delivery/", "src/compose.rs", "src/compose/"]),
    ("axum", &["src/admin/", "src/cli/"]),
    ("reqwest", &["src/delivery/", "src/reach/", "src/cli/"]),
    ("toml", &["src/config/"]),
    ("croner", &["src/config/"]),
    // It changes tests of rules, and the configuration, where they stand.
    ("toml_edit", &["src/cli/"]),
    ("clap", &["src/cli/"]),
    ("tokio_rustls", &["src/listener/", "src/delivery/", "src/cli/dialogue.rs"]),
    ("ppp", &["src/listener/"]),
    ("listenfd", &["src/listener/"]),
    ("tracing_subscriber", &["src/telemetry.rs", "src/telemetry/"]),
    ("metrics", &["src/telemetry.rs", "src/telemetry/"]),
    ("metrics_exporter_prometheus", &["src/telemetry.rs", "src/telemetry/"]),
];

/// Modules without I/O, clock and randomness, and the files of theirs that are the exception.
const PURE: &[(&str, &[&str])] = &[
    ("mail", &[]),
    ("kv", &[]),
    ("diagnostic", &[]),
    // The bus is a channel.
    ("event", &["src/event.rs: tokio::sync"]),
    ("config", &["src/config/load.rs"]),
    ("smtp", &[]),
    ("rules", &[]),
    ("compose", &[]),
];
const IMPURE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::process",
    "std::env",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "SystemTime::now",
    "Instant::now",
    "fastrand::",
    "crate::clock",
];

const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];
const LONGEST_FILE: usize = 700;
const LONGEST_PLAN: usize = 250;

/// A file of `src`, without its tests and comments.
struct File {
    /// From the root: `src/smtp/session.rs`.
    path: String,
    /// The top-level module it belongs to.
    module: String,
    text: String,
    /// Line numbers from 1.
    code: Vec<(usize, String)>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn walk(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn sources() -> Vec<File> {
    let mut paths = Vec::new();
    walk(&root().join("src"), &mut paths);
    paths.sort();
    let files: Vec<File> = paths.iter().map(|path| read(path)).collect();
    assert!(files.len() > 20, "found only {} files below src", files.len());
    files
}

fn read(path: &Path) -> File {
    let text = std::fs::read_to_string(path).unwrap();
    let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    let module = path.trim_start_matches("src/").split('/').next().unwrap().trim_end_matches(".rs").to_owned();
    let code = if is_test_file(&path) { Vec::new() } else { code_of(&text) };
    File { path, module, text, code }
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("_tests.rs") || path.contains("/tests/")
}

/// The lines that are code: comments cut, `#[cfg(test)]` items left out by their braces.
fn code_of(text: &str) -> Vec<(usize, String)> {
    let mut code = Vec::new();
    let mut test_depth: Option<i32> = None;
    let mut expects_item = false;
    for (at, line) in text.lines().enumerate() {
        let line = without_comment(line);
        let opened =
            i32::try_from(line.matches('{').count()).unwrap() - i32::try_from(line.matches('}').count()).unwrap();
        if let Some(depth) = &mut test_depth {
            *depth += opened;
            if *depth <= 0 {
                test_depth = None;
            }
            continue;
        }
        if line.trim_start().starts_with("#[cfg(test)]") {
            expects_item = true;
            continue;
        }
        if expects_item {
            if line.trim_start().starts_with("#[") {
                continue;
            }
            if opened > 0 {
                test_depth = Some(opened);
            }
            // An item of several lines before its brace, or `mod tests;`.
            expects_item = opened <= 0 && !line.contains(';') && !line.contains('}');
            continue;
        }
        code.push((at + 1, line));
    }
    code
}

fn without_comment(line: &str) -> String {
    match line.find("//") {
        // `https://` in a string is no comment.
        Some(at) if !line[..at].ends_with(':') => line[..at].to_owned(),
        _ => line.to_owned(),
    }
}

/// Every word that follows `crate::` in a line, in groups (`use crate::{a, b::c}`) as well.
fn crate_paths(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        if line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                let mut depth = 0;
                let mut word = String::new();
                let mut first = true;
                for character in group.chars() {
                    match character {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => first = true,
                        _ if depth > 0 => {}
                        c if first && (c.is_alphanumeric() || c == '_') => word.push(c),
                        ' ' => {}
                        _ => first = false,
                    }
                    if (character == ',' && depth == 0) || character == ':' {
                        found.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
                    }
                }
                found.extend(Some(word).filter(|word| !word.is_empty()));
            }
            None => found.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()),
        }
    }
    found
}

fn assert_none(findings: &[String], rule: &str) {
    let mut report = String::new();
    for finding in findings {
        let _ = writeln!(report, "  {finding}");
    }
    assert!(findings.is_empty(), "{rule}:\n{report}");
}

#[test]
fn modules_know_only_whom_they_may() {
    let mut findings = Vec::new();
    for file in sources().iter().filter(|file| !matches!(file.module.as_str(), "lib" | "main")) {
        let Some((_, allowed)) = MAY_USE.iter().find(|(module, _)| *module == file.module) else {
            findings.push(format!("{}: the module `{}` is not in the table of tests/tidy.rs", file.path, file.module));
            continue;
        };
        for (line, code) in &file.code {
            for used in crate_paths(code) {
                let known = MAY_USE.iter().any(|(module, _)| *module == used);
                let fine = used == file.module || used == "diagnostic" || allowed.contains(&used.as_str());
                if known && !fine {
                    findings.push(format!("{}:{line}: `{}` may not use `{used}`", file.path, file.module));
                }
            }
        }
    }
    assert_none(&findings, "who may know whom (MAY_USE in tests/tidy.rs, ARCHITECTURE.md)");
}

#[test]
fn the_table_has_no_cycle_but_those_it_explains() {
    // event ─► telemetry ─► event: the bus; telemetry ─► store ─► event: the store's own counts.
    let explained = ["event", "telemetry", "store"];
    for (module, used) in MAY_USE {
        for other in *used {
            let back = MAY_USE.iter().find(|(name, _)| name == other).unwrap().1.contains(module);
            let fine = explained.contains(module) && explained.contains(other);
            assert!(!back || fine, "`{module}` and `{other}` may use each other");
        }
    }
}

#[test]
fn crates_stay_where_they_live() {
    let mut findings = Vec::new();
    for file in sources() {
        for (name, places) in LIVES_IN {
            let at_home = places
                .iter()
                .any(|place| if place.ends_with('/') { file.path.starts_with(place) } else { file.path == *place });
            if at_home {
                continue;
            }
            for (line, _) in file.code.iter().filter(|(_, code)| names_crate(code, name)) {
                findings.push(format!("{}:{line}: `{name}` belongs in {}", file.path, places.join(", ")));
            }
        }
    }
    assert_none(&findings, "each crate is known to one place");
}

/// `name::`, `use name;` or `use name as`, at the start of a path.
fn names_crate(code: &str, name: &str) -> bool {
    let path = code.match_indices(&format!("{name}::")).any(|(at, _)| {
        !code[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | ':' | '"'))
            || code[..at].ends_with(" ::")
    });
    path || code.trim_start().starts_with(&format!("use {name};"))
        || code.trim_start().starts_with(&format!("use {name} as"))
}

#[test]
fn pure_modules_touch_nothing() {
    let mut findings = Vec::new();
    for file in sources() {
        let Some((_, exceptions)) = PURE.iter().find(|(module, _)| *module == file.module) else { continue };
        if exceptions.contains(&file.path.as_str()) {
            continue;
        }
        for (line, code) in &file.code {
            for impure in IMPURE.iter().filter(|impure| code.contains(*impure)) {
                let excused = exceptions.iter().any(|exception| {
                    exception.split_once(": ").is_some_and(|(path, what)| path == file.path && code.contains(what))
                });
                if !excused {
                    findings.push(format!("{}:{line}: `{}` is pure and names {impure}", file.path, file.module));
                }
            }
        }
    }
    assert_none(&findings, "no I/O, clock or randomness in pure modules: they are arguments");
}

#[test]
fn every_file_says_what_it_is() {
    let bare =
        sources().into_iter().filter(|file| !file.text.starts_with("//!")).map(|file| file.path).collect::<Vec<_>>();
    assert_none(&bare, "a file begins with `//!`: what it does, what it must never do, from where, to where");
}

#[test]
fn no_file_hides_a_second_idea() {
    let long = |file: File| {
        let lines = file.text.lines().count();
        (lines > LONGEST_FILE).then(|| format!("{}: {lines} lines", file.path))
    };
    let findings: Vec<_> = sources().into_iter().filter_map(long).collect();
    assert_none(&findings, &format!("no file past {LONGEST_FILE} lines: find the second idea, split there"));
}

#[test]
fn the_plan_is_read_in_one_sitting() {
    let lines = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap().lines().count();
    assert!(lines <= LONGEST_PLAN, "ARCHITECTURE.md has {lines} lines of {LONGEST_PLAN}: fold what is known by now");
}

#[test]
fn nothing_is_left_unfinished() {
    let mut findings = Vec::new();
    for file in sources() {
        for (line, code) in &file.code {
            findings.extend(
                UNFINISHED
                    .iter()
                    .filter(|word| code.contains(*word))
                    .map(|word| format!("{}:{line}: {word}", file.path)),
            );
        }
    }
    assert_none(&findings, "no code that isn't there yet");
}

#[test]
fn the_reader_of_sources_reads_them_rightly() {
    let code =
        code_of("use crate::a; // crate::b\n#[cfg(test)]\nmod tests {\n    use crate::c;\n}\nfn f() { crate::d() }\n");
    let used: Vec<_> = code.iter().flat_map(|(_, line)| crate_paths(line)).collect();
    assert_eq!(used, ["a", "d"]);
    assert_eq!(crate_paths("use crate::{mail::{self, Address}, event, kv::View};"), ["mail", "event", "kv"]);
    assert!(names_crate("use toml::de::DeTable;", "toml"));
    assert!(!names_crate("let x = mailworker_toml::y;", "toml"));
    assert!(!names_crate("crate::metrics::gauges()", "metrics"));
}

/// What `file` should hold is what the code says; `UPDATE=1` writes it.
fn assert_generated(file: &str, text: &str) {
    let path = root().join(file);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let different = found.lines().zip(text.lines()).position(|(found, text)| found != text);
    assert!(
        found == text,
        "{file} is not what the code says, from line {different:?}: UPDATE=1 cargo test --test tidy"
    );
}

#[test]
fn the_reference_of_rules_is_what_the_code_says() {
    assert_generated("rules/README.md", &mailworker::rules::reference::text());
    assert_generated("rules/parsed.md", &mailworker::rules::reference::parsed());
    assert_generated("rules/outside.md", &mailworker::rules::reference::outside());
    assert_generated("rules/functions.md", &mailworker::rules::reference::functions());
    assert_generated("rules/mailworker.d.rhai", &mailworker::rules::reference::definitions());
    assert_generated("rules/sender.md", &mailworker::rules::reference::sender());
    assert_generated("rules/effects.md", &mailworker::rules::reference::effects());
}

#[test]
fn every_example_of_the_reference_compiles() {
    let mut page = mailworker::rules::reference::text();
    page.push_str(&mailworker::rules::reference::effects());
    page.push_str(&mailworker::rules::reference::outside());
    page.push_str(&mailworker::rules::reference::parsed());
    let examples: Vec<&str> = page.split("```rhai\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 4, "{} examples", examples.len());
    let vars = ["SUPPORT_EMAIL", "DEFAULT_EMAIL", "HOOK_SECRET"]
        .map(|name| (name.to_owned(), "team@example.net".into()))
        .into();
    let bindings = mailworker::rules::Bindings {
        vars,
        kv_namespaces: ["USERS", "COUNTS", "SEEN"].map(str::to_owned).into(),
        webhooks: vec!["TICKETS".to_owned(), "CRM".to_owned()],
        ai: Some(mailworker::rules::Ai::default()),
        ..Default::default()
    };
    for example in examples {
        let main = "rules/main.rhai".to_owned();
        let sources = [(main.clone(), example.to_owned())].into();
        let compiled = mailworker::rules::Release::compile(&sources, std::slice::from_ref(&main), bindings.clone());
        match compiled {
            Ok((_, warnings)) => assert!(warnings.is_empty(), "{warnings:#?}\n{example}"),
            Err(findings) => panic!("{findings:#?}\n{example}"),
        }
    }
}
