//! Lines of the rules that a run can reach, to be held against those that were: where a statement begins, and what a
//! `switch` chooses.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{ASTNode, Position, Stmt};

use super::finding::Findings;
use super::{imports, parse};
use crate::rules::engine::{Budget, build};

/// By file, of those that the mains come to. What stands outside functions counts in a main alone: in a module it is
/// evaluated but once, when the rules are compiled.
pub fn reachable(
    sources: &BTreeMap<String, String>,
    mains: &[String],
    budget: &Budget,
) -> BTreeMap<String, BTreeSet<u32>> {
    let engine = build(budget);
    // What is wrong with them was told when they were compiled.
    let mut findings = Findings::new(sources);
    let scripts = parse(&engine, sources, &mut findings);
    let graph = imports::graph(&scripts, sources, &mut findings);
    let mut files = BTreeMap::new();
    for file in imports::reached(&graph, mains) {
        let Some(script) = scripts.get(file) else { continue };
        let functions = script.clone_functions_only();
        let whole = if mains.iter().any(|main| main == file) { script } else { &functions };
        let mut lines = BTreeSet::new();
        whole.walk(&mut |path| {
            if let Some(ASTNode::Stmt(statement)) = path.last() {
                lines.extend(places(statement).into_iter().filter_map(line));
            }
            true
        });
        files.insert(file.to_owned(), lines);
    }
    files
}

/// Of a statement itself, and of what it chooses from.
fn places(statement: &Stmt) -> Vec<Position> {
    match statement {
        Stmt::Noop(_) => Vec::new(),
        Stmt::Switch(parts, at) => {
            let arms = parts.1.expressions.iter().map(|arm| arm.rhs.position());
            std::iter::once(*at).chain(arms).collect()
        }
        other => vec![other.position()],
    }
}

fn line(at: Position) -> Option<u32> {
    at.line().and_then(|line| u32::try_from(line).ok())
}
