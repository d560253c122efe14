//! Mailgun's routes as its API lists them (`GET /v3/routes`): filters of regular expressions, and actions.

use std::collections::BTreeSet;

use serde_json::Value;

use super::json::{self, Wrong};
use super::{Carried, Route, target};
use crate::mail::Address;

pub fn read(text: &str) -> Result<Carried, Wrong> {
    let mut carried = Carried::default();
    let mut routes = json::items(text, &["items", "route"])?;
    carried.complete(text, routes.len());
    json::by_priority(&mut routes);
    for (line, route) in &routes {
        carry(&mut carried, *line, route);
    }
    without_the_taken(&mut carried);
    if carried.routes.last().is_some_and(|last| !last.stop) {
        let line = carried.routes.last().map_or(1, |last| last.line);
        let what =
            "the end of the list: Mailgun does nothing more there, here the worker decides after routes that go on";
        carried.leave(line, what);
    }
    Ok(carried)
}

/// `catch_all()` is for what no route before it matched. What stopped is gone by then; what went on is taken out here.
fn without_the_taken(carried: &mut Carried) {
    let mut taken: Vec<String> = Vec::new();
    let mut untold = Vec::new();
    let mut is_narrow = false;
    // One rule may be several routes, of which the last one stops.
    let stops: BTreeSet<usize> = carried.routes.iter().filter(|route| route.stop).map(|route| route.line).collect();
    for route in &mut carried.routes {
        if route.matches.is_none() && route.headers.is_empty() && route.unless_match.is_empty() {
            if is_narrow {
                untold.push(route.line);
            }
            route.unless_match.clone_from(&taken);
        } else if !stops.contains(&route.line) && route.enabled {
            match &route.matches {
                Some(matches) if route.headers.is_empty() && route.unless_match.is_empty() => {
                    taken.extend(matches.iter().filter(|one| !taken.contains(one)).cloned().collect::<Vec<_>>());
                }
                _ => is_narrow = true,
            }
        }
    }
    for line in untold {
        carried.leave(line, "catch_all() for what a route further up matched by a header field, or all but some, and went on with: it gets that, too");
    }
}

fn carry(carried: &mut Carried, line: usize, item: &Value) {
    let expression = json::text(item, "expression");
    let mut route = Route { line, name: json::text(item, "description").to_owned(), enabled: true, ..Route::default() };
    let (mut targets, mut store, mut stop) = (Vec::new(), false, false);
    let actions = json::texts(item, "actions");
    for action in &actions {
        match call(action) {
            Some(("forward", argument)) => {
                for to in argument.split(',').map(str::trim).filter(|to| !to.is_empty()) {
                    match target(to) {
                        _ if to.contains('\\') => carried.leave(line, format!("{to:?}: what a filter captured")),
                        Ok(to) => targets.push(to),
                        Err(why) => carried.leave(line, why),
                    }
                }
            }
            Some(("store", argument)) => {
                store = true;
                let url = unquoted(argument.trim_start_matches("notify").trim_start_matches([' ', '=']));
                if !url.is_empty() {
                    carried.leave(
                        line,
                        format!("the notice to {url}: a route `action = \"webhook\"` sends the whole message"),
                    );
                }
            }
            Some(("stop", _)) => stop = true,
            _ => carried.leave(line, format!("the action {action:?}")),
        }
    }
    route.stop = stop;
    let only_stops = stop && actions.iter().all(|action| matches!(call(action), Some(("stop", _))));
    let branches = match filters(expression) {
        Ok(branches) => branches,
        Err(why) => return carried.leave(line, why),
    };
    if branches.len() > 1 && !stop {
        return carried.leave(line, "`or` without stop(): two routes that go on would do it twice");
    }
    for branch in branches {
        let mut route = route.clone();
        if let Err(why) = branch.iter().try_for_each(|filter| narrow(&mut route, filter)) {
            carried.leave(line, why);
            continue;
        }
        for one in route.matches.iter().flatten() {
            carried.own(one);
            if let Some(domain) = one.strip_prefix("*@").filter(|domain| *domain != "*") {
                carried.own_domain(line, domain);
            }
        }
        // Whoever stops and does nothing else throws away; whoever did something that isn't carried over doesn't.
        if only_stops {
            carried.routes.push(Route { action: "drop", ..route });
        } else {
            carried.add(&route, &targets, store);
        }
    }
}

