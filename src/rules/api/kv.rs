//! A KV namespace: `get`, `get_with_metadata`, `put`, `delete`, `list`, `increment`.
//!
//! Reads see the run's own writes, then what is committed; every answer of the store is recorded, to be checked at
//! commit. An `increment` reads nothing, so it never calls for a second run; reading the key afterwards does read it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rhai::{Array, Dynamic, Engine, ImmutableString, Map, NativeCallContext};
use serde_json::Value as Json;

use super::bounds::Bounds;
use super::options::{self, Options};
use super::run::{Handler, Run, ScriptResult, State, refuse};
use super::value;
use crate::kv::{Entry, Key, MAX_KEY, MAX_LIST, MAX_METADATA, MAX_VALUE, MIN_TTL, Page, Read, Value, Write};
use crate::mail::Timestamp;
use crate::rules::outcome::Place;

/// Questions to the store in one run.
const MAX_READS: usize = 1000;
/// The version of what this run itself wrote; never recorded.
const STAGED: u64 = u64::MAX;

/// What a run has read and written so far.
#[derive(Debug, Default)]
pub struct Staging {
    pub reads: Vec<Read>,
    pub writes: Vec<Write>,
    /// The place of each write.
    pub writes_at: Vec<Place>,
    keys: BTreeMap<(String, String), Staged>,
}

#[derive(Debug, Clone)]
enum Staged {
    /// Put, or read and added to.
    Is(Entry),
    Deleted,
    /// Added to without having been read.
    Added(i64),
}

/// `env.NAME`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KvNamespace {
    name: Arc<str>,
    run: Arc<Run>,
}

impl KvNamespace {
    #[must_use]
    pub fn new(name: String, run: Arc<Run>) -> Self {
        Self { name: name.into(), run }
    }

    fn staged(&self, key: &str) -> (String, String) {
        (self.name.to_string(), key.to_owned())
    }

    /// The key as this run sees it.
    fn entry(&self, context: &NativeCallContext, key: &str) -> ScriptResult<Option<Entry>> {
        check_key(context, key)?;
        let staged = self.run.state().kv.keys.get(&self.staged(key)).cloned();
        let by = match staged {
            Some(Staged::Is(entry)) => return Ok(Some(entry)),
            Some(Staged::Deleted) => return Ok(None),
            Some(Staged::Added(by)) => Some(by),
            None => None,
        };
        self.count_read(context)?;
        let answer = self.run.keys(|keys| keys.get(&self.name, key, self.run.now));
        let found = answer.map_err(|error| self.run.overrun(context, format!("KV {}: {error}", self.name)))?;
        let version = found.as_ref().map(|entry| entry.version);
        let (namespace, key) = self.staged(key);
        let mut state = self.run.state();
        state.kv.record(Read::Key { namespace: namespace.clone(), key: key.clone(), version });
        let Some(by) = by else { return Ok(found) };
        let entry = added(context, &self.name, &key, found, by)?;
        state.kv.keys.insert((namespace, key), Staged::Is(entry.clone()));
        Ok(Some(entry))
    }

    fn count_read(&self, context: &NativeCallContext) -> ScriptResult<()> {
        if self.run.state().kv.reads.len() < MAX_READS {
            return Ok(());
        }
        Err(self.run.overrun(context, format!("more than {MAX_READS} reads of KV in one run")))
    }

    /// Room and right for one more write.
    fn writing(&self, context: &NativeCallContext, key: &str) -> ScriptResult<()> {
        if !matches!(self.run.handler, Handler::Email | Handler::Happening(_)) {
            let handler = self.run.handler.name();
            let text = format!("{handler} reads KV and writes nothing: no message has come yet; write in email");
            return Err(refuse(context, text));
        }
        check_key(context, key)?;
        self.run.count_action(context)
    }

    fn write(&self, context: &NativeCallContext, write: Write, key: &str, staged: Staged) {
        let at = self.run.place(context);
        let mut state = self.run.state();
        state.kv.writes.push(write);
        state.kv.writes_at.push(at);
        state.kv.keys.insert(self.staged(key), staged);
    }
}

impl Staging {
    /// Once is enough for what was read before and hasn't changed since.
    pub(super) fn record(&mut self, read: Read) {
        if !self.reads.contains(&read) {
            self.reads.push(read);
        }
    }
}

/// All take the namespace by value, as `message.headers`' functions do.
pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<KvNamespace>("KV namespace");
    engine.register_fn("get", get);
    engine.register_fn("get_with_metadata", get_with_metadata);
    engine.register_fn("put", put);
    engine.register_fn("put", put_with);
    engine.register_fn("delete", delete);
    engine.register_fn("list", |context: NativeCallContext, kv: KvNamespace| list(context, kv, Map::new()));
    engine.register_fn("list", list);
    engine.register_fn("increment", |context: NativeCallContext, kv: KvNamespace, key: ImmutableString| {
        increment(context, kv, key, 1)
    });
    engine.register_fn("increment", increment);
}

