//! The queue as rows: the walk that finds what is due, the list an admin sees, and an admin's retry and drop.
//!
//! A filter becomes SQL with bound parameters alone; `%` and `_` in it mean themselves.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row, params, params_from_iter};

use super::apply::{self, Effects};
use super::claims::{CLAIM_BYTES, Claimed, Claims, Position};
use super::{Delivery, DeliveryKey, QueueEntry, QueueFilter, StoreError, Task};
use crate::event::{Event, Kind, shown_url};
use crate::mail::{MessageId, Timestamp};

pub(super) const DUE: &str = "SELECT message, n, due, queued_at, destination, task, attempts, delay_noticed \
     FROM deliveries WHERE state = 0 AND due <= ?1 AND (due, message, n) > (?2, ?3, ?4) \
     ORDER BY due, message, n LIMIT ?5";
pub(super) const NEXT_DUE: &str = "SELECT due FROM deliveries WHERE state = 0 AND (due, message, n) > (?1, ?2, ?3) \
     ORDER BY due, message, n LIMIT 1";
pub(super) const OLDEST: &str = "SELECT queued_at FROM deliveries WHERE state = 0 ORDER BY message, n LIMIT 1";
pub(super) const PARK: &str =
    "UPDATE deliveries SET state = 1, last_error = ?3 WHERE message = ?1 AND n = ?2 AND state = 0";
pub(super) const RETRY: &str = "UPDATE deliveries SET due = ?3, attempts = iif(state = 1, 0, attempts), \
     queued_at = iif(state = 1, ?3, queued_at), state = 0 WHERE message = ?1 AND n = ?2";
pub(super) const DISCARD: &str = "DELETE FROM deliveries WHERE message = ?1 AND n = ?2";

/// Rows looked at in one step of a walk.
const STEP: usize = 256;
/// Rows that one walk looks at: the writer has more to do.
const WALK: usize = 8192;
/// Rows of an admin's batch.
const BATCH: usize = 2000;
/// Lines of a list where none are asked for.
const LINES: usize = 100;

/// Claims what is due, up to `limit`. Returns the rows that can't be read.
pub(super) fn walk(
    connection: &Connection,
    claims: &Claims,
    now: Timestamp,
    limit: usize,
    found: &mut Claimed,
) -> Result<Vec<Unreadable>, StoreError> {
    let mut unreadable = Vec::new();
    let mut position = claims.walk();
    let (mut wanted, mut looked, mut octets) = (limit, 0, 0);
    loop {
        let step = wanted.min(STEP);
        if step == 0 || looked >= WALK || octets >= CLAIM_BYTES {
            claims.walked(position, Some(now.as_millis()));
            return Ok(unreadable);
        }
        let rows = due(connection, now, position, (step, &mut octets))?;
        let ended = rows.len() < step && octets < CLAIM_BYTES;
        looked += rows.len();
        let mut met = Vec::with_capacity(rows.len());
        for (place, row) in rows {
            position = place.unwrap_or(position);
            match row {
                Ok(delivery) => met.push(delivery),
                Err(why) => unreadable.push(why),
            }
        }
        let claimed = claims.claim(met);
        wanted -= claimed.len();
        found.extend(claimed);
        if ended {
            claims.walked(position, next_due(connection, position)?);
            return Ok(unreadable);
        }
    }
}

/// When the first of all falls due.
pub(super) fn first_due(connection: &Connection) -> Result<Option<i64>, StoreError> {
    next_due(connection, Position::START)
}

fn next_due(connection: &Connection, after: Position) -> Result<Option<i64>, StoreError> {
    let mut statement = connection.prepare_cached(NEXT_DUE)?;
    let mut rows = statement.query(params![after.due, after.message, after.n])?;
    // What is no number never falls due; `store check` finds it.
    Ok(rows.next()?.and_then(|row| row.get(0).ok()))
}

/// Since when the oldest queued delivery waits. By message, so that no more than the dead before it are passed over.
pub(super) fn oldest_queued(connection: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let mut statement = connection.prepare_cached(OLDEST)?;
    let mut rows = statement.query([])?;
    Ok(rows.next()?.and_then(|row| row.get(0).ok()).map(Timestamp::from_millis))
}

/// A row that can't be read, by its key as it stands there.
#[derive(Debug)]
pub(super) struct Unreadable {
    message: Value,
    n: Value,
    pub why: String,
}

impl Unreadable {
    /// Its message, where that is named rightly.
    pub(super) fn id(&self) -> Option<MessageId> {
        let Value::Blob(octets) = &self.message else { return None };
        octets.as_slice().try_into().ok().map(MessageId::from_bytes)
    }
}

/// Without a place where its key can't be read: the walk goes on from the one before.
type Met = (Option<Position>, Result<Delivery, Unreadable>);

