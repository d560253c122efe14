//! `test`: messages go through the rules as mail would, and what is decided is held against what a file expects.
//!
//! Without network, server or store. `case` reads the tests of a `file`, `decision` runs them, `compare` holds one against the other,
//! `tell` says how it came out; `update` and `junit` write it down.

mod auth;
mod case;
mod compare;
mod decision;
mod file;
mod happening;
mod junit;
mod keys;
mod kind;
mod outside;
mod tell;
mod update;
mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::args::{Common, Test};
use super::print::{self, BAD, DIM, GOOD, NOTE, Painted, plain};
use super::{Done, Failure, configured, show};
use crate::clock::Instant;
use crate::config::Config;
use crate::config::load::{self, Reading};
use crate::diagnostic::Diagnostic;
use crate::intake::Snapshot;
use crate::reload;
use case::Case;
use decision::Decision;

/// Files of tests that are read at once.
const MOST_FILES: usize = 5_000;

/// One file of tests.
struct Suite {
    path: PathBuf,
    /// As a person here would name it.
    name: String,
    text: String,
    cases: Vec<Case>,
}

/// How one test came out.
struct Report<'a> {
    case: &'a Case,
    decision: Decision,
    holds: bool,
    took: Duration,
    is_updated: bool,
}

pub fn run(common: &Common, options: &Test) -> Done {
    let found = configured::for_development(common, Reading::Unread);
    let snapshot = Arc::new(reload::snapshot(&found).map_err(Failure::Configuration)?);
    let suites = read(&find(&options.paths, &snapshot.config)?, &snapshot.config)?;
    let mut rules = Rules { options: &found, bound: BTreeMap::from([(String::from("{}"), snapshot)]) };
    let is_chosen = |case: &&Case| options.filter.as_ref().is_none_or(|text| case.name.contains(text.as_str()));
    let mut told = Vec::new();
    for suite in &suites {
        let reports: Result<Vec<_>, Failure> =
            suite.cases.iter().filter(is_chosen).map(|case| rules.report(case)).collect();
        let mut reports = reports?;
        if options.update {
            update(suite, &mut reports, &rules)?;
        }
        reports.iter().try_for_each(|report| tell(suite, report))?;
        told.push((suite, reports));
    }
    if let Some(file) = &options.junit {
        let xml = junit::xml(&told.iter().map(|(suite, reports)| outcomes(suite, reports)).collect::<Vec<_>>());
        std::fs::write(file, xml)
            .map_err(|error| Failure::failed(format!("{} can't be written: {error}", file.display())))?;
    }
    let left_out = suites.iter().map(|suite| suite.cases.len()).sum::<usize>()
        - told.iter().map(|(_, reports)| reports.len()).sum::<usize>();
    summary(told.iter().flat_map(|(_, reports)| reports), left_out, options)
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
        return Err(Failure::Failed(format!("no tests: there is no *.toml in {}", places.join(", "))));
    }
    Ok(files)
}

/// The tests of a folder, by name; hidden ones are editors' own.
fn below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// From where we stand, if it lies below.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    below.unwrap_or(path).display().to_string()
}

/// Reads them all, so that one run shows all that is wrong.
fn read(files: &[PathBuf], config: &Config) -> Result<Vec<Suite>, Failure> {
    let (mut suites, mut findings) = (Vec::new(), Vec::new());
    for path in files {
        match suite(path, config) {
            Ok(suite) => suites.push(suite),
            Err(mut found) => findings.append(&mut found),
        }
    }
    if findings.is_empty() { Ok(suites) } else { Err(Failure::Configuration(findings)) }
}

fn suite(path: &Path, config: &Config) -> Result<Suite, Vec<Diagnostic>> {
    let name = shown(path);
    let text = case::text(path, &name)?;
    let cases = case::cases(&text, &name, folder(path), config)?;
    Ok(Suite { path: path.to_owned(), name, text, cases })
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// The rules, compiled once for each set of variables.
struct Rules<'a> {
    options: &'a load::Options,
    bound: BTreeMap<String, Arc<Snapshot>>,
}

