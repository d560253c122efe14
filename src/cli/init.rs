//! `init`: a configuration, its schema, rules, what editors want to know of them, and a key to start from. What is there already stays as it is.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};

use super::args::Init;
use super::print::{self, GOOD, Painted};
use super::{Done, Failure};

/// The configuration that `init` writes, and that `dev` runs by where there is none.
pub const CONFIG: &str = include_str!("scaffold/mailworker.toml");

/// The rules that `init` writes, and that `dev` runs by where there is no configuration; by the path they go by.
pub const RULES: [(&str, &str); 2] = [
    ("rules/main.rhai", include_str!("../../rules/main.rhai")),
    ("rules/lib/spam.rhai", include_str!("../../rules/lib/spam.rhai")),
];

/// Tests of those rules, and the messages that they are made with.
const TESTS: [(&str, &str); 5] = [
    ("rules/tests/routing.toml", include_str!("../../rules/tests/routing.toml")),
    ("rules/tests/spam.toml", include_str!("../../rules/tests/spam.toml")),
    ("rules/tests/fixtures/support.eml", include_str!("../../rules/tests/fixtures/support.eml")),
    ("rules/tests/fixtures/sales.eml", include_str!("../../rules/tests/fixtures/sales.eml")),
    ("rules/tests/fixtures/spam.eml", include_str!("../../rules/tests/fixtures/spam.eml")),
];

/// Signs webhooks; the configuration names it. Its owner alone reads it.
const KEY: &str = "webhook.key";

/// A new key of Standard Webhooks: 32 octets.
fn key() -> Result<String, Failure> {
    let mut octets = [0; 32];
    SystemRandom::new().fill(&mut octets).map_err(|_unspecified| Failure::failed("the system gives no randomness"))?;
    Ok(format!("whsec_{}\n", STANDARD.encode(octets)))
}

pub fn run(options: &Init) -> Done {
    let schema = serde_json::to_string_pretty(&crate::config::schema()).map_err(Failure::failed)? + "\n";
    let mut files = vec![("mailworker.toml", CONFIG), ("mailworker.schema.json", schema.as_str())];
    let definitions = crate::rules::reference::definitions();
    files.extend(RULES);
    files.push(("rules/mailworker.d.rhai", &definitions));
    files.extend(TESTS);
    if options.dir.exists() && !options.dir.is_dir() {
        return Err(Failure::Failed(format!("{} is no folder", options.dir.display())));
    }
    let key = key()?;
    files.push((KEY, &key));
    let there: Vec<&str> = files.iter().map(|(name, _)| *name).filter(|name| options.dir.join(name).exists()).collect();
    if !there.is_empty() {
        let dir = options.dir.display();
        return Err(Failure::Failed(format!("{dir} has {} already: nothing was written", there.join(", "))));
    }
    for (name, text) in files {
        write_new(&options.dir.join(name), text)?;
        print::line(format_args!("{} {}", Painted(GOOD, "wrote"), options.dir.join(name).display()))?;
    }
    let change = if options.dir == Path::new(".") { String::new() } else { format!("cd {}; ", options.dir.display()) };
    print::line(format_args!(
        "\nNext: {change}mailworker check; mailworker test; mailworker dev\nThen name your domains in mailworker.toml.\n\n{HAND_OVER}"
    ))
}

/// The key is its owner's alone, and a server is mostly somebody else.
const HAND_OVER: &str = "\
webhook.key is for you alone to read. A server that runs as another user needs it handed over: by systemd
(LoadCredential=webhook:FILE in the unit, secret = { credential = \"webhook\" } here), or by `chown` to that user.";

/// Never over a file that is there, even one that came into being since we looked.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let named = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::Failed(format!("{} is there already: left as it is", path.display())),
        _ => Failure::Failed(format!("{} can't be written: {error}", path.display())),
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(named)?;
    }
    let mode = if path.ends_with(KEY) { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(named)?;
    file.write_all(text.as_bytes()).map_err(named)
}
