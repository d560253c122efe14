//! Functions of one name in several files of a worker. Rhai remembers for the length of a run what a name with so many
//! arguments came to, whichever file asked: the first file's function would be called in all others, too. Names after an
//! alias (`spam::check(…)`) aren't remembered so.
//!
//! A name without brackets points to a function: to the main file's, where that has one, whichever file asked.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{AST, ASTNode, Dynamic, Expr, FnCallExpr, FnPtr, Position, Stmt};

use super::Scripts;
use super::around::{declared, is_nameless};
use super::finding::Findings;
use super::imports::{Graph, reached};
use crate::rules::worker::body;

/// A function as it is looked up: its name, and how many arguments stand between its brackets.
type Looked = (String, usize);

/// What a file calls without an alias, each with its first place.
type Calls = BTreeMap<Looked, Called>;

/// Where, and whether it is pointed to by its bare name.
#[derive(Clone, Copy)]
struct Called {
    at: Position,
    is_bare: bool,
}

/// Looks at the files of each main together. Whether there is a clash, which is to last no longer than a run.
pub fn check(scripts: &Scripts, graph: &Graph, mains: &[String], findings: &mut Findings) -> bool {
    let defined: BTreeSet<Looked> = scripts.values().flat_map(functions).collect();
    let calls: BTreeMap<&str, Calls> =
        scripts.iter().map(|(file, script)| (file.as_str(), calls(script, &defined))).collect();
    let mut told = BTreeSet::new();
    for main in mains {
        let files = reached(graph, std::slice::from_ref(main));
        for looked in &defined {
            let calling = files.iter().copied().filter_map(|file| Some((file, *calls.get(file)?.get(looked)?)));
            let (own, others): (Vec<_>, Vec<_>) = calling.partition(|(file, _)| has(scripts, file, looked));
            let of_main =
                own.iter().find(|(file, called)| called.is_bare && file != main && has(scripts, main, looked));
            let clash = match of_main {
                Some((file, called)) => Some((main.as_str(), *file, called, true)),
                None => own
                    .first()
                    .zip(own.get(1).or(others.first()))
                    .map(|((one, _), (another, called))| (*one, *another, called, own.len() > 1)),
            };
            let Some((one, another, called, is_own)) = clash else { continue };
            if told.insert((another, looked)) {
                let (message, help) = in_words(&looked.0, one, is_own);
                let width = if is_nameless(&looked.0) { 1 } else { looked.0.chars().count() };
                findings.error(another, called.at, width, message, Some(help));
            }
        }
    }
    !told.is_empty()
}

fn in_words(name: &str, other: &str, is_own: bool) -> (String, String) {
    if is_nameless(name) {
        let message = format!(
            "this function stands in {other}, too, letter for letter and in the same place, and its :: means another file \
             there: a run would take one for both"
        );
        (message, "put it in a line or column of its own".to_owned())
    } else if is_own {
        let message =
            format!("{name} is called here and in {other}, and each file has its own: a run would take one for both");
        (message, "give one of them another name".to_owned())
    } else {
        let message =
            format!("{name} is Rhai's own here, but {other} has and calls one: a run would take one for both");
        (message, format!("give {other}'s another name"))
    }
}

/// Those that may mean something else in another file: a function without a name is the same wherever it is the same to
/// the letter, but for what it reads of its file.
fn functions(script: &AST) -> impl Iterator<Item = Looked> + '_ {
    let all = script.iter_functions().map(|function| (function.name.to_owned(), function.params.len()));
    all.filter(|(name, count)| !is_nameless(name) || reads_its_file(&body(script, name, *count)))
}

/// `global::LIMIT`, `spam::check(…)`
fn reads_its_file(statements: &[Stmt]) -> bool {
    let mut reads = false;
    for statement in statements {
        statement.walk(&mut Vec::new(), &mut |path| {
            reads |= match path.last() {
                Some(ASTNode::Expr(Expr::Variable(variable, ..))) => !variable.2.is_empty(),
                Some(ASTNode::Expr(Expr::FnCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _))) => {
                    call.is_qualified()
                }
                _ => false,
            };
            !reads
        });
    }
    reads
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
            Some(Expr::StringConstant(name, _)) if looked.0 == "Fn" => pointed(name, at, script, defined, calls),
            _ if !call.is_qualified() && defined.contains(&looked) => {
                calls.entry(looked).or_insert(Called { at, is_bare: false });
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
            Some(ASTNode::Expr(Expr::DynamicConstant(value, at))) => constant(value, *at, script, defined, &mut calls),
            _ => {}
        }
        true
    });
    named(script, defined, &mut calls);
    calls
}

