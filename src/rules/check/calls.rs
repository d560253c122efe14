//! Functions that are called: whether there is one of that name, and with so many arguments.

use std::collections::BTreeSet;

use rhai::{AST, ASTNode, Dynamic, Expr, FnAccess, FnCallExpr, Position};

use super::Scripts;
use super::members::is_word;
use super::names::Look;
use crate::diagnostic::suggest;
use crate::rules::api::env::did_you_mean;
use crate::rules::api::functions::wrong_with_pattern;
use crate::rules::reference;

/// What Rhai has and a worker hasn't.
const REFUSED: &[(&str, &str)] = &[
    ("sleep", "a run decides at once"),
    ("timestamp", "the time is ctx.now(), in milliseconds"),
    ("eval", "a worker's source is all there is"),
    ("back_trace", "`mailworker explain --step` shows the calls"),
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
    ("toLowerCase", "to_lower"),
    ("toUpperCase", "to_upper"),
    ("startsWith", "starts_with"),
    ("endsWith", "ends_with"),
    ("includes", "contains"),
    ("indexOf", "index_of"),
    ("forEach", "for_each"),
    ("parseInt", "parse_int"),
    ("parseFloat", "parse_float"),
    ("toString", "to_string"),
    ("substring", "sub_string"),
    ("replaceAll", "replace"),
    ("length", "len"),
];
/// Functions that are part of the language and registered nowhere.
pub const LANGUAGE: &[&str] =
    &["Fn", "call", "curry", "is_shared", "is_def_var", "is_def_fn", "type_of", "print", "debug"];

/// Every key that a map of these scripts may have: what is called on a map may be a function in it.
pub fn keys(scripts: &Scripts) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for script in scripts.values() {
        script.walk(&mut |path| {
            match path.last() {
                Some(ASTNode::Expr(Expr::Property(property, _))) => {
                    keys.insert(property.2.to_string());
                }
                Some(ASTNode::Expr(Expr::Map(map, _))) => {
                    keys.extend(map.0.iter().map(|(key, _)| key.name.to_string()));
                }
                Some(ASTNode::Expr(Expr::DynamicConstant(value, _))) => constant(value, &mut keys),
                Some(ASTNode::Expr(Expr::Index(pair, ..))) => {
                    if let Expr::StringConstant(key, _) = &pair.rhs {
                        keys.insert(key.to_string());
                    }
                }
                _ => {}
            }
            true
        });
    }
    keys
}

/// The keys of a value that the parser made already.
fn constant(value: &Dynamic, keys: &mut BTreeSet<String>) {
    if let Ok(map) = value.as_map_ref() {
        for (key, value) in map.iter() {
            keys.insert(key.to_string());
            constant(value, keys);
        }
    }
    for value in value.as_array_ref().iter().flat_map(|array| array.iter()) {
        constant(value, keys);
    }
}

/// `0, 1 or 2 arguments`
pub fn arguments<'a>(counts: impl Iterator<Item = &'a usize>) -> String {
    let mut words: Vec<String> = counts.map(ToString::to_string).collect();
    match (words.pop(), words.is_empty()) {
        (Some(only), true) if only == "0" => "no arguments".to_owned(),
        (Some(only), true) if only == "1" => "1 argument".to_owned(),
        (last, true) => format!("{} arguments", last.unwrap_or_default()),
        (last, false) => format!("{} or {} arguments", words.join(", "), last.unwrap_or_default()),
    }
}

/// What a function of others is called here.
pub fn elsewhere(name: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(called, _)| *called == name).map(|(_, ours)| *ours)
}

/// How many arguments were given, in words.
pub fn given(count: usize) -> String {
    match count {
        0 => "none is given".to_owned(),
        1 => "one is given".to_owned(),
        count => format!("{count} are given"),
    }
}

