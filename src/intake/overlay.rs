//! What the second recipient's run of one message sees of KV: what is committed, and what the first one wrote.
//!
//! The runs of one message commit together, in order; so each must see the earlier ones' writes, and at commit only
//! what was read *below* those writes is checked. What an earlier run added to blindly is read when a later one asks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::kv::{Counted, Entry, Key, Limit, Page, Read, Value, View, ViewError, Write};
use crate::mail::Timestamp;
use crate::rules::KvView;

/// A version that no committed key has: the entry comes from an earlier run.
const STAGED: u64 = u64::MAX;

type Name = (String, String);

#[derive(Default)]
struct Staged {
    keys: BTreeMap<Name, Laid>,
    /// What was read below the staged keys on behalf of a run.
    below: Vec<Read>,
}

/// What lies over a key.
#[derive(Debug, Clone)]
enum Laid {
    Is(Entry),
    Deleted,
    /// Added to without having been read: what it holds is what lies below and this.
    Added(i64),
}

impl Staged {
    /// Once is enough, as often as it is asked for.
    fn read_below(&mut self, read: Read) {
        if !self.below.contains(&read) {
            self.below.push(read);
        }
    }
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

    fn staged(&self) -> MutexGuard<'_, Staged> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run's reads as they are to be checked: without those that an earlier run's write answered, with those
    /// that were made below.
    pub fn settle_reads(&self, reads: Vec<Read>) -> Vec<Read> {
        let mut staged = self.staged();
        let below = std::mem::take(&mut staged.below);
        let committed = |read: &Read| match read {
            Read::Key { namespace, key, .. } => !staged.keys.contains_key(&(namespace.clone(), key.clone())),
            Read::List { namespace, .. } => !staged.keys.keys().any(|(name, _)| name == namespace),
        };
        reads.into_iter().filter(committed).chain(below).collect()
    }

    /// Lays a run's writes over the view.
    pub fn add(&self, writes: &[Write]) {
        let mut staged = self.staged();
        for write in writes {
            let (name, laid) = match write {
                Write::Put { namespace, key, value, metadata, expires_at } => {
                    let (value, metadata) = (value.clone(), metadata.clone());
                    let entry = Entry { value, metadata, expires_at: *expires_at, version: STAGED };
                    ((namespace.clone(), key.clone()), Laid::Is(entry))
                }
                Write::Delete { namespace, key } => ((namespace.clone(), key.clone()), Laid::Deleted),
                Write::Increment { namespace, key, by } => {
                    let name = (namespace.clone(), key.clone());
                    let laid = match staged.keys.get(&name) {
                        Some(Laid::Is(entry)) => Laid::Is(added(Some(entry.clone()), *by)),
                        Some(Laid::Deleted) => Laid::Is(added(None, *by)),
                        Some(Laid::Added(before)) => Laid::Added(before.saturating_add(*by)),
                        None => Laid::Added(*by),
                    };
                    (name, laid)
                }
            };
            staged.keys.insert(name, laid);
        }
    }
}

/// The entry as it is once `by` is added; what was kept beside the value stays. What is no integer is refused at commit.
fn added(entry: Option<Entry>, by: i64) -> Entry {
    let before = match entry.as_ref().map(|entry| &entry.value) {
        Some(Value::Json(number)) => number.as_i64().unwrap_or(0),
        _ => 0,
    };
    let (metadata, expires_at) = entry.map_or((None, None), |entry| (entry.metadata, entry.expires_at));
    Entry { value: Value::Json(before.saturating_add(by).into()), metadata, expires_at, version: STAGED }
}

impl View for Overlay {
    fn count(&self, limit: &Limit<'_>) -> Counted {
        self.base.count(limit)
    }

