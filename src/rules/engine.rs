//! The Rhai engine, its limits, and one run of a handler.

use std::time::Duration;

/// What one run may use.
#[derive(Debug, Clone)]
pub struct Budget {
    pub operations: u64,
    pub wall_clock: Duration,
    pub string_size: usize,
    pub array_size: usize,
    pub map_size: usize,
    pub call_depth: usize,
    pub actions: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            operations: 1_000_000,
            wall_clock: Duration::from_secs(5),
            string_size: 1024 * 1024,
            array_size: 10_000,
            map_size: 10_000,
            call_depth: 64,
            actions: 100,
        }
    }
}
