//! Rules as they were deployed, and which of them run: rows alone. What runs changes whole, in one transaction, with its
//! line in the log; a server notices ([`super::Store::deployed`]).
//!
//! Who changes what runs says what he saw running: where somebody else was faster, nothing is changed.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::apply::{Refusal, json};
use super::secrets::within;
use super::{StoreError, log, migrate};
use crate::event::{Event, Kind};
use crate::mail::Timestamp;

pub(super) const LIST: &str = "SELECT id, env, version, author, message, tests, at, active_since FROM releases \
     WHERE env = ?1 ORDER BY id DESC LIMIT ?2";
pub(super) const ONE: &str =
    "SELECT id, env, version, author, message, tests, at, active_since FROM releases WHERE id = ?1";
pub(super) const FILES: &str = "SELECT path, text FROM release_files WHERE release = ?1";
pub(super) const DEPLOYED: &str = "SELECT active, canary FROM deployed WHERE env = ?1";
pub(super) const INSERT: &str = "INSERT INTO releases (env, version, author, message, tests, at, active_since) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL)";
pub(super) const INSERT_FILE: &str = "INSERT INTO release_files (release, path, text) VALUES (?1, ?2, ?3)";
pub(super) const SET_DEPLOYED: &str = "INSERT INTO deployed (env, active, canary) VALUES (?1, ?2, ?3) \
     ON CONFLICT (env) DO UPDATE SET active = excluded.active, canary = excluded.canary";
pub(super) const ACTIVE_SINCE: &str = "UPDATE releases SET active_since = ?2 WHERE id = ?1";
pub(super) const BEYOND: &str = "SELECT id FROM releases WHERE env = ?1 ORDER BY id DESC LIMIT -1 OFFSET ?2";
pub(super) const DELETE: &str = "DELETE FROM releases WHERE id = ?1";
pub(super) const DELETE_FILES: &str = "DELETE FROM release_files WHERE release = ?1";

/// Releases that are kept of one environment, besides those that run or can be gone back to.
const KEPT: i64 = 50;

/// A release without its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub id: i64,
    pub env: String,
    pub version: String,
    pub author: String,
    pub message: String,
    /// How its tests came out, in words.
    pub tests: String,
    pub at: Timestamp,
    /// When it began to run, the last time; `None`: it never did.
    pub active_since: Option<Timestamp>,
}

/// Path, as the configuration names it, to text.
pub type Files = BTreeMap<String, String>;

/// What runs in an environment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Deployed {
    /// `None`: the files of the rules.
    pub active: Option<i64>,
    pub canary: Option<Canary>,
}

/// A release that is tried on a part of the mail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    pub release: i64,
    #[serde(flatten)]
    pub trial: Trial,
}

/// On which part, and when it is given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Of all pairs of sender and recipient.
    pub percent: Option<u8>,
    /// A pattern as a route's `match`.
    pub recipients: Option<String>,
    /// Failing runs in a hundred beyond which it is given up.
    pub max_errors: f64,
    /// As long as there are fewer runs, nothing is concluded.
    pub min_runs: u64,
}

/// Rules to be deployed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewRelease {
    pub env: String,
    pub version: String,
    pub author: String,
    pub message: String,
    pub tests: String,
    pub files: Files,
    pub at: Timestamp,
    /// What ran when it was made.
    pub seen: Deployed,
    /// It doesn't run for all at first.
    pub trial: Option<Trial>,
}

/// Another release runs from now on, or the files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Activation {
    pub env: String,
    pub release: Option<i64>,
    /// rollback, promote
    pub verb: String,
    pub author: String,
    pub at: Timestamp,
    pub seen: Deployed,
}

/// The canary is given up; what is active stays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stop {
    pub env: String,
    pub release: i64,
    /// Who, or why.
    pub reason: String,
    pub at: Timestamp,
}

/// What an admin, or the server itself, changes of what runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Deploy(Box<NewRelease>),
    Activate(Activation),
    Stop(Stop),
}

