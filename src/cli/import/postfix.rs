//! Postfix's `virtual_alias_maps` of the type hash or texthash: virtual(5).

use std::collections::{BTreeMap, BTreeSet};

use super::{Carried, Route, target};
use crate::mail::Address;

/// Aliases that lead to aliases.
const MAX_DEPTH: usize = 20;

/// An address, a name or an `@domain`, with its line and what it leads to.
type Table = BTreeMap<String, (usize, Vec<String>)>;

pub fn read(text: &str) -> Carried {
    let mut carried = Carried::default();
    let (table, order) = table(text, &mut carried);
    // virtual(5): user@domain before user before @domain.
    for kind in [Kind::Address, Kind::User, Kind::Domain] {
        for key in order.iter().filter(|key| Kind::of(key) == kind) {
            if let Some((line, _)) = table.get(key) {
                carry(&mut carried, *line, key, &table);
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
            carried.domains.insert(key);
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

fn carry(carried: &mut Carried, line: usize, key: &str, table: &Table) {
    let pattern = match Kind::of(key) {
        Kind::Address => key.to_owned(),
        Kind::User => format!("{key}@*"),
        Kind::Domain => format!("*{key}"),
    };
    if Address::parse(&pattern.replace("@*", "@example").replace('*', "x")).is_err() {
        return carried.leave(line, format!("{key:?} is no address"));
    }
    match Kind::of(key) {
        Kind::Address => carried.own(key),
        Kind::Domain => {
            carried.domains.insert(key.trim_start_matches('@').to_owned());
        }
        Kind::User => {}
    }
    let mut targets = BTreeSet::new();
    expand(carried, line, key, table, 0, &mut targets);
    let targets: Vec<String> = targets.into_iter().collect();
    let route = Route { line, matches: Some(vec![pattern]), stop: true, enabled: true, ..Route::default() };
    carried.add(&route, &targets, false);
}

/// What a key leads to in the end, as Postfix follows its own aliases.
fn expand(carried: &mut Carried, line: usize, key: &str, table: &Table, depth: usize, into: &mut BTreeSet<String>) {
    let Some((_, to)) = table.get(key).filter(|_| depth < MAX_DEPTH) else {
        return carried.leave(line, format!("{key:?} leads in a circle"));
    };
    for to in to {
        let next = to.to_lowercase();
        if next == key {
            carried.leave(
                line,
                format!("{to:?} stays in its own mailbox: name a [[destination]] for it, as in `lmtp://…`"),
            );
        } else if let Some(domain) = next.strip_prefix('@') {
            carried.leave(line, format!("{to:?}: the same name at {domain} is for the worker: message.forward(message.to.local + \"@{domain}\")"));
        } else if table.contains_key(&next) {
            expand(carried, line, &next, table, depth + 1, into);
        } else if to.contains('@') {
            match target(to) {
                Ok(to) => {
                    into.insert(to);
                }
                Err(why) => carried.leave(line, why),
            }
        } else {
            carried.leave(line, format!("{to:?} is a user of that machine: give the address"));
        }
    }
}
