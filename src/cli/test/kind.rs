//! What a decision consists of, kind by kind, and how a test file says what it expects of each.
//!
//! An item is a JSON object, both where it is expected and where it was made, so that one comparison does for all kinds.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize};
use serde_json::{Value, json};

use crate::config::document::{At, NodeId};

/// A kind of what is decided, in the order in which it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What the session is refused with before there is a recipient.
    Connect,
    Helo,
    MailFrom,
    /// What RCPT is answered.
    Rcpt,
    /// The script failed.
    Error,
    Reject,
    Defer,
    Drop,
    Quarantine,
    /// Fields set for what is forwarded after them, or taken out.
    Header,
    Forward,
    Webhook,
    /// Mails that a worker writes.
    Send,
    /// Its answer to the sender.
    Reply,
    Store,
    Tag,
    /// Keys as they are once all is written.
    Kv,
    /// Keys that are gone then.
    Deleted,
    Log,
}

impl Kind {
    pub const ALL: [Self; 19] = [
        Self::Connect,
        Self::Helo,
        Self::MailFrom,
        Self::Rcpt,
        Self::Error,
        Self::Reject,
        Self::Defer,
        Self::Drop,
        Self::Quarantine,
        Self::Header,
        Self::Forward,
        Self::Webhook,
        Self::Send,
        Self::Reply,
        Self::Store,
        Self::Tag,
        Self::Kv,
        Self::Deleted,
        Self::Log,
    ];

    /// Its key below `expect`.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Helo => "helo",
            Self::MailFrom => "mail_from",
            Self::Rcpt => "rcpt",
            Self::Error => "error",
            Self::Reject => "reject",
            Self::Defer => "defer",
            Self::Drop => "drop",
            Self::Quarantine => "quarantine",
            Self::Header => "header",
            Self::Forward => "forward",
            Self::Webhook => "webhook",
            Self::Send => "send",
            Self::Reply => "reply",
            Self::Store => "store",
            Self::Tag => "tag",
            Self::Kv => "kv",
            Self::Deleted => "deleted",
            Self::Log => "log",
        }
    }

    /// The field that a string alone stands for.
    #[must_use]
    pub fn brief(self) -> Option<&'static str> {
        match self {
            Self::Connect
            | Self::Helo
            | Self::MailFrom
            | Self::Rcpt
            | Self::Error
            | Self::Reject
            | Self::Defer
            | Self::Reply
            | Self::Log => Some("text"),
            Self::Quarantine => Some("reason"),
            Self::Tag => Some("name"),
            Self::Forward | Self::Send => Some("to"),
            Self::Webhook => Some("target"),
            Self::Store => Some("mailbox"),
            Self::Drop | Self::Header | Self::Kv | Self::Deleted => None,
        }
    }

    /// Whether it says what becomes of the message, and not what is noted of it.
    #[must_use]
    pub fn is_fate(self) -> bool {
        !matches!(self, Self::Rcpt | Self::Header | Self::Tag | Self::Kv | Self::Deleted | Self::Log)
    }
}

/// What can be said of one item of a kind: a table of these fields, a string for the first of them, `true` for any.
pub trait Item: Serialize + for<'de> Deserialize<'de> {
    /// For «expected …».
    const WHAT: &'static str;
    /// The field that a string alone stands for.
    const BRIEF: Option<&'static str> = None;
}

/// What RCPT is answered.
#[derive(Debug, Serialize, DeriveDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Rcpt {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enhanced: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect: Option<String>,
}

impl Item for Rcpt {
    const WHAT: &'static str = "a text, { code, enhanced, text, redirect }, or true for any";
    const BRIEF: Option<&'static str> = Some("text");
}

/// A refusal's or deferral's words.
#[derive(Debug, Serialize, DeriveDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enhanced: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Item for Answer {
    const WHAT: &'static str = "a text, { code, enhanced, text }, or true for any";
    const BRIEF: Option<&'static str> = Some("text");
}

/// Part of a failure, or a line of the log.
#[derive(Debug, Serialize, DeriveDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    text: String,
}

impl Item for Text {
    const WHAT: &'static str = "a text, or true for any";
    const BRIEF: Option<&'static str> = Some("text");
}

/// `quarantine(reason)`
#[derive(Debug, Serialize, DeriveDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantined {
    reason: String,
}

impl Item for Quarantined {
    const WHAT: &'static str = "a reason, or true for any";
    const BRIEF: Option<&'static str> = Some("reason");
}

/// `tag(name)`
#[derive(Debug, Serialize, DeriveDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    name: String,
}

impl Item for Tag {
    const WHAT: &'static str = "a tag, or true for any";
    const BRIEF: Option<&'static str> = Some("name");
}