/// Up to so many rows, and no more once they have come to [`CLAIM_BYTES`]: a webhook's row may hold a megabyte.
fn due(
    connection: &Connection,
    now: Timestamp,
    from: Position,
    (limit, octets): (usize, &mut usize),
) -> Result<Vec<Met>, StoreError> {
    let mut statement = connection.prepare_cached(DUE)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![now.as_millis(), from.due, from.message, from.n, limit])?;
    let mut met = Vec::new();
    while *octets < CLAIM_BYTES
        && let Some(row) = rows.next()?
    {
        let (message, n) = (row.get(0)?, row.get(1)?);
        let unreadable = |why: String| Unreadable { message, n, why };
        met.push(match place(row) {
            Ok((key, due)) => {
                let read = delivery(row, key, due);
                *octets += read.as_ref().map_or(0, Delivery::weight);
                (Some(Position::new(due, key)), read.map_err(|why| unreadable(why.to_string())))
            }
            Err(error) => (None, Err(unreadable(format!("its key can't be read: {error}")))),
        });
    }
    Ok(met)
}

fn place(row: &Row<'_>) -> rusqlite::Result<(DeliveryKey, Timestamp)> {
    let key = DeliveryKey { message: MessageId::from_bytes(row.get(0)?), n: row.get(1)? };
    Ok((key, Timestamp::from_millis(row.get(2)?)))
}

fn delivery(row: &Row<'_>, key: DeliveryKey, due: Timestamp) -> Result<Delivery, Box<dyn std::error::Error>> {
    Ok(Delivery {
        key,
        due,
        queued_at: Timestamp::from_millis(row.get(3)?),
        destination: row.get(4)?,
        task: serde_json::from_str(row.get_ref(5)?.as_str()?).map_err(|e| format!("its task can't be read: {e}"))?,
        attempts: row.get(6)?,
        delay_noticed: row.get(7)?,
        warm: None,
    })
}

/// Sets a delivery that can't be carried out aside, with the reason; how many (0 where it has been already).
pub(super) fn park(connection: &Connection, row: &Unreadable, now: Timestamp) -> Result<i64, StoreError> {
    let parked = connection.prepare_cached(PARK)?.execute(params![row.message, row.n, row.why])?;
    if let Some(id) = row.id() {
        let kind = Kind::Fault { what: "a delivery is parked".to_owned(), detail: row.why.clone() };
        apply::trace(connection, id, &[Event::new(now, kind).of(id)])?;
    }
    Ok(i64::try_from(parked).unwrap_or(i64::MAX))
}

/// What an admin does to queued and dead deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Retry,
    Discard,
}

/// What one batch of an admin's verb came to.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub count: u64,
    pub next: Option<DeliveryKey>,
    pub effects: Effects,
}

pub(super) fn act(
    connection: &Connection,
    verb: Verb,
    filter: &QueueFilter,
    after: Option<DeliveryKey>,
    now: Timestamp,
) -> Result<Batch, StoreError> {
    let limit = filter.limit.unwrap_or(BATCH).min(BATCH);
    let (entries, looked) = read(connection, filter, after, limit)?;
    let mut batch = Batch::default();
    if looked == BATCH {
        batch.next = entries.last().map(|entry| entry.key);
    }
    for entry in entries {
        let (message, n) = (entry.key.message.to_bytes(), entry.key.n);
        let (queued, dead) = if entry.dead { (0, 1) } else { (1, 0) };
        let word = match verb {
            Verb::Retry => {
                connection.prepare_cached(RETRY)?.execute(params![message, n, now.as_millis()])?;
                batch.effects.cold.push(Position::new(now, entry.key));
                batch.effects.queued += dead;
                batch.effects.dead -= dead;
                "retry"
            }
            Verb::Discard => {
                connection.prepare_cached(DISCARD)?.execute(params![message, n])?;
                batch.effects.dropped.insert(entry.key);
                batch.effects.queued -= queued;
                batch.effects.dead -= dead;
                "drop"
            }
        };
        let detail = format!("delivery {n} to {} by {}", entry.target, entry.destination);
        let event = Event::new(now, Kind::Admin { verb: word.to_owned(), detail }).of(entry.key.message);
        apply::trace(connection, entry.key.message, &[event])?;
        batch.count += 1;
    }
    Ok(batch)
}

/// Oldest first.
pub(super) fn list(
    connection: &Connection,
    filter: &QueueFilter,
    after: Option<DeliveryKey>,
    limit: usize,
) -> Result<Vec<QueueEntry>, StoreError> {
    Ok(read(connection, filter, after, limit)?.0)
}

/// The entries, and how many rows there were.
fn read(
    connection: &Connection,
    filter: &QueueFilter,
    after: Option<DeliveryKey>,
    limit: usize,
) -> Result<(Vec<QueueEntry>, usize), StoreError> {
    let (sql, values) = select(filter, after, limit);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut entries, mut looked) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        looked += 1;
        // One whose key can't be read could be neither named nor acted on.
        entries.extend(place_of_entry(row).ok().map(|key| entry(row, key)));
    }
    Ok((entries, looked))
}

