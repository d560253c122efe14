//! The rows, each read as the program reads it: what it couldn't read, or what leads nowhere, is found.

use rusqlite::types::Value;
use rusqlite::{OptionalExtension, Row};

use super::super::spool::Place;
use super::super::{Task, keys, messages};
use super::octets::{Octets, Record};
use super::{Check, Remedy, each_row};
use crate::event::Event;
use crate::mail::{Client, Envelope, MessageId, Recipient};
use crate::store::StoreError;

pub(in crate::store) const MESSAGES: &str = "SELECT id, sender, recipients, envelope, client, segment, start, head_size, size, \
     typeof(id) = 'blob' AND length(id) = 16 AND typeof(recipients) = 'text' AND typeof(envelope) = 'text' \
     AND typeof(sender) IN ('text', 'null') AND typeof(client) IN ('text', 'null') \
     AND typeof(subject) IN ('text', 'null') AND typeof(header_from) IN ('text', 'null') \
     AND typeof(mailbox) IN ('text', 'null') AND typeof(outcome) = 'integer' AND outcome BETWEEN 0 AND 6 \
     AND typeof(fingerprint) = 'blob' AND length(fingerprint) = 16 AND typeof(keep_until) IN ('integer', 'null') \
     AND typeof(deliveries) = 'integer' AND deliveries >= 0 AND typeof(segment) IN ('integer', 'null') \
     AND typeof(start) = 'integer' AND typeof(head_size) = 'integer' AND typeof(size) = 'integer' \
     FROM messages WHERE id > ?1 ORDER BY id LIMIT ?2";
pub(in crate::store) const DELIVERIES: &str = "SELECT d.message, d.n, d.task, d.state, m.id IS NOT NULL, \
     m.segment IS NOT NULL, d.n < m.deliveries, typeof(d.destination) = 'text' AND typeof(d.task) = 'text' \
     AND typeof(d.state) = 'integer' AND d.state IN (0, 1) AND typeof(d.attempts) = 'integer' \
     AND d.attempts BETWEEN 0 AND 4294967295 AND typeof(d.queued_at) = 'integer' AND typeof(d.due) = 'integer' \
     AND typeof(d.last_error) IN ('text', 'null') AND typeof(d.delay_noticed) = 'integer' AND d.delay_noticed IN (0, 1) \
     FROM deliveries AS d LEFT JOIN messages AS m ON m.id = d.message \
     WHERE (d.message, d.n) > (?1, ?2) ORDER BY d.message, d.n LIMIT ?3";
pub(in crate::store) const TRACE: &str = "SELECT t.message, t.seq, t.events, m.id IS NOT NULL FROM trace AS t \
     LEFT JOIN messages AS m ON m.id = t.message WHERE (t.message, t.seq) > (?1, ?2) ORDER BY t.message, t.seq LIMIT ?3";
pub(in crate::store) const KEYS: &str = "SELECT namespace, key, kind, metadata, expires_at, version, value FROM kv \
     WHERE (namespace, key) > (?1, ?2) ORDER BY namespace, key LIMIT ?3";
pub(in crate::store) const LOG: &str = "SELECT id, event FROM log WHERE id > ?1 ORDER BY id LIMIT ?2";
pub(in crate::store) const VERSIONS: &str = "SELECT value FROM counters WHERE name = 'kv_version'";

const KEEP_MESSAGE: &str = "SELECT * FROM messages WHERE id = ?1";
const KEEP_DELIVERY: &str = "SELECT * FROM deliveries WHERE message = ?1 AND n = ?2";
const KEEP_TRACE: &str = "SELECT * FROM trace WHERE message = ?1 AND seq = ?2";
const KEEP_KEY: &str = "SELECT * FROM kv WHERE namespace = ?1 AND key = ?2";
const KEEP_LOG: &str = "SELECT * FROM log WHERE id = ?1";

