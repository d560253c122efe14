//! Opens the database: pragmas, migrations, and the refusal of what isn't ours or is newer than we are.
//!
//! Migrations are files of /migrations, embedded, forward-only, run by refinery.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;

mod embedded {
    #![allow(clippy::unwrap_used, clippy::pedantic)]
    refinery::embed_migrations!("migrations");
}

/// Marks a SQLite file as a store (`PRAGMA application_id`); V1 sets it.
const APPLICATION_ID: i64 = 0x4d57_4b31;
/// Statements kept compiled for each connection: more than there are.
const STATEMENTS: usize = 128;
/// How long a lock of SQLite's is waited for.
const BUSY: Duration = Duration::from_secs(10);

/// Octets of the WAL written again at once.
const PIECE: usize = 1 << 20;

/// The writer's connection. WAL with `synchronous=FULL`: a commit is on disk when COMMIT returns.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    write_again(&path.with_extension("db-wal"))?;
    let connection = Connection::open(path).map_err(|e| cannot_open(path, &e))?;
    // A record and its trace are about a page of this size; it counts for a new database only.
    connection.pragma_update(None, "page_size", 8192)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Unusable(format!("{} can't be kept in WAL mode (it is in {mode})", path.display())));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", -4_096)?;
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    configure(&connection)?;
    Ok(connection)
}

/// Writes what the WAL holds once more, octet for octet in its place, and syncs it.
///
/// After a sync that failed, pages that never reached the disk may be read from memory as if they had, by the process
/// that follows the one that was told, too. SQLite would take up the frames in them, commit behind them, and lose both
/// when the power goes; it would move them into the database, and meet the older WAL there after a power cut. Only what
/// is written again is synced again.
fn write_again(wal: &Path) -> Result<(), StoreError> {
    let failed = |error: std::io::Error| StoreError::io(&format!("sync {}", wal.display()), &error);
    let file = match OpenOptions::new().read(true).write(true).open(wal) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    copy_onto_itself(&file).and_then(|()| file.sync_all()).map_err(failed)
}

fn copy_onto_itself(file: &File) -> std::io::Result<()> {
    let (mut at, mut piece) = (0, vec![0; PIECE]);
    loop {
        let read = file.read_at(&mut piece, at)?;
        let Some(octets) = piece.get(..read).filter(|octets| !octets.is_empty()) else { return Ok(()) };
        file.write_all_at(octets, at)?;
        at += read as u64;
    }
}

/// Moves all that the WAL holds into the database, synced, and empties it.
///
/// A sync that failed may have dropped pages of the WAL that are still read from memory: what is committed behind them
/// would be lost with them when the power goes, however often it is synced. While a reader needs the WAL it can't be
/// emptied, and nobody can be made to end: what it holds was written again in its place by [`open_writer`].
pub(super) fn begin_wal_anew(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(Duration::ZERO)?;
    let done = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    connection.busy_timeout(BUSY)?;
    Ok(done?)
}

/// A connection that can't write.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = if is_beyond_change(path) {
        let mut uri = "file:".to_owned();
        for octet in path.as_os_str().as_bytes() {
            let plain = octet.is_ascii_alphanumeric() || b"/-_.".contains(octet);
            let _infallible = if plain { write!(uri, "{}", char::from(*octet)) } else { write!(uri, "%{octet:02x}") };
        }
        Connection::open_with_flags(uri + "?immutable=1", flags | OpenFlags::SQLITE_OPEN_URI)
    } else {
        Connection::open_with_flags(path, flags)
    }
    .map_err(|e| cannot_open(path, &e))?;
    connection.pragma_update(None, "query_only", true)?;
    configure(&connection)?;
    Ok(connection)
}

/// On a medium that is read-only, where what SQLite keeps beside a database in WAL mode can't be made. A WAL with
/// something in it is to be read too, which SQLite does or refuses.
fn is_beyond_change(path: &Path) -> bool {
    let flags = rustix::fs::statvfs(path).map(|found| found.f_flag);
    flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::RDONLY))
        && path.with_extension("db-wal").metadata().map_or(true, |wal| wal.len() == 0)
}

fn configure(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

fn cannot_open(path: &Path, error: &rusqlite::Error) -> StoreError {
    match StoreError::from_sqlite_code(error) {
        Some(disk) => disk,
        None => StoreError::Unusable(format!("{} can't be opened: {error}", path.display())),
    }
}

/// Brings a database to this program's schema.
///
/// # Errors
/// `Unusable` where it isn't a store, or one of a newer version.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    refuse_foreign(connection, path)?;
    // In one transaction with the record of what was applied: otherwise a crash between the two leaves tables that are
    // made again at each start, which fails.
    let runner = embedded::migrations::runner().set_grouped(true);
    runner.run(connection).map_err(|error| {
        StoreError::Unusable(format!("{} can't be brought to this version's schema: {error}", path.display()))
    })?;
    Ok(())
}

/// What an older version has made may lack it, and is read before it is brought up to date.
pub(super) fn has_table(connection: &Connection, name: &str) -> Result<bool, StoreError> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    Ok(connection.query_row(sql, [name], |row| row.get::<_, i64>(0))? > 0)
}

/// No schema yet: it was just made, or was never brought up.
pub(super) fn is_empty(connection: &Connection) -> Result<bool, StoreError> {
    Ok(connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?)
}

/// Refuses a database that isn't a store or is newer; one that is empty is as good as new.
pub(super) fn refuse_foreign(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    if is_empty(connection)? {
        return Ok(());
    }
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let history: i64 = connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'refinery_schema_history'",
        [],
        |row| row.get(0),
    )?;
    if history == 0 || (application != APPLICATION_ID && application != 0) {
        return Err(StoreError::Unusable(format!("{} is a SQLite database, but not a store", path.display())));
    }
    let found: Option<i64> =
        connection.query_row("SELECT max(version) FROM refinery_schema_history", [], |row| row.get(0))?;
    let ours = latest();
    match found {
        Some(version) if version > ours => Err(StoreError::Unusable(format!(
            "the store {} has schema {version}, and this program knows up to {ours}: it was opened by a newer version. \
             Run that version, or restore a backup from before it.",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Refuses a store of an older version, which only its opening for writing brings up to date.
pub(super) fn refuse_older(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let found: Option<i64> =
        connection.query_row("SELECT max(version) FROM refinery_schema_history", [], |row| row.get(0))?;
    if found == Some(latest()) {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "the store {} has an older schema; it is brought up to date when `mailworker serve` opens it",
        path.display()
    )))
}

/// The newest schema this program knows.
fn latest() -> i64 {
    embedded::migrations::runner().get_migrations().iter().map(|m| i64::from(m.version())).max().unwrap_or(0)
}
