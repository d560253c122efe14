//! Cloudflare's Email Routing: the rules as its API lists them (`GET /zones/ID/email/routing/rules`).

use serde_json::Value;

use super::json::{self, Wrong};
use super::{Carried, Route, target};

pub fn read(text: &str) -> Result<Carried, Wrong> {
    let mut carried = Carried::default();
    let mut rules = json::items(text, &["result"])?;
    carried.complete(text, rules.len());
    json::by_priority(&mut rules);
    // What takes all is asked last there, whatever its priority.
    rules.sort_by_key(|(_, rule)| matchers(rule).any(|matcher| json::text(matcher, "type") == "all"));
    for (line, rule) in &rules {
        carry(&mut carried, *line, rule);
    }
    Ok(carried)
}

fn matchers(rule: &Value) -> impl Iterator<Item = &Value> {
    rule.get("matchers").and_then(Value::as_array).into_iter().flatten()
}

fn carry(carried: &mut Carried, line: usize, rule: &Value) {
    let mut addresses = Vec::new();
    let mut all = false;
    for matcher in matchers(rule) {
        match (json::text(matcher, "type"), json::text(matcher, "field")) {
            ("all", _) => all = true,
            ("literal", "to") => {
                let address = json::text(matcher, "value");
                match target(address) {
                    Ok(address) => addresses.push(address),
                    Err(why) => return carried.leave(line, why),
                }
                carried.own(address);
            }
            (kind, field) => return carried.leave(line, format!("a matcher of type {kind:?} on {field:?}")),
        }
    }
    if addresses.is_empty() && !all {
        return carried.leave(line, "a rule without a matcher");
    }
    let route = Route {
        line,
        name: json::text(rule, "name").to_owned(),
        matches: (!all).then_some(addresses),
        stop: true,
        enabled: rule.get("enabled").and_then(Value::as_bool).unwrap_or(true),
        ..Route::default()
    };
    let actions = rule.get("actions").and_then(Value::as_array);
    let mut targets = Vec::new();
    let mut settled = None;
    for action in actions.into_iter().flatten() {
        match json::text(action, "type") {
            "forward" => {
                for to in json::texts(action, "value") {
                    match target(&to) {
                        Ok(to) => targets.push(to),
                        Err(why) => carried.leave(line, why),
                    }
                }
            }
            "worker" => {
                let name = json::texts(action, "value").join(", ");
                carried.leave(line, format!("the code of the worker {name:?}: the route hands its mail to this domain's worker; port it there"));
                settled = Some("worker");
            }
            "drop" => settled = Some("drop"),
            other => carried.leave(line, format!("the action {other:?}")),
        }
    }
    carried.add(&Route { stop: settled.is_none(), ..route.clone() }, &targets, false);
    if let Some(action) = settled {
        carried.routes.push(Route { action, ..route });
    }
}