/// What has the wrong type is set to what says least; `envelope` and `client` are read by themselves.
const RIGHT_TYPES: &str = "UPDATE messages SET sender = iif(typeof(sender) IN ('text', 'null'), sender, NULL), \
     recipients = iif(typeof(recipients) = 'text', recipients, ''), \
     envelope = iif(typeof(envelope) = 'text', envelope, ''), \
     client = iif(typeof(client) IN ('text', 'null'), client, NULL), \
     subject = iif(typeof(subject) IN ('text', 'null'), subject, NULL), \
     header_from = iif(typeof(header_from) IN ('text', 'null'), header_from, NULL), \
     mailbox = iif(typeof(mailbox) IN ('text', 'null'), mailbox, NULL), \
     outcome = iif(typeof(outcome) = 'integer' AND outcome BETWEEN 0 AND 6, outcome, 0), \
     fingerprint = iif(typeof(fingerprint) = 'blob' AND length(fingerprint) = 16, fingerprint, id), \
     keep_until = iif(typeof(keep_until) IN ('integer', 'null'), keep_until, NULL), \
     deliveries = iif(typeof(deliveries) = 'integer' AND deliveries >= 0, deliveries, 0), \
     segment = iif(typeof(segment) = 'integer' AND typeof(start) = 'integer' AND typeof(head_size) = 'integer' \
         AND typeof(size) = 'integer', segment, NULL), \
     start = iif(typeof(start) = 'integer', start, 0), head_size = iif(typeof(head_size) = 'integer', head_size, 0), \
     size = iif(typeof(size) = 'integer', size, 0) WHERE id = ?1";
const PARKED_TYPES: &str = "UPDATE deliveries SET state = 1, last_error = 'its row was damaged', \
     destination = iif(typeof(destination) = 'text', destination, 'unknown'), \
     task = iif(typeof(task) = 'text', task, ''), \
     attempts = iif(typeof(attempts) = 'integer' AND attempts BETWEEN 0 AND 4294967295, attempts, 0), \
     queued_at = iif(typeof(queued_at) = 'integer', queued_at, 0), due = iif(typeof(due) = 'integer', due, 0), \
     delay_noticed = iif(typeof(delay_noticed) = 'integer' AND delay_noticed IN (0, 1), delay_noticed, 0) \
     WHERE message = ?1 AND n = ?2";

fn row(keep: Option<&'static str>, change: &'static str, key: Vec<Value>, more: Vec<Value>) -> Remedy {
    Remedy::Row { keep, change, key, more }
}

/// A message's id as far as it is one.
fn named(value: &Value) -> String {
    match value {
        Value::Blob(octets) => match <[u8; 16]>::try_from(octets.as_slice()) {
            Ok(octets) => MessageId::from_bytes(octets).to_string(),
            Err(_) => "with an id that is none".to_owned(),
        },
        _ => "with an id that is none".to_owned(),
    }
}

fn is_id(value: &Value) -> bool {
    matches!(value, Value::Blob(octets) if octets.len() == 16)
}

/// The text of a column, empty where it is none.
fn text<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a str, StoreError> {
    Ok(row.get_ref(column)?.as_str().unwrap_or_default())
}

/// Messages, page by page, and the octets of each.
pub(super) fn messages(check: &mut Check<'_>, octets: &mut Octets) -> Result<(), StoreError> {
    let connection = check.connection;
    each_row(connection, MESSAGES, 1, |found| {
        check.report.messages += 1;
        let key: Value = found.get(0)?;
        let name = format!("message {}", named(&key));
        if !is_id(&key) {
            let remedy = row(Some(KEEP_MESSAGE), "DELETE FROM messages WHERE id = ?1", vec![key], Vec::new());
            check.find("message", true, name, "the row is put into the quarantine", remedy);
            return Ok(());
        }
        if !found.get::<_, bool>(9)? {
            let repair = "what can't be read in its row is blanked; the row as it was goes into the quarantine";
            let remedy = row(Some(KEEP_MESSAGE), RIGHT_TYPES, vec![key], Vec::new());
            check.find("message", true, format!("{name}: its row holds values of the wrong kind"), repair, remedy);
            return Ok(());
        }
        envelope(check, found, &key, &name)?;
        let Some(segment) = found.get::<_, Option<i64>>(5)? else { return Ok(()) };
        let place = Place { segment, start: found.get(6)?, head_size: found.get(7)?, size: found.get(8)? };
        check_octets(check, octets, MessageId::from_bytes(found.get(0)?), place)
    })
}

