//! A stack on which no script within its budget runs out: calls, expressions and values nest, and Rust recurses by them.
//!
//! An overflow would end the process, so the room is reckoned from the budget. It is address space, of which only what
//! is used becomes memory. A thread that was begun with [`THREAD`] has room for the default budget; on others, and for
//! larger budgets, a stack is mapped for the one run and given back after it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::engine::{Budget, MAX_EXPRESSION};

const BASE: usize = 4 * 1024 * 1024;
/// For one expression inside another, and for one value inside another (there can be as many as arrays and maps may
/// have elements). An unoptimised build has larger frames.
const EXPRESSION: usize = if cfg!(debug_assertions) { 8 * 1024 } else { 4 * 1024 };
const VALUE: usize = if cfg!(debug_assertions) { 12 * 1024 } else { 4 * 1024 };
const MOST: usize = 4 * 1024 * 1024 * 1024;

/// Stack of a thread that runs scripts of the default budget without a stack of their own: their room, and what their
/// callers use.
pub const THREAD: usize = room(&Budget::DEFAULT) + 4 * 1024 * 1024;

/// What a script within `budget` can need.
const fn room(budget: &Budget) -> usize {
    let expressions = budget.call_depth.saturating_add(1).saturating_mul(MAX_EXPRESSION).saturating_mul(EXPRESSION);
    let values = budget.array_size.saturating_add(budget.map_size).saturating_mul(VALUE);
    let size = BASE.saturating_add(expressions).saturating_add(values);
    if size < MOST { size } else { MOST }
}

/// Does `work` where there is room for it.
///
/// # Errors
/// It panicked, or there is no address space.
pub(super) fn with_room<T>(budget: &Budget, work: impl FnOnce() -> T) -> Result<T, &'static str> {
    let size = room(budget);
    catch_unwind(AssertUnwindSafe(|| stacker::maybe_grow(size, size, work)))
        .map_err(|_panic| "the engine panicked, or there was no memory to run the script in: please report it")
}
