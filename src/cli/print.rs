//! How things look: colour where it is wanted, JSON where a program reads, and nothing of a peer's that a terminal obeys.
//!
//! Standard output and standard error are touched by `cli` alone.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{BufRead as _, IsTerminal as _, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::Failure;
use super::args::Color;
use crate::diagnostic::Diagnostic;
use crate::store::Raw;

pub const BOLD: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();
pub const GOOD: Style = AnsiColor::Green.on_default();
pub const WAIT: Style = AnsiColor::Yellow.on_default();
pub const BAD: Style = AnsiColor::Red.on_default();
pub const NOTE: Style = AnsiColor::Cyan.on_default();

/// Text in a style.
pub struct Painted<T>(pub Style, pub T);

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.0.render(), self.1, self.0.render_reset())
    }
}

/// `--color`; `auto` follows the terminal and `NO_COLOR`.
pub fn choose_color(color: Color) {
    match color {
        Color::Auto => anstream::ColorChoice::Auto,
        Color::Always => anstream::ColorChoice::AlwaysAnsi,
        Color::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Whether colour was asked for or forbidden; `None`: as the terminal is.
#[must_use]
pub fn colour() -> Option<bool> {
    match anstream::ColorChoice::global() {
        anstream::ColorChoice::Auto if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) => {
            Some(false)
        }
        anstream::ColorChoice::Auto => None,
        anstream::ColorChoice::Never => Some(false),
        anstream::ColorChoice::Always | anstream::ColorChoice::AlwaysAnsi => Some(true),
    }
}

/// One line on standard output, flushed: whoever waits for it sees it at once. In one piece, line end included, so that
/// nothing of standard error's stands in the middle of it on a terminal.
pub fn line(text: impl fmt::Display) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(format!("{text}\n").as_bytes())?;
    out.flush()?;
    Ok(())
}

/// One JSON value on a line of its own.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(Failure::failed)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", escaped(&text))?;
    out.flush()?;
    Ok(())
}

/// JSON in which nothing is left that a terminal would obey: it stands in strings alone, where `\u` means the same.
#[must_use]
pub fn escaped(json: &str) -> Cow<'_, str> {
    let obeyed = |character: char| character != '\n' && is_obeyed(character);
    if !json.contains(obeyed) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if obeyed(character) {
            // All of them are of the first plane: four digits.
            let _infallible = write!(out, "\\u{:04x}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// A text and a line end: as it is for a program, cleaned by [`lines`] on a terminal.
pub fn text(text: &str) -> Result<(), Failure> {
    if std::io::stdout().is_terminal() {
        return line(lines(text));
    }
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// A message as it was received.
pub fn raw(raw: &Raw) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    raw.write_to(&mut out)?;
    out.flush()?;
    Ok(())
}

/// Bytes as they are.
pub fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// `error: …` on standard error. Nothing can be done where that is gone.
pub fn error(text: &str) {
    on_error(format_args!("{}: {}", Painted(BAD.bold(), "error"), lines(text)));
}

/// `warning: …` on standard error.
pub fn warning(text: &str) {
    on_error(format_args!("{}: {}", Painted(WAIT.bold(), "warning"), lines(text)));
}

/// A remark on standard error.
pub fn remark(text: &str) {
    on_error(format_args!("{text}"));
}

/// Whether it is to be done, a person says. `unasked`: there is none; `refused`: what no comes to.
pub fn confirm(question: &str, unasked: Failure, refused: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(unasked);
    }
    remark(&format!("{question} [y/N]"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Failure::Failed(refused.to_owned())) }
}

/// On standard output, without an end of the line: something is to be typed behind it.
pub fn prompt(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Replaces the line that standard error's terminal stands in.
pub fn redraw(text: &str) {
    let _unread = anstream::stderr().lock().write_all(format!("\r\u{1b}[K{text}").as_bytes());
}

/// On standard error, in one piece.
fn on_error(text: fmt::Arguments<'_>) {
    let _unread = anstream::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// Findings with their source lines and carets, on standard error.
pub fn diagnostics(findings: &[Diagnostic]) {
    for finding in findings {
        on_error(format_args!("{}", crate::diagnostic::render(finding, true).trim_end()));
    }
}

/// What came from a peer, on one line, with nothing in it that a terminal would obey: control characters and those
/// that turn the direction of writing are shown as `\u{..}`.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    clean(text, is_obeyed)
}

/// As [`plain`], but line breaks stay.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    clean(text, |character| character != '\n' && is_obeyed(character))
}

fn clean(text: &str, obeyed: fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if obeyed(character) {
            let _infallible = write!(out, "{}", character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
        || ('\u{202a}'..='\u{202e}').contains(&character)
        || ('\u{2066}'..='\u{2069}').contains(&character)
}

/// At most `width` characters, the last one an ellipsis where more was there; cleaned by [`plain`].
#[must_use]
pub fn short(text: &str, width: usize) -> String {
    let cleaned = plain(text);
    if cleaned.chars().count() <= width {
        return cleaned.into_owned();
    }
    cleaned.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A time as a person reads it: `2026-11-23 09:15:02`, in UTC.
#[must_use]
pub fn time(at: crate::mail::Timestamp) -> String {
    let text = at.to_string();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// The time of day alone: `09:15:02.123`.
#[must_use]
pub fn clock(at: crate::mail::Timestamp) -> String {
    let text = at.to_string();
    text.get(11..23).unwrap_or(&text).to_owned()
}

/// The sender, `<>` where it is null.
#[must_use]
pub fn sender(sender: Option<&crate::mail::Address>) -> String {
    sender.map_or_else(|| "<>".to_owned(), |address| plain(address.as_str()).into_owned())
}

/// `1 message`, `2 messages`.
#[must_use]
pub fn count(number: u64, one: &str) -> String {
    match (number, one.strip_suffix('y')) {
        (1, _) => format!("1 {one}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_of_a_subject() {
        assert_eq!(plain("\u{1b}[2Jhi\r\n\u{202e}x\u{9b}"), "\\u{1b}[2Jhi\\u{d}\\u{a}\\u{202e}x\\u{9b}");
        assert_eq!(plain("grüße 日本"), "grüße 日本");
        assert_eq!(lines("a\nb\u{7}"), "a\nb\\u{7}");
    }

    #[test]
    fn json_has_nothing_that_a_terminal_obeys_and_means_the_same() {
        let text = serde_json::json!({ "a": "\u{9b}2J\u{202e}\u{7f}", "b": ["grüße"] });
        let printed = serde_json::to_string_pretty(&text).unwrap();
        let shown = escaped(&printed);
        assert!(shown.contains("\\u009b2J\\u202e\\u007f") && shown.contains("grüße"), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), text);
        assert!(matches!(escaped("{\n}"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_long_text_ends_in_an_ellipsis() {
        assert_eq!(short("abcdef", 4), "abc…");
        assert_eq!(short("abcd", 4), "abcd");
    }

    #[test]
    fn counts_read_well() {
        assert_eq!(count(1, "delivery"), "1 delivery");
        assert_eq!(count(2, "delivery"), "2 deliveries");
        assert_eq!(count(0, "message"), "0 messages");
    }
}
