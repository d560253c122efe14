//! An SMTP reply: code, enhanced status and text, of which class and retry are one fact.
//!
//! Only the code and the two lower parts of the status are stored; the status' class is derived from the code,
//! so a temporary reply can't carry a `5.x.x` (RFC 3463 §2, RFC 2034 §4).

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

use serde::{Deserialize, Serialize};

/// Characters of text in one line: with code, status and CRLF below the 512 octets of RFC 5321 §4.5.3.1.5.
const MAX_TEXT: usize = 480;
/// Lines of one reply.
const MAX_LINES: usize = 100;

/// What is said to a client, or what a server said to us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// Subject and detail of the enhanced status; its class is the code's first digit.
    pub status: Option<(u16, u16)>,
    /// One or several lines, parted by `\n`.
    pub text: Cow<'static, str>,
}

impl Reply {
    /// `code`, `class.subject.detail` and text.
    #[must_use]
    pub fn new(code: u16, subject: u16, detail: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, status: Some((subject, detail)), text: text.into() }
    }

    /// Without an enhanced status: the greeting, EHLO, and the 3xx (RFC 2034 §4).
    #[must_use]
    pub fn bare(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, status: None, text: text.into() }
    }

    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// 4xx: try again.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// 5xx: never.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// As in `5.7.1`, if there is one.
    #[must_use]
    pub fn enhanced(&self) -> Option<String> {
        self.status.map(|(subject, detail)| format!("{}.{subject}.{detail}", self.code / 100))
    }

    /// The reply as it goes over the wire, every line with its CRLF (RFC 5321 §4.2.1, RFC 2034 §3).
    ///
    /// A text can come from a script or a peer: a control character becomes a blank and ends no line, what isn't ASCII
    /// becomes `?` (RFC 5321 §4.2), a long line is parted (§4.5.3.1.5), and of very many lines the rest is left out.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut lines = self.text.split('\n').flat_map(parted).take(MAX_LINES).peekable();
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { '-' } else { ' ' };
            let _infallible = write!(out, "{:03}{separator}", self.code);
            if let Some((subject, detail)) = self.status {
                let _infallible = write!(out, "{}.{subject}.{detail} ", self.code / 100);
            }
            out.extend(line.chars().map(|character| match character {
                ' '..='~' => character as u8,
                control if control.is_control() => b' ',
                _ => b'?',
            }));
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// A line in pieces of at most [`MAX_TEXT`] characters; an empty line is one piece.
fn parted(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        match line.char_indices().nth(MAX_TEXT) {
            Some((at, _)) => {
                let space = line.get(..at).and_then(|start| start.rfind(' ')).filter(|space| *space > 0);
                let cut = space.map_or(at, |space| space + 1);
                rest = line.get(cut..);
                line.get(..cut)
            }
            None => rest.take(),
        }
    })
}

/// As on the wire, its lines joined by ` / `.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some((subject, detail)) = self.status {
            write!(f, " {}.{subject}.{detail}", self.code / 100)?;
        }
        write!(f, " {}", self.text.replace('\n', " / "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_line_has_the_code_and_the_status() {
        let reply = Reply::new(550, 7, 1, "No.\nReally not.");
        assert_eq!(wire(&reply), "550-5.7.1 No.\r\n550 5.7.1 Really not.\r\n");
        assert_eq!(reply.to_string(), "550 5.7.1 No. / Really not.");
        assert_eq!(wire(&Reply::bare(354, "")), "354 \r\n");
    }

    #[test]
    fn a_temporary_reply_cannot_carry_a_permanent_status() {
        let reply = Reply::new(451, 3, 0, "Later");
        assert_eq!(reply.enhanced().as_deref(), Some("4.3.0"));
        assert!(reply.is_temporary() && !reply.is_permanent() && !reply.is_positive());
    }

    #[test]
    fn no_text_can_forge_a_second_reply() {
        assert_eq!(wire(&Reply::bare(550, "a\r\u{0}b\u{85}")), "550 a  b \r\n");
        assert_eq!(wire(&Reply::bare(550, "Empf\u{e4}nger")), "550 Empf?nger\r\n");
    }

    #[test]
    fn long_texts_are_parted_and_bounded() {
        let long = wire(&Reply::new(550, 7, 1, "word ".repeat(300)));
        assert!(long.lines().all(|line| line.len() <= 510 && line.starts_with("550")));
        assert!(long.starts_with("550-5.7.1 word") && long.matches("word").count() == 300);
        let endless = wire(&Reply::new(550, 7, 1, "x".repeat(1_000_000)));
        assert_eq!(endless.lines().count(), MAX_LINES);
        assert!(endless.lines().last().unwrap().starts_with("550 "));
    }
}
