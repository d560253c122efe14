//! Who imports whom: paths that lead nowhere, circles, and the order in which modules are evaluated.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{ASTNode, Expr, Position, Stmt};

use super::Scripts;
use super::finding::Findings;
use crate::diagnostic::suggest;
use crate::rules::modules::resolve;

/// One `import`, as far as it leads somewhere.
#[derive(Debug, Clone)]
pub struct Import {
    /// As written.
    pub path: String,
    /// What the module is called in the file; empty without `as`.
    pub alias: String,
    /// The file it means.
    pub file: String,
    pub at: Position,
}

/// Every file with what it imports.
pub type Graph = BTreeMap<String, Vec<Import>>;

pub fn graph(scripts: &Scripts, sources: &BTreeMap<String, String>, findings: &mut Findings) -> Graph {
    let mut graph = Graph::new();
    for (file, script) in scripts {
        let imports = graph.entry(file.clone()).or_default();
        script.walk(&mut |path| {
            if let Some(ASTNode::Stmt(Stmt::Import(import, at))) = path.last() {
                let (path, alias) = &**import;
                if let Expr::StringConstant(path, position) = path {
                    if let Some(found) = lookup(file, path, *position, sources, findings) {
                        let (path, alias) = (path.to_string(), alias.name.to_string());
                        imports.push(Import { path, alias, file: found, at: *position });
                    }
                } else {
                    let help = Some("import \"lib/spam\" as spam;".to_owned());
                    findings.error(file, *at, 6, "a module's path is a string as it stands".to_owned(), help);
                }
            }
            true
        });
    }
    graph
}

fn lookup(
    importer: &str,
    path: &str,
    at: Position,
    sources: &BTreeMap<String, String>,
    findings: &mut Findings,
) -> Option<String> {
    let width = path.chars().count() + 2;
    match resolve(importer, path, sources) {
        Ok(Some(file)) => return Some(file.to_owned()),
        Ok(None) => {
            let modules: Vec<&str> = sources
                .keys()
                .filter(|file| *file != importer)
                .map(|file| from(importer, file).trim_end_matches(".rhai"))
                .collect();
            let help = suggest(path, modules.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
            let help = help.or_else(|| (!modules.is_empty()).then(|| format!("there are: {}", modules.join(", "))));
            findings.error(importer, at, width, format!("no module \"{path}\""), help);
        }
        Err(why) => findings.error(importer, at, width, why, None),
    }
    None
}

/// A file as it is imported: by its path below the importer's folder, or below the nearest one above that it lies in.
fn from<'a>(importer: &str, file: &'a str) -> &'a str {
    let mut folder = importer;
    while let Some((above, _)) = folder.rsplit_once('/') {
        if let Some(path) = file.strip_prefix(above).and_then(|rest| rest.strip_prefix('/')) {
            return path;
        }
        folder = above;
    }
    file
}

/// The files that the mains come to, themselves included.
pub fn reached<'a>(graph: &'a Graph, mains: &'a [String]) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = mains.iter().map(String::as_str).collect();
    while let Some(file) = open.pop() {
        if reached.insert(file) {
            open.extend(graph.get(file).into_iter().flatten().map(|import| import.file.as_str()));
        }
    }
    reached
}

/// Dependencies first. A circle is an error where it closes.
pub fn order(graph: &Graph, findings: &mut Findings) -> Vec<String> {
    let mut sorted = Sorted { graph, findings, done: BTreeSet::new(), open: Vec::new(), order: Vec::new() };
    for file in graph.keys() {
        sorted.visit(file);
    }
    sorted.order
}

struct Sorted<'a, 'b, 'c> {
    graph: &'a Graph,
    findings: &'b mut Findings<'c>,
    done: BTreeSet<&'a str>,
    open: Vec<&'a str>,
    order: Vec<String>,
}

/// Imports inside each other.
const MAX_CHAIN: usize = 64;

impl<'a> Sorted<'a, '_, '_> {
    fn visit(&mut self, file: &'a str) {
        if self.done.contains(file) {
            return;
        }
        self.open.push(file);
        for import in self.graph.get(file).into_iter().flatten() {
            let target = import.file.as_str();
            if let Some(from) = self.open.iter().position(|open| *open == target) {
                let mut circle: Vec<&str> = self.open.iter().skip(from).copied().collect();
                circle.push(target);
                let message = format!("imports go in a circle: {}", circle.join(" ─► "));
                let help = Some("move what both need into a module of its own".to_owned());
                self.findings.error(file, import.at, import.path.chars().count() + 2, message, help);
            } else if self.open.len() >= MAX_CHAIN {
                let message = format!("imports are nested deeper than {MAX_CHAIN}");
                self.findings.error(file, import.at, 1, message, None);
            } else {
                self.visit(target);
            }
        }
        self.open.pop();
        self.done.insert(file);
        self.order.push(file.to_owned());
    }
}
