//! `import`: what another service routes by becomes `[[route]]`s; what can't be carried over is told, each with its line.
//!
//! One file for each service reads its export into [`Carried`]; this one makes configuration of it. Nothing is looked up.

mod cloudflare;
mod forwardemail;
mod json;
mod mailgun;
mod postfix;

use std::collections::BTreeSet;
use std::path::Path;

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::args::{Common, Import, ImportFrom};
use super::configured;
use super::print::{self, GOOD, Painted};
use super::{Done, Failure};
use crate::config::Config;
use crate::config::leaf::{DomainName, Endpoint, Leaf};
use crate::config::load::{self, Reading};
use crate::config::route::{Pattern, Text};
use crate::diagnostic::{Diagnostic, Severity};
use crate::mail::Address;
use crate::mail::field::is_name;

/// Octets of an export.
const MAX_FILE: u64 = 16 << 20;
/// Characters of another's words in a comment.
const MAX_COMMENT: usize = 120;

/// What an export says, as far as it can be said here.
#[derive(Default)]
pub struct Carried {
    /// In the order in which they apply.
    pub routes: Vec<Route>,
    pub domains: BTreeSet<String>,
    /// Line and what isn't carried over.
    pub left: Vec<(usize, String)>,
}

/// One route to be written.
#[derive(Clone, Default)]
pub struct Route {
    pub line: usize,
    /// What it was called there.
    pub name: String,
    /// `None`: all of the domains.
    pub matches: Option<Vec<String>>,
    pub headers: Vec<(String, String)>,
    pub unless_match: Vec<String>,
    pub unless_headers: Vec<(String, String)>,
    pub action: &'static str,
    pub to: Vec<String>,
    pub stop: bool,
    pub enabled: bool,
}

impl Carried {
    /// An export of many rules comes in pages, and one page looks like all of them.
    fn complete(&mut self, text: &str, here: usize) {
        let here = u64::try_from(here).unwrap_or(u64::MAX);
        if let Some(total) = json::total(text).filter(|total| *total > here) {
            let what =
                format!("{} of {total} rules: this is one page, get the others and import them, too", total - here);
            self.leave(1, what);
        }
    }

    pub fn leave(&mut self, line: usize, what: impl Into<String>) {
        self.left.push((line, what.into()));
    }

    /// What is done with this mail isn't carried over; whose it is, is.
    pub fn leave_to_worker(&mut self, route: &Route, what: &str) {
        self.leave(route.line, format!("{what}: the route hands its mail to this domain's worker"));
        self.routes.push(Route { action: "worker", stop: true, ..route.clone() });
    }

    /// An address of ours, and so its domain.
    pub fn own(&mut self, address: &str) {
        let domain = Address::parse(address).ok().and_then(|address| DomainName::parse(&address.domain_key()).ok());
        self.domains.extend(domain.map(|domain| domain.0));
    }

    /// A domain of ours, if it is one.
    pub fn own_domain(&mut self, line: usize, name: &str) -> bool {
        let parsed = DomainName::parse(name);
        match &parsed {
            Ok(domain) => _ = self.domains.insert(domain.0.clone()),
            Err(_) => self.leave(line, format!("{name:?} is no domain")),
        }
        parsed.is_ok()
    }

    /// What no configuration takes is left: another's words make no route that `check` refuses.
    fn leave_what_is_none(&mut self) {
        for route in std::mem::take(&mut self.routes) {
            match fault(&route) {
                Some(why) => self.leave(route.line, why),
                None => self.routes.push(route),
            }
        }
    }

