//! Where log lines go: standard error, a few at a time, since a write for each would cost more than the line itself.
//!
//! A warning or an error is written at once, with all that came before it; the rest within [`WAIT`], by a thread of its
//! own. Only a process that is killed loses what it said in that time (the messages' own traces are in the store).
//! Never grows beyond [`MOST`]: whoever brings the last line writes them all, and waits for a reader that is slow.

use std::io::{self, IsTerminal, Write};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line waits for others.
const WAIT: Duration = Duration::from_millis(50);
/// Octets that wait.
const MOST: usize = 32 * 1024;

/// The lines of this process that wait.
struct Waiting {
    octets: Mutex<Vec<u8>>,
    /// There are some, where there were none.
    some: Condvar,
}

static WAITING: OnceLock<Waiting> = OnceLock::new();

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.octets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &[u8], now: bool) -> io::Result<()> {
        let mut octets = self.lock();
        let first = octets.is_empty();
        octets.extend_from_slice(line);
        if now || octets.len() >= MOST {
            return write_out(&mut octets);
        }
        if first {
            self.some.notify_one();
        }
        Ok(())
    }

    /// Writes out what waits, again and again.
    fn write_for_ever(&self) -> ! {
        loop {
            drop(self.some.wait_while(self.lock(), |octets| octets.is_empty()));
            std::thread::sleep(WAIT);
            // Nobody is left to be told.
            let _stderr_is_gone = write_out(&mut self.lock());
        }
    }
}

fn write_out(octets: &mut Vec<u8>) -> io::Result<()> {
    let written = io::stderr().write_all(octets);
    octets.clear();
    written
}

/// Writes out what waits, before the process ends.
pub fn flush() {
    if let Some(waiting) = WAITING.get() {
        let _stderr_is_gone = write_out(&mut waiting.lock());
    }
}

/// What the formatter writes its lines with.
pub(super) struct Lines {
    /// `None`: each is written as it comes, to somebody who looks on.
    waiting: Option<&'static Waiting>,
}

impl Lines {
    /// Gathered, unless standard error is a terminal or there is no thread to be had for it.
    pub(super) fn new() -> Self {
        if io::stderr().is_terminal() {
            return Self { waiting: None };
        }
        let waiting = WAITING.get_or_init(|| Waiting { octets: Mutex::default(), some: Condvar::new() });
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(|| waiting.write_for_ever());
        Self { waiting: thread.is_ok().then_some(waiting) }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { waiting: self.waiting, now: true }
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Line {
        Line { waiting: self.waiting, now: *line.level() <= Level::WARN }
    }
}

/// One line on its way.
pub(super) struct Line {
    waiting: Option<&'static Waiting>,
    now: bool,
}

impl Write for Line {
    /// The formatter writes a line as a whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.waiting {
            Some(waiting) => waiting.add(line, self.now)?,
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
