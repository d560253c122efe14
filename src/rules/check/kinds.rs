//! What a value is known to be without running anything: a parameter by its role, and what is read from it, as the
//! reference says.
//!
//! A variable that is declared once and never assigned has the kind of what it was declared with. Whatever isn't certain
//! is unknown, and nothing is held against it.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{ASTFlags, ASTNode, Expr, Stmt};

use super::around::{Around, is_nameless};
use super::fields;
use super::passed::Passed;
use crate::rules::api::env::Environment;
use crate::rules::reference;
use crate::rules::worker::HANDLERS;

/// `message`, `headers`, `kv`, …: as the reference calls them.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    /// It comes from a handler's parameter; a function's may be something else that is called so.
    pub certain: bool,
}

const ARRAY: &str = "array";

impl Kind {
    /// As what its members are known.
    pub fn offering(self) -> Self {
        if self.element().is_some() { Self { name: ARRAY, ..self } } else { self }
    }

    /// What stands in it, where it is a list of ours: `[attachment]`.
    pub fn element(self) -> Option<Self> {
        let name = self.name.strip_prefix('[')?.strip_suffix(']')?;
        Some(Self { name, ..self })
    }
}

/// Which of a function's parameters is what.
#[derive(Default)]
pub struct Roles {
    /// The script's name, and the documents'.
    named: Vec<(String, &'static str)>,
    certain: bool,
    /// The handler that the function is.
    pub handler: Option<&'static str>,
    pub params: BTreeSet<String>,
}

impl Roles {
    pub fn of(name: &str, params: &[&str], is_main: bool, around: &Around, passed: &Passed) -> Self {
        let params_owned = params.iter().map(|param| (*param).to_owned()).collect();
        let handler =
            HANDLERS.iter().find(|(handler, named)| is_main && *handler == name && named.len() == params.len());
        if let Some((handler, named)) = handler {
            let roles = params.iter().zip(*named).map(|(param, role)| {
                let role = if (*handler, *role) == ("scheduled", "event") { "scheduled" } else { *role };
                ((*param).to_owned(), role)
            });
            return Self { named: roles.collect(), certain: true, handler: Some(*handler), params: params_owned };
        }
        let named = ["message", "session", "ctx", "env"];
        // What a function without a name calls so may be anything, but for what it takes along.
        let is_one = |role: &&&str| params.contains(role) && (!is_nameless(name) || around.is_a_parameter(role));
        let mut roles: Vec<_> = named.iter().filter(is_one).map(|role| ((*role).to_owned(), *role)).collect();
        roles.extend(params.iter().enumerate().filter_map(|(at, param)| {
            let unnamed = !named.contains(param);
            passed.kind(name, params.len(), at).filter(|_| unnamed).map(|kind| ((*param).to_owned(), kind))
        }));
        Self { named: roles, certain: false, handler: None, params: params_owned }
    }

    fn kind(&self, name: &str) -> Option<Kind> {
        let (_, role) = self.named.iter().find(|(param, _)| param == name)?;
        let name = if matches!(*role, "sender" | "rcpt") { "string" } else { role };
        Some(Kind { name, certain: self.certain })
    }
}

/// The kinds of one function's names.
pub struct Kinds<'a> {
    roles: &'a Roles,
    around: &'a Around,
    environment: &'a Environment,
    /// Every name that the function itself declares.
    locals: BTreeMap<String, Option<Kind>>,
}

impl<'a> Kinds<'a> {
    pub fn new(statements: &[Stmt], roles: &'a Roles, around: &'a Around, environment: &'a Environment) -> Self {
        let mut kinds = Self { roles, around, environment, locals: BTreeMap::new() };
        let mut changed = BTreeSet::new();
        for statement in statements {
            statement.walk(&mut Vec::new(), &mut |path| {
                if let Some(ASTNode::Stmt(statement)) = path.last() {
                    kinds.declare(statement, &mut changed);
                }
                true
            });
        }
        for name in changed {
            kinds.locals.insert(name, None);
        }
        kinds
    }

