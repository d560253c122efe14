//! Names that can be known before anything runs: what `env` binds, what `message`, `ctx` and `session` offer,
//! functions of this file and of modules.
//!
//! A parameter is taken for what it is called by the documents. In a handler that is certain, and a wrong name an
//! error; in another function `message` could be something else, and it is a warning. What the contract has and this
//! version hasn't is told as such.

use std::collections::BTreeSet;

use rhai::{AST, ASTNode, Expr, FnCallExpr, Position, Stmt};

use super::Scripts;
use super::finding::Findings;
use super::imports::Graph;
use super::members::Members;
use crate::diagnostic::{Severity, suggest};
use crate::rules::api::env::{Environment, did_you_mean};
use crate::rules::api::functions::wrong_with_pattern;
use crate::rules::reference;
use crate::rules::worker::{HANDLERS, body};

/// Members of the contract that this version doesn't offer.
const LATER: &[(&str, &[&str])] = &[
    (
        "message",
        &[
            "reply",
            "to_payload",
            "auth",
            "spam",
            "reply_text",
            "header_from",
            "header_to",
            "header_cc",
            "can_be_forwarded",
            "attachments",
            "html",
            "text",
            "references",
        ],
    ),
    ("ctx", &["send", "fetch", "ai", "dns_lookup", "dnsbl"]),
    ("env", &["limit"]),
    ("session", &["asn", "country"]),
];
/// What Rhai has and a worker hasn't.
const REFUSED: &[(&str, &str)] = &[
    ("sleep", "a run decides at once"),
    ("timestamp", "the time is ctx.now(), in milliseconds"),
    ("eval", "a worker's source is all there is"),
];
/// What others call a function of ours.
const ELSEWHERE: &[(&str, &str)] = &[
    ("base64_encode", "to_base64"),
    ("base64_decode", "from_base64"),
    ("btoa", "to_base64"),
    ("atob", "from_base64"),
    ("hex_encode", "to_hex"),
    ("hex_decode", "from_hex"),
    ("parse_json", "json_parse"),
    ("encodeURIComponent", "url_encode"),
    ("decodeURIComponent", "url_decode"),
    ("randomUUID", "random_id"),
    ("uuid", "random_id"),
    ("strftime", "format_date"),
    ("public_suffix", "org_domain"),
];
/// Functions that are part of the language and registered nowhere.
const LANGUAGE: &[&str] = &["Fn", "call", "curry", "is_shared", "is_def_var", "is_def_fn", "type_of", "print", "debug"];

/// What names are held against.
pub struct Known<'a> {
    pub environment: &'a Environment,
    pub members: &'a Members,
    pub graph: &'a Graph,
    pub scripts: &'a Scripts,
}

/// Looks at every function of a file, and at its top level.
pub fn check(file: &str, script: &AST, is_main: bool, known: &Known, findings: &mut Findings) {
    let own: BTreeSet<&str> = script.iter_functions().map(|function| function.name).collect();
    let look = |statements: &[Stmt], roles: Roles, findings: &mut Findings| {
        let mut look = Look { file, own: &own, known, roles: &roles, locals: locals(statements), findings };
        for statement in statements {
            statement.walk(&mut Vec::new(), &mut |path| {
                look.node(path);
                true
            });
        }
    };
    look(script.statements(), Roles::default(), findings);
    for function in script.iter_functions() {
        let roles = Roles::of(function.name, &function.params, is_main);
        look(&body(script, function.name, function.params.len()), roles, findings);
    }
}

