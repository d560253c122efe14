//! The reference of the worker API, the pages of `rules/`: written from tables that stand beside the engine's own lists.
//!
//! The tables hold what a person needs and an engine doesn't know (what a parameter is called, what a member is for);
//! a test compares them with what is registered, both ways, so that neither can be without the other. Sizes come from
//! the default [`Budget`]. `tests/tidy.rs` compares the file with [`text`] and compiles every example in it.

mod asking;
mod definitions;
mod functions;
mod members;
mod outside;
mod parsed;
mod reading;
mod sender;

use std::fmt::Write as _;

use super::engine::Budget;
pub use definitions::definitions;
use members::{Member, SECTIONS, Section};

/// The whole page, in Markdown.
#[must_use]
pub fn text() -> String {
    let mut page = include_str!("reference/head.md").to_owned();
    for section in SECTIONS {
        table(&mut page, section, "###", "member");
    }
    page.push('\n');
    page.push_str(include_str!("reference/foot.md").trim_start());
    budget(&mut page);
    page
}

/// The page of what is known of the sender.
#[must_use]
pub fn sender() -> String {
    let mut page = include_str!("reference/sender.md").to_owned();
    table(&mut page, &sender::AUTH, "##", "member");
    page
}

/// A section; where nothing in it can fail, without a word of errors.
fn table(page: &mut String, (heading, first, rows): &Section, level: &str, kind: &str) {
    let fails = rows.iter().any(|row| !row.errors.is_empty());
    let (head, line) = if fails { (" | an error where", " | ---") } else { ("", "") };
    let _ = write!(page, "\n{level} {heading}\n{first}\n\n");
    let _ = writeln!(page, "| {kind} | gives | what it is{head} | example |\n| --- | --- | ---{line} | --- |");
    for Member { signatures, gives, meaning, example, errors } in *rows {
        let signatures: Vec<String> = signatures.iter().map(|signature| format!("`{signature}`")).collect();
        let errors = if fails { format!(" | {errors}") } else { String::new() };
        let _ = writeln!(page, "| {} | {gives} | {meaning}{errors} | {} |", signatures.join(", "), ticked(example));
    }
}

/// As code in Markdown, whatever backticks it has.
fn ticked(code: &str) -> String {
    if code.contains('`') { format!("`` {code} ``") } else { format!("`{code}`") }
}

/// The page of what is made of a message.
#[must_use]
pub fn parsed() -> String {
    let mut page = include_str!("reference/parsed.md").to_owned();
    table(&mut page, &parsed::PARSED, "##", "member");
    page.push_str(&parsed::tests());
    page.push_str(include_str!("reference/parsed_examples.md"));
    page
}

/// The page of what is read from outside.
#[must_use]
pub fn outside() -> String {
    let mut page = include_str!("reference/outside.md").to_owned();
    table(&mut page, &outside::OUTSIDE, "##", "member");
    page.push_str(include_str!("reference/outside_examples.md"));
    page
}

/// The page of the functions that belong to nothing.
#[must_use]
pub fn functions() -> String {
    let mut page = include_str!("reference/functions.md").to_owned();
    for section in functions::SECTIONS {
        table(&mut page, section, "##", "function");
    }
    page
}

/// The page of the mail that a worker writes.
#[must_use]
pub fn effects() -> String {
    let mut page = include_str!("reference/effects.md").to_owned();
    for (name, limit) in super::api::drafts::LIMITS {
        page = page.replace(&format!("{{{name}}}"), &limit.to_string());
    }
    page
}

/// What the page shows of each function, as expressions that are true.
pub fn examples() -> impl Iterator<Item = &'static str> {
    rows().map(|function| function.example)
}

/// What the pages show of each member: its name, and statements of a handler. Those on `session` are of `rcpt_to`, the
/// others of `email`, where `attachment` is one of the message's.
pub fn member_examples() -> impl Iterator<Item = (&'static str, &'static str)> {
    let members = sections().flat_map(|section| section.2);
    members.filter_map(|member| Some((*member.signatures.first()?, member.example)))
}

fn rows() -> impl Iterator<Item = &'static Member> + Clone {
    functions::SECTIONS.iter().flat_map(|section| section.2)
}

/// Names of functions, for whoever misspells one.
pub(super) fn function_names() -> impl Iterator<Item = &'static str> + Clone {
    rows().filter_map(|function| function.signatures.first()?.split('(').next())
}

/// What a member gives, in the reference's word for it, where that has members of its own: `gives("message", "headers")`.
pub(super) fn gives(kind: &str, name: &str) -> Option<&'static str> {
    let (Member { gives, .. }, _) = signatures(kind, name).next()?;
    Some(gives.strip_suffix(" or `()`").unwrap_or(gives))
}

/// How a member is called: `(name: string)`, each way it can be. Empty where there is none.
pub(super) fn member_ways(kind: &str, name: &str) -> Vec<&'static str> {
    signatures(kind, name).filter_map(|(_, signature)| signature.get(signature.find('(')?..)).collect()
}

/// Of all pages.
fn sections() -> impl Iterator<Item = &'static Section> {
    SECTIONS.iter().chain([&sender::AUTH, &outside::OUTSIDE, &parsed::PARSED])
}

fn signatures<'a>(kind: &'a str, name: &'a str) -> impl Iterator<Item = (&'static Member, &'static str)> + 'a {
    let members = sections().flat_map(|section| section.2);
    let all = members.flat_map(|member| member.signatures.iter().map(move |signature| (member, *signature)));
    all.filter(move |(_, signature)| {
        let rest = signature.strip_prefix(kind).and_then(|rest| rest.strip_prefix('.'));
        rest.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.is_empty() || rest.starts_with('('))
    })
}

/// How a function is called: `(text: string, pattern: string)`, each way it can be. Empty where there is none.
pub(super) fn ways(name: &str) -> impl Iterator<Item = &'static str> + Clone {
    let signatures = functions::named(name).map_or(&[][..], |function| function.signatures);
    signatures.iter().filter_map(|signature| signature.get(signature.find('(')?..))
}

/// How many arguments one of [`ways`] has.
pub(super) fn arguments(way: &str) -> usize {
    if way == "()" { 0 } else { way.split(", ").count() }
}

/// All of [`ways`], in words.
pub(super) fn takes(name: &str) -> Option<String> {
    let ways: Vec<&str> = ways(name).collect();
    (!ways.is_empty()).then(|| format!("{name} takes {}", ways.join(" or ")))
}

fn budget(page: &mut String) {
    let default = Budget::default();
    let Budget { operations, wall_clock, string_size, array_size, map_size, call_depth, actions, requests } = default;
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
        (
            "actions",
            format!("{actions}"),
            "`forward` (each address), `webhook`, `send`, `reply`, `store`, changes of header fields, and writes of KV",
        ),
        ("requests", format!("{requests}"), "what is asked outside"),
    ];
    page.push_str("\n## Budget\nOf one run; `[budget]` of the configuration sets it. An overrun is an error that no `try` catches.\n\n");
    page.push_str("| key | default | what it bounds |\n| --- | --- | --- |\n");
    for (key, default, what) in rows {
        let _ = writeln!(page, "| `{key}` | {default} | {what} |");
    }
}

#[cfg(test)]
mod tests;
