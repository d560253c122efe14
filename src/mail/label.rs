//! Labels of a decision, for traces and lists: the rule for those of scripts (`message.tag`) and of routes (`tags`).

/// Labels of one decision, and characters of each.
pub const MAX_LABELS: usize = 20;
pub const MAX_LABEL: usize = 50;

/// Whether it is one: no blanks, no commas, no control characters.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let parts = |letter: char| letter.is_control() || letter.is_whitespace() || letter == ',';
    (1..=MAX_LABEL).contains(&text.chars().count()) && !text.chars().any(parts)
}
