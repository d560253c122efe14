//! From the tree to the raw sections by serde, with every finding and not just the first.
//!
//! Pure. A value that doesn't fit is noted, taken out of the tree, and the rest decoded again, until what is left fits:
//! so one run shows all that is wrong. Input: [`super::tree`]. Output: [`super::raw::File`], whose values know their node.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::tree::{Kind, Node, NodeId, Tree};
use crate::diagnostic::{Diagnostic, suggest};

/// A value and the node it came from.
#[derive(Debug, Clone)]
pub struct At<T> {
    pub value: T,
    pub node: NodeId,
}

/// The name by which [`At`] asks for its node.
const AT: &str = "$node and value";

/// Decodes the tree; what doesn't fit goes to `tree.found`.
pub fn decode<T: for<'de> Deserialize<'de> + Default>(tree: &mut Tree<'_>) -> T {
    // Each turn takes a node away, so this ends.
    loop {
        match T::deserialize(Value(&tree.root)) {
            Ok(value) => return value,
            Err(mismatch) => {
                let Some(node) = mismatch.node else {
                    tree.found.push(tree.source.at(&tree.root.origin, &mismatch.message, mismatch.help));
                    return T::default();
                };
                // Where something was taken out of a table, what the table then lacks is no finding of its own.
                if mismatch.key || !tree.holes.iter().any(|hole| hole.within == node) {
                    let diagnostic = point(tree, &mismatch, node);
                    tree.found.push(diagnostic);
                }
                match tree.root.prune(node) {
                    Some(hole) => tree.holes.push(hole),
                    None => return T::default(),
                }
            }
        }
    }
}

fn point(tree: &Tree<'_>, mismatch: &Mismatch, node: NodeId) -> Diagnostic {
    let places = tree.places();
    let origin = places.get(&node).map_or(&tree.root.origin, |(key, value)| if mismatch.key { key } else { value });
    tree.source.at(origin, &mismatch.message, mismatch.help.clone())
}

/// Why a value doesn't fit.
#[derive(Debug)]
struct Mismatch {
    node: Option<NodeId>,
    /// It is the key that is wrong.
    key: bool,
    message: String,
    help: Option<String>,
}

impl Mismatch {
    fn new(message: String, help: Option<String>) -> Self {
        Self { node: None, key: false, message, help }
    }

    fn or_at(mut self, node: NodeId, key: bool) -> Self {
        if self.node.is_none() {
            (self.node, self.key) = (Some(node), key);
        }
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    /// A second line is the help.
    fn custom<T: fmt::Display>(text: T) -> Self {
        let text = text.to_string();
        match text.split_once('\n') {
            Some((message, help)) => Self::new(message.to_owned(), Some(help.to_owned())),
            None => Self::new(text, None),
        }
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {}, found {}", words(expected), kind_of(&found)), None)
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let shown = match found {
            de::Unexpected::Signed(number) => number.to_string(),
            de::Unexpected::Unsigned(number) => number.to_string(),
            other => kind_of(&other).to_owned(),
        };
        Self::new(format!("expected {}, found {shown}", words(expected)), None)
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        let message = format!("`{}` is none of the choices", found.escape_debug());
        Self::new(message, Some(choices(found, known, "it can be")))
    }

    fn unknown_field(found: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!("unknown key `{}`", found.escape_debug()), Some(choices(found, known, "the keys here are")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("`{field}` is missing"), None)
    }
}

fn choices(found: &str, known: &[&str], otherwise: &str) -> String {
    match suggest(found, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{otherwise} {}", known.join(", ")),
    }
}

/// What serde expects, in words for a person.
fn words(expected: &dyn de::Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u64" | "usize" => "a whole number from 0".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other if other.starts_with("enum ") || other == "variant identifier" => "a string".to_owned(),
        other => other.to_owned(),
    }
}