fn check_key(context: &NativeCallContext, key: &str) -> ScriptResult<()> {
    if key.is_empty() {
        return Err(refuse(context, "a KV key can't be empty"));
    }
    if key.len() > MAX_KEY {
        return Err(refuse(context, format!("a KV key is at most {MAX_KEY} octets, this one has {}", key.len())));
    }
    Ok(())
}

fn get(context: NativeCallContext, kv: KvNamespace, key: ImmutableString) -> ScriptResult<Dynamic> {
    let entry = kv.entry(&context, &key)?;
    Ok(entry.map_or(Dynamic::UNIT, |entry| value::from_kv(&entry.value, Bounds::of(&context))))
}

fn get_with_metadata(context: NativeCallContext, kv: KvNamespace, key: ImmutableString) -> ScriptResult<Map> {
    let entry = kv.entry(&context, &key)?;
    let metadata = entry.as_ref().and_then(|entry| entry.metadata.as_ref()).map_or(Dynamic::UNIT, value::from_json);
    let value = entry.map_or(Dynamic::UNIT, |entry| value::from_kv(&entry.value, Bounds::of(&context)));
    Ok(Map::from([("value".into(), value), ("metadata".into(), metadata)]))
}

fn put(context: NativeCallContext, kv: KvNamespace, key: ImmutableString, value: Dynamic) -> ScriptResult<()> {
    put_with(context, kv, key, value, Map::new())
}

fn put_with(
    context: NativeCallContext,
    kv: KvNamespace,
    key: ImmutableString,
    value: Dynamic,
    options: Map,
) -> ScriptResult<()> {
    kv.writing(&context, &key)?;
    let say = |why: String| refuse(&context, format!("put {key:?}: {why}"));
    let value = value::to_kv(&value).map_err(say)?;
    let size = value::kv_size(&value);
    if size > MAX_VALUE {
        return Err(say(format!("a value is at most {MAX_VALUE} octets, this one has {size}")));
    }
    let (metadata, expires_at) = put_options(options, kv.run.now).map_err(say)?;
    let entry = Entry { value: value.clone(), metadata: metadata.clone(), expires_at, version: STAGED };
    let write = Write::Put { namespace: kv.name.to_string(), key: key.to_string(), value, metadata, expires_at };
    kv.write(&context, write, &key, Staged::Is(entry));
    Ok(())
}

fn put_options(options: Map, now: Timestamp) -> Result<(Option<Json>, Option<Timestamp>), String> {
    let mut options = Options::new(options, options::PUT)?;
    let metadata = options.take("metadata").map(|value| value::to_json(&value)).transpose()?;
    if let Some(size) = metadata.as_ref().map(value::json_size).filter(|size| *size > MAX_METADATA) {
        return Err(format!("metadata is at most {MAX_METADATA} octets of JSON, this has {size}"));
    }
    let ttl = options.integer("expiration_ttl")?;
    let at = options.integer("expiration")?;
    let earliest = now.plus(Duration::from_secs(MIN_TTL));
    let expires_at = match (ttl, at) {
        (Some(_), Some(_)) => return Err("give expiration_ttl or expiration, not both".to_owned()),
        (Some(seconds), None) => {
            let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds >= MIN_TTL);
            let seconds = seconds.ok_or_else(|| format!("expiration_ttl is in seconds, at least {MIN_TTL}"))?;
            Some(now.plus(Duration::from_secs(seconds)))
        }
        (None, Some(seconds)) => {
            let at = Timestamp::from_millis(seconds.saturating_mul(1000));
            if at < earliest {
                let why = format!("in Unix seconds, and at least {MIN_TTL} seconds from now ({})", now.as_secs());
                return Err(format!("expiration is {why}"));
            }
            Some(at)
        }
        (None, None) => None,
    };
    Ok((metadata, expires_at))
}

fn delete(context: NativeCallContext, kv: KvNamespace, key: ImmutableString) -> ScriptResult<()> {
    kv.writing(&context, &key)?;
    let write = Write::Delete { namespace: kv.name.to_string(), key: key.to_string() };
    kv.write(&context, write, &key, Staged::Deleted);
    Ok(())
}

fn increment(context: NativeCallContext, kv: KvNamespace, key: ImmutableString, by: i64) -> ScriptResult<()> {
    kv.writing(&context, &key)?;
    let staged = kv.run.state().kv.keys.get(&kv.staged(&key)).cloned();
    let staged = match staged {
        None => Staged::Added(by),
        Some(Staged::Added(before)) => {
            Staged::Added(before.checked_add(by).ok_or_else(|| refuse(&context, beyond(&kv.name, &key)))?)
        }
        Some(Staged::Deleted) => Staged::Is(added(&context, &kv.name, &key, None, by)?),
        Some(Staged::Is(entry)) => Staged::Is(added(&context, &kv.name, &key, Some(entry), by)?),
    };
    let write = Write::Increment { namespace: kv.name.to_string(), key: key.to_string(), by };
    kv.write(&context, write, &key, staged);
    Ok(())
}

