//! Names that can be known before anything runs: what `env` binds, what `message`, `ctx` and `session` offer and what is
//! read from them, functions of this file and of modules.
//!
//! A parameter is taken for what it is called by the documents. In a handler that is certain, and a wrong name an
//! error; in another function `message` could be something else, and it is a warning.

use std::collections::BTreeSet;

use rhai::{AST, ASTFlags, ASTNode, Expr, FnCallExpr, Position, Stmt};

use super::Scripts;
use super::around::Around;
use super::calls::{LANGUAGE, arguments, elsewhere, given};
use super::finding::Findings;
use super::imports::Graph;
use super::kinds::{Kind, Kinds, Roles};
use super::members::Members;
use super::passed::Passed;
use super::{fields, idioms};
use crate::diagnostic::Severity;
use crate::rules::api::env::{Environment, did_you_mean};
use crate::rules::reference;
use crate::rules::worker::body;

/// What names are held against.
pub struct Known<'a> {
    pub environment: &'a Environment,
    pub members: &'a Members,
    pub graph: &'a Graph,
    pub scripts: &'a Scripts,
    /// See [`super::calls::keys`].
    pub keys: &'a BTreeSet<String>,
}

/// Looks at every function of a file, and at its top level.
pub fn check(file: &str, script: &AST, is_main: bool, known: &Known, findings: &mut Findings) {
    let own: Vec<(&str, usize)> =
        script.iter_functions().map(|function| (function.name, function.params.len())).collect();
    let functions: Vec<_> = script
        .iter_functions()
        .map(|function| (body(script, function.name, function.params.len()), function))
        .collect();
    let mut around = Around::default();
    around.add("", script.statements());
    for (statements, function) in &functions {
        around.add(function.name, statements);
    }
    let of_types: BTreeSet<&str> = known.scripts.values().flat_map(of_types).collect();
    let look = |statements: &[Stmt], roles: Roles, findings: &mut Findings| {
        let kinds = Kinds::new(statements, &roles, &around, known.environment);
        let (told, keys) = (BTreeSet::new(), &around.keys);
        let mut look = Look { file, own: &own, of_types: &of_types, keys, known, roles: &roles, kinds, told, findings };
        for statement in statements {
            statement.walk(&mut Vec::new(), &mut |path| {
                look.node(path);
                true
            });
        }
    };
    look(script.statements(), Roles::default(), findings);
    let is_imported = known.graph.values().flatten().any(|import| import.file == file);
    let passed =
        if is_imported { Passed::default() } else { Passed::of(&functions, is_main, &around, known.environment) };
    for (statements, function) in &functions {
        let roles = Roles::of(function.name, &function.params, is_main, &around, &passed);
        look(statements, roles, findings);
    }
}

/// A file's methods of a type, `fn string.shout()`: any file may call them.
fn of_types(script: &AST) -> impl Iterator<Item = &str> {
    script.iter_functions().filter(|function| function.this_type.is_some()).map(|function| function.name)
}

/// One function's names.
pub struct Look<'a, 'b> {
    pub file: &'a str,
    /// The file's functions, each with how many parameters it has.
    pub own: &'a [(&'a str, usize)],
    /// Methods of types that any file has.
    pub of_types: &'a BTreeSet<&'a str>,
    /// What the file sets in maps.
    pub keys: &'a BTreeSet<String>,
    pub known: &'a Known<'a>,
    pub roles: &'a Roles,
    pub kinds: Kinds<'a>,
    /// Where methods stand that were held against what their value offers.
    told: BTreeSet<(Option<usize>, Option<usize>)>,
    pub findings: &'a mut Findings<'b>,
}

