//! What an acceptance and a settlement come to in rows, inside the writer's transaction.
//!
//! An error or a stale read leaves nothing of it, neither rows nor octets: the writer sees to that.
//! What must happen in memory once it is committed (claims, gauges) comes back as [`Effects`].

use rusqlite::{Connection, OptionalExtension, params};

use super::claims::Position;
use super::spool::Plan;
use super::{
    Acceptance, Delivery, DeliveryKey, Discharge, Keep, MessageOutcome, NewDelivery, Raw, Redecision, Settled,
    Settlement, StoreError, keys,
};
use crate::event::{Event, Kind};
use crate::mail::{MessageId, Timestamp};

pub(super) const INSERT_MESSAGE: &str = "INSERT INTO messages (id, sender, recipients, envelope, client, subject, \
     header_from, outcome, fingerprint, segment, start, head_size, size, keep_until, mailbox, deliveries) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
pub(super) const INSERT_DELIVERY: &str = "INSERT INTO deliveries \
     (message, n, state, destination, task, attempts, queued_at, due, last_error, delay_noticed) \
     VALUES (?1, ?2, 0, ?3, ?4, 0, ?5, ?6, NULL, 0)";
pub(super) const FIRST_TRACE: &str = "INSERT INTO trace (message, seq, events) VALUES (?1, 0, ?2)";
/// Left out where there is no message: then its number is NULL. Not an INSERT from a SELECT, nor one that may fail, for
/// which SQLite would keep the pages it changes until the statement's end.
pub(super) const INSERT_TRACE: &str = "INSERT OR IGNORE INTO trace (message, seq, events) VALUES (?1, \
     (SELECT (SELECT coalesce(max(seq), -1) + 1 FROM trace WHERE message = ?1) FROM messages WHERE id = ?1), ?2)";
/// What RETURNING returns goes through a table of its own each time, so what is usual does without.
pub(super) const DONE: &str = "DELETE FROM deliveries WHERE message = ?1 AND n = ?2 AND state = 0";
pub(super) const DONE_AT_LAST: &str = "DELETE FROM deliveries WHERE message = ?1 AND n = ?2 RETURNING state";
pub(super) const LATER: &str = "UPDATE deliveries SET due = ?3, attempts = attempts + 1, last_error = ?4, \
     delay_noticed = max(delay_noticed, ?5) WHERE message = ?1 AND n = ?2 RETURNING state";
pub(super) const POSTPONED: &str = "UPDATE deliveries SET due = ?3 WHERE message = ?1 AND n = ?2 RETURNING state";
pub(super) const DEAD: &str = "UPDATE deliveries SET state = 1, attempts = attempts + 1, last_error = ?3 \
     WHERE message = ?1 AND n = ?2 AND state = 0 RETURNING 0";
pub(super) const MORE_DELIVERIES: &str =
    "UPDATE messages SET deliveries = deliveries + ?2 WHERE id = ?1 RETURNING deliveries";
pub(super) const KEEP: &str = "UPDATE messages SET keep_until = max(coalesce(keep_until, ?2), coalesce(?2, keep_until)), \
     mailbox = coalesce(mailbox, ?3) WHERE id = ?1";
/// A quarantine ends by an admin's hand alone.
pub(super) const OUTCOME: &str = "UPDATE messages SET outcome = ?2 WHERE id = ?1 AND outcome <> 6";
pub(super) const RELEASE: &str =
    "UPDATE messages SET outcome = 0 WHERE id = ?1 AND outcome = 6 RETURNING segment IS NOT NULL";
/// Only of what it was when it was decided on.
pub(super) const REDECIDE: &str = "UPDATE messages SET deliveries = deliveries + ?3, outcome = coalesce(?4, outcome) \
     WHERE id = ?1 AND deliveries = ?2 AND segment IS NOT NULL";

/// Longest text kept of an error, in octets.
const MAX_ERROR: usize = 4096;

/// Why a unit left nothing behind.
#[derive(Debug)]
pub(super) enum Refusal {
    Overtaken,
    Error(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Error(error)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Error(error.into())
    }
}

/// What a transaction writes with.
pub(super) struct Writing<'a> {
    pub connection: &'a Connection,
    pub plan: &'a mut Plan,
    pub versions: &'a mut keys::Versions,
    pub now: Timestamp,
}