/// Which of a function's parameters is what.
#[derive(Default)]
struct Roles {
    /// The script's name, and the documents'.
    named: Vec<(String, &'static str)>,
    certain: bool,
    params: BTreeSet<String>,
}

impl Roles {
    fn of(name: &str, params: &[&str], is_main: bool) -> Self {
        let params_owned = params.iter().map(|param| (*param).to_owned()).collect();
        let handler =
            HANDLERS.iter().find(|(handler, named)| is_main && *handler == name && named.len() == params.len());
        if let Some((_, named)) = handler {
            let roles = params.iter().zip(*named).map(|(param, role)| ((*param).to_owned(), *role)).collect();
            return Self { named: roles, certain: true, params: params_owned };
        }
        let named = ["message", "session", "ctx", "env"];
        let roles = named.iter().filter(|role| params.contains(role)).map(|role| ((*role).to_owned(), *role)).collect();
        Self { named: roles, certain: false, params: params_owned }
    }
}

/// Every name that a function itself declares.
fn locals(statements: &[Stmt]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for statement in statements {
        statement.walk(&mut Vec::new(), &mut |path| {
            match path.last() {
                Some(ASTNode::Stmt(Stmt::Var(declared, ..))) => {
                    names.insert(declared.0.name.to_string());
                }
                Some(ASTNode::Stmt(Stmt::For(declared, _))) => {
                    names.insert(declared.0.name.to_string());
                    names.extend(declared.1.iter().map(|counter| counter.name.to_string()));
                }
                Some(ASTNode::Stmt(Stmt::TryCatch(flow, _))) => {
                    names.extend(variable(&flow.expr).map(ToOwned::to_owned));
                }
                _ => {}
            }
            true
        });
    }
    names
}

struct Look<'a, 'b> {
    file: &'a str,
    own: &'a BTreeSet<&'a str>,
    known: &'a Known<'a>,
    roles: &'a Roles,
    locals: BTreeSet<String>,
    findings: &'a mut Findings<'b>,
}

/// What is asked of an object first: `x.name`, `x.name(…)` or `x["name"]`.
enum Member<'a> {
    Property(&'a str, Position),
    Method(&'a str, Position),
}

impl Look<'_, '_> {
    fn node(&mut self, path: &[ASTNode]) {
        match path.last() {
            Some(ASTNode::Expr(Expr::Dot(pair, ..) | Expr::Index(pair, ..))) => {
                let is_index = matches!(path.last(), Some(ASTNode::Expr(Expr::Index(..))));
                let role = variable(&pair.lhs).and_then(|name| self.role(name));
                if let Some((role, member)) = role.zip(first(&pair.rhs, is_index)) {
                    self.member(role, &member);
                }
            }
            Some(ASTNode::Expr(Expr::MethodCall(call, at))) => self.function(call, *at, true),
            Some(ASTNode::Expr(Expr::FnCall(call, at)) | ASTNode::Stmt(Stmt::FnCall(call, at))) => self.call(call, *at),
            _ => {}
        }
    }

    fn role(&self, name: &str) -> Option<&'static str> {
        let (_, role) = self.roles.named.iter().find(|(param, _)| param == name && !self.locals.contains(name))?;
        Some(role)
    }

    fn member(&mut self, role: &'static str, member: &Member) {
        let (name, at) = match member {
            Member::Property(name, at) | Member::Method(name, at) => (*name, *at),
        };
        let is_property = matches!(member, Member::Property(..));
        let members = self.known.members;
        if members.has(role, name) || self.own.contains(name) || matches!(role, "rcpt" | "sender") {
            return;
        }
        if role == "env" && is_property {
            if !self.known.environment.binds(name) {
                let (message, help) = self.known.environment.unbound(name);
                self.findings.error(self.file, at, name.chars().count(), message, Some(help));
            }
            return;
        }
        let severity = if self.roles.certain { Severity::Error } else { Severity::Warning };
        let later = LATER.iter().any(|(of, names)| *of == role && names.contains(&name));
        let (message, help) = if later {
            (format!("{role}.{name} is not offered by this version"), None)
        } else {
            let what = if is_property { "member" } else { "method" };
            // A method that every value has, such as `type_of`.
            if !is_property && (members.functions.contains(name) || LANGUAGE.contains(&name)) {
                return;
            }
            (format!("no {what} {role}.{name}"), Some(did_you_mean(name, members.of_role(role), "offered")))
        };
        self.findings.push(severity, self.file, at, name.chars().count(), message, help);
    }

    fn call(&mut self, call: &FnCallExpr, at: Position) {
        let name = call.name.as_str();
        if call.is_qualified() {
            self.qualified(call, at);
            return;
        }
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name && !self.own.contains(name)) {
            let message = format!("{name} is not offered: {why}");
            self.findings.error(self.file, at, name.len(), message, None);
            return;
        }
        let is_name = name.starts_with(|first: char| first.is_alphabetic() || first == '_') && !name.contains('$');
        let known = self.own.contains(name)
            || LANGUAGE.contains(&name)
            || self.known.members.functions.contains(name)
            || self.locals.contains(name)
            || self.roles.params.contains(name);
        if call.is_operator_call() || !is_name || known {
            self.function(call, at, false);
            return;
        }
        let elsewhere = ELSEWHERE.iter().find(|(called, _)| *called == name).map(|(_, ours)| *ours);
        let near = suggest(name, self.own.iter().copied()).or(elsewhere);
        let near = near.or_else(|| suggest(name, reference::function_names()));
        let help = near.map(|near| format!("did you mean {near}?"));
        self.findings.error(self.file, at, name.len(), format!("no function {name}"), help);
    }

