//! What an admin hands over, of any text: other services' exports, cron expressions, tests of rules with what is answered
//! outside. It is read or refused at a place; what an export becomes is read here as it was written; a time comes after the
//! last. The first octet says which it is.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mailworker::cli::args::{Import, ImportFrom};
use mailworker::cli::{import, test};
use mailworker::config::leaf::Leaf;
use mailworker::config::load::{Options, Reading};
use mailworker::config::{Config, Cron};
use mailworker::diagnostic::{Diagnostic, Severity};
use mailworker::mail::{Address, Timestamp};
use toml_edit::DocumentMut;

const BASE: &str = "hostname = \"mx.example.com\"\n[relay]\nsmarthost = \"smtp://127.0.0.1:25\"\n\
                    [[kv_namespaces]]\nbinding = \"KV\"\n[vars]\nTEAM = \"team@example.net\"\n\
                    [[webhook]]\nbinding = \"HOOK\"\nurl = \"https://hooks.example.net/\"\n";
const DOMAIN: &str = "[[domain]]\nname = \"example.com\"\npostmaster = \"admin@example.net\"\n";

fn configured(text: &str) -> Result<Config, Vec<Diagnostic>> {
    let options = Options { without_rules: true, without_tls: true, secrets: Reading::Wanted, ..Options::default() };
    Config::from_toml(text, "mailworker.toml", Path::new("/nowhere"), &options).map(|loaded| loaded.config)
}

static CONFIG: LazyLock<Config> = LazyLock::new(|| configured(&format!("{BASE}{DOMAIN}")).expect("it is one"));

fn placed(findings: &[Diagnostic], text: &str) {
    assert!(!findings.is_empty());
    for finding in findings {
        assert!(finding.line <= text.lines().count() + 1 && !finding.message.is_empty(), "{finding:?}");
        let _ = finding.to_string();
    }
}

fn exported(from: ImportFrom, text: &str, named: bool) {
    let options = Import {
        from,
        file: "export".into(),
        domain: named.then(|| "example.com".to_owned()),
        postmaster: Some(Address::parse("admin@example.net").expect("an address")),
        write: false,
    };
    let lines = text.lines().count() + 1;
    let carried = match import::carried(text, &options) {
        Ok(carried) => carried,
        Err((line, why)) => return assert!(line <= lines && !why.is_empty(), "{line}: {why}"),
    };
    assert!(carried.left.iter().all(|(line, what)| *line <= lines && !what.is_empty()), "{:?}", carried.left);
    let Ok(document) = import::document(DocumentMut::new(), &carried, &options, None) else {
        panic!("a postmaster is named");
    };
    let written = document.to_string();
    let again: DocumentMut = written.parse().unwrap_or_else(|error| panic!("{error}\n{written}"));
    let routes = again.get("route").and_then(|routes| routes.as_array_of_tables()).map_or(0, |routes| routes.len());
    assert_eq!(routes, carried.routes.len(), "{written}");
    let domain = if written.contains("[[domain]]") { "" } else { DOMAIN };
    if let Err(findings) = configured(&format!("{BASE}{domain}{written}")) {
        let errors: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
        assert!(errors.is_empty(), "{errors:?}\n{written}");
    }
}

fn timed(text: &str) {
    let Ok(cron) = Cron::parse(text) else { return };
    let mut at = Timestamp::from_millis(1_795_511_702_123);
    for _ in 0..5 {
        let Some(next) = cron.next(at) else { return };
        assert!(next > at && next.as_millis() % 60_000 == 0, "{cron:?}: {next:?} after {at:?}");
        assert_eq!(cron.latest(at, next), Some(next), "{cron:?}");
        assert_eq!(cron.latest(at, Timestamp::from_millis(next.as_millis() - 1)), None, "{cron:?}");
        at = next;
    }
    let again = Cron::parse(cron.text()).expect("it is written as it was read");
    assert_eq!(again.next(at), cron.next(at));
}

fuzz_target!(|input: &[u8]| {
    let Some((which, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match which % 8 {
        0 => exported(ImportFrom::Cloudflare, text, false),
        1 => exported(ImportFrom::Mailgun, text, false),
        2 | 3 => exported(ImportFrom::Forwardemail, text, which % 2 == 0),
        4 | 5 => exported(ImportFrom::PostfixVirtual, text, which % 2 == 0),
        6 => timed(text),
        _ => {
            if let Err(findings) = test::case::cases(text, "test.toml", Path::new("/nowhere"), &CONFIG) {
                placed(&findings, text);
            }
        }
    }
});
