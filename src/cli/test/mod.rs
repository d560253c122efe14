//! `test`: messages go through the rules as mail would, and what is decided is held against what a file expects.
//!
//! Without network, server or store. `case` reads the tests of a `file`, `decision` runs them, `compare` holds one against the
//! other, `tell` says how it came out; `update` and `junit` write it down. `script` has those that are written in Rhai,
//! `coverage` the lines of the rules that were reached.

mod auth;
pub mod case;
mod compare;
mod coverage;
mod decision;
mod file;
mod happening;
mod junit;
mod keys;
mod kind;
mod outside;
mod script;
mod tell;
mod update;
mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::args::{Common, Test};
use super::print::{self, BAD, DIM, GOOD, NOTE, Painted, plain};
use super::{Done, Failure, configured, show};
use crate::clock::Instant;
use crate::config::Config;
use crate::config::load::{self, Reading};
use crate::diagnostic::Diagnostic;
use crate::intake::Snapshot;
use crate::reload;
use crate::rules::Release;
use crate::rules::scripted::Scripted;
use case::Case;
use coverage::Reached;
use decision::Decision;

/// Files of tests that are read at once.
const MOST_FILES: usize = 5_000;

/// One file of tests.
struct Suite {
    path: PathBuf,
    /// As a person here would name it.
    name: String,
    tests: Tests,
}

enum Tests {
    /// With the file's text.
    Described(String, Vec<Case>),
    Scripted(Box<Scripted>),
}

/// How one test came out.
struct Report {
    name: String,
    line: usize,
    took: Duration,
    end: End,
}

enum End {
    Passed,
    /// What is said of it.
    Failed(Vec<String>),
    Updated(Vec<String>),
}

pub fn run(common: &Common, options: &Test) -> Done {
    let found = configured::for_development(common, Reading::Unread);
    let reached = (options.coverage || options.lcov.is_some()).then(Reached::default);
    let rules = Arc::new(Rules::new(found, reached)?);
    let config = &rules.own.config;
    let suites = read(&find(&options.paths, config)?, &rules)?;
    let mut told = Vec::new();
    for suite in &suites {
        let reports = suite.run(options, &rules)?;
        reports.iter().try_for_each(|report| {
            if options.machine.json { print::json(&outcome(suite, report)) } else { tell(suite, report) }
        })?;
        told.push((suite, reports));
    }
    if let Some(file) = &options.junit {
        write(file, &junit::xml(&told.iter().map(|(suite, reports)| outcomes(suite, reports)).collect::<Vec<_>>()))?;
    }
    let left_out =
        suites.iter().map(Suite::len).sum::<usize>() - told.iter().map(|(_, reports)| reports.len()).sum::<usize>();
    let done = summary(told.iter().flat_map(|(_, reports)| reports), left_out, options);
    // What was reached is told of tests that fail, too.
    if let (Some(reached), Ok(()) | Err(Failure::Said)) = (&rules.reached, &done) {
        let sources = reload::files(config).map_err(Failure::Configuration)?;
        let files = reached.of(Release::reachable(&sources, &config.rules_mains(), &reload::bindings(config)));
        if options.coverage {
            coverage::tell(&files)?;
        }
        if let Some(file) = &options.lcov {
            write(file, &coverage::lcov(&files, |name| shown(&config.base_dir.join(name))))?;
        }
    }
    done
}

fn write(file: &Path, text: &str) -> Done {
    std::fs::write(file, text).map_err(|error| Failure::failed(format!("{} can't be written: {error}", file.display())))
}

/// Whether there are any beside the workers.
#[must_use]
pub fn are_there(config: &Config) -> bool {
    find(&[], config).is_ok()
}