    /// What one rule does, split by kind: addresses, URLs, and whether it is kept; all but the last go on. One that settles
    /// its mail and of which nothing is left hands it to the worker, so that no later rule takes what was never its own.
    pub fn add(&mut self, route: &Route, targets: &[String], store: bool) {
        let (urls, addresses): (Vec<String>, Vec<String>) = targets.iter().cloned().partition(|to| to.contains("://"));
        let mut parts: Vec<(&'static str, Vec<String>)> = Vec::new();
        for (action, to) in [("forward", addresses), ("webhook", urls)] {
            if !to.is_empty() {
                parts.push((action, to));
            }
        }
        if store {
            parts.push(("store", Vec::new()));
        }
        if parts.is_empty() && route.stop {
            return self.leave_to_worker(route, "all that this rule does");
        }
        let last = parts.len().saturating_sub(1);
        for (at, (action, to)) in parts.into_iter().enumerate() {
            self.routes.push(Route { action, to, stop: at == last && route.stop, ..route.clone() });
        }
    }
}

pub fn run(common: &Common, options: &Import) -> Done {
    let text = read(&options.file)?;
    let file = options.file.display().to_string();
    let carried = carried(&text, options)
        .map_err(|(line, what)| Failure::Configuration(vec![finding(&file, &text, line, what, Severity::Error)]))?;
    let left: Vec<Diagnostic> = carried
        .left
        .iter()
        .map(|(line, what)| finding(&file, &text, *line, format!("not carried over: {what}"), Severity::Warning))
        .collect();
    print::diagnostics(&left);
    if carried.routes.is_empty() {
        return Err(Failure::Failed(format!("{file}: nothing in it can be carried over")));
    }
    let told = format!("{} of {file}", print::count(carried.routes.len() as u64, "route"));
    if !options.write {
        let document = document(DocumentMut::new(), &carried, options, None)?;
        return print::line(format_args!("{}", document.to_string().trim_end()));
    }
    let found = configured::options(common);
    let loaded = Config::load(&load::Options { secrets: Reading::Wanted, ..found }).map_err(Failure::Configuration)?;
    let before = std::fs::read_to_string(&loaded.file).map_err(|error| unreadable(&loaded.file, &error))?;
    let parsed: DocumentMut = before.parse().map_err(Failure::failed)?;
    let after = document(parsed, &carried, options, Some(&loaded.config))?.to_string();
    let name = loaded.file.display().to_string();
    let base = loaded.file.parent().unwrap_or(Path::new("."));
    let check = load::Options { secrets: Reading::Wanted, ..configured::options(common) };
    Config::from_toml(&after, &name, base, &check).map_err(Failure::Configuration)?;
    replace(&loaded.file, &after)?;
    print::line(format_args!("{}: {told} in {name}; see it with mailworker check", Painted(GOOD, "written")))
}

/// What the export's text says.
///
/// # Errors
/// It is no such export: the line, and why.
pub fn carried(text: &str, options: &Import) -> Result<Carried, json::Wrong> {
    let mut carried = match options.from {
        ImportFrom::Cloudflare => cloudflare::read(text)?,
        ImportFrom::Mailgun => mailgun::read(text)?,
        ImportFrom::Forwardemail => forwardemail::read(text, options.domain.as_deref())?,
        ImportFrom::PostfixVirtual => postfix::read(text, options.domain.as_deref()),
    };
    carried.leave_what_is_none();
    Ok(carried)
}

/// Why no configuration takes the route.
fn fault(route: &Route) -> Option<String> {
    let what = |text: &str, why: String| format!("{text:?}: {}", why.lines().next().unwrap_or_default());
    let pattern = |text: &String| {
        let domain = text.rsplit_once('@').map(|(_, domain)| domain).filter(|domain| *domain != "*");
        let domain = domain.filter(|_| !text.starts_with('/'));
        let wrong = Pattern::parse(text).err().or_else(|| DomainName::parse(domain?).err());
        wrong.map(|why| what(text, why))
    };
    let field = |(name, text): &(String, String)| {
        let named = (!is_name(name)).then(|| "this is no name of a header field".to_owned());
        named.map(|why| what(name, why)).or_else(|| Text::parse(text).err().map(|why| what(text, why)))
    };
    let url = |to: &String| Endpoint::parse(to).err().map(|why| what(to, why));
    let urls = route.to.iter().filter(|_| route.action == "webhook");
    (route.matches.iter().flatten().chain(&route.unless_match).find_map(pattern))
        .or_else(|| route.headers.iter().chain(&route.unless_headers).find_map(field))
        .or_else(|| urls.into_iter().find_map(url))
}

fn read(path: &Path) -> Result<String, Failure> {
    let size = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
    if size > MAX_FILE {
        return Err(Failure::Failed(format!("{}: {size} octets are more than any export has", path.display())));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("{} can't be read: {error}", path.display()))
}

/// Whole or not at all: whoever watches the file never sees a half. A link stays one; what it leads to is replaced.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let named = |error: std::io::Error| Failure::Failed(format!("{} can't be written: {error}", path.display()));
    let target = std::fs::canonicalize(path).map_err(named)?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let beside = target.with_file_name(format!(".{name}.{}", std::process::id()));
    std::fs::write(&beside, text).map_err(named)?;
    let mode = std::fs::metadata(&target).map_err(named)?.permissions();
    std::fs::set_permissions(&beside, mode).map_err(named)?;
    std::fs::rename(&beside, &target).map_err(named)
}

fn finding(file: &str, text: &str, line: usize, message: String, severity: Severity) -> Diagnostic {
    let source_line = line.checked_sub(1).and_then(|before| text.lines().nth(before)).map(str::to_owned);
    let column = source_line.as_ref().map_or(0, |line| line.len() - line.trim_start().len() + 1);
    Diagnostic { severity, line, column, source_line, ..Diagnostic::unplaced(file, message) }
}

