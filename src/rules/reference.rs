//! The reference of the worker API, `rules/README.md`: written from tables that stand beside the engine's own lists.
//!
//! The tables hold what a person needs and an engine doesn't know (what a parameter is called, what a member is for);
//! a test compares them with what is registered, both ways, so that neither can be without the other. Sizes come from
//! the default [`Budget`]. `tests/tidy.rs` compares the file with [`text`] and compiles every example in it.

mod members;

use std::fmt::Write as _;

use super::api::message::UNOFFERED;
use super::engine::Budget;
use members::{Member, SECTIONS};

/// The whole page, in Markdown.
#[must_use]
pub fn text() -> String {
    let mut page = include_str!("reference/head.md").to_owned();
    for section in SECTIONS {
        let _ = write!(
            page,
            "\n### {}\n{}\n\n| member | gives | what it is |\n| --- | --- | --- |\n",
            section.0, section.1
        );
        for Member(signatures, gives, meaning) in section.2 {
            let signatures: Vec<String> = signatures.iter().map(|signature| format!("`{signature}`")).collect();
            let _ = writeln!(page, "| {} | {gives} | {meaning} |", signatures.join(", "));
        }
    }
    let names: Vec<String> = UNOFFERED.iter().map(|(name, _)| format!("`message.{name}`")).collect();
    let _ = write!(page, "\n## Not offered by this version\n{}; ", names.join(", "));
    page.push_str(include_str!("reference/foot.md").trim_start());
    budget(&mut page);
    page
}

fn budget(page: &mut String) {
    let Budget { operations, wall_clock, string_size, array_size, map_size, call_depth, actions } = Budget::default();
    let time = humantime::format_duration(wall_clock);
    let rows = [
        ("operations", format!("{operations}"), "steps of the script"),
        ("wall_clock", format!("{time}"), "time"),
        (
            "string_size",
            format!("{} MiB", string_size >> 20),
            "one string, or the strings of one array or map together",
        ),
        ("array_size", format!("{array_size}"), "elements of an array, octets of a blob, what is nested counted in"),
        ("map_size", format!("{map_size}"), "entries of a map, what is nested counted in"),
        ("call_depth", format!("{call_depth}"), "functions within functions"),
        ("actions", format!("{actions}"), "`forward` (each address), `webhook`, `store`, and writes of KV"),
    ];
    page.push_str("\n## Budget\nOf one run; `[budget]` of the configuration sets it. An overrun is an error that no `try` catches.\n\n");
    page.push_str("| key | default | what it bounds |\n| --- | --- | --- |\n");
    for (key, default, what) in rows {
        let _ = writeln!(page, "| `{key}` | {default} | {what} |");
    }
}

#[cfg(test)]
mod tests;
