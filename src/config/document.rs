//! Another TOML file that a person wrote, read as the configuration is: every finding at once, each with its place.
//!
//! Pure. Input: a text. Output: what it says, and who can point at each [`NodeId`] of it later.

use std::collections::HashMap;

use serde::Deserialize;

pub use super::decode::At;
pub use super::leaf::{Leaf, Parsed};
pub use super::tree::NodeId;

use super::decode::decode;
use super::load::in_order;
use super::tree::{Origin, Source, Tree};
use crate::diagnostic::Diagnostic;

/// The text behind a value, for findings that come of what the value means.
#[derive(Debug)]
pub struct Document<'a> {
    source: Source<'a>,
    /// Of each node its key and its value.
    places: HashMap<NodeId, (Origin, Origin)>,
}

/// Reads `text` as `T`; `name` is what findings call the file.
///
/// # Errors
/// Every finding.
pub fn read<'a, T>(name: &'a str, text: &'a str) -> Result<(T, Document<'a>), Vec<Diagnostic>>
where
    T: for<'de> Deserialize<'de> + Default,
{
    let mut tree = Tree::parse(name, text);
    let value = decode(&mut tree);
    if !tree.found.is_empty() {
        return Err(in_order(tree.found));
    }
    let places = tree.places();
    Ok((value, Document { source: tree.source, places }))
}

impl Document<'_> {
    /// A finding at a value.
    #[must_use]
    pub fn at(&self, node: NodeId, message: &str, help: Option<String>) -> Diagnostic {
        self.finding(self.places.get(&node).map(|(_, value)| value), message, help)
    }

    /// A finding at the key of a value.
    #[must_use]
    pub fn at_key(&self, node: NodeId, message: &str, help: Option<String>) -> Diagnostic {
        self.finding(self.places.get(&node).map(|(key, _)| key), message, help)
    }

    /// The line of a value, from 1; 0 where there is none.
    #[must_use]
    pub fn line(&self, node: NodeId) -> usize {
        self.places.get(&node).and_then(|(_, value)| self.source.line_of(value)).unwrap_or_default()
    }

    fn finding(&self, origin: Option<&Origin>, message: &str, help: Option<String>) -> Diagnostic {
        self.source.at(origin.unwrap_or(&Origin::File { span: 0..0, overlay: false }), message, help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Page {
        #[serde(default)]
        entry: Vec<At<Entry>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        name: Option<At<String>>,
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_what_is_right_can_be_pointed_at() {
        let findings = read::<Page>("page.toml", "[[entry]]\nnam = \"a\"\n[[entry]]\nname = 1\n").unwrap_err();
        let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "page.toml:2:1: unknown key `nam` (did you mean `name`?)",
                "page.toml:4:8: expected a string, found a number"
            ]
        );
        let (page, document) = read::<Page>("page.toml", "\n[[entry]]\nname = \"a\"\n").unwrap();
        let name = page.entry[0].value.name.as_ref().unwrap();
        assert_eq!((name.value.as_str(), document.line(name.node)), ("a", 3));
        assert_eq!(document.at(name.node, "odd", None).to_string(), "page.toml:3:8: odd");
        assert_eq!(document.at_key(name.node, "odd", None).to_string(), "page.toml:3:1: odd");
    }
}
