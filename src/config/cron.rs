//! When a worker runs by itself: a cron expression as Cloudflare has them, in UTC.
//!
//! Pure. Five fields: minute, hour, day of the month, month, day of the week, which goes from 1, Sunday, to 7, Saturday.
//! With a day of the month and one of the week, either will do.

use std::cmp::Ordering;
use std::fmt;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::time::{CivilDate, CivilDateTime, CivilTime, CronDateTime, Resolution, Weekday};
use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use super::leaf::Leaf;
use crate::mail::Timestamp;

/// Octets of an expression.
const MAX_LENGTH: usize = 200;
const HELP: &str = "write five fields: minute, hour, day of the month, month, day of the week (1 or SUN to 7 or SAT), as \"0 9 * * MON\", in UTC";

/// An expression that has a time to come.
#[derive(Clone)]
pub struct Cron {
    text: String,
    pattern: croner::Cron,
}

impl Cron {
    /// As it is written in the configuration.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The last of its times that are after `after` and not after `until`.
    #[must_use]
    pub fn latest(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let found = self.pattern.find_previous_occurrence(&Utc::of(until)?, true).ok()?.timestamp()?;
        (found > after && found <= until).then_some(found)
    }

    /// Its next time.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.pattern.find_next_occurrence(&Utc::of(after)?, false).ok()?.timestamp()
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Leaf for Cron {
    const WHAT: &'static str = "a cron expression, as in \"0 9 * * MON\"";
    const EXAMPLE: &'static str = "0 9 * * MON";

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{why}\n{HELP}");
        if text.len() > MAX_LENGTH {
            return Err(wrong(&format!("a cron expression has at most {MAX_LENGTH} octets")));
        }
        let fields = text.split_whitespace().count();
        if fields != 5 {
            return Err(wrong(&format!("a cron expression has five fields, this has {fields}")));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .alternative_weekdays(true)
            .build();
        let pattern = parser.parse(text).map_err(|error| wrong(&format!("this is no cron expression: {error}")))?;
        let cron = Self { text: text.split_whitespace().collect::<Vec<_>>().join(" "), pattern };
        // No clock here: a time that comes at all comes within the calendar's own cycle.
        if cron.next(Timestamp::from_millis(0)).is_none() {
            return Err(wrong("there is no such day, and this would never run"));
        }
        Ok(cron)
    }
}

/// A moment, for the crate that looks for the next one.
#[derive(Clone, Copy)]
struct Utc(DateTime);

impl Utc {
    fn of(at: Timestamp) -> Option<Self> {
        let at = jiff::Timestamp::from_millisecond(at.as_secs().checked_mul(1000)?).ok()?;
        Some(Self(Offset::UTC.to_datetime(at)))
    }

    fn timestamp(self) -> Option<Timestamp> {
        Some(Timestamp::from_millis(Offset::UTC.to_timestamp(self.0).ok()?.as_millisecond()))
    }
}

fn part<T: TryInto<u32>>(number: T) -> u32 {
    number.try_into().unwrap_or_default()
}

fn small<T: TryFrom<u32>>(number: u32) -> Result<T, CronError> {
    T::try_from(number).map_err(|_| CronError::InvalidDate)
}

impl CronDateTime for Utc {
    fn to_civil(&self) -> CivilDateTime {
        let at = self.0;
        let date = CivilDate::from_parts_unchecked(i32::from(at.year()), part(at.month()), part(at.day()));
        let time = CivilTime::from_parts_unchecked(part(at.hour()), part(at.minute()), part(at.second()));
        CivilDateTime::new(date, time)
    }

    fn civil_weekday(&self) -> Weekday {
        Weekday::from_days_from_sunday(part(self.0.weekday().to_sunday_zero_offset()))
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        let (month, day) = (small(civil.month())?, small(civil.day())?);
        let (hour, minute, second) = (small(civil.hour())?, small(civil.minute())?, small(civil.second())?);
        let at = DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| CronError::InvalidDate)?;
        Ok(Resolution::Single(Self(at)))
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Self)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    fn next(cron: &str, after: &str) -> String {
        Cron::parse(cron).unwrap().next(at(after)).unwrap().to_string()
    }

    #[test]
    fn times_are_cloudflares() {
        // 28 November 2026 is a Saturday.
        let from = "2026-11-28T21:00:00Z";
        for (cron, time) in [
            ("* * * * *", "2026-11-28T21:01:00.000Z"),
            ("*/30 * * * *", "2026-11-28T21:30:00.000Z"),
            ("0 9 * * 1", "2026-11-29T09:00:00.000Z"),
            ("0 9 * * MON", "2026-11-30T09:00:00.000Z"),
            ("0 9 * * mon-fri", "2026-11-30T09:00:00.000Z"),
            ("0  9 1 jan *", "2027-01-01T09:00:00.000Z"),
            ("59 23 LW * *", "2026-11-30T23:59:00.000Z"),
            ("0 0 L * *", "2026-11-30T00:00:00.000Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00.000Z"),
        ] {
            assert_eq!(next(cron, from), time, "{cron}");
        }
    }

    #[test]
    fn of_what_was_missed_there_is_the_last_alone() {
        let cron = Cron::parse("0 * * * *").unwrap();
        let latest = |after: &str, until: &str| cron.latest(at(after), at(until)).map(|found| found.to_string());
        assert_eq!(latest("2026-11-28T01:30:00Z", "2026-11-28T09:10:00Z").unwrap(), "2026-11-28T09:00:00.000Z");
        assert_eq!(latest("2026-11-28T09:00:00Z", "2026-11-28T09:59:59Z"), None);
        assert_eq!(latest("2026-11-28T09:00:00Z", "2026-11-28T10:00:00Z").unwrap(), "2026-11-28T10:00:00.000Z");
        // A clock that was set back runs nothing twice.
        assert_eq!(latest("2026-11-28T09:00:00Z", "2026-11-28T08:30:00Z"), None);
    }

    #[test]
    fn what_is_none_is_told() {
        for (cron, why) in [
            ("0 9 * *", "this has 4"),
            ("0 0 9 * * 1", "this has 6"),
            ("@daily", "this has 1"),
            ("61 * * * *", "no cron expression"),
            ("0 9 * * 0", "no cron expression"),
            ("x 9 * * 1", "no cron expression"),
            ("0 0 30 2 *", "never run"),
        ] {
            let error = Cron::parse(cron).unwrap_err();
            assert!(error.contains(why) && error.contains("write five fields"), "{cron}: {error}");
        }
    }
}
