//! Moments as texts and in parts, and durations.
//!
//! A moment is an integer, Unix milliseconds, as `ctx.now()` and `message.date` have it; a duration is one, too, in
//! seconds, as `HOUR` and `DAY` are. There is no clock here, and no list of time zones: an offset says which is meant.
//! Standards: RFC 3339, RFC 5322 §3.3, ISO 8601 (numbers of weekdays and weeks).

use std::time::Duration;

use bytes::Bytes;
use jiff::fmt::rfc2822;
use jiff::tz::Offset;
use rhai::{Dynamic, Engine, INT, ImmutableString, Map, NativeCallContext};

use super::super::env::did_you_mean;
use super::parsing::one_line;
use super::{ScriptResult, say, shown};
use crate::mail::Message;

/// Octets of a pattern, and of a text that is read.
const MAX_PATTERN: usize = 200;
const MAX_TEXT: usize = 200;
const RFC3339: &str = "rfc3339";
const RFC5322: &str = "rfc5322";

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("format_date", |context: NativeCallContext, at: INT| format(&context, at, RFC3339, None));
    engine.register_fn("format_date", |context: NativeCallContext, at: INT, pattern: ImmutableString| {
        format(&context, at, &pattern, None)
    });
    engine.register_fn(
        "format_date",
        |context: NativeCallContext, at: INT, pattern: ImmutableString, offset: ImmutableString| {
            format(&context, at, &pattern, Some(&offset))
        },
    );
    engine.register_fn("parse_date", |text: ImmutableString| parse(&text).map_or(Dynamic::UNIT, Dynamic::from));
    engine.register_fn("date_parts", |context: NativeCallContext, at: INT| parts(&context, at, None));
    engine.register_fn("date_parts", |context: NativeCallContext, at: INT, offset: ImmutableString| {
        parts(&context, at, Some(&offset))
    });
    engine.register_fn("date_add", |context: NativeCallContext, at: INT, seconds: INT| -> ScriptResult<INT> {
        let sum = seconds.checked_mul(1000).and_then(|millis| at.checked_add(millis));
        let sum = sum.ok_or_else(|| say(&context, "the sum is no moment"))?;
        moment(&context, sum).map(jiff::Timestamp::as_millisecond)
    });
    engine.register_fn("parse_duration", |context: NativeCallContext, text: ImmutableString| -> ScriptResult<INT> {
        duration(&text).map_err(|why| say(&context, why))
    });
    engine.register_fn("format_duration", |context: NativeCallContext, seconds: INT| -> ScriptResult<String> {
        let seconds = u64::try_from(seconds).map_err(|_| say(&context, "a duration isn't negative"))?;
        Ok(humantime::format_duration(Duration::from_secs(seconds)).to_string())
    });
}

fn moment(context: &NativeCallContext, at: INT) -> ScriptResult<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(at)
        .map_err(|_| say(context, format!("{at} is no moment in Unix milliseconds between the years -9999 and 9999")))
}

/// As in `+01:00`, `-0530` or `Z`.
fn offset(text: &str) -> Result<Offset, String> {
    let wrong = || format!("{} is no offset from UTC: write one like \"+01:00\", or \"Z\"", shown(text));
    if text.eq_ignore_ascii_case("z") {
        return Ok(Offset::UTC);
    }
    let (sign, digits) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(digits), _) => (1, digits),
        (_, Some(digits)) => (-1, digits),
        (None, None) => return Err(wrong()),
    };
    let digits = digits.replacen(':', "", 1);
    if digits.len() != 4 || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: i32 = digits.parse().map_err(|_| wrong())?;
    let (hours, minutes) = (number / 100, number % 100);
    if minutes > 59 || hours > 23 {
        return Err(wrong());
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).map_err(|_| wrong())
}

fn local(context: &NativeCallContext, at: INT, from_utc: Option<&str>) -> ScriptResult<jiff::ZonedDateTime> {
    let at = moment(context, at)?;
    let offset = from_utc.map_or(Ok(Offset::UTC), offset).map_err(|why| say(context, why))?;
    Ok(at.to_zoned_datetime(offset.to_time_zone()))
}

fn format(context: &NativeCallContext, at: INT, pattern: &str, offset: Option<&str>) -> ScriptResult<String> {
    let local = local(context, at, offset)?;
    let in_utc = local.offset() == Offset::UTC;
    let pattern = match pattern {
        RFC3339 if in_utc => "%Y-%m-%dT%H:%M:%S%.3fZ",
        RFC3339 => "%Y-%m-%dT%H:%M:%S%.3f%:z",
        RFC5322 => "%a, %d %b %Y %H:%M:%S %z",
        other if other.len() > MAX_PATTERN => {
            return Err(say(context, format!("a pattern is at most {MAX_PATTERN} octets, this has {}", other.len())));
        }
        other if other.contains('%') => other,
        other => {
            let help = did_you_mean(other, [RFC3339, RFC5322].into_iter(), "named");
            let text = format!("{} is no format: one is named, or has %, as \"%Y-%m-%d\" ({help})", shown(other));
            return Err(say(context, text));
        }
    };
    jiff::fmt::strtime::format(pattern, &local).map_err(|why| say(context, format!("{}: {why}", shown(pattern))))
}

/// A date of RFC 3339, with a time or without, or of RFC 5322.
fn parse(text: &str) -> Option<INT> {
    let text = text.trim();
    if text.len() > MAX_TEXT {
        return None;
    }
    let begins_with_year = text.bytes().take(4).all(|octet| octet.is_ascii_digit()) && text.get(4..5) == Some("-");
    if !begins_with_year {
        let strictly = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok();
        return strictly.map(jiff::Timestamp::as_millisecond).or_else(|| {
            let message = Message::new(Bytes::from(format!("Date: {}\r\n\r\n", one_line(text))));
            message.date().map(crate::mail::Timestamp::as_millis)
        });
    }
    let whole = if text.len() == "2026-11-24".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    whole.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

fn parts(context: &NativeCallContext, at: INT, offset: Option<&str>) -> ScriptResult<Map> {
    let local = local(context, at, offset)?;
    let week = local.iso_week_date();
    let numbers = [
        ("year", INT::from(local.year())),
        ("month", INT::from(local.month())),
        ("day", INT::from(local.day())),
        ("hour", INT::from(local.hour())),
        ("minute", INT::from(local.minute())),
        ("second", INT::from(local.second())),
        ("millisecond", INT::from(local.millisecond())),
        ("weekday", INT::from(local.weekday().to_monday_one_offset())),
        ("week", INT::from(week.week())),
        ("day_of_year", INT::from(local.day_of_year())),
    ];
    Ok(numbers.map(|(name, number)| (name.into(), number.into())).into())
}

/// As in `2h`, `1day 12h`: whole seconds.
fn duration(text: &str) -> Result<INT, String> {
    if text.len() > MAX_TEXT {
        return Err(format!("{} is no duration", shown(text)));
    }
    let duration = humantime::parse_duration(text)
        .map_err(|why| format!("{} is no duration: {why} (write one like \"2h\" or \"1day 12h\")", shown(text)))?;
    if duration.subsec_nanos() != 0 {
        return Err(format!("{} has a part of a second: durations are whole seconds", shown(text)));
    }
    INT::try_from(duration.as_secs()).map_err(|_| format!("{} is too long", shown(text)))
}