fn envelope(check: &mut Check<'_>, found: &Row<'_>, key: &Value, name: &str) -> Result<(), StoreError> {
    if let Err(error) = serde_json::from_str::<Envelope>(text(found, 3)?) {
        let address = |text: &str| messages::address(text);
        let envelope = Envelope {
            sender: found.get::<_, Option<String>>(1)?.as_deref().and_then(address),
            recipients: text(found, 2)?.lines().filter_map(address).map(Recipient::new).collect(),
            ..Envelope::default()
        };
        let more = vec![Value::Text(super::super::apply::json(&envelope)?)];
        let change = "UPDATE messages SET envelope = ?2 WHERE id = ?1";
        let remedy = row(Some(KEEP_MESSAGE), change, vec![key.clone()], more);
        let repair = "it is made again from the row's sender and recipients, without what DSN (RFC 3461) asked for";
        check.find("message", true, format!("{name}: its envelope can't be read: {error}"), repair, remedy);
    }
    let client = found.get_ref(4)?.as_str_or_null().unwrap_or_default();
    if let Some(Err(error)) = client.map(serde_json::from_str::<Client>) {
        let change = "UPDATE messages SET client = NULL WHERE id = ?1";
        let remedy = row(Some(KEEP_MESSAGE), change, vec![key.clone()], Vec::new());
        let problem = format!("{name}: the client it came from can't be read: {error}");
        check.find("message", false, problem, "it is forgotten; the row as it was goes into the quarantine", remedy);
    }
    Ok(())
}

