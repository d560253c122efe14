//! The database itself: SQLite's own check, and the schema against the one that the migrations make.

use rusqlite::Connection;

use super::{Check, Remedy, rebuild};
use crate::store::{StoreError, directory, migrate};

/// Problems that SQLite's check lists.
const PROBLEMS: i64 = 100;
const RESTORE: &str = "none here: restore the newest backup, and keep this directory until its mail is accounted for";

/// Whether rows and segments can be looked at: no damage here but for what is merely missing.
///
/// # Errors
/// `Unusable` where it is no store, or one of another version.
pub(super) fn sound(check: &mut Check<'_>) -> Result<bool, StoreError> {
    let path = directory::database(check.data_dir);
    if let Err(error) = check.connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
        return damaged(check, error);
    }
    migrate::refuse_foreign(check.connection, &path)?;
    migrate::refuse_older(check.connection, &path)?;
    let wanted = wanted()?;
    let there = objects(check.connection)?;
    let mut whole = integrity(check)?;
    for (name, kind, sql) in &wanted {
        let found = there.iter().find(|(found, ..)| found == name);
        if found.is_some_and(|(_, _, found)| found == sql) {
            continue;
        }
        let is = if found.is_some() { "isn't as this version makes it" } else { "is missing" };
        let index = kind == "index";
        // Other tables are read by their columns: without one of them nothing else can be looked at.
        whole &= index;
        let (repair, remedy) = match (index, found) {
            (true, _) => {
                let drop = found.map(|_| format!("DROP INDEX {name}"));
                ("it is made again from its table", Some(Remedy::Schema { drop, create: sql.clone() }))
            }
            (false, None) => (
                "it is made again, empty: what it held is lost; restoring the newest backup may be the better way",
                Some(Remedy::Schema { drop: None, create: sql.clone() }),
            ),
            (false, Some(_)) => (RESTORE, None),
        };
        check.find("schema", !index, format!("the {kind} {name} {is}"), repair, remedy);
    }
    Ok(whole)
}

fn integrity(check: &mut Check<'_>) -> Result<bool, StoreError> {
    let mut problems: Vec<String> = Vec::new();
    for pragma in [format!("PRAGMA integrity_check({PROBLEMS})"), "PRAGMA foreign_key_check".to_owned()] {
        problems.extend(lines(check.connection, &pragma)?);
    }
    if problems.is_empty() {
        return Ok(true);
    }
    // An index that merely contradicts its table is made again from it.
    let contradictions = problems.iter().all(|problem| problem.contains("index"));
    let (repair, remedy) = if contradictions {
        (
            "the indexes are made again from their tables; rows and segments are looked at after that",
            Some(Remedy::Reindex),
        )
    } else if rebuild::tables_are_whole(check.connection)? {
        (
            "the tables are whole: they are copied into a new database, with indexes made anew; the damaged one goes into \
             the quarantine; rows and segments are looked at after that",
            Some(Remedy::Rebuild),
        )
    } else {
        (RESTORE, None)
    };
    for problem in problems {
        check.find("database", !contradictions, format!("mailworker.db: {problem}"), repair, remedy.clone());
    }
    Ok(false)
}

/// What SQLite's own check says is wrong; that it met damage and couldn't go on is the last of it.
fn lines(connection: &Connection, pragma: &str) -> Result<Vec<String>, StoreError> {
    let mut problems = Vec::new();
    let ended = rebuild::each_problem(connection, pragma, |problem| problems.push(problem.to_owned()));
    match ended {
        Err(error) if rebuild::is_damage(&error) => problems.push(error.to_string()),
        ended => ended?,
    }
    Ok(problems)
}

/// Octets that SQLite can't read are a finding; all else is a failure of the check.
fn damaged(check: &mut Check<'_>, error: rusqlite::Error) -> Result<bool, StoreError> {
    if !rebuild::is_damage(&error) {
        return Err(error.into());
    }
    check.find("database", true, format!("mailworker.db: {error}"), RESTORE, None);
    Ok(false)
}

type Object = (String, String, String);

/// What the migrations make, tables before indexes.
fn wanted() -> Result<Vec<Object>, StoreError> {
    let mut fresh = Connection::open_in_memory()?;
    migrate::migrate(&mut fresh, std::path::Path::new(":memory:"))?;
    objects(&fresh)
}

fn objects(connection: &Connection) -> Result<Vec<Object>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT name, type, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' \
         AND name <> 'refinery_schema_history' ORDER BY type DESC, name",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
