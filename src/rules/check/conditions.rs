//! Conditions: a text or a number is none here, as it is in JavaScript, and the run would fail at it.

use rhai::{ASTNode, Expr, FnCallExpr, Stmt};

use super::fields;
use super::kinds::Kind;
use super::names::Look;

/// Kinds that are neither true nor false, in words, and how each is asked.
const ASKED: &[(&str, &str, &str)] = &[
    ("string", "a string", "!= \"\", or != () where it may be missing"),
    ("array", "an array", ".len > 0"),
    ("integer", "an integer", "!= 0, or != () where it may be missing"),
    ("octets", "octets", ".len > 0"),
    ("limit", "a map", ".allowed"),
    ("response", "a map", ".ok"),
    ("dnsbl", "a map", ".listed"),
];

impl Look<'_, '_> {
    /// `if message.subject { … }`, `!message.subject`, `message.subject && …`
    pub fn conditions(&mut self, node: &ASTNode) {
        match node {
            ASTNode::Stmt(Stmt::If(flow, _) | Stmt::While(flow, _) | Stmt::Do(flow, ..)) => self.condition(&flow.expr),
            ASTNode::Expr(Expr::And(all, _) | Expr::Or(all, _)) => all.iter().for_each(|one| self.condition(one)),
            ASTNode::Expr(Expr::FnCall(call, _)) => self.negated(call),
            _ => {}
        }
    }

    fn negated(&mut self, call: &FnCallExpr) {
        if let ("!", [negated]) = (call.name.as_str(), call.args.as_slice()) {
            self.condition(negated);
        }
    }

    fn condition(&mut self, expression: &Expr) {
        let Some(kind) = self.kinds.of(expression) else { return };
        let Some((what, help)) = asked(kind) else { return };
        let message = format!("a condition is true or false, and this is {what}");
        self.push(kind, expression.start_position(), "", message, Some(help));
    }
}

fn asked(kind: Kind) -> Option<(String, String)> {
    let kind = kind.offering();
    if let Some((_, what, how)) = ASKED.iter().find(|(name, ..)| *name == kind.name) {
        return Some(((*what).to_owned(), format!("write what is to hold of it: … {how}")));
    }
    fields::of(kind.name).map(|_| ("a map".to_owned(), "write what is to hold of it: … != ()".to_owned()))
}