/// How many lines a list has.
pub(super) fn lines(filter: &QueueFilter) -> usize {
    filter.limit.unwrap_or(LINES).min(10_000)
}

pub(super) fn select(filter: &QueueFilter, after: Option<DeliveryKey>, limit: usize) -> (String, Vec<Value>) {
    let mut sql =
        "SELECT d.message, d.n, d.task, d.destination, d.attempts, d.queued_at, d.due, d.state, d.last_error, \
         m.sender FROM deliveries AS d LEFT JOIN messages AS m ON m.id = d.message WHERE TRUE"
            .to_owned();
    let mut values = Vec::new();
    let mut narrow = |text: &str, value: Value| {
        sql.push_str(text);
        values.push(value);
    };
    if let Some(message) = filter.message {
        narrow(" AND d.message = ?", Value::Blob(message.to_bytes().to_vec()));
    }
    if let Some(part) = &filter.sender {
        narrow(" AND m.sender LIKE ? ESCAPE '\\'", like(part));
    }
    if let Some(part) = &filter.recipient {
        narrow(
            " AND iif(json_valid(d.task), json_extract(d.task, '$.recipient', '$.recipient.address'), m.recipients) \
             LIKE ? ESCAPE '\\'",
            like(part),
        );
    }
    if let Some(part) = &filter.destination {
        narrow(" AND d.destination LIKE ? ESCAPE '\\'", like(part));
    }
    if let Some(before) = filter.before {
        narrow(" AND d.queued_at < ?", Value::Integer(before.as_millis()));
    }
    if let Some(part) = &filter.error {
        narrow(" AND d.last_error LIKE ? ESCAPE '\\'", like(part));
    }
    if let Some(dead) = filter.dead {
        narrow(" AND d.state = ?", Value::Integer(dead.into()));
    }
    if let Some(after) = after {
        narrow(" AND (d.message, d.n) > (?", Value::Blob(after.message.to_bytes().to_vec()));
        narrow(", ?)", Value::Integer(after.n.into()));
    }
    narrow(" ORDER BY d.message, d.n LIMIT ?", Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
    (sql, values)
}

/// Part of a text, whatever stands in it.
pub(super) fn like(part: &str) -> Value {
    let mut pattern = String::with_capacity(part.len() + 2);
    pattern.push('%');
    for character in part.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    Value::Text(pattern)
}

fn place_of_entry(row: &Row<'_>) -> rusqlite::Result<DeliveryKey> {
    Ok(DeliveryKey { message: MessageId::from_bytes(row.get(0)?), n: row.get(1)? })
}

/// What can't be read of it is blank: an admin must see the rest of the queue.
fn entry(row: &Row<'_>, key: DeliveryKey) -> QueueEntry {
    let task: Option<Task> = row.get_ref(2).ok().and_then(|text| serde_json::from_str(text.as_str().ok()?).ok());
    let (kind, target) = task.as_ref().map_or(("unreadable", String::new()), |task| (task.kind(), task.target()));
    let time = |column| Timestamp::from_millis(row.get(column).unwrap_or_default());
    QueueEntry {
        key,
        kind: kind.to_owned(),
        destination: text(row, 3).unwrap_or_default(),
        target,
        sender: text(row, 9).as_deref().and_then(super::messages::address),
        attempts: row.get(4).unwrap_or_default(),
        queued_at: time(5),
        due: time(6),
        dead: row.get::<_, i64>(7).unwrap_or_default() != 0,
        last_error: text(row, 8),
    }
}

/// A column's text as far as it can be read, for what is shown.
pub(super) fn text(row: &Row<'_>, column: usize) -> Option<String> {
    match row.get_ref(column) {
        Ok(ValueRef::Text(octets)) => Some(String::from_utf8_lossy(octets).into_owned()),
        _ => None,
    }
}

impl Task {
    /// relay, webhook, notice, decide, tell.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Relay(_) => "relay",
            Self::Webhook(_) => "webhook",
            Self::Notice(_) => "notice",
            Self::Decide(_) => "decide",
            Self::Tell(_) => "tell",
        }
    }

    /// Whom it is for, as it may be shown: a webhook's URL may hold a login or a key.
    #[must_use]
    pub fn target(&self) -> String {
        match self {
            Self::Relay(task) => task.recipient.to_string(),
            Self::Webhook(task) => task.binding.clone().unwrap_or_else(|| shown_url(&task.url)),
            Self::Notice(task) => task.recipient.to_string(),
            Self::Decide(task) => task.recipient.address.to_string(),
            Self::Tell(task) => task.recipient.to_string(),
        }
    }
}
