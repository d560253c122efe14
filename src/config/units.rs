//! Sizes and durations with their units: `"25 MiB"`, `"5 m"`. A number without one is an error that says so.

use std::time::Duration;

/// Octets: `"25 MiB"`, `"512 KB"`, `"0 B"`.
///
/// # Errors
/// The text is no number with a unit of size.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let octets: u64 = trimmed.parse().unwrap_or(0);
        let other = if octets >= 1024 { show_size(octets) } else { format!("{trimmed} MiB") };
        return Err(format!("a size needs its unit\nwrite \"{other}\" or \"{trimmed} B\""));
    }
    match trimmed.parse::<bytesize::ByteSize>() {
        Ok(size) if trimmed.starts_with(|first: char| first.is_ascii_digit()) => Ok(size.as_u64()),
        _ => Err("this is no size\na size is a number with a unit: \"25 MiB\", \"512 KiB\", \"2 GB\"".to_owned()),
    }
}

/// A stretch of time: `"5 m"`, `"7d"`, `"1 h 30 m"`.
///
/// # Errors
/// The text is no number with a unit of time.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!("a duration needs its unit\nwrite \"{trimmed} s\", \"{trimmed} m\", \"{trimmed} h\" …"));
    }
    let parsed = humantime::parse_duration(trimmed).ok().filter(|duration| *duration <= LONGEST);
    parsed.ok_or_else(|| {
        "this is no duration\na duration is a number with a unit: \"500 ms\", \"30 s\", \"5 m\", \"1 h\", \"7d\""
            .to_owned()
    })
}

/// A hundred years: more is a slip, and sums of it would overflow.
const LONGEST: Duration = Duration::from_hours(100 * 366 * 24);

/// A size as the file would have it.
#[must_use]
pub fn show_size(octets: u64) -> String {
    bytesize::ByteSize(octets).display().iec().to_string().replace(".0 ", " ")
}

/// A duration as the file would have it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("25 MiB").unwrap(), 25 << 20);
        assert_eq!(parse_size("512KB").unwrap(), 512_000);
        assert_eq!(parse_size(" 0 B ").unwrap(), 0);
        assert!(parse_size("25").unwrap_err().starts_with("a size needs its unit"));
        for wrong in ["", "MiB", "25 MB MB", "-1 MiB", "25 frogs", "."] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("5 m").unwrap(), Duration::from_mins(5));
        assert_eq!(parse_duration("7d").unwrap(), Duration::from_hours(168));
        assert_eq!(parse_duration("1 h 30 m").unwrap(), Duration::from_mins(90));
        assert_eq!(parse_duration("500 ms").unwrap(), Duration::from_millis(500));
        assert!(parse_duration("5").unwrap_err().starts_with("a duration needs its unit"));
        for wrong in ["", "m", "5 parsecs", "-1 s", "999999 years"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
