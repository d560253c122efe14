//! What came in and isn't used yet: command lines cut out of it, or octets of a message handed on.
//!
//! Only CRLF ends a line (RFC 5321 §2.3.8). A line too long is thrown away as it comes, and a bare LF makes its line
//! wrong up to the next CRLF, so that no two readers of one stream can differ about where a command starts.
//! However the stream is split into pushes, the lines are the same. Input: the peer's octets. Output: [`Line`]s.

use memchr::{memchr, memrchr};

/// Longest line with its CRLF: RFC 5321 §4.5.3.1.4 gives 512, and the extensions' parameters add to it.
pub const MAX_LINE: usize = 2048;

/// The type of a TLS record that begins a handshake; no command begins with it.
const HANDSHAKE: u8 = 0x16;

/// The octets that wait.
#[derive(Debug, Default)]
pub struct Input {
    buffer: Vec<u8>,
    /// Where the first octet that isn't used yet stands.
    at: usize,
    skipping: Skipping,
}

/// Whether the line that is being read is lost already.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Skipping {
    #[default]
    Nothing,
    TooLong,
    BareLf,
}

/// One line, or what was there in place of one.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// With its CRLF.
    Text(&'a [u8]),
    /// Beyond [`MAX_LINE`]; all of it is gone.
    TooLong,
    /// What begins here is a TLS handshake in the clear (RFC 8446 §5.1), which has no line's end to wait for.
    Handshake,
    /// A LF without its CR. What follows up to the next CRLF belongs to it and is thrown away.
    BareLf,
}

impl Input {
    pub fn push(&mut self, octets: &[u8]) {
        if self.at == self.buffer.len() {
            self.clear_used();
        } else if self.at >= self.buffer.len() / 2 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(octets);
    }

    pub fn len(&self) -> usize {
        self.buffer.len() - self.at
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it, for the body of a message.
    pub fn octets(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    pub fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.buffer.len());
        if self.at == self.buffer.len() {
            self.clear_used();
        }
    }

    /// Forgets everything, half a line included.
    pub fn clear(&mut self) {
        self.clear_used();
        self.skipping = Skipping::Nothing;
    }

    fn clear_used(&mut self) {
        self.buffer.clear();
        self.at = 0;
    }

    /// The next line; `None` while it isn't whole.
    pub fn next_line(&mut self) -> Option<Line<'_>> {
        loop {
            let rest = self.octets();
            if self.skipping == Skipping::Nothing && rest.first() == Some(&HANDSHAKE) {
                return Some(Line::Handshake);
            }
            let Some(lf) = memchr(b'\n', rest) else {
                self.drop_lost_line();
                return None;
            };
            let ends_in_crlf = lf > 0 && rest.get(lf - 1) == Some(&b'\r');
            let too_long = lf >= MAX_LINE;
            match self.skipping {
                Skipping::Nothing if !too_long && ends_in_crlf => {
                    let start = self.at;
                    self.at += lf + 1;
                    return self.buffer.get(start..=start + lf).map(Line::Text);
                }
                Skipping::Nothing if too_long && !ends_in_crlf => self.skipping = Skipping::TooLong,
                Skipping::Nothing if too_long => return self.end_lost_line(lf, Some(Line::TooLong)),
                Skipping::Nothing => {
                    self.skipping = Skipping::BareLf;
                    self.consume(lf + 1);
                    return Some(Line::BareLf);
                }
                Skipping::TooLong if ends_in_crlf => return self.end_lost_line(lf, Some(Line::TooLong)),
                Skipping::TooLong => {}
                Skipping::BareLf if ends_in_crlf => {
                    self.skipping = Skipping::Nothing;
                }
                Skipping::BareLf => {
                    self.consume(lf + 1);
                    return Some(Line::BareLf);
                }
            }
            self.consume(lf + 1);
        }
    }

    fn end_lost_line(&mut self, lf: usize, line: Option<Line<'static>>) -> Option<Line<'static>> {
        self.skipping = Skipping::Nothing;
        self.consume(lf + 1);
        line
    }

    /// There is no LF: what is too long already, or lost, isn't kept. A CR at its end may be the first half of a CRLF.
    fn drop_lost_line(&mut self) {
        if self.skipping == Skipping::Nothing && self.len() > MAX_LINE {
            self.skipping = Skipping::TooLong;
        }
        if self.skipping != Skipping::Nothing {
            let ends_in_cr = memrchr(b'\r', self.octets()).is_some_and(|at| at + 1 == self.len());
            self.consume(self.len() - usize::from(ends_in_cr));
        }
    }
}
