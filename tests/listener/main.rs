//! The listener over real sockets, with a table for intake: who is let in, what ends a session, what TLS and PROXY do.
//!
//! Nothing sleeps: a test waits for a reply, an event or the end of a session, and fails when it doesn't come.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client;
mod server;

mod ends;
mod limits;
mod narrow;
mod proxy;
mod tls;
