//! The file as a tree of values, each with the place it came from; overlays are laid over it here, the environment by
//! [`super::variable`].
//!
//! Pure. Input: the text of `mailworker.toml`, the name of an overlay. Output: one tree for [`super::decode`], in which
//! every value still knows its line (or its variable), and [`Diagnostic`]s that point there.
//! What stands where a secret belongs is never shown: its octets are dots in the source line of a diagnostic.

use std::collections::HashMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::diagnostic::Diagnostic;

/// Which value of the tree.
pub type NodeId = u32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Octets of the file; `overlay` inside the `[env.NAME]` that was chosen.
    File { span: Range<usize>, overlay: bool },
    /// An environment variable.
    Variable(String),
}

#[derive(Debug, Clone)]
pub struct Node {
    pub id: NodeId,
    /// Where its key stands; for an element of a list the element itself.
    pub key: Origin,
    pub origin: Origin,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub enum Kind {
    String(String),
    /// From the environment: a string, number or boolean as whoever reads it needs.
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Vec<(String, Node)>),
}

/// Where a value was that didn't fit: what it would have been isn't missing, though it isn't there.
#[derive(Debug, Clone)]
pub struct Hole {
    pub within: NodeId,
    pub key: String,
}

/// The text with its name: what diagnostics quote.
#[derive(Debug)]
pub struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
    /// Values that stand in the clear where a secret may stand.
    sensitive: Vec<Range<usize>>,
    /// The parser gave up somewhere: there may be values that no span is known of.
    torn: bool,
}

/// Whether a value under this key is a secret, or says where one is: by its name, in whatever case, since names of header
/// fields have none (RFC 9110 §5.1).
#[must_use]
pub fn is_secret_key(key: &str) -> bool {
    const PARTS: [&str; 10] = [
        "secret",
        "password",
        "passwd",
        "authorization",
        "cookie",
        "token",
        "api-key",
        "api_key",
        "apikey",
        "credential",
    ];
    let key = key.to_ascii_lowercase();
    PARTS.iter().any(|part| key.contains(part)) || matches!(key.as_str(), "x-auth" | "auth" | "x-access-key")
}

/// What may be shown of a value, by the keys that lead to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    Shown,
    /// The same, of a route, and of a test of rules: its `auth` says results, and no login.
    Route,
    /// A table of header fields, of which each may be a secret, whatever its name.
    Headers,
    /// A secret, or where one is.
    Hidden,
}

impl Sight {
    /// Of what stands under `key`, `alone` or as a table or list. `{ env = "…" }` names a secret and is none;
    /// `{ secret = "…" }` would be one.
    #[must_use]
    pub fn below(self, key: &str, alone: bool) -> Self {
        match self {
            Self::Hidden if alone && matches!(key, "env" | "file" | "credential") => Self::Shown,
            Self::Hidden | Self::Headers => Self::Hidden,
            Self::Route if key == "auth" && !alone => Self::Shown,
            Self::Shown | Self::Route if key.eq_ignore_ascii_case("headers") => Self::Headers,
            Self::Shown | Self::Route if is_secret_key(key) => Self::Hidden,
            Self::Shown if matches!(key, "route" | "test") => Self::Route,
            Self::Shown | Self::Route => self,
        }
    }

    #[must_use]
    pub fn is_hidden(self) -> bool {
        matches!(self, Self::Headers | Self::Hidden)
    }
}

/// Whether the table under this key says where one value is read from: it is one value then, though it has keys.
pub(super) fn is_source(within: &str, key: &str) -> bool {
    within == "headers" || matches!(key, "secret" | "password" | "api_key") || (within == "secrets" && key == "key")
}

/// A tree under construction.
#[derive(Debug)]
pub struct Tree<'a> {
    pub root: Node,
    pub source: Source<'a>,
    pub found: Vec<Diagnostic>,
    pub holes: Vec<Hole>,
    /// Where the parser gave up, anything may be missing.
    pub torn: bool,
    /// Numbers that can't be held: told already, and taken out.
    beyond: Vec<NodeId>,
    pub(super) next: NodeId,
}

