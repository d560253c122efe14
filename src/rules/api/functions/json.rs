//! JSON as text: `json_parse`, `json_stringify`.
//!
//! What is read becomes a script's value at once, counted while it is read, so that a hostile text is refused before it
//! is large. Standards: RFC 8259.

use std::cell::Cell;

use rhai::{Array, Dynamic, Engine, ImmutableString, Map, NativeCallContext};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::super::value::{MAX_DEPTH, to_json};
use super::{Bounds, ScriptResult, charge, fits, say};

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("json_parse", |context: NativeCallContext, text: ImmutableString| -> ScriptResult<Dynamic> {
        charge(text.len());
        parse(&text, Bounds::of(&context)).map_err(|error| say(&context, error))
    });
    engine.register_fn("json_stringify", |context: NativeCallContext, value: Dynamic| -> ScriptResult<String> {
        let text = to_json(&value).map_err(|why| say(&context, why))?.to_string();
        charge(text.len());
        fits(&context, text.len())?;
        Ok(text)
    });
}

/// The text's value, within the budget.
///
/// # Errors
/// No JSON; or, of the category «data», more of it than the budget allows.
pub fn parse(text: &str, bounds: Bounds) -> Result<Dynamic, serde_json::Error> {
    let (array, map) = (Cell::new(bounds.array), Cell::new(bounds.map));
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Reader { depth: 0, bounds, array: &array, map: &map }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Reads one value, and counts what is left of the budget.
#[derive(Clone, Copy)]
struct Reader<'a> {
    depth: usize,
    bounds: Bounds,
    array: &'a Cell<usize>,
    map: &'a Cell<usize>,
}

impl Reader<'_> {
    fn inner<E: Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH}")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn element<E: Error>(self) -> Result<(), E> {
        let most = self.bounds.array;
        let left = self.array.get().checked_sub(1);
        left.map(|left| self.array.set(left))
            .ok_or_else(|| E::custom(format_args!("more than {most} elements of arrays, the [budget] array_size")))
    }

    fn entry<E: Error>(self) -> Result<(), E> {
        let most = self.bounds.map;
        let left = self.map.get().checked_sub(1);
        left.map(|left| self.map.set(left))
            .ok_or_else(|| E::custom(format_args!("more than {most} entries of objects, the [budget] map_size")))
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Dynamic;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Dynamic, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Dynamic;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Dynamic, E> {
        Ok(Dynamic::UNIT)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Dynamic, E> {
        Ok(Dynamic::from(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Dynamic, E> {
        Ok(Dynamic::from(number))
    }

    #[allow(clippy::cast_precision_loss)] // What is beyond 63 bits becomes a floating-point number.
    fn visit_u64<E: Error>(self, number: u64) -> Result<Dynamic, E> {
        Ok(i64::try_from(number).map_or_else(|_| Dynamic::from(number as f64), Dynamic::from))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Dynamic, E> {
        Ok(Dynamic::from(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Dynamic, E> {
        Ok(Dynamic::from(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Dynamic, A::Error> {
        let inner = self.inner()?;
        let mut array = Array::new();
        while let Some(item) = items.next_element_seed(inner)? {
            self.element()?;
            array.push(item);
        }
        Ok(Dynamic::from_array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Dynamic, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            self.entry()?;
            map.insert(name.into(), fields.next_value_seed(inner)?);
        }
        Ok(Dynamic::from_map(map))
    }
}
