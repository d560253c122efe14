//! Which lines of the rules the tests reached, and which never.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cli::Done;
use crate::cli::print::{self, BAD, DIM, GOOD, Painted, plain};
use crate::rules::step::{Step, Watcher};

/// Counts what is reached. Cheap to clone; clones share.
#[derive(Clone, Default)]
pub struct Reached(Arc<Mutex<HashMap<String, BTreeMap<u32, Line>>>>);

/// A line that was reached: what begins it, and how often that was done.
struct Line {
    begins: (u32, bool),
    times: u64,
}

impl Reached {
    fn files(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<u32, Line>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn watcher(&self) -> Watcher {
        let reached = self.clone();
        Watcher::new(move |step| {
            reached.count(step);
            Ok(())
        })
    }

    fn count(&self, step: &Step<'_>) {
        let begins = (step.place.column, step.is_statement);
        let mut files = self.files();
        if !files.contains_key(&step.place.file) {
            files.insert(step.place.file.clone(), BTreeMap::new());
        }
        let Some(lines) = files.get_mut(&step.place.file) else { return };
        let line = lines.entry(step.place.line).or_insert(Line { begins, times: 0 });
        line.times += u64::from(line.begins == begins);
    }

    /// Held against the lines that can be reached.
    #[must_use]
    pub fn of(&self, reachable: BTreeMap<String, BTreeSet<u32>>) -> Vec<File> {
        let reached = self.files();
        let file = |(name, lines): (String, BTreeSet<u32>)| {
            let known = reached.get(&name);
            let times = |line: u32| known.and_then(|lines| lines.get(&line)).map_or(0, |line| line.times);
            File { lines: lines.into_iter().map(|line| (line, times(line))).collect(), name }
        };
        reachable.into_iter().map(file).collect()
    }
}

/// A file's lines that can be reached, each with how often it was.
pub struct File {
    name: String,
    lines: Vec<(u32, u64)>,
}

impl File {
    fn reached(&self) -> usize {
        self.lines.iter().filter(|(_, times)| *times > 0).count()
    }
}

/// A line for each file, the lines that were never reached behind it, and one for all of them.
pub fn tell(files: &[File]) -> Done {
    print::line("")?;
    let width = files.iter().map(|file| plain(&file.name).chars().count()).max().unwrap_or_default().max("all".len());
    for file in files {
        let never = never(file);
        let never = if never.is_empty() { String::new() } else { format!("; never reached: {never}") };
        one(width, &plain(&file.name), (file.reached(), file.lines.len()), &never)?;
    }
    let all = (files.iter().map(File::reached).sum(), files.iter().map(|file| file.lines.len()).sum());
    if files.len() > 1 { one(width, "all", all, "") } else { Ok(()) }
}

fn one(width: usize, name: &str, (reached, all): (usize, usize), never: &str) -> Done {
    let style = if reached == all { GOOD } else { BAD };
    let share = Painted(style, format!("{:>3} %", percent(reached, all)));
    let of = Painted(DIM, format!("{reached} of {all} lines{never}"));
    print::line(format_args!("{name:width$}  {share}  {of}"))
}

/// 100 only where it is all of them.
fn percent(reached: usize, all: usize) -> usize {
    (reached * 100).checked_div(all).unwrap_or(100)
}

/// As in `14, 31-33`: what lies between two of them and can't be reached is left out of none.
fn never(file: &File) -> String {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    let mut before = false;
    for (line, times) in &file.lines {
        match spans.last_mut() {
            _ if *times > 0 => {}
            Some((_, last)) if before => *last = *line,
            _ => spans.push((*line, *line)),
        }
        before = *times == 0;
    }
    let shown = spans.iter().map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") });
    shown.collect::<Vec<_>>().join(", ")
}

/// As editors and build servers read it (LCOV's tracefile). `path`: where a file of the rules lies.
#[must_use]
pub fn lcov(files: &[File], path: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    for file in files {
        // A line end in a name would be a line of the tracefile.
        let name: String = path(&file.name).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let _infallible = writeln!(out, "TN:\nSF:{name}");
        for (line, times) in &file.lines {
            let _infallible = writeln!(out, "DA:{line},{times}");
        }
        let _infallible = writeln!(out, "LF:{}\nLH:{}\nend_of_record", file.lines.len(), file.reached());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(lines: &[(u32, u64)]) -> File {
        File { name: "rules/main.rhai".to_owned(), lines: lines.to_vec() }
    }

    #[test]
    fn lines_next_to_each_other_are_a_span() {
        assert_eq!(never(&file(&[(1, 0), (2, 0), (4, 0), (5, 1), (7, 0), (9, 2), (10, 0)])), "1-4, 7, 10");
        assert_eq!(never(&file(&[(1, 1)])), "");
        assert_eq!(never(&file(&[])), "");
    }

    #[test]
    fn all_is_said_of_all_alone() {
        assert_eq!([percent(199, 200), percent(2, 2), percent(0, 3), percent(0, 0)], [99, 100, 0, 100]);
    }

    #[test]
    fn a_name_makes_no_line_of_the_tracefile() {
        let out = lcov(&[file(&[(3, 7), (4, 0)])], |name| format!("{name}\nDA:9,9"));
        assert_eq!(out, "TN:\nSF:rules/main.rhai\u{fffd}DA:9,9\nDA:3,7\nDA:4,0\nLF:2\nLH:1\nend_of_record\n");
    }
}