    /// A function of the reference: how many arguments it has, and what is wrong with a pattern that is written out. `of`:
    /// it is called on its first one.
    fn function(&mut self, call: &FnCallExpr, at: Position, of: bool) {
        let name = call.name.as_str();
        let ways = reference::ways(name);
        if self.own.contains(name) || ways.clone().next().is_none() {
            return;
        }
        // What is called on something may be the something's own.
        if !of && !ways.clone().any(|way| reference::arguments(way) == call.args.len()) {
            let takes = reference::takes(name).unwrap_or_default();
            let message = match call.args.len() {
                0 => format!("{takes}, and none is given"),
                1 => format!("{takes}, and one is given"),
                given => format!("{takes}, and {given} are given"),
            };
            self.findings.error(self.file, at, name.len(), message, None);
            return;
        }
        let is_pattern = |way: &str| way.contains("pattern: string") && name.starts_with("regex_");
        let pattern = call.args.get(usize::from(!of)).filter(|_| ways.clone().any(is_pattern));
        if let Some(Expr::StringConstant(pattern, at)) = pattern
            && let Some(why) = wrong_with_pattern(pattern)
        {
            self.findings.error(self.file, *at, pattern.chars().count() + 2, why, None);
        }
    }

    /// `alias::name(…)`: looked up in the file that the alias stands for.
    fn qualified(&mut self, call: &FnCallExpr, at: Position) {
        let [alias] = call.namespace.path.as_slice() else { return };
        let imports = self.known.graph.get(self.file);
        let Some(import) = imports.into_iter().flatten().find(|import| import.alias == alias.name.as_str()) else {
            return;
        };
        let Some(module) = self.known.scripts.get(&import.file) else { return };
        let public = || module.iter_functions().filter(|function| function.access == rhai::FnAccess::Public);
        let name = call.name.as_str();
        if public().any(|function| function.name == name) {
            return;
        }
        let names: Vec<&str> = public().map(|function| function.name).filter(|name| !name.contains('$')).collect();
        let help = did_you_mean(name, names.iter().copied(), "there");
        let message = format!("{} has no function {name}", import.file);
        self.findings.error(self.file, at, name.len(), message, Some(help));
    }
}

/// The right side of a dot or bracket, as far as its first member.
fn first(right: &Expr, is_index: bool) -> Option<Member<'_>> {
    match right {
        Expr::Property(property, at) if !is_index => Some(Member::Property(property.2.as_str(), *at)),
        Expr::MethodCall(call, at) if !is_index => Some(Member::Method(call.name.as_str(), *at)),
        Expr::StringConstant(name, at) if is_index => Some(Member::Property(name.as_str(), *at)),
        Expr::Dot(pair, ..) | Expr::Index(pair, ..) => first(&pair.lhs, is_index),
        _ => None,
    }
}

/// The name of an unqualified variable.
fn variable(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Variable(variable, ..) if variable.2.is_empty() => Some(variable.1.as_str()),
        _ => None,
    }
}
