//! `message.headers`: the header fields, in the order in which they stand; names are compared without case.
//!
//! A value comes unfolded and decoded (RFC 5322 §2.2.3, RFC 2047), by `raw` as it was received. Values are cut and
//! lists end at the budget's sizes; each look-up is one scan of the fields' names, of which the message keeps a table.

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, INT, NativeCallContext};

use super::bounds::Bounds;
use crate::mail::Message;

/// The header fields of one message. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HeadersView(Arc<Message>);

impl HeadersView {
    #[must_use]
    pub fn new(message: Arc<Message>) -> Self {
        Self(message)
    }

    /// The values of that name, decoded.
    fn get_all(&self, bounds: Bounds, name: &str) -> Array {
        texts(bounds, self.0.header_values(name).map(Message::decode))
    }
}

/// As many as the budget has room for.
pub(super) fn texts(bounds: Bounds, texts: impl Iterator<Item = String>) -> Array {
    let cut = texts.map(|text| bounds.cut(text));
    bounds.take(0, |text| text.len(), cut).into_iter().map(Dynamic::from).collect()
}

/// The fields one by one, each decoded when its turn comes.
pub struct Fields {
    message: Arc<Message>,
    next: usize,
}

impl Iterator for Fields {
    type Item = Array;
    fn next(&mut self) -> Option<Array> {
        let (name, value) = self.message.field(self.next)?;
        self.next += 1;
        Some(vec![Dynamic::from(name.to_owned()), Dynamic::from(Message::decode(value))])
    }
}

impl IntoIterator for HeadersView {
    type Item = Array;
    type IntoIter = Fields;
    fn into_iter(self) -> Fields {
        Fields { message: self.0, next: 0 }
    }
}

fn count(headers: &mut HeadersView) -> INT {
    INT::try_from(headers.0.headers().count()).unwrap_or(INT::MAX)
}

/// What is called takes the view by value: of what takes it by `&mut`, Rhai would try to write it back to `message.headers`,
/// by a setter and an indexer that aren't there.
pub(super) fn register(engine: &mut Engine) {
    engine
        .register_type_with_name::<HeadersView>("headers")
        .register_iterator::<HeadersView>()
        .register_fn("get", |context: NativeCallContext, headers: HeadersView, name: &str| {
            let text = headers.0.header(name);
            text.map_or(Dynamic::UNIT, |text| Dynamic::from(Bounds::of(&context).cut(text)))
        })
        .register_fn("get_all", |context: NativeCallContext, headers: HeadersView, name: &str| {
            headers.get_all(Bounds::of(&context), name)
        })
        .register_fn("has", |headers: HeadersView, name: &str| headers.0.has_header(name))
        .register_fn("raw", |context: NativeCallContext, headers: HeadersView, name: &str| {
            let bounds = Bounds::of(&context);
            headers.0.header_values(name).next().map_or(Dynamic::UNIT, |value| {
                // Not more is looked at than a string may hold; the share cuts it further.
                let value = value.get(..bounds.string).unwrap_or(value);
                Dynamic::from(bounds.cut(String::from_utf8_lossy(value).into_owned()))
            })
        })
        .register_fn("keys", |context: NativeCallContext, headers: HeadersView| {
            texts(Bounds::of(&context), headers.0.headers().map(|(name, _)| name.to_owned()))
        })
        .register_get("len", count)
        .register_fn("len", |mut headers: HeadersView| count(&mut headers));
}
