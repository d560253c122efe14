//! Endpoints that answered 410: each is left alone, over restarts too, until an admin tries again or its URL changes.
//!
//! Known by the digest of their URL, for that may be a key; kept in a namespace of the store that no worker can name.
//! Standards: Standard Webhooks (410 disables an endpoint).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{PoisonError, RwLock};

use ring::digest::{SHA256, digest};
use url::Url;

use crate::aside;
use crate::clock;
use crate::event::shown_url;
use crate::kv;
use crate::mail::Timestamp;
use crate::store::{Store, StoreError};

/// No binding has a `/`.
const NAMESPACE: &str = "mailworker/gone";
/// Endpoints that are remembered, one page of a list; any further one is asked by each delivery.
const MOST: usize = kv::MAX_LIST;

/// Since when, by digest.
#[derive(Debug, Default)]
pub struct Gone {
    since: RwLock<HashMap<String, String>>,
}

impl Gone {
    /// When `url` said so, if it did.
    #[must_use]
    pub fn since(&self, url: &Url) -> Option<String> {
        let since = self.since.read().unwrap_or_else(PoisonError::into_inner);
        // Nearly always.
        if since.is_empty() {
            return None;
        }
        since.get(&name(url)).cloned()
    }

    /// `url` has said so now: what is to be stored with the outcome, once.
    #[must_use]
    pub fn note(&self, url: &Url, now: Timestamp) -> Option<kv::Write> {
        let (key, at) = (name(url), now.to_string());
        let mut since = self.since.write().unwrap_or_else(PoisonError::into_inner);
        if since.len() >= MOST || since.insert(key.clone(), at.clone()).is_some() {
            return None;
        }
        let value = kv::Value::Text(shown_url(url.as_str()));
        Some(kv::Write::Put {
            namespace: NAMESPACE.to_owned(),
            key,
            value,
            metadata: Some(at.into()),
            expires_at: None,
        })
    }

    /// As it was stored.
    ///
    /// # Errors
    /// What the store says.
    pub async fn recall(&self, store: &Store) -> Result<(), StoreError> {
        let (view, now) = (store.kv(), clock::now());
        let read = aside::run(move || view.list(NAMESPACE, "", None, MOST, now));
        let failed = |why: String| StoreError::Failed(format!("the endpoints that said 410 can't be read: {why}"));
        let page = read.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
        let at = |key: &kv::Key| key.metadata.as_ref().and_then(|at| at.as_str()).unwrap_or_default().to_owned();
        let mut since = self.since.write().unwrap_or_else(PoisonError::into_inner);
        since.extend(page.keys.into_iter().map(|key| (key.name.clone(), at(&key))));
        Ok(())
    }

    /// All are asked again.
    ///
    /// # Errors
    /// What the store says.
    pub async fn forget(&self, store: &Store) -> Result<(), StoreError> {
        let known = std::mem::take(&mut *self.since.write().unwrap_or_else(PoisonError::into_inner));
        if known.is_empty() {
            return Ok(());
        }
        let writes = known.into_keys().map(|key| kv::Write::Delete { namespace: NAMESPACE.to_owned(), key });
        store.kv_write(writes.collect(), clock::now()).await
    }
}

fn name(url: &Url) -> String {
    digest(&SHA256, url.as_str().as_bytes()).as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _infallible = write!(hex, "{byte:02x}");
        hex
    })
}
