//! What a script may be given at once: the sizes of its budget, as the engine holds them.
//!
//! A text beyond the budget would be an error, and the error would defer the mail for ever; so what is read of a
//! message is cut, at a character's border, and lists end. A map or an array counts the strings in it together, and so
//! does a payload: what is read takes a quarter of the room, so that text, HTML and more fit into one.

use rhai::{Engine, ImmutableString, NativeCallContext};

/// The sizes that the engine holds a script to.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub string: usize,
    pub array: usize,
    pub map: usize,
}

impl Bounds {
    #[must_use]
    pub fn of(context: &NativeCallContext) -> Self {
        Self::of_engine(context.engine())
    }

    #[must_use]
    pub fn of_engine(engine: &Engine) -> Self {
        // 0 is the engine's word for unlimited.
        let bound = |size| if size == 0 { usize::MAX } else { size };
        Self {
            string: bound(engine.max_string_size()),
            array: bound(engine.max_array_size()),
            map: bound(engine.max_map_size()),
        }
    }

    /// Octets of text that one thing read of a message takes.
    fn share(self) -> usize {
        self.string / 4
    }

    /// Octets of the largest answer from outside.
    #[must_use]
    pub fn answer(self) -> usize {
        self.share()
    }

    /// The text, as much of it as its share allows.
    #[must_use]
    pub fn cut(self, text: String) -> ImmutableString {
        cut_at(text, self.share())
    }

    /// The text, as much of it as a string may hold.
    #[must_use]
    pub fn cut_late(self, text: String) -> ImmutableString {
        cut_at(text, self.string)
    }

    /// The first of these, as many as an array may hold with `entries` map entries each, and their share of text.
    pub fn take<T>(self, entries: usize, size: impl Fn(&T) -> usize, items: impl Iterator<Item = T>) -> Vec<T> {
        let most = self.array.min(self.map.checked_div(entries).unwrap_or(usize::MAX));
        let mut left = self.share();
        items
            .take(most)
            .take_while(|item| left.checked_sub(size(item)).inspect(|rest| left = *rest).is_some())
            .collect()
    }
}

fn cut_at(mut text: String, most: usize) -> ImmutableString {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.shrink_to_fit();
    }
    text.into()
}
