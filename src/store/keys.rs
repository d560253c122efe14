//! Namespaces of keys in SQLite: what workers read, and what is checked and written when a run commits.
//!
//! Expired keys are absent, whether retention has taken them yet or not. A version is never given twice.
//! An increment of what isn't an integer is an error and nothing is written: to count from 0 would lose what was there.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::StoreError;
use crate::kv::{Entry, Key, MAX_LIST, Page, Read, Value, Write};
use crate::mail::Timestamp;

const TEXT: i64 = 0;
const BLOB: i64 = 1;
const JSON: i64 = 2;

pub(super) const GET: &str =
    "SELECT kind, metadata, expires_at, version, value FROM kv WHERE namespace = ?1 AND key = ?2";
pub(super) const LIST: &str = "SELECT key, metadata, expires_at, version FROM kv \
     WHERE namespace = ?1 AND key >= ?2 AND key < ?3 AND key > ?4 ORDER BY key";
pub(super) const LIST_TO_END: &str = "SELECT key, metadata, expires_at, version FROM kv \
     WHERE namespace = ?1 AND key >= ?2 AND key > ?3 ORDER BY key";
pub(super) const STAMP: &str = "SELECT version, expires_at FROM kv WHERE namespace = ?1 AND key = ?2";
pub(super) const PUT: &str = "INSERT INTO kv (namespace, key, kind, metadata, expires_at, version, value) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (namespace, key) DO UPDATE SET \
     kind = excluded.kind, metadata = excluded.metadata, expires_at = excluded.expires_at, \
     version = excluded.version, value = excluded.value";
pub(super) const COUNTER: &str = "SELECT value FROM counters WHERE name = 'kv_version'";
pub(super) const SET_COUNTER: &str = "INSERT INTO counters (name, value) VALUES ('kv_version', ?1) \
     ON CONFLICT (name) DO UPDATE SET value = excluded.value";
pub(super) const NEWEST_VERSION: &str =
    "SELECT coalesce(max(version), 0) FROM kv WHERE typeof(version) = 'integer' AND version BETWEEN 0 AND ?1";
pub(super) const DELETE: &str = "DELETE FROM kv WHERE namespace = ?1 AND key = ?2";

/// Blocks of versions that are given, of 2^32 each; beyond lies what a damaged counter says.
const MAX_BLOCK: i64 = 1 << 30;

/// Where versions come from. A block of them is reserved before the first is given, so that none comes twice.
#[derive(Debug, Default)]
pub(super) struct Versions {
    last: Option<i64>,
}

impl Versions {
    /// Outside of a transaction, once for each opening. Durable before one is given.
    ///
    /// A counter that is gone or can't be read is made again from the keys themselves.
    pub(super) fn reserve(&mut self, connection: &Connection) -> Result<(), StoreError> {
        if self.last.is_some() {
            return Ok(());
        }
        // A statement that returns a row commits when it is reset, and nobody would hear of a commit that failed.
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let counted = transaction.query_row(COUNTER, [], |row| Ok(row.get::<_, i64>(0).ok())).optional()?.flatten();
        let block = match counted.filter(|block| (0..MAX_BLOCK).contains(block)) {
            Some(block) => block,
            None => transaction.query_row(NEWEST_VERSION, [MAX_BLOCK << 32], |row| row.get::<_, i64>(0))? >> 32,
        };
        let block = block + 1;
        transaction.execute(SET_COUNTER, [block])?;
        transaction.commit()?;
        self.last = Some(block << 32);
        Ok(())
    }

    fn next(&mut self) -> i64 {
        *self.last.insert(self.last.unwrap_or(0) + 1)
    }
}

