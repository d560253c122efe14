//! What the runs of a handler found out about its calls: which function a name means with arguments of these types.
//!
//! Rhai looks that up in a dozen packages, and remembers it for the length of one run. What a run remembers holds for all
//! runs of the same statements, since their files have no names between them that mean two things (see
//! `check::clashes`), unless an import brings methods of a type, which are found by any file from then on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rhai::Caches;

/// How many calls are remembered: a script may make up names as it goes.
const MOST: usize = 4096;

/// What was found, once for each run that is under way at a time.
pub(super) struct Lookups {
    found: Mutex<Vec<Caches>>,
    last: bool,
}

impl Lookups {
    /// `last`: longer than one run.
    pub fn new(last: bool) -> Self {
        Self { found: Mutex::default(), last }
    }

    /// Does `work` with what is known.
    pub fn lend<T>(&self, work: impl FnOnce(&mut Caches) -> T) -> T {
        if !self.last {
            return work(&mut Caches::new());
        }
        let mut known = self.found().pop().unwrap_or_default();
        let result = work(&mut known);
        known.rewind_fn_resolution_caches(1);
        if known.fn_resolution_cache_mut().dict.len() <= MOST {
            self.found().push(known);
        }
        result
    }

    fn found(&self) -> MutexGuard<'_, Vec<Caches>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
