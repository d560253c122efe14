//! Postfix's `virtual_alias_maps` of the type hash or texthash: virtual(5).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::{Carried, Route, target};
use crate::mail::Address;

/// Aliases that lead to aliases.
const MAX_DEPTH: usize = 20;

/// An address, a name or an `@domain`, with its line and what it leads to.
type Table = BTreeMap<String, (usize, Vec<String>)>;

/// `domain`: the machine's own, which names without a domain are of.
pub fn read(text: &str, domain: Option<&str>) -> Carried {
    let mut carried = Carried::default();
    let (table, order) = table(text, &mut carried);
    let (table, order) = qualified(&mut carried, table, order, domain);
    // virtual(5): user@domain before @domain.
    for kind in [Kind::Address, Kind::Domain] {
        for key in order.iter().filter(|key| Kind::of(key) == kind) {
            if let Some((line, _)) = table.get(key) {
                carry(&mut carried, *line, key, &table, domain);
            }
        }
    }
    carried
}

#[derive(PartialEq, Clone, Copy)]
enum Kind {
    Address,
    User,
    Domain,
}

impl Kind {
    fn of(key: &str) -> Self {
        match key.find('@') {
            Some(0) => Self::Domain,
            Some(_) => Self::Address,
            None => Self::User,
        }
    }
}

/// Lines that begin with a blank go on with the one before; what follows a `#` at a line's start is a comment.
fn table(text: &str, carried: &mut Carried) -> (Table, Vec<String>) {
    let mut logical: Vec<(usize, String)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match logical.last_mut().filter(|_| line.starts_with([' ', '\t'])) {
            Some((_, before)) => {
                before.push(' ');
                before.push_str(line.trim());
            }
            None => logical.push((at + 1, line.trim().to_owned())),
        }
    }
    let (mut table, mut order) = (Table::new(), Vec::new());
    for (line, text) in logical {
        let (key, right) = text.split_once([' ', '\t']).unwrap_or((text.as_str(), ""));
        let key = key.to_lowercase();
        let to: Vec<String> = right.split([',', ' ', '\t']).filter(|to| !to.is_empty()).map(str::to_owned).collect();
        if to.is_empty() {
            carried.leave(line, format!("{key:?} leads nowhere"));
        } else if Kind::of(&key) == Kind::User && key.contains('.') && to.iter().all(|to| !to.contains('@')) {
            // `example.com anything`: a domain of aliases.
            carried.own_domain(line, &key);
        } else if key.starts_with(['/', '!']) || key == "if" || key == "endif" {
            carried.leave(line, "a line of a regexp or pcre table: only literal tables are read");
        } else if table.insert(key.clone(), (line, to)).is_some() {
            carried.leave(line, format!("{key:?} stands further up, too: the last one counts here"));
        } else {
            order.push(key);
        }
    }
    (table, order)
}

/// virtual(5): a name without a domain is of the machine's own domains, and gives way to an address that is written out.
/// Where none is given it is followed, but no mail comes for it.
fn qualified(carried: &mut Carried, table: Table, order: Vec<String>, domain: Option<&str>) -> (Table, Vec<String>) {
    let Some(domain) = domain else {
        for (key, (line, _)) in table.iter().filter(|(key, _)| Kind::of(key) == Kind::User) {
            let why = "a name without a domain is for the machine's own ($myorigin, $mydestination)";
            carried.leave(*line, format!("{key:?}: {why}: tell it with --domain NAME"));
        }
        return (table, order);
    };
    let mut whole: Table =
        table.iter().filter(|(key, _)| key.contains('@')).map(|(k, to)| (k.clone(), to.clone())).collect();
    for (key, to) in table.into_iter().filter(|(key, _)| Kind::of(key) == Kind::User) {
        match whole.entry(address_of(&key, domain)) {
            Entry::Occupied(taken) => {
                let what = format!("{} stands in the table as an address, too, which comes first", taken.key());
                carried.leave(to.0, what);
            }
            Entry::Vacant(free) => _ = free.insert(to),
        }
    }
    let mut seen = BTreeSet::new();
    (whole, order.iter().map(|key| address_of(key, domain)).filter(|key| seen.insert(key.clone())).collect())
}

fn address_of(name: &str, domain: &str) -> String {
    if name.contains('@') { name.to_owned() } else { format!("{name}@{}", domain.to_lowercase()) }
}

fn carry(carried: &mut Carried, line: usize, key: &str, table: &Table, domain: Option<&str>) {
    let pattern = if Kind::of(key) == Kind::Domain { format!("*{key}") } else { key.to_owned() };
    if Address::parse(&pattern.replace('*', "x")).is_err() {
        return carried.leave(line, format!("{key:?} is no address"));
    }
    match key.strip_prefix('@') {
        Some(name) if !carried.own_domain(line, name) => return,
        Some(_) => {}
        None => carried.own(key),
    }
    let mut targets = BTreeSet::new();
    expand(carried, (line, domain), key, table, 0, &mut targets);
    let targets: Vec<String> = targets.into_iter().collect();
    let route = Route { line, matches: Some(vec![pattern]), stop: true, enabled: true, ..Route::default() };
    carried.add(&route, &targets, false);
}

/// What a key leads to in the end, as Postfix follows its own aliases.
fn expand(
    carried: &mut Carried,
    (line, domain): (usize, Option<&str>),
    key: &str,
    table: &Table,
    depth: usize,
    into: &mut BTreeSet<String>,
) {
    let Some((_, to)) = table.get(key).filter(|_| depth < MAX_DEPTH) else {
        return carried.leave(line, format!("{key:?} leads in a circle"));
    };
    for to in to {
        let to = domain.map_or_else(|| to.clone(), |domain| address_of(to, domain));
        let next = to.to_lowercase();
        if next == key {
            carried.leave(
                line,
                format!("{to:?} stays in its own mailbox: name a [[destination]] for it, as in `lmtp://…`"),
            );
        } else if let Some(name) = next.strip_prefix('@') {
            carried.leave(
                line,
                format!(
                    "{to:?}: the same name at {name} is for the worker: message.forward(message.to.local + \"@{name}\")"
                ),
            );
        } else if let Some(next) = listed(&next, key, table) {
            expand(carried, (line, domain), &next, table, depth + 1, into);
        } else if to.contains('@') {
            match target(&to) {
                Ok(to) => {
                    into.insert(to);
                }
                Err(why) => carried.leave(line, why),
            }
        } else {
            let why = "a name without a domain is for a user of the machine";
            carried.leave(line, format!("{to:?}: {why}: tell it with --domain NAME, or give the address"));
        }
    }
}

/// What the table itself has for an address: that one, else all of its domain.
fn listed(address: &str, asking: &str, table: &Table) -> Option<String> {
    if table.contains_key(address) {
        return Some(address.to_owned());
    }
    let all = address.find('@').and_then(|at| address.get(at..)).filter(|all| *all != asking)?;
    table.contains_key(all).then(|| all.to_owned())
}