/// The files that are named, or those beside the workers.
fn find(paths: &[PathBuf], config: &Config) -> Result<Vec<PathBuf>, Failure> {
    let mut folders: Vec<PathBuf> = Vec::new();
    if paths.is_empty() {
        for main in config.rules_mains() {
            let folder = config.base_dir.join(main).parent().unwrap_or(Path::new("")).join("tests");
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
    }
    let mut files = Vec::new();
    for path in paths.iter().chain(&folders) {
        if path.is_dir() {
            files.append(&mut below(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?);
        } else if path.is_file() {
            files.push(path.clone());
        } else if paths.contains(path) {
            return Err(Failure::Failed(format!("{}: no such file or folder", path.display())));
        }
    }
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    if files.len() > MOST_FILES {
        return Err(Failure::Failed(format!("more than {MOST_FILES} files of tests: name some of them")));
    }
    if files.is_empty() {
        let places: Vec<String> = paths.iter().chain(&folders).map(|path| shown(path)).collect();
        return Err(Failure::Failed(format!("no tests: there is no *.toml in {}, nor a *.rhai", places.join(", "))));
    }
    Ok(files)
}

/// The tests of a folder, by name; hidden ones are editors' own.
fn below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_test = path.extension().is_some_and(|extension| extension == "toml") || is_script(&path);
        if !is_hidden && is_test && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Written in Rhai, and no definitions for editors.
fn is_script(path: &Path) -> bool {
    let name = path.file_name().map(std::ffi::OsStr::to_string_lossy).unwrap_or_default();
    name.ends_with(".rhai") && !name.ends_with(".d.rhai")
}

/// From where we stand, if it lies below.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    below.unwrap_or(path).display().to_string()
}

/// Reads them all, so that one run shows all that is wrong.
fn read(files: &[PathBuf], rules: &Rules) -> Result<Vec<Suite>, Failure> {
    let (mut suites, mut findings) = (Vec::new(), Vec::new());
    for path in files {
        match suite(path, rules) {
            Ok(suite) => suites.push(suite),
            // A file that several import is found by each.
            Err(found) => found.into_iter().for_each(|one| {
                if !findings.contains(&one) {
                    findings.push(one);
                }
            }),
        }
    }
    if findings.is_empty() { Ok(suites) } else { Err(Failure::Configuration(findings)) }
}

fn suite(path: &Path, rules: &Rules) -> Result<Suite, Vec<Diagnostic>> {
    let name = shown(path);
    let tests = if is_script(path) {
        Tests::Scripted(Box::new(script::compile(path, rules)?))
    } else {
        let text = case::text(path, &name)?;
        let cases = case::cases(&text, &name, folder(path), &rules.own.config)?;
        Tests::Described(text, cases)
    };
    Ok(Suite { path: path.to_owned(), name, tests })
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// The rules, compiled once for each set of variables.
struct Rules {
    options: load::Options,
    /// By the configuration's own.
    own: Arc<Snapshot>,
    bound: Mutex<BTreeMap<String, Arc<Snapshot>>>,
    reached: Option<Reached>,
}

impl Rules {
    fn new(options: load::Options, reached: Option<Reached>) -> Result<Self, Failure> {
        let own = compiled(&options, reached.as_ref(), |_| ())?;
        let bound = Mutex::new(BTreeMap::from([(String::from("{}"), Arc::clone(&own))]));
        Ok(Self { options, own, bound, reached })
    }

    fn with(&self, case: &Case) -> Result<Arc<Snapshot>, Failure> {
        let vars = serde_json::to_string(&case.vars).map_err(Failure::failed)?;
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bound) = bound.get(&vars) {
            return Ok(Arc::clone(bound));
        }
        let change = |config: &mut Config| config.vars.extend(case.vars.clone());
        let made = compiled(&self.options, self.reached.as_ref(), change)?;
        Ok(Arc::clone(bound.entry(vars).or_insert(made)))
    }
}

fn compiled(
    options: &load::Options,
    reached: Option<&Reached>,
    change: impl FnOnce(&mut Config),
) -> Result<Arc<Snapshot>, Failure> {
    let snapshot = reload::snapshot_with(options, change).map_err(Failure::Configuration)?;
    let Some(reached) = reached else { return Ok(Arc::new(snapshot)) };
    let Snapshot { config, release, deployed } = snapshot;
    let release = Arc::into_inner(release).ok_or_else(|| Failure::failed("the rules are in use already"))?;
    Ok(Arc::new(Snapshot { config, release: Arc::new(release.watched(reached.watcher(), true)), deployed }))
}

impl Suite {
    fn len(&self) -> usize {
        match &self.tests {
            Tests::Described(_, cases) => cases.len(),
            Tests::Scripted(tests) => tests.tests().len(),
        }
    }

    fn run(&self, options: &Test, rules: &Arc<Rules>) -> Result<Vec<Report>, Failure> {
        let is_chosen = |name: &str| options.filter.as_ref().is_none_or(|text| name.contains(text.as_str()));
        match &self.tests {
            Tests::Described(text, cases) => {
                let cases: Vec<&Case> = cases.iter().filter(|case| is_chosen(&case.name)).collect();
                self.decide(text, &cases, options.update, rules)
            }
            Tests::Scripted(tests) => {
                let chosen = tests.tests().iter().filter(|(name, _)| is_chosen(name));
                let folder = folder(&self.path);
                Ok(chosen.map(|(name, line)| scripted(tests, (name, *line), folder, rules, options.update)).collect())
            }
        }
    }

    fn decide(&self, text: &str, cases: &[&Case], may_update: bool, rules: &Rules) -> Result<Vec<Report>, Failure> {
        let mut decided = Vec::new();
        for case in cases {
            let snapshot = rules.with(case)?;
            let started = Instant::now();
            let decision = decision::decide(case, &snapshot);
            decided.push((*case, decision, started.elapsed()));
        }
        let updated = if may_update { update(self, text, &decided, &rules.own.config)? } else { Vec::new() };
        let report = |(case, decision, took): &(&Case, Decision, Duration)| {
            let end = if compare::holds(case, decision) {
                End::Passed
            } else if updated.contains(&case.index) {
                End::Updated(tell::failure(case, decision))
            } else {
                End::Failed(tell::failure(case, decision))
            };
            Report { name: case.name.clone(), line: case.line, took: *took, end }
        };
        Ok(decided.iter().map(report).collect())
    }
}

fn scripted(
    tests: &Scripted,
    (name, line): (&str, u32),
    folder: &Path,
    rules: &Arc<Rules>,
    may_update: bool,
) -> Report {
    let started = Instant::now();
    let mut failed = script::run(tests, name, folder, rules);
    if let Some(lines) = failed.as_mut().filter(|_| may_update) {
        lines.push(format!(
            "  {}",
            Painted(DIM, "--update rewrites *.toml alone: what this one expects stands in its code")
        ));
    }
    let (took, line) = (started.elapsed(), usize::try_from(line).unwrap_or_default());
    Report { name: name.to_owned(), line, took, end: failed.map_or(End::Passed, End::Failed) }
}

/// Rewrites what failing tests expect, but for those whose script failed: that is seldom what was meant. Which they were.
fn update(
    suite: &Suite,
    text: &str,
    decided: &[(&Case, Decision, Duration)],
    config: &Config,
) -> Result<Vec<usize>, Failure> {
    let fails = |case: &Case, decision: &Decision| {
        !compare::holds(case, decision) && compare::failed_unexpectedly(case, decision).is_none()
    };
    let decided = decided.iter().map(|(case, decision, _)| (*case, decision));
    let failing: Vec<(&Case, &Decision)> = decided.filter(|(case, decision)| fails(case, decision)).collect();
    if failing.is_empty() {
        return Ok(Vec::new());
    }
    let refused = |why: &str| Failure::Failed(format!("{} stays as it is: {why}", suite.name));
    let text = update::rewritten(text, &failing).map_err(|why| refused(&why))?;
    let cases = case::cases(&text, &suite.name, folder(&suite.path), config).map_err(Failure::Configuration)?;
    // What TOML has no word for can't be expected.
    for (case, decision) in &failing {
        if !cases.get(case.index).is_some_and(|case| compare::holds(case, decision)) {
            return Err(refused(&format!("what was decided on {:?} can't be written as TOML", case.name)));
        }
    }
    std::fs::write(&suite.path, text).map_err(|error| refused(&error.to_string()))?;
    Ok(failing.iter().map(|(case, _)| case.index).collect())
}

fn tell(suite: &Suite, report: &Report) -> Done {
    let (style, word, lines) = match &report.end {
        End::Passed => return print::line(show::told(GOOD, "passed", &report.name)),
        End::Updated(lines) => (NOTE, "updated", lines),
        End::Failed(lines) => (BAD, "failed", lines),
    };
    let at = Painted(DIM, format!("{}:{}", plain(&suite.name), report.line));
    print::line(format_args!("{}  {at}", show::told(style, word, &report.name)))?;
    lines.iter().try_for_each(print::line)
}

/// One test as a program reads it.
#[derive(Serialize)]
struct Outcome<'a> {
    file: &'a str,
    line: usize,
    name: &'a str,
    /// passed, failed, updated
    result: &'static str,
    /// What is told of one that didn't pass, with line ends.
    why: Option<String>,
    duration_ms: f64,
}

