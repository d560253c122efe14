//! How a test came out, for a person: a line for one that passed, a comparison for one that failed.

use serde_json::Value;

use super::case::Case;
use super::compare::{self, Line, differences, holds_for, pairs};
use super::decision::{Decision, Made};
use super::kind::Kind;
use crate::cli::print::{BAD, BOLD, DIM, GOOD, Painted, plain, short};

/// Characters of a value.
const WIDTH: usize = 240;
/// Lines of one kind of a decision, and items of it that nobody asked about.
const MOST: usize = 60;
const FEW: usize = 5;

/// Where and how a test failed. Without colour it is what a build server shows.
#[must_use]
pub fn failure(case: &Case, decision: &Decision) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(made) = compare::failed_unexpectedly(case, decision) {
        let text = made.item.get("text").and_then(Value::as_str).unwrap_or_default();
        lines.push(format!("  {} {}", Painted(BAD, "the script failed:"), plain(text)));
    }
    for (kind, expected) in &case.expected {
        if !holds_for(*kind, expected, decision) {
            lines.push(format!("  {}", Painted(BOLD, kind.key())));
            let mut compared = comparison(*kind, expected, decision.of(*kind));
            if compared.len() > MOST {
                let more = compared.len() - MOST;
                compared.truncate(MOST);
                compared.push(format!("    … and {more} more lines"));
            }
            lines.append(&mut compared);
        }
    }
    lines.extend(besides(case, decision));
    lines
}

fn comparison(kind: Kind, expected: &[Value], made: &[Made]) -> Vec<String> {
    let mut lines = Vec::new();
    for (wanted, found) in pairs(kind, expected, made) {
        let (wanted, found) = (wanted.and_then(|at| expected.get(at)), found.and_then(|at| made.get(at)));
        let (compared, at) = match (wanted, found) {
            (Some(wanted), Some(found)) => (differences(kind, wanted, &found.item), found.at.as_deref()),
            (Some(wanted), None) => {
                let values = compare::values(kind, wanted).into_iter();
                (values.map(|(path, value)| Line::Missing(path, value)).collect(), None)
            }
            (None, Some(found)) => {
                let values = compare::values(kind, &found.item).into_iter();
                (values.map(|(path, value)| Line::Extra(path, value)).collect(), found.at.as_deref())
            }
            (None, None) => continue,
        };
        // The place stands behind the first line that tells of what was made.
        let mut at = at.map(|at| format!("  {}", Painted(DIM, plain(at)))).unwrap_or_default();
        // An item that is expected whatever it holds has no value to show.
        if compared.is_empty() {
            lines.push(format!("      {}{at}", Painted(DIM, "true")));
        }
        let is_good = compared.iter().all(|line| matches!(line, Line::Same(..)));
        for line in compared {
            lines.push(match line {
                Line::Missing(path, value) => {
                    format!("    {}", Painted(BAD, format_args!("- {}", said(&path, value.as_ref()))))
                }
                Line::Extra(path, value) => {
                    let place = std::mem::take(&mut at);
                    format!("    {}{place}", Painted(GOOD, format_args!("+ {}", said(&path, value.as_ref()))))
                }
                Line::Same(path, value) => {
                    let place = if is_good { std::mem::take(&mut at) } else { String::new() };
                    format!("      {}{place}", Painted(DIM, said(&path, value.as_ref())))
                }
            });
        }
    }
    lines
}

/// What was decided and isn't asked about: most often it says why the rest is missing.
fn besides(case: &Case, decision: &Decision) -> Vec<String> {
    let mut lines = Vec::new();
    for kind in Kind::ALL {
        // An error that nobody expects is told already; that RCPT went well goes without saying.
        let is_told = matches!(kind, Kind::Error) || case.expected.contains_key(&kind);
        let is_news = |made: &&Made| kind != Kind::Rcpt || made.is_news();
        if is_told || !(kind.is_fate() || kind == Kind::Rcpt) {
            continue;
        }
        for made in decision.of(kind).iter().filter(is_news).take(FEW) {
            let values = compare::values(kind, &made.item);
            let values: Vec<String> = values.iter().map(|(path, value)| said(path, value.as_ref())).collect();
            let at = made.at.as_deref().map(|at| format!("  {}", plain(at))).unwrap_or_default();
            let text = format!("besides: {} {}{at}", kind.key(), values.join(", "));
            lines.push(format!("  {}", Painted(DIM, short(&text, WIDTH))));
        }
    }
    lines
}

fn said(path: &str, value: Option<&Value>) -> String {
    let value = value.map(ToString::to_string);
    let text = match value {
        Some(value) if path.is_empty() => value,
        Some(value) => format!("{path} = {value}"),
        None => path.to_owned(),
    };
    short(&text, WIDTH)
}
