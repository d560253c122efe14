//! The log (tracing) and the metrics (Prometheus), both fed by [`Event`]s alone, so that they can't disagree.
//!
//! Input: every event of the bus, and levels that are read when somebody asks ([`level`], [`gauges`]). Output: lines on
//! stderr, and Prometheus' text format. Must never log a body or a secret (events hold none), let a peer's octets
//! forge or break a line (they are quoted and escaped), or make a metric's label of an address, a host or a text.
//! [`record`] is on the hot path: it formats nothing that the filter leaves out and looks no metric up by name.

mod allowance;
mod lines;
mod log;
mod metrics;
mod plain;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::event::Event;

use lines::Lines;
pub use lines::flush;
pub use metrics::{Level, level, prometheus};

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
    let directives = directives(filter)?;
    let colour = colour.unwrap_or_else(|| std::io::stderr().is_terminal()) && format == LogFormat::Text;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(directives)
        .with_writer(Lines::new())
        .with_target(false)
        .with_ansi(colour);
    let done = match format {
        LogFormat::Text if colour => builder.finish().try_init(),
        LogFormat::Text => builder.event_format(plain::Plain).finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).finish().try_init(),
    };
    done.map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(panicked));
    Ok(())
}

/// A panic is a line like others: Rust's own message would break a log of JSON, and wait for a reader that stands still.
fn panicked(panic: &std::panic::PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("no text");
    tracing::error!(place = panic.location().map(tracing::field::display), text, "panicked");
}

/// A bare word that is no level would be taken for the name of a program's part, and switch the log off without a word.
fn directives(filter: &str) -> Result<EnvFilter, String> {
    let is_part = |word: &str| word.contains(['=', '[', ':']) || word == env!("CARGO_PKG_NAME");
    let words = filter.split(',').map(str::trim);
    let stray = words.into_iter().find(|word| !is_part(word) && word.parse::<LevelFilter>().is_err());
    if let Some(word) = stray {
        let levels = "error, warn, info, debug, trace or off";
        return Err(format!(
            "the log level {word:?}: expected {levels}, or a filter as in `info,mailworker::delivery=debug`"
        ));
    }
    EnvFilter::try_new(filter).map_err(|error| format!("the log filter {filter:?}: {error}"))
}

/// Logs and counts one event.
pub fn record(event: &Event) {
    metrics::count(event);
    log::write(event);
}

/// Takes over what the store counts; called every few seconds, whatever happens, so that what a flood's end left
/// untold is told as well.
pub fn gauges(gauges: &crate::store::Gauges) {
    metrics::gauges(gauges);
    log::tell_kept_back(crate::clock::now());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_and_the_levels_are_named() {
        for wrong in ["warning", "verbose", "9", "info,loud", "mailworker=loud"] {
            assert!(directives(wrong).is_err(), "{wrong}");
        }
        assert!(directives("warning").unwrap_err().contains("error, warn, info, debug, trace"));
        for right in ["info", "WARN", "off", "3", "mailworker=debug", "info,mailworker::delivery=debug", "mailworker"] {
            assert!(directives(right).is_ok(), "{right}");
        }
    }
}
