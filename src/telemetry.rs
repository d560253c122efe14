//! The log (tracing) and the metrics (Prometheus), both fed by [`Event`]s alone, so that they can't disagree.
//!
//! Input: every event of the bus, and levels that are read when somebody asks ([`level`], [`gauges`]). Output: lines on
//! stderr, and Prometheus' text format. Must never log a body or a secret (events hold none), let a peer's octets
//! forge or break a line (they are quoted and escaped), or make a metric's label of an address, a host or a text.
//! [`record`] is on the hot path: it formats nothing that the filter leaves out and looks no metric up by name.

mod lines;
mod log;
mod metrics;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::event::Event;

use lines::Lines;
pub use lines::flush;
pub use metrics::{Level, gauges, level, prometheus};

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends log lines to stderr from here on. `filter` is a level (`info`) or tracing's directives; `colour` for text
/// alone, `None`: where stderr is a terminal. Done once a process; a second time is an error.
///
/// # Errors
/// The filter is malformed, or a log is already there.
pub fn init(format: LogFormat, filter: &str, colour: Option<bool>) -> Result<(), String> {
    let directives = EnvFilter::try_new(filter).map_err(|error| format!("the log filter {filter:?}: {error}"))?;
    let colour = colour.unwrap_or_else(|| std::io::stderr().is_terminal());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(directives)
        .with_writer(Lines::new())
        .with_target(false)
        .with_ansi(colour && format == LogFormat::Text);
    let done = match format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).finish().try_init(),
    };
    done.map_err(|error| error.to_string())
}

/// Logs and counts one event.
pub fn record(event: &Event) {
    metrics::count(event);
    log::write(event);
}
