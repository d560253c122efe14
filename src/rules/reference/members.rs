//! What a script sees, section by section: as it is written, what it gives, what it is for, an example, its errors.
//!
//! Compared with the engine's registrations by the tests; a row that isn't registered fails, and so does a registration
//! without a row, a parameter without its type, an error where none can be, and none where one can. Every example is
//! compiled and run.

use super::asking::{CONTEXT, DECISIONS, KV, SESSION};
use super::reading::{ATTACHMENTS, HEADERS, MESSAGE, OCTETS, STRINGS};

pub(super) struct Member {
    /// Several where arguments may be left out, and of those that are told in one sentence.
    pub signatures: &'static [&'static str],
    pub gives: &'static str,
    pub meaning: &'static str,
    /// A statement that names each of them.
    pub example: &'static str,
    /// Where it is an error, beside arguments of other types; empty: nowhere.
    pub errors: &'static str,
}

impl Member {
    pub(super) const fn of(
        signatures: &'static [&'static str],
        gives: &'static str,
        meaning: &'static str,
        example: &'static str,
    ) -> Self {
        Self { signatures, gives, meaning, example, errors: "" }
    }

    pub(super) const fn fails(self, errors: &'static str) -> Self {
        Self { errors, ..self }
    }
}

/// Heading, what to know first, rows.
pub(super) type Section = (&'static str, &'static str, &'static [Member]);

pub(super) const SECTIONS: &[Section] =
    &[MESSAGE, HEADERS, ATTACHMENTS, OCTETS, STRINGS, DECISIONS, KV, CONTEXT, SESSION];
