//! The store by its public face: what it promises, also after a crash, damage, a full queue or a second process.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[path = "store/harness.rs"]
mod harness;

#[path = "store/accepting.rs"]
mod accepting;
#[path = "store/checking.rs"]
mod checking;
#[path = "store/claiming.rs"]
mod claiming;
#[path = "store/copying.rs"]
mod copying;
#[path = "store/keeping.rs"]
mod keeping;
#[path = "store/keys.rs"]
mod keys;
#[path = "store/killing.rs"]
mod killing;
#[path = "store/large.rs"]
mod large;
#[path = "store/mishaps.rs"]
mod mishaps;
#[path = "store/opening.rs"]
mod opening;
#[path = "store/settling.rs"]
mod settling;