/// `set_header(name, value)`, `remove_header(name)`
#[derive(Debug, Serialize, DeriveDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<bool>,
}

impl Item for Field {
    const WHAT: &'static str = "{ name, value }, { name, removed = true }, or true for any";
}

/// `drop()`
#[derive(Debug, Serialize, DeriveDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropped {}

impl Item for Dropped {
    const WHAT: &'static str = "true or false";
}

#[derive(Debug, Serialize, DeriveDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, String>>,
}

impl Item for Forward {
    const WHAT: &'static str = "an address, a destination's name, { to, headers }, or true for any";
    const BRIEF: Option<&'static str> = Some("to");
}

#[derive(Debug, Serialize, DeriveDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
    /// Where it carries the message: `""` is that of its `[[webhook]]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<String>,
}

impl Item for Webhook {
    const WHAT: &'static str = "a webhook's name, a URL, { target, payload, format, method, headers }, or true for any";
    const BRIEF: Option<&'static str> = Some("target");
}

/// `ctx.send`. Addresses are strings, `Ann <ann@example.org>`; one for itself, several in a list.
#[derive(Debug, Serialize, DeriveDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cc: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bcc: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachments: Option<Value>,
}

impl Item for Sent {
    const WHAT: &'static str =
        "an address, { to, cc, bcc, from, reply_to, subject, text, html, headers, attachments }, or true for any";
    const BRIEF: Option<&'static str> = Some("to");
}

/// `message.reply`
#[derive(Debug, Serialize, DeriveDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Replied {
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachments: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_reply_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    references: Option<Vec<String>>,
}

impl Item for Replied {
    const WHAT: &'static str = "its text, { to, from, reply_to, subject, text, html, headers, attachments, in_reply_to, references }, or true for any";
    const BRIEF: Option<&'static str> = Some("text");
}

#[derive(Debug, Serialize, DeriveDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    #[serde(skip_serializing_if = "Option::is_none")]
    mailbox: Option<String>,
    /// In seconds, as a script gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    retention: Option<u64>,
}

impl Item for Stored {
    const WHAT: &'static str = "a mailbox, { mailbox, retention }, or true for any";
    const BRIEF: Option<&'static str> = Some("mailbox");
}

/// One item, in one of its forms.
#[derive(Debug)]
pub struct One<T>(Value, PhantomData<T>);

/// All items of a kind: one, a list of them, or (`false`) none. An item of a list has a place of its own.
#[derive(Debug)]
pub struct Items<T> {
    pub items: Vec<(Option<NodeId>, Value)>,
    kind: PhantomData<T>,
}

struct OneVisitor<T>(PhantomData<T>);

impl<'de, T: Item> Visitor<'de> for OneVisitor<T> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WHAT)
    }

    fn visit_bool<E: de::Error>(self, any: bool) -> Result<Value, E> {
        if any { Ok(json!({})) } else { Err(E::invalid_type(de::Unexpected::Bool(any), &self)) }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        match T::BRIEF {
            Some(field) => Ok(json!({ field: text })),
            None => Err(E::invalid_type(de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        let item = T::deserialize(MapAccessDeserializer::new(map))?;
        serde_json::to_value(item).map_err(de::Error::custom)
    }
}

impl<'de, T: Item> Deserialize<'de> for One<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneVisitor::<T>(PhantomData)).map(|value| Self(value, PhantomData))
    }
}

struct ItemsVisitor<T>(PhantomData<T>);

impl<'de, T: Item> Visitor<'de> for ItemsVisitor<T> {
    type Value = Vec<(Option<NodeId>, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WHAT)
    }

    fn visit_bool<E: de::Error>(self, any: bool) -> Result<Self::Value, E> {
        if any { Ok(vec![(None, OneVisitor::<T>(PhantomData).visit_bool(any)?)]) } else { Ok(Vec::new()) }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(vec![(None, OneVisitor::<T>(PhantomData).visit_str(text)?)])
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Ok(vec![(None, OneVisitor::<T>(PhantomData).visit_map(map)?)])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(At { value: One(item, _), node }) = list.next_element::<At<One<T>>>()? {
            items.push((Some(node), item));
        }
        Ok(items)
    }
}

impl<'de, T: Item> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = deserializer.deserialize_any(ItemsVisitor::<T>(PhantomData))?;
        Ok(Self { items, kind: PhantomData })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_kind() {
        let page = include_str!("../../../rules/tests/README.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        for kind in Kind::ALL {
            let key = format!("`{}`", kind.key());
            assert!(rows.iter().any(|row| row.split('|').nth(1).is_some_and(|names| names.contains(&key))), "{key}");
        }
    }
}