/// `name("argument")`
fn call(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.trim().split_once('(')?;
    Some((name.trim(), unquoted(rest.trim_end().strip_suffix(')')?)))
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches(['"', '\''])
}

/// One test of a message.
struct Filter {
    not: bool,
    name: String,
    arguments: Vec<String>,
}

/// Tests that are joined by `and`, those by `or` apart.
fn filters(expression: &str) -> Result<Vec<Vec<Filter>>, String> {
    let mut branches = vec![Vec::new()];
    let mut rest = expression.trim();
    let mut not = false;
    while !rest.is_empty() {
        let word: String = rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
        let after = rest.get(word.len()..).unwrap_or_default().trim_start();
        match word.as_str() {
            "and" => rest = after,
            "or" => {
                branches.push(Vec::new());
                rest = after;
            }
            "not" => (not, rest) = (!not, after),
            name @ ("match_recipient" | "match_header" | "catch_all") => {
                let (arguments, after) = arguments(after).ok_or_else(|| format!("the filter {expression:?}"))?;
                if let Some(branch) = branches.last_mut() {
                    branch.push(Filter { not, name: name.to_owned(), arguments });
                }
                (not, rest) = (false, after.trim_start());
            }
            _ => return Err(format!("the filter {expression:?}")),
        }
    }
    if branches.iter().any(Vec::is_empty) { Err(format!("the filter {expression:?}")) } else { Ok(branches) }
}

/// `("a", 'b') …`: the texts in brackets, and what follows.
fn arguments(text: &str) -> Option<(Vec<String>, &str)> {
    let mut found = Vec::new();
    let mut rest = text.strip_prefix('(')?.trim_start();
    while let Some(quote) = rest.chars().next().filter(|letter| matches!(letter, '"' | '\'')) {
        let inner = rest.get(1..)?;
        let end = inner.find(quote)?;
        found.push(inner.get(..end)?.to_owned());
        rest = inner.get(end + 1..)?.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Some((found, rest.strip_prefix(')')?))
}

fn narrow(route: &mut Route, filter: &Filter) -> Result<(), String> {
    let has_unless = !route.unless_match.is_empty() || !route.unless_headers.is_empty();
    if filter.not && has_unless {
        return Err("two `not`s: `unless` holds where all of it does".to_owned());
    }
    match (filter.name.as_str(), filter.arguments.as_slice()) {
        ("catch_all", _) if !filter.not => Ok(()),
        ("match_recipient", [regex]) => {
            let pattern = recipients(regex)?;
            if filter.not {
                route.unless_match.push(pattern);
            } else if route.matches.replace(vec![pattern]).is_some() {
                return Err("two recipients that must both match".to_owned());
            }
            Ok(())
        }
        ("match_header", [name, regex]) => {
            let regex = checked(regex)?;
            let fields = if filter.not { &mut route.unless_headers } else { &mut route.headers };
            if fields.iter().any(|(field, _)| field.eq_ignore_ascii_case(name)) {
                return Err(format!("two patterns for the field {name}"));
            }
            fields.push((name.clone(), format!("/{regex}/")));
            Ok(())
        }
        (name, _) => Err(format!("the filter {}{name}", if filter.not { "not " } else { "" })),
    }
}

/// A regular expression that means one address or all of a domain is written as such.
fn recipients(regex: &str) -> Result<String, String> {
    let plain = regex.trim_start_matches('^').trim_end_matches('$').replace("\\.", ".").replace("\\+", "+");
    let is_plain = |text: &str| text.chars().all(|letter| letter.is_alphanumeric() || "@._-+".contains(letter));
    if let Some(domain) = plain.strip_prefix(".*@").or_else(|| plain.strip_prefix(".+@"))
        && is_plain(domain)
        && Address::parse(&format!("x@{domain}")).is_ok()
    {
        return Ok(format!("*@{domain}"));
    }
    if is_plain(&plain) && !regex.contains('+') && Address::parse(&plain).is_ok() {
        return Ok(plain);
    }
    let regex = checked(regex)?;
    Ok(if regex.starts_with(['^', '.', '(']) { format!("/{regex}/") } else { format!("/^{regex}/") })
}

fn checked(regex: &str) -> Result<String, String> {
    let regex = regex.replace("\\\\", "\\");
    match regex::Regex::new(&regex) {
        Ok(_) => Ok(regex),
        Err(error) => {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
            Err(format!("the regular expression {regex:?}: {why}"))
        }
    }
}