impl<'a> Tree<'a> {
    /// Parses; what isn't TOML is among `found`, and the rest is there all the same.
    #[must_use]
    pub fn parse(name: &'a str, text: &'a str) -> Self {
        let (document, errors) = DeTable::parse_recoverable(text);
        let whole = Origin::File { span: 0..0, overlay: false };
        let root = Node { id: 0, key: whole.clone(), origin: whole, kind: Kind::Table(Vec::new()) };
        let torn = !errors.is_empty();
        let source = Source { name, text, sensitive: Vec::new(), torn };
        let mut tree = Self { root, source, found: Vec::new(), holes: Vec::new(), torn, beyond: Vec::new(), next: 1 };
        let entries = tree.table(document.get_ref(), Sight::Shown);
        tree.root.kind = Kind::Table(entries);
        for id in std::mem::take(&mut tree.beyond) {
            tree.holes.extend(tree.root.prune(id));
        }
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let (message, help) = (error.message().lines().next().unwrap_or("this is not TOML"), None);
            let diagnostic = tree.source.at(&Origin::File { span, overlay: false }, message, help);
            tree.found.push(diagnostic);
        }
        tree
    }

    fn fresh(&mut self) -> NodeId {
        self.next += 1;
        self.next
    }

    fn table(&mut self, table: &DeTable<'_>, sight: Sight) -> Vec<(String, Node)> {
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            let name = key.get_ref().to_string();
            let key = Origin::File { span: key.span(), overlay: false };
            let alone = !matches!(value.get_ref(), DeValue::Array(_) | DeValue::Table(_));
            let node = self.node(Some(key), value.span(), value.get_ref(), sight.below(&name, alone));
            entries.push((name, node));
        }
        entries
    }

    fn node(&mut self, key: Option<Origin>, span: Range<usize>, value: &DeValue<'_>, sight: Sight) -> Node {
        let id = self.fresh();
        let origin = Origin::File { span: span.clone(), overlay: false };
        if !matches!(value, DeValue::Array(_) | DeValue::Table(_))
            && (sight.is_hidden() || value.as_str().is_some_and(has_password))
        {
            self.source.sensitive.push(span);
        }
        let kind = match value {
            DeValue::String(text) => Kind::String(text.to_string()),
            DeValue::Integer(number) => self.integer(number, &origin, id),
            DeValue::Float(number) => {
                let parsed: f64 = number.as_str().parse().unwrap_or(f64::NAN);
                if !parsed.is_finite() {
                    self.report(&origin, "a number must be finite", None);
                    self.beyond.push(id);
                }
                Kind::Float(if parsed.is_finite() { parsed } else { 0.0 })
            }
            DeValue::Boolean(value) => Kind::Boolean(*value),
            DeValue::Datetime(when) => Kind::String(when.to_string()),
            DeValue::Array(items) => {
                Kind::Array(items.iter().map(|item| self.node(None, item.span(), item.get_ref(), sight)).collect())
            }
            DeValue::Table(table) => Kind::Table(self.table(table, sight)),
        };
        Node { id, key: key.unwrap_or_else(|| origin.clone()), origin, kind }
    }

    fn integer(&mut self, number: &toml::de::DeInteger<'_>, origin: &Origin, id: NodeId) -> Kind {
        let parsed = i64::from_str_radix(number.as_str(), number.radix());
        if parsed.is_err() {
            self.report(origin, "the number is too large", None);
            self.beyond.push(id);
        }
        Kind::Integer(parsed.unwrap_or_default())
    }

    pub(super) fn report(&mut self, origin: &Origin, message: &str, help: Option<String>) {
        let diagnostic = self.source.at(origin, message, help);
        self.found.push(diagnostic);
    }

    /// Takes `[env]` out of the tree.
    pub fn take_overlays(&mut self) -> Option<Node> {
        let Kind::Table(entries) = &mut self.root.kind else { return None };
        let at = entries.iter().position(|(name, _)| name == "env")?;
        Some(entries.remove(at).1)
    }

    /// Lays a table over the root: tables merge, all else replaces.
    pub fn overlay(&mut self, mut over: Node) {
        mark_overlay(&mut over);
        merge(&mut self.root, over, "", "");
    }

    /// Where each node stands.
    #[must_use]
    pub fn places(&self) -> HashMap<NodeId, (Origin, Origin)> {
        fn walk(node: &Node, into: &mut HashMap<NodeId, (Origin, Origin)>) {
            into.insert(node.id, (node.key.clone(), node.origin.clone()));
            match &node.kind {
                Kind::Array(items) => items.iter().for_each(|item| walk(item, into)),
                Kind::Table(entries) => entries.iter().for_each(|(_, entry)| walk(entry, into)),
                _ => {}
            }
        }
        let mut places = HashMap::new();
        walk(&self.root, &mut places);
        places
    }
}

impl Node {
    /// Takes the node `id` out of the tree below this one; says where it was.
    pub fn prune(&mut self, id: NodeId) -> Option<Hole> {
        let within = self.id;
        match &mut self.kind {
            Kind::Array(items) => {
                if let Some(at) = items.iter().position(|item| item.id == id) {
                    items.remove(at);
                    return Some(Hole { within, key: String::new() });
                }
                items.iter_mut().find_map(|item| item.prune(id))
            }
            Kind::Table(entries) => {
                if let Some(at) = entries.iter().position(|(_, entry)| entry.id == id) {
                    return Some(Hole { within, key: entries.remove(at).0 });
                }
                entries.iter_mut().find_map(|(_, entry)| entry.prune(id))
            }
            _ => None,
        }
    }
}

fn mark_overlay(node: &mut Node) {
    for origin in [&mut node.key, &mut node.origin] {
        if let Origin::File { overlay, .. } = origin {
            *overlay = true;
        }
    }
    match &mut node.kind {
        Kind::Array(items) => items.iter_mut().for_each(mark_overlay),
        Kind::Table(entries) => entries.iter_mut().for_each(|(_, entry)| mark_overlay(entry)),
        _ => {}
    }
}

