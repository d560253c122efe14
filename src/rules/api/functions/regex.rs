//! Regular expressions over a script's strings.
//!
//! A pattern is found anywhere in the text unless it has `^` and `$`. What is replaced is written as in JavaScript.

use std::sync::Arc;

use regex_automata::PatternID;
use regex_automata::meta::Regex;
use regex_automata::util::captures::Captures;
use rhai::{Array, Dynamic, Engine, ImmutableString, Map, NativeCallContext};

use super::pattern::{Pattern, Patterns};
use super::{Bounds, ScriptResult, charge, fits, say};
use crate::rules::engine::is_overdue;

/// Matches between two looks at the clock.
const MATCHES_A_LOOK: usize = 8;

pub(super) fn register(engine: &mut Engine) {
    let patterns = Arc::new(Patterns::default());
    let of = Arc::clone(&patterns);
    engine.register_fn(
        "regex_match",
        move |context: NativeCallContext, text: ImmutableString, pattern: ImmutableString| -> ScriptResult<bool> {
            Ok(compiled(&context, &of, &text, &pattern)?.regex.is_match(text.as_str()))
        },
    );
    let of = Arc::clone(&patterns);
    engine.register_fn(
        "regex_find",
        move |context: NativeCallContext, text: ImmutableString, pattern: ImmutableString| -> ScriptResult<Dynamic> {
            let found = compiled(&context, &of, &text, &pattern)?.regex.find(text.as_str());
            Ok(found.map_or(Dynamic::UNIT, |found| part(&text, found.range())))
        },
    );
    let of = Arc::clone(&patterns);
    engine.register_fn(
        "regex_find_all",
        move |context: NativeCallContext, text: ImmutableString, pattern: ImmutableString| -> ScriptResult<Array> {
            let pattern = compiled(&context, &of, &text, &pattern)?;
            let all = pattern.regex.find_iter(text.as_str()).map(|found| part(&text, found.range()));
            in_time(&context, all.take(Bounds::of(&context).array))
        },
    );
    let of = Arc::clone(&patterns);
    engine.register_fn(
        "regex_captures",
        move |context: NativeCallContext, text: ImmutableString, pattern: ImmutableString| -> ScriptResult<Dynamic> {
            Ok(captures(&compiled(&context, &of, &text, &pattern)?.regex, &text))
        },
    );
    register_writing(engine, &patterns);
}

/// What makes new texts.
fn register_writing(engine: &mut Engine, patterns: &Arc<Patterns>) {
    let of = Arc::clone(patterns);
    engine.register_fn(
        "regex_split",
        move |context: NativeCallContext, text: ImmutableString, pattern: ImmutableString| -> ScriptResult<Array> {
            let pattern = compiled(&context, &of, &text, &pattern)?;
            let all = pattern.regex.split(text.as_str()).map(|span| part(&text, span.range()));
            in_time(&context, all.take(Bounds::of(&context).array))
        },
    );
    let of = Arc::clone(patterns);
    engine.register_fn(
        "regex_replace",
        move |context: NativeCallContext,
              text: ImmutableString,
              pattern: ImmutableString,
              replacement: ImmutableString|
              -> ScriptResult<ImmutableString> {
            let pattern = compiled(&context, &of, &text, &pattern)?;
            replaced(&context, &pattern.regex, &text, &replacement)
        },
    );
    engine.register_fn("regex_escape", |context: NativeCallContext, text: ImmutableString| -> ScriptResult<String> {
        let escaped = regex_syntax::escape(&text);
        charge(escaped.len());
        fits(&context, escaped.len()).map(|()| escaped)
    });
}

fn compiled(context: &NativeCallContext, patterns: &Patterns, text: &str, pattern: &str) -> ScriptResult<Arc<Pattern>> {
    let pattern = patterns.get(pattern).map_err(|why| say(context, why))?;
    pattern.admit(text.len()).map_err(|why| say(context, why))?;
    Ok(pattern)
}

/// All of them, unless the run's time ends before. One search is linear in the text, but each match begins another, which
/// may look at all of the rest: `.*b|a` over a text without a `b`.
fn in_time(context: &NativeCallContext, parts: impl Iterator<Item = Dynamic>) -> ScriptResult<Array> {
    let mut all = Array::new();
    for part in parts {
        still_in_time(context, all.len())?;
        all.push(part);
    }
    Ok(all)
}

fn still_in_time(context: &NativeCallContext, matches: usize) -> ScriptResult<()> {
    if matches.is_multiple_of(MATCHES_A_LOOK) && is_overdue() {
        return Err(say(
            context,
            "the run's time is over: take a part of the text, or a pattern that finds more at once",
        ));
    }
    Ok(())
}

