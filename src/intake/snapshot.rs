//! What is in force: configuration and rules, immutable, swapped as a whole. A session keeps the one it began with.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::rules::Release;

/// One state of the configuration and the workers compiled for it.
pub struct Snapshot {
    pub config: Arc<Config>,
    pub release: Arc<Release>,
}

/// The snapshot in force.
#[derive(Clone)]
pub struct Current(Arc<ArcSwap<Snapshot>>);

impl Current {
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(snapshot)))
    }

    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    pub fn swap(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }
}