pub(super) fn get(
    connection: &Connection,
    namespace: &str,
    key: &str,
    now: Timestamp,
) -> Result<Option<Entry>, StoreError> {
    let entry = connection.prepare_cached(GET)?.query_row([namespace, key], |row| Ok(entry(row, 0))).optional()?;
    match entry {
        Some(entry) => {
            let entry =
                entry.map_err(|e| StoreError::Failed(format!("KV key {namespace}/{key} is unreadable: {e}")))?;
            Ok(Some(entry).filter(|entry| lives(entry.expires_at.map(Timestamp::as_millis), now)))
        }
        None => Ok(None),
    }
}

fn lives(expires_at: Option<i64>, now: Timestamp) -> bool {
    expires_at.is_none_or(|at| at > now.as_millis())
}

/// From the columns of [`GET`], which begin at `first`.
pub(super) fn entry(row: &Row<'_>, first: usize) -> Result<Entry, Box<dyn std::error::Error>> {
    let octets: Vec<u8> = row.get(first + 4)?;
    let value = match row.get::<_, i64>(first)? {
        TEXT => Value::Text(String::from_utf8(octets)?),
        BLOB => Value::Blob(octets),
        _ => Value::Json(serde_json::from_slice(&octets)?),
    };
    let metadata: Option<String> = row.get(first + 1)?;
    Ok(Entry {
        value,
        metadata: metadata.map(|text| serde_json::from_str(&text)).transpose()?,
        expires_at: row.get::<_, Option<i64>>(first + 2)?.map(Timestamp::from_millis),
        version: row.get::<_, i64>(first + 3)?.unsigned_abs(),
    })
}

/// Keys that start with `prefix`, after `cursor`, at most `limit` that live.
pub(super) fn list(
    connection: &Connection,
    namespace: &str,
    prefix: &str,
    cursor: Option<&str>,
    limit: usize,
    now: Timestamp,
) -> Result<Page, StoreError> {
    let limit = limit.clamp(1, MAX_LIST);
    let mut page = Page::default();
    walk(connection, namespace, prefix, cursor, |key| {
        if !lives(key.expires_at.map(Timestamp::as_millis), now) {
            return true;
        }
        if page.keys.len() == limit {
            page.cursor = page.keys.last().map(|last| last.name.clone());
            return false;
        }
        page.keys.push(key);
        true
    })?;
    Ok(page)
}

/// Every key of the prefix after the cursor, expired ones too, for as long as `visit` says so.
fn walk(
    connection: &Connection,
    namespace: &str,
    prefix: &str,
    cursor: Option<&str>,
    mut visit: impl FnMut(Key) -> bool,
) -> Result<(), StoreError> {
    let after = cursor.unwrap_or_default();
    let end = successor(prefix);
    let mut statement = connection.prepare_cached(if end.is_some() { LIST } else { LIST_TO_END })?;
    let mut rows = match &end {
        Some(end) => statement.query(params![namespace, prefix, end, after])?,
        None => statement.query(params![namespace, prefix, after])?,
    };
    while let Some(row) = rows.next()? {
        let metadata: Option<String> = row.get(1)?;
        let key = Key {
            name: row.get(0)?,
            metadata: metadata.and_then(|text| serde_json::from_str(&text).ok()),
            expires_at: row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis),
            version: row.get::<_, i64>(3)?.unsigned_abs(),
        };
        if !visit(key) {
            break;
        }
    }
    Ok(())
}

