//! The log as an admin asks for it: newest first, narrowed, a page at a time.
//!
//! By the key alone; what narrows is looked for in each row, in short steps and in no more rows than [`LOOKED`] a call.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::{LogFilter, LogPage, Logged, StoreError};
use crate::event::{Event, Kind};

pub(super) const OLDER: &str = "SELECT id, at, event FROM log WHERE id < ?1 ORDER BY id DESC LIMIT ?2";

/// Rows of one step.
const STEP: usize = 512;
/// Rows that one call looks at.
const LOOKED: usize = 200_000;
/// Lines where none are asked for.
const LINES: usize = 50;
/// Lines at most.
const MOST: usize = 10_000;
/// Rows are in the order in which they were written, which is nearly that of the events.
const DISORDER: Duration = Duration::from_mins(5);

pub(super) fn list(connection: &Connection, filter: &LogFilter) -> Result<LogPage, StoreError> {
    let wanted = Wanted::new(filter);
    let limit = filter.limit.unwrap_or(LINES).min(MOST);
    let oldest = filter.since.map(|since| since.minus(DISORDER).as_millis());
    let mut page = LogPage::default();
    let (mut before, mut looked) = (filter.before.unwrap_or(i64::MAX), 0);
    let mut statement = connection.prepare_cached(OLDER)?;
    while page.events.len() < limit {
        if looked >= LOOKED {
            page.more_before = Some(before);
            break;
        }
        let mut rows = statement.query(params![before, i64::try_from(STEP).unwrap_or(i64::MAX)])?;
        let mut met = 0;
        while let Some(row) = rows.next()? {
            met += 1;
            before = row.get(0)?;
            // What can't be read is left out; `store check` finds it.
            let at = row.get::<_, i64>(1).unwrap_or(i64::MAX);
            if oldest.is_some_and(|oldest| at < oldest) {
                return Ok(page);
            }
            let event = row.get_ref(2)?.as_str().ok().and_then(|text| serde_json::from_str::<Event>(text).ok());
            if let Some(event) = event.filter(|event| wanted.has(event)) {
                page.events.push(Logged { id: before, event });
            }
            if page.events.len() == limit {
                break;
            }
        }
        looked += met;
        if met == 0 {
            break;
        }
    }
    Ok(page)
}

/// The filter, in lower case.
struct Wanted<'a> {
    filter: &'a LogFilter,
    sender: Option<String>,
    recipient: Option<String>,
    ip: Option<String>,
}

impl<'a> Wanted<'a> {
    fn new(filter: &'a LogFilter) -> Self {
        let lower = |text: &Option<String>| text.as_ref().map(|text| text.to_lowercase());
        Self { filter, sender: lower(&filter.sender), recipient: lower(&filter.recipient), ip: lower(&filter.ip) }
    }

    fn has(&self, event: &Event) -> bool {
        let (senders, recipients) = event.kind.parties();
        let (phase, ip) = match &event.kind {
            Kind::Refused { phase, ip, .. } | Kind::Dropped { phase, ip, .. } => (Some(phase), Some(ip.to_string())),
            _ => (None, None),
        };
        part(self.sender.as_deref(), &senders)
            && part(self.recipient.as_deref(), &recipients)
            && part(self.ip.as_deref(), &[ip.as_deref().unwrap_or_default()])
            && self.filter.phase.as_ref().is_none_or(|wanted| phase == Some(wanted))
            && self.filter.since.is_none_or(|since| event.at >= since)
    }
}

fn part(wanted: Option<&str>, texts: &[&str]) -> bool {
    wanted.is_none_or(|wanted| texts.iter().any(|text| text.to_lowercase().contains(wanted)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::mail::{Reply, Timestamp};

    /// A log of refusals of `u0@…`, `u1@…`, one a second.
    fn log(count: usize) -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        super::super::migrate::migrate(&mut connection, Path::new("fresh")).unwrap();
        for n in 0..count {
            let kind = Kind::Refused {
                phase: if n % 2 == 0 { "rcpt" } else { "data" }.to_owned(),
                ip: [192, 0, 2, u8::try_from(n % 250).unwrap()].into(),
                sender: Some(if n % 3 == 0 { "<>".to_owned() } else { "Ann@example.org".to_owned() }),
                recipient: Some(format!("u{n}@example.com")),
                reply: Reply::new(550, 7, 1, "no"),
            };
            let event = Event::new(Timestamp::from_millis(i64::try_from(n).unwrap() * 1000), kind);
            let text = serde_json::to_string(&event).unwrap();
            connection.execute(super::super::log::INSERT, params![event.at.as_millis(), text]).unwrap();
        }
        connection
    }

    fn found(connection: &Connection, filter: &LogFilter) -> Vec<i64> {
        list(connection, filter).unwrap().events.iter().map(|logged| logged.id).collect()
    }

    #[test]
    fn the_newest_come_first_a_page_at_a_time() {
        let connection = log(1200);
        let page = LogFilter { limit: Some(700), ..LogFilter::default() };
        let first = found(&connection, &page);
        assert_eq!((first.first(), first.last(), first.len()), (Some(&1200), Some(&501), 700));
        let second = found(&connection, &LogFilter { before: Some(501), ..page });
        assert_eq!((second.first(), second.last(), second.len()), (Some(&500), Some(&1), 500));
    }

    #[test]
    fn all_that_is_asked_for_narrows_together() {
        let connection = log(600);
        let some = |text: &str| Some(text.to_owned());
        let filter = LogFilter { recipient: some("U599@"), ..LogFilter::default() };
        assert_eq!(found(&connection, &filter), [600]);
        let filter = LogFilter { ip: some("192.0.2.7"), phase: some("rcpt"), ..LogFilter::default() };
        assert!(found(&connection, &filter).iter().all(|id| id % 2 == 1));
        let filter = LogFilter { sender: some("<>"), limit: Some(3), ..LogFilter::default() };
        assert_eq!(found(&connection, &filter), [598, 595, 592]);
        let filter = LogFilter { since: Some(Timestamp::from_millis(597_000)), ..LogFilter::default() };
        assert_eq!(found(&connection, &filter), [600, 599, 598]);
    }

    #[test]
    fn a_row_that_cannot_be_read_hides_no_other() {
        let connection = log(3);
        connection.execute("UPDATE log SET event = x'ff00' WHERE id = 2", []).unwrap();
        assert_eq!(found(&connection, &LogFilter::default()), [3, 1]);
    }
}