    fn get(&self, namespace: &str, key: &str, now: Timestamp) -> Result<Option<Entry>, ViewError> {
        let laid = self.staged().keys.get(&(namespace.to_owned(), key.to_owned())).cloned();
        let by = match laid {
            Some(Laid::Is(entry)) => return Ok(Some(entry)),
            Some(Laid::Deleted) => return Ok(None),
            Some(Laid::Added(by)) => by,
            None => return self.base.get(namespace, key, now),
        };
        // Read for this run, which decides by it: no blind increment any more.
        let below = self.base.get(namespace, key, now)?;
        let version = below.as_ref().map(|entry| entry.version);
        self.staged().read_below(Read::Key { namespace: namespace.to_owned(), key: key.to_owned(), version });
        Ok(Some(added(below, by)))
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
        let mut staged = self.staged();
        if !staged.keys.keys().any(|(name, _)| name == namespace) {
            return Ok(page);
        }
        staged.read_below(Read::List {
            namespace: namespace.to_owned(),
            prefix: prefix.to_owned(),
            cursor: cursor.map(ToOwned::to_owned),
            limit,
            seen: page.keys.iter().map(|key| (key.name.clone(), key.version)).collect(),
        });
        let complete = page.cursor.is_none();
        let last = page.keys.last().map(|key| key.name.clone());
        let mut merged: BTreeMap<String, Key> = page.keys.into_iter().map(|key| (key.name.clone(), key)).collect();
        for ((name, key), laid) in &staged.keys {
            let within = name == namespace
                && key.starts_with(prefix)
                && cursor.is_none_or(|cursor| key.as_str() > cursor)
                && (complete || last.as_ref().is_some_and(|last| key <= last));
            if !within {
                continue;
            }
            let listed = |metadata, expires_at| Key { name: key.clone(), metadata, expires_at, version: STAGED };
            match laid {
                Laid::Is(entry) => {
                    merged.insert(key.clone(), listed(entry.metadata.clone(), entry.expires_at));
                }
                Laid::Deleted => {
                    merged.remove(key);
                }
                Laid::Added(_) => {
                    merged.entry(key.clone()).or_insert_with(|| listed(None, None));
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

    const EXPIRY: Timestamp = Timestamp::from_millis(1000);

    struct Fixed;
    impl View for Fixed {
        fn get(&self, _: &str, key: &str, now: Timestamp) -> Result<Option<Entry>, ViewError> {
            let expires_at = (key == "brief").then_some(EXPIRY);
            let entry = Entry { value: Value::Json(7.into()), metadata: None, expires_at, version: 3 };
            let lives = expires_at.is_none_or(|at| at > now);
            Ok((key == "n" || key == "brief").then_some(entry).filter(|_| lives))
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

    fn increment(key: &str, by: i64) -> Write {
        Write::Increment { namespace: "N".into(), key: key.into(), by }
    }

    fn read(key: &str, version: Option<u64>) -> Read {
        Read::Key { namespace: "N".into(), key: key.into(), version }
    }

    #[test]
    fn what_a_blind_increment_was_added_to_is_checked_once_a_later_run_reads_it() {
        let overlay = overlay(&[increment("n", 1)]);
        assert_eq!(overlay.settle_reads(Vec::new()), [], "nobody has read it");
        overlay.add(&[increment("n", 1)]);
        let seen = [(); 2].map(|()| overlay.get("N", "n", EXPIRY).unwrap().unwrap().value);
        assert_eq!(seen, [Value::Json(9.into()), Value::Json(9.into())]);
        // As the run recorded it.
        assert_eq!(overlay.settle_reads(vec![read("n", Some(STAGED))]), [read("n", Some(3))]);
        overlay.add(&[Write::Delete { namespace: "N".into(), key: "n".into() }, increment("n", 5)]);
        assert_eq!(overlay.get("N", "n", EXPIRY).unwrap().unwrap().value, Value::Json(5.into()));
        assert_eq!(overlay.settle_reads(Vec::new()), [], "nothing below it counts any more");
    }

    #[test]
    fn what_has_expired_counts_no_more() {
        let overlay = overlay(&[increment("brief", 1)]);
        let value = |now| overlay.get("N", "brief", now).unwrap().unwrap().value;
        assert_eq!(value(Timestamp::from_millis(999)), Value::Json(8.into()));
        assert_eq!(value(EXPIRY), Value::Json(1.into()));
        assert_eq!(overlay.settle_reads(Vec::new()), [read("brief", Some(3)), read("brief", None)]);
    }
}
