//! A log line as text: `2026-11-24T19:08:17.123456Z  INFO received session=7 ip=192.0.2.1`, as tracing's own formatter
//! writes it without colours, at a quarter of its cost (it was a tenth of what a message takes of our own code).
//!
//! **Invariant**: what comes from outside neither breaks nor forges a line. Texts are quoted and escaped; in all else,
//! control characters are escaped.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes an event as one line.
pub(super) struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(line, "{:.6}", jiff::Timestamp::now())?;
        line.write_str(match *event.metadata().level() {
            Level::ERROR => " ERROR",
            Level::WARN => "  WARN",
            Level::INFO => "  INFO",
            Level::DEBUG => " DEBUG",
            Level::TRACE => " TRACE",
        })?;
        let mut fields = Fields { line: &mut line, done: Ok(()) };
        event.record(&mut fields);
        fields.done?;
        line.write_char('\n')
    }
}

struct Fields<'a, 'b> {
    line: &'a mut Writer<'b>,
    done: fmt::Result,
}

impl Fields<'_, '_> {
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let done = self.done.and_then(|()| {
            self.line.write_char(' ')?;
            // The sentence itself goes without its name.
            if field.name() != "message" {
                self.line.write_str(field.name())?;
                self.line.write_char('=')?;
            }
            value(self.line)
        });
        self.done = done;
    }
}

impl Visit for Fields<'_, '_> {
    fn record_str(&mut self, field: &Field, text: &str) {
        let is_plain = |octet: u8| matches!(octet, b' '..=b'~') && !matches!(octet, b'"' | b'\\');
        self.field(field, |line| {
            if field.name() == "message" {
                return Careful(line).write_str(text);
            }
            if !text.bytes().all(is_plain) {
                return write!(line, "{text:?}");
            }
            line.write_char('"')?;
            line.write_str(text)?;
            line.write_char('"')
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.field(field, |line| write!(Careful(line), "{value:?}"));
    }
}

/// Escapes control characters.
struct Careful<'a, 'b>(&'a mut Writer<'b>);

impl Write for Careful<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !text.contains(char::is_control) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|character| {
            if character.is_control() {
                write!(self.0, "{}", character.escape_default())
            } else {
                self.0.write_char(character)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines of `telling`, by tracing's own formatter and by ours.
    fn both(telling: impl Fn()) -> [String; 2] {
        [false, true].map(|ours| {
            let sink = Sink::default();
            let made = sink.clone();
            let builder = tracing_subscriber::fmt()
                .with_writer(move || made.clone())
                .with_ansi(false)
                .with_target(false)
                .with_max_level(Level::TRACE);
            if ours {
                tracing::subscriber::with_default(builder.event_format(Plain).finish(), &telling);
            } else {
                tracing::subscriber::with_default(builder.finish(), &telling);
            }
            String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
        })
    }

    #[test]
    fn lines_are_as_tracings_own_formatter_writes_them() {
        let [theirs, ours] = both(|| {
            let (none, ip) = (None::<u64>, std::net::Ipv4Addr::LOCALHOST);
            tracing::error!(session = 7_u64, none, %ip, ?ip, is = true, below = -1_i64, text = "it's plain", "a sentence");
            tracing::warn!(text = "\"quoted\" and \\ and\ta tab, ü", empty = "", "another");
            tracing::info!("alone");
            tracing::debug!(share = 0.5, "a part");
            tracing::trace!(text = "x");
        });
        let (theirs, ours): (Vec<_>, Vec<_>) = (theirs.lines().collect(), ours.lines().collect());
        assert_eq!(theirs.len(), 5);
        assert_eq!(ours.len(), 5);
        for (theirs, ours) in theirs.into_iter().zip(ours) {
            let ((their_time, theirs), (our_time, ours)) =
                (theirs.split_once('Z').unwrap(), ours.split_once('Z').unwrap());
            assert_eq!(theirs, ours);
            // As far as the minute, and as exact.
            assert_eq!((their_time.len(), &their_time[..11]), (our_time.len(), &our_time[..11]));
        }
    }

    #[test]
    fn control_characters_neither_break_a_line_nor_reach_a_terminal() {
        let [_, ours] = both(|| {
            let evil = "a\nb\x1b[31m\u{9b}c";
            tracing::info!(%evil, text = evil, "{evil}");
        });
        assert_eq!(ours.lines().count(), 1, "{ours}");
        assert!(!ours.trim_end().contains(char::is_control), "{ours}");
    }
}
