//! Values that nobody is to read: what a script says goes to the log and into traces with their names in their place.
//!
//! Found as they are, and as `debug` writes them; what a script makes of one (Base64, a part of it) is its own affair.

use std::collections::BTreeMap;

/// Secrets by name, as they are bound.
#[derive(Clone, Default)]
pub struct Secrets(pub BTreeMap<String, String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Octets below which a value isn't looked for: half of all words would hold it.
const SHORTEST: usize = 4;

/// What is looked for, the longest first, with what stands in its place.
#[derive(Default)]
pub struct Hidden(Vec<(String, String)>);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden")
    }
}

impl Hidden {
    #[must_use]
    pub fn new(secrets: &Secrets) -> Self {
        let mut all = Vec::new();
        for (name, value) in secrets.0.iter().filter(|(_, value)| value.len() >= SHORTEST) {
            let place = format!("[secret {name}]");
            let written = value.escape_debug().to_string();
            if written != *value {
                all.push((written, place.clone()));
            }
            all.push((value.clone(), place));
        }
        all.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
        Self(all)
    }

    /// The text, without any of them.
    #[must_use]
    pub fn hide(&self, text: String) -> String {
        self.0.iter().fold(
            text,
            |text, (value, place)| {
                if text.contains(value.as_str()) { text.replace(value.as_str(), place) } else { text }
            },
        )
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_goes_first_and_short_ones_stay() {
        let values = [("A", "hunter"), ("B", "hunter2"), ("C", "the"), ("D", "two\nlines")];
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let hidden = Hidden::new(&Secrets(values));
        let shown = hidden.hide("the hunter2, hunter and \"two\\nlines\" or two\nlines".to_owned());
        assert_eq!(shown, "the [secret B], [secret A] and \"[secret D]\" or [secret D]");
    }
}
