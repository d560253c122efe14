//! What a script may be given at once: the sizes of its budget, as the engine holds them.
//!
//! A text beyond the budget would be an error, and the error would defer the mail for ever; so what is read of a
//! message is cut to the budget, at a character's border, and lists end where it ends.

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

    /// The text, as much of it as a string may hold.
    #[must_use]
    pub fn cut(self, mut text: String) -> ImmutableString {
        if text.len() > self.string {
            text.truncate(text.floor_char_boundary(self.string));
            text.shrink_to_fit();
        }
        text.into()
    }

    /// The first of these texts, as many as an array may hold with `entries` map entries each, and strings in all.
    pub fn take<T>(self, entries: usize, size: impl Fn(&T) -> usize, items: impl Iterator<Item = T>) -> Vec<T> {
        let most = self.array.min(self.map.checked_div(entries).unwrap_or(usize::MAX));
        let mut left = self.string;
        items
            .take(most)
            .take_while(|item| left.checked_sub(size(item)).inspect(|rest| left = *rest).is_some())
            .collect()
    }
}
