//! A worker: one main script, with an entry for each handler it has.
//!
//! A handler's body is run as a script of its own: the file's top level, the arguments under the names of its
//! parameters, then the body. So each run starts afresh, and an overrun keeps its place, which it would lose on its way
//! out of a function.

use std::collections::BTreeMap;
use std::sync::Arc;

use rhai::{
    AST, ASTFlags, ASTNode, Dynamic, Engine, EvalAltResult, Expr, Ident, ImmutableString, Module, Namespace, Position,
    Scope, Stmt,
};

use super::lookups::Lookups;
use super::scripted::PREFIX;

/// What a run's arguments are called before the script's own names for them.
const ARGUMENTS: [&str; 3] = ["$0", "$1", "$2"];

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
    file: ImmutableString,
    statements: Vec<Stmt>,
    /// The file's functions.
    library: Arc<Module>,
    /// Where the handler's body begins.
    pub position: Position,
    lookups: Lookups,
}

impl Entry {
    /// Runs it, with its arguments under the names of [`ARGUMENTS`].
    #[allow(deprecated)] // What replaces it for a script that is parsed forgets between two runs what it looked up.
    pub fn run(&self, engine: &Engine, arguments: impl IntoIterator<Item = Dynamic>) -> Result<(), Box<EvalAltResult>> {
        let mut scope = Scope::new();
        for (name, argument) in ARGUMENTS.iter().zip(arguments) {
            scope.push_dynamic(*name, argument);
        }
        let mut global = engine.new_global_runtime_state();
        global.source = Some(self.file.clone());
        global.lib.push(Arc::clone(&self.library));
        self.lookups
            .lend(|known| engine.eval_statements_raw(&mut global, known, &mut scope, &self.statements))
            .map(drop)
    }
}

impl Worker {
    /// The handlers that `main` has. `lookups_last`: what a call means is the same in each run.
    pub fn new(file: &str, main: &AST, lookups_last: bool) -> Self {
        let made = |(name, parameters): &(&str, &[&str])| {
            Some(((*name).to_owned(), entry(file, main, name, parameters.len(), lookups_last)?))
        };
        Self { entries: HANDLERS.iter().filter_map(made).collect() }
    }

    /// The tests that a file has, each an entry.
    pub fn of_tests(file: &str, script: &AST) -> Self {
        let names = script.iter_fn_def().map(|function| function.name.to_string());
        let tests = names.filter(|name| name.starts_with(PREFIX));
        Self { entries: tests.filter_map(|name| Some((name.clone(), entry(file, script, &name, 0, false)?))).collect() }
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

fn entry(file: &str, main: &AST, handler: &str, parameters: usize, lookups_last: bool) -> Option<Entry> {
    let function = main.iter_fn_def().find(|function| {
        function.name.as_str() == handler && function.params.len() == parameters && function.this_type.is_none()
    })?;
    let position = function.body.start_position();
    let mut statements: Vec<Stmt> = main.statements().to_vec();
    statements.extend(function.params.iter().zip(ARGUMENTS).map(|(name, argument)| bind(name, argument, position)));
    statements.extend(body(main, handler, parameters));
    let library = Arc::clone(main.shared_lib());
    Some(Entry { file: file.into(), statements, library, position, lookups: Lookups::new(lookups_last) })
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