/// What is to be done in memory once it is committed.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// New deliveries that are due, of each message: held until they are offered.
    pub ready: Vec<Delivery>,
    /// Rows that lie there from now on, held by nobody.
    pub cold: Vec<Position>,
    /// Claims that end; with their due time where they are queued again.
    pub released: Vec<(DeliveryKey, Option<Timestamp>)>,
    /// Rows that an admin has taken off the queue.
    pub dropped: std::collections::HashSet<DeliveryKey>,
    pub queued: i64,
    pub dead: i64,
}

/// One acceptance, and those that it brings along: the effects of each.
pub(super) fn accept(
    writing: &mut Writing<'_>,
    acceptance: &Acceptance,
    effects: &mut Vec<Effects>,
) -> Result<(), Refusal> {
    if !keys::unchanged(writing.connection, &acceptance.kv_reads, writing.now)? {
        return Err(Refusal::Overtaken);
    }
    keys::write(writing.connection, writing.versions, &acceptance.kv_writes, writing.now)?;
    insert_message(writing, acceptance)?;
    let mut own = Effects::default();
    queue(writing, (acceptance.id, 0), &acceptance.deliveries, &mut own)?;
    effects.push(own);
    if !acceptance.events.is_empty() {
        let (id, events) = (acceptance.id.to_bytes(), json(&acceptance.events)?);
        writing.connection.prepare_cached(FIRST_TRACE)?.execute(params![id, events])?;
    }
    acceptance.authored.iter().try_for_each(|authored| accept(writing, authored, effects))
}

fn insert_message(writing: &mut Writing<'_>, acceptance: &Acceptance) -> Result<(), Refusal> {
    let kept =
        acceptance.outcome != MessageOutcome::Deferred && !(acceptance.head.is_empty() && acceptance.body.is_empty());
    let place = match &acceptance.body {
        _ if !kept => None,
        Raw::Here(body) => Some(writing.plan.add(acceptance.id, &acceptance.head, body)?),
        Raw::Stored(stored) => {
            let record = stored.record().ok_or_else(|| StoreError::Failed("the record isn't sealed".to_owned()))?;
            Some(writing.plan.add_apart(record))
        }
    };
    let envelope = json(&acceptance.envelope)?;
    let client = acceptance.client.as_ref().map(json).transpose()?;
    let size = i64::try_from(acceptance.body.len()).unwrap_or(i64::MAX);
    writing.connection.prepare_cached(INSERT_MESSAGE)?.execute(params![
        acceptance.id.to_bytes(),
        acceptance.envelope.sender.as_ref().map(crate::mail::Address::as_str),
        lines(&acceptance.envelope),
        envelope,
        client,
        acceptance.subject,
        acceptance.header_from,
        acceptance.outcome.number(),
        acceptance.fingerprint,
        place.map(|place| place.segment),
        place.map_or(0, |place| place.start),
        place.map_or(0, |place| place.head_size),
        size,
        acceptance.keep_until.map(Timestamp::as_millis),
        acceptance.mailbox,
        i64::try_from(acceptance.deliveries.len()).unwrap_or(i64::MAX),
    ])?;
    Ok(())
}

fn lines(envelope: &crate::mail::Envelope) -> String {
    let mut lines = String::new();
    for (n, recipient) in envelope.recipients.iter().enumerate() {
        if n > 0 {
            lines.push('\n');
        }
        lines.push_str(recipient.address.as_str());
    }
    lines
}

/// Queues deliveries from number `first` on.
fn queue(
    writing: &mut Writing<'_>,
    (message, first): (MessageId, u32),
    deliveries: &[NewDelivery],
    effects: &mut Effects,
) -> Result<(), Refusal> {
    if deliveries.is_empty() {
        return Ok(());
    }
    let mut statement = writing.connection.prepare_cached(INSERT_DELIVERY)?;
    for (n, new) in (first..).zip(deliveries) {
        let (queued_at, due) = (writing.now.as_millis(), new.due.as_millis());
        statement.execute(params![message.to_bytes(), n, new.destination, json(&new.task)?, queued_at, due])?;
        effects.queued += 1;
        let key = DeliveryKey { message, n };
        if new.due > writing.now {
            effects.cold.push(Position::new(new.due, key));
            continue;
        }
        effects.ready.push(Delivery {
            key,
            task: new.task.clone(),
            destination: new.destination.clone(),
            attempts: 0,
            queued_at: writing.now,
            due: new.due,
            delay_noticed: false,
            warm: None,
        });
    }
    Ok(())
}

