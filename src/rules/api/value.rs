//! Values between a script and what is stored or sent: JSON, and the words of KV.
//!
//! Bounded: nesting is counted, so that a hostile value can't exhaust the stack. What has no JSON (a blob inside a
//! map, a function, `message` itself) is an error that says so.

use rhai::{Array, Blob, Dynamic, Map};
use serde_json::Value as Json;

use super::attachment::AttachmentView;
use super::auth::AuthView;
use super::bounds::Bounds;
use super::headers::HeadersView;
use super::octets::Octets;
use super::payload::PayloadView;
use crate::kv;

/// Arrays and maps inside each other.
pub(super) const MAX_DEPTH: usize = 64;
/// Octets of `raw` or of a content that go to a line of the log: many more than it holds, since secrets are taken out of
/// them before it is cut.
const MAX_SHOWN: usize = 64 * 1024;

/// A script's value as JSON.
///
/// # Errors
/// Says which value has no JSON.
pub fn to_json(value: &Dynamic) -> Result<Json, String> {
    convert(value, 0)
}

fn convert(value: &Dynamic, depth: usize) -> Result<Json, String> {
    if depth > MAX_DEPTH {
        return Err(format!("the value is nested deeper than {MAX_DEPTH}"));
    }
    if value.is_unit() {
        return Ok(Json::Null);
    }
    if let Ok(flag) = value.as_bool() {
        return Ok(Json::Bool(flag));
    }
    if let Ok(number) = value.as_int() {
        return Ok(Json::from(number));
    }
    if let Ok(number) = value.as_float() {
        return serde_json::Number::from_f64(number)
            .map(Json::Number)
            .ok_or_else(|| format!("{number} is no number in JSON"));
    }
    if let Ok(text) = value.as_immutable_string_ref() {
        return Ok(Json::String(text.to_string()));
    }
    if let Ok(character) = value.as_char() {
        return Ok(Json::String(character.to_string()));
    }
    if let Ok(array) = value.as_array_ref() {
        return array.iter().map(|item| convert(item, depth + 1)).collect::<Result<_, _>>().map(Json::Array);
    }
    if let Ok(map) = value.as_map_ref() {
        let entry = |(name, item): (_, &Dynamic)| Ok((name_of(name), convert(item, depth + 1)?));
        return map.iter().map(entry).collect::<Result<_, String>>().map(Json::Object);
    }
    if Octets::from_dynamic(value).is_some() {
        return Err("blobs and octets have no JSON: use to_base64(), or put them by themselves".to_owned());
    }
    if let Some(attachment) = value.read_lock::<AttachmentView>() {
        return convert(&Dynamic::from_map(attachment.to_map()), depth + 1);
    }
    if let Some(auth) = value.read_lock::<AuthView>() {
        return convert(&Dynamic::from_map(auth.to_map()), depth + 1);
    }
    if let Some(headers) = value.read_lock::<HeadersView>() {
        let fields = HeadersView::clone(&headers).into_iter();
        return fields
            .map(|field| convert(&Dynamic::from_array(field), depth + 1))
            .collect::<Result<_, _>>()
            .map(Json::Array);
    }
    if value.is::<PayloadView>() {
        return Err("what to_payload gives is a webhook's whole payload, and has no JSON within another".to_owned());
    }
    Err(format!("{} has no JSON: use strings, numbers, booleans, arrays and maps", article(value.type_name())))
}

fn name_of(name: impl AsRef<str>) -> String {
    name.as_ref().to_owned()
}

/// A value as a line of the log.
#[must_use]
pub fn shown(value: &Dynamic) -> String {
    if let Some(octets) = value.read_lock::<Octets>() {
        let start = octets.bytes().get(..MAX_SHOWN).unwrap_or(octets.bytes());
        return String::from_utf8_lossy(start).into_owned();
    }
    if let Some(attachment) = value.read_lock::<AttachmentView>() {
        return format!("{:?}", &*attachment);
    }
    if let Some(auth) = value.read_lock::<AuthView>() {
        return Dynamic::from_map(auth.to_map()).to_string();
    }
    if value.type_name().contains("::") {
        return article(value.type_name()).replace('`', "");
    }
    value.to_string()
}

/// The name of a type as a script's author knows it.
#[must_use]
pub fn article(type_name: &str) -> String {
    let short = type_name.rsplit("::").next().unwrap_or(type_name);
    match short {
        "MessageView" | "message" => "`message`".to_owned(),
        "EnvView" | "env" => "`env`".to_owned(),
        "ContextView" | "ctx" => "`ctx`".to_owned(),
        "SessionView" | "session" => "`session`".to_owned(),
        "HeadersView" | "headers" => "`message.headers`".to_owned(),
        "AuthView" | "auth" => "`message.auth`".to_owned(),
        "AttachmentView" | "attachment" => "an attachment".to_owned(),
        "PayloadView" | "payload" => "a payload of the message".to_owned(),
        "Octets" | "octets" => "octets".to_owned(),
        "KvNamespace" => "a KV namespace".to_owned(),
        "FnPtr" | "Fn" => "a function".to_owned(),
        "()" => "nothing, `()`".to_owned(),
        "i64" => "an integer".to_owned(),
        "map" => "a map".to_owned(),
        "array" => "an array".to_owned(),
        other => format!("a value of type {other}"),
    }
}

/// JSON as a script's value. Integers beyond 63 bits become floating-point numbers.
pub fn from_json(value: &Json) -> Dynamic {
    match value {
        Json::Null => Dynamic::UNIT,
        Json::Bool(flag) => Dynamic::from(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Dynamic::from(integer),
            None => Dynamic::from(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Dynamic::from(text.clone()),
        Json::Array(items) => Dynamic::from_array(items.iter().map(from_json).collect::<Array>()),
        Json::Object(fields) => Dynamic::from_map(
            fields.iter().map(|(name, item)| (name.as_str().into(), from_json(item))).collect::<Map>(),
        ),
    }
}

/// What a script puts.
///
/// # Errors
/// Says which value can't be kept.
pub fn to_kv(value: &Dynamic) -> Result<kv::Value, String> {
    if let Ok(text) = value.as_immutable_string_ref() {
        return Ok(kv::Value::Text(text.to_string()));
    }
    if let Some(octets) = Octets::from_dynamic(value) {
        return Ok(kv::Value::Blob(octets.bytes().to_vec()));
    }
    to_json(value).map(kv::Value::Json)
}

/// What a script gets, of the type it was put; a blob that is longer than an array may be comes as octets.
pub fn from_kv(value: &kv::Value, bounds: Bounds) -> Dynamic {
    match value {
        kv::Value::Text(text) => Dynamic::from(text.clone()),
        kv::Value::Blob(octets) if octets.len() > bounds.array => Dynamic::from(Octets::new(octets.clone().into())),
        kv::Value::Blob(octets) => Dynamic::from_blob(Blob::from(octets.as_slice())),
        kv::Value::Json(json) => from_json(json),
    }
}

/// The size that counts against the limit.
#[must_use]
pub fn kv_size(value: &kv::Value) -> usize {
    match value {
        kv::Value::Text(text) => text.len(),
        kv::Value::Blob(octets) => octets.len(),
        kv::Value::Json(json) => json_size(json),
    }
}

/// Its octets as text.
pub(super) fn json_size(json: &Json) -> usize {
    let mut count = Count(0);
    // It takes whatever it is given, and a value has no key that isn't text.
    let _counted = serde_json::to_writer(&mut count, json);
    count.0
}

struct Count(usize);

impl std::io::Write for Count {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0 += octets.len();
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
