//! All that happened, as one number: two runs of one seed must come to the same.

use std::fmt::Write as _;
use std::path::Path;

pub struct Transcript {
    digest: u64,
    /// What differs from run to run and says nothing: where the data lies.
    room: String,
    /// Every line is printed, too: its beginning (`TRACE=1`) or all of it (`TRACE=2`).
    printed: bool,
    whole: bool,
}

impl Transcript {
    pub fn new(room: &Path) -> Self {
        let asked = std::env::var("TRACE").unwrap_or_default();
        let (printed, whole) = (!asked.is_empty(), asked == "2");
        Self { digest: 0xcbf2_9ce4_8422_2325, room: room.to_string_lossy().into_owned(), printed, whole }
    }

    pub fn note(&mut self, now: u64, what: u64, kind: &str, octets: &[u8]) {
        for octet in now.to_be_bytes().iter().chain(&what.to_be_bytes()).chain(kind.as_bytes()).chain(octets) {
            self.digest = (self.digest ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.printed {
            let mut line = format!("{:>10}.{:03} {what:>4} {kind} ", now / 1000, now % 1000);
            let shown = &octets[..octets.len().min(if self.whole { usize::MAX } else { 160 })];
            let _infallible = write!(line, "{}", shown.escape_ascii());
            println!("{line}");
        }
    }

    /// An event, as it is stored.
    pub fn without_room(&self, text: &str) -> String {
        text.replace(&self.room, "")
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }
}