/// Queues further deliveries of a message that is there.
fn queue_more(
    writing: &mut Writing<'_>,
    message: MessageId,
    deliveries: &[NewDelivery],
    effects: &mut Effects,
) -> Result<(), Refusal> {
    if deliveries.is_empty() {
        return Ok(());
    }
    let more = i64::try_from(deliveries.len()).unwrap_or(i64::MAX);
    let all: Option<i64> = writing
        .connection
        .prepare_cached(MORE_DELIVERIES)?
        .query_row(params![message.to_bytes(), more], |row| row.get(0))
        .optional()?;
    let all = all.ok_or_else(|| StoreError::NotFound(format!("no message {message}")))?;
    let first = u32::try_from(all - more).map_err(|_| StoreError::Failed("too many deliveries".to_owned()))?;
    queue(writing, (message, first), deliveries, effects)
}

/// An admin lets a message out of its quarantine, by these deliveries.
pub(super) fn release(writing: &mut Writing<'_>, release: &Discharge) -> Result<Effects, Refusal> {
    let id = release.id;
    let there: Option<bool> =
        writing.connection.prepare_cached(RELEASE)?.query_row([id.to_bytes()], |row| row.get(0)).optional()?;
    match there {
        Some(true) => {}
        Some(false) => {
            let text = format!("the octets of message {id} are no longer kept: it can't be sent on");
            return Err(StoreError::NotFound(text).into());
        }
        None => return Err(StoreError::NotFound(format!("no message {id} is in quarantine")).into()),
    }
    let targets: Vec<String> = release.deliveries.iter().map(|delivery| delivery.task.target()).collect();
    let kind = Kind::Admin { verb: "release".to_owned(), detail: format!("to {}", targets.join(", ")) };
    trace(writing.connection, id, &[Event::new(writing.now, kind).of(id)])?;
    let mut effects = Effects::default();
    queue_more(writing, id, &release.deliveries, &mut effects)?;
    // Nobody has it in memory: they are found as they fall due.
    effects.cold.extend(effects.ready.drain(..).map(|delivery| Position::new(delivery.due, delivery.key)));
    Ok(effects)
}

/// A message is decided on once more, and gets these deliveries besides those it has had.
pub(super) fn redecide(
    writing: &mut Writing<'_>,
    redecision: &Redecision,
    all: &mut Vec<Effects>,
) -> Result<(), Refusal> {
    let Redecision { id, known, outcome, keep, deliveries, authored, kv_reads, kv_writes, events } = redecision;
    if !keys::unchanged(writing.connection, kv_reads, writing.now)? {
        return Err(Refusal::Overtaken);
    }
    let more = i64::try_from(deliveries.len()).unwrap_or(i64::MAX);
    let values = params![id.to_bytes(), known, more, outcome.map(MessageOutcome::number)];
    if writing.connection.prepare_cached(REDECIDE)?.execute(values)? == 0 {
        let text =
            format!("message {id} isn't there as it was looked at: its octets are gone, or it has been sent since");
        return Err(StoreError::NotFound(text).into());
    }
    keys::write(writing.connection, writing.versions, kv_writes, writing.now)?;
    trace(writing.connection, *id, events)?;
    if let Some(keep) = keep {
        keep_for(writing.connection, *id, keep)?;
    }
    let mut effects = Effects::default();
    queue(writing, (*id, *known), deliveries, &mut effects)?;
    // Nobody has it in memory: they are found as they fall due.
    effects.cold.extend(effects.ready.drain(..).map(|delivery| Position::new(delivery.due, delivery.key)));
    all.push(effects);
    authored.iter().try_for_each(|authored| accept(writing, authored, all))
}