/// The kind alone: a value might be a secret.
fn kind_of(found: &de::Unexpected<'_>) -> &'static str {
    match found {
        de::Unexpected::Bool(_) => "a boolean",
        de::Unexpected::Unsigned(_) | de::Unexpected::Signed(_) => "a number",
        de::Unexpected::Float(_) => "a number with a fraction",
        de::Unexpected::Str(_) => "a string",
        de::Unexpected::Seq => "a list",
        de::Unexpected::Map => "a table",
        _ => "something else",
    }
}

/// A node, read by serde.
#[derive(Clone, Copy)]
struct Value<'n>(&'n Node);

impl Value<'_> {
    fn any<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.0.kind {
            Kind::String(text) | Kind::Text(text) => visitor.visit_str(text),
            Kind::Integer(number) => visitor.visit_i64(*number),
            Kind::Float(number) => visitor.visit_f64(*number),
            Kind::Boolean(value) => visitor.visit_bool(*value),
            Kind::Array(items) => visitor.visit_seq(Items(items.iter())),
            Kind::Table(entries) => visitor.visit_map(Entries { left: entries.iter(), value: None }),
        }
    }

    /// A variable's text as the number that is asked for.
    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.0.kind {
            Kind::Text(text) => match text.trim().parse::<i64>() {
                Ok(number) => visitor.visit_i64(number),
                Err(_) => visitor.visit_str(text),
            },
            _ => self.any(visitor),
        }
    }

    fn here<T>(self, result: Result<T, Mismatch>) -> Result<T, Mismatch> {
        result.map_err(|mismatch| mismatch.or_at(self.0.id, false))
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            self.here(self.number(visitor))
        }
    )*};
}

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.here(self.any(visitor))
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.here(match &self.0.kind {
            Kind::Text(text) => match text.trim() {
                "true" | "1" => visitor.visit_bool(true),
                "false" | "0" => visitor.visit_bool(false),
                other => visitor.visit_str(other),
            },
            _ => self.any(visitor),
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.here(visitor.visit_some(self))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mismatch> {
        self.here(visitor.visit_newtype_struct(self))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        if name == AT {
            return self.here(visitor.visit_seq(NodeAndValue { node: self.0, next: 0 }));
        }
        self.here(self.any(visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.here(match &self.0.kind {
            Kind::String(text) | Kind::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => self.any(visitor),
        })
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'n>(std::slice::Iter<'n, Node>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Mismatch;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        self.0.next().map(|node| seed.deserialize(Value(node))).transpose()
    }
}

struct Entries<'n> {
    left: std::slice::Iter<'n, (String, Node)>,
    value: Option<&'n Node>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        let Some((name, node)) = self.left.next() else { return Ok(None) };
        self.value = Some(node);
        let key: de::value::StrDeserializer<'_, Mismatch> = name.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|mismatch| mismatch.or_at(node.id, true))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        match self.value.take() {
            Some(node) => seed.deserialize(Value(node)),
            None => Err(de::Error::custom("a value was asked for before its key")),
        }
    }
}

/// What [`At`] is read from.
struct NodeAndValue<'n> {
    node: &'n Node,
    next: u8,
}

impl<'de> SeqAccess<'de> for NodeAndValue<'_> {
    type Error = Mismatch;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        self.next += 1;
        match self.next {
            1 => seed.deserialize(self.node.id.into_deserializer()).map(Some),
            2 => seed.deserialize(Value(self.node)).map(Some),
            _ => Ok(None),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AtVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for AtVisitor<T> {
            type Value = At<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<At<T>, A::Error> {
                let node = parts.next_element()?.ok_or_else(|| de::Error::custom("a value without a node"))?;
                let value = parts.next_element()?.ok_or_else(|| de::Error::custom("a node without a value"))?;
                Ok(At { value, node })
            }
        }
        deserializer.deserialize_struct(AT, &[], AtVisitor(PhantomData))
    }
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for At<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}
