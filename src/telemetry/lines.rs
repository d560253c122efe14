//! Where log lines go: standard error, a few at a time, since a write for each would cost more than the line itself.
//!
//! Whoever logs only puts its line down; one thread writes. A warning or an error is written at once, with all that came
//! before it; the rest within [`WAIT`]. **Invariant**: nobody waits for whoever reads standard error. Where that one is
//! slow, stands still or is gone, lines beyond [`MOST`] are dropped and counted, and the log says so when it can.
//! Only a process that is killed loses what it said in that time (the messages' own traces are in the store).

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line waits for others.
const WAIT: Duration = Duration::from_millis(50);
/// Octets that are enough for a write of their own.
const ENOUGH: usize = 32 * 1024;
/// Octets that wait, at most.
const MOST: usize = 1024 * 1024;
/// How long the end of the process waits for whoever reads.
const FAREWELL: Duration = Duration::from_secs(2);
/// Before the next try at a pipe that is full and doesn't block.
const FULL: Duration = Duration::from_millis(10);

/// The lines of this process that wait.
#[derive(Default)]
struct Waiting {
    state: Mutex<State>,
    /// Some have come, or are to be written now.
    some: Condvar,
    /// All were written.
    none: Condvar,
}

#[derive(Default)]
struct State {
    octets: Vec<u8>,
    /// One of them doesn't wait for others.
    now: bool,
    /// Some were taken and aren't written yet.
    writing: bool,
    dropped: u64,
}

static WAITING: OnceLock<Waiting> = OnceLock::new();

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &[u8], now: bool) {
        let mut state = self.lock();
        if state.octets.len() + line.len() > MOST {
            state.dropped += 1;
            return;
        }
        let wakes = state.octets.is_empty() || (now && !state.now) || state.octets.len() >= ENOUGH;
        state.octets.extend_from_slice(line);
        state.now |= now;
        drop(state);
        if wakes {
            self.some.notify_one();
        }
    }

    /// Waits for lines, and a little longer for more; puts them into `taken`. How many were dropped before them.
    fn take(&self, taken: &mut Vec<u8>) -> u64 {
        let idle = |state: &mut State| state.octets.is_empty();
        let state = self.some.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let few = |state: &mut State| !state.now && state.octets.len() < ENOUGH;
        let waited = self.some.wait_timeout_while(state, WAIT, few);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        std::mem::swap(&mut state.octets, taken);
        state.now = false;
        state.writing = true;
        std::mem::take(&mut state.dropped)
    }

    fn written(&self) {
        self.lock().writing = false;
        self.none.notify_all();
    }

    /// Writes out what waits, again and again.
    fn write_for_ever(&self, mut out: impl Write) -> ! {
        let (mut taken, mut untold) = (Vec::new(), 0);
        loop {
            taken.clear();
            let dropped = self.take(&mut taken);
            let unwritten = write_out(&mut out, &taken);
            self.written();
            if dropped + unwritten > 0 {
                super::metrics::unlogged("stderr", dropped + unwritten);
                untold += dropped + unwritten;
            }
            // Where nobody reads, nobody can be told.
            if untold > 0 && unwritten == 0 {
                tracing::warn!(lines = untold, "lines dropped: standard error took no more");
                untold = 0;
            }
        }
    }

    /// Whether all was written within `limit`.
    fn flush(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        state.now = true;
        self.some.notify_one();
        while !state.octets.is_empty() || state.writing {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.none.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// How many lines couldn't be written.
fn write_out(out: &mut impl Write, mut octets: &[u8]) -> u64 {
    while !octets.is_empty() {
        match out.write(octets) {
            Ok(0) => break,
            Ok(written) => octets = octets.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Whoever started us shares it with something that made it so.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(FULL),
            Err(_gone) => break,
        }
    }
    octets.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()).count() as u64
}

/// Writes out what waits, before the process ends; not for ever, where nobody reads.
pub fn flush() {
    if let Some(waiting) = WAITING.get() {
        let _read_by_nobody = waiting.flush(FAREWELL);
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
        // A descriptor of its own: a write that stands still must not hold the lock of `io::stderr` against those that
        // print (a panic's message, the command line's errors).
        let Ok(out) = io::stderr().as_fd().try_clone_to_owned().map(File::from) else { return Self { waiting: None } };
        let waiting = WAITING.get_or_init(Waiting::default);
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(|| waiting.write_for_ever(out));
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
            Some(waiting) => waiting.add(line, self.now),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    /// Takes one write for each permission.
    struct Slow {
        permits: mpsc::Receiver<()>,
        read: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.permits.recv().map_err(io::Error::other)?;
            self.read.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn started() -> (&'static Waiting, mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let waiting: &'static Waiting = Box::leak(Box::default());
        let (permit, permits) = mpsc::channel();
        let read: Arc<Mutex<Vec<u8>>> = Arc::default();
        let slow = Slow { permits, read: Arc::clone(&read) };
        std::thread::spawn(move || waiting.write_for_ever(slow));
        (waiting, permit, read)
    }

    #[test]
    fn lines_are_written_in_order_and_all_of_them_at_the_end() {
        let (waiting, permit, read) = started();
        for _ in 0..1000 {
            permit.send(()).unwrap();
        }
        for n in 0..100 {
            waiting.add(format!("line {n}\n").as_bytes(), n % 10 == 0);
        }
        assert!(waiting.flush(Duration::from_secs(30)));
        let expected: Vec<String> = (0..100).map(|n| format!("line {n}\n")).collect();
        assert_eq!(String::from_utf8(read.lock().unwrap().clone()).unwrap(), expected.concat());
    }

    #[test]
    fn nobody_waits_for_a_reader_that_stands_still_and_what_is_dropped_is_counted() {
        let (waiting, permit, read) = started();
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        for _ in 0..4096 {
            waiting.add(&line, true);
        }
        assert!(waiting.lock().octets.len() <= MOST);
        assert!(waiting.lock().dropped > 0);
        assert!(!waiting.flush(Duration::from_millis(1)), "it is bounded, too");
        for _ in 0..100 {
            permit.send(()).unwrap();
        }
        assert!(waiting.flush(Duration::from_secs(30)));
        assert!(read.lock().unwrap().len() <= 2 * MOST);
        assert_eq!(waiting.lock().dropped, 0, "told");
    }

    #[test]
    fn lines_for_a_reader_that_is_gone_are_counted() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(write_out(&mut Gone, b"one\ntwo\n"), 2);
    }
}
