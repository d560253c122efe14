//! Files of tests that are written in Rhai: what one asks to be decided is a case as a `[[test]]` describes it.
//!
//! The cases of one test share their keys and counters, as messages that come one after the other do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value as Json;

use super::case::{self, About, NOW};
use super::keys::Keys;
use super::{Rules, compare, decision, tell};
use crate::cli::print::{DIM, Painted, plain};
use crate::diagnostic::Diagnostic;
use crate::mail::{Message, MessageId};
use crate::reload;
use crate::rules::scripted::{Decides, Scripted};
use crate::rules::{EmailCall, KvView, Lent, Seed, SessionFacts, THREAD_STACK};

/// Compiles the tests of a file, with all that lies beside it and the rules to be imported.
///
/// # Errors
/// Every finding.
pub fn compile(path: &Path, rules: &Rules) -> Result<Scripted, Vec<Diagnostic>> {
    let config = &rules.own.config;
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (path, base) = (whole(path), whole(&config.base_dir));
    let folder = path.parent().unwrap_or(Path::new(""));
    // As the configuration would name it, so that the rules above it can be imported.
    let name = |path: &Path| path.strip_prefix(&base).unwrap_or(path).to_string_lossy().into_owned();
    let mut sources = reload::files(config)?;
    sources.extend(reload::beside(folder, &name(folder))?);
    let tests = Scripted::compile(&name(&path), &sources, reload::bindings(config))?;
    Ok(match &rules.reached {
        Some(reached) => tests.watched(reached.watcher()),
        None => tests,
    })
}

/// Runs one test: what it says, where it failed.
pub fn run(tests: &Scripted, test: &str, folder: &Path, rules: &Arc<Rules>) -> Option<Vec<String>> {
    let keys = Arc::new(Keys::new(BTreeMap::new()));
    let decider = Arc::new(Decider {
        test: test.to_owned(),
        folder: folder.to_owned(),
        rules: Arc::clone(rules),
        keys: Arc::clone(&keys),
        lines: Mutex::default(),
    });
    let ran = tests.run(test, NOW, &(keys as KvView), Arc::clone(&decider) as Arc<dyn Decides>);
    let why = ran.result.err()?;
    let mut lines: Vec<String> = why.lines().map(|line| format!("  {}", plain(line))).collect();
    lines.append(&mut decider.lines.lock().unwrap_or_else(PoisonError::into_inner));
    lines.extend(
        ran.log.iter().map(|line| format!("  {}", Painted(DIM, format!("{}: {}", line.at, plain(&line.text))))),
    );
    Some(lines)
}

struct Decider {
    test: String,
    folder: PathBuf,
    rules: Arc<Rules>,
    keys: Arc<Keys>,
    /// How the last decision differs from what was expected of it.
    lines: Mutex<Vec<String>>,
}

impl Decides for Decider {
    fn message(&self, asked: &Json) -> Result<EmailCall, String> {
        let config = &self.rules.own.config;
        let case = case::described(asked, &self.test, &self.folder, config).map_err(|found| said(&found))?;
        let About::Mail(mail) = case.about else {
            return Err("that is no message: give `message` or `raw`".to_owned());
        };
        let recipient = mail.to.into_iter().next().ok_or("`to` is missing")?;
        let domain = config.domain_for(&recipient);
        let subaddress = domain.map(|domain| domain.subaddress.clone()).unwrap_or_default();
        let session = SessionFacts { client: mail.client, sender: mail.from, notes: BTreeMap::new() };
        let message = Message::received_by(&config.hostname, mail.raw);
        Ok(EmailCall {
            main: self.test.clone(),
            id: MessageId::new(case.now, 0),
            received_at: case.now,
            recipient,
            subaddress,
            session: Arc::new(session),
            message: Arc::new(message),
            now: case.now,
            seed: Seed::default(),
            reach: Lent::default(),
        })
    }

    fn decide(&self, asked: &Json) -> Result<Json, String> {
        let case =
            case::described(asked, &self.test, &self.folder, &self.rules.own.config).map_err(|found| said(&found))?;
        let snapshot = self.rules.with(&case).map_err(|_| "the rules don't compile with these vars".to_owned())?;
        // A run of its own: the test goes on with what is left of its own time and operations.
        let decided = std::thread::scope(|scope| {
            let decide = || decision::decide_by(&case, &snapshot, &self.keys);
            let thread = std::thread::Builder::new().stack_size(THREAD_STACK).spawn_scoped(scope, decide);
            thread
                .map_err(|error| error.to_string())?
                .join()
                .map_err(|_| "the rules came to a fault of our own".to_owned())
        })?;
        if !compare::holds(&case, &decided) {
            *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = tell::failure(&case, &decided);
            return Err("decided otherwise".to_owned());
        }
        Ok(decided.as_json())
    }
}

/// Findings in a line each: their places are of a text that nobody wrote.
fn said(found: &[Diagnostic]) -> String {
    let one = |finding: &Diagnostic| match &finding.help {
        Some(help) => format!("{} ({help})", finding.message),
        None => finding.message.clone(),
    };
    found.iter().map(one).collect::<Vec<_>>().join("\n")
}