fn keep_for(connection: &Connection, message: MessageId, keep: &Keep) -> Result<(), Refusal> {
    let until = keep.until.map(Timestamp::as_millis);
    connection.prepare_cached(KEEP)?.execute(params![message.to_bytes(), until, keep.mailbox])?;
    Ok(())
}

/// One settlement, and what is accepted by it: the effects of each.
pub(super) fn settle(
    writing: &mut Writing<'_>,
    settlement: &Settlement,
    all: &mut Vec<Effects>,
) -> Result<(), Refusal> {
    if !keys::unchanged(writing.connection, &settlement.kv_reads, writing.now)? {
        return Err(Refusal::Overtaken);
    }
    let mut effects = Effects::default();
    let message = settlement.key.message;
    trace(writing.connection, message, &settlement.events)?;
    if !close(writing.connection, settlement, &mut effects)? {
        // An admin has dropped it while it was under way: what follows from it isn't wanted either.
        all.push(effects);
        return Ok(());
    }
    keys::write(writing.connection, writing.versions, &settlement.kv_writes, writing.now)?;
    queue_more(writing, message, &settlement.then, &mut effects)?;
    if let Some(outcome) = settlement.outcome {
        writing.connection.prepare_cached(OUTCOME)?.execute(params![message.to_bytes(), outcome.number()])?;
    }
    if let Some(keep) = &settlement.keep {
        keep_for(writing.connection, message, keep)?;
    }
    all.push(effects);
    settlement.authored.iter().try_for_each(|authored| accept(writing, authored, all))
}

/// Puts the delivery's row into its new state; false where there is none any more.
fn close(connection: &Connection, settlement: &Settlement, effects: &mut Effects) -> Result<bool, Refusal> {
    let (message, n) = (settlement.key.message.to_bytes(), settlement.key.n);
    let state = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let (found, due) = match &settlement.result {
        Settled::Done if connection.prepare_cached(DONE)?.execute(params![message, n])? > 0 => (Ok(0), None),
        Settled::Done => (connection.prepare_cached(DONE_AT_LAST)?.query_row(params![message, n], state), None),
        Settled::Later { due, error, delay_noticed } => {
            let values = params![message, n, due.as_millis(), shortened(error), delay_noticed];
            (connection.prepare_cached(LATER)?.query_row(values, state), Some(*due))
        }
        Settled::Postponed { due } => {
            let values = params![message, n, due.as_millis()];
            (connection.prepare_cached(POSTPONED)?.query_row(values, state), Some(*due))
        }
        Settled::Dead { error } => {
            let values = params![message, n, shortened(error)];
            effects.dead += 1;
            (connection.prepare_cached(DEAD)?.query_row(values, state), None)
        }
    };
    let Some(state) = found.optional()? else {
        effects.dead = 0;
        effects.released.push((settlement.key, None));
        return Ok(false);
    };
    if due.is_none() && state == 0 {
        effects.queued -= 1;
    }
    effects.released.push((settlement.key, due.filter(|_| state == 0)));
    Ok(true)
}

/// Appends events to a message's trace; retention may have taken both.
pub(super) fn trace(connection: &Connection, message: MessageId, events: &[Event]) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    connection.prepare_cached(INSERT_TRACE)?.execute(params![message.to_bytes(), json(&events)?])?;
    Ok(())
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::json(&e))
}

/// A remote's words are as long as it likes.
fn shortened(error: &str) -> &str {
    error.get(..error.floor_char_boundary(MAX_ERROR)).unwrap_or_default()
}

impl MessageOutcome {
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Accepted => 0,
            Self::Stored => 1,
            Self::Dropped => 2,
            Self::Rejected => 3,
            Self::Deferred => 4,
            Self::Authored => 5,
            Self::Quarantined => 6,
        }
    }

    pub(super) fn from_number(number: i64) -> Self {
        match number {
            1 => Self::Stored,
            2 => Self::Dropped,
            3 => Self::Rejected,
            4 => Self::Deferred,
            5 => Self::Authored,
            6 => Self::Quarantined,
            _ => Self::Accepted,
        }
    }

    /// The sender was told 250.
    #[must_use]
    pub fn promised(self) -> bool {
        matches!(self, Self::Accepted | Self::Stored | Self::Dropped | Self::Quarantined)
    }
}