fn outcome<'a>(suite: &'a Suite, report: &'a Report) -> Outcome<'a> {
    let (result, why) = match &report.end {
        End::Passed => ("passed", None),
        End::Failed(lines) => ("failed", Some(plainly(lines))),
        End::Updated(lines) => ("updated", Some(plainly(lines))),
    };
    let duration_ms = (report.took.as_secs_f64() * 1_000_000.0).round() / 1_000.0;
    Outcome { file: &suite.name, line: report.line, name: &report.name, result, why, duration_ms }
}

/// Without colours.
fn plainly(lines: &[String]) -> String {
    anstream::adapter::strip_str(&lines.join("\n")).to_string()
}

fn outcomes<'a>(suite: &'a Suite, reports: &'a [Report]) -> junit::Suite<'a> {
    let results = reports.iter().map(|report| {
        let failure = match &report.end {
            End::Failed(lines) => Some(plainly(lines)),
            End::Passed | End::Updated(_) => None,
        };
        junit::Outcome { name: &report.name, line: report.line, took: report.took, failure }
    });
    junit::Suite { name: &suite.name, results: results.collect() }
}

/// How many of each, and whether that is good.
fn summary<'a>(reports: impl Iterator<Item = &'a Report>, left_out: usize, options: &Test) -> Done {
    let (mut passed, mut failed, mut updated) = (0, 0, 0);
    for report in reports {
        let count = match &report.end {
            End::Passed => &mut passed,
            End::Updated(_) => &mut updated,
            End::Failed(_) => &mut failed,
        };
        *count += 1;
    }
    if let (0, Some(text)) = (passed + failed + updated, &options.filter) {
        return Err(Failure::Failed(format!("no test's name contains {text:?}")));
    }
    if passed + failed + updated == 0 {
        return Err(Failure::failed("no tests: these files have no function `test_…`"));
    }
    let mut words = vec![Painted(GOOD, format!("{passed} passed")).to_string()];
    words.extend((failed > 0).then(|| Painted(BAD, format!("{failed} failed")).to_string()));
    words.extend((updated > 0).then(|| Painted(NOTE, format!("{updated} updated")).to_string()));
    words.extend((left_out > 0).then(|| format!("{left_out} left out")));
    if !options.machine.json {
        let key = if failed > 0 { "  (- expected, + decided)" } else { "" };
        print::line(format_args!("{}{}", words.join(", "), Painted(DIM, key)))?;
    }
    if failed > 0 { Err(Failure::Said) } else { Ok(()) }
}
