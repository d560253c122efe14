//! What a process prints, line by line, to be waited on.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::Arc;

use serde_json::Value;

use super::watched::Watched;

#[derive(Debug, Clone, Default)]
pub struct Lines {
    printed: Arc<Watched<Printed>>,
    before: usize,
}

#[derive(Debug, Default)]
struct Printed {
    lines: Vec<String>,
    ended: usize,
}

impl Lines {
    /// For the next run of the process: lines are counted on, so a mark of this run is before all of the next.
    pub fn following(&self) -> Self {
        Self { before: self.mark(), ..Self::default() }
    }

    /// Collects what `stream` prints on a thread of its own, until its end.
    pub fn collect(&self, stream: impl Read + Send + 'static) {
        let printed = Arc::clone(&self.printed);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                printed.change(|printed| printed.lines.push(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            printed.change(|printed| printed.ended += 1);
        });
    }

    pub fn all(&self) -> Vec<String> {
        self.printed.lock().lines.clone()
    }

    /// How many lines there are; [`Lines::find`] can start from there.
    pub fn mark(&self) -> usize {
        self.before + self.printed.lock().lines.len()
    }

    /// The first line after `mark` in which `find` finds something; panics at the deadline or when the process has
    /// closed both its streams without printing it.
    pub fn find<R>(&self, what: &str, mark: usize, mut find: impl FnMut(&str) -> Option<R>) -> R {
        let mut next = mark.saturating_sub(self.before);
        let found = self.printed.wait(|printed| {
            while let Some(line) = printed.lines.get(next) {
                next += 1;
                if let Some(found) = find(line) {
                    return Some(Some(found));
                }
            }
            (printed.ended >= 2).then_some(None)
        });
        found.flatten().unwrap_or_else(|| panic!("never printed: {what}\n{}", self.all().join("\n")))
    }

    /// Waits a moment for another line than the first `mark`.
    pub fn more(&self, mark: usize) {
        let brief = std::time::Duration::from_millis(50);
        self.printed.wait_for(brief, |printed| (self.before + printed.lines.len() > mark).then_some(()));
    }
}

/// The event that a line tells of; lines of the log tell of none.
pub fn event(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok().filter(|value: &Value| value.get("event").is_some())
}
