//! The map of options that a call ends with: known names, the right types, and an error that names both.

use rhai::{Dynamic, Map};

use super::env::did_you_mean;
use super::value::article;

pub const WEBHOOK: &[&str] = &["headers", "method", "format"];
pub const SEND: &[&str] = &["to", "cc", "bcc", "reply_to", "from", "subject", "text", "html", "headers", "attachments"];
pub const REPLY: &[&str] = &["from", "reply_to", "subject", "text", "html", "headers", "attachments", "every"];
pub const REQUEST: &[&str] = &["method", "headers", "body", "timeout"];
pub const STORE: &[&str] = &["mailbox", "retention"];
pub const PUT: &[&str] = &["expiration_ttl", "expiration", "metadata"];
pub const LIST: &[&str] = &["prefix", "limit", "cursor"];
pub const LIMITS: &[&str] = &["recipients", "message_size", "errors"];
/// Whose method has which, and as which of its arguments.
pub const METHODS: &[(&str, &str, usize, &[&str])] = &[
    ("ctx", "webhook", 2, WEBHOOK),
    ("ctx", "send", 0, SEND),
    ("ctx", "fetch", 1, REQUEST),
    ("session", "fetch", 1, REQUEST),
    ("session", "set_limits", 0, LIMITS),
    ("message", "reply", 0, REPLY),
    ("message", "store", 0, STORE),
    ("kv", "put", 2, PUT),
    ("kv", "list", 0, LIST),
];

/// What is left of the options.
pub struct Options(Map);

impl Options {
    /// # Errors
    /// A name that isn't among `known`.
    pub fn new(map: Map, known: &[&str]) -> Result<Self, String> {
        match map.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(format!("no option {name} ({})", did_you_mean(name, known.iter().copied(), "options"))),
            None => Ok(Self(map)),
        }
    }

    /// The option's value; `()` is as good as none.
    pub fn take(&mut self, name: &str) -> Option<Dynamic> {
        self.0.remove(name).filter(|value| !value.is_unit())
    }

    /// # Errors
    /// The value is no integer.
    pub fn integer(&mut self, name: &str) -> Result<Option<i64>, String> {
        let integer = |value: Dynamic| value.as_int().map_err(|_| wrong(name, "an integer", &value));
        self.take(name).map(integer).transpose()
    }

    /// # Errors
    /// The value is no string.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        let text = |value: Dynamic| {
            let text = value.as_immutable_string_ref().map(|text| text.to_string());
            text.map_err(|_| wrong(name, "a string", &value))
        };
        self.take(name).map(text).transpose()
    }

    /// # Errors
    /// The value is no map.
    pub fn map(&mut self, name: &str) -> Result<Option<Map>, String> {
        let map = |value: Dynamic| {
            let map = value.as_map_ref().map(|map| map.clone());
            map.map_err(|_| wrong(name, "a map", &value))
        };
        self.take(name).map(map).transpose()
    }
}

fn wrong(name: &str, expected: &str, value: &Dynamic) -> String {
    format!("{name} is {expected}, not {}", article(value.type_name()))
}