/// Looks again where it seems damaged: retention moves records and lets them go.
fn check_octets(check: &mut Check<'_>, octets: &mut Octets, id: MessageId, place: Place) -> Result<(), StoreError> {
    let mut place = place;
    for _ in 0..3 {
        let record = octets.verify(id, place)?;
        let content = u64::try_from(place.head_size.saturating_add(place.size)).unwrap_or(0);
        if record == Record::Whole {
            check.report.bytes += content;
            return Ok(());
        }
        let now = check.connection.prepare_cached(messages::PLACE)?.query_row([id.to_bytes()], |row| {
            Ok((row.get::<_, Option<i64>>(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        });
        let Some((Some(segment), start, head_size, size)) = now.optional()? else { return Ok(()) };
        let again = Place { segment, start, head_size, size };
        if again == place {
            damaged(check, octets, id, place, record);
            return Ok(());
        }
        place = again;
    }
    Ok(())
}

fn damaged(check: &mut Check<'_>, octets: &mut Octets, id: MessageId, place: Place, record: Record) {
    match record {
        Record::Whole => {}
        Record::Missing => *octets.missing.entry(place.segment).or_default() += 1,
        Record::Damaged(what) => {
            let repair = "what is left of its octets goes into the quarantine; what of it is queued and can't be sent \
                          is parked; the other messages of the segment move to a new one";
            let problem = format!("message {id}: its octets are damaged: {what}");
            check.find("octets", true, problem, repair, Remedy::Salvage(place.segment));
        }
    }
}

pub(super) fn deliveries(check: &mut Check<'_>) -> Result<(), StoreError> {
    let connection = check.connection;
    each_row(connection, DELIVERIES, 2, |found| {
        check.report.deliveries += 1;
        let key: Vec<Value> = vec![found.get(0)?, found.get(1)?];
        let (message, n) = (found.get::<_, Value>(0)?, found.get::<_, Value>(1)?);
        let numbered = matches!(n, Value::Integer(n) if u32::try_from(n).is_ok());
        let n = if let Value::Integer(n) = n { n.to_string() } else { "?".to_owned() };
        let name = format!("delivery {n} of message {}", named(&message));
        let take_off = |key: Vec<Value>| {
            row(Some(KEEP_DELIVERY), "DELETE FROM deliveries WHERE message = ?1 AND n = ?2", key, Vec::new())
        };
        let aside = "its row goes into the quarantine and off the queue";
        if !is_id(&message) || !numbered {
            check.find("delivery", true, format!("{name}: its key is none"), aside, take_off(key));
        } else if !found.get::<_, bool>(4)? {
            let problem = format!("{name}: there is no such message, and nothing that could be sent");
            check.find("delivery", true, problem, aside, take_off(key));
        } else if !found.get::<_, bool>(7)? {
            let repair = "it is parked among the dead; the row as it was goes into the quarantine";
            let remedy = row(Some(KEEP_DELIVERY), PARKED_TYPES, key, Vec::new());
            check.find("delivery", true, format!("{name}: its row holds values of the wrong kind"), repair, remedy);
        } else {
            queued(check, found, &name, &key)?;
            if !found.get::<_, bool>(6)? {
                let change = "UPDATE messages SET deliveries = max(deliveries, ?2 + 1) WHERE id = ?1";
                let remedy = row(None, change, key, Vec::new());
                let problem = format!("{name}: its number will be given a second time");
                check.find("delivery", false, problem, "the message's count is put right", remedy);
            }
        }
        Ok(())
    })
}

/// What the dispatcher would stumble over. What is dead waits for a person anyway.
fn queued(check: &mut Check<'_>, found: &Row<'_>, name: &str, key: &[Value]) -> Result<(), StoreError> {
    if found.get::<_, i64>(3)? != 0 {
        return Ok(());
    }
    let why = match serde_json::from_str::<Task>(text(found, 2)?) {
        Err(error) => format!("its task can't be read: {error}"),
        Ok(task) if needs_octets(&task) && !found.get::<_, bool>(5)? => "its message's octets are gone".to_owned(),
        Ok(_) => return Ok(()),
    };
    let change = "UPDATE deliveries SET state = 1, last_error = ?3 WHERE message = ?1 AND n = ?2";
    let remedy = row(Some(KEEP_DELIVERY), change, key.to_vec(), vec![Value::Text(why.clone())]);
    check.find(
        "delivery",
        true,
        format!("{name}: {why}"),
        "it is parked among the dead, where `queue list` shows it",
        remedy,
    );
    Ok(())
}

fn needs_octets(task: &Task) -> bool {
    !matches!(task, Task::Webhook(webhook) if !webhook.body.is_made())
}

pub(super) fn trace(check: &mut Check<'_>) -> Result<(), StoreError> {
    let connection = check.connection;
    each_row(connection, TRACE, 2, |found| {
        let key: Vec<Value> = vec![found.get(0)?, found.get(1)?];
        let message: Value = found.get(0)?;
        let name = format!("trace of message {}", named(&message));
        let delete = "DELETE FROM trace WHERE message = ?1 AND seq = ?2";
        let aside = "its row goes into the quarantine";
        if !found.get::<_, bool>(3)? {
            let remedy = row(Some(KEEP_TRACE), delete, key, Vec::new());
            check.find("trace", false, format!("{name}: there is no such message"), aside, remedy);
        } else if let Err(error) = serde_json::from_str::<Vec<Event>>(text(found, 2)?) {
            let remedy = row(Some(KEEP_TRACE), delete, key, Vec::new());
            check.find("trace", false, format!("{name}: its events can't be read: {error}"), aside, remedy);
        }
        Ok(())
    })
}

/// KV, and the counter that its versions come from.
pub(super) fn keys(check: &mut Check<'_>) -> Result<(), StoreError> {
    let connection = check.connection;
    let mut newest = 0;
    each_row(connection, KEYS, 2, |found| {
        newest = newest.max(found.get::<_, i64>(5).unwrap_or_default());
        let key: Vec<Value> = vec![found.get(0)?, found.get(1)?];
        if let Err(error) = keys::entry(found, 2) {
            let name = format!("KV key {}/{}", text(found, 0)?, text(found, 1)?);
            let change = "DELETE FROM kv WHERE namespace = ?1 AND key = ?2";
            let remedy = row(Some(KEEP_KEY), change, key, Vec::new());
            let repair = "its row goes into the quarantine: to workers the key is absent then";
            check.find("kv", true, format!("{name} can't be read: {error}"), repair, remedy);
        }
        Ok(())
    })?;
    let block: Option<Value> = connection.prepare_cached(VERSIONS)?.query_row([], |row| row.get(0)).optional()?;
    if !matches!(block, Some(Value::Integer(block)) if block >= newest >> 32) {
        let change = "INSERT INTO counters (name, value) VALUES ('kv_version', ?1) \
                      ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        let remedy = row(None, change, vec![Value::Integer(newest >> 32)], Vec::new());
        let problem = "the counter of KV versions is gone or behind: a stale read could pass for a fresh one";
        check.find("kv", true, problem.to_owned(), "it is set past the newest version", remedy);
    }
    Ok(())
}

pub(super) fn log(check: &mut Check<'_>) -> Result<(), StoreError> {
    let connection = check.connection;
    each_row(connection, LOG, 1, |found| {
        if let Err(error) = serde_json::from_str::<Event>(text(found, 1)?) {
            let key: Value = found.get(0)?;
            let remedy = row(Some(KEEP_LOG), "DELETE FROM log WHERE id = ?1", vec![key], Vec::new());
            check.find(
                "log",
                false,
                format!("an event of the log can't be read: {error}"),
                "it goes into the quarantine",
                remedy,
            );
        }
        Ok(())
    })
}