impl Rules<'_> {
    fn with(&mut self, case: &Case) -> Result<Arc<Snapshot>, Failure> {
        let vars = serde_json::to_string(&case.vars).map_err(Failure::failed)?;
        if let Some(bound) = self.bound.get(&vars) {
            return Ok(Arc::clone(bound));
        }
        let change = |config: &mut Config| config.vars.extend(case.vars.clone());
        let bound = reload::snapshot_with(self.options, change).map_err(Failure::Configuration)?;
        Ok(Arc::clone(self.bound.entry(vars).or_insert(Arc::new(bound))))
    }

    fn config(&self) -> Option<&Config> {
        self.bound.get("{}").map(|snapshot| snapshot.config.as_ref())
    }

    fn report<'c>(&mut self, case: &'c Case) -> Result<Report<'c>, Failure> {
        let snapshot = self.with(case)?;
        let started = Instant::now();
        let decision = decision::decide(case, &snapshot);
        let took = started.elapsed();
        let holds = compare::holds(case, &decision);
        Ok(Report { case, decision, holds, took, is_updated: false })
    }
}

/// Rewrites what failing tests expect, but for those whose script failed: that is seldom what was meant.
fn update(suite: &Suite, reports: &mut [Report<'_>], rules: &Rules<'_>) -> Done {
    let failing: Vec<(&Case, &Decision)> = reports
        .iter()
        .filter(|report| !report.holds && compare::failed_unexpectedly(report.case, &report.decision).is_none())
        .map(|report| (report.case, &report.decision))
        .collect();
    let (false, Some(config)) = (failing.is_empty(), rules.config()) else { return Ok(()) };
    let refused = |why: &str| Failure::Failed(format!("{} stays as it is: {why}", suite.name));
    let text = update::rewritten(&suite.text, &failing).map_err(|why| refused(&why))?;
    let cases = case::cases(&text, &suite.name, folder(&suite.path), config).map_err(Failure::Configuration)?;
    // What TOML has no word for can't be expected.
    for (case, decision) in &failing {
        if !cases.get(case.index).is_some_and(|case| compare::holds(case, decision)) {
            return Err(refused(&format!("what was decided on {:?} can't be written as TOML", case.name)));
        }
    }
    std::fs::write(&suite.path, text).map_err(|error| refused(&error.to_string()))?;
    let updated: Vec<usize> = failing.iter().map(|(case, _)| case.index).collect();
    for report in reports.iter_mut() {
        report.is_updated = updated.contains(&report.case.index);
    }
    Ok(())
}

fn tell(suite: &Suite, report: &Report<'_>) -> Done {
    let name = &report.case.name;
    if report.holds {
        return print::line(show::told(GOOD, "passed", name));
    }
    let at = Painted(DIM, format!("{}:{}", plain(&suite.name), report.case.line));
    let (style, word) = if report.is_updated { (NOTE, "updated") } else { (BAD, "failed") };
    print::line(format_args!("{}  {at}", show::told(style, word, name)))?;
    tell::failure(report.case, &report.decision).iter().try_for_each(print::line)
}

fn outcomes<'a>(suite: &'a Suite, reports: &'a [Report<'_>]) -> junit::Suite<'a> {
    let results = reports.iter().map(|report| {
        let lines = || tell::failure(report.case, &report.decision).join("\n");
        let has_failed = !report.holds && !report.is_updated;
        let failure = has_failed.then(|| anstream::adapter::strip_str(&lines()).to_string());
        junit::Outcome { name: &report.case.name, line: report.case.line, took: report.took, failure }
    });
    junit::Suite { name: &suite.name, results: results.collect() }
}

/// How many of each, and whether that is good.
fn summary<'a>(reports: impl Iterator<Item = &'a Report<'a>>, left_out: usize, options: &Test) -> Done {
    let (mut passed, mut failed, mut updated) = (0, 0, 0);
    for report in reports {
        let count = match (report.holds, report.is_updated) {
            (true, _) => &mut passed,
            (false, true) => &mut updated,
            (false, false) => &mut failed,
        };
        *count += 1;
    }
    if let (0, Some(text)) = (passed + failed + updated, &options.filter) {
        return Err(Failure::Failed(format!("no test's name contains {text:?}")));
    }
    let mut words = vec![Painted(GOOD, format!("{passed} passed")).to_string()];
    words.extend((failed > 0).then(|| Painted(BAD, format!("{failed} failed")).to_string()));
    words.extend((updated > 0).then(|| Painted(NOTE, format!("{updated} updated")).to_string()));
    words.extend((left_out > 0).then(|| format!("{left_out} left out")));
    let key = if failed > 0 { "  (- expected, + decided)" } else { "" };
    print::line(format_args!("{}{}", words.join(", "), Painted(DIM, key)))?;
    if failed > 0 { Err(Failure::Said) } else { Ok(()) }
}
