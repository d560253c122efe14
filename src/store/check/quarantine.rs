//! `data_dir/quarantine/<time>/`: where a repair puts what it takes away, for a person to look into.
//!
//! `rows.jsonl` has the rows as they were, octets in hexadecimal; `<id>.octets` what is left of a damaged message;
//! `<number>.seg` segments that were replaced or that nothing names; `mailworker.db` a database that was made anew. All of
//! it is durable before the store changes.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::super::spool;
use crate::mail::{MessageId, Timestamp};
use crate::store::{StoreError, directory};

/// The directories of all repairs.
pub(in crate::store) fn directories(data_dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let root = root(data_dir);
    let entries = match std::fs::read_dir(&root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| StoreError::io(&format!("read {}", root.display()), &e))?,
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

fn root(data_dir: &Path) -> PathBuf {
    data_dir.join("quarantine")
}

/// The directory of one repair, made when something is put into it.
pub(in crate::store) struct Quarantine {
    spool: PathBuf,
    root: PathBuf,
    directory: PathBuf,
    made: bool,
    /// Rows that are written down together.
    notes: String,
}

impl Quarantine {
    pub(in crate::store) fn new(data_dir: &Path, now: Timestamp) -> Self {
        let root = root(data_dir);
        let directory = root.join(now.as_millis().to_string());
        Self { spool: directory::spool(data_dir), root, directory, made: false, notes: String::new() }
    }

    /// Where it is, if anything was put into it.
    pub(in crate::store) fn made(&self) -> Option<PathBuf> {
        self.made.then(|| self.directory.clone())
    }

    fn make(&mut self) -> Result<(), StoreError> {
        if !self.made {
            directory::prepare_within(&self.root)?;
            directory::prepare_within(&self.directory)?;
            self.made = true;
        }
        Ok(())
    }

    /// Notes the rows that `select` finds by `key`; [`Quarantine::keep_notes`] writes them down.
    pub(super) fn note_rows(&mut self, connection: &Connection, select: &str, key: &[Value]) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(select)?;
        let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
        let mut rows = statement.query(params_from_iter(key))?;
        while let Some(row) = rows.next()? {
            let mut line = serde_json::Map::new();
            line.insert("select".to_owned(), select.into());
            for (n, column) in columns.iter().enumerate() {
                line.insert(column.clone(), json(row.get_ref(n)?));
            }
            let _infallible = writeln!(self.notes, "{}", serde_json::Value::Object(line));
        }
        Ok(())
    }

    /// Makes durable what was noted.
    pub(super) fn keep_notes(&mut self) -> Result<(), StoreError> {
        let notes = std::mem::take(&mut self.notes);
        self.append("rows.jsonl", notes.as_bytes())
    }

    /// Gives a database a second name here: its own is about to be another's.
    pub(super) fn keep_database(&mut self, path: &Path) -> Result<(), StoreError> {
        self.make()?;
        let there = |name: &PathBuf| name.exists();
        let names = (1..).map(|n| if n == 1 { "mailworker.db".to_owned() } else { format!("mailworker.db.{n}") });
        let Some(to) = names.map(|name| self.directory.join(name)).find(|name| !there(name)) else { return Ok(()) };
        let failed =
            |error: std::io::Error| StoreError::io(&format!("link {} to {}", path.display(), to.display()), &error);
        File::open(path).and_then(|file| file.sync_all()).map_err(failed)?;
        std::fs::hard_link(path, &to).map_err(failed)?;
        directory::sync(&self.directory)
    }

    /// What is left of a message's octets.
    pub(super) fn keep_octets(&mut self, id: MessageId, octets: &[u8]) -> Result<(), StoreError> {
        self.append(&format!("{id}.octets"), octets)
    }

    fn append(&mut self, name: &str, octets: &[u8]) -> Result<(), StoreError> {
        if octets.is_empty() {
            return Ok(());
        }
        self.make()?;
        let path = self.directory.join(name);
        let failed = |error: std::io::Error| StoreError::io(&format!("write {}", path.display()), &error);
        let mut file = directory::append(&path).map_err(failed)?;
        file.write_all(octets).and_then(|()| file.sync_all()).map_err(failed)?;
        directory::sync(&self.directory)
    }

    /// Moves a segment's file here.
    pub(in crate::store) fn keep_segment(&mut self, segment: i64) -> Result<(), StoreError> {
        self.make()?;
        let (name, to) = (spool::file_name(segment), &self.directory);
        let (from, to) = (self.spool.join(&name), to.join(&name));
        let failed =
            |error: std::io::Error| StoreError::io(&format!("move {} to {}", from.display(), to.display()), &error);
        File::open(&from).and_then(|file| file.sync_all()).map_err(failed)?;
        std::fs::rename(&from, &to).map_err(failed)?;
        directory::sync(&self.directory)?;
        directory::sync(&self.spool)
    }
}

fn json(value: ValueRef<'_>) -> serde_json::Value {
    match value {
        ValueRef::Null => serde_json::Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(octets) => String::from_utf8_lossy(octets).into(),
        ValueRef::Blob(octets) => {
            let mut text = String::with_capacity(octets.len() * 2);
            for octet in octets {
                let _infallible = write!(text, "{octet:02x}");
            }
            text.into()
        }
    }
}