/// The document with the routes, and with the domains that `config` hasn't.
///
/// # Errors
/// Nobody is named who reads the mail of new domains' postmasters, or the document has lists of another form.
pub fn document(
    mut document: DocumentMut,
    carried: &Carried,
    options: &Import,
    config: Option<&Config>,
) -> Result<DocumentMut, Failure> {
    let mut domains = carried.domains.clone();
    domains.extend(options.domain.iter().map(|domain| domain.to_lowercase()));
    let new: Vec<&String> =
        domains.iter().filter(|domain| config.is_none_or(|config| config.domain_by_key(domain).is_none())).collect();
    let from_config = || config.and_then(|config| config.domains.first()).map(|domain| domain.postmaster.to_string());
    let elsewhere = |to: &&String| Address::parse(to).is_ok_and(|to| !domains.contains(&to.domain_key()));
    let from_routes = || carried.routes.iter().flat_map(|route| &route.to).find(elsewhere).cloned();
    let given = options.postmaster.as_ref().map(ToString::to_string);
    let postmaster = given.clone().or_else(from_config).or_else(from_routes);
    if !new.is_empty() {
        let Some(postmaster) = postmaster else {
            return Err(Failure::Usage(
                "--postmaster ADDRESS: who reads the mail for the domains' postmaster?".to_owned(),
            ));
        };
        let list = document.entry("domain").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        let Some(list) = list.as_array_of_tables_mut() else {
            return Err(Failure::failed("`domain` is written as a list in one line: write it as [[domain]]"));
        };
        for domain in new {
            let mut table = Table::new();
            table.insert("name", value(domain.as_str()));
            table.insert("postmaster", value(postmaster.as_str()));
            if given.is_none() {
                table.decor_mut().set_prefix("\n# Its postmaster must be somebody who reads it: see that it is.\n");
            }
            list.push(table);
        }
    }
    let everybody: Vec<String> = domains.iter().map(|domain| format!("*@{domain}")).collect();
    let list = document.entry("route").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let Some(list) = list.as_array_of_tables_mut() else {
        return Err(Failure::failed("`route` is written as a list in one line: write it as [[route]]"));
    };
    for route in &carried.routes {
        list.push(table(route, &everybody));
    }
    Ok(document)
}

fn table(route: &Route, everybody: &[String]) -> Table {
    let mut table = Table::new();
    let name: String = route.name.chars().filter(|letter| !letter.is_control()).take(MAX_COMMENT).collect();
    let name = if name.is_empty() { String::new() } else { format!(": {name}") };
    table.decor_mut().set_prefix(format!("\n# line {}{name}\n", route.line));
    let matches = route.matches.as_deref().unwrap_or(if everybody.is_empty() { &[] } else { everybody });
    match matches {
        [] if route.headers.is_empty() => table.insert("match", value("*@*")),
        [] => None,
        [one] => table.insert("match", value(one.as_str())),
        several => table.insert("match", value(several.iter().collect::<Array>())),
    };
    if !route.headers.is_empty() {
        table.insert("header", fields(&route.headers));
    }
    if !route.unless_match.is_empty() || !route.unless_headers.is_empty() {
        let mut unless = toml_edit::InlineTable::new();
        if !route.unless_match.is_empty() {
            unless.insert("match", route.unless_match.iter().collect::<Array>().into());
        }
        if let (false, Item::Value(fields)) = (route.unless_headers.is_empty(), fields(&route.unless_headers)) {
            unless.insert("header", fields);
        }
        table.insert("unless", value(unless));
    }
    table.insert("action", value(route.action));
    if !route.to.is_empty() {
        table.insert("to", value(route.to.iter().collect::<Array>()));
    }
    if !route.stop && matches!(route.action, "forward" | "webhook" | "store") {
        table.insert("stop", value(false));
    }
    if !route.enabled {
        table.insert("enabled", value(false));
    }
    table
}

fn fields(fields: &[(String, String)]) -> Item {
    let mut table = toml_edit::InlineTable::new();
    for (name, text) in fields {
        table.insert(name, text.as_str().into());
    }
    value(table)
}

/// Whether mail can be forwarded there; what is wrong otherwise.
pub fn target(text: &str) -> Result<String, String> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return match url::Url::parse(text) {
            Ok(url) if url.username().is_empty() && url.password().is_none() => Ok(text.to_owned()),
            Ok(_) => Err("a URL with a login: give it as a [[webhook]] with `headers`".to_owned()),
            Err(error) => Err(format!("{text:?} is no URL: {error}")),
        };
    }
    Address::parse(text).map(|_| text.to_owned()).map_err(|error| format!("{text:?} is no address: {error}"))
}
