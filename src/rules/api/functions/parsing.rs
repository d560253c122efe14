//! URLs and mail addresses taken apart, as mail has them: what can't be read gives `()` or nothing, and no error.
//!
//! Standards: RFC 3986 by way of the URL Standard (<https://url.spec.whatwg.org>), RFC 5322 §3.4.

use bytes::Bytes;
use rhai::{Array, Dynamic, Engine, ImmutableString, Map, NativeCallContext};

use super::super::message::mailboxes;
use super::{Bounds, charge};
use crate::mail::Message;

/// Octets of a URL, of a list of addresses; parameters of a URL.
const MAX_URL: usize = 16 * 1024;
const MAX_LIST: usize = 64 * 1024;
const MAX_PARAMETERS: usize = 500;

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("url_parse", |text: ImmutableString| url(&text).map_or(Dynamic::UNIT, Dynamic::from_map));
    engine.register_fn("parse_address", |context: NativeCallContext, text: ImmutableString| {
        addresses(&text, Bounds::of(&context)).into_iter().next().unwrap_or(Dynamic::UNIT)
    });
    engine.register_fn("parse_addresses", |context: NativeCallContext, text: ImmutableString| {
        addresses(&text, Bounds::of(&context))
    });
}

fn url(text: &str) -> Option<Map> {
    let text = text.trim();
    if text.len() > MAX_URL {
        return None;
    }
    charge(text.len());
    let url = url::Url::parse(text).ok()?;
    let mut parameters = Map::new();
    for (name, value) in url.query_pairs().take(MAX_PARAMETERS) {
        // Of several the first one counts.
        parameters.entry(name.as_ref().into()).or_insert_with(|| value.into_owned().into());
    }
    let word = |text: &str| Dynamic::from(text.to_owned());
    let port = url.port_or_known_default().map_or(Dynamic::UNIT, |port| Dynamic::from(i64::from(port)));
    let parts = [
        ("scheme", word(url.scheme())),
        ("user", word(url.username())),
        ("host", word(url.host_str().unwrap_or_default())),
        ("port", port),
        ("path", word(url.path())),
        ("query", word(url.query().unwrap_or_default())),
        ("params", Dynamic::from_map(parameters)),
        ("fragment", word(url.fragment().unwrap_or_default())),
    ];
    Some(parts.map(|(name, value)| (name.into(), value)).into())
}

/// A field's value on one line, so that it can't end the field.
pub(super) fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

/// What has an address, read as the value of a header field.
fn addresses(text: &str, bounds: Bounds) -> Array {
    charge(text.len());
    let text = text.get(..text.floor_char_boundary(MAX_LIST)).unwrap_or_default();
    let message = Message::new(Bytes::from(format!("To: {}\r\n\r\n", one_line(text))));
    let has_address = |mailbox: &Dynamic| {
        let map = mailbox.as_map_ref().ok();
        map.and_then(|map| {
            map.get("address").and_then(|text| text.as_immutable_string_ref().ok().map(|t| t.contains('@')))
        })
        .unwrap_or(false)
    };
    mailboxes(&message, "To", bounds).into_iter().filter(has_address).collect()
}
