//! The built executable from outside: one file for each capability, all over the harness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

mod harness;

mod abused;
mod author;
mod canary;
mod changes;
mod command_line;
mod counted;
mod decide;
mod deliver;
mod dev;
// Its kills come from within: a library that is loaded before the C library.
#[cfg(target_os = "linux")]
mod durability;
mod ends;
mod environments;
mod example;
mod explain;
mod handlers;
mod large;
mod limits;
mod log;
mod observe;
mod origin;
mod outside;
mod outside_abused;
mod patterns;
mod payloads;
mod promised;
mod proved;
mod quarantine;
mod receive;
mod refuse;
mod relay;
mod releases;
mod reload;
mod replay;
mod replies;
mod routes;
mod rule_happenings;
mod rule_outside;
mod rule_scripts;
mod rule_tests;
mod scheduled;
mod secrets;
mod sender;
mod session;
mod stop;
mod store;
mod tls;
mod trigger;
mod troubled;
mod written;
