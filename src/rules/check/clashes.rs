//! Functions of one name in several files of a worker. Rhai remembers for the length of a run what a name with so many
//! arguments came to, whichever file asked: the first file's function would be called in all others, too. Names after an
//! alias (`spam::check(…)`) aren't remembered so.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{AST, ASTNode, Dynamic, Expr, FnCallExpr, FnPtr, Position, Stmt};

use super::Scripts;
use super::finding::Findings;
use super::imports::{Graph, reached};

/// A function as it is looked up: its name, and how many arguments stand between its brackets.
type Looked = (String, usize);

/// What a file calls without an alias, each with its first place.
type Calls = BTreeMap<Looked, Position>;

/// Looks at the files of each main together.
pub fn check(scripts: &Scripts, graph: &Graph, mains: &[String], findings: &mut Findings) {
    let defined: BTreeSet<Looked> = scripts.values().flat_map(functions).collect();
    let calls: BTreeMap<&str, Calls> =
        scripts.iter().map(|(file, script)| (file.as_str(), calls(script, &defined))).collect();
    let mut told = BTreeSet::new();
    for main in mains {
        let files = reached(graph, std::slice::from_ref(main));
        for looked in &defined {
            let calling = files.iter().copied().filter_map(|file| Some((file, *calls.get(file)?.get(looked)?)));
            let (own, others): (Vec<_>, Vec<_>) = calling.partition(|(file, _)| has(scripts, file, looked));
            let Some(((one, _), (another, at))) = own.first().zip(own.get(1).or(others.first())) else { continue };
            if told.insert((*another, looked)) {
                let (message, help) = in_words(&looked.0, one, own.len() > 1);
                findings.error(another, *at, looked.0.chars().count(), message, Some(help));
            }
        }
    }
}

fn in_words(name: &str, other: &str, is_own: bool) -> (String, String) {
    if is_own {
        let message =
            format!("{name} is called here and in {other}, and each file has its own: a run would take one for both");
        (message, "give one of them another name".to_owned())
    } else {
        let message =
            format!("{name} is Rhai's own here, but {other} has and calls one: a run would take one for both");
        (message, format!("give {other}'s another name"))
    }
}

fn functions(script: &AST) -> impl Iterator<Item = Looked> + '_ {
    script.iter_functions().map(|function| (function.name.to_owned(), function.params.len()))
}

fn has(scripts: &Scripts, file: &str, looked: &Looked) -> bool {
    scripts.get(file).is_some_and(|script| functions(script).any(|function| function == *looked))
}

/// Those of the `defined` ones that a file calls, or points to.
fn calls(script: &AST, defined: &BTreeSet<Looked>) -> Calls {
    let mut calls = Calls::new();
    let called = |call: &FnCallExpr, at: Position, calls: &mut Calls| {
        let looked = (call.name.to_string(), call.args.len());
        match call.args.first() {
            Some(Expr::StringConstant(name, _)) if looked.0 == "Fn" => pointed(name, at, defined, calls),
            _ if !call.is_qualified() && defined.contains(&looked) => {
                calls.entry(looked).or_insert(at);
            }
            _ => {}
        }
    };
    script.walk(&mut |path| {
        match path.last() {
            Some(
                ASTNode::Expr(Expr::FnCall(call, at) | Expr::MethodCall(call, at))
                | ASTNode::Stmt(Stmt::FnCall(call, at)),
            ) => called(call, *at, &mut calls),
            Some(ASTNode::Expr(Expr::DynamicConstant(value, at))) => constant(value, *at, defined, &mut calls),
            _ => {}
        }
        true
    });
    calls
}

/// A value that the parser made already.
fn constant(value: &Dynamic, at: Position, defined: &BTreeSet<Looked>, calls: &mut Calls) {
    if let Some(pointer) = value.read_lock::<FnPtr>() {
        pointed(pointer.fn_name(), at, defined, calls);
    }
    for value in value.as_map_ref().iter().flat_map(|map| map.values()) {
        constant(value, at, defined, calls);
    }
    for value in value.as_array_ref().iter().flat_map(|array| array.iter()) {
        constant(value, at, defined, calls);
    }
}

/// A pointer may be called with any arguments.
fn pointed(name: &str, at: Position, defined: &BTreeSet<Looked>, calls: &mut Calls) {
    for looked in defined.iter().filter(|(defined, _)| defined == name) {
        calls.entry(looked.clone()).or_insert(at);
    }
}