fn merge(base: &mut Node, over: Node, within: &str, name: &str) {
    match (&mut base.kind, over.kind) {
        (Kind::Table(entries), Kind::Table(added)) if !is_source(within, name) => {
            for (key, node) in added {
                match entries.iter_mut().find(|(existing, _)| *existing == key) {
                    Some((_, existing)) => merge(existing, node, name, &key),
                    None => entries.push((key, node)),
                }
            }
        }
        (_, kind) => *base = Node { kind, ..over },
    }
}

/// `scheme://user:password@host`
pub fn has_password(text: &str) -> bool {
    text.split_once("://")
        .and_then(|(_, rest)| rest.split(['/', '?', '#']).next())
        .and_then(|authority| authority.rsplit_once('@'))
        .is_some_and(|(user, _)| user.contains(':'))
}

impl Source<'_> {
    /// A finding at a place.
    #[must_use]
    pub fn at(&self, origin: &Origin, message: &str, help: Option<String>) -> Diagnostic {
        let mut diagnostic = Diagnostic { help, ..Diagnostic::unplaced(self.name, message) };
        match origin {
            Origin::Variable(name) => diagnostic.file = format!("environment variable {name}"),
            Origin::File { span, .. } => self.point(&mut diagnostic, span),
        }
        diagnostic
    }

    fn point(&self, diagnostic: &mut Diagnostic, span: &Range<usize>) {
        let start = span.start.min(self.text.len());
        let before = self.text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = self.text.get(start..).and_then(|rest| rest.find('\n')).map_or(self.text.len(), |at| start + at);
        let count = |range: Range<usize>| self.text.get(range).map_or(0, |text| text.chars().count());
        diagnostic.line = before.matches('\n').count() + 1;
        diagnostic.column = count(line_start..start) + 1;
        diagnostic.width = count(start..span.end.clamp(start, line_end)).max(1);
        diagnostic.source_line = Some(self.line(line_start..line_end));
    }

    /// The line of the file, with dots for what must not be shown.
    fn line(&self, range: Range<usize>) -> String {
        let text = self.text.get(range.clone()).unwrap_or_default();
        let hidden = |at: usize| self.sensitive.iter().any(|span| span.contains(&(range.start + at)));
        let shown: String = text
            .char_indices()
            .map(|(at, character)| if hidden(at) && !matches!(character, '"' | '\'') { '•' } else { character })
            .collect();
        if self.torn { hide_unparsed(&shown, self.stands_in_headers(range.start)) } else { shown }
    }

    /// Whether the last `[section]` above is one of header fields.
    fn stands_in_headers(&self, at: usize) -> bool {
        let above = self.text.get(..at).unwrap_or_default();
        let section = above.lines().rev().map(str::trim).find(|line| line.starts_with('['));
        section.is_some_and(|line| keys_end_in(line.trim_matches(['[', ']', ' ']), |key| key == "headers"))
    }

    /// The line a place stands on, from 1; `None` for a variable.
    #[must_use]
    pub fn line_of(&self, origin: &Origin) -> Option<usize> {
        match origin {
            Origin::File { span, .. } => Some(self.text.get(..span.start)?.matches('\n').count() + 1),
            Origin::Variable(_) => None,
        }
    }
}

/// Whether the last of dotted keys is one of these, in lower case.
fn keys_end_in(keys: &str, is_one: impl Fn(&str) -> bool) -> bool {
    let key = keys.rsplit(['.', '{', '[', ',']).next().unwrap_or_default();
    is_one(&key.trim().trim_matches(['"', '\'']).to_ascii_lowercase())
}

/// Where the parser gave up not every value has a span: hide whatever follows a secret's key in the clear, and all that
/// follows `headers`.
fn hide_unparsed(line: &str, in_headers: bool) -> String {
    let mut from = None;
    for (at, _) in line.match_indices('=') {
        let (before, value) = line.split_at(at);
        let value = value.trim_start_matches('=').trim_start();
        let names_a_source = value.starts_with('{') || value.starts_with("[{");
        let is_secret = keys_end_in(before, is_secret_key) && !names_a_source;
        if in_headers || is_secret || keys_end_in(before, |key| key == "headers") {
            from = Some(at + 1);
            break;
        }
    }
    // In a section of header fields a line without a key is the rest of a value.
    let from = from.or_else(|| (in_headers && !line.contains('=')).then_some(0));
    let login = || line.find("://").filter(|_| has_password(line)).map(|at| at + "://".len());
    let Some((before, value)) = from.or_else(login).and_then(|at| line.split_at_checked(at)) else {
        return line.to_owned();
    };
    let dots: String =
        value.chars().map(|c| if c.is_whitespace() || matches!(c, '"' | '\'') { c } else { '•' }).collect();
    format!("{before}{dots}")
}
