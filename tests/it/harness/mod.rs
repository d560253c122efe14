//! What the black-box tests stand on: the built executable on ports of its own choosing in a directory of its own,
//! clients that speak to it, and servers it speaks to, all on loopback.
//!
//! Nothing here sleeps: whatever is awaited is awaited on a condition, with [`DEADLINE`] as its bound.

pub mod certificate;
pub mod command;
pub mod dns;
pub mod geo;
pub mod http;
pub mod lines;
pub mod points;
pub mod server;
pub mod setup;
pub mod sink;
pub mod smtp;
pub mod stranger;
pub mod watched;
pub mod web;

use std::time::Duration;

pub use certificate::Certificate;
pub use dns::Dns;
pub use http::HttpSink;
pub use points::Points;
pub use server::Server;
pub use setup::Setup;
pub use sink::SmtpSink;
pub use smtp::{Client, Reply};
pub use web::{Says, Web};

/// How long anything may take before a test gives it up. Generous: the machine may be busy; nothing waits it out but failures.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A small message with this subject and text, CRLF throughout.
pub fn mail(subject: &str, text: &str) -> Vec<u8> {
    format!(
        "From: Ann Author <ann@example.org>\r\nTo: Support <support@example.com>\r\nSubject: {subject}\r\n\
         Date: Mon, 23 Nov 2026 09:15:02 +0000\r\nMessage-ID: <{subject}@example.org>\r\n\r\n{text}\r\n"
    )
    .into_bytes()
}

/// Whether `haystack` contains `needle`.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
