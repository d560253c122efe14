//! `store check`: proof that what a store promises is there and whole; and its repair.
//!
//! In order: the database (SQLite's own check, the schema), the rows (each read as the program reads it), the octets
//! (each message's checksum), the segments (records from end to end, none that no row names). A database that isn't
//! sound is mended first: what its indexes say of the rest can't be trusted.
//! Memory is bounded: rows come in pages, octets in pieces, findings up to a thousand, remedies up to a hundred thousand.
//! A repair checks, mends what that found, and checks again until nothing is left or nothing helps.
//! On a running store it reads beside the writer; whatever looks damaged is looked at again, for retention may have
//! moved it, and what isn't committed yet is none of its business. A check holds no lock, so that it keeps no server from
//! starting meanwhile; a repair holds it.
//!
//! **Invariant**: a repair deletes nothing: what can't be kept in its place is put into `quarantine/` first.

mod mend;
mod octets;
pub(super) mod quarantine;
mod rebuild;
mod rows;
mod schema;
mod segments;

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::directory::Lock;
use super::{CheckReport, Finding, RepairReport, StoreError, backup, directory, migrate};
use crate::mail::Timestamp;

/// Findings that are listed; more are counted.
const LISTED: usize = 1000;
/// Rows read at once.
const PAGE: i64 = 500;
/// Remedies of one round; what is found beyond them is the next round's.
const REMEDIES: usize = 100_000;
/// Rounds after which there isn't less to be found, and which a repair goes on after nevertheless: what lay below a fault
/// comes to light only when that is mended.
const IN_VAIN: usize = 5;

/// What a repair does.
#[derive(Debug, Clone, PartialEq)]
enum Remedy {
    Reindex,
    /// The tables are copied into a new database, since what is damaged of this one can't even be dropped.
    Rebuild,
    /// A part of the schema is made anew.
    Schema {
        drop: Option<String>,
        create: String,
    },
    /// The row is written down in the quarantine as `keep` reads it by its key, then changed.
    Row {
        keep: Option<&'static str>,
        change: &'static str,
        key: Vec<Value>,
        more: Vec<Value>,
    },
    /// What is whole in a segment moves on; the file, if there is one, goes into the quarantine.
    Salvage(i64),
    /// A segment that no row names goes into the quarantine.
    PutAside(i64),
}

/// A check under way.
struct Check<'a> {
    data_dir: &'a Path,
    connection: &'a Connection,
    /// The lock is held by this repair.
    ours: bool,
    report: CheckReport,
    remedies: Vec<Remedy>,
}

impl Check<'_> {
    /// `None`: a person has to mend it.
    fn find(&mut self, kind: &str, serious: bool, problem: String, repair: &str, remedy: impl Into<Option<Remedy>>) {
        let remedy = remedy.into().filter(|remedy| self.ours && self.remedies.last() != Some(remedy));
        if self.remedies.len() < REMEDIES {
            self.remedies.extend(remedy);
        }
        if self.report.findings.len() >= LISTED {
            self.report.unlisted += 1;
            return;
        }
        let (kind, repair) = (kind.to_owned(), repair.to_owned());
        self.report.findings.push(Finding { kind, problem, repair, serious });
    }

    /// All of it, the database first.
    fn run(&mut self) -> Result<(), StoreError> {
        if !schema::sound(self)? {
            return Ok(());
        }
        let mut octets = octets::Octets::new(directory::spool(self.data_dir));
        rows::messages(self, &mut octets)?;
        segments::missing(self, &octets);
        segments::walk(self)?;
        rows::deliveries(self)?;
        rows::trace(self)?;
        rows::keys(self)?;
        rows::log(self)
    }
}

/// # Errors
/// `Unusable` where there is no store, or one of another version.
pub(super) fn check(data_dir: &Path) -> Result<CheckReport, StoreError> {
    exists(data_dir)?;
    Ok(look(data_dir, false)?.0)
}

/// # Errors
/// `Unusable` as for a check; `Locked` where a server has it open.
pub(super) fn repair(data_dir: &Path, now: Timestamp) -> Result<RepairReport, StoreError> {
    exists(data_dir)?;
    let _lock = Lock::take(data_dir)?;
    let mut quarantine = quarantine::Quarantine::new(data_dir, now);
    let (found, mut remedies) = look(data_dir, true)?;
    let mut left = found.clone();
    let mut in_vain = 0;
    while !remedies.is_empty() && in_vain < IN_VAIN {
        mend::mend(data_dir, &remedies, &mut quarantine, now)?;
        let (next, further) = look(data_dir, true)?;
        if next.findings == left.findings && next.unlisted == left.unlisted {
            break;
        }
        in_vain = if number(&next) < number(&left) { 0 } else { in_vain + 1 };
        (left, remedies) = (next, further);
    }
    Ok(RepairReport { found, left, quarantine: quarantine.made() })
}

fn number(report: &CheckReport) -> u64 {
    report.findings.len() as u64 + report.unlisted
}

fn exists(data_dir: &Path) -> Result<(), StoreError> {
    if directory::database(data_dir).exists() {
        return directory::require_spool(data_dir);
    }
    backup::refuse_unfinished(data_dir)?;
    Err(StoreError::Unusable(format!("there is no store in {}", data_dir.display())))
}

fn look(data_dir: &Path, ours: bool) -> Result<(CheckReport, Vec<Remedy>), StoreError> {
    let running = !ours && Lock::is_taken(data_dir)?;
    let connection = migrate::open_reader(&directory::database(data_dir))?;
    let report = CheckReport { running, ..CheckReport::default() };
    let mut check = Check { data_dir, connection: &connection, ours, report, remedies: Vec::new() };
    check.run()?;
    Ok((check.report, check.remedies))
}

/// Visits every row that `sql` selects, page by page. Its first `keys` columns are the primary key, by which it goes on.
fn each_row(
    connection: &Connection,
    sql: &str,
    keys: usize,
    mut visit: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    // Before all other values, text and blobs among them.
    let mut from = vec![Value::Integer(i64::MIN); keys];
    let mut statement = connection.prepare_cached(sql)?;
    loop {
        let mut seen = 0;
        let mut rows = statement.query(params_from_iter(from.iter().chain([&Value::Integer(PAGE)])))?;
        while let Some(row) = rows.next()? {
            seen += 1;
            if seen == PAGE {
                from = (0..keys).map(|n| row.get(n)).collect::<Result<_, _>>()?;
            }
            visit(row)?;
        }
        if seen < PAGE {
            return Ok(());
        }
    }
}
