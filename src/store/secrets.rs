//! Secrets as rows: sealed octets with a name. What is in them, the store neither knows nor could find out.
//!
//! Each change is told in the log by the same transaction. A secret is sealed with the key that the others of its
//! environment are sealed with, or not at all: with two keys no configuration could open them all.

use rusqlite::{Connection, OptionalExtension, params};

use super::apply::{Refusal, json};
use super::{StoreError, log, migrate};
use crate::event::{Event, Kind};
use crate::mail::Timestamp;

pub(super) const LIST: &str = "SELECT name, set_at, key_id, sealed FROM secrets WHERE env = ?1 ORDER BY name";
pub(super) const OTHER_KEY: &str =
    "SELECT name FROM secrets WHERE env = ?1 AND name <> ?2 AND key_id <> ?3 ORDER BY name LIMIT 1";
pub(super) const COUNT: &str = "SELECT count(*) FROM secrets WHERE env = ?1";
pub(super) const PUT: &str = "INSERT INTO secrets (env, name, set_at, key_id, sealed) VALUES (?1, ?2, ?3, ?4, ?5) \
     ON CONFLICT (env, name) DO UPDATE SET set_at = excluded.set_at, key_id = excluded.key_id, sealed = excluded.sealed";
pub(super) const DELETE: &str = "DELETE FROM secrets WHERE env = ?1 AND name = ?2";

/// Secrets of one environment.
const MOST: i64 = 1000;

/// A secret as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Empty: the top level of the configuration.
    pub env: String,
    pub name: String,
    pub set_at: Timestamp,
    /// Tells the key that it is sealed with from others.
    pub key_id: Vec<u8>,
    pub octets: Vec<u8>,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed").field("env", &self.env).field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) enum Change {
    Put(Sealed),
    Delete { env: String, name: String, now: Timestamp },
}

/// By name; none where the store has no room for them yet.
pub(super) fn list(connection: &Connection, env: &str) -> Result<Vec<Sealed>, StoreError> {
    if !migrate::has_table(connection, "secrets")? {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare_cached(LIST)?;
    let rows = statement.query_map([env], |row| {
        Ok(Sealed {
            env: env.to_owned(),
            name: row.get(0)?,
            set_at: Timestamp::from_millis(row.get(1)?),
            key_id: row.get(2)?,
            octets: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn apply(connection: &Connection, change: &Change) -> Result<(), Refusal> {
    let (verb, env, name, at) = match change {
        Change::Put(sealed) => {
            put(connection, sealed)?;
            ("secret put", &sealed.env, &sealed.name, sealed.set_at)
        }
        Change::Delete { env, name, now } => {
            if connection.prepare_cached(DELETE)?.execute([env, name])? == 0 {
                return Err(StoreError::NotFound(format!("there is no secret {name}{}", within(env))).into());
            }
            ("secret delete", env, name, *now)
        }
    };
    let kind = Kind::Admin { verb: verb.to_owned(), detail: format!("{name}{}", within(env)) };
    connection.prepare_cached(log::INSERT)?.execute(params![at.as_millis(), json(&Event::new(at, kind))?])?;
    Ok(())
}

fn put(connection: &Connection, sealed: &Sealed) -> Result<(), Refusal> {
    let Sealed { env, name, set_at, key_id, octets } = sealed;
    let other: Option<String> =
        connection.prepare_cached(OTHER_KEY)?.query_row(params![env, name, key_id], |row| row.get(0)).optional()?;
    if let Some(other) = other {
        return Err(StoreError::Conflict(format!(
            "{other} is sealed with another key than the one there is now; nothing was changed. Bring that key back ([secrets] \
             key), or `mailworker secret delete` what it sealed and put it anew"
        ))
        .into());
    }
    let count: i64 = connection.prepare_cached(COUNT)?.query_row([env], |row| row.get(0))?;
    if count >= MOST {
        return Err(
            StoreError::Conflict(format!("there are {count} secrets{}, which are the most", within(env))).into()
        );
    }
    connection.prepare_cached(PUT)?.execute(params![env, name, set_at.as_millis(), key_id, octets])?;
    Ok(())
}

/// ` of staging`; nothing for the top level.
#[must_use]
pub fn within(env: &str) -> String {
    if env.is_empty() { String::new() } else { format!(" of {env}") }
}