fn beyond(namespace: &str, key: &str) -> String {
    format!("increment {namespace} {key:?}: the sum is beyond 64 bits")
}

/// The entry as it is once `by` is added; what was kept beside the value stays.
fn added(
    context: &NativeCallContext,
    namespace: &str,
    key: &str,
    entry: Option<Entry>,
    by: i64,
) -> ScriptResult<Entry> {
    let before = match entry.as_ref().map(|entry| &entry.value) {
        None => 0,
        Some(Value::Json(json)) if json.is_i64() => json.as_i64().unwrap_or_default(),
        Some(_) => return Err(refuse(context, format!("increment {namespace} {key:?}: it holds no integer"))),
    };
    let sum = before.checked_add(by).ok_or_else(|| refuse(context, beyond(namespace, key)))?;
    let (metadata, expires_at) = entry.map_or((None, None), |entry| (entry.metadata, entry.expires_at));
    Ok(Entry { value: Value::Json(sum.into()), metadata, expires_at, version: STAGED })
}

fn list(context: NativeCallContext, kv: KvNamespace, options: Map) -> ScriptResult<Map> {
    let say = |why: String| refuse(&context, format!("list: {why}"));
    let mut options = Options::new(options, options::LIST).map_err(say)?;
    let prefix = options.text("prefix").map_err(say)?.unwrap_or_default();
    let cursor = options.text("cursor").map_err(say)?;
    let limit = options.integer("limit").map_err(say)?.map_or(Some(MAX_LIST), |limit| usize::try_from(limit).ok());
    let limit = limit.filter(|limit| (1..=MAX_LIST).contains(limit));
    let limit = limit.ok_or_else(|| say(format!("limit is from 1 to {MAX_LIST}")))?;
    kv.count_read(&context)?;
    let answer = kv.run.keys(|keys| keys.list(&kv.name, &prefix, cursor.as_deref(), limit, kv.run.now));
    let page = answer.map_err(|error| kv.run.overrun(&context, format!("KV {}: {error}", kv.name)))?;
    let seen = page.keys.iter().map(|key| (key.name.clone(), key.version)).collect();
    let namespace = kv.name.to_string();
    let mut state = kv.run.state();
    state.kv.record(Read::List { namespace, prefix: prefix.clone(), cursor: cursor.clone(), limit, seen });
    Ok(listing(with_own(&state, &kv.name, page, (&prefix, cursor.as_deref()), limit)))
}

/// The store's page with the run's own writes laid over it.
fn with_own(state: &State, namespace: &str, page: Page, (prefix, cursor): (&str, Option<&str>), limit: usize) -> Page {
    let complete = page.cursor.is_none();
    // What comes after the last key of a page that isn't the last belongs to a later one.
    let last = page.cursor.clone().filter(|_| !complete);
    let mut keys: BTreeMap<String, Key> = page.keys.into_iter().map(|key| (key.name.clone(), key)).collect();
    for ((of, name), staged) in &state.kv.keys {
        let within = of == namespace
            && name.starts_with(prefix)
            && cursor.is_none_or(|cursor| name.as_str() > cursor)
            && last.as_ref().is_none_or(|last| name <= last);
        if !within {
            continue;
        }
        let key = |metadata, expires_at| Key { name: name.clone(), metadata, expires_at, version: STAGED };
        match staged {
            Staged::Is(entry) => {
                keys.insert(name.clone(), key(entry.metadata.clone(), entry.expires_at));
            }
            Staged::Deleted => {
                keys.remove(name);
            }
            Staged::Added(_) => {
                keys.entry(name.clone()).or_insert_with(|| key(None, None));
            }
        }
    }
    let more = keys.len() > limit;
    let keys: Vec<Key> = keys.into_values().take(limit).collect();
    let cursor = if more { keys.last().map(|key| key.name.clone()) } else { last };
    Page { keys, cursor }
}

fn listing(page: Page) -> Map {
    let key = |key: Key| {
        let expiration = key.expires_at.map_or(Dynamic::UNIT, |at| Dynamic::from(at.as_secs()));
        let metadata = key.metadata.as_ref().map_or(Dynamic::UNIT, value::from_json);
        let fields =
            [("name".into(), key.name.into()), ("expiration".into(), expiration), ("metadata".into(), metadata)];
        Dynamic::from_map(Map::from(fields))
    };
    let complete = page.cursor.is_none();
    Map::from([
        ("keys".into(), Dynamic::from_array(page.keys.into_iter().map(key).collect::<Array>())),
        ("list_complete".into(), complete.into()),
        ("cursor".into(), page.cursor.map_or(Dynamic::UNIT, Dynamic::from)),
    ])
}
