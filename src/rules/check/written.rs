//! What is written out in a script and can be held against what there is, in the words of the error that it would be:
//! names of webhooks and destinations, addresses, names of options; and what a handler may not ask for.

use rhai::{Dynamic, Expr, FnCallExpr, Position};

use super::kinds::Kind;
use super::names::Look;
use crate::rules::api::env::did_you_mean;
use crate::rules::api::{actions, context, options};

/// In which handlers the methods of a kind are not to be had, and what to do there.
type NotThere = (&'static [&'static str], &'static str, &'static [&'static str], &'static str);

const NOT_THERE: &[NotThere] = &[
    (
        &["connect", "helo", "mail_from"],
        "session",
        &["redirect"],
        "redirect in rcpt_to: before it there is no recipient",
    ),
    (
        &["helo", "mail_from", "rcpt_to", "email"],
        "session",
        &["set_limits"],
        "what a session may is set in connect, before its greeting",
    ),
    (&["email"], "session", &["reject"], "message.set_reject refuses the message"),
    (&["email"], "session", &["defer"], "message.defer puts the message off"),
    (&["email"], "session", &["redirect"], "message.forward sends it on; redirect is for rcpt_to"),
    (
        &["connect", "helo", "mail_from", "rcpt_to"],
        "kv",
        &["put", "delete", "increment"],
        "keys are written in email, with the message; what must count at once is env.limit",
    ),
    (&["delivered", "failed"], "ctx", &["send"], "use ctx.webhook: how a mail ends would be told here again"),
    (
        &["delivered", "failed"],
        "ctx",
        &["fetch", "ai", "dns_lookup", "dnsbl"],
        "use ctx.webhook: nobody outside is asked here",
    ),
    (&["scheduled"], "ctx", &["dnsbl"], "there is no client to ask about"),
];

impl Look<'_, '_> {
    /// `value.name(…)`, of a kind that is known.
    pub fn written(&mut self, kind: Kind, call: &FnCallExpr, at: Position) {
        let name = call.name.as_str();
        self.of_handler(kind, name, at);
        let targets = call.args.first().map(texts).unwrap_or_default();
        for (text, at) in targets {
            let environment = self.known.environment;
            let wrong = match (kind.name, name) {
                ("ctx", "webhook") => context::target_of(environment, &text).err(),
                ("message", "forward") => actions::forward_to(environment, &Dynamic::from(text.clone())).err(),
                _ => None,
            };
            if let Some(why) = wrong {
                self.push(kind, at, &format!("{text:?}"), format!("{name}: {why}"), None);
            }
        }
        let options = options::METHODS.iter().filter(|method| (method.0, method.1) == (kind.name, name));
        for (.., argument, known) in options {
            for (key, at) in call.args.get(*argument).map(keys).unwrap_or_default() {
                if !known.contains(&key.as_str()) {
                    let help = did_you_mean(&key, known.iter().copied(), "options");
                    self.push(kind, at, &key, format!("{name}: no option {key}"), Some(help));
                }
            }
        }
    }

    fn of_handler(&mut self, kind: Kind, name: &str, at: Position) {
        let Some(handler) = self.roles.handler else { return };
        let found = NOT_THERE.iter().find(|(handlers, of, methods, _)| {
            handlers.contains(&handler) && *of == kind.name && methods.contains(&name)
        });
        if let Some((.., help)) = found {
            let message = format!("{}.{name} is not for {handler}", kind.name);
            self.push(kind, at, name, message, Some((*help).to_owned()));
        }
    }
}

/// The text that an expression is, or the texts of an array, each with its place.
fn texts(expression: &Expr) -> Vec<(String, Position)> {
    match expression {
        Expr::StringConstant(text, at) => vec![(text.to_string(), *at)],
        Expr::Array(items, _) => items.iter().flat_map(texts).collect(),
        Expr::DynamicConstant(value, at) => {
            let array = value.as_array_ref().map(|array| array.to_vec()).unwrap_or_default();
            array.into_iter().filter_map(|text| Some((text.into_string().ok()?, *at))).collect()
        }
        _ => Vec::new(),
    }
}

/// The keys of a map, each with its place.
fn keys(expression: &Expr) -> Vec<(String, Position)> {
    match expression {
        Expr::Map(map, _) => map.0.iter().map(|(key, _)| (key.name.to_string(), key.pos)).collect(),
        Expr::DynamicConstant(value, at) => {
            value.as_map_ref().map(|map| map.keys().map(|key| (key.to_string(), *at)).collect()).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}