fn release(row: &Row<'_>) -> rusqlite::Result<Release> {
    Ok(Release {
        id: row.get(0)?,
        env: row.get(1)?,
        version: row.get(2)?,
        author: row.get(3)?,
        message: row.get(4)?,
        tests: row.get(5)?,
        at: Timestamp::from_millis(row.get(6)?),
        active_since: row.get::<_, Option<i64>>(7)?.map(Timestamp::from_millis),
    })
}

/// What runs; the files, where an older version has made the store.
pub(super) fn deployed(connection: &Connection, env: &str) -> Result<Deployed, StoreError> {
    if !migrate::has_table(connection, "deployed")? {
        return Ok(Deployed::default());
    }
    let found =
        connection.prepare_cached(DEPLOYED)?.query_row([env], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((active, canary)) = found else { return Ok(Deployed::default()) };
    let canary: Option<String> = canary;
    let canary = canary.map(|text| serde_json::from_str(&text)).transpose();
    let canary =
        canary.map_err(|error| StoreError::Failed(format!("the canary{} is unreadable: {error}", within(env))))?;
    Ok(Deployed { active, canary })
}

/// Newest first.
pub(super) fn list(connection: &Connection, env: &str, limit: usize) -> Result<Vec<Release>, StoreError> {
    let mut statement = connection.prepare_cached(LIST)?;
    let rows = statement.query_map(params![env, i64::try_from(limit).unwrap_or(i64::MAX)], release)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn one(connection: &Connection, id: i64) -> Result<Release, StoreError> {
    let found = connection.prepare_cached(ONE)?.query_row([id], release).optional()?;
    found.ok_or_else(|| StoreError::NotFound(format!("there is no release {id}")))
}

/// The one that ran before `id`: of those deployed before it, the one that ran last. What was deployed after it and ran
/// meanwhile was gone back from.
pub(super) fn before(connection: &Connection, env: &str, id: i64) -> Result<Option<Release>, StoreError> {
    let older = list(connection, env, usize::MAX)?.into_iter().filter(|release| release.id < id);
    let ran = older.filter_map(|release| Some((release.active_since?, release)));
    Ok(ran.max_by_key(|(since, release)| (*since, release.id)).map(|(_, release)| release))
}

pub(super) fn files(connection: &Connection, id: i64) -> Result<Files, StoreError> {
    let mut statement = connection.prepare_cached(FILES)?;
    let rows = statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The release that it is about.
pub(super) fn apply(connection: &Connection, change: &Change) -> Result<i64, Refusal> {
    match change {
        Change::Deploy(new) => deploy(connection, new),
        Change::Activate(activation) => activate(connection, activation),
        Change::Stop(stop) => give_up(connection, stop),
    }
}

/// Nothing is changed on the word of somebody who has seen something else running.
fn unchanged(connection: &Connection, env: &str, seen: &Deployed) -> Result<(), StoreError> {
    let now = deployed(connection, env)?;
    if now == *seen {
        return Ok(());
    }
    let what = match (&now.canary, now.active) {
        (Some(canary), _) if seen.canary.as_ref() != Some(canary) => format!("release {} is tried", canary.release),
        (_, Some(active)) => match one(connection, active) {
            Ok(release) => format!("release {active} by {} runs", release.author),
            Err(_) => format!("release {active} runs"),
        },
        (_, None) => "the files run".to_owned(),
    };
    Err(StoreError::Conflict(format!(
        "somebody else was faster: {what}{} now; nothing was changed. Look at it (mailworker versions list), then try again",
        within(env)
    )))
}

fn deploy(connection: &Connection, new: &NewRelease) -> Result<i64, Refusal> {
    let NewRelease { env, version, author, message, tests, files, at, seen, trial } = new;
    unchanged(connection, env, seen)?;
    let at_millis = at.as_millis();
    connection.prepare_cached(INSERT)?.execute(params![env, version, author, message, tests, at_millis])?;
    let id = connection.last_insert_rowid();
    let mut insert = connection.prepare_cached(INSERT_FILE)?;
    for (path, text) in files {
        insert.execute(params![id, path, text])?;
    }
    let mut detail = format!("release {id} ({version}){} by {author}: {message}; tests: {tests}", within(env));
    let now = match trial {
        None => {
            connection.prepare_cached(ACTIVE_SINCE)?.execute(params![id, at_millis])?;
            Deployed { active: Some(id), canary: None }
        }
        Some(trial) => {
            detail = format!("{detail}; tried on {}", trial.share());
            Deployed { active: seen.active, canary: Some(Canary { release: id, trial: trial.clone() }) }
        }
    };
    set(connection, env, &now)?;
    forget_old(connection, env, &now)?;
    tell(connection, *at, Kind::Admin { verb: "deploy".to_owned(), detail })?;
    Ok(id)
}

fn activate(connection: &Connection, activation: &Activation) -> Result<i64, Refusal> {
    let Activation { env, release, verb, author, at, seen } = activation;
    unchanged(connection, env, seen)?;
    let what = match release {
        None => "the files".to_owned(),
        Some(id) => {
            let release = one(connection, *id)?;
            if release.env != *env {
                let text = format!("release {id} is none{}: it was deployed{}", within(env), within(&release.env));
                return Err(StoreError::Conflict(text).into());
            }
            connection.prepare_cached(ACTIVE_SINCE)?.execute(params![id, at.as_millis()])?;
            format!("release {id} ({})", release.version)
        }
    };
    set(connection, env, &Deployed { active: *release, canary: None })?;
    let was = seen.active.map_or_else(|| "the files".to_owned(), |id| format!("release {id}"));
    let detail = format!("{what}{} by {author}, in place of {was}", within(env));
    tell(connection, *at, Kind::Admin { verb: verb.clone(), detail })?;
    Ok(release.unwrap_or_default())
}

fn give_up(connection: &Connection, stop: &Stop) -> Result<i64, Refusal> {
    let Stop { env, release, reason, at } = stop;
    let now = deployed(connection, env)?;
    if now.canary.is_none_or(|canary| canary.release != *release) {
        return Err(StoreError::Conflict(format!("release {release} isn't tried{} any more", within(env))).into());
    }
    set(connection, env, &Deployed { active: now.active, canary: None })?;
    let kind = Kind::CanaryStopped { env: env.clone(), release: *release, reason: reason.clone() };
    tell(connection, *at, kind)?;
    Ok(*release)
}

fn set(connection: &Connection, env: &str, now: &Deployed) -> Result<(), StoreError> {
    let canary = now.canary.as_ref().map(json).transpose()?;
    connection.prepare_cached(SET_DEPLOYED)?.execute(params![env, now.active, canary])?;
    Ok(())
}

/// Keeps the newest, what runs, and what it can be rolled back to.
fn forget_old(connection: &Connection, env: &str, now: &Deployed) -> Result<(), StoreError> {
    let mut needed: Vec<i64> = now.active.iter().copied().collect();
    needed.extend(now.canary.iter().map(|canary| canary.release));
    if let Some(active) = now.active {
        needed.extend(before(connection, env, active)?.map(|release| release.id));
    }
    let old: Vec<i64> = {
        let mut statement = connection.prepare_cached(BEYOND)?;
        let rows = statement.query_map(params![env, KEPT], |row| row.get(0))?;
        rows.collect::<Result<_, _>>()?
    };
    for id in old.into_iter().filter(|id| !needed.contains(id)) {
        connection.prepare_cached(DELETE_FILES)?.execute([id])?;
        connection.prepare_cached(DELETE)?.execute([id])?;
    }
    Ok(())
}

fn tell(connection: &Connection, at: Timestamp, kind: Kind) -> Result<(), StoreError> {
    connection.prepare_cached(log::INSERT)?.execute(params![at.as_millis(), json(&Event::new(at, kind))?])?;
    Ok(())
}

impl Trial {
    /// `10% of the mail`, `mail for *@example.com`
    #[must_use]
    pub fn share(&self) -> String {
        match (&self.recipients, self.percent) {
            (Some(pattern), _) => format!("mail for {pattern}"),
            (None, percent) => format!("{}% of the mail", percent.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate::migrate(&mut connection, std::path::Path::new("fresh")).unwrap();
        connection
    }

    fn new(seen: Deployed, trial: Option<Trial>) -> Change {
        new_at(7, seen, trial)
    }

    fn new_at(at: i64, seen: Deployed, trial: Option<Trial>) -> Change {
        let files = [("rules/main.rhai".to_owned(), "fn email(m, e, c) {}".to_owned())].into();
        let (version, author) = ("3f2a".to_owned(), "ann".to_owned());
        let (env, message, tests, at) =
            (String::new(), "why".to_owned(), "none".to_owned(), Timestamp::from_millis(at));
        Change::Deploy(Box::new(NewRelease { env, version, author, message, tests, files, at, seen, trial }))
    }

    fn active(id: i64) -> Deployed {
        Deployed { active: Some(id), canary: None }
    }

    #[test]
    fn who_saw_something_else_running_changes_nothing() {
        let store = store();
        assert_eq!(apply(&store, &new(Deployed::default(), None)).unwrap(), 1);
        let late = apply(&store, &new(Deployed::default(), None));
        assert!(
            matches!(&late, Err(Refusal::Error(StoreError::Conflict(why))) if why.contains("release 1 by ann runs"))
        );
        assert_eq!(deployed(&store, "").unwrap(), active(1));
        assert_eq!(deployed(&store, "staging").unwrap(), Deployed::default());
    }

    #[test]
    fn the_one_before_is_the_one_that_ran_and_none_that_was_gone_back_from() {
        let store = store();
        let back_to = |id: i64, at: i64, seen: i64| {
            let (env, verb, author) = (String::new(), "rollback".to_owned(), "ann".to_owned());
            let (at, seen) = (Timestamp::from_millis(at), active(seen));
            apply(&store, &Change::Activate(Activation { env, release: Some(id), verb, author, at, seen })).unwrap();
        };
        let ran_before = |id: i64| before(&store, "", id).unwrap().map(|release| release.id);
        apply(&store, &new_at(1, Deployed::default(), None)).unwrap();
        apply(&store, &new_at(2, active(1), None)).unwrap();
        apply(&store, &new_at(3, active(2), None)).unwrap();
        back_to(1, 4, 3);
        assert_eq!(ran_before(1), None);
        apply(&store, &new_at(5, active(1), None)).unwrap();
        assert_eq!(ran_before(4), Some(1), "releases 2 and 3 were gone back from");
        back_to(3, 6, 4);
        assert_eq!(ran_before(3), Some(1));
        back_to(2, 7, 3);
        back_to(4, 8, 2);
        assert_eq!(ran_before(4), Some(2));
    }

    #[test]
    fn old_releases_go_and_what_runs_or_ran_before_stays() {
        let store = store();
        apply(&store, &new(Deployed::default(), None)).unwrap();
        apply(&store, &new(active(1), None)).unwrap();
        let trial = Trial { percent: Some(10), recipients: None, max_errors: 5.0, min_runs: 1 };
        let mut seen = active(2);
        for id in 3..=60 {
            apply(&store, &new(seen, Some(trial.clone()))).unwrap();
            seen = Deployed { canary: Some(Canary { release: id, trial: trial.clone() }), ..active(2) };
        }
        let kept: Vec<i64> = list(&store, "", 1000).unwrap().into_iter().map(|release| release.id).rev().collect();
        assert_eq!(kept, [1, 2].into_iter().chain(11..=60).collect::<Vec<_>>());
        assert_eq!(before(&store, "", 2).unwrap().unwrap().id, 1);
        assert_eq!(files(&store, 1).unwrap().len(), 1);
        assert_eq!(files(&store, 5).unwrap().len(), 0);
    }
}
