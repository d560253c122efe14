//! A worker: one main script, with an entry for each handler it has.
//!
//! A handler's body is run as a script of its own: the file's top level, the arguments under the names of its
//! parameters, then the body. So each run starts afresh, and an overrun keeps its place, which it would lose on its way
//! out of a function.

use std::collections::BTreeMap;

use super::scripted::PREFIX;
use rhai::{AST, ASTFlags, ASTNode, Expr, Ident, Module, Namespace, Position, Stmt};

/// What a run's arguments are called before the script's own names for them.
pub(super) const ARGUMENTS: [&str; 3] = ["$0", "$1", "$2"];

/// The handlers of this version in the order of SMTP, then those that are about no message on its way in, each with its parameters as the documents name them.
pub(super) const HANDLERS: &[(&str, &[&str])] = &[
    ("connect", &["session", "env"]),
    ("helo", &["session", "env"]),
    ("mail_from", &["session", "sender", "env"]),
    ("rcpt_to", &["session", "rcpt", "env"]),
    ("email", &["message", "env", "ctx"]),
    ("delivered", &["event", "env", "ctx"]),
    ("failed", &["event", "env", "ctx"]),
    ("scheduled", &["event", "env", "ctx"]),
];

/// A compiled main script.
pub(super) struct Worker {
    entries: BTreeMap<String, Entry>,
}

/// One handler, ready to be run.
pub(super) struct Entry {
    pub script: AST,
    /// Where the handler's body begins.
    pub position: Position,
}

impl Worker {
    /// The handlers that `main` has.
    pub fn new(file: &str, main: &AST) -> Self {
        let entries = HANDLERS
            .iter()
            .filter_map(|(name, parameters)| Some(((*name).to_owned(), entry(file, main, name, parameters.len())?)))
            .collect();
        Self { entries }
    }

    /// The tests that a file has, each an entry.
    pub fn of_tests(file: &str, script: &AST) -> Self {
        let names = script.iter_fn_def().map(|function| function.name.to_string());
        let tests = names.filter(|name| name.starts_with(PREFIX));
        Self { entries: tests.filter_map(|name| Some((name.clone(), entry(file, script, &name, 0)?))).collect() }
    }

    /// Each entry with its line, in the file's order.
    pub fn named(&self) -> Vec<(String, u32)> {
        let line = |entry: &Entry| entry.position.line().and_then(|line| u32::try_from(line).ok()).unwrap_or(0);
        let mut named: Vec<_> = self.entries.iter().map(|(name, entry)| (name.clone(), line(entry))).collect();
        named.sort_by_key(|(_, line)| *line);
        named
    }

    pub fn entry(&self, handler: &str) -> Option<&Entry> {
        self.entries.get(handler)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn entry(file: &str, main: &AST, handler: &str, parameters: usize) -> Option<Entry> {
    let function = main.iter_fn_def().find(|function| {
        function.name.as_str() == handler && function.params.len() == parameters && function.this_type.is_none()
    })?;
    let position = function.body.start_position();
    let mut statements: Vec<Stmt> = main.statements().to_vec();
    statements.extend(function.params.iter().zip(ARGUMENTS).map(|(name, argument)| bind(name, argument, position)));
    statements.extend(body(main, handler, parameters));
    let library: std::sync::Arc<Module> = main.shared_lib().clone();
    Some(Entry { script: AST::new_with_source(statements, library, file), position })
}

/// `let name = argument;`
fn bind(name: &rhai::ImmutableString, argument: &str, position: Position) -> Stmt {
    let name = Ident { name: name.clone(), pos: position };
    let argument = Expr::Variable(Box::new((None, argument.into(), Namespace::NONE, 0)), None, position);
    Stmt::Var(Box::new((name, argument, None)), ASTFlags::empty(), position)
}

/// The statements of a function's body.
pub(super) fn body(script: &AST, name: &str, parameters: usize) -> Vec<Stmt> {
    let mut alone = script.clone_functions_only();
    alone.retain_functions(|_, _, found, count| found == name && count == parameters);
    let mut statements = Vec::new();
    alone.walk(&mut |path| {
        if let [ASTNode::Stmt(statement)] = path {
            statements.push((*statement).clone());
        }
        true
    });
    statements
}
