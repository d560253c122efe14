//! What the second recipient's run of one message sees of KV: what is committed, and what the first one wrote.
//!
//! The runs of one message commit together, in order; so each must see the earlier ones' writes, and at commit only
//! what was read *below* those writes is checked.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::kv::{Entry, Key, Page, Read, Value, View, ViewError, Write};
use crate::mail::Timestamp;
use crate::rules::KvView;

/// A version that no committed key has: the entry comes from an earlier run.
const STAGED: u64 = u64::MAX;

type Name = (String, String);

#[derive(Default)]
struct Staged {
    /// `None`: deleted.
    keys: BTreeMap<Name, Option<Entry>>,
    /// What was read below the staged keys on behalf of a run.
    below: Vec<Read>,
}

/// A view with the earlier runs' writes laid over it.
pub struct Overlay {
    base: KvView,
    staged: Mutex<Staged>,
}

impl Overlay {
    pub fn new(base: KvView) -> Self {
        Self { base, staged: Mutex::default() }
    }

    /// A run's reads as they are to be checked: without those that an earlier run's write answered, with those
    /// that were made below.
    pub fn settle_reads(&self, reads: Vec<Read>) -> Vec<Read> {
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        let below = std::mem::take(&mut staged.below);
        let committed = |read: &Read| match read {
            Read::Key { namespace, key, .. } => !staged.keys.contains_key(&(namespace.clone(), key.clone())),
            Read::List { namespace, .. } => !staged.keys.keys().any(|(name, _)| name == namespace),
        };
        reads.into_iter().filter(committed).chain(below).collect()
    }

    /// Lays a run's writes over the view.
    pub fn add(&self, writes: &[Write]) {
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        for write in writes {
            match write {
                Write::Put { namespace, key, value, metadata, expires_at } => {
                    let entry = Entry {
                        value: value.clone(),
                        metadata: metadata.clone(),
                        expires_at: *expires_at,
                        version: STAGED,
                    };
                    staged.keys.insert((namespace.clone(), key.clone()), Some(entry));
                }
                Write::Delete { namespace, key } => {
                    staged.keys.insert((namespace.clone(), key.clone()), None);
                }
                Write::Increment { namespace, key, by } => self.add_increment(&mut staged, namespace, key, *by),
            }
        }
    }

    fn add_increment(&self, staged: &mut Staged, namespace: &str, key: &str, by: i64) {
        let name = (namespace.to_owned(), key.to_owned());
        let below = match staged.keys.get(&name) {
            Some(entry) => entry.clone(),
            None => self.base.get(namespace, key, Timestamp::default()).ok().flatten(),
        };
        let count = match below.as_ref().map(|entry| &entry.value) {
            Some(Value::Json(number)) => number.as_i64().unwrap_or(0),
            _ => 0,
        };
        let entry = Entry {
            value: Value::Json(count.saturating_add(by).into()),
            metadata: below.as_ref().and_then(|entry| entry.metadata.clone()),
            expires_at: below.as_ref().and_then(|entry| entry.expires_at),
            version: STAGED,
        };
        staged.keys.insert(name, Some(entry));
    }
}

impl View for Overlay {
    fn get(&self, namespace: &str, key: &str, now: Timestamp) -> Result<Option<Entry>, ViewError> {
        let staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = staged.keys.get(&(namespace.to_owned(), key.to_owned())) {
            return Ok(entry.clone());
        }
        drop(staged);
        self.base.get(namespace, key, now)
    }

    fn list(
        &self,
        namespace: &str,
        prefix: &str,
        cursor: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page, ViewError> {
        let mut page = self.base.list(namespace, prefix, cursor, limit, now)?;
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        if !staged.keys.keys().any(|(name, _)| name == namespace) {
            return Ok(page);
        }
        staged.below.push(Read::List {
            namespace: namespace.to_owned(),
            prefix: prefix.to_owned(),
            cursor: cursor.map(ToOwned::to_owned),
            limit,
            seen: page.keys.iter().map(|key| (key.name.clone(), key.version)).collect(),
        });
        let complete = page.cursor.is_none();
        let last = page.keys.last().map(|key| key.name.clone());
        let mut merged: BTreeMap<String, Key> = page.keys.into_iter().map(|key| (key.name.clone(), key)).collect();
        for ((name, key), entry) in &staged.keys {
            let within = name == namespace
                && key.starts_with(prefix)
                && cursor.is_none_or(|cursor| key.as_str() > cursor)
                && (complete || last.as_ref().is_some_and(|last| key <= last));
            if !within {
                continue;
            }
            match entry {
                Some(entry) => {
                    let key_entry = Key {
                        name: key.clone(),
                        metadata: entry.metadata.clone(),
                        expires_at: entry.expires_at,
                        version: entry.version,
                    };
                    merged.insert(key.clone(), key_entry);
                }
                None => {
                    merged.remove(key);
                }
            }
        }
        let more = merged.len() > limit;
        page.keys = merged.into_values().take(limit).collect();
        page.cursor =
            if more || !complete { page.keys.last().map(|key| key.name.clone()).or(page.cursor) } else { None };
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct Fixed;
    impl View for Fixed {
        fn get(&self, _: &str, key: &str, _: Timestamp) -> Result<Option<Entry>, ViewError> {
            let entry = Entry { value: Value::Json(7.into()), metadata: None, expires_at: None, version: 3 };
            Ok((key == "n").then_some(entry))
        }
        fn list(&self, _: &str, _: &str, _: Option<&str>, _: usize, _: Timestamp) -> Result<Page, ViewError> {
            let key = |name: &str| Key { name: name.into(), metadata: None, expires_at: None, version: 3 };
            Ok(Page { keys: vec![key("a"), key("c")], cursor: None })
        }
    }

    fn overlay(writes: &[Write]) -> Arc<Overlay> {
        let overlay = Arc::new(Overlay::new(Arc::new(Fixed)));
        overlay.add(writes);
        overlay
    }

    #[test]
    fn a_later_run_sees_what_an_earlier_one_wrote() {
        let put = Write::Put {
            namespace: "N".into(),
            key: "b".into(),
            value: Value::Text("x".into()),
            metadata: None,
            expires_at: None,
        };
        let delete = Write::Delete { namespace: "N".into(), key: "a".into() };
        let count = Write::Increment { namespace: "N".into(), key: "n".into(), by: 2 };
        let overlay = overlay(&[put, delete, count]);
        let now = Timestamp::default();
        assert_eq!(overlay.get("N", "b", now).unwrap().unwrap().value, Value::Text("x".into()));
        assert_eq!(overlay.get("N", "a", now).unwrap(), None);
        assert_eq!(overlay.get("N", "n", now).unwrap().unwrap().value, Value::Json(9.into()));
        let names: Vec<_> = overlay.list("N", "", None, 10, now).unwrap().keys.into_iter().map(|k| k.name).collect();
        assert_eq!(names, ["b", "c", "n"]);
    }

    #[test]
    fn only_what_was_read_below_is_checked() {
        let overlay = overlay(&[Write::Delete { namespace: "N".into(), key: "a".into() }]);
        let mine = Read::Key { namespace: "N".into(), key: "a".into(), version: None };
        let committed = Read::Key { namespace: "N".into(), key: "z".into(), version: None };
        assert_eq!(overlay.settle_reads(vec![mine, committed.clone()]), [committed]);
        overlay.list("N", "", None, 10, Timestamp::default()).unwrap();
        let reads = overlay.settle_reads(Vec::new());
        assert!(matches!(reads.as_slice(), [Read::List { seen, .. }] if seen.len() == 2), "{reads:?}");
    }
}
