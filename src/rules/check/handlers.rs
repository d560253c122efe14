//! Whether a main script is a worker: it has a handler, and each has the parameters that it will be given.

use rhai::{AST, ASTNode, Expr, Position, Stmt};

use super::finding::Findings;
use crate::diagnostic::{Severity, suggest};
use crate::rules::scripted::PREFIX;
use crate::rules::worker::HANDLERS;
use crate::rules::{Happening, Stage};

/// `first`: the worker that is asked before a recipient is known.
pub fn check(file: &str, script: &AST, first: &str, findings: &mut Findings) {
    let mut any = false;
    for (name, parameters) in HANDLERS {
        let of_name: Vec<_> = script.iter_fn_def().filter(|function| function.name.as_str() == *name).collect();
        if of_name.iter().any(|function| function.params.len() == parameters.len()) {
            any = true;
        } else if let Some(function) = of_name.first() {
            any = true;
            let count = match function.params.len() {
                1 => "1 parameter".to_owned(),
                count => format!("{count} parameters"),
            };
            let message = format!("the handler {name} has {count} in place of {}", parameters.len());
            let help = format!("write fn {name}({})", parameters.join(", "));
            findings.error(file, function.body.start_position(), 1, message, Some(help));
        }
    }
    if file != first {
        not_asked(file, script, first, findings);
    }
    let misspelt = misspelt(file, script, findings);
    if !any && !misspelt {
        let help = "a worker has at least one: fn email(message, env, ctx) { … }".to_owned();
        findings.error(file, Position::NONE, 1, "the script has no handler".to_owned(), Some(help));
    }
}

/// Each test is called with nothing.
pub fn check_tests(file: &str, script: &AST, findings: &mut Findings) {
    for function in script.iter_fn_def() {
        let name = function.name.as_str();
        if name.starts_with(PREFIX) && !function.params.is_empty() {
            let message = format!("the test {name} has parameters, and nobody gives it any");
            let help = format!("write fn {name}()");
            findings.error(file, function.body.start_position(), 1, message, Some(help));
        }
    }
}

/// A function that looks like a handler that isn't there: nobody calls it, and mail would wait for ever. Whether the file
/// has nothing else.
fn misspelt(file: &str, script: &AST, findings: &mut Findings) -> bool {
    let has = |name: &str| script.iter_fn_def().any(|function| function.name.as_str() == name);
    let mut any = false;
    for function in script.iter_fn_def() {
        let name = function.name.as_str();
        let is_one = |(handler, _): &&(&str, &[&str])| *handler == name;
        let may_be = HANDLERS.iter().filter(|(handler, with)| !has(handler) && with.len() == function.params.len());
        let Some(meant) = suggest(name, may_be.map(|(handler, _)| *handler)) else { continue };
        let is_given_as_a_handler = function.params.iter().any(|param| matches!(param.as_str(), "ctx" | "env"));
        if is_given_as_a_handler && !HANDLERS.iter().any(|handler| is_one(&handler)) && !is_called(script, name) {
            any = true;
            let message = format!("the function {name} is no handler, and nothing calls it");
            let help = format!("did you mean {meant}?");
            let severity =
                if HANDLERS.iter().any(|(handler, _)| has(handler)) { Severity::Warning } else { Severity::Error };
            findings.push(severity, file, function.body.start_position(), 1, message, Some(help));
        }
    }
    any
}

fn is_called(script: &AST, name: &str) -> bool {
    let mut called = false;
    script.walk(&mut |path| {
        called |= match path.last() {
            Some(
                ASTNode::Expr(Expr::FnCall(call, _) | Expr::MethodCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _)),
            ) => call.name.as_str() == name,
            _ => false,
        };
        !called
    });
    called
}

/// A session has one worker until it names a recipient, as what is planned has, and that one isn't this.
fn not_asked(file: &str, script: &AST, first: &str, findings: &mut Findings) {
    let stages = Stage::ALL.into_iter().map(|stage| (stage.handler(), "whose mail it is isn't known yet"));
    for (handler, why) in stages.chain([(Happening::Scheduled.handler(), "it is about nobody's mail")]) {
        if let Some(function) = script.iter_fn_def().find(|function| function.name.as_str() == handler) {
            let at = function.body.start_position();
            let message = format!("the handler {handler} is never called here");
            let help = format!("{why}: it is called in {first}, the configuration's main");
            findings.push(Severity::Warning, file, at, 1, message, Some(help));
        }
    }
}
