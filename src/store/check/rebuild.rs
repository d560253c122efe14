//! A new database out of the tables of a damaged one: where the damage lies in the indexes and in free pages alone.
//!
//! An index whose pages are garbage can't be dropped, since that reads them. So the tables are copied, row by row in the
//! order of their keys, into a new file; the damaged one gets a name in the quarantine; then the new one takes its place.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use super::super::migrate;
use super::quarantine::Quarantine;
use crate::store::{StoreError, directory};

/// Problems that are looked at for one of a table: a damaged index leaves many pages that nothing leads to.
const PROBLEMS: usize = 1_000_000;
/// The tree of the schema itself.
const SCHEMA: i64 = 1;

/// Octets that aren't what SQLite has written.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Visits what an integrity check says, a problem at a time.
pub(super) fn each_problem(
    connection: &Connection,
    pragma: &str,
    mut visit: impl FnMut(&str),
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(pragma)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        text.lines().filter(|line| *line != "ok" && !line.starts_with("***")).for_each(&mut visit);
    }
    Ok(())
}

/// Whether every table is sound as a tree and can be read from end to end.
pub(super) fn tables_are_whole(connection: &Connection) -> Result<bool, StoreError> {
    let found = || -> Result<bool, rusqlite::Error> {
        let tables = tables(connection)?;
        let roots: BTreeSet<i64> = tables.iter().map(|(_, root)| *root).chain([SCHEMA]).collect();
        let (mut count, mut whole) = (0, true);
        let ended = each_problem(connection, &format!("PRAGMA integrity_check({PROBLEMS})"), |problem| {
            count += 1;
            whole &= tree(problem).is_none_or(|root| !roots.contains(&root));
        });
        if let Err(error) = ended
            && !is_damage(&error)
        {
            return Err(error);
        }
        if !whole || count >= PROBLEMS {
            return Ok(false);
        }
        tables.iter().try_for_each(|(table, _)| read(connection, table))?;
        Ok(true)
    };
    match found() {
        Err(error) if is_damage(&error) => Ok(false),
        found => Ok(found?),
    }
}

/// `Tree 7 page 12 cell 3: …`: the root of the tree that is damaged.
fn tree(problem: &str) -> Option<i64> {
    problem.strip_prefix("Tree ")?.split([' ', ':']).next()?.parse().ok()
}

/// Tables, and where their trees begin.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<(String, i64)>> {
    let mut statement = connection.prepare(
        "SELECT name, rootpage FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

fn read(connection: &Connection, table: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("SELECT * FROM {table} NOT INDEXED"))?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        (0..columns).try_for_each(|column| row.get_ref(column).map(drop))?;
    }
    Ok(())
}

/// Puts a new database with the same rows in the place of this one. Killed halfway, either the one is there or the other.
pub(super) fn rebuild(data_dir: &Path, quarantine: &mut Quarantine) -> Result<(), StoreError> {
    let (database, new) = (directory::database(data_dir), data_dir.join("mailworker.db.rebuilt"));
    for left_over in [new.clone(), data_dir.join("mailworker.db.rebuilt-journal")] {
        remove(&left_over)?;
    }
    let failed = |error: std::io::Error| StoreError::io(&format!("write {}", new.display()), &error);
    let file = directory::create(&new).map_err(failed)?;
    copy(&database, &new)?;
    file.sync_all().map_err(failed)?;
    // The WAL belongs to the damaged one: all of it goes there, and none of it may be met beside the new one.
    let damaged = migrate::open_writer(&database)?;
    let busy: bool = damaged.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy {
        return Err(StoreError::Failed("another process reads the database: end it, and repair again".to_owned()));
    }
    damaged.close().map_err(|(_, error)| error)?;
    quarantine.keep_database(&database)?;
    for beside in ["db-wal", "db-shm"] {
        remove(&database.with_extension(beside))?;
    }
    directory::sync(data_dir)?;
    std::fs::rename(&new, &database).map_err(failed)?;
    directory::sync(data_dir)
}

fn copy(database: &Path, new: &Path) -> Result<(), StoreError> {
    let mut fresh = Connection::open(new)?;
    fresh.pragma_update(None, "page_size", 8192)?;
    migrate::migrate(&mut fresh, new)?;
    fresh.execute("ATTACH ?1 AS damaged", [database.to_string_lossy()])?;
    let transaction = fresh.transaction()?;
    for (table, _) in tables(&transaction)? {
        // With a condition, so that SQLite copies rows and not pages.
        transaction.execute_batch(&format!(
            "DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM damaged.{table} NOT INDEXED WHERE true"
        ))?;
    }
    transaction.commit()?;
    fresh.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StoreError::io(&format!("delete {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::tree;

    #[test]
    fn the_tree_that_a_problem_lies_in_is_read() {
        assert_eq!(tree("Tree 7 page 12 cell 3: Rowid 4 out of order"), Some(7));
        assert_eq!(tree("Tree 7 page 12: btreeInitPage() returns error code 11"), Some(7));
        assert_eq!(tree("Tree 7: something"), Some(7));
        assert_eq!(tree("Page 9: never used"), None);
        assert_eq!(tree("wrong # of entries in index deliveries_due"), None);
    }
}
