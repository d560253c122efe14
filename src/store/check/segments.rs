//! The segments as files: those that rows name and aren't there, records from end to end, those that no row names.
//!
//! What lies behind the last record that a row names is no finding: a crash leaves a torn tail, and nothing is ever
//! written behind one. A gap before it is one: what was synced there has changed since.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rusqlite::params;

use super::super::directory::Lock;
use super::super::orphans::NEWEST_OF_SEGMENT;
use super::super::spool::{self, HEADER, Header};
use super::octets::Octets;
use super::{Check, Remedy};
use crate::store::{StoreError, directory};

pub(in crate::store) const NEXT_RECORD: &str = "SELECT min(start) FROM messages WHERE segment = ?1 AND start > ?2";

const SALVAGE: &str = "what is whole in the segment moves to a new one, the file goes into the quarantine";

/// Segments that rows name and that aren't there.
pub(super) fn missing(check: &mut Check<'_>, octets: &Octets) {
    for (segment, rows) in &octets.missing {
        let problem =
            format!("spool/{} is missing: {rows} messages have lost their octets", spool::file_name(*segment));
        let repair = "their records stay, without octets; what of them is queued and can't be sent is parked. \
                      If the file can be found, put it back instead";
        check.find("segment", true, problem, repair, Remedy::Salvage(*segment));
    }
}

/// Every segment file, from its first record on.
pub(super) fn walk(check: &mut Check<'_>) -> Result<(), StoreError> {
    let spool = directory::spool(check.data_dir);
    for segment in spool::segments(&spool)? {
        check.report.segments += 1;
        let newest: Option<[u8; 16]> =
            check.connection.prepare_cached(NEWEST_OF_SEGMENT)?.query_row([segment], |row| row.get(0))?;
        let name = spool::file_name(segment);
        let path = spool.join(&name);
        if newest.is_none() {
            // A running server is about to name it, or to delete it; one may have been started since.
            check.report.running |= !check.ours && Lock::is_taken(check.data_dir)?;
            if !check.report.running {
                let octets = path.metadata().map_or(0, |metadata| metadata.len());
                let problem =
                    format!("spool/{name} ({octets} octets) is named by no message: left by a crash, or put there");
                check.find("segment", false, problem, "the file goes into the quarantine", Remedy::PutAside(segment));
            }
            continue;
        }
        let gap = match File::open(&path) {
            Ok(file) => gap(check, segment, &file)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(StoreError::io(&format!("read {}", path.display()), &error)),
        };
        if let Some(at) = gap {
            let problem = format!("spool/{name}: no record begins at {at}, and one that is needed lies behind it");
            check.find("segment", false, problem, SALVAGE, Remedy::Salvage(segment));
        }
    }
    Ok(())
}

/// The first place where records don't follow on one another, though a row names one behind it.
fn gap(check: &Check<'_>, segment: i64, file: &File) -> Result<Option<u64>, StoreError> {
    let failed = |error: std::io::Error| StoreError::io(&format!("read spool/{}", spool::file_name(segment)), &error);
    let mut at = 0;
    loop {
        if let Some(next) = record(file, at).map_err(failed)? {
            at = next;
            continue;
        }
        let from = i64::try_from(at).unwrap_or(i64::MAX);
        // A record that begins here and is damaged has been found by its own row.
        let behind: Option<i64> =
            check.connection.prepare_cached(NEXT_RECORD)?.query_row(params![segment, from], |row| row.get(0))?;
        let Some(behind) = behind else { return Ok(None) };
        // Read again after the row: a running server may have gone on writing since.
        let Some(next) = record(file, at).map_err(failed)? else {
            return Ok(Some(at).filter(|_| u64::try_from(behind).is_ok_and(|behind| behind < length(file))));
        };
        at = next;
    }
}

fn length(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// Where the record at `at` ends; `None` where none begins there or the file ends within it.
fn record(file: &File, at: u64) -> std::io::Result<Option<u64>> {
    let length = file.metadata()?.len();
    if at.saturating_add(HEADER as u64) > length {
        return Ok(None);
    }
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, at)?;
    let end = Header::parse(&header).map(|header| at.saturating_add(HEADER as u64 + header.content()));
    Ok(end.filter(|end| *end <= length))
}
