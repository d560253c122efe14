//! What a file's functions are handed: where each call of one hands it a value of the same kind, that is what its
//! parameter is, whatever it is called.
//!
//! Of files that others import nothing is known here, and of functions that are named other than by a call.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{ASTNode, Expr, FnCallExpr, FnPtr, ScriptFnMetadata, Stmt};

use super::around::{Around, is_nameless};
use super::kinds::{Kinds, Roles, variable};
use crate::rules::api::env::Environment;

/// How often what is known may tell more.
const ROUNDS: usize = 4;
/// Methods of lists that call a function with each element.
const EACH: &[&str] = &["all", "drain", "filter", "find", "find_map", "index_of", "map", "retain", "some"];
const CURRY: &str = "curry";

/// A function of the file, with its statements.
pub type Function<'a> = (Vec<Stmt>, ScriptFnMetadata<'a>);

/// The kinds of parameters, by function and their number.
#[derive(Default, PartialEq)]
pub struct Passed(BTreeMap<(String, usize), Vec<Handed>>);

#[derive(Clone, Copy, PartialEq)]
enum Handed {
    Nothing,
    One(&'static str),
    /// Of several kinds, or of one that isn't known.
    Any,
}

impl Passed {
    pub fn of(functions: &[Function], is_main: bool, around: &Around, environment: &Environment) -> Self {
        let mut known = Self::default();
        for _ in 0..ROUNDS {
            let mut next = Self::default();
            for (statements, function) in functions {
                let roles = Roles::of(function.name, &function.params, is_main, around, &known);
                let kinds = Kinds::new(statements, &roles, around, environment);
                next.look(statements, &kinds);
            }
            if next == known {
                break;
            }
            known = next;
        }
        let named: BTreeSet<String> = functions.iter().flat_map(|(statements, _)| names(statements)).collect();
        known.0.retain(|(function, _), _| !named.contains(function));
        known
    }

    /// What each call hands a function as this parameter.
    pub fn kind(&self, function: &str, parameters: usize, at: usize) -> Option<&'static str> {
        match self.0.get(&(function.to_owned(), parameters))?.get(at)? {
            Handed::One(kind) => Some(kind),
            Handed::Nothing | Handed::Any => None,
        }
    }

    fn look(&mut self, statements: &[Stmt], kinds: &Kinds) {
        for statement in statements {
            statement.walk(&mut Vec::new(), &mut |path| {
                match path.last() {
                    Some(ASTNode::Expr(Expr::FnCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _)))
                        if !call.is_qualified() =>
                    {
                        self.hand(&call.name, call.args.iter().map(|value| known(kinds, value)).collect());
                    }
                    Some(ASTNode::Expr(Expr::Dot(pair, ..))) => self.each(kinds, &pair.lhs, &pair.rhs),
                    _ => {}
                }
                true
            });
        }
    }

    /// `list.filter(|x| …)`, wherever it stands in a chain.
    fn each(&mut self, kinds: &Kinds, left: &Expr, right: &Expr) {
        let Some(mut of) = kinds.of(left) else { return };
        let mut right = right;
        loop {
            let (link, rest) = match right {
                Expr::Dot(pair, ..) => (&pair.lhs, Some(&pair.rhs)),
                link => (link, None),
            };
            if let (Some(element), Expr::MethodCall(call, _)) = (of.element(), link)
                && EACH.contains(&call.name.as_str())
                && let Some((function, taken)) = call.args.first().and_then(nameless)
            {
                let taken = taken.iter().map(|value| known(kinds, value));
                self.hand(function.fn_name(), taken.chain([Handed::One(element.name)]).collect());
            }
            let (Some(next), Some(rest)) = (kinds.link(of, link), rest) else { return };
            (of, right) = (next, rest);
        }
    }

    fn hand(&mut self, function: &str, values: Vec<Handed>) {
        let handed = self.0.entry((function.to_owned(), values.len())).or_default();
        handed.resize(values.len(), Handed::Nothing);
        for (known, value) in handed.iter_mut().zip(values) {
            *known = match *known {
                Handed::Nothing => value,
                known if known == value => known,
                _ => Handed::Any,
            };
        }
    }
}

fn known(kinds: &Kinds, value: &Expr) -> Handed {
    kinds.of(value).map_or(Handed::Any, |kind| Handed::One(kind.name))
}

/// A function that stands where it is used, and what it takes along.
fn nameless(value: &Expr) -> Option<(FnPtr, &[Expr])> {
    let curried = |call: &FnCallExpr| call.name == CURRY;
    match value {
        Expr::Stmt(block) => match block.statements().last()? {
            Stmt::Expr(value) => match &**value {
                Expr::FnCall(call, _) if curried(call) => with_taken(call),
                _ => None,
            },
            Stmt::FnCall(call, _) if curried(call) => with_taken(call),
            _ => None,
        },
        value => Some((pointer(value)?, &[])),
    }
}

fn pointer(value: &Expr) -> Option<FnPtr> {
    match value {
        Expr::DynamicConstant(value, _) => value.clone().try_cast(),
        _ => None,
    }
}

fn with_taken(call: &FnCallExpr) -> Option<(FnPtr, &[Expr])> {
    let (function, taken) = call.args.split_first()?;
    Some((pointer(function)?, taken))
}

/// What may name a function otherwise: `Fn("name")`, `list.map(name)`.
fn names(statements: &[Stmt]) -> Vec<String> {
    let mut names = Vec::new();
    for statement in statements {
        statement.walk(&mut Vec::new(), &mut |path| {
            match path.last() {
                Some(ASTNode::Expr(Expr::StringConstant(text, _))) => names.push(text.to_string()),
                Some(ASTNode::Expr(value)) => {
                    let pointed = pointer(value).map(|function| function.fn_name().to_owned());
                    names.extend(pointed.filter(|name| !is_nameless(name)));
                    names.extend(variable(value).map(ToOwned::to_owned));
                }
                _ => {}
            }
            true
        });
    }
    names
}
