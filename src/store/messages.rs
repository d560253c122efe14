//! The list of messages and one message in full, from rows.
//!
//! Paging is by id, which is by time. What can't be read is shown as a fault in its place, never an error of the whole.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::queue::{self, like, text};
use super::spool::Place;
use super::{MessageDetail, MessageFilter, MessageOutcome, MessageSummary, QueueFilter, StoreError};
use crate::event::{Event, Kind};
use crate::mail::{Address, Client, Envelope, MessageId, Timestamp};

/// Lines of a list where none are asked for.
const LINES: usize = 50;

const COLUMNS: &str = "SELECT m.id, m.sender, m.recipients, m.subject, m.size, m.outcome, m.client, m.segment, m.mailbox, \
     (SELECT count(*) FROM deliveries AS d WHERE d.message = m.id AND d.state = 0), \
     (SELECT count(*) FROM deliveries AS d WHERE d.message = m.id AND d.state = 1) FROM messages AS m";
pub(super) const TRACE: &str = "SELECT events FROM trace WHERE message = ?1 ORDER BY seq";
pub(super) const PLACE: &str = "SELECT segment, start, head_size, size, envelope, client FROM messages WHERE id = ?1";

pub(super) fn select(filter: &MessageFilter) -> (String, Vec<Value>) {
    let mut sql = format!("{COLUMNS} WHERE TRUE");
    let mut values = Vec::new();
    let mut narrow = |text: &str, value: Value| {
        sql.push_str(text);
        values.push(value);
    };
    if let Some(before) = filter.before {
        narrow(" AND m.id < ?", Value::Blob(before.to_bytes().to_vec()));
    }
    if let Some(since) = filter.since {
        narrow(" AND m.id >= ?", Value::Blob(MessageId::floor(since).to_bytes().to_vec()));
    }
    for (column, part) in [("sender", &filter.sender), ("recipients", &filter.recipient), ("subject", &filter.subject)]
    {
        if let Some(part) = part {
            narrow(&format!(" AND m.{column} LIKE ? ESCAPE '\\'"), like(part));
        }
    }
    if let Some(outcome) = filter.outcome {
        narrow(" AND m.outcome = ?", Value::Integer(outcome.number()));
    }
    let limit = filter.limit.unwrap_or(LINES).min(1000);
    narrow(" ORDER BY m.id DESC LIMIT ?", Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
    (sql, values)
}

pub(super) fn list(connection: &Connection, filter: &MessageFilter) -> Result<Vec<MessageSummary>, StoreError> {
    let (sql, values) = select(filter);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        // One without an id could not be asked for.
        lines.extend(row.get(0).ok().map(|id| summary(row, MessageId::from_bytes(id))));
    }
    Ok(lines)
}

pub(super) const OLDEST: &str = "SELECT id FROM messages WHERE id >= ?1 ORDER BY id LIMIT 1";

/// When the first one came, of those from then on.
pub(super) fn oldest(connection: &Connection, since: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let since = MessageId::floor(since).to_bytes();
    let found = connection.prepare_cached(OLDEST)?.query_row([since], |row| row.get(0)).optional()?;
    Ok(found.map(|id| MessageId::from_bytes(id).timestamp()))
}

pub(super) fn one() -> String {
    format!("{COLUMNS} WHERE m.id = ?1")
}

pub(super) const DELIVERIES: &str = "SELECT deliveries FROM messages WHERE id = ?1";

/// How many deliveries it has ever had.
pub(super) fn deliveries(connection: &Connection, id: MessageId) -> Result<u32, StoreError> {
    let found = connection.prepare_cached(DELIVERIES)?.query_row([id.to_bytes()], |row| row.get(0)).optional()?;
    found.ok_or_else(|| not_found(id))
}

pub(super) fn detail(connection: &Connection, id: MessageId) -> Result<MessageDetail, StoreError> {
    let found = connection
        .prepare_cached(&one())?
        .query_row([id.to_bytes()], |row| Ok((summary(row, id), text(row, 8))))
        .optional()?;
    let (summary, mailbox) = found.ok_or_else(|| not_found(id))?;
    let filter = QueueFilter { message: Some(id), ..QueueFilter::default() };
    let deliveries = queue::list(connection, &filter, None, 10_000)?;
    Ok(MessageDetail { summary, mailbox, trace: trace(connection, id)?, deliveries })
}

pub(super) fn not_found(id: MessageId) -> StoreError {
    StoreError::NotFound(format!("no message {id}: it never was here, or retention has taken it"))
}

pub(super) fn trace(connection: &Connection, id: MessageId) -> Result<Vec<Event>, StoreError> {
    let mut statement = connection.prepare_cached(TRACE)?;
    let mut rows = statement.query([id.to_bytes()])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let text = row.get_ref(0)?.as_str().unwrap_or_default();
        match serde_json::from_str::<Vec<serde_json::Value>>(text) {
            Ok(each) => events.extend(
                each.into_iter()
                    .map(|value| serde_json::from_value(value).unwrap_or_else(|error| unreadable(id, &error))),
            ),
            Err(error) => events.push(unreadable(id, &error)),
        }
    }
    Ok(events)
}

fn unreadable(id: MessageId, error: &serde_json::Error) -> Event {
    let what = "an event of the trace can't be read".to_owned();
    Event::new(id.timestamp(), Kind::Fault { what, detail: error.to_string() }).of(id)
}

fn summary(row: &Row<'_>, id: MessageId) -> MessageSummary {
    MessageSummary {
        id,
        received_at: id.timestamp(),
        sender: text(row, 1).as_deref().and_then(address),
        recipients: text(row, 2).unwrap_or_default().lines().filter_map(address).collect(),
        subject: text(row, 3),
        size: row.get::<_, i64>(4).unwrap_or_default().unsigned_abs(),
        outcome: MessageOutcome::from_number(row.get(5).unwrap_or_default()),
        queued: row.get(9).unwrap_or_default(),
        dead: row.get(10).unwrap_or_default(),
        ip: text(row, 6).and_then(|text| serde_json::from_str::<Client>(&text).ok()).map(|client| client.ip),
        raw: row.get::<_, i64>(7).is_ok(),
    }
}

/// As it stands in a row.
pub(super) fn address(text: &str) -> Option<Address> {
    Address::bare_postmaster(text).or_else(|| Address::parse(text).ok())
}

/// Where a message's octets lie and what belongs to them.
pub(super) struct Kept {
    pub place: Place,
    pub envelope: Envelope,
    pub client: Option<Client>,
}

pub(super) fn kept(connection: &Connection, id: MessageId) -> Result<Kept, StoreError> {
    let row = connection
        .prepare_cached(PLACE)?
        .query_row(params![id.to_bytes()], |row| {
            let place = (row.get::<_, Option<i64>>(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok((place, row.get::<_, String>(4)?, row.get::<_, Option<String>>(5)?))
        })
        .optional()?;
    let ((segment, start, head_size, size), envelope, client) = row.ok_or_else(|| not_found(id))?;
    let segment =
        segment.ok_or_else(|| StoreError::NotFound(format!("the octets of message {id} are no longer kept")))?;
    let unreadable = |e| StoreError::NotFound(format!("message {id} has a row that can't be read: {e}"));
    Ok(Kept {
        place: Place { segment, start, head_size, size },
        envelope: serde_json::from_str(&envelope).map_err(unreadable)?,
        client: client.map(|text| serde_json::from_str(&text)).transpose().map_err(unreadable)?,
    })
}