    fn declare(&mut self, statement: &Stmt, changed: &mut BTreeSet<String>) {
        let mut declared: Vec<(String, Option<Kind>)> = Vec::new();
        match statement {
            Stmt::Var(variable, ..) => declared.push((variable.0.name.to_string(), self.of(&variable.1))),
            Stmt::For(each, _) => {
                declared.push((each.0.name.to_string(), self.of(&each.2.expr).and_then(Kind::element)));
                declared.extend(each.1.iter().map(|counter| (counter.name.to_string(), None)));
            }
            Stmt::TryCatch(flow, _) => declared.extend(variable(&flow.expr).map(|name| (name.to_owned(), None))),
            Stmt::Assignment(assignment) => changed.extend(variable(&assignment.1.lhs).map(ToOwned::to_owned)),
            Stmt::Share(names) => {
                let names = names.iter().map(|(taken, _)| taken.name.as_str());
                changed.extend(names.filter(|name| self.around.changes(name)).map(ToOwned::to_owned));
            }
            _ => {}
        }
        for (name, kind) in declared {
            // Before the declaration, and after its block, it is the parameter.
            if self.locals.insert(name.clone(), kind).is_some() || self.roles.params.contains(&name) {
                changed.insert(name);
            }
        }
    }

    pub fn declares(&self, name: &str) -> bool {
        self.locals.contains_key(name)
    }

    /// What an expression gives.
    pub fn of(&self, expression: &Expr) -> Option<Kind> {
        match expression {
            Expr::StringConstant(..) | Expr::InterpolatedString(..) => Some(Kind { name: "string", certain: true }),
            Expr::Dot(pair, ..) => self.after(self.of(&pair.lhs)?, &pair.rhs),
            Expr::Index(pair, flags, _) => {
                let kind = self.of(&pair.lhs)?;
                self.item(kind, &pair.rhs, *flags).or_else(|| self.indexed(kind, &pair.rhs))
            }
            Expr::FnCall(call, _) if !call.is_qualified() && !self.around.has_function(&call.name) => {
                fields::made_by(&call.name).map(|name| Kind { name, certain: true })
            }
            other => {
                let name = variable(other)?;
                self.locals.get(name).map_or_else(|| self.roles.kind(name), |kind| *kind)
            }
        }
    }

    /// What the right side of a dot gives, all of it.
    fn after(&self, kind: Kind, right: &Expr) -> Option<Kind> {
        match right {
            Expr::Dot(pair, ..) => self.after(self.link(kind, &pair.lhs)?, &pair.rhs),
            Expr::Index(pair, flags, _) => self.item(self.link(kind, &pair.lhs)?, &pair.rhs, *flags),
            link => self.link(kind, link),
        }
    }

    /// The right side of a bracket after a list, with what follows it.
    fn item(&self, list: Kind, right: &Expr, flags: ASTFlags) -> Option<Kind> {
        let element = list.element()?;
        match right {
            Expr::Dot(pair, ..) if !flags.contains(ASTFlags::BREAK) => self.after(element, &pair.rhs),
            Expr::Index(..) if !flags.contains(ASTFlags::BREAK) => None,
            _ => Some(element),
        }
    }

    /// The right side of a bracket: of `env` a name may stand there.
    pub fn indexed(&self, kind: Kind, right: &Expr) -> Option<Kind> {
        match right {
            Expr::StringConstant(name, _) if kind.name == "env" => self.member(kind, name),
            Expr::Dot(pair, ..) => self.after(self.indexed(kind, &pair.lhs)?, &pair.rhs),
            _ => None,
        }
    }

    /// What one member gives.
    pub fn link(&self, kind: Kind, link: &Expr) -> Option<Kind> {
        match link {
            Expr::Property(property, _) => self.member(kind, property.2.as_str()),
            Expr::MethodCall(call, _) => self.member(kind, call.name.as_str()),
            _ => None,
        }
    }

    fn member(&self, kind: Kind, name: &str) -> Option<Kind> {
        if let Some(element) = kind.element() {
            return match name {
                "filter" => Some(kind),
                "find" | "pop" | "shift" => Some(element),
                _ => reference::gives(ARRAY, name).map(|name| Kind { name, ..kind }),
            };
        }
        let given = match kind.name {
            "env" if self.environment.binds(name) => self.environment.kind(name)?,
            of => fields::within(of, name).or_else(|| reference::gives(of, name))?,
        };
        Some(Kind { name: given, ..kind })
    }
}

/// The name of an unqualified variable.
pub fn variable(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Variable(variable, ..) if variable.2.is_empty() => Some(variable.1.as_str()),
        _ => None,
    }
}
