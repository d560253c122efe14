//! Forward Email: aliases as its API lists them (`GET /v1/domains/NAME/aliases`), or the TXT records `forward-email=…`.

use serde_json::Value;

use super::json::{self, Wrong};
use super::{Carried, Route, target};

pub fn read(text: &str, domain: Option<&str>) -> Result<Carried, Wrong> {
    let mut carried = Carried::default();
    if text.trim_start().starts_with(['[', '{']) {
        for (line, alias) in json::items(text, &["aliases", "results", "name"]).or_else(|wrong| single(text, wrong))? {
            of_api(&mut carried, line, &alias, domain);
        }
    } else {
        for (at, line) in text.lines().enumerate() {
            of_record(&mut carried, at + 1, line, domain);
        }
        if carried.routes.is_empty() && carried.left.is_empty() {
            return Err((1, "there is neither JSON nor a record forward-email=… in it".to_owned()));
        }
    }
    // One address before patterns, patterns before everybody.
    carried.routes.sort_by_key(|route| match route.matches.as_deref() {
        Some([one]) if one.starts_with('/') => 1,
        Some([one]) if one.starts_with("*@") => 2,
        _ => 0,
    });
    Ok(carried)
}

/// One alias alone.
fn single(text: &str, wrong: Wrong) -> Result<Vec<(usize, Value)>, Wrong> {
    match serde_json::from_str::<Value>(text) {
        Ok(alias) if alias.get("name").is_some() => Ok(vec![(1, alias)]),
        _ => Err(wrong),
    }
}

fn of_api(carried: &mut Carried, line: usize, alias: &Value, domain: Option<&str>) {
    let named = alias.get("domain").and_then(|domain| domain.as_str().or_else(|| domain.get("name")?.as_str()));
    let Some(domain) = named.or(domain) else {
        return carried.leave(line, "an alias whose domain isn't told: give --domain NAME");
    };
    let enabled = alias.get("is_enabled").and_then(Value::as_bool).unwrap_or(true);
    let code = alias.get("error_code_if_disabled").and_then(Value::as_i64).unwrap_or(250);
    let refused = match (enabled, code) {
        (true, _) => "",
        (false, 250) => "!",
        (false, 421) => "!!",
        (false, _) => "!!!",
    };
    let name = format!("{refused}{}", json::text(alias, "name"));
    let description = json::text(alias, "description");
    carry(carried, line, description, (&name, domain), &json::texts(alias, "recipients"));
}

/// A record as `dig` or a zone file shows it, or its text alone.
fn of_record(carried: &mut Carried, line: usize, text: &str, domain: Option<&str>) {
    let Some((before, rest)) = text.split_once("forward-email=") else {
        if let Some((_, port)) = text.split_once("forward-email-port=") {
            let port = port.trim().trim_matches('"');
            carried.leave(line, format!("port {port}: [relay] port is for all mail, a [[destination]] for some"));
        }
        return;
    };
    // A text of more than 255 octets is written as several.
    let rest = rest.replace("\" \"", "");
    let rest = rest.trim().trim_end_matches('"');
    let owner =
        before.split_whitespace().next().filter(|word| word.contains('.')).map(|word| word.trim_end_matches('.'));
    let Some(domain) = owner.or(domain) else {
        return carried.leave(line, "a record whose domain isn't told: give --domain NAME");
    };
    let mut merged: Vec<(String, Vec<String>)> = Vec::new();
    for entry in rest.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (name, to) = split(entry);
        match merged.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => all.extend(to),
            None => merged.push((name, to.into_iter().collect())),
        }
    }
    for (name, to) in merged {
        carry(carried, line, "", (&name, domain), &to);
    }
}

/// `alias:target`, `/regex/:target`, `!alias`; a target alone is for everybody.
fn split(entry: &str) -> (String, Option<String>) {
    let after_regex = entry.strip_prefix('/').and_then(|rest| rest.rfind("/:")).map(|at| at + 2);
    let colon =
        after_regex.or_else(|| entry.find(':').filter(|at| !entry.get(*at..).unwrap_or_default().starts_with("://")));
    match colon {
        Some(at) => (entry.get(..at).unwrap_or_default().to_owned(), entry.get(at + 1..).map(str::to_owned)),
        None if entry.starts_with('!') => (entry.to_owned(), None),
        None => ("*".to_owned(), Some(entry.to_owned())),
    }
}

/// `$1`, `$<name>`, `$&`: what is put in for a match.
fn has_capture(to: &str) -> bool {
    to.split('$')
        .skip(1)
        .any(|after| after.starts_with(|next: char| next.is_ascii_digit() || matches!(next, '<' | '&' | '{')))
}

fn carry(carried: &mut Carried, line: usize, about: &str, (name, domain): (&str, &str), to: &[String]) {
    let domain = domain.to_lowercase();
    if !carried.own_domain(line, &domain) {
        return;
    }
    let bare = name.trim_start_matches('!');
    let pattern = if bare == "*" {
        format!("*@{domain}")
    } else if let Some(regex) = bare.strip_prefix('/') {
        let regex = regex.trim_end_matches(['i', 'g', 'm', 'u', 's']).trim_end_matches('/');
        let regex = regex.trim_start_matches('^').trim_end_matches('$');
        if regex::Regex::new(regex).is_err() {
            return carried.leave(line, format!("the regular expression {bare:?}"));
        }
        format!("/^(?:{regex})@{}$/", regex::escape(&domain))
    } else {
        format!("{bare}@{domain}")
    };
    if !pattern.starts_with(['/', '*']) && target(&pattern).is_err() {
        return carried.leave(line, format!("{pattern:?} is no address"));
    }
    let route = Route {
        line,
        name: about.to_owned(),
        matches: Some(vec![pattern]),
        stop: true,
        enabled: true,
        ..Route::default()
    };
    match name.len() - bare.len() {
        0 => {}
        1 => return carried.routes.push(Route { action: "drop", ..route }),
        2 => {
            let what = format!("{bare:?}, which is put off for ever (message.defer)");
            return carried.leave_to_worker(&route, &what);
        }
        _ => return carried.routes.push(Route { action: "reject", ..route }),
    }
    let mut targets = Vec::new();
    for to in to {
        match target(to) {
            _ if bare.starts_with('/') && has_capture(to) => {
                carried.leave(line, format!("{to:?}: what the regular expression captured"));
            }
            Ok(to) => targets.push(to),
            Err(_) if !to.contains('@') => {
                carried.leave(line, format!("{to:?}: the same name at another host is for the worker: message.forward(message.to.local + \"@{to}\")"));
            }
            Err(why) => carried.leave(line, why),
        }
    }
    carried.add(&route, &targets, false);
}
