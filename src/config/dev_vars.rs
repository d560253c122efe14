//! `.dev.vars`: values for `dev` and `test` beside the configuration, in the dotenv form that wrangler reads.
//!
//! Pure. `NAME=value`, a line each; `export` before it, comments, and quotes, in which a value may have several lines. In
//! double quotes `\n` and `\r` are line ends. Nothing is expanded. Never shows a value.

use std::collections::BTreeMap;

use super::Secret;
use super::leaf::is_identifier;
use crate::diagnostic::Diagnostic;

const HELP: &str = "a line is NAME=value; quotes keep blanks, `#` and line ends: NAME=\"a value\"";

/// Reads all of it.
///
/// # Errors
/// Every line that is none, by its number.
pub fn parse(file: &str, text: &str) -> Result<BTreeMap<String, Secret>, Vec<Diagnostic>> {
    let (mut values, mut findings) = (BTreeMap::new(), Vec::new());
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut rest, mut line) = (text, 1);
    while !rest.is_empty() {
        let at = line;
        let read = entry(&mut rest);
        line = 1 + text
            .len()
            .checked_sub(rest.len())
            .and_then(|read| text.get(..read))
            .map_or(0, |read| read.bytes().filter(|octet| *octet == b'\n').count());
        match read {
            Ok(Some((name, value))) => {
                values.insert(name, Secret::new(value));
            }
            Ok(None) => {}
            Err(message) => findings.push(Diagnostic {
                line: at,
                help: Some(HELP.to_owned()),
                ..Diagnostic::unplaced(file, message)
            }),
        }
    }
    if findings.is_empty() { Ok(values) } else { Err(findings) }
}

/// The next line, with those that its quotes hold; `None` where it says nothing.
fn entry(rest: &mut &str) -> Result<Option<(String, String)>, &'static str> {
    let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
    let trimmed = line.trim();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        *rest = after;
        return Ok(None);
    }
    let named = trimmed.strip_prefix("export ").unwrap_or(trimmed).split_once('=');
    let Some((name, value)) = named.map(|(name, value)| (name.trim(), value.trim_start())) else {
        *rest = after;
        return Err("this line has no `=`");
    };
    if !is_identifier(name) {
        *rest = after;
        return Err("before the `=` stands no name: letters, digits and `_`, not beginning with a digit");
    }
    let Some(quote) = value.chars().next().filter(|first| matches!(first, '"' | '\'' | '`')) else {
        *rest = after;
        let value = value.split('#').next().unwrap_or_default().trim_end();
        return Ok(Some((name.to_owned(), value.to_owned())));
    };
    // A value in quotes goes on to the next one, over lines if need be.
    let begins = line.len() - value_length(line, value);
    let inside = rest.get(begins + 1..).unwrap_or_default();
    let Some(end) = closing(inside, quote) else {
        *rest = after;
        return Err("the quote isn't closed");
    };
    let (value, behind) = inside.split_at(end);
    let (tail, after) =
        behind.get(1..).unwrap_or_default().split_once('\n').unwrap_or((behind.get(1..).unwrap_or_default(), ""));
    *rest = after;
    if !(tail.trim().is_empty() || tail.trim_start().starts_with('#')) {
        return Err("something follows the closing quote");
    }
    let value = value.replace("\r\n", "\n");
    let value =
        if quote == '"' { value.replace("\\n", "\n").replace("\\r", "\r").replace("\\\"", "\"") } else { value };
    Ok(Some((name.to_owned(), value)))
}

/// How many octets of the line are left where its value begins; `value` is without the blanks at its end.
fn value_length(line: &str, value: &str) -> usize {
    value.len() + (line.len() - line.trim_end().len())
}

/// Where the quote is closed; `\` takes its meaning away.
fn closing(inside: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    inside.char_indices().find_map(|(at, character)| {
        let closes = character == quote && !escaped;
        escaped = character == '\\' && !escaped;
        closes.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_wrangler_reads_it() {
        let text = "\u{feff}# a comment\r\nPLAIN=hello # not this\r\n\n  export KEY = value with blanks \nEMPTY=\n\
                    HASH=\"a # b\" # c\nSINGLE='x\\ny $PLAIN'\nDOUBLE=\"x\\ny \\\"z\\\"\"\nTICK=`a'b\"c`\n\
                    PEM=\"-----BEGIN\nabc==\n-----END\"\nLAST=1";
        let values = parse(".dev.vars", text).unwrap();
        let value = |name: &str| values[name].expose();
        for (name, expected) in [
            ("PLAIN", "hello"),
            ("KEY", "value with blanks"),
            ("EMPTY", ""),
            ("HASH", "a # b"),
            ("SINGLE", "x\\ny $PLAIN"),
            ("DOUBLE", "x\ny \"z\""),
            ("TICK", "a'b\"c"),
            ("PEM", "-----BEGIN\nabc==\n-----END"),
            ("LAST", "1"),
        ] {
            assert_eq!(value(name), expected, "{name}");
        }
        assert_eq!(values.len(), 9);
    }

    #[test]
    fn what_is_no_line_is_told_by_its_number_and_never_shown() {
        let text =
            "GOOD=1\nhunter2\n2X=hunter2\nOPEN=\"hunter2\nTRAILS=\"a\" hunter2\nMORE=\"a\nb\" hunter2\nLAST hunter2";
        let findings = parse(".dev.vars", text).unwrap_err();
        let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines.first(), Some(&2), "{findings:?}");
        assert!(findings.iter().all(|finding| !format!("{finding:?}").contains("hunter2")), "{findings:?}");
        assert_eq!(lines.last(), Some(&8), "{findings:?}");
    }
}