impl Look<'_, '_> {
    /// `name(…)`
    pub fn call(&mut self, call: &FnCallExpr, at: Position) {
        let name = call.name.as_str();
        if call.is_qualified() {
            self.qualified(call, at);
            return;
        }
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name && !self.is_own(name)) {
            let message = format!("{name} is not offered: {why}");
            self.findings.error(self.file, at, name.len(), message, None);
            return;
        }
        let is_plain = call.is_operator_call()
            || !is_word(name)
            || LANGUAGE.contains(&name)
            || self.kinds.declares(name)
            || self.roles.params.contains(name);
        if is_plain || self.is_own(name) || self.known.members.function(name).is_some() {
            self.of_reference(call, at, false);
            if !is_plain {
                self.counted(call, at, 0);
            }
            return;
        }
        let help = self.meant(name);
        self.findings.error(self.file, at, name.len(), format!("no function {name}"), help);
    }

    /// `value.name(…)`, of a value that may be anything: a map's own function, too.
    pub fn method(&mut self, call: &FnCallExpr, at: Position) {
        let name = call.name.as_str();
        let is_anybody_s = self.known.keys.contains(name) || self.of_types.contains(name);
        if !is_word(name) || LANGUAGE.contains(&name) || is_anybody_s {
            return;
        }
        if self.is_own(name) || self.known.members.function(name).is_some() {
            self.counted(call, at, 1);
            return;
        }
        let imported = || self.known.graph.get(self.file).into_iter().flatten();
        let module = imported().find(|import| {
            let script = self.known.scripts.get(&import.file);
            script.is_some_and(|script| public(script).any(|(function, _)| function == name))
        });
        let help = match module {
            Some(import) => Some(format!("a module's function is called as {}::{name}(…)", import.alias)),
            None => self.meant(name),
        };
        self.findings.error(self.file, at, name.len(), format!("no method {name}"), help);
    }

    fn is_own(&self, name: &str) -> bool {
        self.own.iter().any(|(own, _)| *own == name)
    }

    fn meant(&self, name: &str) -> Option<String> {
        let own = self.own.iter().map(|(own, _)| *own).filter(|own| is_word(own));
        let near = suggest(name, own).or_else(|| elsewhere(name));
        let near = near.or_else(|| suggest(name, reference::function_names()));
        let near = near.or_else(|| suggest(name, self.known.members.function_names()));
        near.map(|near| format!("did you mean {near}?"))
    }

    /// Whether some function of that name takes so many; `of`: those that stand before the bracket.
    fn counted(&mut self, call: &FnCallExpr, at: Position, of: usize) {
        let (name, count) = (call.name.as_str(), call.args.len());
        // What stands before the bracket is `this` to a function of the script.
        let own: BTreeSet<usize> = self.own.iter().filter(|(own, _)| *own == name).map(|(_, count)| *count).collect();
        let registered = self.known.members.function(name);
        let owner = ["ctx", "message", "session"].into_iter().find(|of| !reference::member_ways(of, name).is_empty());
        let owner = owner.filter(|_| own.is_empty() && of == 0);
        let is_owned = owner.is_none() || !self.is_of_another(call);
        if own.contains(&count) || is_owned && registered.is_some_and(|counts| counts.contains(&(count + of))) {
            return;
        }
        // Those of the reference are told by their parameters.
        if own.is_empty() && of == 0 && reference::takes(name).is_some() {
            return;
        }
        if let Some(owner) = owner {
            let help = Some(format!("write {owner}.{name}(…)"));
            self.findings.error(self.file, at, name.len(), format!("{name} is a method"), help);
            return;
        }
        let takes: BTreeSet<usize> = match registered {
            _ if !own.is_empty() => own,
            Some(counts) => counts.iter().filter_map(|count| count.checked_sub(of)).collect(),
            None => return,
        };
        let message = format!("{name} takes {}, and {}", arguments(takes.iter()), given(count));
        self.findings.error(self.file, at, name.len(), message, None);
    }

    /// Whether what comes first is known to be of a kind that has no such method: `fetch("https://…", #{ … })`.
    fn is_of_another(&self, call: &FnCallExpr) -> bool {
        let first = call.args.first().and_then(|first| self.kinds.of(first)).filter(|kind| kind.certain);
        let members = self.known.members;
        first.is_some_and(|kind| members.knows(kind.name) && members.method(kind.name, &call.name).is_none())
    }

    /// A function of the reference: how many arguments it has, and what is wrong with a pattern that is written out. `of`:
    /// it is called on its first one.
    pub fn of_reference(&mut self, call: &FnCallExpr, at: Position, of: bool) {
        let name = call.name.as_str();
        let ways = reference::ways(name);
        if self.is_own(name) || ways.clone().next().is_none() {
            return;
        }
        // What is called on something may be the something's own.
        if !of && !ways.clone().any(|way| reference::arguments(way) == call.args.len()) {
            let message = format!("{}, and {}", reference::takes(name).unwrap_or_default(), given(call.args.len()));
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
        let named = imports.into_iter().flatten().filter(|import| import.alias == alias.name.as_str());
        let mut wrong = Vec::new();
        // Functions may each import another file by one name.
        for import in named {
            let Some(module) = self.known.scripts.get(&import.file) else { return };
            let Some(why) = not_offered(call, &import.file, module) else { return };
            wrong.push(why);
        }
        if let Some((message, help)) = wrong.into_iter().next() {
            self.findings.error(self.file, at, call.name.len(), message, help);
        }
    }
}

/// Why a module's function can't be called so, and what to do.
fn not_offered(call: &FnCallExpr, file: &str, module: &AST) -> Option<(String, Option<String>)> {
    let name = call.name.as_str();
    let counts: BTreeSet<usize> = public(module).filter(|(own, _)| *own == name).map(|(_, count)| count).collect();
    if counts.is_empty() {
        let names: BTreeSet<&str> = public(module).map(|(name, _)| name).filter(|name| is_word(name)).collect();
        return Some((
            format!("{file} has no function {name}"),
            Some(did_you_mean(name, names.iter().copied(), "there")),
        ));
    }
    let takes = arguments(counts.iter());
    let given = given(call.args.len());
    (!counts.contains(&call.args.len())).then(|| (format!("{name} of {file} takes {takes}, and {given}"), None))
}

/// A module's functions that others may call, each with how many parameters it has.
fn public(module: &AST) -> impl Iterator<Item = (&str, usize)> {
    let public = module.iter_functions().filter(|function| function.access == FnAccess::Public);
    public.map(|function| (function.name, function.params.len()))
}