/// What is asked of a value: `x.name`, `x["name"]`, or `x.name(…)` with so many arguments.
#[derive(Clone, Copy)]
enum Member<'a> {
    Property(&'a str, Position),
    Method(&'a FnCallExpr, Position),
}

impl Look<'_, '_> {
    fn node(&mut self, path: &[ASTNode]) {
        if let Some(node) = path.last() {
            self.conditions(node);
        }
        match path.last() {
            Some(ASTNode::Expr(dot @ Expr::Dot(pair, ..))) => {
                if let Some(kind) = self.kinds.of(&pair.lhs).filter(|_| !follows_a_bracket(path, dot)) {
                    self.chain(kind, &pair.rhs);
                }
            }
            Some(ASTNode::Expr(Expr::Index(pair, flags, _))) => match self.kinds.of(&pair.lhs) {
                Some(kind) if kind.name == "env" => self.bracket(kind, &pair.rhs),
                list => self.item(list, &pair.rhs, *flags),
            },
            Some(ASTNode::Expr(Expr::MethodCall(call, at))) => {
                self.of_reference(call, *at, true);
                if !self.told.contains(&place(*at)) {
                    self.method(call, *at);
                }
            }
            Some(ASTNode::Expr(Expr::FnCall(call, at)) | ASTNode::Stmt(Stmt::FnCall(call, at))) => {
                self.call(call, *at);
                self.compared(call, *at);
            }
            _ => {}
        }
    }

    /// `x.a.b(…).c`, link by link, as far as the kind of each is known.
    fn chain(&mut self, kind: Kind, right: &Expr) {
        match right {
            Expr::Dot(pair, ..) => {
                self.link(kind, &pair.lhs);
                if let Some(next) = self.kinds.link(kind, &pair.lhs) {
                    self.chain(next, &pair.rhs);
                }
            }
            Expr::Index(pair, flags, _) => {
                self.link(kind, &pair.lhs);
                self.item(self.kinds.link(kind, &pair.lhs), &pair.rhs, *flags);
            }
            link => self.link(kind, link),
        }
    }

    /// `list[0].name`: what follows the bracket.
    fn item(&mut self, list: Option<Kind>, right: &Expr, flags: ASTFlags) {
        if let (Some(element), Expr::Dot(pair, ..)) = (list.and_then(Kind::element), right)
            && !flags.contains(ASTFlags::BREAK)
        {
            self.chain(element, &pair.rhs);
        }
    }

    /// `env["NAME"]`, and what follows it.
    fn bracket(&mut self, kind: Kind, right: &Expr) {
        match right {
            Expr::StringConstant(name, at) => self.member(kind, Member::Property(name, *at)),
            Expr::Dot(pair, ..) => {
                self.bracket(kind, &pair.lhs);
                if let Some(next) = self.kinds.indexed(kind, &pair.lhs) {
                    self.chain(next, &pair.rhs);
                }
            }
            Expr::Index(pair, ..) => self.bracket(kind, &pair.lhs),
            _ => {}
        }
    }

    fn link(&mut self, kind: Kind, link: &Expr) {
        match link {
            Expr::Property(property, at) => self.member(kind, Member::Property(property.2.as_str(), *at)),
            Expr::MethodCall(call, at) => {
                self.told.insert(place(*at));
                self.member(kind, Member::Method(call, *at));
            }
            _ => {}
        }
    }

    fn member(&mut self, kind: Kind, member: Member) {
        let kind = kind.offering();
        let members = self.known.members;
        let (name, at) = match member {
            Member::Property(name, at) => (name, at),
            Member::Method(call, at) => (call.name.as_str(), at),
        };
        if kind.name == "ctx" && name == "ai" && self.known.environment.ai.is_none() {
            let help = "[ai] with url = \"https://api.openai.com/v1\" and its api_key".to_owned();
            let message = "ctx.ai has nobody to ask".to_owned();
            if kind.certain {
                self.findings.unmet(self.file, at, name.len(), message, Some(help));
            } else {
                self.push(kind, at, name, message, Some(help));
            }
            return;
        }
        if let Some(fields) = fields::of(kind.name) {
            if matches!(member, Member::Property(..)) && !fields.contains(&name) && !self.keys.contains(name) {
                let help = did_you_mean(name, fields.iter().copied(), "there");
                self.push(kind, at, name, format!("no member {}.{name}", kind.name), Some(help));
            }
            return;
        }
        let is_own = self.own.iter().any(|(own, _)| *own == name) || self.of_types.contains(name);
        if !members.knows(kind.name) && kind.name != "env" || is_own {
            return;
        }
        if let Member::Property(..) = member {
            if kind.name == "env" {
                if !self.known.environment.binds(name) {
                    let (message, help) = self.known.environment.unbound(name);
                    self.findings.unmet(self.file, at, name.chars().count(), message, Some(help));
                }
            } else if !members.has_property(kind.name, name) {
                self.missing(kind, "member", name, at);
            }
            return;
        }
        let Member::Method(call, _) = member else { return };
        match members.method(kind.name, name) {
            Some(counts) if counts.contains(&(call.args.len() + 1)) => self.written(kind, call, at),
            Some(counts) => self.miscounted(kind, call, at, &counts),
            // What every value has, such as `type_of`.
            None if LANGUAGE.contains(&name) => {}
            None => self.missing(kind, "method", name, at),
        }
    }

    fn miscounted(&mut self, kind: Kind, call: &FnCallExpr, at: Position, counts: &BTreeSet<usize>) {
        let name = call.name.as_str();
        let ways = reference::member_ways(kind.name, name);
        let takes = if ways.is_empty() {
            let counts: BTreeSet<usize> = counts.iter().map(|count| count.saturating_sub(1)).collect();
            arguments(counts.iter())
        } else {
            ways.join(" or ")
        };
        let message = format!("{}.{name} takes {takes}, and {}", kind.name, given(call.args.len()));
        let help = idioms::arguments(kind.name, name).filter(|_| !call.args.is_empty()).map(ToOwned::to_owned);
        self.push(kind, at, name, message, help);
    }

    fn missing(&mut self, kind: Kind, what: &str, name: &str, at: Position) {
        let members = self.known.members;
        let (message, help) = if what == "member" && members.method(kind.name, name).is_some() {
            (format!("{}.{name} is a method", kind.name), Some(format!("call it: {name}(…)")))
        } else if what == "method" && members.has_property(kind.name, name) {
            (format!("{}.{name} is no method", kind.name), Some(format!("write {name} without brackets")))
        } else {
            let names = members.names_of(kind.name);
            let meant = elsewhere(name).filter(|ours| names.contains(ours)).map(|ours| format!("did you mean {ours}?"));
            let help = idioms::member(kind.name, name).map(ToOwned::to_owned).or(meant);
            let help = help.unwrap_or_else(|| did_you_mean(name, names.iter().copied(), "offered"));
            (format!("no {what} {}.{name}", kind.name), Some(help))
        };
        self.push(kind, at, name, message, help);
    }

    /// `message.auth.spf == "pass"` is never true.
    fn compared(&mut self, call: &FnCallExpr, at: Position) {
        let [left, right] = call.args.as_slice() else { return };
        if !matches!(call.name.as_str(), "==" | "!=") {
            return;
        }
        for (map, text) in [(left, right), (right, left)] {
            let kind = self.kinds.of(map).filter(|kind| fields::of(kind.name).is_some());
            if let (Some(kind), Expr::StringConstant(..)) = (kind, text) {
                let keys = fields::of(kind.name).unwrap_or_default();
                let help = format!("compare what stands in it: {}", keys.join(", "));
                self.push(kind, at, "==", format!("{} is a map, which equals no text", kind.name), Some(help));
            }
        }
    }

    pub fn push(&mut self, kind: Kind, at: Position, name: &str, message: String, help: Option<String>) {
        let severity = if kind.certain { Severity::Error } else { Severity::Warning };
        self.findings.push(severity, self.file, at, name.chars().count(), message, help);
    }
}

/// `list[key].name`, where the parser has `key.name` within the bracket, and says beside it that the bracket ends before.
fn follows_a_bracket(path: &[ASTNode], dot: &Expr) -> bool {
    let Some([ASTNode::Expr(Expr::Index(pair, flags, _)), _]) = path.last_chunk::<2>() else { return false };
    std::ptr::eq(&raw const pair.rhs, dot) && !flags.contains(ASTFlags::BREAK)
}

fn place(at: Position) -> (Option<usize>, Option<usize>) {
    (at.line(), at.position())
}
