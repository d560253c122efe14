//! What a worker reads from and writes to its key-value namespaces: the words that rules and store share.
//!
//! Pure. `rules` reads through [`View`] and returns [`Read`]s and [`Write`]s; `store` implements the view, and at
//! commit checks the reads and applies the writes. Neither knows the other.

use serde::{Deserialize, Serialize};

use crate::mail::Timestamp;

/// Longest key, in octets.
pub const MAX_KEY: usize = 512;
/// Largest value, in octets.
pub const MAX_VALUE: usize = 25 * 1024 * 1024;
/// Largest metadata, in octets of JSON.
pub const MAX_METADATA: usize = 1024;
/// Most keys that one `list` returns.
pub const MAX_LIST: usize = 1000;
/// The shortest time to live, in seconds.
pub const MIN_TTL: u64 = 60;

/// Where it is kept who has had an answer. No binding has a `/`, so no worker can name it.
pub const REPLIES: &str = "mailworker/replies";
/// When each cron ran last, in the same way.
pub const SCHEDULED: &str = "mailworker/scheduled";

/// `get` returns what was put, of the same type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    Text(String),
    Blob(Vec<u8>),
    /// Anything else that is JSON: maps, arrays, numbers, booleans.
    Json(serde_json::Value),
}

/// One stored key.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub value: Value,
    pub metadata: Option<serde_json::Value>,
    pub expires_at: Option<Timestamp>,
    /// Changes with every write of the key; never 0.
    pub version: u64,
}

/// One key of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    pub name: String,
    pub metadata: Option<serde_json::Value>,
    pub expires_at: Option<Timestamp>,
    pub version: u64,
}

/// A listing's page: keys by octet order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    pub keys: Vec<Key>,
    /// Where the next page starts (the last key of this one); `None` where this page completes the list.
    pub cursor: Option<String>,
}

/// What a run asks of a namespace. Expired keys are absent. Called from a blocking thread.
pub trait View: Send + Sync {
    /// # Errors
    /// What the store says of its own trouble.
    fn get(&self, namespace: &str, key: &str, now: Timestamp) -> Result<Option<Entry>, ViewError>;
    /// Keys that start with `prefix`, after `cursor`, at most `limit`.
    ///
    /// # Errors
    /// What the store says of its own trouble.
    fn list(
        &self,
        namespace: &str,
        prefix: &str,
        cursor: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page, ViewError>;
    /// Counts one against a limit, at once. A view without effects counts nothing, and allows it.
    fn count(&self, limit: &Limit<'_>) -> Counted {
        let per = i64::try_from(limit.per).unwrap_or(i64::MAX).max(1);
        let end = (limit.now.as_millis().div_euclid(per) + 1).saturating_mul(per);
        Counted { allowed: true, remaining: limit.most.saturating_sub(1), reset_at: Timestamp::from_millis(end) }
    }
}

/// What is asked of a limit.
#[derive(Debug, Clone, Copy)]
pub struct Limit<'a> {
    pub name: &'a str,
    pub key: &'a str,
    pub most: u32,
    /// Milliseconds.
    pub per: u64,
    pub now: Timestamp,
    /// The same where the same run asks again: it counts once.
    pub once: u64,
}

/// And what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    pub allowed: bool,
    /// How many more there may be in this period.
    pub remaining: u32,
    /// When all may be had again at the latest.
    pub reset_at: Timestamp,
}

/// The store could not answer; the run fails and the sender tries again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ViewError(pub String);

/// What a run has seen, to be checked when it commits.
#[derive(Debug, Clone, PartialEq)]
pub enum Read {
    /// The key's version as read; `None`: it was absent.
    Key { namespace: String, key: String, version: Option<u64> },
    /// A listing, by its question and the names and versions of the answer.
    List { namespace: String, prefix: String, cursor: Option<String>, limit: usize, seen: Vec<(String, u64)> },
}

/// What a run wants written; applied in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Write {
    Put {
        namespace: String,
        key: String,
        value: Value,
        metadata: Option<serde_json::Value>,
        expires_at: Option<Timestamp>,
    },
    Delete {
        namespace: String,
        key: String,
    },
    /// Adds to an integer (absent: 0) at commit, so that no concurrent one is lost. Keeps the key's expiry.
    Increment {
        namespace: String,
        key: String,
        by: i64,
    },
}