/// The first text past all that start with `prefix`; `None` where there is none.
fn successor(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

/// Whether all that a run has read is still so.
pub(super) fn unchanged(connection: &Connection, reads: &[Read], now: Timestamp) -> Result<bool, StoreError> {
    for read in reads {
        let same = match read {
            Read::Key { namespace, key, version } => {
                let found: Option<(i64, Option<i64>)> = connection
                    .prepare_cached(STAMP)?
                    .query_row([namespace, key], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?;
                match (found, version) {
                    (Some((found, _)), Some(read)) => found.unsigned_abs() == *read,
                    (Some((_, expires_at)), None) => !lives(expires_at, now),
                    (None, read) => read.is_none(),
                }
            }
            Read::List { namespace, prefix, cursor, limit, seen } => {
                same_list(connection, (namespace, prefix, cursor.as_deref()), *limit, seen, now)?
            }
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A key that was seen must be there with its version; one that wasn't may only be an expired one.
fn same_list(
    connection: &Connection,
    (namespace, prefix, cursor): (&str, &str, Option<&str>),
    limit: usize,
    seen: &[(String, u64)],
    now: Timestamp,
) -> Result<bool, StoreError> {
    let full = seen.len() >= limit.clamp(1, MAX_LIST);
    let mut left = seen.iter();
    let mut next = left.next();
    let mut same = true;
    walk(connection, namespace, prefix, cursor, |key| {
        match next {
            Some((name, version)) if *name == key.name => {
                same = *version == key.version;
                next = left.next();
            }
            // Past the last key of a full page lies what the run hasn't seen.
            None if full => return false,
            _ => same = !lives(key.expires_at.map(Timestamp::as_millis), now),
        }
        same
    })?;
    Ok(same && next.is_none())
}

/// Applies a run's writes, in order.
///
/// # Errors
/// `Failed` for an increment of what is no integer, or beyond 64 bits.
pub(super) fn write(
    connection: &Connection,
    versions: &mut Versions,
    writes: &[Write],
    now: Timestamp,
) -> Result<(), StoreError> {
    for write in writes {
        match write {
            Write::Put { namespace, key, value, metadata, expires_at } => {
                put(connection, versions, (namespace, key), value, metadata.as_ref(), *expires_at)?;
            }
            Write::Delete { namespace, key } => {
                connection.prepare_cached(DELETE)?.execute([namespace, key])?;
            }
            Write::Increment { namespace, key, by } => {
                let found = get(connection, namespace, key, now)?;
                let sum = add(found.as_ref(), *by).map_err(|why| {
                    StoreError::Failed(format!("increment of KV key {namespace}/{key}: {why}; nothing was written"))
                })?;
                let (metadata, expires_at) = found.map_or((None, None), |entry| (entry.metadata, entry.expires_at));
                put(connection, versions, (namespace, key), &Value::Json(sum.into()), metadata.as_ref(), expires_at)?;
            }
        }
    }
    Ok(())
}

fn add(found: Option<&Entry>, by: i64) -> Result<i64, &'static str> {
    let before = match found.map(|entry| &entry.value) {
        None => 0,
        Some(Value::Json(number)) => number.as_i64().ok_or("it holds JSON that is no integer of 64 bits")?,
        Some(Value::Text(_)) => return Err("it holds text, not an integer"),
        Some(Value::Blob(_)) => return Err("it holds a blob, not an integer"),
    };
    before.checked_add(by).ok_or("the sum is beyond 64 bits")
}

fn put(
    connection: &Connection,
    versions: &mut Versions,
    (namespace, key): (&str, &str),
    value: &Value,
    metadata: Option<&serde_json::Value>,
    expires_at: Option<Timestamp>,
) -> Result<(), StoreError> {
    let json;
    let (kind, octets) = match value {
        Value::Text(text) => (TEXT, text.as_bytes()),
        Value::Blob(octets) => (BLOB, octets.as_slice()),
        Value::Json(value) => {
            json = serde_json::to_vec(value).map_err(|e| StoreError::json(&e))?;
            (JSON, json.as_slice())
        }
    };
    let metadata = metadata.map(ToString::to_string);
    let expires_at = expires_at.map(Timestamp::as_millis);
    connection.prepare_cached(PUT)?.execute(params![
        namespace,
        key,
        kind,
        metadata,
        expires_at,
        versions.next(),
        octets
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::successor;

    #[test]
    fn the_end_of_a_prefix_is_the_next_text_in_octet_order() {
        assert_eq!(successor("email:").as_deref(), Some("email;"));
        assert_eq!(successor("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(successor("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(successor("\u{10ffff}"), None);
        assert_eq!(successor(""), None);
    }
}