fn part(text: &str, range: std::ops::Range<usize>) -> Dynamic {
    Dynamic::from(text.get(range).unwrap_or_default().to_owned())
}

/// The groups by their numbers and names; one that took no part is `()`.
fn captures(regex: &Regex, text: &str) -> Dynamic {
    let mut found = regex.create_captures();
    regex.captures(text, &mut found);
    if !found.is_match() {
        return Dynamic::UNIT;
    }
    let mut map = Map::new();
    for (number, name) in regex.group_info().pattern_names(PatternID::ZERO).enumerate() {
        let group = found.get_group(number).map_or(Dynamic::UNIT, |span| part(text, span.range()));
        if let Some(name) = name {
            map.insert(name.into(), group.clone());
        }
        map.insert(number.to_string().into(), group);
    }
    Dynamic::from_map(map)
}

/// A piece of a replacement.
enum Piece<'a> {
    Text(&'a str),
    Group(usize),
}

/// Every match replaced, within the budget.
fn replaced(
    context: &NativeCallContext,
    regex: &Regex,
    text: &str,
    replacement: &str,
) -> ScriptResult<ImmutableString> {
    let pieces = pieces(regex, replacement).map_err(|why| say(context, why))?;
    let (mut result, mut last) = (String::new(), 0);
    for (number, found) in regex.captures_iter(text).enumerate() {
        still_in_time(context, number)?;
        let Some(whole) = found.get_match() else { continue };
        result.push_str(text.get(last..whole.start()).unwrap_or_default());
        for piece in &pieces {
            result.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Group(number) => group(&found, text, *number),
            });
            fits(context, result.len())?;
        }
        charge(pieces.len() * 8 + replacement.len());
        last = whole.end();
    }
    result.push_str(text.get(last..).unwrap_or_default());
    fits(context, result.len())?;
    charge(result.len());
    Ok(result.into())
}

fn group<'a>(found: &Captures, text: &'a str, number: usize) -> &'a str {
    found.get_group(number).and_then(|span| text.get(span.range())).unwrap_or_default()
}

/// `$1`, `$<name>` or `${name}`, `$&` for all of the match, `$$` for a dollar sign.
fn pieces<'a>(regex: &Regex, replacement: &'a str) -> Result<Vec<Piece<'a>>, String> {
    let mut pieces = Vec::new();
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('$') {
        pieces.push(Piece::Text(before));
        let digits = after.bytes().take(2).take_while(u8::is_ascii_digit).count();
        let (piece, taken) = match after.bytes().next() {
            Some(b'$') => (Piece::Text("$"), 1),
            Some(b'&') => (Piece::Group(0), 1),
            Some(b'0'..=b'9') => (numbered(regex, after, digits)?, digits),
            Some(open @ (b'<' | b'{')) => {
                let close = if open == b'<' { '>' } else { '}' };
                let Some(end) = after.find(close) else {
                    return Err(format!("the replacement has ${} without its {close}", char::from(open)));
                };
                (named(regex, after.get(1..end).unwrap_or_default())?, end + 1)
            }
            _ => (Piece::Text("$"), 0),
        };
        pieces.push(piece);
        rest = after.get(taken..).unwrap_or_default();
    }
    pieces.push(Piece::Text(rest));
    pieces.retain(|piece| !matches!(piece, Piece::Text("")));
    Ok(pieces)
}

fn numbered<'a>(regex: &Regex, text: &str, digits: usize) -> Result<Piece<'a>, String> {
    let number = text.get(..digits).unwrap_or_default();
    let groups = regex.captures_len();
    match number.parse::<usize>().ok().filter(|number| *number < groups) {
        Some(number) => Ok(Piece::Group(number)),
        None => Err(format!(
            "the replacement has ${number}, but the pattern has {} (write $$ for a dollar sign)",
            match groups {
                1 => "no group".to_owned(),
                2 => "one group".to_owned(),
                groups => format!("{} groups", groups - 1),
            }
        )),
    }
}

fn named<'a>(regex: &Regex, name: &str) -> Result<Piece<'a>, String> {
    let number = name.parse().ok().filter(|number| *number < regex.captures_len());
    let number = number.or_else(|| regex.group_info().to_index(PatternID::ZERO, name));
    number.map(Piece::Group).ok_or_else(|| {
        let names = regex.group_info().pattern_names(PatternID::ZERO).flatten();
        let names: Vec<&str> = names.collect();
        let help = super::super::env::did_you_mean(name, names.iter().copied(), "named");
        format!("the replacement names a group {}, which the pattern hasn't ({help})", super::shown(name))
    })
}
