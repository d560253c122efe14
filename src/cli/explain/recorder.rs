//! What a run does, line by line as it is reached, with what it asks of the store between them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::clock::Instant;
use crate::intake::Snapshot;
use crate::kv::{Counted, Entry, Limit, Page, Value, View, ViewError};
use crate::mail::Timestamp;
use crate::rules::KvView;
use crate::rules::step::Step;
use crate::store::Limits;
use crate::store::releases::Files;

/// Lines that are told of one explanation, and calls of one line.
const MAX_LINES: usize = 1000;
const MAX_CALLS: usize = 20;
/// Characters of a value that are shown.
const MAX_SHOWN: usize = 120;

/// A line of a rule that was reached.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub file: String,
    #[serde(rename = "line")]
    pub number: u32,
    pub text: String,
    /// How often what begins it was done.
    pub times: u64,
    #[serde(skip)]
    begins: (u32, bool),
    pub calls: Vec<Call>,
}

/// Something that a run asked of its host, and what it was answered.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    pub asked: String,
    pub answer: String,
    pub micros: u64,
}

/// Notes it all. Cheap to clone; clones share.
#[derive(Clone, Default)]
pub struct Recorder {
    noted: Arc<Mutex<Noted>>,
}

#[derive(Default)]
struct Noted {
    lines: Vec<Line>,
    known: HashMap<(String, u32), usize>,
    at: Option<usize>,
    left_out: u64,
}

impl Recorder {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step of a run of these sources.
    pub fn reached(&self, step: &Step<'_>, sources: &Sources) {
        let (place, is_statement) = (&step.place, step.is_statement);
        let mut noted = self.noted();
        let key = (sources.name(&place.file), place.line);
        if let Some(at) = noted.known.get(&key).copied() {
            let is_elsewhere = noted.at != Some(at);
            if let Some(line) = noted.lines.get_mut(at) {
                let begins = line.begins == (place.column, is_statement) && (is_statement || is_elsewhere);
                line.times += u64::from(begins);
            }
            noted.at = Some(at);
            return;
        }
        if noted.lines.len() >= MAX_LINES {
            noted.left_out += 1;
            return;
        }
        let text = sources.line(&place.file, place.line).trim_start().to_owned();
        let at = noted.lines.len();
        let (begins, file) = ((place.column, is_statement), key.0.clone());
        noted.lines.push(Line { file, number: place.line, text, times: 1, begins, calls: Vec::new() });
        noted.known.insert(key, at);
        noted.at = Some(at);
    }

    fn called(&self, asked: String, answer: String, since: Instant) {
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut noted = self.noted();
        let Some(at) = noted.at else { return };
        if let Some(line) = noted.lines.get_mut(at).filter(|line| line.calls.len() < MAX_CALLS) {
            line.calls.push(Call { asked, answer, micros });
        }
    }

    /// All that was noted since the last time, in the order in which it was first reached.
    #[must_use]
    pub fn take(&self) -> Vec<Line> {
        std::mem::take(&mut *self.noted()).lines
    }

    /// The same keys, and what is asked of them is noted, without the values of secrets that these rules know. Limits are
    /// counted for this explanation alone, from nothing.
    #[must_use]
    pub fn watching(&self, keys: KvView, rules: &Arc<Snapshot>) -> KvView {
        Arc::new(Watching { keys, limits: Limits::default(), recorder: self.clone(), rules: Arc::clone(rules) })
    }
}

/// The rules' texts: files, each read when a line of it is wanted, or a release's.
pub struct Sources {
    /// `None`: there are no others than those that are here.
    base: Option<PathBuf>,
    /// What tells its files from those of another release; empty: nothing has to.
    which: String,
    read: Mutex<HashMap<String, Vec<String>>>,
}

impl Sources {
    #[must_use]
    pub fn below(base: &Path) -> Self {
        Self { base: Some(base.to_owned()), which: String::new(), read: Mutex::default() }
    }

    #[must_use]
    pub fn of(files: &Files, which: String) -> Self {
        let read = files.iter().map(|(path, text)| (path.clone(), lines_of(text))).collect();
        Self { base: None, which, read: Mutex::new(read) }
    }

    fn name(&self, file: &str) -> String {
        format!("{file}{}", self.which)
    }

    /// As it stands there; nothing where it isn't there any more.
    #[must_use]
    pub fn line(&self, file: &str, line: u32) -> String {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = read.entry(file.to_owned()).or_insert_with(|| {
            let read = self.base.as_ref().and_then(|base| std::fs::read_to_string(base.join(file)).ok());
            lines_of(&read.unwrap_or_default())
        });
        let at = usize::try_from(line).ok().and_then(|line| line.checked_sub(1));
        at.and_then(|at| lines.get(at)).cloned().unwrap_or_default()
    }
}

fn lines_of(text: &str) -> Vec<String> {
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

struct Watching {
    keys: KvView,
    limits: Limits,
    recorder: Recorder,
    rules: Arc<Snapshot>,
}

impl Watching {
    fn called(&self, asked: String, answer: String, since: Instant) {
        self.recorder.called(self.rules.release.hide(asked), answer, since);
    }

    fn shown(&self, value: &Value) -> String {
        let text = match value {
            Value::Text(text) => format!("{text:?}"),
            Value::Blob(octets) => return format!("a blob of {} octets", octets.len()),
            Value::Json(json) => json.to_string(),
        };
        let text = self.rules.release.hide(text);
        if text.chars().count() <= MAX_SHOWN {
            return text;
        }
        text.chars().take(MAX_SHOWN).chain(['…']).collect()
    }
}

impl View for Watching {
    fn count(&self, limit: &Limit<'_>) -> Counted {
        let begun = Instant::now();
        let counted = self.limits.count(limit);
        let is = if counted.allowed { "allowed" } else { "not allowed" };
        let answer = format!("{is}, {} remaining (limits start empty here)", counted.remaining);
        self.called(format!("limit {:?} {:?}", limit.name, limit.key), answer, begun);
        counted
    }

    fn get(&self, namespace: &str, key: &str, now: Timestamp) -> Result<Option<Entry>, ViewError> {
        let begun = Instant::now();
        let found = self.keys.get(namespace, key, now);
        let answer = match &found {
            Ok(None) => "()".to_owned(),
            Ok(Some(entry)) => self.shown(&entry.value),
            Err(error) => error.to_string(),
        };
        self.called(format!("get {namespace} {key:?}"), answer, begun);
        found
    }

    fn list(
        &self,
        namespace: &str,
        prefix: &str,
        cursor: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page, ViewError> {
        let begun = Instant::now();
        let found = self.keys.list(namespace, prefix, cursor, limit, now);
        let answer = match &found {
            Ok(page) => format!("{} keys{}", page.keys.len(), if page.cursor.is_some() { " and more" } else { "" }),
            Err(error) => error.to_string(),
        };
        self.called(format!("list {namespace} {prefix:?}"), answer, begun);
        found
    }
}
