//! What a value is known to be without running anything: a parameter by its role, and what is read from it, as the
//! reference says.
//!
//! A variable that is declared once and never assigned has the kind of what it was declared with. Whatever isn't certain
//! is unknown, and nothing is held against it.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{ASTNode, Expr, Stmt};

use super::around::{Around, is_nameless};
use super::fields;
use crate::rules::api::env::Environment;
use crate::rules::reference;
use crate::rules::worker::HANDLERS;

/// What `for` takes out of a list of ours.
const ELEMENTS: &[(&str, &str, &str)] = &[
    ("message", "attachments", "attachment"),
    ("message", "header_from", "mailbox"),
    ("message", "header_to", "mailbox"),
    ("message", "header_cc", "mailbox"),
    ("message", "reply_to", "mailbox"),
    ("auth", "dkim", "dkim"),
];

/// `message`, `headers`, `kv`, …: as the reference calls them.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    /// It comes from a handler's parameter; a function's may be something else that is called so.
    pub certain: bool,
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
    pub fn of(name: &str, params: &[&str], is_main: bool, around: &Around) -> Self {
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
        let roles = named.iter().filter(is_one).map(|role| ((*role).to_owned(), *role)).collect();
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
                declared.push((each.0.name.to_string(), self.element(&each.2.expr)));
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
            Expr::Index(pair, ..) => self.indexed(self.of(&pair.lhs)?, &pair.rhs),
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
            Expr::Index(..) => None,
            link => self.link(kind, link),
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
        let given = match kind.name {
            "env" if self.environment.binds(name) => self.environment.kind(name)?,
            of => fields::within(of, name).or_else(|| reference::gives(of, name))?,
        };
        Some(Kind { name: given, ..kind })
    }

    fn element(&self, list: &Expr) -> Option<Kind> {
        let Expr::Dot(pair, ..) = list else { return None };
        let (mut of, mut right) = (self.of(&pair.lhs)?, &pair.rhs);
        while let Expr::Dot(pair, ..) = right {
            (of, right) = (self.link(of, &pair.lhs)?, &pair.rhs);
        }
        let Expr::Property(property, _) = right else { return None };
        let found = ELEMENTS.iter().find(|(kind, name, _)| *kind == of.name && *name == property.2.as_str());
        found.map(|(_, _, element)| Kind { name: element, ..of })
    }
}

/// The name of an unqualified variable.
pub fn variable(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Variable(variable, ..) if variable.2.is_empty() => Some(variable.1.as_str()),
        _ => None,
    }
}