/// Functions that are named without brackets, where no variable is called so.
fn named(script: &AST, defined: &BTreeSet<Looked>, calls: &mut Calls) {
    let mut any = false;
    script.walk(&mut |path| {
        any |= matches!(path.last(), Some(ASTNode::Expr(Expr::Variable(variable, ..)))
            if defined.iter().any(|(name, _)| *name == variable.1.as_str()));
        !any
    });
    if !any {
        return;
    }
    let of_functions = script.iter_functions().map(|function| {
        let params = function.params.iter().map(|param| (*param).to_owned()).collect();
        (body(script, function.name, function.params.len()), params)
    });
    for (statements, mut variables) in of_functions.chain([(script.statements().to_vec(), BTreeSet::new())]) {
        let mut bare = Vec::new();
        for statement in &statements {
            statement.walk(&mut Vec::new(), &mut |path| {
                match path.last() {
                    Some(ASTNode::Stmt(statement)) => variables.extend(declared(statement)),
                    Some(ASTNode::Expr(Expr::Variable(variable, _, at))) if variable.2.is_empty() => {
                        bare.push((variable.1.to_string(), *at));
                    }
                    _ => {}
                }
                true
            });
        }
        for (name, at) in bare.into_iter().filter(|(name, _)| !variables.contains(name)) {
            for looked in meant(&name, script, defined) {
                calls.entry(looked).or_insert(Called { at, is_bare: true }).is_bare = true;
            }
        }
    }
}

/// A value that the parser made already.
fn constant(value: &Dynamic, at: Position, script: &AST, defined: &BTreeSet<Looked>, calls: &mut Calls) {
    if let Some(pointer) = value.read_lock::<FnPtr>() {
        pointed(pointer.fn_name(), at, script, defined, calls);
    }
    for value in value.as_map_ref().iter().flat_map(|map| map.values()) {
        constant(value, at, script, defined, calls);
    }
    for value in value.as_array_ref().iter().flat_map(|array| array.iter()) {
        constant(value, at, script, defined, calls);
    }
}

fn pointed(name: &str, at: Position, script: &AST, defined: &BTreeSet<Looked>, calls: &mut Calls) {
    for looked in meant(name, script, defined) {
        calls.entry(looked).or_insert(Called { at, is_bare: false });
    }
}

/// What a pointer may be called as: the file's own, or with any arguments where it has none of that name.
fn meant(name: &str, script: &AST, defined: &BTreeSet<Looked>) -> Vec<Looked> {
    let own: Vec<Looked> = functions(script).filter(|(own, _)| own == name).collect();
    if own.is_empty() { defined.iter().filter(|(defined, _)| defined == name).cloned().collect() } else { own }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::diagnostic::Severity;
    use crate::rules::{Bindings, Release};

    #[test]
    fn a_clash_keeps_nothing_that_was_deployed_from_running() {
        let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        let sources = BTreeMap::from([
            file("rules/lib/one.rhai", "fn pick() { 1 }\nfn told() { pick() }"),
            file(
                "rules/main.rhai",
                "import \"lib/one\" as one;\nfn pick() { 2 }\nfn email(message, env, ctx) { print(pick() + one::told()); }",
            ),
        ]);
        let mains = ["rules/main.rhai".to_owned()];
        let refused = Release::compile(&sources, &mains, Bindings::default()).unwrap_err();
        let (_, warned) = Release::compile_deployed(&sources, &mains, Bindings::default()).unwrap();
        for (findings, severity) in [(refused, Severity::Error), (warned, Severity::Warning)] {
            let found = findings.iter().filter(|finding| finding.severity == severity);
            assert_eq!(found.filter(|finding| finding.message.contains("pick")).count(), 1, "{findings:?}");
        }
    }
}
